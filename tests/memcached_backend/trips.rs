//! How many commands a hit costs.

use super::{admitted, ann, throttle};
use crate::support::MemcachedServer;
use traffik_core::{FixedWindow, Gcra, Hits, Strategy, Throttle, TieredRate, TokenBucket};

/// Looking for a reset costs one more command per second.
const LOOKS: u64 = 10;

async fn commands_of(server: &MemcachedServer, work: impl AsyncFnOnce()) -> u64 {
    let before = server.commands();
    work().await;
    server.commands() - before
}

async fn per_100(server: &MemcachedServer, throttle: &Throttle) -> u64 {
    commands_of(server, async || {
        admitted(throttle, &ann(), 100).await.unwrap();
    })
    .await
}

#[tokio::test]
async fn a_window_costs_one_command_admitted_or_denied() {
    costs_one_command(FixedWindow).await;
    costs_one_command(TieredRate::new().tier("free", 1.0)).await;
}

async fn costs_one_command(strategy: impl Strategy) {
    let server = MemcachedServer::start();
    let throttle = throttle(&server.backend(), "150/day", strategy);
    assert_eq!(admitted(&throttle, &ann(), 5).await.unwrap(), 5);
    let steady = per_100(&server, &throttle).await;
    assert!((100..100 + LOOKS).contains(&steady), "{steady}");

    assert_eq!(admitted(&throttle, &ann(), 50).await.unwrap(), 45);
    let denied = per_100(&server, &throttle).await;
    assert!((100..100 + LOOKS).contains(&denied), "{denied}");
}

#[tokio::test]
async fn other_strategies_cost_two_commands_and_one_if_denied() {
    let server = MemcachedServer::start();
    let backend = server.backend();
    let bucket = throttle(&backend, "150/day", TokenBucket::new());
    assert_eq!(admitted(&bucket, &ann(), 5).await.unwrap(), 5);
    let steady = per_100(&server, &bucket).await;
    assert!((200..200 + LOOKS).contains(&steady), "{steady}");

    let smooth = throttle(&backend, "1/day", Gcra::new());
    assert_eq!(admitted(&smooth, &ann(), 5).await.unwrap(), 1);
    let denied = per_100(&server, &smooth).await;
    assert!((100..100 + LOOKS).contains(&denied), "{denied}");
}

#[tokio::test]
async fn a_batch_is_read_with_one_command() {
    let server = MemcachedServer::start();
    let backend = server.backend();
    let (ann, bucket) = (ann(), TokenBucket::new());
    let a = throttle(&backend, "1000/day", bucket);
    let b = throttle(&backend, "2000/day", bucket.burst(9_000));
    let c = throttle(
        &backend,
        "3000/day",
        Gcra::new().burst_tolerance(std::time::Duration::from_secs(86_400)),
    );
    let hits = Hits::from_iter([(&a, &ann), (&b, &ann), (&c, &ann)]);
    assert!(hits.decide().await.unwrap().is_allowed());
    let steady = commands_of(&server, async || {
        for _ in 0..100 {
            assert!(hits.decide().await.unwrap().is_allowed());
        }
    })
    .await;
    // `gets` counts every key.
    assert!((600..600 + LOOKS).contains(&steady), "{steady}");
}
