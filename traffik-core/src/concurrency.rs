//! How many at a time.

mod builder;
#[cfg(feature = "redis")]
mod outage;
mod place;
#[cfg(feature = "redis")]
mod remote;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use builder::ConcurrencyBuilder;
#[cfg(feature = "redis")]
pub use outage::OnOutage;
use place::Place;
#[cfg(feature = "redis")]
use remote::Remote;
use table::{Entered, Table};

use crate::error::Error;
use crate::identity::Identity;
use crate::key::KeyHasher;
use crate::observe::{Asks, InFlightMeters};

/// How many may be under way at a time: for each identity, or all together. Exact: in this process, or over all
/// processes on one [backend](ConcurrencyBuilder::backend).
///
/// Who is admitted holds an [`InFlight`], and is under way until that is dropped, however that comes about.
/// Who is not may wait for their turn, in the order in which they came. An identity of which nothing is under
/// way takes no room.
///
/// ```
/// use traffik_core::{Concurrency, Identity};
///
/// let uploads = Concurrency::builder("uploads").in_flight(2).build()?;
/// let (ann, ben) = (Identity::of("ann"), Identity::of("ben"));
///
/// let first = uploads.try_acquire(&ann).unwrap();
/// let second = uploads.try_acquire(&ann).unwrap();
/// assert!(uploads.try_acquire(&ann).is_err());
/// assert!(uploads.try_acquire(&ben).is_ok()); // a limit of their own
/// drop(first);
/// assert!(uploads.try_acquire(&ann).is_ok());
/// # drop(second);
/// # Ok::<(), traffik_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Concurrency(Arc<Inner>);

struct Inner {
    name: String,
    limit: u32,
    is_shared: bool,
    max_waiters: usize,
    max_waiters_per_client: usize,
    waiting: AtomicUsize,
    hasher: KeyHasher,
    table: Table,
    meters: InFlightMeters,
    /// Where permits are had, if not here. The table has then whoever waits the longest, of each count one.
    #[cfg(feature = "redis")]
    remote: Option<Remote>,
}

/// Somebody is under way, until this is dropped.
#[must_use = "whoever drops this is under way no more"]
pub struct InFlight {
    /// Nothing for those whom nothing limits. The permit is 0 in this process.
    held: Option<(Concurrency, u128, u64)>,
    remaining: u32,
    is_degraded: bool,
}

/// Nobody more may be under way at present.
#[derive(Clone, Debug)]
pub struct Busy {
    limit: u32,
    waited: bool,
    failure: Option<Error>,
}

/// What a [`Concurrency`] knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConcurrencyInfo {
    /// How many are under way.
    pub in_flight: u64,
    /// How many wait for their turn.
    pub waiting: u64,
    /// How many counts there are: identities of which anything is under way, or one if all count together.
    pub counts: u64,
}

impl Concurrency {
    /// A limit in the making. The name says what it is about, in headers and logs.
    pub fn builder(name: impl Into<String>) -> ConcurrencyBuilder {
        ConcurrencyBuilder::new(name.into())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How many may be under way at a time.
    pub fn limit(&self) -> u32 {
        self.0.limit
    }

    /// Whether all identities count together.
    pub fn is_shared(&self) -> bool {
        self.0.is_shared
    }

    /// Whether it counts in this process, and need not wait for an answer.
    pub fn is_local(&self) -> bool {
        #[cfg(feature = "redis")]
        if self.0.remote.is_some() {
            return false;
        }
        true
    }

    /// What it does while its backend cannot be asked; `None` if it has none.
    #[cfg(feature = "redis")]
    pub fn on_outage(&self) -> Option<OnOutage> {
        self.0.remote.as_ref().map(Remote::on_outage)
    }

    /// Admits at once, or not at all. Who waits comes first.
    ///
    /// # Errors
    ///
    /// If as many as may be are under way; or if it counts on a backend, which has to be waited for, by
    /// [`acquire`](Concurrency::acquire).
    pub fn try_acquire(&self, identity: &Identity) -> Result<InFlight, Busy> {
        let asks = self.0.meters.ask();
        let entered = self.enter(identity);
        asks.became(&entered);
        entered
    }

    /// The same for somebody who will wait otherwise, and then asks anew: being refused is no outcome.
    #[doc(hidden)]
    pub fn try_acquire_or_wait(&self, identity: &Identity) -> Option<InFlight> {
        let entered = self.enter(identity);
        if entered.is_ok() {
            self.0.meters.ask().became(&entered);
        }
        entered.ok()
    }

    #[inline]
    fn enter(&self, identity: &Identity) -> Result<InFlight, Busy> {
        if identity.is_exempt() {
            return Ok(InFlight::of_nobody(self.0.limit));
        }
        if !self.is_local() {
            return Err(self.unasked());
        }
        let key = self.key(identity);
        match self.0.table.enter(key, self.0.limit) {
            Some(before) => Ok(InFlight::of(self.clone(), key, self.0.limit - before - 1)),
            None => Err(self.busy(false)),
        }
    }

    /// Admits, if need be after a wait of at most `max_wait`; with [`Duration::MAX`] for as long as it takes.
    /// Those of one count are admitted in the order in which they came.
    ///
    /// Dropping the future gives the place in the queue up. The timer is tokio's.
    ///
    /// # Errors
    ///
    /// If the wait is over, or too many wait already: [in all](ConcurrencyBuilder::max_waiters), or
    /// [of this identity](ConcurrencyBuilder::max_waiters_per_client). If its backend cannot be asked, and that is
    /// [what is done](ConcurrencyBuilder::on_outage) then.
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a tokio runtime (actix-rt has one), be it for a backend.
    pub async fn acquire(&self, identity: &Identity, max_wait: Duration) -> Result<InFlight, Busy> {
        let mut asks = self.0.meters.ask();
        let entered = self.enter_or_wait(identity, max_wait, &mut asks).await;
        asks.became(&entered);
        entered
    }

    async fn enter_or_wait(
        &self,
        identity: &Identity,
        max_wait: Duration,
        asks: &mut Asks<'_>,
    ) -> Result<InFlight, Busy> {
        #[cfg(feature = "redis")]
        if let Some(remote) = &self.0.remote
            && !identity.is_exempt()
        {
            return Box::pin(self.acquire_there(remote, identity, max_wait, asks)).await;
        }
        if identity.is_exempt() || max_wait.is_zero() {
            return self.enter(identity);
        }
        let (key, client) = (self.key(identity), self.0.hasher.identity(identity));
        let entered = self.0.table.enter_or_wait(
            key,
            self.0.limit,
            client,
            self.0.max_waiters_per_client,
            &self.0.waiting,
            self.0.max_waiters,
        );
        match entered {
            Entered::InFlight(before) => {
                Ok(InFlight::of(self.clone(), key, self.0.limit - before - 1))
            }
            Entered::Waits(turn) => {
                asks.waits();
                let place = Place::new(self.clone(), key, turn);
                let waited = tokio::time::timeout(max_wait, place).await;
                waited.map_err(|_| self.busy(true))
            }
            Entered::NoRoom => {
                asks.finds_no_room();
                Err(self.busy(false))
            }
        }
    }

    /// How many are under way where this identity counts, of this process.
    pub fn in_flight(&self, identity: &Identity) -> u32 {
        #[cfg(feature = "redis")]
        if let Some(remote) = &self.0.remote {
            return remote.in_flight(remote.who(identity, self.0.is_shared));
        }
        self.0.table.in_flight(self.key(identity))
    }

    /// How many are under way, and how many wait, of this process.
    pub fn info(&self) -> ConcurrencyInfo {
        let (in_flight, counts) = self.sum();
        ConcurrencyInfo {
            in_flight,
            counts,
            waiting: self.0.waiting.load(Ordering::Relaxed) as u64,
        }
    }

    fn sum(&self) -> (u64, u64) {
        #[cfg(feature = "redis")]
        if let Some(remote) = &self.0.remote {
            return remote.sum();
        }
        self.0.table.sum()
    }

    /// Where an identity counts.
    fn key(&self, identity: &Identity) -> u128 {
        match self.0.is_shared {
            true => self.0.hasher.everybody(),
            false => self.0.hasher.identity(identity),
        }
    }

    fn busy(&self, waited: bool) -> Busy {
        Busy {
            limit: self.0.limit,
            waited,
            failure: None,
        }
    }

    #[cold]
    fn unasked(&self) -> Busy {
        Busy {
            failure: Some(Error::invalid(
                "a limit on a backend is asked by `acquire`, since the answer has to be waited for",
            )),
            ..self.busy(false)
        }
    }

    /// Whether this is a permit, and not the turn of whoever waits the longest for one that is had elsewhere.
    #[inline]
    fn is_permit(&self, permit: u64) -> bool {
        permit != 0 || self.is_local()
    }

    /// One is under way no more: whoever waits the longest is in its stead.
    fn release(&self, key: u128, permit: u64) {
        #[cfg(feature = "redis")]
        if permit != 0
            && let Some(remote) = &self.0.remote
        {
            return remote.release(self.0.limit, key, permit);
        }
        #[cfg(not(feature = "redis"))]
        let _ = permit;
        if let Some(turn) = self.0.table.leave(key, &self.0.waiting) {
            turn.wake();
        }
    }
}

impl fmt::Debug for Concurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Concurrency")
            .field("name", &self.name())
            .field("limit", &self.limit())
            .field("is_shared", &self.is_shared())
            .finish_non_exhaustive()
    }
}

impl InFlight {
    fn of(limit: Concurrency, key: u128, remaining: u32) -> InFlight {
        InFlight::with(limit, key, 0, remaining)
    }

    fn with(limit: Concurrency, key: u128, permit: u64, remaining: u32) -> InFlight {
        if limit.is_permit(permit) {
            limit.0.meters.began();
        }
        InFlight {
            held: Some((limit, key, permit)),
            remaining,
            is_degraded: false,
        }
    }

    #[cfg(feature = "redis")]
    fn unasked(limit: Concurrency, key: u128, permit: u64) -> InFlight {
        let mut one = InFlight::with(limit, key, permit, 0);
        one.is_degraded = true;
        one
    }

    fn of_nobody(remaining: u32) -> InFlight {
        InFlight {
            held: None,
            remaining,
            is_degraded: false,
        }
    }

    /// How many more could have been under way when this one was admitted.
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Whether it counts: those of [`Identity::EXEMPT`] do not.
    pub fn is_counted(&self) -> bool {
        self.held.is_some()
    }

    /// Whether it was admitted although the backend of the limit could not be asked.
    pub fn is_degraded(&self) -> bool {
        self.is_degraded
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some((limit, key, permit)) = self.held.take() {
            if limit.is_permit(permit) {
                limit.0.meters.ended();
            }
            limit.release(key, permit);
        }
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.held.as_ref().map(|(limit, ..)| limit.name());
        f.debug_struct("InFlight")
            .field("limit", &name)
            .finish_non_exhaustive()
    }
}

impl Busy {
    /// How many may be under way at a time.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Whether it waited in vain, and was not sent away at once.
    pub fn waited(&self) -> bool {
        self.waited
    }

    /// Why it is not even known how many are under way, if the backend could not be asked.
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(failure) = &self.failure {
            return write!(f, "it is not known how many are under way: {failure}");
        }
        match self.limit {
            1 => f.write_str("one is under way already"),
            limit => write!(f, "{limit} are under way already"),
        }
    }
}

impl std::error::Error for Busy {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failure.as_ref().map(|failure| failure as _)
    }
}
