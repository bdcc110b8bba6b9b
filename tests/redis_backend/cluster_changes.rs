//! A cluster whose slots move, and whose masters die or hang, while it decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use traffik_core::{BackendExt, Hits, Identity, Throttle};

use super::cluster::builder;
use super::throttle;
use crate::support::{PATIENCE, RedisCluster};

/// The only key there is.
fn key(cluster: &RedisCluster) -> String {
    let mut keys = cluster.nodes().iter().flat_map(|node| node.keys());
    keys.next().expect("a key")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn every_hit_counts_once_while_its_slot_moves() {
    const LIMIT: u32 = 1_000;
    let cluster = Arc::new(RedisCluster::start());
    let backend = builder(&cluster).deny_cache(0).build().unwrap();
    let throttle = throttle("moving", &format!("{LIMIT}/day"), backend);
    let first = throttle.hit(&Identity::of("ann")).await.unwrap();
    assert!(first.is_allowed());
    let (home, slot) = cluster.home(&key(&cluster));

    let (hits, moved) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (throttle, hits, moved) = (throttle.clone(), Arc::clone(&hits), Arc::clone(&moved));
            tokio::spawn(async move {
                let ann = Identity::of("ann");
                let mut admitted = 0;
                loop {
                    let last = moved.load(Ordering::SeqCst);
                    match throttle.hit(&ann).await {
                        Ok(decision) if decision.is_allowed() => admitted += 1,
                        Ok(_) if last => return admitted,
                        Ok(_) => {}
                        // A slot may move on faster than a slow machine follows.
                        Err(error) => assert!(error.is_unexecuted(), "{error:?}"),
                    }
                    hits.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let moving = tokio::task::spawn_blocking(move || {
        let goes_on = || {
            let (start, seen) = (Instant::now(), hits.load(Ordering::SeqCst));
            while hits.load(Ordering::SeqCst) < seen + 8 {
                assert!(start.elapsed() < Duration::from_secs(20), "no hit passes");
                std::thread::yield_now();
            }
        };
        for step in 0..12 {
            let (from, to) = ((home + step) % 3, (home + step + 1) % 3);
            cluster.move_slot(slot, from, to, goes_on);
            goes_on();
        }
        cluster
    });
    let _cluster = moving.await.unwrap();
    moved.store(true, Ordering::SeqCst);
    let mut admitted = 1;
    for task in tasks {
        admitted += task.await.unwrap();
    }
    assert_eq!(admitted, LIMIT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_has_half_arrived_charges_nothing() {
    let cluster = RedisCluster::start();
    let backend = builder(&cluster).build().unwrap();
    let throttles = ["a", "b", "c", "d"].map(|name| throttle(name, "9/day", backend.clone()));
    let all = throttles.clone();
    let batch = async move || {
        let ann = Identity::of("ann");
        let hits = Hits::from_iter(all.iter().map(|throttle| (throttle, &ann)));
        hits.decide().await
    };
    assert!(batch().await.unwrap().is_allowed());
    let (home, slot) = cluster.home(&key(&cluster));
    let (runtime, halfway) = (Handle::current(), batch.clone());
    let moved = tokio::task::spawn_blocking(move || {
        cluster.move_slot(slot, home, (home + 1) % 3, || {
            runtime.block_on(async {
                let error = halfway().await.unwrap_err();
                assert!(error.is_connection() && error.is_unexecuted(), "{error:?}");
                // Each key by itself is here or there.
                for throttle in &throttles {
                    let decision = throttle.hit(&Identity::of("ann")).await.unwrap();
                    assert_eq!(decision.remaining(), 7);
                }
            });
        });
        cluster
    });
    let _cluster = moved.await.unwrap();
    let decisions = batch().await.unwrap();
    assert!(decisions.iter().all(|decision| decision.remaining() == 6));
}

const DEADLINE: Duration = Duration::from_secs(1);

fn outlasting(cluster: &RedisCluster) -> Throttle {
    let backend = builder(cluster).deadline(DEADLINE).build().unwrap();
    throttle("outage", "100/day", backend)
}

/// An identity on each node.
async fn residents(cluster: &RedisCluster, throttle: &Throttle) -> [Identity; 3] {
    let mut residents = [const { None }; 3];
    for who in 0.. {
        let who = Identity::of(who);
        let keys = || cluster.nodes().iter().map(|node| node.keys().len());
        let before: Vec<_> = keys().collect();
        assert!(throttle.hit(&who).await.unwrap().is_allowed());
        let home = keys().zip(before).position(|(now, before)| now > before);
        residents[home.expect("a new key")] = Some(who);
        if residents.iter().all(Option::is_some) {
            break;
        }
    }
    residents.map(|who| who.expect("one for each node"))
}

/// Hits one identity until it is served again.
async fn comes_back(throttle: &Throttle, who: &Identity) {
    let start = Instant::now();
    while let Err(error) = throttle.hit(who).await {
        assert!(start.elapsed() < Duration::from_secs(60), "{error:?}");
    }
}

/// The one that dies is the only one whose address we were given.
#[tokio::test]
async fn a_master_that_dies_takes_only_its_own_slots() {
    let mut cluster = RedisCluster::start();
    let throttle = outlasting(&cluster);
    let [bob, ann, cat] = residents(&cluster, &throttle).await;
    cluster.kill(0);
    for _ in 0..10 {
        let start = Instant::now();
        assert!(throttle.hit(&bob).await.is_err());
        assert!(start.elapsed() < 2 * DEADLINE, "{:?}", start.elapsed());
        for who in [&ann, &cat] {
            assert!(throttle.hit(who).await.unwrap().is_allowed());
        }
    }
    for node in [1, 2] {
        cluster.kill(node);
    }
    for who in [&ann, &bob, &cat] {
        assert!(throttle.hit(who).await.is_err());
    }
    for node in 0..3 {
        cluster.resurrect(node);
    }
    for who in [&ann, &bob, &cat] {
        comes_back(&throttle, who).await;
    }
}

/// After three timeouts in a row everybody hung up on the whole cluster, and waited for a
/// connection to the one that hung.
#[tokio::test]
async fn a_master_that_hangs_takes_only_its_own_slots() {
    let cluster = RedisCluster::start();
    let throttle = outlasting(&cluster);
    let [ann, bob, cat] = residents(&cluster, &throttle).await;
    cluster.nodes()[1].pause();
    for _ in 0..4 {
        let start = Instant::now();
        assert!(throttle.hit(&bob).await.is_err());
        assert!(start.elapsed() < 2 * DEADLINE, "{:?}", start.elapsed());
    }
    for who in [&ann, &cat] {
        assert!(throttle.hit(who).await.unwrap().is_allowed());
    }
    cluster.nodes()[1].resume();
    comes_back(&throttle, &bob).await;
}

#[tokio::test]
async fn one_of_several_masters_that_is_dead_was_not_noticed_by_a_check() {
    let mut cluster = RedisCluster::start();
    let backend = builder(&cluster).deadline(DEADLINE).build().unwrap();
    // Before its first connection nobody knows who has which slot.
    backend.health().await.unwrap();
    for node in 0..cluster.nodes().len() {
        backend.health().await.unwrap();
        cluster.kill(node);
        backend.health().await.unwrap_err();
        cluster.resurrect(node);
        let start = Instant::now();
        while backend.health().await.is_err() {
            assert!(start.elapsed() < PATIENCE, "node {node} does not come back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
