use std::time::Duration;

use traffik_core::backend::RedisBackendBuilder;
use traffik_core::testing::conformance;
use traffik_core::{DistributedFairness, Hits, Identity, ManualClock, RedisBackend};

use super::throttle;
use crate::support::{RedisCluster, strategies};

pub(super) fn builder(cluster: &RedisCluster) -> RedisBackendBuilder {
    let urls = cluster.urls();
    // One node is enough to find the others.
    RedisBackend::cluster([urls[0].as_str()]).deadline(Duration::from_secs(10))
}

#[tokio::test]
async fn conforms() {
    let (cluster, clock) = (RedisCluster::start(), ManualClock::default());
    let backend = builder(&cluster).clock(clock.clone()).build().unwrap();
    conformance::decides_like_the_strategy(&backend, &clock, &strategies(), 10).await;
    let backend = builder(&cluster).namespace("now").build().unwrap();
    conformance::admits_exactly_the_limit(&backend, &strategies()).await;
    conformance::batches_are_all_or_nothing(&backend).await;
    conformance::dropped_futures_leave_nothing_behind(&backend).await;
    let neighbour = builder(&cluster).namespace("neighbour").build().unwrap();
    conformance::resets_its_own_namespace_only(&backend, &neighbour).await;
}

#[tokio::test]
async fn identities_spread_over_nodes_and_a_batch_is_one_trip() {
    let cluster = RedisCluster::start();
    let backend = builder(&cluster).build().unwrap();
    let throttles = ["a", "b", "c"].map(|name| throttle(name, "9/day", backend.clone()));
    let hit = async |who: u32| {
        let who = Identity::of(who);
        let batch = Hits::from_iter(throttles.iter().map(|throttle| (throttle, &who)));
        assert!(batch.decide().await.unwrap().is_allowed());
    };
    for who in 0..100 {
        hit(who).await;
    }
    for node in cluster.nodes() {
        assert!(
            node.keys().len() >= 3 * 10,
            "a node has too few of 300 keys"
        );
        node.calls();
    }
    for who in 0..100 {
        hit(who).await;
    }
    let trips = |node: &crate::support::RedisServer| node.calls()["evalsha"];
    assert_eq!(cluster.nodes().iter().map(trips).sum::<u64>(), 100);
}

#[tokio::test]
async fn a_flushed_script_is_brought_along_again() {
    let cluster = RedisCluster::start();
    let throttle = throttle("flush", "3/day", builder(&cluster).build().unwrap());
    let ann = Identity::of("ann");
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 2);
    for node in cluster.nodes() {
        let _: () = node.command(&["SCRIPT", "FLUSH"]);
    }
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 1);
}

#[tokio::test]
async fn a_batch_of_several_slots_charges_all_or_none() {
    let cluster = RedisCluster::start();
    let backend = builder(&cluster).build().unwrap();
    let [own, shared] = [("own", "5/day"), ("shared", "3/day")].map(|(name, rate)| {
        let throttle = super::builder(name, rate, backend.clone());
        match name {
            "own" => throttle.build().unwrap(),
            // Everybody's, so of another slot than anybody's own.
            _ => throttle
                .strategy(DistributedFairness::new("a"))
                .build()
                .unwrap(),
        }
    });
    for who in 0..10 {
        let who = Identity::of(who);
        let batch = Hits::from_iter([(&own, &who), (&shared, &who)]);
        let decisions = batch.decide().await.unwrap();
        let left = own.stat(&who).await.unwrap().remaining;
        if decisions.is_allowed() {
            assert_eq!((decisions[0].remaining(), left), (4, 4));
        } else {
            assert!(decisions[0].is_allowed() && decisions[1].is_denied());
            assert_eq!((decisions[0].remaining(), left), (5, 5));
        }
    }
    assert_eq!(shared.stat(&Identity::of(0)).await.unwrap().remaining, 0);
}
