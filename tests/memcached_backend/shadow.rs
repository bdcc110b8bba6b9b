//! Throttles that only say what they would do, beside others that are in earnest.

use std::time::Duration;

use traffik_core::{Attempt, FixedWindow, Gcra, ManualClock, Strategy, Throttle, TokenBucket};

use super::ann;
use crate::support::MemcachedServer;

#[tokio::test]
async fn a_shadow_said_something_else_than_the_throttle_decides() {
    let server = MemcachedServer::start();
    for strategy in [
        &FixedWindow as &dyn Strategy,
        &TokenBucket::new(),
        &Gcra::new(),
    ] {
        says_what_is_decided(&server, strategy.id()).await;
    }
}

async fn says_what_is_decided(server: &MemcachedServer, strategy: &str) {
    let clock = ManualClock::default();
    let backend = server.builder().namespace(strategy).clock(clock.clone());
    let backend = backend.build().unwrap();
    let one = |name: &str| {
        let builder = Throttle::builder(name).rate("5/minute");
        let strategy = traffik_core::strategy::named(strategy).unwrap();
        builder.strategy(strategy).backend(backend.clone())
    };
    let earnest = one("earnest").build().unwrap();
    let shadow = one("trial").shadow().build().unwrap();
    let ann = ann();
    let (mut admitted, mut denied) = (0, 0);
    let costs = [1, 2, 1, 5, 1, 3, 1, 900].iter().cycle().take(24);
    for (at, cost) in costs.enumerate() {
        let attempt = || Attempt::by(&ann).cost(*cost);
        let decided = earnest.hit(attempt()).await.unwrap();
        let said = shadow.hit(attempt()).await.unwrap();
        assert!(said.is_allowed(), "{strategy}");
        assert_eq!(said.shadowed(), Some(decided), "{strategy}, hit {at}");
        match decided.is_allowed() {
            true => admitted += 1,
            false => denied += 1,
        }
        clock.advance(Duration::from_millis(2_300));
    }
    let report = shadow.shadow_report();
    assert_eq!((report.admitted, report.newly_denied), (admitted, denied));
    assert!(admitted > 3 && denied > 3, "{strategy}: {report:?}");
}
