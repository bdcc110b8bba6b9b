//! Forgetting, on purpose and not.

use super::{admitted, ann, eventually, throttle};
use crate::support::MemcachedServer;
use traffik_core::{Backend, FixedWindow, TokenBucket};

#[tokio::test]
async fn a_reset_forgets_this_namespace_and_nothing_else() {
    let server = MemcachedServer::start();
    server.set("foreign", "7");
    let mine = server.builder().namespace("mine").build().unwrap();
    let others = server.builder().namespace("others").build().unwrap();
    let (my_limit, other_limit) = (
        throttle(&mine, "2/day", FixedWindow),
        throttle(&others, "2/day", FixedWindow),
    );
    assert_eq!(admitted(&my_limit, &ann(), 3).await.unwrap(), 2);
    assert_eq!(admitted(&other_limit, &ann(), 3).await.unwrap(), 2);

    mine.reset().await.unwrap();
    assert_eq!(admitted(&my_limit, &ann(), 3).await.unwrap(), 2);
    assert_eq!(admitted(&other_limit, &ann(), 1).await.unwrap(), 0);
    assert_eq!(server.get("foreign").unwrap(), "7");
}

#[tokio::test]
async fn a_reset_reaches_other_processes() {
    let server = MemcachedServer::start();
    let (one, other) = (server.backend(), server.backend());
    let (one_limit, other_limit) = (
        throttle(&one, "1/day", TokenBucket::new()),
        throttle(&other, "1/day", TokenBucket::new()),
    );
    assert_eq!(admitted(&one_limit, &ann(), 2).await.unwrap(), 1);
    assert_eq!(admitted(&other_limit, &ann(), 1).await.unwrap(), 0);
    one.reset().await.unwrap();
    eventually("the other process notices", async || {
        admitted(&other_limit, &ann(), 1).await.unwrap() == 1
    })
    .await;
    assert_eq!(admitted(&one_limit, &ann(), 1).await.unwrap(), 0);

    // And those that start later.
    let late = throttle(&server.backend(), "1/day", TokenBucket::new());
    assert_eq!(admitted(&late, &ann(), 1).await.unwrap(), 0);
}

#[tokio::test]
async fn tracked_keys_are_deleted() {
    let server = MemcachedServer::start();
    let backend = server.builder().track_keys(true).build().unwrap();
    let (window, bucket) = (
        throttle(&backend, "2/day", FixedWindow),
        throttle(&backend, "2/day", TokenBucket::new()),
    );
    for n in 0..300 {
        let who = traffik_core::Identity::of(n);
        assert_eq!(admitted(&window, &who, 1).await.unwrap(), 1);
        assert_eq!(admitted(&bucket, &who, 1).await.unwrap(), 1);
    }
    assert_eq!(server.keys().len(), 601);
    backend.reset().await.unwrap();
    assert_eq!(server.keys().len(), 1);
}

#[tokio::test]
async fn closing_forgets_only_if_told_to() {
    let server = MemcachedServer::start();
    for (builder, left) in [
        (server.builder(), 0),
        (server.builder().persistent(true), 0),
        (server.builder().persistent(false), 1),
    ] {
        let backend = builder.build().unwrap();
        let limit = throttle(&backend, "1/day", FixedWindow);
        assert!(admitted(&limit, &ann(), 2).await.unwrap() <= 1);
        backend.close().await.unwrap();
        assert!(limit.hit(&ann()).await.unwrap_err().is_closed());
        let next = throttle(&server.backend(), "1/day", FixedWindow);
        assert_eq!(admitted(&next, &ann(), 2).await.unwrap(), left);
    }
}

#[tokio::test]
async fn lost_data_is_noticed() {
    let server = MemcachedServer::start();
    let backend = server.backend();
    let limit = throttle(&backend, "1000000/day", FixedWindow);
    assert_eq!(admitted(&limit, &ann(), 3).await.unwrap(), 3);
    backend.reset().await.unwrap();
    assert_eq!(admitted(&limit, &ann(), 3).await.unwrap(), 3);
    assert_eq!(backend.lost(), 0);
    server.command("flush_all");
    eventually("the loss is noticed", async || {
        admitted(&limit, &ann(), 1).await.unwrap();
        backend.lost() == 1
    })
    .await;
    // The generation was put back: what was counted before the reset stays forgotten.
    let later = throttle(&server.backend(), "1000000/day", FixedWindow);
    let counts =
        async |throttle: &traffik_core::Throttle| throttle.stat(&ann()).await.unwrap().remaining;
    assert_eq!(counts(&limit).await, counts(&later).await);
}

/// With 2 MB and many clients, 48,662 evictions went unnoticed: the number of the generation, which
/// was all that was watched, is read so often that it is never evicted.
#[tokio::test]
async fn evictions_are_counted() {
    let server = MemcachedServer::with(&["-m", "2"]);
    let backend = server.backend();
    let limit = throttle(&backend, "1000000/day", FixedWindow);
    assert_eq!(admitted(&limit, &ann(), 1).await.unwrap(), 1);
    for n in 0..4_000 {
        server.set(&format!("foreign{n}"), "x".repeat(4_000));
    }
    let evicted = async || server.count(&["evictions"]);
    assert!(evicted().await > 100);
    eventually("evictions are noticed", async || {
        admitted(&limit, &ann(), 1).await.unwrap();
        backend.lost() == evicted().await
    })
    .await;
}
