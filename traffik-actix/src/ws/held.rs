//! A connection as long as somebody needs it.

use std::cell::OnceCell;
use std::ops::Deref;
use std::rc::Rc;

use tokio::sync::watch;

use super::connection::Connection;

/// What messages and sessions have of a connection. An outbox has none of it, and ends with the last of them, whatever it
/// waits for meanwhile.
pub(super) struct Held {
    pub(super) connection: Rc<Connection>,
    /// Gone when this is.
    gone: OnceCell<watch::Sender<()>>,
}

impl Held {
    pub(super) fn new(connection: Rc<Connection>) -> Rc<Held> {
        Rc::new(Held {
            connection,
            gone: OnceCell::new(),
        })
    }

    /// Fails when this is gone.
    pub(super) fn gone(&self) -> watch::Receiver<()> {
        let gone = self.gone.get_or_init(|| watch::channel(()).0);
        gone.subscribe()
    }
}

impl Deref for Held {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}
