use std::pin::pin;
use std::rc::{Rc, Weak};

use actix_web::rt::spawn;
use actix_web::web::Bytes;
use actix_ws::AggregatedMessage;
use bytestring::ByteString;
use futures_util::future::select;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::connection::Connection;
use super::held::Held;
use super::spent::SendError;

/// Messages to one client, for whoever speaks to many of them and must not be held up by one. Made by
/// [`ThrottledSession::outbox`](crate::ThrottledSession::outbox).
///
/// ```
/// use std::sync::Mutex;
/// use traffik_actix::Outbox;
///
/// #[derive(Default)]
/// struct Room(Mutex<Vec<Outbox>>);
///
/// impl Room {
///     fn say(&self, text: &str) {
///         let Ok(mut all) = self.0.lock() else { return };
///         all.retain(|one| !one.is_closed());
///         for one in &*all {
///             let _ = one.text(text.to_owned()); // whoever has no room for it misses it
///         }
///     }
/// }
/// # Room::default().say("hello");
/// ```
///
/// It may be used on any thread. It keeps no connection open: once the connection's messages and sessions are dropped, it is
/// closed, and what is in it is lost. A message that a limit denies is dropped, as with
/// [`OnSpent::Discard`](crate::OnSpent), unless that closes the connection; so is one whose limit cannot be checked. Both
/// [count](crate::ThrottledSession::unsent).
#[derive(Clone, Debug)]
pub struct Outbox(mpsc::Sender<AggregatedMessage>);

impl Outbox {
    pub(super) fn open(held: &Rc<Held>, messages: usize) -> Outbox {
        let (sender, receiver) = mpsc::channel(messages.clamp(1, Semaphore::MAX_PERMITS));
        let (connection, mut gone) = (Rc::downgrade(&held.connection), held.gone());
        spawn(async move {
            let deliver = pin!(deliver(connection, receiver));
            // Also while a message waits for its turn, or for a client that reads nothing.
            select(pin!(gone.changed()), deliver).await;
        });
        Outbox(sender)
    }

    /// Puts a text in.
    ///
    /// # Errors
    ///
    /// If there is [no room](SendError::Full), or the connection is [closed](SendError::Closed).
    pub fn text(&self, text: impl Into<ByteString>) -> Result<(), SendError> {
        self.put(AggregatedMessage::Text(text.into()))
    }

    /// Puts a binary message in.
    ///
    /// # Errors
    ///
    /// As [`text`](Outbox::text).
    pub fn binary(&self, bytes: impl Into<Bytes>) -> Result<(), SendError> {
        self.put(AggregatedMessage::Binary(bytes.into()))
    }

    /// Whether nothing more is sent.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn put(&self, message: AggregatedMessage) -> Result<(), SendError> {
        self.0.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => SendError::Full,
            TrySendError::Closed(_) => SendError::Closed,
        })
    }
}

/// Sends what is put in, until the connection is closed.
async fn deliver(connection: Weak<Connection>, mut messages: mpsc::Receiver<AggregatedMessage>) {
    while let Some(message) = messages.recv().await {
        let Some(connection) = connection.upgrade() else {
            return;
        };
        // Not kept: it would hold the connection open.
        let mut session = connection.session.clone();
        match connection.send(&mut session, message).await {
            Err(SendError::Closed) => return,
            Err(SendError::Unchecked(error)) => {
                log::debug!("a message in an outbox was dropped: {error}");
                connection
                    .unsent
                    .set(connection.unsent.get().saturating_add(1));
            }
            Ok(()) | Err(_) => {}
        }
    }
}
