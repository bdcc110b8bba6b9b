//! Cells in the memory of this process.

mod overflow;
mod table;

use std::fmt;
use std::future::ready;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use smallvec::SmallVec;

use self::table::{Limits, Table};
use super::{Backend, Batch, BoxFuture, Op};
use crate::cell::Cell;
use crate::decision::{Decision, Decisions};
use crate::error::{Error, Result};
use crate::key::{Key, KeyHasher};
use crate::name::{LONGEST_NAMESPACE, check_length};
use crate::time::{Clock, SystemClock, Timestamp};

/// Keeps cells in the memory of this process, and decides without waiting.
///
/// Clones share the cells. Build it **once, outside the `HttpServer::new` closure**, and move
/// clones in: that closure runs once per worker, and a backend built inside it would give every
/// worker its own count.
///
/// # Memory
///
/// A key takes 58 bytes at most (see `benches`) until its cell expires. Expired cells are dropped
/// as new keys arrive, or by [`sweep`](MemoryBackend::sweep); no background task is needed.
///
/// At [`max_keys`](MemoryBackendBuilder::max_keys) live cells, or when they take
/// [`max_bytes`](MemoryBackendBuilder::max_bytes), there is no room for new keys, and nothing alive
/// is ever evicted, since that would give its owner a fresh quota. Newcomers then share *overflow
/// cells* until there is room again, up to half as many as `max_keys` per throttle, 24 bytes each.
/// Windows, buckets and GCRA count a newcomer in two of them, and the less used one decides: an
/// honest newcomer is admitted although a flood of invented identities has used up many. Other
/// strategies share one, 64 per shard at least. Known clients are not affected, and nobody is
/// admitted beyond the limit.
///
/// ```
/// use traffik_core::MemoryBackend;
///
/// let backend = MemoryBackend::builder().namespace("api").max_keys(100_000).build()?;
/// # let _ = backend;
/// # Ok::<(), traffik_core::Error>(())
/// ```
#[derive(Clone)]
pub struct MemoryBackend(Arc<Inner>);

struct Inner {
    shards: Box<[Shard]>,
    /// `None` is the system's, called without indirection.
    clock: Option<Arc<dyn Clock>>,
    system: SystemClock,
    namespace: String,
    persistent: bool,
    closed: AtomicBool,
}

/// A shard of its own cache lines (two, since processors fetch them in pairs), so that workers on
/// different shards do not slow each other down.
#[repr(align(128))]
struct Shard(Mutex<Table>);

impl MemoryBackend {
    /// A backend with default settings.
    pub fn new() -> MemoryBackend {
        MemoryBackendBuilder::default().assemble()
    }

    /// A backend with other settings.
    pub fn builder() -> MemoryBackendBuilder {
        MemoryBackendBuilder::default()
    }

    /// The backend of throttles that were given none, one for the whole process.
    pub fn global() -> &'static MemoryBackend {
        static GLOBAL: OnceLock<MemoryBackend> = OnceLock::new();
        GLOBAL.get_or_init(MemoryBackend::new)
    }

    /// The name given at construction.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Whether closing keeps the cells.
    pub fn is_persistent(&self) -> bool {
        self.0.persistent
    }

    /// How many keys are tracked, expired ones that nobody dropped yet included.
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether no key is tracked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many hits met a full table and were admitted by overflow cells.
    pub fn overflowed(&self) -> u64 {
        self.0
            .shards
            .iter()
            .map(|shard| shard.lock().overflowed())
            .sum()
    }

    /// Drops every expired cell and returns how many there were. One shard is locked at a time.
    ///
    /// Never needed for correctness: it gives memory back when traffic ceases.
    pub fn sweep(&self) -> usize {
        let now = self.now();
        self.0
            .shards
            .iter()
            .map(|shard| shard.lock().purge(now))
            .sum()
    }

    #[inline]
    fn now(&self) -> Timestamp {
        match &self.0.clock {
            None => self.0.system.now(),
            Some(clock) => clock.now(),
        }
    }

    #[inline]
    fn shard_of(&self, key: &Key) -> usize {
        // The table places by the upper bits of the same half.
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
        let low = (key.digest() >> 64) as usize;
        low & (self.0.shards.len() - 1)
    }

    fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        for shard in &self.0.shards {
            shard.lock().clear();
        }
    }

    /// The common case: one limit, one cell.
    ///
    /// Not inlined, so that the strategy writes its decision where the caller wants it: copied
    /// from elsewhere it would have to leave the store buffer first, for a nanosecond or two.
    #[inline(never)]
    fn apply_one(&self, op: &Op<'_>) -> Decision {
        // Before the lock, so that the counter is read while the lock is fetched, and the lock is
        // held for shorter. A thread that is overtaken in between is a clock that steps back a
        // little, which every strategy tolerates.
        let now = self.now();
        let mut table = self.0.shards[self.shard_of(&op.key)].lock();
        table.step(op, now)
    }

    fn apply_many(&self, batch: &Batch<'_>) -> Decisions {
        let decided = match batch.ops() {
            [one, two] => self.apply_few([one, two]),
            [one, two, three] => self.apply_few([one, two, three]),
            [one, two, three, four] => self.apply_few([one, two, three, four]),
            _ => None,
        };
        decided.unwrap_or_else(|| self.apply_any(batch))
    }

    /// The common case of several: as few limits as a request has, whose cells are all there, and small. They
    /// are decided where they are.
    fn apply_few<const N: usize>(&self, ops: [&Op<'_>; N]) -> Option<Decisions> {
        let mut held = self.hold(ops.map(|op| self.shard_of(&op.key)));
        let now = self.now();
        let mut places = [0; N];
        for (at, op) in ops.into_iter().enumerate() {
            places[at] = held.table(at).small(op)?;
        }
        let mut before = [const { Cell::FRESH }; N];
        let mut decisions = [Decision::UNLIMITED; N];
        for (at, op) in ops.into_iter().enumerate() {
            let cell = held.table(at).cell(places[at]);
            before[at] = cell.clone();
            decisions[at] = op.step(cell, now);
        }
        if decisions.iter().any(Decision::is_denied) {
            for (at, op) in ops.into_iter().enumerate() {
                let cell = held.table(at).cell(places[at]);
                match decisions[at].is_allowed() {
                    true => {
                        *cell = std::mem::take(&mut before[at]);
                        if !decisions[at].hides_denial() {
                            decisions[at] = op.peek(cell, now);
                        }
                    }
                    false => {
                        op.realign(cell, now);
                    }
                }
            }
        }
        // What has grown is restrained last, since that may sweep the table.
        if (0..N).any(|at| held.table(at).cell(places[at]).is_large()) {
            let charged = !decisions.iter().any(Decision::is_denied);
            let mut grown = [false; N];
            for (at, op) in ops.into_iter().enumerate() {
                grown[at] = held.table(at).weigh(op);
            }
            for (at, op) in ops.into_iter().enumerate().filter(|(at, _)| grown[*at]) {
                held.table(at).restrain(op, charged, now);
            }
        }
        Some(Decisions::of(&decisions))
    }

    /// Locks the shards of some operations.
    #[inline]
    fn hold<const N: usize>(&self, shards: [usize; N]) -> Held<'_, N> {
        let mut order: [usize; N] = std::array::from_fn(|at| at);
        // In the order of the shards, so that no two batches can wait for each other.
        order.sort_unstable_by_key(|at| shards[*at]);
        let mut held = Held {
            tables: [const { None }; N],
            holder: [0; N],
        };
        let mut last = None;
        for at in order {
            held.holder[at] = match last {
                Some(last) if shards[last] == shards[at] => held.holder[last],
                _ => {
                    held.tables[at] = Some(self.0.shards[shards[at]].lock());
                    at
                }
            };
            last = Some(at);
        }
        held
    }

    fn apply_any(&self, batch: &Batch<'_>) -> Decisions {
        // In the order of the shards, so that no two batches can wait for each other.
        let mut needed: SmallVec<[usize; 4]> = batch
            .ops()
            .iter()
            .map(|op| self.shard_of(&op.key))
            .collect();
        needed.sort_unstable();
        needed.dedup();
        let mut tables: SmallVec<[MutexGuard<'_, Table>; 4]> = needed
            .iter()
            .map(|shard| self.0.shards[*shard].lock())
            .collect();
        let table_of = |op: &Op<'_>| {
            let at = needed.binary_search(&self.shard_of(&op.key));
            at.expect("every operation's shard was put into `needed` above")
        };

        let now = self.now();
        let (mut cells, bytes): (SmallVec<[Cell; 3]>, SmallVec<[usize; 3]>) = batch
            .ops()
            .iter()
            .map(|op| tables[table_of(op)].take(op))
            .unzip();
        if !tables.iter().all(|table| table.has_no_overflow()) {
            self.charge_shared(batch, &mut cells, now, |op| &tables[table_of(op)]);
        }
        let decisions = batch.decide(&mut cells, now);
        let charged = decisions.is_allowed();
        for ((op, cell), decision) in batch.ops().iter().zip(&mut cells).zip(decisions.iter()) {
            if decision.is_denied() {
                op.realign(cell, now);
            }
        }
        // Known keys first: an insertion may drop cells that look fresh, as those look that are here, and so
        // may what restrains those that have grown.
        let mut grown: SmallVec<[&Op<'_>; 3]> = SmallVec::new();
        for ((op, cell), bytes) in batch.ops().iter().zip(&mut cells).zip(bytes) {
            grown.extend(tables[table_of(op)].put_back(op, cell, bytes).then_some(op));
        }
        for op in grown {
            tables[table_of(op)].restrain(op, charged, now);
        }
        for (op, cell) in batch.ops().iter().zip(cells) {
            if charged && op.cost > 0 {
                tables[table_of(op)].insert(op, cell, now);
            }
        }
        decisions
    }
}

/// The tables of as many operations, each locked once.
struct Held<'t, const N: usize> {
    tables: [Option<MutexGuard<'t, Table>>; N],
    /// Of every operation, whose place its table has.
    holder: [usize; N],
}

impl<const N: usize> Held<'_, N> {
    /// The table of an operation.
    #[inline]
    fn table(&mut self, at: usize) -> &mut Table {
        let Some(table) = &mut self.tables[self.holder[at]] else {
            unreachable!("`hold` names places that it has filled");
        };
        table
    }
}

impl MemoryBackend {
    /// Where newcomers have one cell together, of which each has a copy, the later copies learn of
    /// the earlier hits. A hit that is denied here is denied by the batch, too, which charges none.
    #[cold]
    fn charge_shared<'t>(
        &self,
        batch: &Batch<'_>,
        cells: &mut [Cell],
        now: Timestamp,
        table_of: impl Fn(&Op<'_>) -> &'t Table,
    ) {
        for (at, op) in batch.ops().iter().enumerate() {
            for earlier in &batch.ops()[..at] {
                let same_shard = self.shard_of(&op.key) == self.shard_of(&earlier.key);
                if same_shard && table_of(op).shares(op, earlier) {
                    let _ = earlier.step(&mut cells[at], now);
                }
            }
        }
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for MemoryBackend {
    #[inline]
    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        if let [op] = batch.ops() {
            return Some(self.try_step(op)?.map(Decisions::from));
        }
        if self.is_closed() {
            return Some(Err(closed()));
        }
        Some(Ok(self.apply_many(batch)))
    }

    #[inline]
    fn try_step(&self, op: &Op<'_>) -> Option<Result<Decision>> {
        if self.is_closed() {
            return Some(Err(closed()));
        }
        Some(Ok(self.apply_one(op)))
    }

    fn try_load(&self, op: &Op<'_>) -> Option<Result<(Cell, Timestamp)>> {
        if self.is_closed() {
            return Some(Err(closed()));
        }
        let table = self.0.shards[self.shard_of(&op.key)].lock();
        Some(Ok((table.read(op), self.now())))
    }

    /// Of the clock that the cells go by.
    fn now(&self) -> Timestamp {
        MemoryBackend::now(self)
    }

    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        let decided = self.try_apply(batch);
        Box::pin(ready(
            decided.unwrap_or_else(|| unreachable!("memory always answers")),
        ))
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        let loaded = self.try_load(op);
        Box::pin(ready(
            loaded.unwrap_or_else(|| unreachable!("memory always answers")),
        ))
    }

    fn ready<'a>(&'a self, _: &'a Key) -> BoxFuture<'a, Result<()>> {
        Box::pin(ready(match self.is_closed() {
            false => Ok(()),
            true => Err(closed()),
        }))
    }

    /// Unless everything in it has expired.
    fn would_forget(&self) -> bool {
        self.sweep();
        !self.is_closed() && self.0.shards.iter().any(|shard| !shard.lock().is_unused())
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        self.clear();
        Box::pin(ready(Ok(())))
    }

    /// After this every decision is an error, until the process ends.
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.0.closed.store(true, Ordering::Relaxed);
        if !self.0.persistent {
            self.clear();
        }
        Box::pin(ready(Ok(())))
    }

    fn store_id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn is_local(&self) -> bool {
        true
    }

    #[inline]
    fn key_hasher(&self) -> &KeyHasher {
        KeyHasher::local()
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("namespace", &self.0.namespace)
            .field("shards", &self.0.shards.len())
            .finish_non_exhaustive()
    }
}

#[cold]
fn closed() -> Error {
    Error::closed("the memory backend was closed")
}

impl Shard {
    #[inline]
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.try_lock().unwrap_or_else(|| self.wait())
    }

    /// A strategy of the user's may panic in its step; the table itself is consistent between
    /// calls, so the next request goes on.
    #[inline]
    fn try_lock(&self) -> Option<MutexGuard<'_, Table>> {
        match self.0.try_lock() {
            Ok(table) => Some(table),
            Err(TryLockError::Poisoned(panicked)) => Some(panicked.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Leaves the shard alone for longer and longer before it asks again: whoever has it decides
    /// many hits in a row from its own cache meanwhile, instead of sending it to and fro, which
    /// costs as much as a decision. Only then it parks, since waking somebody is a call of the
    /// system: the other one was interrupted, or has more to do than a step.
    #[cold]
    #[inline(never)]
    fn wait(&self) -> MutexGuard<'_, Table> {
        for round in 0..PATIENCE {
            for _ in 0..FIRST_PAUSE << round {
                spin_loop();
            }
            if let Some(table) = self.try_lock() {
                return table;
            }
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pauses of the processor, some 0.1 to 0.4 µs together.
const FIRST_PAUSE: u32 = 8;

/// How often a thread asks before it parks: for some 20 to 100 µs.
const PATIENCE: u32 = 8;

/// What a key may take on average unless something else is said: a log of a few hits.
const BYTES_PER_KEY: usize = 256;

/// Few keys may have long logs.
const LEAST_DEFAULT_BYTES: usize = 64 << 20;

/// A small table, and a few cells for its overflow.
const LEAST_BYTES_PER_SHARD: usize = 4_096;

/// Settings of a [`MemoryBackend`].
#[derive(Debug)]
#[must_use]
pub struct MemoryBackendBuilder {
    namespace: String,
    shards: usize,
    max_keys: usize,
    max_bytes: Option<usize>,
    persistent: bool,
    clock: Option<Arc<dyn Clock>>,
}

impl MemoryBackendBuilder {
    /// A name of up to 128 bytes, for logs. Every backend has its own cells, whatever its name. Default: `memory`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How many parts are locked independently; a power of two. Default: 16 per core.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// How many keys are tracked at most, 58 bytes each. Default: a million.
    pub fn max_keys(mut self, max_keys: usize) -> Self {
        self.max_keys = max_keys;
        self
    }

    /// How many bytes all keys take at most: slots, and what the strategies of more than two numbers
    /// and the logs allocate. Default: 256 for each of `max_keys`, and 64 MiB at least.
    ///
    /// When they are used up, newcomers share cells as at `max_keys`. The log of a known client that
    /// would have to grow becomes coarser instead: two hits in a row count as if both had come with
    /// the later one. So it is never admitted beyond the limit, and sometimes a little later. A log
    /// of eight entries stays as it is.
    ///
    /// Two kinds of cells may go beyond, since they cannot be made smaller: those of
    /// [`PriorityQueue`](crate::PriorityQueue), which are as large as its `max_queue_size` lets them
    /// be, and those of strategies of your own that implement no
    /// [`coarsen`](crate::Strategy::coarsen). While a part of the table grows, it is there twice.
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = Some(max_bytes);
        self
    }

    /// Whether closing keeps the cells for other handles that still read them. Default: no.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// Another clock, for tests. Default: the system's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// The backend.
    ///
    /// # Errors
    ///
    /// If `shards` is not a power of two up to 65,536, `max_keys` is less than one per shard or
    /// more than 2^31 per shard, `max_bytes` is less than 4,096 per shard, or the namespace has more
    /// than 128 bytes.
    pub fn build(self) -> Result<MemoryBackend> {
        check_length("a namespace", &self.namespace, LONGEST_NAMESPACE)?;
        if !self.shards.is_power_of_two() || self.shards > 1 << 16 {
            return Err(Error::invalid(format!(
                "the number of shards must be a power of two up to 65536, such as 64, not {}",
                self.shards
            )));
        }
        if self.max_keys < self.shards || self.max_keys / self.shards > 1 << 31 {
            return Err(Error::invalid(format!(
                "max_keys must be between the number of shards, {}, and 2^31 times that, not {}",
                self.shards, self.max_keys
            )));
        }
        if let Some(max_bytes) = self.max_bytes
            && max_bytes / self.shards < LEAST_BYTES_PER_SHARD
        {
            return Err(Error::invalid(format!(
                "max_bytes must be at least {LEAST_BYTES_PER_SHARD} for each of {} shards, {}, not \
                 {max_bytes}",
                self.shards,
                self.shards * LEAST_BYTES_PER_SHARD
            )));
        }
        Ok(self.assemble())
    }

    fn assemble(self) -> MemoryBackend {
        let bytes = self.max_bytes.unwrap_or_else(|| {
            let bytes = self.max_keys.saturating_mul(BYTES_PER_KEY);
            bytes.max(LEAST_DEFAULT_BYTES)
        });
        let limits = Limits {
            keys: self.max_keys.div_ceil(self.shards),
            bytes: bytes / self.shards,
        };
        MemoryBackend(Arc::new(Inner {
            shards: (0..self.shards)
                .map(|_| Shard(Mutex::new(Table::new(limits))))
                .collect(),
            clock: self.clock,
            system: SystemClock::new(),
            namespace: self.namespace,
            persistent: self.persistent,
            closed: AtomicBool::new(false),
        }))
    }
}

impl Default for MemoryBackendBuilder {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(4, usize::from);
        MemoryBackendBuilder {
            namespace: "memory".into(),
            shards: (16 * cores).next_power_of_two().min(1024),
            max_keys: 1_000_000,
            max_bytes: None,
            persistent: false,
            clock: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attempt, Hits, Identity, Throttle};

    #[test]
    fn limits_that_hold_nothing_are_refused() {
        let builder = || MemoryBackend::builder().shards(4);
        for (builder, said) in [
            (builder().max_keys(3), "max_keys must be between"),
            (builder().max_bytes(0), "max_bytes must be at least 4096"),
            (builder().max_bytes(16_383), "16384, not 16383"),
        ] {
            let error = builder.build().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(builder().max_bytes(16_384).build().is_ok());
        assert!(builder().max_bytes(usize::MAX).build().is_ok());
    }

    /// Each was charged to a copy of the same cell, and the second copy replaced the first.
    #[test]
    fn newcomers_of_one_batch_that_share_a_cell_lost_the_charge_of_one() {
        for strategy in [
            "sliding_window_log",
            "sliding_window_counter",
            "fixed_window",
        ] {
            let backend = MemoryBackend::builder().shards(1).max_keys(1);
            let backend = backend.max_bytes(4_096).build().unwrap();
            let throttle = Throttle::builder("t").rate("5/day").backend(backend);
            let throttle = throttle.strategy(crate::strategy::named(strategy).unwrap());
            let throttle = throttle.build().unwrap();
            assert!(
                throttle
                    .hit_now(&Identity::of("known"))
                    .unwrap()
                    .is_allowed()
            );
            let all: Vec<_> = (0..40).map(|n| Identity::from(n.to_string())).collect();
            let mut admitted = vec![0; all.len()];
            for round in 0..400 {
                let pair = [round % 40, (round * 7 + 1 + round / 40) % 40];
                if pair[0] == pair[1] {
                    continue;
                }
                let mut hits = Hits::new();
                hits.push(&throttle, &all[pair[0]]);
                hits.push(&throttle, &all[pair[1]]);
                if hits.try_decide().unwrap().unwrap().is_allowed() {
                    pair.iter().for_each(|who| admitted[*who] += 1);
                }
            }
            assert!(
                admitted.iter().all(|count| *count <= 5),
                "{strategy}: {admitted:?}"
            );
        }
    }

    #[test]
    fn a_newcomer_does_not_take_the_place_of_who_is_in_the_same_batch() {
        let backend = MemoryBackend::builder().shards(1).max_keys(1);
        let backend = backend.build().unwrap();
        let daily = |name| {
            let throttle = Throttle::builder(name).rate("5/day");
            throttle.backend(backend.clone()).build().unwrap()
        };
        let (known, new) = (daily("known"), daily("new"));
        let ann = Identity::of("ann");
        let mut hits = Hits::new();
        hits.push(&new, &ann);
        hits.push(&known, Attempt::by(&ann).cost(0));
        assert_eq!(known.hit_now(&ann).unwrap().remaining(), 4);
        assert!(hits.try_decide().unwrap().unwrap().is_allowed());
        assert_eq!(known.hit_now(&ann).unwrap().remaining(), 3);
    }

    /// What was put back first made room for itself, and dropped what was not back yet: that looked fresh.
    #[test]
    fn a_batch_that_is_denied_in_a_full_table_forgets_no_count() {
        let backend = MemoryBackend::builder().shards(1).max_bytes(4_096);
        let backend = backend.build().unwrap();
        let throttle = |name, strategy, rate| {
            let throttle = Throttle::builder(name).strategy(strategy).rate(rate);
            throttle.backend(backend.clone()).build().unwrap()
        };
        // Its cells grow beyond the bytes of a table, since nothing makes them smaller.
        let queue = throttle("queue", "priority_queue", "200/day");
        let daily = throttle("daily", "fixed_window", "100/day");
        let all: Vec<_> = (0..4).map(|n| Identity::from(n.to_string())).collect();
        for who in &all {
            assert_eq!(daily.hit_now(who).unwrap().remaining(), 99);
        }
        for _ in 0..200 {
            for who in &all {
                let _ = queue.hit_now(who).unwrap();
            }
        }
        for who in &all {
            let hits = Hits::from_iter([(&queue, who), (&daily, who)]);
            assert!(hits.try_decide().unwrap().unwrap()[0].is_denied());
            assert_eq!(daily.hit_now(who).unwrap().remaining(), 98);
        }
    }

    /// The log that was put back was taken for one that has grown from nothing, or by the hit that was
    /// undone.
    #[test]
    fn batches_that_were_denied_made_the_log_of_a_known_client_coarser() {
        // The log denies; or the other does, and the log would have had to grow.
        for (rate, taken, cost, of_the_other) in [
            ("200/hour", 200, 1, "1000/day"),
            ("300/hour", 256, 45, "1/day"),
        ] {
            let clock = crate::ManualClock::default();
            let backend = MemoryBackend::builder().shards(1).max_bytes(64 << 10);
            let backend = backend.clock(clock.clone()).build().unwrap();
            let throttle = |name, strategy, rate| {
                let throttle = Throttle::builder(name).strategy(strategy).rate(rate);
                throttle.backend(backend.clone()).build().unwrap()
            };
            let log = throttle("log", "sliding_window_log", rate);
            let daily = throttle("daily", "fixed_window", of_the_other);
            let ann = Identity::of("ann");
            for _ in 0..taken {
                assert!(log.hit_now(&ann).unwrap().is_allowed());
                clock.advance(std::time::Duration::from_secs(10));
            }
            assert!(daily.hit_now(&ann).unwrap().is_allowed());
            // Cells that nothing makes smaller take all the room, and more.
            let queue = throttle("queue", "priority_queue", "5000/day");
            for n in 0..6_000 {
                let _ = queue.hit_now(&Identity::of(n % 6)).unwrap();
            }
            let wait = || {
                let attempt = Attempt::by(&ann).cost(cost);
                log.hit_now(attempt).unwrap().retry_after()
            };
            let before = wait();
            assert!(before.is_some());
            for cost in [1, 1, 0, 0] {
                let attempt = Attempt::by(&ann).cost(cost);
                let hits = Hits::from_iter([(&log, attempt), (&daily, attempt)]);
                let decisions = hits.try_decide().unwrap().unwrap();
                assert_eq!(decisions.is_denied(), cost > 0, "{rate}");
                assert_eq!(wait(), before, "{rate}");
            }
            backend.0.shards[0].lock().assert_counted();
        }
    }

    /// However many there are, wherever their cells are, and whatever they take.
    #[test]
    fn a_batch_is_charged_as_a_whole_wherever_its_cells_are() {
        let strategies = [
            "fixed_window",
            "token_bucket",
            "sliding_window_counter",
            "sliding_window_log",
        ];
        let (ann, ben) = (Identity::of("ann"), Identity::of("ben"));
        for (shards, limits) in [1, 2, 64]
            .into_iter()
            .flat_map(|shards| (2..=6).map(move |limits| (shards, limits)))
        {
            let backend = MemoryBackend::builder()
                .shards(shards)
                .clock(crate::ManualClock::default());
            let backend = backend.build().unwrap();
            let throttles: Vec<_> = (0..limits)
                .map(|at| {
                    let throttle = Throttle::builder(format!("{at}"))
                        .rate(format!("{}/day", 3 + (at + 1) % limits));
                    let throttle = throttle.strategy(strategies[at % strategies.len()]);
                    throttle.backend(backend.clone()).build().unwrap()
                })
                .collect();
            // The last allows three, and the first of a client are newcomers.
            for who in [&ann, &ben] {
                let hits = Hits::from_iter(throttles.iter().map(|throttle| (throttle, who)));
                for round in 1..=5 {
                    let decisions = hits.try_decide().unwrap().unwrap();
                    assert_eq!(
                        decisions.is_allowed(),
                        round <= 3,
                        "{shards} {limits} {round}"
                    );
                    for (at, decision) in decisions.iter().enumerate() {
                        let limit = 3 + (at + 1) % limits;
                        assert_eq!(
                            decision.remaining(),
                            (limit - round.min(3)) as u64,
                            "{shards} {limits} {at}"
                        );
                    }
                }
            }
        }
    }
}
