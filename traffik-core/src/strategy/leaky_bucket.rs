use super::{Details, Hit, Lent, Loan, Lua, Settlement, Strategy, schedule};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::span::Span;
use crate::time::Timestamp;

/// A bucket that each hit fills by its cost and that leaks at the rate; what would overflow it is
/// denied.
///
/// It holds the rate's limit, and is the same as a [`TokenBucket`](crate::TokenBucket) of that
/// burst, seen from the other side: the level is what the tokens lack.
///
/// * **Bound**: in any interval of length *t* at most `limit + rate × t`: what fits into the empty
///   bucket and what leaks.
/// * **State**: two words, the instant at which the bucket is empty; kept until then.
/// * **Bursts**: the limit at once.
/// * **Choose it** to think in terms of work in progress that drains steadily.
///
/// <https://en.wikipedia.org/wiki/Leaky_bucket>, as a meter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeakyBucket;

impl LeakyBucket {
    /// The strategy; it has no parameters.
    pub const fn new() -> LeakyBucket {
        LeakyBucket
    }
}

impl Strategy for LeakyBucket {
    fn id(&self) -> &'static str {
        "leaky_bucket"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        fill(cell, hit)
    }

    fn grows(&self) -> bool {
        true
    }

    fn ordered(&self) -> bool {
        true
    }

    fn call_in(&self, cell: &mut Cell) {
        schedule::call_in(cell);
    }

    fn takes_time(&self) -> bool {
        true
    }

    fn lua(&self, rate: &Rate, cost: u32, _attributes: &Attributes) -> Option<Lua> {
        Some(schedule::prepaid_lua(rate, cost, capacity(rate)))
    }

    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        schedule::settle(cell, hit, settlement, capacity(hit.rate))
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        Some(schedule::settle_lua(rate, settlement, capacity(rate)))
    }

    fn lends(&self, _rate: &Rate, _cost: u32) -> bool {
        true
    }

    fn lend(&self, cell: &mut Cell, hit: &Hit<'_>, loan: &Loan) -> (Decision, Lent) {
        let limit = hit.rate.limit().into();
        schedule::prepaid_lend(cell, hit, loan, limit, capacity(hit.rate))
    }

    fn lend_lua(&self, rate: &Rate, cost: u32, loan: &Loan, _: &Attributes) -> Option<Lua> {
        Some(schedule::prepaid_lend_lua(rate, cost, loan, capacity(rate)))
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        Details::LeakyBucket(LeakyBucketStat {
            bucket_level: level(cell, hit),
            bucket_capacity: hit.rate.limit().into(),
            leak: *hit.rate,
            empty_at: schedule::arrival_and_end(cell, hit, capacity(hit.rate)).1,
        })
    }
}

/// Fills a bucket that holds the rate's limit, if it does not overflow.
pub(super) fn fill(cell: &mut Cell, hit: &Hit<'_>) -> Decision {
    schedule::prepaid(cell, hit, hit.rate.limit().into(), capacity(hit.rate))
}

/// The time in which a rate earns its own limit is its period.
pub(super) fn capacity(rate: &Rate) -> Span {
    Span::from_micros(rate.period_us())
}

/// How much is in that bucket, rounded up.
pub(super) fn level(cell: &Cell, hit: &Hit<'_>) -> u64 {
    let peek = Hit { cost: 0, ..*hit };
    let room = fill(&mut cell.clone(), &peek).remaining();
    u64::from(hit.rate.limit()).saturating_sub(room)
}

/// What a [`LeakyBucket`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LeakyBucketStat {
    /// How much is in the bucket, rounded up.
    pub bucket_level: u64,
    /// How much it holds.
    pub bucket_capacity: u64,
    /// How fast it leaks.
    pub leak: Rate,
    /// When it is empty; the present if it is.
    pub empty_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Verdict;
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};

    #[test]
    fn is_lawful() {
        Laws::of(&LeakyBucket, Bound::bucket(|rate| rate.limit().into())).check();
    }

    /// SPEC 3.13: the first hit was not measured; a cost of 1000 passed and took 99 s to leak.
    #[test]
    fn the_first_hit_may_not_overflow_the_bucket_either() {
        let mut trial = Trial::of(&LeakyBucket, "10/s");
        assert_eq!(trial.hit(1_000).verdict(), Verdict::Never);
        assert!(trial.hit(10).is_allowed());
        let Details::LeakyBucket(stat) = trial.details() else {
            panic!("it is a leaky bucket");
        };
        assert_eq!((stat.bucket_level, stat.bucket_capacity), (10, 10));
    }
}
