//! Strategies of the user's.

use std::sync::Arc;

use tokio::task::JoinSet;
use traffik_core::strategy::Lua;
use traffik_core::{
    Attempt, Attributes, Backend, Cell, CostBasedTokenBucket, Decision, FixedWindow, Hit, Hits,
    Identity, ManualClock, MemoryBackend, Rate, Strategy, Throttle,
};

use super::{builder, throttle};
use crate::support::RedisServer;

/// So many hits, and never again; `lua` as given.
#[derive(Debug)]
struct Total {
    lua: Option<&'static str>,
}

impl Strategy for Total {
    fn id(&self) -> &'static str {
        "total"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let limit = u64::from(hit.rate.limit());
        let taken = cell.words().first().copied().unwrap_or(0);
        let cost = u64::from(hit.cost);
        if taken + cost > limit {
            return Decision::deny(limit, limit - taken, hit.rate.period_us());
        }
        if cost > 0 {
            let expires = hit.now.plus_micros(hit.rate.period_us());
            cell.set(&[taken + cost], expires);
        }
        Decision::allow(limit, limit - taken - cost)
    }

    fn lua(&self, rate: &Rate, cost: u32, _attributes: &Attributes) -> Option<Lua> {
        let arguments = [u64::from(rate.limit()), u64::from(cost), rate.period_us()];
        Some(Lua::new(self.lua?, &arguments))
    }
}

const RIGHT: &str = "
    local limit, cost, period = unpack('>I8I8I8', arguments)
    local taken = words(1) or 0
    if taken + cost <= limit then
      take(now + period, taken + cost)
    end
";

const GENEROUS: &str = "
    local limit, cost, period = unpack('>I8I8I8', arguments)
    take(now + period, (words(1) or 0) + cost)
";

const MEAN: &str = "-- admits nobody";

fn total(server: &RedisServer, lua: Option<&'static str>) -> Throttle {
    builder("total", "20/day", server.backend())
        .strategy(Total { lua })
        .build()
        .unwrap()
}

async fn admitted_of_many_at_once(throttle: &Throttle) -> usize {
    let mut hits = JoinSet::new();
    for _ in 0..40 {
        let throttle = throttle.clone();
        hits.spawn(async move {
            throttle
                .hit(&Identity::of("ann"))
                .await
                .unwrap()
                .is_allowed()
        });
    }
    hits.join_all()
        .await
        .into_iter()
        .filter(|admitted| *admitted)
        .count()
}

#[tokio::test]
async fn without_a_script_they_take_two_trips_and_are_exact() {
    let server = RedisServer::start();
    let throttle = total(&server, None);
    let bob = Identity::of("bob");
    assert!(throttle.hit(&bob).await.unwrap().is_allowed());
    server.calls();
    assert!(throttle.hit(&bob).await.unwrap().is_allowed());
    assert_eq!(server.calls()["evalsha"], 2);
    assert_eq!(admitted_of_many_at_once(&throttle).await, 20);
}

#[tokio::test]
async fn with_a_script_they_take_one_trip_and_are_exact() {
    let server = RedisServer::start();
    let throttle = total(&server, Some(RIGHT));
    let bob = Identity::of("bob");
    assert!(throttle.hit(&bob).await.unwrap().is_allowed());
    server.calls();
    assert!(throttle.hit(&bob).await.unwrap().is_allowed());
    assert_eq!(server.calls()["evalsha"], 1);
    assert_eq!(admitted_of_many_at_once(&throttle).await, 20);
}

#[tokio::test]
async fn a_batch_mixes_all_kinds_and_charges_all_or_none() {
    let server = RedisServer::start();
    let backend = server.backend();
    let ann = Identity::of("ann");
    let built_in = builder("built_in", "3/day", backend.clone()).strategy(FixedWindow);
    let scripted =
        builder("scripted", "5/day", backend.clone()).strategy(Total { lua: Some(RIGHT) });
    let plain = builder("plain", "4/day", backend).strategy(Total { lua: None });
    let throttles = [built_in, scripted, plain].map(|throttle| throttle.build().unwrap());
    let batch = Hits::from_iter(throttles.iter().map(|throttle| (throttle, &ann)));
    for left in [2, 1, 0] {
        let decisions = batch.decide().await.unwrap();
        assert!(decisions.is_allowed());
        let remaining: Vec<_> = decisions.iter().map(Decision::remaining).collect();
        assert_eq!(remaining, [left, left + 2, left + 1]);
    }
    assert!(batch.decide().await.unwrap().is_denied());
    for (throttle, left) in throttles.iter().zip([0, 2, 1]) {
        assert_eq!(throttle.stat(&ann).await.unwrap().remaining, left);
    }
}

#[tokio::test]
async fn a_script_that_contradicts_its_strategy_is_an_error() {
    let server = RedisServer::start();
    let ann = Identity::of("ann");
    let error = total(&server, Some(MEAN)).hit(&ann).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("denied a hit that the strategy admits"),
        "{error}"
    );
    let generous = total(&server, Some(GENEROUS));
    let error = loop {
        if let Err(error) = generous.hit(&ann).await {
            break error;
        }
    };
    assert!(
        error.to_string().contains("that the strategy denies"),
        "{error}"
    );
    // Others are not disturbed.
    assert!(
        throttle("other", "5/day", server.backend())
            .hit(&ann)
            .await
            .unwrap()
            .is_allowed()
    );
}

#[tokio::test]
async fn a_script_that_does_not_compile_is_an_error() {
    let server = RedisServer::start();
    let error = total(&server, Some("take("))
        .hit(&Identity::of("ann"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("refused"), "{error:?}");
}

/// The rest was copied for each cost that was cut off: of ten thousand, once the window was set to less, a Redis did
/// nothing else for five seconds, and again for the next key.
#[tokio::test]
async fn a_history_that_became_too_long_was_cut_off_cost_by_cost() {
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let redis = server.builder().clock(clock.clone()).build().unwrap();
    let memory = MemoryBackend::builder().clock(clock).build().unwrap();
    let ann = Identity::of("ann");
    let mut stats = Vec::new();
    for backend in [Arc::new(redis) as Arc<dyn Backend>, Arc::new(memory)] {
        let with = |cost_window| {
            let strategy = CostBasedTokenBucket::new().cost_window(cost_window);
            let throttle = builder("costly", "100000/day", Arc::clone(&backend));
            throttle.strategy(strategy).build().unwrap()
        };
        let (long, short) = (with(1_000), with(100));
        let expensive = async |throttle: &Throttle, hits| {
            for nth in 0..hits {
                let hit = throttle.hit(Attempt::by(&ann).cost(nth % 7 + 1)).await;
                assert!(hit.unwrap().is_allowed());
            }
        };
        expensive(&long, 600).await;
        let before = long.stat(&ann).await.unwrap();
        let permit = short.reserve(Attempt::by(&ann).cost(3)).await.unwrap();
        let cut_by_a_hit = long.stat(&ann).await.unwrap();
        expensive(&long, 9).await;
        permit.expect("there is enough").settle(8).await.unwrap();
        let cut_by_a_charge = long.stat(&ann).await.unwrap();
        stats.push([before, cut_by_a_hit, cut_by_a_charge]);
    }
    assert_eq!(stats[0], stats[1]);
}
