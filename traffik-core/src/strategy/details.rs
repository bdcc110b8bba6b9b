//! What one strategy keeps, by its type.

use super::{
    AdaptiveThrottleStat, CalendarWindowStat, CostBasedTokenBucketStat, Details,
    DistributedFairnessStat, FixedWindowStat, GcraStat, GeographicDistributionStat,
    LeakyBucketStat, LeakyBucketWithQueueStat, PriorityQueueStat, QuotaWithRolloverStat,
    SlidingWindowCounterStat, SlidingWindowLogStat, TieredRateStat, TimeOfDayStat, TokenBucketStat,
    TokenBucketWithDebtStat,
};

/// What a strategy keeps, such as a [`TokenBucketStat`]: one of [`Details`]. For
/// [`Stat::details_of`](crate::Stat::details_of).
pub trait DetailsOf: Sized {
    /// It, if these details are of that strategy.
    #[doc(hidden)]
    fn of(details: &Details) -> Option<&Self>;
}

macro_rules! details_of {
    ($($variant:ident($stat:ident)),* $(,)?) => {
        $(
            impl DetailsOf for $stat {
                fn of(details: &Details) -> Option<&Self> {
                    match details {
                        Details::$variant(stat) => Some(stat),
                        _ => None,
                    }
                }
            }
        )*

        // A strategy that is not in the list does not compile.
        const _: fn(&Details) = |details| match details {
            Details::None | Details::Custom { .. } => {}
            $(Details::$variant(_) => {})*
        };
    };
}

details_of!(
    FixedWindow(FixedWindowStat),
    TokenBucket(TokenBucketStat),
    Gcra(GcraStat),
    SlidingWindowLog(SlidingWindowLogStat),
    SlidingWindowCounter(SlidingWindowCounterStat),
    TokenBucketWithDebt(TokenBucketWithDebtStat),
    LeakyBucket(LeakyBucketStat),
    LeakyBucketWithQueue(LeakyBucketWithQueueStat),
    TieredRate(TieredRateStat),
    QuotaWithRollover(QuotaWithRolloverStat),
    AdaptiveThrottle(AdaptiveThrottleStat),
    PriorityQueue(PriorityQueueStat),
    DistributedFairness(DistributedFairnessStat),
    GeographicDistribution(GeographicDistributionStat),
    CostBasedTokenBucket(CostBasedTokenBucketStat),
    TimeOfDay(TimeOfDayStat),
    CalendarWindow(CalendarWindowStat),
);
