use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use r2d2_memcache::memcache::{
    Client, ClientError, CommandError, ConnectionManager, MemcacheError, ServerError,
};
use r2d2_memcache::r2d2::{ManageConnection, NopErrorHandler, Pool};
use scheduled_thread_pool::ScheduledThreadPool;

use super::address::Address;
use super::watch::{Line, Watch};

/// One connection, and whether it may be used again.
pub(super) struct Connection {
    /// A client whose own pool holds this one connection.
    pub(super) client: Client,
    pub(super) line: Line,
    /// A reply may still be on its way. The client does not notice (`has_broken` is always false):
    /// the next command would read it as its own.
    pub(super) doubtful: bool,
    /// How often the server had gone when this connection was made.
    pub(super) epoch: u64,
}

/// Makes connections, on threads of their own.
pub(super) struct Connector {
    pub(super) address: Address,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    /// Where the client dials; not where [`Connector::connect`] runs, which waits for it.
    pub(super) dialers: Arc<ScheduledThreadPool>,
    pub(super) watch: Arc<Watch>,
    pub(super) status: Arc<Status>,
}

/// What is known about a server.
#[derive(Debug, Default)]
pub(super) struct Status {
    /// Why the last attempt to connect failed, if it did. Others follow in the background, without
    /// end.
    down: Mutex<Option<String>>,
    /// How often the server closed a connection: those made before are as dead.
    pub(super) epoch: AtomicU64,
}

impl Status {
    pub(super) fn why_down(&self) -> Option<String> {
        // Nothing under this lock panics.
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.clone()
    }

    fn set_down(&self, why: Option<String>) {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

impl Connector {
    fn dial(&self) -> Result<(Client, Line), MemcacheError> {
        let deadline = Instant::now() + self.connect_timeout;
        self.address.probe(self.connect_timeout)?;
        // No check before use, which would be a round trip for each command; no ageing, since the
        // client would dial anew without asking us.
        let pool = Pool::builder()
            .max_size(1)
            .min_idle(Some(0))
            .test_on_check_out(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connection_timeout(self.connect_timeout)
            .error_handler(Box::new(NopErrorHandler))
            .thread_pool(Arc::clone(&self.dialers))
            .build_unchecked(ConnectionManager::new(self.address.url(self.timeout)));
        drop(pool.get_timeout(self.connect_timeout)?);
        let client = Client::with_pool(pool)?;
        let line = Line::of(&client, &self.watch, deadline)?;
        Ok((client, line))
    }
}

impl ManageConnection for Connector {
    type Connection = Connection;
    type Error = MemcacheError;

    fn connect(&self) -> Result<Connection, MemcacheError> {
        let epoch = self.status.epoch.load(Ordering::Acquire);
        let dialed = self.dial();
        let why = dialed.as_ref().err().map(ToString::to_string);
        self.status.set_down(why);
        let (client, line) = dialed?;
        Ok(Connection {
            client,
            line,
            doubtful: false,
            epoch,
        })
    }

    fn is_valid(&self, _connection: &mut Connection) -> Result<(), MemcacheError> {
        Ok(())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.doubtful
    }
}

/// What a failed command says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It answered, in full; the command just did not apply.
    Refused,
    /// It did not answer in time.
    Silent,
    /// It is closed.
    Gone,
    /// It answered something unexpected.
    Confused,
}

impl Fault {
    pub(super) fn of(error: &MemcacheError) -> Fault {
        match error {
            MemcacheError::CommandError(CommandError::KeyNotFound | CommandError::KeyExists) => {
                Fault::Refused
            }
            // Out of memory, or too large: an answer like any other.
            MemcacheError::ServerError(ServerError::Error(_)) => Fault::Refused,
            // What the server says; what the client itself says has no such prefix.
            MemcacheError::ClientError(ClientError::Error(text))
                if text.starts_with("CLIENT_ERROR") =>
            {
                Fault::Refused
            }
            MemcacheError::ClientError(ClientError::Error(text))
                if text.ends_with("no line found") =>
            {
                Fault::Gone
            }
            MemcacheError::IOError(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Fault::Silent,
                io::ErrorKind::InvalidData => Fault::Confused,
                _ => Fault::Gone,
            },
            _ => Fault::Confused,
        }
    }
}
