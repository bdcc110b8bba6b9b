//! Locks by majority of three or five masters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use traffik_core::testing::conformance;
use traffik_core::{Lock, LockConfig, Locked, RedisBackend, RedisStore};

use crate::support::{Fault, Proxy, RedisServer, strategies};

const MINUTE: Duration = Duration::from_secs(60);

/// Longer than any hiccup of a busy machine, and shorter than what it must not be as long as.
const LONG: Duration = Duration::from_secs(10);

fn servers<const N: usize>() -> [RedisServer; N] {
    std::array::from_fn(|_| RedisServer::start())
}

/// What one process makes of its masters.
fn store(masters: &[RedisServer], deadline: Duration) -> RedisStore {
    let backends = masters
        .iter()
        .map(|master| master.builder().deadline(deadline).build().unwrap());
    redlock(backends.collect())
}

fn redlock(masters: Vec<RedisBackend>) -> RedisStore {
    masters[0].store().redlock(masters).unwrap()
}

/// Held for a minute, waited for at most as long as a hiccup may last.
fn patient() -> LockConfig {
    LockConfig::new().ttl(MINUTE).blocking_timeout(LONG)
}

fn impatient() -> LockConfig {
    LockConfig::new().ttl(MINUTE).blocking(false)
}

/// Waits until none of these servers has a lock.
async fn all_is_given_back<'a>(masters: impl IntoIterator<Item = &'a RedisServer>) {
    let start = Instant::now();
    for master in masters {
        while !master.keys().is_empty() {
            assert!(start.elapsed() < MINUTE / 2, "a lock is left behind");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_lock_is_on_all_masters_until_released() {
    let masters = servers::<3>();
    let (ann, bob) = (store(&masters, LONG), store(&masters, LONG));
    let lock = Lock::acquire(&ann, "job", impatient()).await.unwrap();
    assert!(lock.remaining() < MINUTE - MINUTE / 100);
    assert!(lock.remaining() > MINUTE / 2);
    let error = Lock::acquire(&bob, "job", impatient()).await.unwrap_err();
    assert!(error.is_contended(), "{error:?}");
    drop(Lock::acquire(&bob, "another", impatient()).await.unwrap());
    lock.release().await;
    let lock = Lock::acquire(&bob, "job", patient()).await.unwrap();
    lock.release().await;
    all_is_given_back(&masters).await;
}

#[tokio::test]
async fn a_minority_that_is_down_or_hangs_delays_nobody() {
    let mut masters = servers::<5>();
    let (ann, bob) = (store(&masters, MINUTE), store(&masters, MINUTE));
    Lock::acquire(&ann, "job", patient())
        .await
        .unwrap()
        .release()
        .await;
    masters[1].kill();
    masters[3].pause();

    // Both who know their masters and who meet them only now.
    let start = Instant::now();
    for store in [&ann, &bob] {
        let lock = Lock::acquire(store, "job", patient()).await.unwrap();
        for alive in [0, 2, 4] {
            assert_eq!(masters[alive].keys(), ["traffik:lock:job"]);
        }
        lock.release().await;
    }
    assert!(start.elapsed() < MINUTE / 2, "somebody waited for the hung");
    all_is_given_back([0, 2, 4].map(|alive| &masters[alive])).await;
    masters[3].resume();
    all_is_given_back([&masters[3]]).await;
}

#[tokio::test]
async fn without_a_majority_there_is_an_error_and_nothing_left_behind() {
    let mut masters = servers::<3>();
    let deadline = Duration::from_millis(200);
    let store = store(&masters, deadline);
    // The first connection may take longer than the deadline on a busy machine.
    while Lock::acquire(&store, "warm", patient()).await.is_err() {}
    all_is_given_back(&masters).await;

    masters[1].kill();
    masters[2].pause();
    let start = Instant::now();
    let error = Lock::acquire(&store, "job", patient()).await.unwrap_err();
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
    assert!(error.is_connection(), "{error:?}");
    assert_eq!(
        error.to_string(),
        "2 of 3 masters of a redlock cannot be asked, and 2 are needed"
    );
    assert!(std::error::Error::source(&error).is_some());
    all_is_given_back([&masters[0]]).await;

    masters[1].resurrect();
    masters[2].resume();
    let start = Instant::now();
    while Lock::acquire(&store, "job", patient()).await.is_err() {
        assert!(start.elapsed() < LONG, "never recovers");
    }
}

#[tokio::test]
async fn who_is_refused_gives_back_what_others_granted() {
    let masters = servers::<3>();
    let store = store(&masters, LONG);
    for master in &masters[1..] {
        let () = master.command(&["SET", "traffik:lock:job", "bob"]);
    }
    let error = Lock::acquire(&store, "job", impatient()).await.unwrap_err();
    assert!(error.is_contended(), "{error:?}");
    all_is_given_back([&masters[0]]).await;
    for master in &masters[1..] {
        let owner: String = master.command(&["GET", "traffik:lock:job"]);
        assert_eq!(owner, "bob");
    }
}

#[tokio::test]
async fn what_is_granted_too_late_is_no_lock() {
    let masters = servers::<3>();
    let proxies = [0, 1, 2].map(|at| Proxy::before(masters[at].port()));
    let backend = |proxy: &Proxy| RedisBackend::builder(&proxy.url()).deadline(LONG).build();
    let store = redlock(proxies.iter().map(|one| backend(one).unwrap()).collect());
    let lock = Lock::acquire(&store, "job", patient()).await.unwrap();
    lock.release().await;

    let latency = Duration::from_millis(60);
    for proxy in &proxies {
        proxy.set(Fault::Delay(latency));
    }
    let short = LockConfig::new().ttl(latency).blocking_timeout(MINUTE);
    let error = Lock::acquire(&store, "job", short).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("longer to grant it than the 60ms")
    );
    // As late, but long enough.
    let lock = Lock::acquire(&store, "job", patient()).await.unwrap();
    lock.release().await;
}

// On one thread, where a release does not overtake a grant: see `RedisStore::redlock`.
#[tokio::test]
async fn two_never_hold_it_at_once() {
    let masters = servers::<3>();
    let counter = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            // A process each.
            let (store, counter) = (store(&masters, LONG), Arc::clone(&counter));
            tokio::spawn(async move {
                for _ in 0..5 {
                    let config = LockConfig::new().ttl(MINUTE).blocking_timeout(MINUTE);
                    let lock = Lock::acquire(&store, "count", config).await.unwrap();
                    // Not atomic on purpose: two at once would count once.
                    let seen = counter.load(Ordering::SeqCst);
                    for _ in 0..10 {
                        tokio::task::yield_now().await;
                    }
                    counter.store(seen + 1, Ordering::SeqCst);
                    lock.release().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(counter.load(Ordering::SeqCst), 30);
    all_is_given_back(&masters).await;
}

#[tokio::test]
async fn a_dropped_lock_is_released() {
    let masters = servers::<3>();
    let (ann, bob) = (store(&masters, LONG), store(&masters, LONG));
    drop(Lock::acquire(&ann, "job", impatient()).await.unwrap());
    all_is_given_back(&masters).await;

    // While it waits for somebody else's, and while it is granted.
    let held = Lock::acquire(&bob, "job", impatient()).await.unwrap();
    for _ in 0..20 {
        let acquiring = Lock::acquire(&ann, "job", patient());
        let _ = tokio::time::timeout(Duration::from_millis(1), acquiring).await;
    }
    held.release().await;
    for _ in 0..20 {
        let acquiring = Lock::acquire(&ann, "job", patient());
        let _ = tokio::time::timeout(Duration::from_micros(300), acquiring).await;
    }
    all_is_given_back(&masters).await;
    // On a thread without a runtime.
    let lock = Lock::acquire(&ann, "job", patient()).await.unwrap();
    std::thread::spawn(move || drop(lock)).join().unwrap();
    all_is_given_back(&masters).await;
}

#[tokio::test]
async fn a_lock_of_a_holder_that_crashed_ends() {
    let masters = servers::<3>();
    let (ann, bob) = (store(&masters, LONG), store(&masters, LONG));
    let ttl = Duration::from_millis(400);
    let start = Instant::now();
    let lock = Lock::acquire(&ann, "job", impatient().ttl(ttl))
        .await
        .unwrap();
    let crashed = std::mem::ManuallyDrop::new(lock);
    let next = Lock::acquire(&bob, "job", patient()).await.unwrap();
    assert!(start.elapsed() >= ttl, "{:?}", start.elapsed());
    assert_eq!(crashed.remaining(), Duration::ZERO);
    next.release().await;
}

#[tokio::test]
async fn strategies_run_on_it() {
    let masters = servers::<3>();
    let locked = Locked::builder(store(&masters, LONG))
        .deadline(LONG)
        .build()
        .unwrap();
    conformance::admits_exactly_the_limit(&locked, &strategies()[..1]).await;
}

#[tokio::test]
async fn settings_are_checked() {
    let urls = ["redis://a", "redis://b", "redis://c"];
    let [a, b, c] = urls.map(|url| RedisBackend::at(url).unwrap());
    let wrong = |masters: &[&RedisBackend]| {
        let masters: Vec<_> = masters.iter().map(|&one| one.clone()).collect();
        let error = a.store().redlock(masters).unwrap_err();
        assert!(error.is_invalid(), "{error:?}");
        error.to_string()
    };
    assert!(wrong(&[]).contains("at least 3 independent masters"));
    assert!(wrong(&[&a, &b]).contains("of which one may fail, not 2"));
    assert!(wrong(&[&a, &b, &a]).contains("named twice"));

    let store = a.store().redlock([a.clone(), b, c]).unwrap();
    let short = LockConfig::new().ttl(Duration::from_millis(2));
    let error = Lock::acquire(&store, "job", short).await.unwrap_err();
    assert!(error.is_invalid(), "{error:?}");
    assert!(error.to_string().contains("is held for 2ms"), "{error}");
}
