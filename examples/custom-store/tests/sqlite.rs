//! The store holds what backends promise, also between processes.

#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

#[path = "../../../tests/support/strategies.rs"]
mod strategies;

use std::path::PathBuf;
use std::time::Duration;

use custom_store::Sqlite;
use traffik_core::testing::conformance;
use traffik_core::{
    Backend, Identity, Locked, LockedBuilder, ManualClock, OnError, Store, Throttle, TokenBucket,
};

use self::strategies::strategies;

/// A file of our own, which ends with us.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> File {
        let name = format!("traffik-{}-{name}.sqlite", std::process::id());
        File(std::env::temp_dir().join(name))
    }

    fn open(&self) -> Sqlite {
        Sqlite::open(&self.0).unwrap()
    }

    /// Limits in the file, however busy the machine.
    fn limits(&self) -> LockedBuilder<Sqlite> {
        Locked::builder(self.open()).deadline(Duration::from_secs(60))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            let mut path = self.0.clone().into_os_string();
            path.push(end);
            let _ = std::fs::remove_file(path);
        }
    }
}

#[tokio::test]
async fn conforms() {
    let (file, other) = (File::new("conforms"), File::new("neighbour"));
    let clock = ManualClock::default();
    let backend = file.limits().clock(clock.clone()).build().unwrap();
    let neighbour = other.limits().clock(clock.clone()).build().unwrap();
    conformance::decides_like_the_strategy(&backend, &clock, &strategies(), 1).await;
    conformance::admits_exactly_the_limit(&backend, &strategies()).await;
    conformance::batches_are_all_or_nothing(&backend).await;
    conformance::dropped_futures_leave_nothing_behind(&backend).await;
    conformance::resets_its_own_namespace_only(&backend, &neighbour).await;
    conformance::repairs_what_was_damaged(&backend, &strategies(), async |key, bytes| {
        backend.store().set(&key, &bytes, None).await.unwrap();
    })
    .await;
}

fn throttle(backend: impl Backend) -> Throttle {
    let builder = Throttle::builder("api")
        .rate("20/day")
        .on_error(OnError::Raise);
    builder
        .strategy(TokenBucket::new())
        .backend(backend)
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_limits_and_restarts_keep_them() {
    let file = File::new("shared");
    let throttles = [(); 2].map(|()| throttle(file.limits().build().unwrap()));
    let tasks: Vec<_> = (0..50)
        .map(|at| {
            let throttle = throttles[at % 2].clone();
            tokio::spawn(async move { throttle.hit(&Identity::of("ann")).await.unwrap() })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += u32::from(task.await.unwrap().is_allowed());
    }
    assert_eq!(admitted, 20);
    drop(throttles);
    let restarted = throttle(file.limits().build().unwrap());
    assert!(
        restarted
            .hit(&Identity::of("ann"))
            .await
            .unwrap()
            .is_denied()
    );
}

#[tokio::test]
async fn values_keep_their_time_to_live_and_locks_their_owner() {
    let file = File::new("values");
    let store = file.open();
    let (never, day) = (Duration::ZERO, Duration::from_secs(86_400));
    store.set("a", b"1", Some(never)).await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
    store.set("a", b"1", None).await.unwrap();
    assert_eq!(store.increment("a", 4).await.unwrap(), 5);
    assert!(store.expire("a", never).await.unwrap());
    assert!(!store.delete("a").await.unwrap());
    assert_eq!(store.increment_with_ttl("b", 4, day).await.unwrap(), 4);
    assert_eq!(store.sweep().await.unwrap(), 0);
    assert!(store.delete("b").await.unwrap());

    assert!(store.lock("l", "me", day).await.unwrap());
    assert!(!store.lock("l", "you", day).await.unwrap());
    store.unlock("l", "you").await.unwrap();
    assert!(!store.lock("l", "you", day).await.unwrap());
    store.unlock("l", "me").await.unwrap();
    assert!(store.lock("l", "you", never).await.unwrap());
    assert!(store.lock("l", "me", day).await.unwrap());
}

#[tokio::test]
async fn a_sweep_takes_what_is_over_and_the_locks_of_the_crashed() {
    let file = File::new("sweep");
    let store = file.open();
    let (never, day) = (Duration::ZERO, Duration::from_secs(86_400));
    store.set("old", b"1", Some(never)).await.unwrap();
    store.set("new", b"1", Some(day)).await.unwrap();
    store.set("forever", b"1", None).await.unwrap();
    assert!(store.lock("crashed", "me", never).await.unwrap());
    assert!(store.lock("held", "me", day).await.unwrap());
    assert_eq!(store.sweep().await.unwrap(), 2);
    assert_eq!(store.sweep().await.unwrap(), 0);
    assert!(store.get("new").await.unwrap().is_some());
    assert!(!store.lock("held", "you", day).await.unwrap());
}
