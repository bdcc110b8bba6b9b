//! Nodes of a cluster are left alone one by one, and all are asked again.

use std::time::{Duration, Instant};

use traffik_core::{
    BackendExt, BreakerState, CircuitBreaker, Failover, Identity, MemoryBackend, OnError,
    RedisBackend, Throttle,
};

use crate::support::{PATIENCE, RedisCluster};

const CLIENTS: u32 = 60;

fn node(cluster: &RedisCluster, rate: &str) -> (Failover<RedisBackend, MemoryBackend>, Throttle) {
    let urls = cluster.urls();
    let redis = RedisBackend::cluster(urls.iter().map(String::as_str));
    let redis = redis.deadline(Duration::from_secs(5)).build().unwrap();
    let backend = redis
        .failover(MemoryBackend::new(), CircuitBreaker::new())
        .nodes(2);
    let limit = Throttle::builder("api")
        .rate(rate)
        .backend(backend.clone())
        .on_error(OnError::Raise);
    (backend, limit.build().unwrap())
}

/// With one breaker for all, every key was decided in memory: the worst had 1.65 times its limit.
#[tokio::test]
async fn a_dead_node_takes_no_keys_of_the_others_away() {
    let mut cluster = RedisCluster::start();
    let nodes = [(); 2].map(|()| node(&cluster, "20/day"));
    let mut admitted = vec![0; CLIENTS as usize];
    for who in 0..CLIENTS {
        for (_, limit) in &nodes {
            let decision = limit.hit(&Identity::of(who)).await.unwrap();
            assert!(decision.is_allowed() && !decision.is_degraded());
            admitted[who as usize] += 1;
        }
    }
    let lost = cluster.nodes()[2].keys().len();
    assert!((1..CLIENTS as usize).contains(&lost));

    cluster.kill(2);
    for round in 0..8 {
        let mut degraded = 0;
        for who in 0..CLIENTS {
            for (_, limit) in &nodes {
                let decision = limit.hit(&Identity::of(who)).await.unwrap();
                admitted[who as usize] += u32::from(decision.is_allowed());
                degraded += usize::from(decision.is_degraded());
            }
        }
        // Those on the dead node, and nobody else, on either of ours.
        assert_eq!(degraded, 2 * lost, "in round {round}");
    }
    for who in 0..CLIENTS {
        for (_, limit) in &nodes {
            while limit.hit(&Identity::of(who)).await.unwrap().is_allowed() {
                admitted[who as usize] += 1;
            }
        }
    }
    assert!(admitted.iter().all(|sum| *sum <= 20), "{admitted:?}");
    for (backend, _) in &nodes {
        // Half open, if a probe is under way.
        assert_ne!(backend.breaker().state(), BreakerState::Closed);
    }
}

/// Who has which slots was known only after it: each node was taken for one that somebody had forced open.
#[tokio::test]
async fn a_cluster_that_was_not_there_at_first_is_asked_in_the_end() {
    let mut cluster = RedisCluster::start();
    (0..3).for_each(|node| cluster.kill(node));
    let (backend, limit) = node(&cluster, "1000000/day");
    while !backend.breaker().state().is_open() {
        assert!(limit.hit(&Identity::of(0)).await.unwrap().is_degraded());
    }
    (0..3).for_each(|node| cluster.resurrect(node));
    let start = Instant::now();
    loop {
        let mut degraded = 0;
        for who in 0..CLIENTS {
            let decision = limit.hit(&Identity::of(who)).await.unwrap();
            degraded += u32::from(decision.is_degraded());
        }
        if degraded == 0 && !backend.info().lasts {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{degraded} in memory");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(backend.breaker().state(), BreakerState::Closed);
}
