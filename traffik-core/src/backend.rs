//! Where cells live, and who applies steps to them.

#[cfg(any(feature = "memcached", feature = "redis"))]
mod cas;
#[cfg(feature = "memcached")]
pub(crate) mod memcached;
mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

#[cfg(feature = "memcached")]
pub use memcached::{MemcachedBackend, MemcachedBackendBuilder};
pub use memory::{MemoryBackend, MemoryBackendBuilder};
#[cfg(all(feature = "redis", feature = "store"))]
pub use redis::RedisStore;
#[cfg(all(feature = "redis", feature = "tokio"))]
pub(crate) use redis::permits;
#[cfg(feature = "redis")]
pub use redis::{RedisBackend, RedisBackendBuilder};
use smallvec::SmallVec;

use crate::cell::{Cell, Mark};
use crate::decision::{Decision, Decisions, Stat};
use crate::error::Result;
use crate::identity::Attributes;
use crate::key::{Key, KeyHasher};
use crate::rate::Rate;
#[cfg(any(feature = "memcached", feature = "redis"))]
use crate::strategy::Settling;
use crate::strategy::{FixedWindow, Hit, Settlement, Strategy};
use crate::time::{Clock, MonotonicClock, Timestamp};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Applies steps to cells atomically, and tells the time while it does so.
///
/// A backend knows nothing of rates and windows: it loads the cells of a batch, lets
/// [`Batch::decide`] work on them, and stores them if every operation was admitted, such that no
/// other batch sees or writes those cells in between.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no backend",
    label = "no backend",
    note = "a backend is one when it is built: `RedisBackend::builder(\"redis://10.0.0.5\").build()?`"
)]
pub trait Backend: Debug + Send + Sync + 'static {
    /// Applies every operation of the batch, or none of them: if one denies, no cell changes.
    ///
    /// Dropping the future leaves every cell either untouched or charged, and no lock behind.
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>>;

    /// Reads the cell of one operation and the time, changing nothing.
    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>>;

    /// Forgets every cell of this namespace, and of nothing else.
    fn reset(&self) -> BoxFuture<'_, Result<()>>;

    /// The same as [`apply`](Backend::apply) without waiting, if this backend can.
    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        let _ = batch;
        None
    }

    /// The same for a single operation.
    fn try_step(&self, op: &Op<'_>) -> Option<Result<Decision>> {
        let decided = self.try_apply(&Batch::new(std::slice::from_ref(op)))?;
        Some(decided.map(|decisions| decisions[0]))
    }

    /// The same as [`load`](Backend::load) without waiting, if this backend can.
    fn try_load(&self, op: &Op<'_>) -> Option<Result<(Cell, Timestamp)>> {
        let _ = op;
        None
    }

    /// Releases what the backend holds; resets it first unless it is persistent.
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Whether it would decide hits now, asked by a [breaker](crate::CircuitBreaker) that has opened: an
    /// error if not. Of several shards the one of `key` is meant.
    ///
    /// Default: a hit on a count of its own beside that key, which lives for a millisecond. So a
    /// store that answers and yet refuses to write is not ready.
    fn ready<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let strategy: Arc<dyn Strategy> = Arc::new(FixedWindow);
            let op = Op {
                key: key.neighbour("ready"),
                strategy: &strategy,
                rate: const { Rate::literal("1000000/ms") },
                cost: 1,
                attributes: &Attributes::NONE,
            };
            let batch = Batch::new(std::slice::from_ref(&op));
            self.apply(&batch).await.map(drop)
        })
    }

    /// Makes a settlement: an operation whose strategy is one, at a cost of 1.
    /// `degraded` says that something else than the primary backend decided the hit that is settled, so
    /// that it was charged there. Default: it is [applied](Backend::apply).
    ///
    /// Whether it was executed, and may be made again, [the error says](crate::Error::is_unexecuted).
    fn settle<'a>(&'a self, settlement: &'a Op<'a>, degraded: bool) -> BoxFuture<'a, Result<()>> {
        let _ = degraded;
        Box::pin(async move {
            let batch = Batch::new(std::slice::from_ref(settlement));
            self.apply(&batch).await.map(drop)
        })
    }

    /// An instant of the clock that the ages of hits are measured by: only differences have a meaning.
    /// Default: a monotonic clock of this process.
    fn now(&self) -> Timestamp {
        static CLOCK: LazyLock<MonotonicClock> = LazyLock::new(MonotonicClock::new);
        CLOCK.now()
    }

    /// Which of several servers that fail independently has a key: the same number for all keys of
    /// one. Default: 0, there are not several.
    fn shard_of(&self, key: &Key) -> u64 {
        let _ = key;
        0
    }

    /// Equal for handles that share their cells, such as clones: hits on them are one batch.
    fn store_id(&self) -> usize {
        std::ptr::from_ref(self).cast::<()>().addr()
    }

    /// Whether the cells live in this process only, so that a second backend beside this one
    /// would count the same clients anew.
    fn is_local(&self) -> bool {
        false
    }

    /// Whether to [close](Backend::close) this backend now would forget counts that are still in force, so that
    /// limits would be given twice: as memory does that is not empty, and whatever resets itself then. Default:
    /// whether it [is local](Backend::is_local).
    fn would_forget(&self) -> bool {
        self.is_local()
    }

    /// Calls `found` with the [id](Backend::store_id) of every part whose cells live in this process only,
    /// such as the memory that stands in for a store that fails. Default: itself, if it
    /// [is local](Backend::is_local).
    fn local_stores(&self, found: &mut dyn FnMut(usize)) {
        if self.is_local() {
            found(self.store_id());
        }
    }

    /// Whether one store decides all hits, so that parts of limits can be [leased](crate::Lease).
    #[doc(hidden)]
    fn can_lend(&self) -> bool {
        true
    }

    /// It is part of leases: what is in a cell may be given back by others, and is not lost then.
    #[doc(hidden)]
    fn expect_returns(&self) {}

    /// Of a backend that admits hits by what it was [lent](crate::Lease) before, how often the store has
    /// answered that has this key, so far: an admission that did not have to be waited for tells of the
    /// store no more than that. `None` if every admission is an answer of the store.
    #[doc(hidden)]
    fn answers(&self, key: &Key) -> Option<u64> {
        let _ = key;
        None
    }

    /// How identities become keys: under the secret that everybody who shares the cells knows.
    fn key_hasher(&self) -> &KeyHasher {
        const { &KeyHasher::shared() }
    }
}

impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        (**self).apply(batch)
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        (**self).load(op)
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        (**self).reset()
    }

    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        (**self).try_apply(batch)
    }

    fn try_step(&self, op: &Op<'_>) -> Option<Result<Decision>> {
        (**self).try_step(op)
    }

    fn try_load(&self, op: &Op<'_>) -> Option<Result<(Cell, Timestamp)>> {
        (**self).try_load(op)
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        (**self).close()
    }

    fn ready<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        (**self).ready(key)
    }

    fn settle<'a>(&'a self, settlement: &'a Op<'a>, degraded: bool) -> BoxFuture<'a, Result<()>> {
        (**self).settle(settlement, degraded)
    }

    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn shard_of(&self, key: &Key) -> u64 {
        (**self).shard_of(key)
    }

    fn store_id(&self) -> usize {
        (**self).store_id()
    }

    fn is_local(&self) -> bool {
        (**self).is_local()
    }

    fn local_stores(&self, found: &mut dyn FnMut(usize)) {
        (**self).local_stores(found);
    }

    fn would_forget(&self) -> bool {
        (**self).would_forget()
    }

    fn can_lend(&self) -> bool {
        (**self).can_lend()
    }

    fn expect_returns(&self) {
        (**self).expect_returns();
    }

    fn answers(&self, key: &Key) -> Option<u64> {
        (**self).answers(key)
    }

    fn key_hasher(&self) -> &KeyHasher {
        (**self).key_hasher()
    }
}

/// One hit against one cell.
#[derive(Clone, Copy, Debug)]
pub struct Op<'a> {
    /// The cell.
    pub key: Key,
    /// Who decides. Shared, so that a backend may take it to another thread.
    pub strategy: &'a Arc<dyn Strategy>,
    /// The rate in force.
    pub rate: Rate,
    /// How much to take.
    pub cost: u32,
    /// What is known about who asks.
    pub attributes: &'a Attributes,
}

impl Op<'_> {
    fn hit(&self, now: Timestamp, cost: u32) -> Hit<'_> {
        Hit {
            now,
            rate: &self.rate,
            cost,
            attributes: self.attributes,
        }
    }

    /// Decides this hit, and charges `cell` if it is admitted.
    #[inline]
    pub fn step(&self, cell: &mut Cell, now: Timestamp) -> Decision {
        if self.rate.is_unlimited() {
            return Decision::UNLIMITED;
        }
        self.strategy.step(cell, &self.hit(now, self.cost))
    }

    /// What the strategy says about `cell` without a hit.
    pub fn peek(&self, cell: &mut Cell, now: Timestamp) -> Decision {
        Op { cost: 0, ..*self }.step(cell, now)
    }

    /// After a denial: brings `cell` back if it is further ahead than any can honestly be, since the
    /// clock has stepped back or the rate was changed. Returns whether it was.
    ///
    /// Until a backend has done so, nobody knows when the wait of the denial has begun.
    #[inline]
    pub fn realign(&self, cell: &mut Cell, now: Timestamp) -> bool {
        let settlement = Settlement::Charge(0);
        !self.rate.is_unlimited() && self.strategy.settle(cell, &self.hit(now, 1), settlement)
    }

    /// What `cell` says about this hit, which is not made.
    pub fn stat(&self, cell: &Cell, now: Timestamp) -> Stat {
        if self.rate.is_unlimited() {
            return Stat::unlimited();
        }
        let before = self.peek(&mut cell.clone(), now);
        let next = self.step(&mut cell.clone(), now);
        Stat {
            rate: self.rate,
            limit: before.limit(),
            remaining: before.remaining(),
            wait: next.wait(),
            verdict: next.verdict(),
            reset: before.reset(),
            details: self.strategy.details(cell, &self.hit(now, self.cost)),
        }
    }
}

/// Of a batch that was denied, the operations whose cells have to be [realigned](Op::realign), and
/// what does it: a step of each at a cost of 1.
#[cfg(any(feature = "memcached", feature = "redis"))]
fn realigning<'a>(
    batch: &Batch<'a>,
    cells: &[Cell],
    decisions: &Decisions,
    now: Timestamp,
) -> Vec<(&'a Op<'a>, Arc<dyn Strategy>)> {
    let all = batch.ops().iter().zip(cells).zip(decisions.iter());
    all.filter(|((op, cell), decision)| {
        decision.is_denied() && op.realign(&mut (*cell).clone(), now)
    })
    .map(|((op, _), _)| (op, Settling::of(op.strategy, Settlement::Charge(0))))
    .collect()
}

/// Operations that are applied together or not at all. No two are on the same cell.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    ops: &'a [Op<'a>],
}

impl<'a> Batch<'a> {
    /// A batch of operations on different cells.
    pub fn new(ops: &'a [Op<'a>]) -> Batch<'a> {
        debug_assert!(
            ops.iter()
                .enumerate()
                .all(|(at, op)| ops[..at].iter().all(|one| one.key != op.key)),
            "two operations of a batch are on the same cell"
        );
        Batch { ops }
    }

    /// The operations.
    pub fn ops(&self) -> &'a [Op<'a>] {
        self.ops
    }

    /// Whether they are of several identities: then they may be on several nodes of a store, which answer
    /// each for itself.
    #[cfg(any(feature = "redis", feature = "tokio"))]
    pub(crate) fn is_scattered(&self) -> bool {
        let mut neighbours = self.ops.windows(2);
        neighbours.any(|pair| pair[0].key.who != pair[1].key.who)
    }

    /// Whether it gives something back, and must not be applied again if its answer was lost.
    #[cfg(feature = "tokio")]
    pub(crate) fn gives_back(&self) -> bool {
        self.ops.iter().any(|op| op.strategy.gives_back())
    }

    /// Decides all operations on their cells, given in the same order. If one is denied, every
    /// cell is as before, and each decision is what that operation alone would have answered
    /// without being charged.
    pub fn decide(&self, cells: &mut [Cell], now: Timestamp) -> Decisions {
        if let ([op], [cell]) = (self.ops, &mut *cells) {
            return op.step(cell, now).into();
        }
        let marks: SmallVec<[Mark; 3]> = cells.iter().map(Cell::mark).collect();
        let mut decisions: Decisions = self
            .ops
            .iter()
            .zip(&mut *cells)
            .map(|(op, cell)| op.step(cell, now))
            .collect();
        if decisions.is_denied() {
            for (at, mark) in marks.into_iter().enumerate() {
                if decisions[at].is_allowed() {
                    cells[at].rewind(mark);
                    // What would have been denied took nothing, and is still to be told.
                    if !decisions[at].hides_denial() {
                        decisions[at] = self.ops[at].peek(&mut cells[at], now);
                    }
                }
            }
        }
        decisions
    }
}
