//! Limits of one request whose counts are on different servers.

use std::time::Duration;

use tokio::time::Instant;
use traffik_core::{Decision, Hits, Identity, OnError, RedisBackend, Throttle};

use super::builder;
use crate::support::RedisServer;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn servers_that_hang_together_cost_one_deadline() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let backend = |at: usize| -> RedisBackend {
        let builder = servers[at].builder().deadline(DEADLINE);
        builder.build().unwrap()
    };
    let allow = |name: &str, backend| {
        let builder = builder(name, "3/day", backend).on_error(OnError::Allow);
        builder.build().unwrap()
    };
    let first = backend(0);
    let throttles = [
        allow("one", first.clone()),
        allow("two", first),
        allow("three", backend(1)),
    ];
    let ann = Identity::of("ann");
    let hits = Hits::from_iter(throttles.iter().map(|throttle| (throttle, &ann)));
    let decisions = hits.decide().await.unwrap();
    assert!(
        !decisions.iter().any(Decision::is_degraded),
        "{decisions:?}"
    );

    for server in &servers {
        server.pause();
    }
    // Nothing answers, so that time runs on by itself from one deadline to the next.
    tokio::time::pause();
    let start = Instant::now();
    let decisions = hits.decide().await.unwrap();
    let took = start.elapsed();
    assert!(decisions.is_allowed(), "{decisions:?}");
    assert!(decisions.iter().all(Decision::is_degraded), "{decisions:?}");
    assert!(took < DEADLINE * 3 / 2, "{took:?}");
    for throttle in &throttles {
        assert_eq!(throttle.outage().degraded_total, 1, "{}", throttle.name());
    }
    for server in &servers {
        server.resume();
    }
}

#[tokio::test]
async fn a_dead_server_beside_one_that_lives_is_asked_once() {
    let (mut dead, alive) = (RedisServer::start(), RedisServer::start());
    dead.kill();
    let kept = builder("kept", "2/day", alive.backend()).build().unwrap();
    let lost = |policy| {
        let builder = builder("lost", "1/day", dead.backend()).on_error(policy);
        builder.build().unwrap()
    };
    let ann = Identity::of("ann");
    let decide = async |lost: &Throttle| {
        let hits = Hits::from_iter([(lost, &ann), (&kept, &ann)]);
        hits.decide().await
    };
    let left = async || kept.stat(&ann).await.unwrap().remaining;

    // Who fails closed is charged nothing where the count is to be had, and who raises neither.
    assert!(decide(&lost(OnError::Throttle)).await.unwrap().is_denied());
    let error = decide(&lost(OnError::Raise)).await.unwrap_err();
    assert!(error.is_connection(), "{error:?}");
    assert_eq!(left().await, 2);

    let open = lost(OnError::Allow);
    for remaining in [1, 0] {
        assert!(decide(&open).await.unwrap().is_allowed());
        assert_eq!(left().await, remaining);
    }
    assert!(decide(&open).await.unwrap().is_denied());
    assert_eq!(open.outage().degraded_total, 3);
    assert_eq!(kept.outage().degraded_total, 0);
}
