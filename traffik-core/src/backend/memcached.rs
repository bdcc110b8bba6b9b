//! Cells in memcached servers.

mod address;
mod aside;
mod connection;
mod generation;
mod lanes;
mod promise;
mod queue;
mod server;
mod session;
mod tracked;
mod value;
mod watch;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

#[cfg(feature = "testing")]
pub(crate) use value::read_value;

use self::address::Address;
use self::generation::Generation;
use self::lanes::Lanes;
use self::server::{Dialers, Limits, Server};
use self::session::Shared;
use self::tracked::Tracked;
use self::watch::Watch;
use self::worker::OwnedOp;
use super::{Backend, Batch, BoxFuture, Op};
use crate::cell::Cell;
use crate::decision::Decisions;
use crate::error::{Error, Result};
use crate::key::{Key, KeyHasher};
use crate::name::{LONGEST_NAMESPACE, check_length};
use crate::time::{Clock, SystemClock, Timestamp};

/// Keeps cells in one or more memcached servers. Clones share connections and threads.
///
/// ```no_run
/// use traffik_core::{MemcachedBackend, Throttle};
///
/// # fn main() -> traffik_core::Result<()> {
/// let backend = MemcachedBackend::builder("memcache://127.0.0.1:11211")
///     .namespace("shop")
///     .build()?;
/// let throttle = Throttle::builder("api").rate("100/minute").backend(backend).build()?;
/// # let _ = throttle;
/// # Ok(())
/// # }
/// ```
///
/// # How
///
/// The client blocks, so [`pool_size`](MemcachedBackendBuilder::pool_size) threads per server do
/// the waiting. A hit is one hop to one of them and back. Each queue is bounded: what does not fit
/// fails at once ([`Error::is_overloaded`]). Each hit has a
/// [deadline](MemcachedBackendBuilder::deadline), which includes the time in the queue, connecting
/// and every command; no hit takes longer, even while a server hangs or sends a byte now and then:
/// one more thread hangs up on it then. No runtime is needed.
///
/// | hit | commands |
/// |---|---|
/// | [`FixedWindow`](crate::FixedWindow) and [`TieredRate`](crate::TieredRate), cost 1, limit below two million | 1 (`incr`) |
/// | the same, denied again | 1 (`gets`) |
/// | anything else | 2 (`gets`, `cas`) |
/// | batch of *n* cells of one identity | 1 + *n* |
/// | first hit on a key, first of a window | 3 or 4 |
///
/// # What memcached cannot promise
///
/// Within one key every decision is exact, whoever else hits it: this backend admits no more than
/// the limit. But memcached is a cache:
///
/// * **It loses data** when it restarts, is flushed, or evicts cells for want of memory; whoever
///   they limited starts afresh. Give it memory of its own. [`lost`](MemcachedBackend::lost) counts
///   what was lost.
/// * **It changes one key at a time.** A batch writes its cells one after the other and restores them
///   if it fails half way. In between other processes may deny somebody whom they would otherwise
///   admit, never the reverse. What cannot be restored stays charged and is counted by
///   [`unreturned`](MemcachedBackend::unreturned). The same holds for the moment until a `FixedWindow`
///   takes back the increment of a denied hit, for those who ask under a higher limit than it had.
/// * **It tells no time**, so the time is that of whoever asks. Keep the clocks of your servers
///   together; a window that another server has begun early counts for all.
/// * **A reply that does not come** may have been for a hit that was charged: after a
///   [timeout](Error::is_timeout) a client may have paid for nothing, and where a connection breaks, as
///   when the server restarts, it may have paid twice, since the command is sent once more. Never the
///   reverse: what makes a refund is not.
/// * **An item holds a megabyte**, unless the server was started with `-I`. A sliding log takes 16 bytes
///   per hit: one of more than 65,000 hits is an error.
/// * **A count whose period changes** (by [`Attempt::rate`](crate::Attempt::rate)) may be forgotten when
///   the shorter period ends.
///
/// With several servers each identity lives on one of them, chosen by rendezvous hashing: a server
/// that is added or removed takes only its own share of identities along.
#[derive(Clone, Debug)]
pub struct MemcachedBackend(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lanes: Lanes,
    shared: Arc<Shared>,
    hasher: KeyHasher,
    persistent: bool,
}

/// Deletions that one thread does in one go during a reset.
const DELETED_AT_ONCE: usize = 200;

impl MemcachedBackend {
    /// A backend on one server with default settings. Nothing is connected until it is used.
    ///
    /// # Errors
    ///
    /// If the address is not one of a memcached.
    pub fn new(server: &str) -> Result<MemcachedBackend> {
        Self::builder(server).build()
    }

    /// A backend with other settings. The server is a URL such as `memcache://10.0.0.1:11211`
    /// (`memcached://`, `memcache+tls://` and `memcache+unix:///run/memcached.sock` as well), or
    /// just `host:port`.
    pub fn builder(server: impl Into<String>) -> MemcachedBackendBuilder {
        MemcachedBackendBuilder {
            servers: vec![server.into()],
            namespace: "traffik".into(),
            pool_size: 8,
            pool_min_idle: 1,
            queue: 256,
            deadline: Duration::from_millis(250),
            connect_timeout: Duration::from_millis(200),
            track_keys: false,
            persistent: true,
            hasher: Ok(KeyHasher::shared()),
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// Whether every server answers: asks each for its version, within the deadline, one after the
    /// other. Meant for start-up and health checks; no hit needs it.
    ///
    /// # Errors
    ///
    /// Why one does not.
    pub async fn ready(&self) -> Result<()> {
        for server in 0..self.0.shared.servers.len() {
            self.ask_server(server, move |shared, deadline| {
                shared.servers[server].version(deadline)
            })
            .await?;
        }
        Ok(())
    }

    /// How much servers have lost: one for each time that one was restarted or flushed, and one for
    /// each item that one evicted because it was short of memory. Of these it says how many, not
    /// whose they were: on a server that others use as well they may have been others'.
    ///
    /// Noticed about a second later, while there are hits, and counted from the first hit on. Not
    /// counted are evictions between the last look at a server and its restart.
    pub fn lost(&self) -> u64 {
        self.0.shared.generation.lost()
    }

    /// How many charges of hits that were not admitted could not be taken back, because the server
    /// failed or others had charged the same cell in the meantime.
    pub fn unreturned(&self) -> u64 {
        self.0.shared.unreturned.load(Ordering::Relaxed)
    }

    async fn ask_server<T: Send + 'static>(
        &self,
        server: usize,
        errand: impl FnOnce(&Shared, std::time::Instant) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let lane = self.0.lanes.of_server(server);
        self.0
            .lanes
            .ask(lane, move |worker, deadline| {
                errand(&worker.shared, deadline)
            })
            .await
    }

    fn lane(&self, op: &Op<'_>) -> usize {
        let server = self.0.shared.server_of(&op.key);
        self.0.lanes.of_key(&op.key, server)
    }

    /// Tells every server that can be reached; one is enough for others to learn it.
    async fn start_generation(&self) -> Result<()> {
        self.0.shared.generation.advance(self.0.shared.clock.now());
        let mut told = Err(Error::invalid("there is no server"));
        for server in 0..self.0.shared.servers.len() {
            let outcome = self
                .ask_server(server, move |shared, deadline| {
                    let at = &shared.servers[server];
                    shared.generation.tell(server, at, deadline)
                })
                .await;
            told = told.or(outcome);
        }
        told
    }

    /// Frees the memory of what this process has stored.
    async fn delete_tracked(&self) -> Result<()> {
        let Some(tracked) = &self.0.shared.tracked else {
            return Ok(());
        };
        let by_server = tracked.take(self.0.shared.servers.len());
        for (server, digests) in by_server.into_iter().enumerate() {
            for some in digests.chunks(DELETED_AT_ONCE) {
                let some = some.to_vec();
                self.ask_server(server, move |shared, deadline| {
                    some.into_iter().try_for_each(|digest| {
                        let name = session::name_of(digest);
                        shared.servers[server].delete(&name, deadline).map(drop)
                    })
                })
                .await?;
            }
        }
        Ok(())
    }
}

impl Backend for MemcachedBackend {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(async move {
            let Some(first) = batch.ops().first() else {
                return Ok(Decisions::default());
            };
            let ops: SmallVec<[OwnedOp; 1]> = batch.ops().iter().map(OwnedOp::of).collect();
            self.0
                .lanes
                .ask(self.lane(first), move |worker, deadline| {
                    worker.apply(&ops, deadline)
                })
                .await
        })
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(async move {
            let (lane, op) = (self.lane(op), OwnedOp::of(op));
            let load = move |worker: &mut worker::Worker, deadline| worker.load(&op, deadline);
            self.0.lanes.ask(lane, load).await
        })
    }

    /// Forgets every cell of this namespace: at once in this process, within a second of traffic in
    /// others. Nothing that belongs to others is touched.
    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.start_generation().await?;
            self.delete_tracked().await
        })
    }

    /// Ends the threads; after this every decision is an error. The cells stay, unless the backend is
    /// not [persistent](MemcachedBackendBuilder::persistent): then the namespace is reset **for
    /// everybody**.
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let reset = match self.0.persistent {
                true => Ok(()),
                false => self.reset().await,
            };
            self.0.lanes.close();
            reset
        })
    }

    /// Servers fail one by one.
    fn shard_of(&self, key: &Key) -> u64 {
        match self.0.shared.servers.len() {
            1 => 0,
            _ => self.0.shared.server_of(key) as u64 + 1,
        }
    }

    fn would_forget(&self) -> bool {
        !self.0.persistent
    }

    fn store_id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn key_hasher(&self) -> &KeyHasher {
        &self.0.hasher
    }
}

/// Settings of a [`MemcachedBackend`].
#[must_use]
pub struct MemcachedBackendBuilder {
    servers: Vec<String>,
    namespace: String,
    pool_size: u32,
    pool_min_idle: u32,
    queue: usize,
    deadline: Duration,
    connect_timeout: Duration,
    track_keys: bool,
    persistent: bool,
    hasher: Result<KeyHasher>,
    clock: Arc<dyn Clock>,
}

impl MemcachedBackendBuilder {
    /// Adds a server.
    pub fn server(mut self, server: impl Into<String>) -> Self {
        self.servers.push(server.into());
        self
    }

    /// Keeps the cells of this backend apart from those of others on the same servers; any text of
    /// up to 128 bytes. Default: `traffik`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How many connections, and threads that wait for them, per server; at most 1024. Default: 8.
    pub fn pool_size(mut self, pool_size: u32) -> Self {
        self.pool_size = pool_size;
        self
    }

    /// How many connections are made ahead of need, per server. Default: 1.
    pub fn pool_min_idle(mut self, pool_min_idle: u32) -> Self {
        self.pool_min_idle = pool_min_idle;
        self
    }

    /// How many hits may wait for one thread. Default: 256.
    pub fn queue(mut self, queue: usize) -> Self {
        self.queue = queue;
        self
    }

    /// The longest that a hit may take, all in all. Default: 250 ms, not the 50 ms of Redis: a hit may
    /// wait behind others of its thread, and connect, within that.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The longest that connecting may take, the server's first answer included. Default: 200 ms.
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// Whether to remember the keys of cells that this process stores (up to a million, 64 MB), so
    /// that a reset also deletes them. Without it they become unreachable all the same and expire in
    /// their own time. Default: no.
    pub fn track_keys(mut self, track_keys: bool) -> Self {
        self.track_keys = track_keys;
        self
    }

    /// Whether closing keeps the cells, as it should if others share them. Default: yes. Without,
    /// one process that ends, as each does when a new version is rolled out, forgives everybody.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// A secret that all processes which share the cells know. Needed where clients choose their
    /// own identities freely; see [`KeyHasher`].
    pub fn secret(mut self, secret: &[u8]) -> Self {
        self.hasher = KeyHasher::of_setting(secret);
        self
    }

    /// The clock to decide by. Default: the system's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The backend. Nothing is connected yet, so that it can be built while memcached is down.
    ///
    /// # Errors
    ///
    /// If an address, a number, the namespace or the secret is wrong, or no thread can be started.
    pub fn build(self) -> Result<MemcachedBackend> {
        check_length("a namespace", &self.namespace, LONGEST_NAMESPACE)?;
        let (limits, hasher) = (self.limits()?, self.hasher?);
        let dialers = Dialers::new(&self.namespace);
        let watch = Arc::new(Watch::start(&self.namespace)?);
        let mut servers = Vec::new();
        for server in &self.servers {
            servers.push(Server::new(
                Address::parse(server)?,
                limits,
                &dialers,
                &watch,
            ));
        }
        let shared = Arc::new(Shared {
            generation: Generation::new(self.namespace, servers.len()),
            servers: servers.into(),
            clock: self.clock,
            tracked: self.track_keys.then(Tracked::default),
            unreturned: AtomicU64::new(0),
        });
        let per_server = limits.pool_size as usize;
        Ok(MemcachedBackend(Arc::new(Inner {
            lanes: Lanes::start(&shared, per_server, self.queue, self.deadline)?,
            shared,
            hasher,
            persistent: self.persistent,
        })))
    }

    fn limits(&self) -> Result<Limits> {
        let wrong = |what: &str, right: &str, given: &dyn fmt::Debug| {
            let message = format!("{what} must be {right}, not {given:?}");
            Err(Error::invalid(message))
        };
        if !(1..=1024).contains(&self.pool_size) {
            return wrong("pool_size", "between 1 and 1024", &self.pool_size);
        }
        if self.pool_min_idle > self.pool_size {
            let right = format!("at most pool_size, {}", self.pool_size);
            return wrong("pool_min_idle", &right, &self.pool_min_idle);
        }
        if self.queue == 0 {
            return wrong("queue", "at least 1", &self.queue);
        }
        let times = Duration::from_millis(1)..=Duration::from_secs(60);
        for (what, time) in [
            ("deadline", self.deadline),
            ("connect_timeout", self.connect_timeout),
        ] {
            if !times.contains(&time) {
                return wrong(what, "between 1 ms and 60 s", &time);
            }
        }
        Ok(Limits {
            pool_size: self.pool_size,
            pool_min_idle: self.pool_min_idle,
            timeout: self.deadline,
            connect_timeout: self.connect_timeout,
        })
    }
}

impl fmt::Debug for MemcachedBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the servers, whose URLs may hold passwords.
        f.debug_struct("MemcachedBackendBuilder")
            .field("namespace", &self.namespace)
            .field("pool_size", &self.pool_size)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
