use std::time::{Duration, Instant};

use traffik_core::{Identity, RedisBackend};

use super::throttle;
use crate::support::{WatchedRedis, elsewhere};

#[tokio::test]
async fn follows_a_failover() {
    let mut watched = WatchedRedis::start();
    let backend = RedisBackend::sentinel([watched.sentinel_url().as_str()], "redis://shop")
        .deadline(Duration::from_secs(2))
        .build()
        .unwrap();
    let throttle = throttle("failover", "3/day", backend);
    let ann = Identity::of("ann");
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 2);
    assert_eq!(watched.master.keys().len(), 1);
    let start = Instant::now();
    while watched.replica.keys().is_empty() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "is not replicated"
        );
    }

    watched.master.kill();
    let start = Instant::now();
    let decision = loop {
        match throttle.hit(&ann).await {
            Ok(decision) => break decision,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(20), "{error:?}"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(decision.remaining(), 1, "the count survives");
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 0);
    assert!(throttle.hit(&ann).await.unwrap().is_denied());
}

/// It was not said that the name may be right, and its master down.
#[tokio::test]
async fn a_master_that_is_not_known_may_be_about_to_be_elected() {
    let watched = WatchedRedis::start();
    let url = watched.sentinel_url();
    let backend = RedisBackend::sentinel([url.as_str()], "redis://shoop")
        .connect_timeout(Duration::from_secs(10))
        .build();
    let throttle = throttle("name", "3/day", backend.unwrap());
    let error = throttle.hit(&Identity::of("ann")).await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_connection() && error.is_unexecuted(), "{error:?}");
    let both = [
        "the name is wrong",
        "the sentinels are about to elect another",
    ];
    assert!(both.iter().all(|part| text.contains(part)), "{text}");
}

#[tokio::test]
async fn leaves_a_demoted_master_with_the_next_hit() {
    let watched = WatchedRedis::start();
    let backend = RedisBackend::sentinel([watched.sentinel_url().as_str()], "redis://shop")
        .deadline(Duration::from_secs(2))
        .build()
        .unwrap();
    let throttle = throttle("demoted", "9/day", backend);
    let ann = Identity::of("ann");
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());

    let watched = elsewhere(move || {
        watched.fail_over();
        watched
    })
    .await;
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 7);
    assert_eq!(watched.replica.calls()["eval"], 1);
}

#[test]
fn settings_are_checked_and_passwords_hidden() {
    let error = RedisBackend::sentinel([], "redis://shop")
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("at least one sentinel"));
    let error = RedisBackend::sentinel(["redis://s"], "redis+unix:///tmp/x")
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("its name in place of the host"));
    let backend = RedisBackend::sentinel(["redis://:one@s"], "redis://:two@shop")
        .build()
        .unwrap();
    assert_eq!(
        format!("{backend:?}"),
        "RedisBackend { server: Sentinel(shop at [\"s:6379\"]), namespace: \"traffik\", \
         deadline: 50ms, .. }"
    );
}
