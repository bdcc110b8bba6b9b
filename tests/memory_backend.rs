//! `MemoryBackend` conforms.

use traffik_core::testing::conformance;
use traffik_core::{ManualClock, MemoryBackend};

use crate::support::strategies;

#[tokio::test]
async fn conforms() {
    let clock = ManualClock::default();
    let backend = MemoryBackend::builder()
        .clock(clock.clone())
        .build()
        .unwrap();
    let strategies = strategies();
    conformance::decides_like_the_strategy(&backend, &clock, &strategies, 100).await;
    conformance::admits_exactly_the_limit(&backend, &strategies).await;
    conformance::batches_are_all_or_nothing(&backend).await;
    conformance::dropped_futures_leave_nothing_behind(&backend).await;
    conformance::resets_its_own_namespace_only(&backend, &MemoryBackend::new()).await;
}
