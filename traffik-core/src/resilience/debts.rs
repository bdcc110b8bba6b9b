//! What was admitted without the store, and has not been charged there yet.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::share::Share;
use crate::backend::{Backend, BoxFuture, Op};
use crate::cell::Cell;
use crate::decision::Decisions;
use crate::error::Result;
use crate::identity::Attributes;
use crate::key::Key;
use crate::rate::Rate;
use crate::strategy::{Hit, Settlement, Settling, Strategy};
use crate::sweep::Sweep;
use crate::time::{Clock, Timestamp};
use crate::together::together;

/// The debts of one node to its store, which are [paid](Payment) when it is back.
///
/// What a debt comes to is not the sum of what was admitted: a window ends, a bucket drains. So each
/// is two cells of the very strategy, as it was before the first hit that the store does not know
/// of, and as it would be had it known of all; the debt is what lies between them at the time.
pub(super) struct Debts {
    shards: [Mutex<Ledger>; Self::SHARDS],
    /// How many there are, those included that are just being paid.
    count: AtomicUsize,
    clock: Arc<dyn Clock>,
    /// Whether a task is at work to pay them.
    is_driven: AtomicBool,
    /// Until when some matter that were not taken down, and will never be paid; in µs of the clock.
    unknown_until_us: AtomicU64,
}

/// What became of the debt for a hit that is refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refunded {
    /// It is less now.
    Owed,
    /// It was paid, and is to be refunded where it was.
    Paid,
    /// Nobody knows whether there was one.
    Unknown,
}

#[derive(Debug, Default)]
struct Ledger {
    owed: HashMap<Key, Owed>,
    /// How often it was cleared.
    cleared: u64,
    /// For what does not matter any more.
    sweep: Sweep,
}

/// Of one key, one for all who share it and differ in their attributes.
type Owed = SmallVec<[Debt; 1]>;

#[derive(Debug)]
struct Debt {
    strategy: Arc<dyn Strategy>,
    rate: Rate,
    attributes: Attributes,
    before: Cell,
    after: Cell,
    /// What was admitted, and what that was charged with in a share: as if every node had admitted as
    /// much.
    admitted: u64,
    charged: u64,
}

/// A debt that is being paid. Dropped without, it is owed as before.
pub(super) struct Payment<'a> {
    debts: &'a Debts,
    key: Key,
    /// How often its ledger had been cleared when it was taken from there.
    cleared: u64,
    debt: Option<Debt>,
}

impl Debts {
    const SHARDS: usize = 16;

    /// More debts are not taken down: about 30 MB.
    const MOST: usize = if cfg!(test) { 1 << 10 } else { 1 << 17 };

    /// How often at most a ledger is looked through for room.
    const SWEEP_US: u64 = 100_000;

    /// So many are paid at once.
    const PORTION: usize = 64;

    pub(super) fn new(clock: Arc<dyn Clock>) -> Debts {
        Debts {
            shards: std::array::from_fn(|_| Mutex::default()),
            count: AtomicUsize::new(0),
            clock,
            is_driven: AtomicBool::new(false),
            unknown_until_us: AtomicU64::new(0),
        }
    }

    /// Whether there are none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Cells as they are before a hit, of those keys that owe nothing yet. From a `memory`.
    pub(super) fn before(&self, memory: &dyn Backend, ops: &[Op<'_>]) -> SmallVec<[Cell; 1]> {
        let cell = |op: &Op<'_>| {
            let known = self.shard_of(&op.key).owed.contains_key(&op.key);
            let loaded = match known || op.rate.is_unlimited() {
                true => None,
                false => memory.try_load(op),
            };
            match loaded {
                // What is in a log leaves it whatever comes after: then the difference is what came.
                Some(Ok((cell, _))) if cell.queue().is_none() => cell,
                _ => Cell::fresh(),
            }
        };
        ops.iter().map(cell).collect()
    }

    /// An operation was admitted, and charged in its share with so much.
    pub(super) fn add(&self, op: &Op<'_>, charged: u32, before: &Cell) {
        if op.rate.is_unlimited() || op.cost == 0 {
            return;
        }
        let now = self.clock.now();
        let mut shard = self.shard_of(&op.key);
        let known = shard.owed.get_mut(&op.key);
        let debt = known.and_then(|owed| owed.iter_mut().find(|debt| debt.is_of(op)));
        if let Some(debt) = debt {
            return debt.add(op, charged, now);
        }
        if self.len() >= Self::MOST && shard.sweep.is_due(now.as_micros(), Self::SWEEP_US) {
            self.forgive(&mut shard, now);
        }
        let mut debt = Debt::of(op, before.clone());
        debt.add(op, charged, now);
        if self.len() >= Self::MOST {
            let until_us = debt.after.expires().as_micros();
            self.unknown_until_us.fetch_max(until_us, Ordering::Relaxed);
            return;
        }
        shard.owed.entry(op.key).or_default().push(debt);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// A hit that was [added](Debts::add) is refunded.
    pub(super) fn refund(&self, op: &Op<'_>, refund: Settlement, share: Share) -> Refunded {
        let Settlement::Refund { cost, .. } = refund else {
            return Refunded::Paid;
        };
        let now = self.clock.now();
        let mut shard = self.shard_of(&op.key);
        let known = shard.owed.get_mut(&op.key);
        let debt = known.and_then(|owed| owed.iter_mut().find(|debt| debt.is_of(op)));
        match debt {
            Some(debt) if debt.admitted >= cost.into() => {
                debt.refund(cost, share.of_settlement(refund), now);
                Refunded::Owed
            }
            _ if now.as_micros() < self.unknown_until_us.load(Ordering::Relaxed) => {
                Refunded::Unknown
            }
            _ => Refunded::Paid,
        }
    }

    /// Whether a key owes anything.
    pub(super) fn has(&self, key: &Key) -> bool {
        !self.is_empty() && self.shard_of(key).owed.contains_key(key)
    }

    /// Takes what a key owes, to be paid.
    pub(super) fn of<'a>(&'a self, key: &Key) -> impl Iterator<Item = Payment<'a>> + use<'a> {
        let mut shard = self.shard_of(key);
        let (key, cleared, owed) = (*key, shard.cleared, shard.owed.remove(key));
        owed.unwrap_or_default().into_iter().map(move |debt| {
            let debt = Some(debt);
            Payment {
                debts: self,
                key,
                cleared,
                debt,
            }
        })
    }

    /// Takes up to so many debts of any keys, to be paid.
    pub(super) fn some(&self, most: usize) -> Vec<Payment<'_>> {
        let shards = self.shards.iter();
        let keys = shards.flat_map(|shard| {
            lock(shard)
                .owed
                .keys()
                .take(most)
                .copied()
                .collect::<Vec<_>>()
        });
        let keys: Vec<_> = keys.take(most).collect();
        keys.iter().flat_map(|key| self.of(key)).collect()
    }

    /// Tries to pay all, and gives up those that the store does not take now. Tells whether it has
    /// taken any.
    pub(super) async fn pay(&self, store: &dyn Backend) -> bool {
        let mut any = false;
        for shard in &self.shards {
            let keys: Vec<_> = lock(shard).owed.keys().copied().collect();
            for portion in keys.chunks(Self::PORTION) {
                let payments = portion.iter().flat_map(|key| self.of(key));
                let paying = payments.map(|payment| payment.make(store));
                let paid = together(paying.collect::<Vec<_>>()).await;
                any |= paid.iter().any(Result::is_ok);
                // A shard of the store may be away, and others not.
                if !paid.is_empty() && paid.iter().all(Result::is_err) {
                    break;
                }
            }
            self.forgive(&mut lock(shard), self.clock.now());
        }
        any
    }

    /// The key of any debt, of another one each time if there are many.
    pub(super) fn any(&self, turn: u32) -> Option<Key> {
        let shards = self
            .shards
            .iter()
            .cycle()
            .skip(turn as usize % Self::SHARDS);
        let mut shards = shards.take(Self::SHARDS);
        shards.find_map(|shard| lock(shard).owed.keys().next().copied())
    }

    /// Whether nothing is owed, nor just being paid. Who adds a debt later sees who has
    /// [left](Debts::leave) before.
    pub(super) fn are_paid(&self) -> bool {
        // In this order: whatever was taken from a ledger before is in the count.
        self.any(0).is_none() && self.is_empty()
    }

    /// Whether whoever asks shall see to it that all are paid; nobody else is told so until
    /// they [have given up](Debts::leave).
    pub(super) fn drive(&self) -> bool {
        !self.is_driven.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_driven(&self) -> bool {
        self.is_driven.load(Ordering::Relaxed)
    }

    pub(super) fn leave(&self) {
        self.is_driven.store(false, Ordering::Release);
    }

    /// Forgets all, those that are just being paid as soon as that fails.
    pub(super) fn clear(&self) {
        self.unknown_until_us.store(0, Ordering::Relaxed);
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.cleared += 1;
            let owed = std::mem::take(&mut shard.owed);
            let gone = owed.values().map(SmallVec::len).sum();
            self.count.fetch_sub(gone, Ordering::Relaxed);
        }
    }

    /// Forgets what would not matter any more.
    fn forgive(&self, ledger: &mut Ledger, now: Timestamp) {
        let mut gone = 0;
        ledger.owed.retain(|_, owed| {
            let before = owed.len();
            owed.retain(|debt| !debt.after.is_expired(now));
            gone += before - owed.len();
            !owed.is_empty()
        });
        self.count.fetch_sub(gone, Ordering::Relaxed);
    }

    fn shard_of(&self, key: &Key) -> MutexGuard<'_, Ledger> {
        let [place, ..] = key.digest().to_le_bytes();
        lock(&self.shards[usize::from(place) % Self::SHARDS])
    }
}

impl Debt {
    fn of(op: &Op<'_>, before: Cell) -> Debt {
        Debt {
            strategy: Arc::clone(op.strategy),
            rate: op.rate,
            attributes: op.attributes.clone(),
            after: before.clone(),
            before,
            admitted: 0,
            charged: 0,
        }
    }

    fn is_of(&self, op: &Op<'_>) -> bool {
        self.rate == op.rate && self.attributes == *op.attributes
    }

    fn add(&mut self, op: &Op<'_>, charged: u32, now: Timestamp) {
        self.admitted += u64::from(op.cost);
        self.charge(charged, now);
    }

    fn charge(&mut self, cost: u32, now: Timestamp) {
        self.charged += u64::from(cost);
        let hit = hit(&self.rate, &self.attributes, now);
        let _ = self
            .strategy
            .settle(&mut self.after, &hit, Settlement::Charge(cost));
        self.after.compact();
    }

    /// What was charged before the window ended is owed no more anyway.
    fn refund(&mut self, cost: u32, whole: Settlement, now: Timestamp) {
        let hit = hit(&self.rate, &self.attributes, now);
        let Settlement::Refund { cost: charged, .. } = whole else {
            return;
        };
        if self.strategy.settle(&mut self.after, &hit, whole) {
            self.admitted -= u64::from(cost);
            self.charged = self.charged.saturating_sub(charged.into());
        }
        self.after.compact();
    }

    /// Two debts of one key, of which the other is the later.
    fn merge(&mut self, later: &Debt, now: Timestamp) {
        self.admitted += later.admitted;
        self.charge(u32::try_from(later.charged).unwrap_or(u32::MAX), now);
    }

    /// What has to be charged for the store to know of all that was admitted here, rounded up.
    fn amount(&self, now: Timestamp) -> u32 {
        let hit = hit(&self.rate, &self.attributes, now);
        let peek = |cell: &Cell| {
            let look = Hit { cost: 0, ..hit };
            let decision = self.strategy.step(&mut cell.clone(), &look);
            (decision.remaining(), decision.reset())
        };
        let (left, resets) = peek(&self.after);
        let is_enough = |cost: u32| {
            let mut cell = self.before.clone();
            let _ = self
                .strategy
                .settle(&mut cell, &hit, Settlement::Charge(cost));
            let (left_so, resets_so) = peek(&cell);
            left_so <= left && resets_so >= resets
        };
        let most = u32::try_from(self.charged).unwrap_or(u32::MAX);
        let least = peek(&self.before).0.saturating_sub(left);
        let least = u32::try_from(least).unwrap_or(most).min(most);
        let enough = match least == most || is_enough(least) {
            true => least,
            // What goes beyond a limit, or is a fraction, does not show in what is left.
            false => first_enough(least, most, is_enough),
        };
        let own = u128::from(enough) * u128::from(self.admitted);
        let own = own.div_ceil(u128::from(self.charged.max(1)));
        u32::try_from(own).unwrap_or(u32::MAX)
    }
}

/// The least that is enough, if `most` is, and else that.
fn first_enough(least: u32, most: u32, is_enough: impl Fn(u32) -> bool) -> u32 {
    let (mut too_little, mut enough) = (least, most);
    while enough - too_little > 1 {
        let middle = too_little + (enough - too_little) / 2;
        match is_enough(middle) {
            true => enough = middle,
            false => too_little = middle,
        }
    }
    enough
}

fn hit<'a>(rate: &'a Rate, attributes: &'a Attributes, now: Timestamp) -> Hit<'a> {
    Hit {
        now,
        rate,
        cost: 1,
        attributes,
    }
}

impl<'a> Payment<'a> {
    /// Charges the store, and comes to no decisions. If the answer is lost, it may have been charged,
    /// and is charged again: then less is admitted, never more.
    pub(super) fn make(mut self, store: &'a dyn Backend) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(async move {
            if let Some(debt) = &self.debt {
                let amount = debt.amount(self.debts.clock.now());
                if amount > 0 {
                    let strategy = Settling::of(&debt.strategy, Settlement::Charge(amount));
                    let op = Op {
                        key: self.key,
                        strategy: &strategy,
                        rate: debt.rate,
                        cost: 1,
                        attributes: &debt.attributes,
                    };
                    // Not applied: to a fallback that were a hit of a cost of 1, and so much it would owe.
                    store.settle(&op, false).await?;
                }
            }
            if self.debt.take().is_some() {
                self.debts.count.fetch_sub(1, Ordering::Relaxed);
            }
            Ok(Decisions::default())
        })
    }
}

impl Drop for Payment<'_> {
    fn drop(&mut self) {
        let Some(mut debt) = self.debt.take() else {
            return;
        };
        let mut shard = self.debts.shard_of(&self.key);
        if shard.cleared != self.cleared {
            self.debts.count.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let owed = shard.owed.entry(self.key).or_default();
        let same = |later: &Debt| later.rate == debt.rate && later.attributes == debt.attributes;
        if let Some(at) = owed.iter().position(same) {
            debt.merge(&owed.swap_remove(at), self.debts.clock.now());
            self.debts.count.fetch_sub(1, Ordering::Relaxed);
        }
        owed.push(debt);
    }
}

impl fmt::Debug for Debts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Debts")
            .field("count", &self.len())
            .finish_non_exhaustive()
    }
}

fn lock(shard: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    // A strategy of the user's may panic in its step; the map is consistent between calls.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SlidingWindowLog;
    use crate::{DistributedFairness, FixedWindow, GeographicDistribution, ManualClock};

    /// Whatever had left a queue was kept until the store was back: 64 bytes for each hit of an outage.
    #[test]
    fn a_debt_takes_no_more_room_with_each_hit() {
        let strategies: [Arc<dyn Strategy>; 3] = [
            Arc::new(SlidingWindowLog),
            Arc::new(DistributedFairness::new("mars")),
            Arc::new(GeographicDistribution::new().regions([("eu", 0.5), ("us", 0.5)])),
        ];
        for strategy in &strategies {
            let op = Op {
                key: Key {
                    throttle: 1,
                    scope: 0,
                    who: 2,
                },
                strategy,
                rate: Rate::per_minute(10),
                cost: 1,
                attributes: &Attributes::NONE,
            };
            let mut debt = Debt::of(&op, Cell::fresh());
            for second in 1..10_000 {
                let now = Timestamp::from_micros(second * 1_000_000);
                debt.add(&op, 1, now);
                let refund = Settlement::Refund { cost: 1, age_us: 0 };
                debt.refund(1, refund, now);
                debt.add(&op, 1, now);
            }
            let bytes = debt.after.allocated();
            assert!(bytes < 4_096, "{strategy:?}: {bytes}");
        }
    }

    /// It was put back, and charged to a store that was to know of nothing.
    #[test]
    fn a_payment_under_way_outlived_a_reset() {
        let debts = Debts::new(Arc::new(ManualClock::default()));
        let strategy: Arc<dyn Strategy> = Arc::new(FixedWindow);
        let op = Op {
            key: Key {
                throttle: 1,
                scope: 0,
                who: 2,
            },
            strategy: &strategy,
            rate: Rate::per_minute(10),
            cost: 1,
            attributes: &Attributes::NONE,
        };
        debts.add(&op, 1, &Cell::fresh());
        let paying: Vec<_> = debts.of(&op.key).collect();
        debts.clear();
        assert_eq!(debts.len(), 1);
        drop(paying);
        assert_eq!((debts.len(), debts.has(&op.key)), (0, false));
        // What is owed since then goes on to be.
        debts.add(&op, 1, &Cell::fresh());
        let paying: Vec<_> = debts.of(&op.key).collect();
        drop(paying);
        assert_eq!((debts.len(), debts.has(&op.key)), (1, true));
    }
}
