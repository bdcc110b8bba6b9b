use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
#[cfg(feature = "redis")]
use std::time::Duration;

#[cfg(feature = "redis")]
use super::outage::OnOutage;
#[cfg(feature = "redis")]
use super::remote::Remote;
use super::table::Table;
use super::{Concurrency, Inner};
use crate::error::{Error, Result};
use crate::key::KeyHasher;
use crate::name::{LONGEST_NAME, check_length, excerpt};
use crate::observe::InFlightMeters;

/// Settings of a [`Concurrency`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ConcurrencyBuilder {
    name: String,
    limit: Option<u32>,
    is_shared: bool,
    max_waiters: usize,
    max_waiters_per_client: Option<usize>,
    #[cfg(feature = "redis")]
    there: There,
}

/// Where permits are had, if not here.
#[cfg(feature = "redis")]
#[derive(Clone, Debug, Default)]
struct There {
    backend: Option<crate::RedisBackend>,
    lease: Option<Duration>,
    on_outage: Option<OnOutage>,
}

impl ConcurrencyBuilder {
    pub(super) fn new(name: String) -> ConcurrencyBuilder {
        ConcurrencyBuilder {
            name,
            limit: None,
            is_shared: false,
            max_waiters: 1_000,
            max_waiters_per_client: None,
            #[cfg(feature = "redis")]
            there: There::default(),
        }
    }

    /// Sets how many may be under way at a time. Required, and at least one.
    pub fn in_flight(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Counts all identities together: what the whole can do at a time, not what each of them gets.
    pub fn shared(mut self) -> Self {
        self.is_shared = true;
        self
    }

    /// Sets how many may wait for their turn at a time, over all; more are sent away at once. Default: 1,000.
    pub fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.max_waiters = max_waiters;
        self
    }

    /// Sets how many of one identity may wait at a time, so that nobody takes every place. Default: a quarter
    /// of [`max_waiters`](ConcurrencyBuilder::max_waiters), and at least one.
    pub fn max_waiters_per_client(mut self, max_waiters: usize) -> Self {
        self.max_waiters_per_client = Some(max_waiters);
        self
    }

    /// Counts on a Redis, over all processes that have a limit of this name on it. Default: in this process.
    ///
    /// **Exact**: as long as Redis is up no more are under way than may be. Each permit is a *lease*, which this
    /// process renews for as long as it has it, all of them in one trip a period; when a process crashes, its leases
    /// end. To be admitted takes one round trip; what is under way no more is told in the background, which nobody
    /// waits for. Who waits is served in order in its process, and of several processes whoever waited first is first.
    ///
    /// * **Crash**: what a process had under way counts until its [lease](ConcurrencyBuilder::lease) ends.
    /// * **A process that is paused** for longer than a lease, or cut off from Redis, has its requests still under way
    ///   but not counted: at most as many too many, until they end. When it goes on it tells of them, and nobody is
    ///   admitted until there are fewer again.
    /// * **Redis down**: what [is said](ConcurrencyBuilder::on_outage). No answer is waited for longer than the deadline
    ///   of the backend, and after a few in vain none is waited for.
    /// * **Redis lost its memory**: each process tells what it has at its next question for the same count, else
    ///   within a third of a lease. What others have may be admitted once more in between.
    /// * **A lost reply** leaves a permit that nobody has, until it is given back a moment later, or its lease ends.
    ///
    /// The clock is Redis's (or that of the [backend](crate::backend::RedisBackendBuilder::clock)). On a cluster a
    /// count is in the slot of its identity.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use traffik_core::{Concurrency, Identity, OnOutage, RedisBackend};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let redis = RedisBackend::builder("redis://10.0.0.5").namespace("shop").build()?;
    /// let exports = Concurrency::builder("exports")
    ///     .in_flight(10)
    ///     .backend(redis)
    ///     .on_outage(OnOutage::Share(3)) // of three servers
    ///     .build()?;
    /// let in_flight = exports.acquire(&Identity::of("ann"), Duration::from_secs(2)).await?;
    /// drop(in_flight); // when it is done
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "redis")]
    pub fn backend(mut self, backend: crate::RedisBackend) -> Self {
        self.there.backend = Some(backend);
        self
    }

    /// Sets for how long a permit on a backend counts if its process says nothing more: from 10 ms to an hour. It is
    /// renewed three times as often, so that two renewals may fail. Default: 10 seconds.
    ///
    /// Shorter frees sooner what a crashed process had; longer bears longer failures of Redis, and pauses of a process,
    /// without anybody too many. Ten seconds are about what it takes to start a crashed process again, or to
    /// promote a replica, for a trip in three seconds.
    #[cfg(feature = "redis")]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.there.lease = Some(lease);
        self
    }

    /// Sets what is done while the backend cannot be asked. Default: [deny](OnOutage::Deny).
    #[cfg(feature = "redis")]
    pub fn on_outage(mut self, on_outage: OnOutage) -> Self {
        self.there.on_outage = Some(on_outage);
        self
    }

    /// The limit.
    ///
    /// # Errors
    ///
    /// If the name is empty, not printable ASCII or longer than 256 bytes; if it is not said how many may be
    /// under way, or none; if a lease is too short or too long, or is one of no backend.
    pub fn build(self) -> Result<Concurrency> {
        let name = self.name;
        if name.is_empty() || !name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Error::invalid(format!(
                "the name of a limit must be printable ASCII, such as `uploads`, not {:?}",
                excerpt(&name)
            )));
        }
        check_length("the name of a limit", &name, LONGEST_NAME)?;
        let wrong = |what: &str| {
            Err(Error::invalid(format!(
                "limit `{name}`: {what} may be in flight at a time: write `.in_flight(10)`"
            )))
        };
        let limit = match self.limit {
            None => return wrong("it is not said how many"),
            Some(0) => return wrong("nothing would ever be admitted if none"),
            Some(limit) => limit,
        };
        let meters = InFlightMeters::new(&name);
        #[cfg(feature = "redis")]
        let remote = self.there.build(&name, &meters)?;
        Ok(Concurrency(Arc::new(Inner {
            #[cfg(feature = "redis")]
            remote,
            name,
            limit,
            is_shared: self.is_shared,
            max_waiters: self.max_waiters,
            max_waiters_per_client: self
                .max_waiters_per_client
                .unwrap_or((self.max_waiters / 4).max(1)),
            waiting: AtomicUsize::new(0),
            hasher: *KeyHasher::local(),
            table: Table::new(),
            meters,
        })))
    }
}

#[cfg(feature = "redis")]
impl There {
    const LEASE: Duration = Duration::from_secs(10);
    const SHORTEST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(3_600);

    fn build(self, name: &str, meters: &InFlightMeters) -> Result<Option<Remote>> {
        let wrong = |what: String| Err(Error::invalid(format!("limit `{name}`: {what}")));
        let Some(backend) = self.backend else {
            let stray = match (self.lease, self.on_outage) {
                (None, None) => return Ok(None),
                (Some(_), _) => "lease",
                (None, Some(_)) => "on_outage",
            };
            return wrong(format!(
                "`{stray}` is about a backend, and this limit counts in its process: write `.backend(redis)`"
            ));
        };
        let lease = self.lease.unwrap_or(Self::LEASE);
        if !(Self::SHORTEST..=Self::LONGEST).contains(&lease) {
            return wrong(format!(
                "a lease is from 10ms to an hour, such as 10s, not {lease:?}"
            ));
        }
        let on_outage = self.on_outage.unwrap_or_default();
        if on_outage == OnOutage::Share(0) {
            return wrong("no process at all has a share: write how many there are".into());
        }
        let remote = Remote::new(name, backend, lease, on_outage);
        remote.tell(meters);
        Ok(Some(remote))
    }
}
