use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use r2d2_memcache::memcache::{Client, MemcacheError};
use r2d2_memcache::r2d2::{NopErrorHandler, Pool, PooledConnection};
use scheduled_thread_pool::ScheduledThreadPool;
use smallvec::SmallVec;

use super::address::Address;
use super::aside::{END_OF_VALUE, aside, ask};
use super::connection::{Connector, Fault, Status};
use super::watch::Watch;
use crate::error::{Error, Result};

/// A memcached server and the connections to it. Every method waits until the deadline it is
/// given, and no longer.
pub(super) struct Server {
    id: u64,
    pool: Pool<Connector>,
    status: Arc<Status>,
    watch: Arc<Watch>,
    connect_timeout: Duration,
}

/// Where connections are made, shared by all servers of a backend.
pub(super) struct Dialers {
    connectors: Arc<ScheduledThreadPool>,
    clients: Arc<ScheduledThreadPool>,
}

/// How a server is talked to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) pool_size: u32,
    pub(super) pool_min_idle: u32,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
}

/// What a counter says after an increment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    To(u64),
    Missing,
    /// What is stored is not a number.
    Impossible,
}

/// A stored value and the number of its last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) value: Vec<u8>,
    pub(super) unique: u64,
}

type Raw = (Vec<u8>, u32, Option<u64>);

/// Between attempts to connect in the background.
const RECONNECT: Duration = Duration::from_millis(100);

impl Dialers {
    pub(super) fn new(namespace: &str) -> Dialers {
        let threads = |name: &str| {
            let name = thread_name(namespace, name);
            let builder = ScheduledThreadPool::builder().num_threads(2);
            Arc::new(builder.thread_name_pattern(&name).build())
        };
        Dialers {
            connectors: threads("connect"),
            clients: threads("dial"),
        }
    }
}

impl Server {
    pub(super) fn new(
        address: Address,
        limits: Limits,
        dialers: &Dialers,
        watch: &Arc<Watch>,
    ) -> Server {
        let status = Arc::new(Status::default());
        let id = address.id();
        let pool = Pool::builder()
            .max_size(limits.pool_size)
            .min_idle(Some(limits.pool_min_idle))
            .test_on_check_out(false)
            .idle_timeout(None)
            .max_lifetime(None)
            // Used by r2d2 for nothing but the pause between attempts, half of it.
            .connection_timeout(2 * RECONNECT)
            .error_handler(Box::new(NopErrorHandler))
            .thread_pool(Arc::clone(&dialers.connectors))
            .build_unchecked(Connector {
                address,
                timeout: limits.timeout,
                connect_timeout: limits.connect_timeout,
                dialers: Arc::clone(&dialers.clients),
                watch: Arc::clone(watch),
                status: Arc::clone(&status),
            });
        Server {
            id,
            pool,
            status,
            watch: Arc::clone(watch),
            connect_timeout: limits.connect_timeout,
        }
    }

    /// How much this server wants a key: the one that wants it most keeps it, so that of all keys
    /// only those of a server that comes or goes move.
    /// <https://en.wikipedia.org/wiki/Rendezvous_hashing>
    pub(super) fn claim(&self, digest: u64) -> u64 {
        // The finisher of splitmix64, <https://prng.di.unimi.it/splitmix64.c>.
        let mut mixed = digest ^ self.id;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(super) fn increment(&self, name: &str, deadline: Instant) -> Result<Counted> {
        self.run(deadline, |client| match client.increment(name, 1) {
            Ok(value) => Ok(Counted::To(value)),
            Err(error) if Fault::of(&error) != Fault::Refused => Err(error),
            Err(MemcacheError::CommandError(_)) => Ok(Counted::Missing),
            Err(_) => Ok(Counted::Impossible),
        })
    }

    pub(super) fn get(&self, name: &str, deadline: Instant) -> Result<Option<Item>> {
        let raw = self.run(deadline, |client| client.get::<Raw>(name))?;
        Ok(raw.map(Item::from))
    }

    /// In the order of the names, with one command.
    pub(super) fn get_all(
        &self,
        names: &[String],
        deadline: Instant,
    ) -> Result<SmallVec<[Option<Item>; 3]>> {
        let borrowed: SmallVec<[&str; 3]> = names.iter().map(String::as_str).collect();
        let mut found = self.run(deadline, |client| client.gets::<Raw>(&borrowed))?;
        let in_order = names.iter().map(|name| found.remove(name).map(Item::from));
        Ok(in_order.collect())
    }

    /// Stores a value if there is none. The client does not tell whether it did.
    pub(super) fn add(
        &self,
        name: &str,
        value: &[u8],
        exptime: u32,
        deadline: Instant,
    ) -> Result<()> {
        self.run(deadline, |client| client.add(name, value, exptime))
    }

    /// Stores a value if the present one is still that of `unique`.
    ///
    /// If it had been executed before its connection broke, and is sent again, the second meets another
    /// number, and who then reads and writes anew does so twice: what gives something back is sent `once`.
    pub(super) fn replace(
        &self,
        name: &str,
        value: &[u8],
        exptime: u32,
        unique: u64,
        once: bool,
        deadline: Instant,
    ) -> Result<bool> {
        let command = |client: &Client| client.cas(name, value, exptime, unique);
        match once {
            true => self.attempt(deadline, &command)?.map_err(interrupted),
            false => self.run(deadline, command),
        }
    }

    pub(super) fn set(&self, name: &str, value: &str, deadline: Instant) -> Result<()> {
        self.run(deadline, |client| client.set(name, value, 0))
    }

    pub(super) fn delete(&self, name: &str, deadline: Instant) -> Result<bool> {
        self.run(deadline, |client| client.delete(name))
    }

    pub(super) fn version(&self, deadline: Instant) -> Result<()> {
        self.run(deadline, |client| client.version().map(drop))
    }

    /// How many items the server has evicted since it started, if it tells.
    pub(super) fn evictions(&self, deadline: Instant) -> Result<Option<u64>> {
        // The client has this command, and leaves most of the answer for the next to read.
        let stats = self.run(deadline, |client| {
            aside(client, |stream| {
                let question = format!("{END_OF_VALUE}stats\r\n");
                ask(stream, &question, |text| {
                    let told = text.split_once("\r\n").map_or("", |(_, told)| told);
                    told.ends_with("END\r\n") || told.ends_with("ERROR\r\n")
                })
            })
        })?;
        let count = |line: &str| line.strip_prefix("STAT evictions ")?.parse().ok();
        Ok(stats.lines().find_map(count))
    }

    /// Runs a command, and once more on a new connection if the old one was closed, as all are when
    /// the server restarts. If it had been executed before the connection broke, it is executed
    /// twice: an increment counts too much then, never too little.
    fn run<T>(
        &self,
        deadline: Instant,
        command: impl Fn(&Client) -> Result<T, MemcacheError>,
    ) -> Result<T> {
        match self.attempt(deadline, &command)? {
            Ok(done) => Ok(done),
            Err(_) => match self.attempt(deadline, &command) {
                Ok(outcome) => outcome.map_err(interrupted),
                Err(error) if error.is_connection() => Err(interrupted(error)),
                Err(error) => Err(error),
            },
        }
    }

    /// The inner error is that of a connection that turned out to be closed.
    fn attempt<T>(
        &self,
        deadline: Instant,
        command: &impl Fn(&Client) -> Result<T, MemcacheError>,
    ) -> Result<Result<T, MemcacheError>> {
        let mut connection = self.connection(deadline)?;
        left_until(deadline)?;
        let watched = self.watch.over(&connection.line, deadline);
        let outcome = command(&connection.client);
        let in_time = watched.finish();
        let Err(error) = outcome else {
            connection.doubtful = !in_time;
            return Ok(outcome);
        };
        let fault = match in_time {
            true => Fault::of(&error),
            false => Fault::Silent,
        };
        connection.doubtful = fault != Fault::Refused;
        match fault {
            Fault::Gone => {
                // Whoever notices first speaks for all connections of that time.
                let (epoch, next) = (connection.epoch, connection.epoch + 1);
                let _ = self.status.epoch.compare_exchange(
                    epoch,
                    next,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                Ok(Err(error))
            }
            Fault::Silent => {
                Err(Error::timeout("memcached did not answer in time").with_source(error))
            }
            Fault::Refused | Fault::Confused => {
                // Lines of the server end like lines.
                let why = error.to_string();
                let message = format!("memcached refused a command: {}", why.trim_end());
                Err(Error::other(message).with_source(error))
            }
        }
    }

    fn connection(&self, deadline: Instant) -> Result<PooledConnection<Connector>> {
        loop {
            let mut connection = match (self.pool.try_get(), self.status.why_down()) {
                (Some(connection), _) => connection,
                (None, Some(why)) => return Err(unreachable(&why)),
                (None, None) => self
                    .pool
                    .get_timeout(left_until(deadline)?.min(self.connect_timeout))
                    .map_err(|error| unreachable(&error).with_source(error))?,
            };
            if connection.epoch == self.status.epoch.load(Ordering::Acquire) {
                return Ok(connection);
            }
            connection.doubtful = true;
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl From<Raw> for Item {
    fn from((value, _flags, unique): Raw) -> Self {
        // The server answers `gets` with it, always.
        Item {
            value,
            unique: unique.unwrap_or_default(),
        }
    }
}

/// The name of a thread of this backend, which must not contain NUL.
fn thread_name(namespace: &str, what: impl fmt::Display) -> String {
    format!("traffik-{}-{what}", namespace.replace('\0', ""))
}

/// Starts a thread of this backend.
pub(super) fn start_thread(
    namespace: &str,
    what: impl fmt::Display,
    work: impl FnOnce() + Send + 'static,
) -> Result<()> {
    let started = thread::Builder::new()
        .name(thread_name(namespace, what))
        .spawn(work);
    started.map(drop).map_err(|error| {
        Error::other(format!(
            "a thread for memcached could not be started: {error}"
        ))
        .with_source(error)
    })
}

/// What is left until the deadline, if that is long enough to ask for anything.
pub(super) fn left_until(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left >= Duration::from_millis(1) {
        true => Ok(left),
        false => Err(Error::timeout("memcached did not answer in time")),
    }
}

/// The first attempt may have been executed, whatever became of the second, if there was one.
fn interrupted(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let error = error.into();
    Error::interrupted(format!(
        "the connection to memcached broke before it answered: {error}"
    ))
    .with_source(error)
}

fn unreachable(why: &dyn fmt::Display) -> Error {
    Error::connection(format!("memcached cannot be reached: {why}"))
}
