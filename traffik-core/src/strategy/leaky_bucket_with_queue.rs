use super::log::{self, Entry, Log};
use super::{Details, Hit, Lua, Settlement, Strategy, leaky_bucket, schedule};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::span::Span;
use crate::time::Timestamp;

/// A [`LeakyBucket`](crate::LeakyBucket) that knows which hits are still in it: they leak out in
/// the order in which they came, each over the time that the rate needs for its cost.
///
/// It decides exactly like a leaky bucket.
///
/// * **Bound**: in any interval of length *t* at most `limit + rate × t`.
/// * **State**: three words, and 16 bytes for each hit in the bucket (those that leave within the
///   same microsecond are one): up to `16 × limit` bytes. A hit takes constant time on average.
/// * **Bursts**: the limit at once.
/// * **Choose it** over the leaky bucket to see how many hits are queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeakyBucketWithQueue;

impl LeakyBucketWithQueue {
    /// The strategy; it has no parameters.
    pub const fn new() -> LeakyBucketWithQueue {
        LeakyBucketWithQueue
    }
}

impl Strategy for LeakyBucketWithQueue {
    fn id(&self) -> &'static str {
        "leaky_bucket_with_queue"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let gone = dropped(cell);
        let left = left(cell, hit);
        let decision = leaky_bucket::fill(cell, hit);
        if let [micros, fraction] = *cell.words()
            && decision.is_allowed()
            && hit.cost > 0
        {
            let leaves = cell.expires();
            let gone = enqueue(cell, gone, left, leaves);
            cell.set(&[micros, fraction, gone], leaves);
        }
        decision
    }

    fn takes_time(&self) -> bool {
        true
    }

    fn lua(&self, rate: &Rate, cost: u32, _attributes: &Attributes) -> Option<Lua> {
        let capacity = leaky_bucket::capacity(rate);
        Some(schedule::lua(LUA, rate, cost, capacity))
    }

    fn coarsen(&self, cell: &mut Cell) -> bool {
        log::coarsen(cell)
    }

    /// What was refunded, or brought back, counts as queued until its time all the same.
    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        let gone = dropped(cell);
        let left = left(cell, hit);
        let changed = leaky_bucket::LeakyBucket.settle(cell, hit, settlement);
        if let [micros, word] = *cell.words()
            && changed
        {
            let leaves = cell.expires();
            let gone = match settlement {
                Settlement::Charge(1..) => enqueue(cell, gone, left, leaves),
                Settlement::Charge(0) | Settlement::Refund { .. } => gone,
            };
            cell.set(&[micros, word, gone], leaves);
        }
        changed
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        let capacity = leaky_bucket::capacity(rate);
        let lua = schedule::settlement_lua(SETTLE_LUA, rate, settlement, capacity);
        Some(lua.and(matches!(settlement, Settlement::Charge(1..)).into()))
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let log = Log::of(cell, dropped(cell));
        Details::LeakyBucketWithQueue(LeakyBucketWithQueueStat {
            queue_size: log.sum_from(left(cell, hit)),
            queue_cost: leaky_bucket::level(cell, hit),
            bucket_capacity: hit.rate.limit().into(),
            leak: *hit.rate,
            empty_at: Timestamp::from_micros(schedule::arrival(cell, hit).ceil()),
        })
    }
}

/// How many entries have left: all if the bucket is empty, for it may be by a refund.
fn left(cell: &Cell, hit: &Hit<'_>) -> usize {
    let (log, now) = (Log::of(cell, dropped(cell)), hit.now.as_micros());
    match schedule::arrival(cell, hit) == Span::from_micros(now) {
        true => log.len(),
        false => log.until(now),
    }
}

/// Logs a hit that leaves at this instant. Returns how many have been dropped from the log.
fn enqueue(cell: &mut Cell, gone: u64, left: usize, leaves: Timestamp) -> u64 {
    let entry = Entry {
        instant: leaves.as_micros(),
        amount: 1,
        tag: 0,
    };
    log::merge(cell, gone, left, &entry)
}

pub(super) const SETTLE_LUA: &str = concat!(
    "local count = 3\n",
    include_str!("log.lua"),
    schedule::arguments!(settlement),
    // A queue lends nothing.
    "local tat, word, epoch, pinned, is_late = stored[1], stored[2]\n",
    include_str!("schedule_settle.lua"),
    include_str!("leaky_bucket_with_queue_settle.lua")
);

pub(super) const LUA: &str = concat!(
    "local count = 3\n",
    include_str!("log.lua"),
    schedule::arguments!(hit),
    "local tat, part = stored[1], stored[2]\n",
    include_str!("schedule.lua"),
    include_str!("leaky_bucket_with_queue.lua")
);

/// What a [`LeakyBucketWithQueue`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LeakyBucketWithQueueStat {
    /// How many hits have not leaked out.
    pub queue_size: u64,
    /// How much of their costs has not leaked out, rounded up.
    pub queue_cost: u64,
    /// How much the bucket holds.
    pub bucket_capacity: u64,
    /// How fast it leaks.
    pub leak: Rate,
    /// When it is empty; the present if it is.
    pub empty_at: Timestamp,
}

/// The number of hits that have been dropped from the log.
fn dropped(cell: &Cell) -> u64 {
    cell.words().get(2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{prop, prop_assert_eq, proptest};

    use super::*;
    use crate::LeakyBucket;
    use crate::decision::Verdict;
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};

    #[test]
    fn is_lawful() {
        let bound = Bound::bucket(|rate| rate.limit().into());
        Laws::of(&LeakyBucketWithQueue, bound).check();
    }

    fn stat(trial: &Trial<'_>) -> (u64, u64) {
        let Details::LeakyBucketWithQueue(stat) = trial.details() else {
            panic!("it is a leaky bucket with a queue");
        };
        (stat.queue_size, stat.queue_cost)
    }

    /// SPEC 3.13: the first hit was not measured.
    #[test]
    fn the_first_hit_may_not_overflow_the_queue_either() {
        let mut trial = Trial::of(&LeakyBucketWithQueue, "10/s");
        assert_eq!(trial.hit(11).verdict(), Verdict::Never);
        assert_eq!(stat(&trial), (0, 0));
    }

    #[test]
    fn hits_leave_in_their_order() {
        let mut trial = Trial::of(&LeakyBucketWithQueue, "10/s");
        assert!(trial.hit(3).is_allowed());
        assert!(trial.hit(1).is_allowed());
        assert!(trial.hit(5).is_allowed());
        assert_eq!(stat(&trial), (3, 9));
        trial.advance(Duration::from_millis(250));
        assert_eq!(stat(&trial), (3, 7));
        trial.advance(Duration::from_millis(50));
        assert_eq!(stat(&trial), (2, 6));
        trial.advance(Duration::from_millis(100));
        assert_eq!(stat(&trial), (1, 5));
        trial.advance(Duration::from_millis(500));
        assert_eq!(stat(&trial), (0, 0));
    }

    proptest! {
        #[test]
        fn decides_like_a_leaky_bucket(
            hits in prop::collection::vec((0..2_000_000_u64, 0..9_u32), 1..60),
        ) {
            let mut queue = Trial::of(&LeakyBucketWithQueue, "7/3s");
            let mut meter = Trial::of(&LeakyBucket, "7/3s");
            for (pause, cost) in hits {
                queue.advance(Duration::from_micros(pause));
                meter.advance(Duration::from_micros(pause));
                prop_assert_eq!(queue.hit(cost), meter.hit(cost));
            }
        }
    }
}
