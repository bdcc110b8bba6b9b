//! So many at a time over all processes.

mod attribute;
mod crashes;
mod http;
mod masters;
mod metrics;
mod outages;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, yield_now};
use traffik_core::{
    Backend, Busy, Concurrency, ConcurrencyBuilder, ConcurrencyInfo, Identity, InFlight,
    ManualClock, RedisBackend, Throttle,
};

use crate::support::{PATIENCE, RedisCluster, RedisServer};

const HOUR: Duration = Duration::from_secs(3_600);

/// Nothing is renewed, and nothing ends by itself.
fn limit(backend: RedisBackend, in_flight: u32) -> ConcurrencyBuilder {
    let builder = Concurrency::builder("exports").in_flight(in_flight);
    builder.backend(backend).lease(HOUR)
}

fn ann() -> Identity {
    Identity::of("ann")
}

async fn now(limit: &Concurrency) -> Result<InFlight, Busy> {
    limit.acquire(&ann(), Duration::ZERO).await
}

/// What is going to be, in a moment.
async fn soon(mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "in vain");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How many are known to the server, of keys whose scope is this: permits, or those who wait.
fn known(server: &RedisServer, scope: u64) -> u64 {
    let scope = format!("{scope:016x}:in-flight");
    let keys = server
        .keys()
        .into_iter()
        .filter(|key| key.ends_with(&scope));
    keys.map(|key| server.command::<u64>(&["ZCARD", &key]))
        .sum()
}

fn permits(server: &RedisServer) -> u64 {
    known(server, 0)
}

fn waiting(server: &RedisServer) -> u64 {
    known(server, 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_than_so_many_are_in_flight_over_two_processes() {
    let server = RedisServer::start();
    let limits = [0, 1].map(|_| {
        let limit = limit(server.backend(), 7).max_waiters(1_000);
        limit.max_waiters_per_client(1_000).build().unwrap()
    });
    let counts = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
    let mut tasks = JoinSet::new();
    for n in 0..200 {
        let (limit, counts) = (limits[n % 2].clone(), Arc::clone(&counts));
        tasks.spawn(async move {
            let mut served = 0;
            for round in 0..4 {
                // Some do not wait, and some give up, whenever that is.
                let patience = match (n + round) % 4 {
                    0 => Duration::ZERO,
                    1 => Duration::from_micros(n as u64 * 10),
                    _ => Duration::MAX,
                };
                let Ok(one) = limit.acquire(&ann(), patience).await else {
                    continue;
                };
                let now = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
                counts.1.fetch_max(now, Ordering::SeqCst);
                for _ in 0..20 {
                    yield_now().await;
                }
                counts.0.fetch_sub(1, Ordering::SeqCst);
                drop(one);
                served += 1;
            }
            served
        });
    }
    let served: u32 = tasks.join_all().await.into_iter().sum();
    assert!(served >= 400, "{served}");
    let most = counts.1.load(Ordering::SeqCst);
    assert!((2..=7).contains(&most), "{most}");
    soon(|| server.keys().is_empty()).await;
    // As many as may be, and not one more.
    let mut held = Vec::new();
    for limit in limits.iter().cycle().take(7) {
        held.push(now(limit).await.unwrap());
    }
    for limit in &limits {
        assert!(now(limit).await.is_err());
    }
    held.clear();
    soon(|| server.keys().is_empty()).await;
    for limit in limits {
        assert_eq!(limit.info(), ConcurrencyInfo::default());
    }
}

#[tokio::test]
async fn to_be_admitted_is_one_round_trip_and_nobody_waits_for_the_end() {
    let server = RedisServer::start();
    let limit = limit(server.backend(), 20).build().unwrap();
    drop(now(&limit).await.unwrap());
    soon(|| server.keys().is_empty()).await;
    server.calls();
    let mut held = Vec::new();
    for at in 0..20 {
        let one = now(&limit).await.unwrap();
        assert_eq!(one.remaining(), 19 - at);
        held.push(one);
    }
    assert!(now(&limit).await.is_err());
    let calls = server.calls();
    assert_eq!((calls["evalsha"], calls.get("eval")), (21, None));
    for key in server.keys() {
        let ttl: i64 = server.command(&["PTTL", &key]);
        assert!((1..=3_600_000).contains(&ttl), "{ttl}");
    }
    assert_eq!((limit.in_flight(&ann()), limit.info().counts), (20, 1));
    held.clear();
    soon(|| server.keys().is_empty()).await;
    let calls = server.calls();
    assert!((1..=20).contains(&calls["evalsha"]), "{calls:?}");
    assert_eq!(calls["zrem"], 20);
}

/// One trip for all identities, not one for each.
#[tokio::test]
async fn leases_are_renewed_in_one_trip() {
    let server = RedisServer::start();
    let limit = limit(server.backend(), 2).lease(Duration::from_millis(600));
    let limit = limit.build().unwrap();
    let mut held = Vec::new();
    for who in 0..100 {
        for _ in 0..2 {
            let one = limit.acquire(&Identity::of(who), Duration::ZERO).await;
            held.push(one.unwrap());
        }
    }
    let renewed = || {
        let calls = server.calls();
        calls.get("zadd").is_some_and(|zadd| {
            let trips = calls.get("evalsha").or(calls.get("eval"));
            Some(zadd / 200) == trips.copied() && zadd % 200 == 0
        })
    };
    server.calls();
    for _ in 0..3 {
        soon(renewed).await;
    }
    drop(held);
    soon(|| server.keys().is_empty()).await;
}

#[tokio::test]
async fn who_has_it_keeps_it_for_as_long_as_it_takes() {
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let lease = Duration::from_millis(60);
    let [one, other] = [0, 1].map(|_| {
        let backend = server.builder().clock(clock.clone()).build().unwrap();
        limit(backend, 1).lease(lease).build().unwrap()
    });
    let held = now(&one).await.unwrap();
    let [key] = &server.keys()[..] else {
        panic!("one count");
    };
    let end =
        || server.command::<Vec<Vec<u8>>>(&["ZRANGE", key, "0", "0", "WITHSCORES"])[1].clone();
    for _ in 0..10 {
        let before = end();
        clock.advance(lease / 2);
        soon(|| end() != before).await;
        assert!(now(&other).await.is_err());
    }
    drop(held);
    soon(|| server.keys().is_empty()).await;
    assert!(now(&other).await.is_ok());
}

/// Heads of queues take turns; in each process all are served in order.
#[tokio::test]
async fn who_waited_first_is_first_and_nobody_overtakes() {
    let server = RedisServer::start();
    let [one, other] = [0, 1].map(|_| limit(server.backend(), 1).build().unwrap());
    let held = now(&one).await.unwrap();
    let (tell, mut told) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let mut tasks = JoinSet::new();
    for (name, limit, waits) in [
        ("b1", &other, 1),
        ("a1", &one, 2),
        ("b2", &other, 2),
        ("a2", &one, 2),
    ] {
        let before = limit.info().waiting;
        let (limit_of_task, tell, gate) = (limit.clone(), tell.clone(), Arc::clone(&gate));
        tasks.spawn(async move {
            let one = limit_of_task.acquire(&ann(), Duration::MAX).await.unwrap();
            tell.send(name).unwrap();
            gate.acquire().await.unwrap().forget();
            drop(one);
        });
        soon(|| limit.info().waiting == before + 1 && waiting(&server) == waits).await;
    }
    drop(held);
    for (name, waits) in [("b1", 2), ("a1", 2), ("b2", 1), ("a2", 0)] {
        assert_eq!(told.recv().await, Some(name));
        for limit in [&one, &other] {
            assert!(now(limit).await.is_err(), "a newcomer overtakes");
        }
        // The next of its process has its place.
        soon(|| waiting(&server) == waits).await;
        gate.add_permits(1);
    }
    tasks.join_all().await;
    soon(|| server.keys().is_empty()).await;
}

/// Dropped at any point, or too late: nothing is left of them.
#[tokio::test]
async fn whoever_goes_away_leaves_nothing() {
    let server = RedisServer::start();
    let limit = limit(server.backend(), 1).build().unwrap();
    drop(now(&limit).await.unwrap());
    for yields in 0..40 {
        let ann = ann();
        let acquiring = limit.acquire(&ann, Duration::MAX);
        let gone = async {
            for _ in 0..yields {
                yield_now().await;
            }
        };
        tokio::select! {
            _ = acquiring => {}
            () = gone => {}
        }
    }
    soon(|| server.keys().is_empty()).await;
    let held = now(&limit).await.unwrap();
    let busy = limit
        .acquire(&ann(), Duration::from_millis(30))
        .await
        .unwrap_err();
    assert!(busy.waited() && busy.failure().is_none());
    soon(|| waiting(&server) == 0).await;
    assert_eq!(limit.info().waiting, 0);
    drop(held);
    soon(|| server.keys().is_empty()).await;
    // A place that was held no more blocks nobody.
    assert!(now(&limit).await.is_ok());
}

#[tokio::test]
async fn places_to_wait_are_bounded() {
    let server = RedisServer::start();
    let limit = limit(server.backend(), 1)
        .shared()
        .max_waiters(5)
        .max_waiters_per_client(3)
        .build()
        .unwrap();
    let _held = now(&limit).await.unwrap();
    let mut tasks = JoinSet::new();
    let mut wait = async |who: &'static str| {
        let (waits, task) = (limit.info().waiting, limit.clone());
        let before = tasks.len();
        tasks.spawn(async move {
            let _ = task.acquire(&Identity::of(who), HOUR).await;
        });
        soon(|| {
            while tasks.try_join_next().is_some() {}
            limit.info().waiting > waits || tasks.len() == before
        })
        .await;
        limit.info().waiting > waits
    };
    let mut waits = Vec::new();
    for who in ["ann", "ann", "ann", "ann", "ben", "cid", "dan"] {
        waits.push(wait(who).await);
    }
    assert_eq!(waits, [true, true, true, false, true, true, false]);
    let none = Concurrency::builder("none").in_flight(1).max_waiters(0);
    let none = none.backend(server.backend()).build().unwrap();
    let _held = now(&none).await.unwrap();
    let busy = none.acquire(&ann(), HOUR).await.unwrap_err();
    assert!(!busy.waited());
}

/// A place was taken from whoever was not the first, and given to whoever may not wait at all.
#[tokio::test]
async fn a_client_had_not_as_many_places_to_wait_as_it_may() {
    let server = RedisServer::start();
    let made = |places| {
        let limit = limit(server.backend(), 1).shared();
        let limit = limit.max_waiters(9).max_waiters_per_client(places);
        limit.build().unwrap()
    };
    let limit = made(1);
    let held = now(&limit).await.unwrap();
    let mut tasks = JoinSet::new();
    let waiting = || limit.info().waiting;
    for (nth, who) in (1..).zip(["ann", "ben", "cid"]) {
        let task = limit.clone();
        tasks.spawn(async move { task.acquire(&Identity::of(who), HOUR).await.is_ok() });
        soon(|| waiting() == nth).await;
        let busy = limit.acquire(&Identity::of(who), HOUR).await.unwrap_err();
        assert!(!busy.waited() && waiting() == nth, "{who} has its place");
    }
    drop(held);
    assert!(tasks.join_all().await.into_iter().all(|served| served));
    soon(|| server.keys().is_empty()).await;
    let none = made(0);
    let _held = now(&none).await.unwrap();
    let busy = none.acquire(&ann(), HOUR).await.unwrap_err();
    assert!(!busy.waited());
}

/// As many as other processes had were let in once more.
#[tokio::test]
async fn a_reset_of_counts_forgot_what_is_in_flight() {
    let server = RedisServer::start();
    let (backend, other) = (server.backend(), server.backend());
    let exports = limit(backend.clone(), 1).build().unwrap();
    let elsewhere = limit(other, 1).build().unwrap();
    let held = now(&exports).await.unwrap();
    let hits = Throttle::builder("hits")
        .rate("1/day")
        .backend(backend.clone());
    let hits = hits.build().unwrap();
    assert!(hits.hit(&ann()).await.unwrap().is_allowed());
    backend.reset().await.unwrap();
    assert!(hits.hit(&ann()).await.unwrap().is_allowed());
    assert!(now(&elsewhere).await.is_err());
    drop(held);
    soon(|| permits(&server) == 0).await;
    assert!(now(&elsewhere).await.is_ok());
}

#[tokio::test]
async fn identities_names_and_exempt_ones_are_told_apart() {
    let server = RedisServer::start();
    let backend = server.backend();
    let uploads = Concurrency::builder("uploads").in_flight(1);
    let uploads = uploads.backend(backend.clone()).build().unwrap();
    let exports = limit(backend, 1).build().unwrap();
    let _one = now(&exports).await.unwrap();
    let _ben = exports.acquire(&Identity::of("ben"), HOUR).await.unwrap();
    let _other = now(&uploads).await.unwrap();
    assert!(now(&exports).await.is_err() && now(&uploads).await.is_err());
    for _ in 0..3 {
        let free = exports.acquire(&Identity::EXEMPT, HOUR).await.unwrap();
        assert!(!free.is_counted());
    }
    let busy = exports.try_acquire(&ann()).unwrap_err();
    assert!(busy.to_string().contains("`acquire`"), "{busy}");
    for key in server.keys() {
        assert!(!key.contains("ann") && !key.contains("exports"), "{key}");
    }
}

#[tokio::test]
async fn on_a_cluster_every_count_is_in_one_slot() {
    let cluster = RedisCluster::start();
    let urls = cluster.urls();
    let builder = RedisBackend::cluster(urls.iter().map(String::as_str));
    let builder = builder.deadline(PATIENCE).connect_timeout(PATIENCE);
    let limit = limit(builder.build().unwrap(), 1).lease(Duration::from_millis(900));
    let limit = limit.build().unwrap();
    let mut held = Vec::new();
    for who in 0..30 {
        let one = limit.acquire(&Identity::of(who), Duration::ZERO).await;
        held.push(one.unwrap());
        assert!(
            limit
                .acquire(&Identity::of(who), Duration::from_millis(5))
                .await
                .is_err()
        );
    }
    // Renewed on every node.
    for node in cluster.nodes() {
        node.calls();
        soon(|| node.calls().contains_key("zadd")).await;
    }
    held.clear();
    for node in cluster.nodes() {
        soon(|| node.keys().is_empty()).await;
    }
}

#[tokio::test]
async fn builders_say_what_is_wrong_and_what_would_be_right() {
    let server = RedisServer::start();
    let error = |builder: ConcurrencyBuilder| builder.build().unwrap_err().to_string();
    let local = || Concurrency::builder("exports").in_flight(1);
    assert!(error(local().lease(HOUR)).contains("write `.backend(redis)`"));
    let share = traffik_core::OnOutage::Share;
    assert!(error(local().on_outage(share(3))).contains("`on_outage` is about a backend"));
    let there = || limit(server.backend(), 1);
    assert!(error(there().on_outage(share(0))).contains("how many there are"));
    for lease in [Duration::ZERO, Duration::from_millis(9), HOUR * 2] {
        assert!(error(there().lease(lease)).contains("from 10ms to an hour"));
    }
    assert!(!there().build().unwrap().is_local() && local().build().unwrap().is_local());
}
