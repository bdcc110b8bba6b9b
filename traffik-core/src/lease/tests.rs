//! In simulated time: what leases save, what they cost, and that nothing is admitted beyond the bound.

mod behaviour;
mod figures;
mod losses;

use super::simulation::Scene;
use crate::{Rate, TokenBucket};

/// A bucket of a thousand, and a thousand per second.
fn thousand(demands: &[u64]) -> Scene {
    Scene::new(Rate::per_second(1_000), TokenBucket::new(), demands)
}
