//! A cluster of which one master hangs.

use std::time::Duration;

use traffik_core::{Concurrency, Identity, InFlight, ManualClock, OnOutage};

use super::super::cluster::builder;
use super::{limit, soon};
use crate::support::{PATIENCE, RedisCluster, RedisServer};

/// Somebody is in flight, on the node of this number.
async fn resident(cluster: &RedisCluster, limit: &Concurrency, who: u32) -> (usize, InFlight) {
    let keys = || cluster.nodes().iter().map(|node| node.keys().len());
    let before: Vec<_> = keys().collect();
    let one = limit.acquire(&Identity::of(who), Duration::ZERO).await;
    let one = one.expect("nobody else is in flight");
    let home = keys().zip(before).position(|(now, before)| now > before);
    (home.expect("a new key"), one)
}

/// When the leases on a node end.
fn ends(node: &RedisServer) -> Vec<String> {
    let end = |key: &String| {
        let last = ["ZRANGE", key, "0", "0", "WITHSCORES"];
        node.command::<Vec<Vec<u8>>>(&last).swap_remove(1)
    };
    let mut keys = node.keys();
    keys.sort();
    let ends = keys.iter().map(end);
    ends.map(|end| String::from_utf8(end).unwrap()).collect()
}

/// Keys were told one after the other, until one could not be: those behind it were renewed no more, and who had gone
/// was not said to be.
#[tokio::test]
async fn a_master_that_hangs_lets_no_leases_of_the_others_end() {
    let (cluster, clock) = (RedisCluster::start(), ManualClock::default());
    let lease = Duration::from_millis(900);
    let [one, other] = [(); 2].map(|()| {
        let builder = builder(&cluster).deadline(PATIENCE).clock(clock.clone());
        let limit = limit(builder.build().unwrap(), 1).lease(lease);
        limit.build().unwrap()
    });
    let mut held = Vec::new();
    for who in 0..30 {
        let (home, in_flight) = resident(&cluster, &one, who).await;
        held.push((Identity::of(who), home, in_flight));
    }
    let is_denied = async |who: &Identity| {
        let busy = other.acquire(who, Duration::ZERO).await.unwrap_err();
        busy.failure().is_none()
    };
    for (who, ..) in &held {
        assert!(is_denied(who).await);
    }
    // They are renewed already.
    let before = cluster.nodes().iter().map(ends).collect::<Vec<_>>();
    clock.advance(lease / 2);
    soon(|| {
        let now = cluster.nodes().iter().map(ends);
        now.zip(&before).all(|(now, before)| now != *before)
    })
    .await;

    let (hangs, others) = (
        &cluster.nodes()[1],
        [0, 2].map(|node| &cluster.nodes()[node]),
    );
    hangs.pause();
    for _ in 0..6 {
        let before = others.map(ends);
        clock.advance(lease / 2);
        let is_renewed = |(node, before): (&RedisServer, &Vec<String>)| {
            let mut both = ends(node).into_iter().zip(before);
            both.all(|(now, before)| now != *before)
        };
        soon(|| others.into_iter().zip(&before).all(is_renewed)).await;
        for (who, home, _) in &held {
            assert!(*home == 1 || is_denied(who).await);
        }
    }
    drop(held);
    for node in others {
        soon(|| node.keys().is_empty()).await;
    }
}

/// There was one breaker for all.
#[tokio::test]
async fn a_master_that_hangs_denies_nobody_elsewhere() {
    let cluster = RedisCluster::start();
    let backend = builder(&cluster).deadline(Duration::from_secs(1));
    let limit = limit(backend.build().unwrap(), 2).on_outage(OnOutage::Deny);
    let limit = limit.build().unwrap();
    let mut residents = [const { None }; 3];
    for who in 0.. {
        let (home, in_flight) = resident(&cluster, &limit, who).await;
        residents[home].get_or_insert((Identity::of(who), in_flight));
        if residents.iter().all(Option::is_some) {
            break;
        }
    }
    let [(ann, _one), (bob, _two), (cat, _three)] =
        residents.map(|one| one.expect("one of each node"));
    cluster.nodes()[1].pause();
    for _ in 0..5 {
        let busy = limit.acquire(&bob, Duration::ZERO).await.unwrap_err();
        assert!(busy.failure().is_some(), "{busy}");
    }
    for who in [&ann, &cat] {
        let one = limit.acquire(who, Duration::ZERO).await;
        assert!(one.is_ok(), "{one:?}");
    }
}
