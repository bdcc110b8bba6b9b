//! Throttles that only say what they would do, beside others that are in earnest.

use std::time::Duration;

use traffik_core::{Attempt, Hits, Identity, ManualClock};

use super::{builder, throttle};
use crate::support::{RedisServer, strategies};

#[tokio::test]
async fn a_shadow_said_something_else_than_the_throttle_decides() {
    let server = RedisServer::start();
    let clock = ManualClock::default();
    let backend = server.builder().clock(clock.clone()).deny_cache(0);
    let backend = backend.build().unwrap();
    let ann = Identity::of("ann");
    for strategy in strategies() {
        let name = format!("{strategy:?}");
        let one = |name: &str| {
            let builder = builder(name, "5/minute", backend.clone());
            builder.strategy(strategy.clone())
        };
        let (earnest, shadow) = (one("earnest").build(), one("trial").shadow().build());
        let (earnest, shadow) = (earnest.unwrap(), shadow.unwrap());
        for (at, cost) in [1, 2, 1, 5, 1, 3, 1, 900]
            .iter()
            .cycle()
            .take(24)
            .enumerate()
        {
            let attempt = || Attempt::by(&ann).cost(*cost);
            let decided = earnest.hit(attempt()).await.unwrap();
            let said = shadow.hit(attempt()).await.unwrap();
            assert!(said.is_allowed(), "{name}");
            assert_eq!(said.shadowed(), Some(decided), "{name}, hit {at}");
            clock.advance(Duration::from_millis(2_300));
        }
    }
}

#[tokio::test]
async fn a_shadow_was_a_trip_of_its_own_and_charged_for_what_others_denied() {
    let server = RedisServer::start();
    let backend = server.builder().deny_cache(0).build().unwrap();
    let ann = Identity::of("ann");
    let real = throttle("real", "4/day", backend.clone());
    let tight = builder("tight", "1/day", backend.clone()).shadow();
    let loose = builder("loose", "100/day", backend.clone()).shadow();
    let (tight, loose) = (tight.build().unwrap(), loose.build().unwrap());
    let next = builder("next", "6/day", backend).shadow_of("real");
    let next = next.build().unwrap();
    let hits = Hits::from_iter([&tight, &real, &loose, &next].map(|one| (one, &ann)));
    assert!(hits.decide().await.unwrap().is_allowed());
    let _ = server.calls();
    for _ in 0..3 {
        assert!(hits.decide().await.unwrap().is_allowed());
    }
    assert_eq!(server.calls()["evalsha"], 3, "one trip each");
    for _ in 0..6 {
        assert!(hits.decide().await.unwrap().is_denied());
    }
    let tight = tight.shadow_report();
    assert_eq!(
        (tight.admitted, tight.newly_denied, tight.denied),
        (1, 3, 6)
    );
    let report = next.shadow_report();
    assert_eq!(
        (report.admitted, report.newly_admitted, report.denied),
        (4, 2, 4)
    );
    loose.set_shadow(false);
    let left = loose.hit(Attempt::by(&ann).cost(0)).await.unwrap();
    assert_eq!(left.remaining(), 96);
}
