use super::log::{self, Entry, Log, Manner};
use super::ratio::Ratio;
use super::{Details, Hit, Lua, Settlement, Strategy};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::identity::{Attributes, Priority};
use crate::rate::Rate;
use crate::time::Timestamp;

/// A sliding log whose limit all [priorities](crate::Identity::priority) share, with a reserve of
/// each that lower ones cannot touch.
///
/// A hit may take what is free beyond the reserves of all higher priorities. By default each of
/// `Normal`, `High` and `Critical` has a reserve of a tenth of the limit, rounded down: low hits may
/// take seven tenths, normal ones eight, high ones nine, and critical ones everything. This is the
/// *trunk reservation* of telephone networks:
/// <https://en.wikipedia.org/wiki/Trunk_reservation>
///
/// * **Bound**: the limit in any interval shorter than the period, over all priorities:
///   `limit × (⌊t ÷ period⌋ + 1)` in one of length *t*; and no more than `max_queue_size` hits of which nothing was
///   given back.
/// * **State**: one word and 16 bytes for each hit within one period, `max_queue_size` at most. A
///   hit takes constant time on average.
/// * **Bursts**: at once what its priority may take.
/// * **Choose it** when the same client does both important and unimportant things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PriorityQueue {
    default_priority: Priority,
    max_queue_size: u32,
    /// By priority, lowest first.
    reserves: [Ratio; 4],
}

impl PriorityQueue {
    /// Hits are of normal priority unless the identity says otherwise, at most 1000 are remembered,
    /// and each priority but the lowest has a reserve of a tenth.
    pub const fn new() -> PriorityQueue {
        let tenth = Ratio::new(0.1);
        PriorityQueue {
            default_priority: Priority::Normal,
            max_queue_size: 1_000,
            reserves: [Ratio::new(0.0), tenth, tenth, tenth],
        }
    }

    /// Sets the priority of who has none.
    pub const fn default_priority(mut self, priority: Priority) -> PriorityQueue {
        self.default_priority = priority;
        self
    }

    /// Sets how many hits are remembered, at least 1; when there are as many within one period,
    /// the next is denied, whatever its cost.
    ///
    /// A hit of which something is given back, be it a part, leaves its place to others; only the last one keeps it
    /// until nothing of it is left.
    pub const fn max_queue_size(mut self, hits: u32) -> PriorityQueue {
        self.max_queue_size = hits;
        self
    }

    /// Sets which part of the limit, from 0 to 1, lower priorities than this one cannot touch.
    pub const fn reserve(mut self, priority: Priority, part: f64) -> PriorityQueue {
        self.reserves[level(priority)] = Ratio::new(part);
        self
    }

    fn priority(&self, attributes: &Attributes) -> Priority {
        attributes.priority.unwrap_or(self.default_priority)
    }

    fn manner(&self, attributes: &Attributes) -> Manner {
        Manner {
            most: self.max_queue_size.into(),
            tag: level(self.priority(attributes)) as u64,
            merged: false,
        }
    }

    /// What hits of this priority and lower ones may take of the limit.
    fn share(&self, rate: &Rate, priority: Priority) -> u64 {
        let limit = u64::from(rate.limit());
        let higher = &self.reserves[level(priority) + 1..];
        let reserved: u64 = higher.iter().map(|reserve| reserve.of(limit)).sum();
        limit.saturating_sub(reserved)
    }
}

const fn level(priority: Priority) -> usize {
    priority as usize - Priority::Low as usize
}

impl Default for PriorityQueue {
    fn default() -> Self {
        PriorityQueue::new()
    }
}

impl Strategy for PriorityQueue {
    fn id(&self) -> &'static str {
        "priority_queue"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let (now, period) = (hit.now.as_micros(), hit.rate.period_us());
        let priority = self.priority(hit.attributes);
        let (share, cost) = (self.share(hit.rate, priority), u64::from(hit.cost));
        let gone = log::dropped(cell);
        let log = Log::of(cell, gone);
        let left = log.departed(hit);
        let taken = log.sum_from(left);
        let hits = log.len() - left;
        let places = (self.max_queue_size as usize).saturating_sub(hits);
        let available = match places {
            0 => 0,
            _ => share.saturating_sub(taken),
        };

        if cost == 0 || cost > available {
            let last = log.last_instant().unwrap_or(0);
            let reset = log::honest(&log, last, hit)
                .saturating_add(period)
                .saturating_sub(now);
            if cost == 0 {
                return Decision::allow(share, available).resets_in(reset);
            }
            if cost > share {
                return Decision::never(share, available).resets_in(reset);
            }
            let crowd = hits.checked_sub(self.max_queue_size as usize);
            let place = crowd.and_then(|at| log.instant(left + at));
            let excess = (taken + cost).checked_sub(share + 1).map(|less| less + 1);
            let room = excess.and_then(|excess| log.reaching(log.sum(left) + excess));
            let leaves = place.max(room).unwrap_or(last);
            let leaves = log::honest(&log, leaves, hit);
            let wait = leaves.saturating_add(period).saturating_sub(now);
            return Decision::deny(share, available, wait).resets_in(reset);
        }
        let entry = Entry {
            instant: log.last_instant().unwrap_or(0).max(now),
            amount: cost,
            tag: level(priority) as u64,
        };
        let gone = log::append(cell, gone, left, &entry);
        let clear = entry.instant.saturating_add(period);
        cell.set(&[gone], Timestamp::from_micros(clear));
        let remaining = match places {
            1 => 0,
            _ => available - cost,
        };
        Decision::allow(share, remaining).resets_in(clear - now)
    }

    fn lua(&self, rate: &Rate, cost: u32, attributes: &Attributes) -> Option<Lua> {
        let priority = self.priority(attributes);
        let (share, tag) = (self.share(rate, priority), level(priority) as u64);
        let most = self.max_queue_size.into();
        Some(log::window_lua(rate, cost, share, most, tag, false))
    }

    /// A refund counts for a period.
    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        log::settle(cell, hit, settlement, self.manner(hit.attributes))
    }

    fn settle_lua(
        &self,
        rate: &Rate,
        settlement: Settlement,
        attributes: &Attributes,
    ) -> Option<Lua> {
        Some(log::settle_lua(rate, settlement, self.manner(attributes)))
    }

    fn validate(&self, _rate: &Rate) -> Result<()> {
        if self.max_queue_size == 0 {
            return Err(Error::invalid("the size of a priority queue is at least 1"));
        }
        for reserve in self.reserves {
            reserve.validate("the reserve of a priority", 0.0, 1.0)?;
        }
        let above_low: u64 = self.reserves[1..].iter().map(|part| part.ppm()).sum();
        if above_low > Ratio::ONE.ppm() {
            return Err(Error::invalid(
                "the reserves of the priorities above low are at most 1 together",
            ));
        }
        Ok(())
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let log = Log::of(cell, log::dropped(cell));
        let left = log.departed(hit);
        let priority = self.priority(hit.attributes);
        let rivals = log
            .entries(left)
            .filter(|(_, tag)| *tag >= level(priority) as u64);
        Details::PriorityQueue(PriorityQueueStat {
            priority,
            share: self.share(hit.rate, priority),
            queue_size: (log.len() - left) as u64,
            total_cost_in_queue: log.sum_from(left),
            higher_priority_cost: rivals.map(|(amount, _)| amount).sum(),
        })
    }
}

/// What a [`PriorityQueue`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PriorityQueueStat {
    /// The priority of the hit.
    pub priority: Priority,
    /// What this priority and lower ones may take of the limit.
    pub share: u64,
    /// How many hits were admitted within the last period.
    pub queue_size: u64,
    /// What they cost.
    pub total_cost_in_queue: u64,
    /// What those of the same or a higher priority cost.
    pub higher_priority_cost: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{prop, prop_assert, proptest};

    use super::*;
    use crate::decision::Verdict;
    use crate::identity::{Attributes, Identity};
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};
    use crate::time::micros;

    const ALL: [Priority; 4] = [
        Priority::Low,
        Priority::Normal,
        Priority::High,
        Priority::Critical,
    ];

    fn of(priority: Priority) -> Attributes {
        Attributes {
            priority: Some(priority),
            ..Attributes::NONE
        }
    }

    fn bound() -> Bound {
        Bound::new(|rate, interval| {
            u128::from(rate.limit()) * u128::from(micros(interval) / rate.period_us() + 1)
        })
    }

    #[test]
    fn is_lawful() {
        Laws::of(&PriorityQueue::new(), bound())
            .asked_by(ALL.map(of))
            .check();
    }

    #[test]
    fn is_lawful_when_crowded() {
        let crowded = PriorityQueue::new()
            .max_queue_size(3)
            .reserve(Priority::Critical, 0.5);
        Laws::of(&crowded, bound()).asked_by(ALL.map(of)).check();
        let single = PriorityQueue::new().max_queue_size(1);
        Laws::of(&single, bound()).asked_by(ALL.map(of)).check();
    }

    proptest! {
        /// In any interval shorter than the period: no more hits than the queue holds, no more by
        /// lower priorities than what is not reserved for higher ones, and nobody of a priority
        /// that has not used up its reserve is denied unless the queue is full.
        #[test]
        fn reserves_and_places_are_kept(
            places in prop::sample::select(vec![2_usize, 5, 30]),
            hits in prop::collection::vec((0..4_usize, 1..9_u32, 0..9_u64), 1..80),
        ) {
            let queue = PriorityQueue::new()
                .max_queue_size(u32::try_from(places).unwrap())
                .reserve(Priority::High, 0.2)
                .reserve(Priority::Normal, 0.15);
            // What hits of each priority and the lower ones may take together.
            let shares = [11, 14, 18, 20];
            let mut trial = Trial::of(&queue, "20/s");
            let mut admitted: Vec<(Timestamp, usize, u32)> = Vec::new();
            for (level, cost, pause) in hits {
                trial.advance(Duration::from_millis(pause * 30));
                trial.who = of(ALL[level]);
                let now = trial.now;
                admitted.retain(|(at, ..)| now.micros_since(*at) < 1_000_000);
                let full = admitted.len() == places;
                let taken_by = |levels: std::ops::RangeInclusive<usize>| -> u32 {
                    let of = admitted.iter().filter(|(_, level, _)| levels.contains(level));
                    of.map(|(.., cost)| cost).sum()
                };
                let reserve = shares[level] - level.checked_sub(1).map_or(0, |lower| shares[lower]);
                let guaranteed = !full && taken_by(level..=3) + cost <= reserve;
                if trial.hit(cost).is_allowed() {
                    prop_assert!(!full);
                    prop_assert!(taken_by(0..=level) + cost <= shares[level]);
                    admitted.push((now, level, cost));
                } else {
                    prop_assert!(!guaranteed);
                }
            }
        }
    }

    /// SPEC 3.19: each priority had a key of its own: five low and five high hits at a limit of 5.
    #[test]
    fn priorities_share_one_limit() {
        let queue = PriorityQueue::new();
        let mut trial = Trial::of(&queue, "10/s");
        for (priority, admitted) in ALL.into_iter().zip([7, 1, 1, 1]) {
            trial.who = of(priority);
            assert_eq!(trial.admitted_of(20), admitted, "{priority:?}");
        }
        trial.who = Attributes::NONE;
        let Details::PriorityQueue(stat) = trial.details() else {
            panic!("it is a priority queue");
        };
        assert_eq!((stat.queue_size, stat.total_cost_in_queue), (10, 10));
        assert_eq!(
            (stat.priority, stat.higher_priority_cost),
            (Priority::Normal, 3)
        );
    }

    /// SPEC 3.19: with a limit above the queue's size the newest were dropped, and all admitted.
    #[test]
    fn a_full_queue_admits_nothing() {
        let queue = PriorityQueue::new().max_queue_size(50);
        let mut trial = Trial::of(&queue, "100/minute");
        assert_eq!(trial.admitted_of(300), 50);
        assert_eq!(trial.hit(1).wait(), Duration::from_secs(60));
    }

    /// It is not known whether a refund is of all that a hit was charged. One that is must leave its place.
    #[test]
    fn a_hit_leaves_its_place_once_a_part_is_given_back() {
        let queue = PriorityQueue::new().max_queue_size(2);
        let mut trial = Trial::of(&queue, "100/minute");
        let part = Settlement::Refund { cost: 1, age_us: 0 };
        assert!(trial.hit(10).is_allowed());
        assert!(trial.settle(part));
        assert!(trial.hit(10).is_allowed());
        assert!(trial.hit(10).is_denied());
        assert!(trial.settle(part));
        assert!(trial.hit(10).is_allowed());
        // What was not given back counts still.
        let Details::PriorityQueue(stat) = trial.details() else {
            panic!("it is a priority queue");
        };
        assert_eq!((stat.queue_size, stat.total_cost_in_queue), (2, 28));
    }

    /// SPEC 3.20: the priority was read out of the key, which holds what the client chose.
    #[test]
    fn nobody_gets_a_priority_by_their_name() {
        let queue = PriorityQueue::new();
        let mut trial = Trial::of(&queue, "10/s");
        trial.who = Identity::of("priority:4:").attributes().clone();
        assert_eq!(trial.hit(9).verdict(), Verdict::Never);
    }

    #[test]
    fn refuses_reserves_that_leave_nothing() {
        let rate = Rate::per_second(1);
        let greedy = PriorityQueue::new().reserve(Priority::High, 0.9);
        assert!(greedy.validate(&rate).is_err());
        assert!(
            PriorityQueue::new()
                .max_queue_size(0)
                .validate(&rate)
                .is_err()
        );
    }
}
