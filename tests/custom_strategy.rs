//! The strategy of the example, on every backend.

#[path = "../examples/custom_strategy/quiet_period.rs"]
mod quiet_period;

use std::sync::Arc;

use traffik_core::testing::conformance;
use traffik_core::testing::laws::{Bound, Laws};
use traffik_core::{Backend, Cell, Decision, Hit, Locked, ManualClock, MemoryBackend, Strategy};

use self::quiet_period::QuietPeriod;
use crate::support::{MapStore, MemcachedServer, RedisServer};

/// The same without its script, as most would write it.
#[derive(Debug)]
struct WithoutLua;

impl Strategy for WithoutLua {
    fn id(&self) -> &'static str {
        "quiet_period_without_lua"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        QuietPeriod.step(cell, hit)
    }
}

async fn conforms(backend: &dyn Backend, clock: &ManualClock) {
    let strategies: [Arc<dyn Strategy>; 2] = [Arc::new(QuietPeriod), Arc::new(WithoutLua)];
    conformance::decides_like_the_strategy(backend, clock, &strategies, 8).await;
    conformance::admits_exactly_the_limit(backend, &strategies).await;
}

#[test]
fn it_keeps_the_laws() {
    let bound = Bound::new(|rate, interval| {
        let bursts = interval.as_micros() / u128::from(rate.period_us()) + 1;
        u128::from(rate.limit()) * bursts
    });
    Laws::of(&QuietPeriod, bound).check();
}

#[tokio::test]
async fn it_runs_in_memory_and_on_a_store_of_ones_own() {
    let clock = ManualClock::default();
    let memory = MemoryBackend::builder()
        .clock(clock.clone())
        .build()
        .unwrap();
    conforms(&memory, &clock).await;
    let clock = ManualClock::default();
    let store = Locked::builder(MapStore::default()).clock(clock.clone());
    conforms(&store.build().unwrap(), &clock).await;
}

#[tokio::test]
async fn it_runs_on_redis_and_on_memcached() {
    let clock = ManualClock::default();
    let redis = RedisServer::start();
    conforms(
        &redis.builder().clock(clock.clone()).build().unwrap(),
        &clock,
    )
    .await;
    let clock = ManualClock::default();
    let memcached = MemcachedServer::start();
    conforms(
        &memcached.builder().clock(clock.clone()).build().unwrap(),
        &clock,
    )
    .await;
}
