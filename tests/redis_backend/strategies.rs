//! Strategies of the user's.

use tokio::task::JoinSet;
use traffik_core::strategy::Lua;
use traffik_core::{
    Attributes, Cell, Decision, FixedWindow, Hit, Hits, Identity, Rate, Strategy, Throttle,
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
