use std::time::Duration;

use tokio::task::JoinSet;
use traffik_core::{Hits, Identity, ManualClock, TokenBucket};

use super::{builder, throttle};
use crate::support::RedisServer;

#[tokio::test]
async fn admits_exactly_the_limit() {
    let server = RedisServer::start();
    let throttle = throttle("exact", "100/day", server.backend());
    let mut hits = JoinSet::new();
    for _ in 0..300 {
        let throttle = throttle.clone();
        hits.spawn(async move {
            throttle
                .hit(&Identity::of("ann"))
                .await
                .unwrap()
                .is_allowed()
        });
    }
    let admitted = hits
        .join_all()
        .await
        .into_iter()
        .filter(|admitted| *admitted)
        .count();
    assert_eq!(admitted, 100);
}

#[tokio::test]
async fn a_batch_that_denies_charges_nothing() {
    let server = RedisServer::start();
    let backend = server.backend();
    let ann = Identity::of("ann");
    let week = throttle("week", "10/week", backend.clone());
    let day = throttle("day", "1/day", backend);
    let both = Hits::from_iter([(&week, &ann), (&day, &ann)]);

    assert!(both.decide().await.unwrap().is_allowed());
    let denied = both.decide().await.unwrap();
    assert!(denied[0].is_allowed() && denied[1].is_denied());
    assert_eq!(denied[0].remaining(), 9);
    assert_eq!(week.stat(&ann).await.unwrap().remaining, 9);
}

#[tokio::test]
async fn waits_are_exact() {
    let server = RedisServer::start();
    let clock = ManualClock::default();
    let backend = server.builder().clock(clock.clone()).build().unwrap();
    let throttle = builder("waits", "7/second", backend)
        .strategy(TokenBucket::new())
        .build()
        .unwrap();
    let ann = Identity::of("ann");
    for _ in 0..7 {
        assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    }
    let wait = throttle.hit(&ann).await.unwrap().retry_after().unwrap();
    clock.advance(wait - Duration::from_micros(1));
    assert!(throttle.hit(&ann).await.unwrap().is_denied());
    clock.advance_micros(1);
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
}

#[tokio::test]
async fn time_is_the_servers() {
    let server = RedisServer::start();
    let throttle = throttle("time", "5/minute", server.backend());
    let reset = throttle.hit(&Identity::of("ann")).await.unwrap().reset();
    let time: (u64, u64) = server.command(&["TIME"]);
    let left = Duration::from_secs(60 - time.0 % 60) - Duration::from_micros(time.1);
    let between = (reset + Duration::from_secs(60) - left).as_secs_f64() % 60.0;
    assert!(
        between < 10.0,
        "a window that ends with the server's minute, not {between} s apart"
    );
}
