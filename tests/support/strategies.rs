use std::sync::Arc;
use std::time::Duration;

use traffik_core::strategy::{CalendarWindow, TimeOfDay, Weekday};
use traffik_core::{
    AdaptiveThrottle, CostBasedTokenBucket, DistributedFairness, FixedWindow, Gcra,
    GeographicDistribution, LeakyBucket, LeakyBucketWithQueue, LoadGauge, PriorityQueue,
    QuotaWithRollover, SlidingWindowCounter, SlidingWindowLog, Strategy, TieredRate, TokenBucket,
    TokenBucketWithDebt,
};

/// Every strategy, with its parameters at and off their defaults.
pub(crate) fn strategies() -> Vec<Arc<dyn Strategy>> {
    let regions = [("us-east", 0.5), ("eu-west", 0.25), ("default", 0.1)];
    let gauge = LoadGauge::new();
    gauge.set(0.9);
    vec![
        Arc::new(FixedWindow),
        Arc::new(TokenBucket::new()),
        Arc::new(TokenBucket::new().burst(7)),
        Arc::new(TokenBucketWithDebt::new().burst(3).max_debt(5)),
        Arc::new(LeakyBucket),
        Arc::new(LeakyBucketWithQueue),
        Arc::new(Gcra::new()),
        Arc::new(Gcra::new().burst_tolerance(Duration::from_micros(1_234_567))),
        Arc::new(Gcra::new().strict()),
        Arc::new(
            Gcra::new()
                .strict()
                .burst_tolerance(Duration::from_secs(60)),
        ),
        Arc::new(SlidingWindowLog),
        Arc::new(SlidingWindowCounter),
        Arc::new(TieredRate::new().tier("free", 1.5)),
        Arc::new(AdaptiveThrottle::new()),
        Arc::new(
            AdaptiveThrottle::new()
                .load_threshold(0.3)
                .recovery_rate(0.01),
        ),
        Arc::new(AdaptiveThrottle::new().load(&gauge)),
        Arc::new(CostBasedTokenBucket::new()),
        Arc::new(
            CostBasedTokenBucket::new()
                .burst(50)
                .cost_window(3)
                .min_refill_rate(0.01),
        ),
        Arc::new(DistributedFairness::new("mars").weight(2.5)),
        Arc::new(GeographicDistribution::new().regions(regions)),
        Arc::new(
            GeographicDistribution::new()
                .regions(regions)
                .allow_spillover(false),
        ),
        Arc::new(TimeOfDay::new()),
        Arc::new(
            TimeOfDay::new()
                .windows([(9, 18, 0.5), (22, 6, 3.0)])
                .timezone_offset_minutes(-210),
        ),
        Arc::new(CalendarWindow::new()),
        Arc::new(
            CalendarWindow::new()
                .zone("America/New_York")
                .week_starts_on(Weekday::Sunday)
                .month_starts_on(31),
        ),
        Arc::new(PriorityQueue::new()),
        Arc::new(PriorityQueue::new().max_queue_size(4)),
        Arc::new(QuotaWithRollover::new()),
        Arc::new(
            QuotaWithRollover::new()
                .rollover_percentage(0.9)
                .max_rollover(7)
                .cumulative(),
        ),
    ]
}

/// A strategy that is not in the list is held to nothing by any backend.
#[test]
fn no_strategy_is_forgotten() {
    let all = strategies();
    for name in traffik_core::strategy::NAMES {
        assert!(all.iter().any(|strategy| strategy.id() == *name), "{name}");
    }
}
