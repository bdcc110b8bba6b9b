use traffik_core::Backend;
use traffik_core::testing::conformance;

use super::strategies;

/// Holds a backend to what it promises when many ask at once, and to leaving its neighbour on the
/// same server alone.
pub(crate) async fn decides_exactly_under_concurrency(
    backend: &dyn Backend,
    neighbour: &dyn Backend,
) {
    conformance::admits_exactly_the_limit(backend, &strategies()).await;
    conformance::batches_are_all_or_nothing(backend).await;
    conformance::dropped_futures_leave_nothing_behind(backend).await;
    conformance::resets_its_own_namespace_only(backend, neighbour).await;
}
