//! Leases: hits on a remote store decided in memory, exactly.

mod clock;
mod demand;
mod errand;
mod holding;
mod info;
mod many;
mod sightings;
#[cfg(test)]
pub(crate) mod simulation;
mod table;
mod tending;
mod terms;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

pub use info::LeaseInfo;
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::clock::WakefulClock;
use self::errand::Errand;
use self::table::{Answered, Asked, Count, Table, Way};
use self::tending::Tended;
use self::terms::Terms;
use crate::backend::{Backend, Batch, BoxFuture, Op};
use crate::cell::Cell;
use crate::decision::{Decision, Decisions};
use crate::error::{Error, Result};
use crate::key::{Key, KeyHasher};
use crate::observe::LeaseMeters;
use crate::strategy::Hit;
use crate::time::{Clock, Timestamp};
use crate::together::together;

/// Settings of [leases](Leased). The defaults need no thought.
#[derive(Clone, Debug)]
#[must_use]
pub struct Lease {
    length: Duration,
    period: Duration,
    max_keys: usize,
    clock: Option<Arc<dyn Clock>>,
}

impl Lease {
    /// Leases of a second, renewed about every 250 ms.
    pub fn new() -> Lease {
        Lease {
            length: Duration::from_secs(1),
            period: Duration::from_millis(250),
            max_keys: 100_000,
            clock: None,
        }
    }

    /// Sets how long a lease lasts, which is how long what a node held is lost to others if it dies, at
    /// most twice over. Default: a second. From two periods to an hour; what is beyond that is
    /// brought within.
    pub fn length(mut self, length: Duration) -> Lease {
        self.length = length;
        self
    }

    /// Sets for how long a node asks ahead, and so about how often it asks for a key. Default: 250 ms.
    /// From 10 ms to a minute; what is beyond that is brought within.
    ///
    /// A longer one saves trips, and holds more back that others could have had.
    pub fn period(mut self, period: Duration) -> Lease {
        self.period = period;
        self
    }

    /// Sets how many keys are watched that may be hot, about 60 bytes each; hits on more go to the
    /// store. Default: 100,000. Four to eight bytes for each, four megabytes at most, are taken at once,
    /// by which the many are known that are asked for once in a while.
    pub fn max_keys(mut self, max_keys: usize) -> Lease {
        self.max_keys = max_keys;
        self
    }

    /// Sets another clock, for tests. It must not step back, and should go on while the machine
    /// sleeps. Default: one that does.
    pub fn clock(mut self, clock: impl Clock) -> Lease {
        self.clock = Some(Arc::new(clock));
        self
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self::new()
    }
}

/// A backend that takes more than one hit's worth of a limit from its store at once, and decides
/// hits in memory until that is spent. Made by [`BackendExt::lease`](crate::BackendExt::lease).
///
/// Whatever the nodes, their clocks and what becomes of their messages: over every interval all of
/// them together admit no more than the strategy's bound, as if each hit had gone to the store. Nodes
/// with leases and nodes without share their counts. What is lent counts as taken, does not drain
/// until it is spent or over, and a node measures how long it may spend it from before it asked, on
/// a clock that is never set.
///
/// Keys that are asked for so often that it saves trips are leased: what a node needs for a
/// [period](Lease::period) at its present rate, of what is free half at most, so that others find
/// something. What is left goes back when hits become fewer, before it ends, and when the backend is
/// [closed](Backend::close). All others are decided by the store as if there were no leases.
///
/// ```
/// use traffik_core::{BackendExt, Lease, MemoryBackend, Throttle, TokenBucket};
/// # let redis = MemoryBackend::new();
///
/// let backend = redis.lease(Lease::new());
/// let throttle = Throttle::builder("api")
///     .rate("10000/second")
///     .strategy(TokenBucket::new())
///     .backend(backend.clone())
///     .build()?;
/// println!("{:?}", backend.info());
/// # let _ = throttle;
/// # Ok::<(), traffik_core::Error>(())
/// ```
///
/// # What it tells
///
/// * [`remaining`](Decision::remaining) is a lower bound: what this node holds, and what the store had
///   left when it was asked last. What was earned since is not in it. If other nodes took of it since,
///   that is not known here either, for a period at most.
/// * Above the limit a node asks again after the wait, or after 100 ms if that is longer, so that what
///   comes back is fetched in few trips. The wait that a denial tells is the one after which
///   this node asks: then a hit is admitted if nobody else took it.
///
/// # What it costs
///
/// * Above the limit a node may deny while another holds what would have been enough: with demand
///   around the limit some 3 % are admitted later than they could be.
/// * What a node held that dies, or cannot reach the store to give it back, is lost to the others
///   until it ends: for twice the [length](Lease::length) at most. Less is admitted then, never more.
/// * The thread that came first carries a question for all. If it is busy with something else, hits of
///   others wait for 250 ms, and then go to the store until it has time again.
/// * What was lent is spent until it ends, for a second by default, though a throttle was replaced by one whose
///   tiers or hours are others.
/// * After a [reset](Backend::reset), or a loss of the store, what other nodes hold may still be
///   spent until it ends, beside the fresh quota.
/// * Counts that become less are no sign of a loss any more, since something may have been given back: what
///   a replica missed that replaces its Redis is not restored; a key that is gone is.
///
/// # What is not leased
///
/// * Logs, queues, priorities, shares of regions or instances, limits that adapt to load or cost: their
///   hits go to the store. [`Strategy::lends`](crate::Strategy::lends) tells.
/// * Limits below 24 hits, or whose burst is spent within a few milliseconds: there is too little to share.
/// * Hits whose cost is known only afterwards, such as those of post-paid
///   [`Gcra`](crate::Gcra) that cost more than one.
/// * Hits outside of a tokio runtime with a timer, which has to carry the questions.
///
/// # Beside the other wrappers
///
/// Deadlines, retries and breakers belong inside, and a fallback outside: while the store is down,
/// a node spends what it holds, and then the fallback decides. Around a fallback there would be no
/// telling who lent what, so there nothing is.
pub struct Leased<B>(Arc<Inner<B>>);

const SHARDS: usize = 16;

struct Inner<B> {
    backend: B,
    table: Arc<Table>,
    trips: AtomicU64,
    /// How often the store has answered, by shard.
    answers: [AtomicU64; SHARDS],
    /// Whether a task gives back what is left over.
    is_tended: AtomicBool,
    meters: LeaseMeters,
}

impl<B: Backend> Leased<B> {
    pub(crate) fn new(backend: B, lease: Lease) -> Leased<B> {
        backend.expect_returns();
        let terms = Terms::new(lease.length, lease.period);
        let clock = lease.clock.unwrap_or_else(|| Arc::new(WakefulClock::new()));
        Leased(Arc::new(Inner {
            backend,
            table: Arc::new(Table::new(lease.max_keys, terms, clock)),
            trips: AtomicU64::new(0),
            answers: Default::default(),
            is_tended: AtomicBool::new(false),
            meters: LeaseMeters::new(),
        }))
    }

    /// What it has done.
    pub fn info(&self) -> LeaseInfo {
        self.0.info()
    }

    /// The backend that keeps the counts.
    pub fn store(&self) -> &B {
        &self.0.backend
    }

    /// Whether an operation may be decided by a lease.
    #[inline]
    fn is_lendable(&self, op: &Op<'_>) -> bool {
        op.cost > 0
            && !op.rate.is_unlimited()
            && op.strategy.lends(&op.rate, op.cost)
            && !self.0.table.is_closed()
            && self.0.backend.can_lend()
    }

    #[inline]
    fn find(&self, op: &Op<'_>, count: Count) -> Way {
        match self.is_lendable(op) {
            true => self.0.table.find(op, count, None),
            false => Way::Strict,
        }
    }

    /// Decides a single hit.
    async fn decide(&self, batch: &Batch<'_>, op: &Op<'_>, mut way: Way) -> Result<Decisions> {
        loop {
            let answered = match way {
                Way::Decided(decision) => return Ok(decision.into()),
                Way::Low(decision) => {
                    self.renew(op);
                    return Ok(decision.into());
                }
                Way::Wait(answered) => answered,
                Way::Strict => return self.0.ask(batch).await,
                Way::Ask => {
                    let Ok(runtime) = Handle::try_current() else {
                        return self.0.ask(batch).await;
                    };
                    match self.0.table.ask(op, op.cost) {
                        Asked::Part(part) => return self.run(&runtime, Errand::of(*part)).await,
                        Asked::Already(answered) => answered,
                        Asked::Not => return self.0.ask(batch).await,
                    }
                }
            };
            if !wait_for(answered).await? {
                return self.0.ask(batch).await;
            }
            way = self.find(op, Count::Never);
        }
    }

    /// Asks for more before what is left has run out.
    #[cold]
    fn renew(&self, op: &Op<'_>) {
        if let Ok(runtime) = Handle::try_current()
            && let Asked::Part(part) = self.0.table.ask(op, 0)
        {
            drop(self.spawn(&runtime, Errand::of(*part)));
        }
    }

    /// Runs an errand to its end, even if the one who waits for it does not.
    async fn run(&self, runtime: &Handle, errand: Errand) -> Result<Decisions> {
        match self.spawn(runtime, errand).await {
            Ok(decided) => decided,
            Err(ended) => Err(Error::interrupted(
                "the runtime in which a lease was asked for has ended",
            )
            .with_source(ended)),
        }
    }

    fn spawn(&self, runtime: &Handle, errand: Errand) -> JoinHandle<Result<Decisions>> {
        if let Some(tended) = Tended::begin(&self.0) {
            runtime.spawn(tending::tend(tended));
        }
        let inner = Arc::clone(&self.0);
        runtime.spawn(async move { inner.run(errand).await })
    }
}

impl<B> Inner<B> {
    fn info(&self) -> LeaseInfo {
        let (tally, held) = self.table.tally();
        LeaseInfo::of(&tally, held, self.trips.load(Ordering::Relaxed))
    }
}

impl<B: Backend> Inner<B> {
    /// A batch as it is: what becomes of most keys, so as little as can be beside what the store does.
    fn ask<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        self.trips.fetch_add(1, Ordering::Relaxed);
        let mut asked = self.backend.apply(batch);
        Box::pin(poll_fn(move |context| {
            let decided = asked.as_mut().poll(context);
            // What is denied may have been remembered.
            if let Poll::Ready(Ok(decisions)) = &decided
                && decisions.is_allowed()
            {
                self.answered(batch.ops().iter().map(|op| op.key));
            }
            decided
        }))
    }

    /// The store has answered a question about these.
    fn answered(&self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            self.answers_of(&key).fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn run(&self, errand: Errand) -> Result<Decisions> {
        self.trips.fetch_add(1, Ordering::Relaxed);
        let keys: SmallVec<[Key; 1]> = errand.keys().collect();
        let decided = errand.run(&self.backend).await;
        if decided.is_ok() {
            self.answered(keys);
        }
        decided
    }

    /// Of a store that has more shards some are taken for one.
    fn answers_of(&self, key: &Key) -> &AtomicU64 {
        #[expect(clippy::cast_possible_truncation, reason = "it is less than `SHARDS`")]
        &self.answers[(self.backend.shard_of(key) % SHARDS as u64) as usize]
    }

    /// Gives back everything that is held, and what will be by the questions on their way, for as long as
    /// leases last: after that there is nothing to give back, however long the store would take.
    async fn give_back(&self) {
        let end_us = self.table.now_us() + self.table.terms().length_us;
        let is_over = || self.table.now_us() >= end_us;
        // Of one term of each key at a time, of which there are two at most: before its last answer,
        // and after it.
        for _ in 0..5 {
            let (parts, asked) = self.table.give_back();
            if parts.is_empty() && asked.is_empty() {
                return;
            }
            for answered in asked {
                if is_over() {
                    return;
                }
                // What was lost on its way ends by itself.
                drop(wait_for(answered).await);
            }
            let mut parts = parts.into_iter().peekable();
            while parts.peek().is_some() && !is_over() {
                let some = parts.by_ref().take(Self::AT_ONCE).map(Errand::of);
                let running: Vec<_> = some.map(|errand| Box::pin(self.run(errand))).collect();
                // What could not be given back ends by itself.
                drop(together(running).await);
            }
        }
    }

    const AT_ONCE: usize = 64;

    /// The cell as it would be if this node had given back what it holds.
    fn with_held(&self, op: &Op<'_>, mut cell: Cell, now: Timestamp) -> Cell {
        if let Some(loan) = self.table.returnable(op) {
            let hit = Hit {
                now,
                rate: &op.rate,
                cost: 0,
                attributes: op.attributes,
            };
            let _ = op.strategy.lend(&mut cell, &hit, &loan);
        }
        cell
    }
}

/// Until a question is answered. Returns whether it was in time: it is asked, and its answer heard, by the
/// thread of whoever came first, which may be busy with something else.
async fn wait_for(mut answered: Answered) -> Result<bool> {
    // Nowhere else would be known when it is late.
    if Handle::try_current().is_err() {
        return Ok(false);
    }
    match timeout(Terms::PATIENCE, answered.wait_for(Option::is_some)).await {
        Ok(Ok(error)) => error.clone().map_or(Ok(true), Err),
        // It was answered, or given up.
        Ok(Err(_)) => Ok(true),
        Err(_) => Ok(false),
    }
}

impl<B: Backend> Backend for Leased<B> {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        match batch.ops() {
            [op] => match self.find(op, Count::Any) {
                Way::Strict => self.0.ask(batch),
                way => Box::pin(self.decide(batch, op, way)),
            },
            _ => Box::pin(self.decide_many(batch)),
        }
    }

    #[inline]
    fn try_step(&self, op: &Op<'_>) -> Option<Result<Decision>> {
        match self.find(op, Count::Decided) {
            Way::Decided(decision) => Some(Ok(decision)),
            Way::Low(decision) => {
                self.renew(op);
                Some(Ok(decision))
            }
            Way::Wait(_) | Way::Ask => None,
            Way::Strict => self.0.backend.try_step(op),
        }
    }

    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        match batch.ops() {
            [op] => self
                .try_step(op)
                .map(|decided| decided.map(Decisions::from)),
            _ => self.try_many(batch),
        }
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(async move {
            let (cell, now) = self.0.backend.load(op).await?;
            Ok((self.0.with_held(op, cell, now), now))
        })
    }

    fn try_load(&self, op: &Op<'_>) -> Option<Result<(Cell, Timestamp)>> {
        let loaded = self.0.backend.try_load(op)?;
        Some(loaded.map(|(cell, now)| (self.0.with_held(op, cell, now), now)))
    }

    /// What this node holds is worth nothing then; what others hold ends by itself.
    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.0.table.void();
            let reset = self.0.backend.reset().await;
            // What was asked for meanwhile may have been lent before.
            self.0.table.void();
            reset
        })
    }

    /// Gives back what is held before the store is closed.
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.0.table.close();
            self.0.give_back().await;
            self.0.meters.tell(|| self.0.info());
            self.0.backend.close().await
        })
    }

    fn ready<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        self.0.backend.ready(key)
    }

    /// By the store: what a node holds was taken there, and is not drained.
    fn settle<'a>(&'a self, settlement: &'a Op<'a>, degraded: bool) -> BoxFuture<'a, Result<()>> {
        self.0.backend.settle(settlement, degraded)
    }

    fn now(&self) -> Timestamp {
        self.0.backend.now()
    }

    fn shard_of(&self, key: &Key) -> u64 {
        self.0.backend.shard_of(key)
    }

    fn store_id(&self) -> usize {
        self.0.backend.store_id()
    }

    fn is_local(&self) -> bool {
        self.0.backend.is_local()
    }

    fn local_stores(&self, found: &mut dyn FnMut(usize)) {
        self.0.backend.local_stores(found);
    }

    fn would_forget(&self) -> bool {
        self.0.backend.would_forget()
    }

    fn expect_returns(&self) {
        self.0.backend.expect_returns();
    }

    fn answers(&self, key: &Key) -> Option<u64> {
        Some(self.0.answers_of(key).load(Ordering::Relaxed))
    }

    #[inline]
    fn key_hasher(&self) -> &KeyHasher {
        self.0.backend.key_hasher()
    }
}

impl<B> Clone for Leased<B> {
    fn clone(&self) -> Self {
        Leased(Arc::clone(&self.0))
    }
}

impl<B: Backend> fmt::Debug for Leased<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leased")
            .field("store", &self.0.backend)
            .field("terms", self.0.table.terms())
            .finish_non_exhaustive()
    }
}
