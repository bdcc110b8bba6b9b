use std::time::Duration;

use traffik_core::testing::conformance;
use traffik_core::{Backend, Entry, Identity, Lock, LockConfig, Locked, Store};

use super::throttle;
use crate::support::{RedisCluster, RedisServer, strategies};

const MINUTE: Duration = Duration::from_secs(60);

async fn keeps_the_contract(store: &impl Store) {
    assert_eq!(store.get("a").await.unwrap(), None);
    store.set("a", b"1\0\xff", Some(MINUTE)).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap(), b"1\0\xff");
    assert!(store.delete("a").await.unwrap());
    assert!(!store.delete("a").await.unwrap());

    assert_eq!(store.increment_with_ttl("n", 5, MINUTE).await.unwrap(), 5);
    assert_eq!(
        store.increment_with_ttl("n", 1, MINUTE * 9).await.unwrap(),
        6
    );
    assert_eq!(store.increment("n", 1).await.unwrap(), 7);
    assert_eq!(store.decrement("n", 10).await.unwrap(), -3);
    assert!(
        store
            .increment("n", u64::MAX)
            .await
            .unwrap_err()
            .is_invalid()
    );

    let entry = |key, value, ttl| Entry { key, value, ttl };
    let entries = [entry("x", &b"1"[..], Some(MINUTE)), entry("y", b"2", None)];
    store.multi_set(&entries).await.unwrap();
    let values = store.multi_get(&["y", "none", "x"]).await.unwrap();
    assert_eq!(values, [Some(b"2".to_vec()), None, Some(b"1".to_vec())]);
    assert_eq!(store.multi_get(&[]).await.unwrap(), []);

    assert!(store.lock("l", "ann", MINUTE).await.unwrap());
    assert!(!store.lock("l", "bob", MINUTE).await.unwrap());
    store.unlock("l", "bob").await.unwrap();
    assert!(!store.lock("l", "bob", MINUTE).await.unwrap());
    store.unlock("l", "ann").await.unwrap();
    assert!(store.lock("l", "bob", MINUTE).await.unwrap());

    assert!(!store.expire("none", MINUTE).await.unwrap());
    assert!(store.expire("x", MINUTE * 2).await.unwrap());
    store.reset().await.unwrap();
    assert_eq!(store.get("x").await.unwrap(), None);
}

#[tokio::test]
async fn one_server_keeps_the_contract() {
    let server = RedisServer::start();
    let backend = server.backend();
    let store = backend.store();
    keeps_the_contract(&store).await;

    let left = |key: &str| server.command::<i64>(&["PTTL", &format!("traffik:kv:{key}")]);
    store
        .set("k", b"1", Some(Duration::from_micros(1_500)))
        .await
        .unwrap();
    assert!(left("k") <= 2);
    store.set("k", b"1", Some(MINUTE)).await.unwrap();
    store.set("k", b"2", None).await.unwrap();
    assert!(
        (50_000..=60_000).contains(&left("k")),
        "keeps the time that the key has"
    );
    assert_eq!(store.increment_with_ttl("i", 1, MINUTE).await.unwrap(), 1);
    assert_eq!(
        store.increment_with_ttl("i", 1, MINUTE * 9).await.unwrap(),
        2
    );
    assert!(
        (50_000..=60_000).contains(&left("i")),
        "only a new number gets one"
    );

    // Cells and keys do not reset each other.
    let throttle = throttle("cells", "1/day", backend.clone());
    let ann = Identity::of("ann");
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    store.reset().await.unwrap();
    assert!(throttle.hit(&ann).await.unwrap().is_denied());
    store.set("k", b"3", None).await.unwrap();
    Backend::reset(&backend).await.unwrap();
    assert_eq!(store.get("k").await.unwrap().unwrap(), b"3");
}

#[tokio::test]
async fn a_cluster_keeps_the_contract() {
    let cluster = RedisCluster::start();
    keeps_the_contract(&super::cluster::builder(&cluster).build().unwrap().store()).await;
}

#[tokio::test]
async fn strategies_run_on_its_locks() {
    let server = RedisServer::start();
    let locked = Locked::builder(server.backend().store())
        .deadline(Duration::from_secs(60))
        .build()
        .unwrap();
    conformance::admits_exactly_the_limit(&locked, &strategies()[..1]).await;
}

/// Issue: SPEC 3.41. The time of a lock never reached the server, where a crash left it for ever.
#[tokio::test]
async fn a_lock_has_its_time_on_the_server() {
    let server = RedisServer::start();
    let store = server.backend().store();
    let config = LockConfig::new().ttl(MINUTE);
    let lock = Lock::acquire(&store, "report", config).await;
    let left: i64 = server.command(&["PTTL", "traffik:lock:report"]);
    assert!((1..=60_000).contains(&left), "{left}");
    lock.unwrap().release().await;
    let left: i64 = server.command(&["PTTL", "traffik:lock:report"]);
    assert_eq!(left, -2, "there is no such key");
}
