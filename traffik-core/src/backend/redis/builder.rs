use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use redis::aio::ConnectionLike;
use redis::{Client, RedisResult};

use super::denials::Denials;
use super::hints::Hints;
use super::link::{Connect, Links, Times};
use super::node::{Factory, Node};
use super::{Inner, RedisBackend};
use crate::error::{Error, Result};
use crate::key::KeyHasher;
use crate::name::{LONGEST_NAMESPACE, check_length, excerpt};
use crate::time::Clock;

/// Settings of a [`RedisBackend`].
#[derive(Debug)]
#[must_use]
pub struct RedisBackendBuilder {
    pub(super) connect: Result<Arc<dyn Connect>>,
    namespace: String,
    deadline: Duration,
    connect_timeout: Duration,
    persistent: bool,
    hasher: Result<KeyHasher>,
    clock: Option<Arc<dyn Clock>>,
    deny_cache: usize,
    heal: usize,
}

impl RedisBackendBuilder {
    pub(super) fn at(url: &str) -> RedisBackendBuilder {
        Self::on(Node::at(url))
    }

    /// A backend on the server of an existing client.
    ///
    /// ```no_run
    /// use traffik_core::backend::RedisBackendBuilder;
    /// use traffik_core::redis::{Client, IntoConnectionInfo, io::tcp::TcpSettings};
    ///
    /// // Without this, small commands wait for each other's acknowledgements.
    /// let settings = TcpSettings::default().set_nodelay(true);
    /// let info = "redis://127.0.0.1".into_connection_info()?.set_tcp_settings(settings);
    /// let backend = RedisBackendBuilder::from_client(Client::open(info)?).build()?;
    /// # let _ = backend;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_client(client: Client) -> RedisBackendBuilder {
        Self::on(Ok(Node::of(client)))
    }

    /// A backend on connections that `connect` makes: one per thread, and a new one when one is
    /// lost.
    ///
    /// ```no_run
    /// use traffik_core::backend::RedisBackendBuilder;
    /// use traffik_core::redis;
    ///
    /// let client = redis::Client::open("redis://127.0.0.1")?;
    /// let backend = RedisBackendBuilder::from_factory(move || {
    ///     let client = client.clone();
    ///     async move { client.get_multiplexed_async_connection().await }
    /// })
    /// .build()?;
    /// # let _ = backend;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_factory<F, Fut, C>(connect: F) -> RedisBackendBuilder
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = RedisResult<C>> + Send + 'static,
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        Self::on(Ok(Factory(connect)))
    }

    pub(super) fn on<C: Connect + 'static>(connect: Result<C>) -> RedisBackendBuilder {
        RedisBackendBuilder {
            connect: connect.map(|connect| Arc::new(connect) as Arc<dyn Connect>),
            namespace: "traffik".into(),
            deadline: Duration::from_millis(50),
            connect_timeout: Duration::from_millis(250),
            persistent: true,
            hasher: Ok(KeyHasher::shared()),
            clock: None,
            deny_cache: 10_000,
            heal: 10_000,
        }
    }

    /// What all keys begin with, such as the name of the application: letters, digits and `-_.:`, at
    /// most 128 of them. Default: `traffik`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How long a decision may take, once there is a connection. Default: 50 ms.
    ///
    /// Time in which the thread that asks does not run does not count, and an answer that is there
    /// when the time is up is an answer: a busy machine makes no healthy Redis look hung.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long a hit may wait for a connection, if there is none yet, before its
    /// [deadline](RedisBackendBuilder::deadline) begins: for TCP, TLS and login, a round trip or two
    /// each. Default: 250 ms, enough for a Redis that is 60 ms away.
    ///
    /// It counts from when the connection is begun, which goes on without the hit for up to two
    /// seconds. Hits that come then wait for no longer than the deadline, so that a server which
    /// does not answer delays few.
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// Whether [closing](crate::Backend::close) keeps the cells. Default: yes, since other
    /// processes use them, and a restart should not give everybody a fresh quota.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// Hashes identities under a secret, which every process on this Redis must share, so that
    /// clients who choose their identities freely cannot make two of them collide. Default: a
    /// constant.
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.hasher = KeyHasher::of_setting(secret.as_ref());
        self
    }

    /// Another clock than the server's: for tests, and for hosted servers that forbid scripts to
    /// ask for the time. Keys then live for an hour longer than they matter. Default: the server's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// How many denials are remembered, so that they can be repeated without asking Redis; 0 turns
    /// it off. Default: 10,000, of about 300 bytes each.
    ///
    /// The wait that a remembered denial tells is never too short. It is too long by less than Redis's
    /// answer took, and while less than that may be left, Redis is asked. A denial is forgotten when its wait is over, when
    /// this backend is reset, when a hit at another cost or rate on the same key is admitted
    /// through it, and after a second in any case: so that a reset by another process, or a key
    /// that other processes hit under other rates, is noticed within that time.
    pub fn deny_cache(mut self, denials: usize) -> Self {
        self.deny_cache = denials;
        self
    }

    /// How many cells are remembered, so that they can be restored if Redis loses them; 0 turns it
    /// off. Default: 10,000, of about 200 bytes each.
    ///
    /// See [what is healed](RedisBackend#losses).
    pub fn heal(mut self, cells: usize) -> Self {
        self.heal = cells;
        self
    }

    /// The backend, which does not connect yet.
    ///
    /// # Errors
    ///
    /// If a URL, certificates, or the namespace are malformed, or ask for what cannot be done; if the
    /// deadline or the time to connect is below a millisecond, or the secret empty.
    pub fn build(self) -> Result<RedisBackend> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if self.namespace.is_empty() || !self.namespace.bytes().all(legal) {
            return Err(Error::invalid(format!(
                "a namespace consists of letters, digits and `-_.:`, such as `shop`, unlike {:?}",
                excerpt(&self.namespace)
            )));
        }
        check_length("a namespace", &self.namespace, LONGEST_NAMESPACE)?;
        // What the timer can tell apart.
        for (what, usual, given) in [
            ("the deadline of a decision", "50ms", self.deadline),
            ("the time to connect", "250ms", self.connect_timeout),
        ] {
            if given < Duration::from_millis(1) {
                return Err(Error::invalid(format!(
                    "{what} must be 1ms at least, such as {usual}, not {given:?}"
                )));
            }
        }
        let connect = self.connect?;
        let times = Times {
            decide: self.deadline,
            connect: self.connect_timeout,
        };
        // When the cells were last reset, a cluster keeps in another slot than the cells.
        let hints = if connect.has_slots() { 0 } else { self.heal };
        Ok(RedisBackend(Arc::new(Inner {
            links: Links::new(connect, times),
            programs: Default::default(),
            namespace: self.namespace,
            deadline: self.deadline,
            persistent: self.persistent,
            hasher: self.hasher?,
            clock: self.clock,
            start: Instant::now(),
            denials: Denials::new(self.deny_cache),
            hints: Hints::new(hints),
            #[cfg(feature = "tokio")]
            permits: Default::default(),
            closed: AtomicBool::new(false),
        })))
    }
}
