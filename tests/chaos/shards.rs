//! One node of a cluster that is dead takes no keys of the others away.

use std::time::Duration;

use traffik_core::{
    BackendExt, BreakerState, CircuitBreaker, Failover, Identity, MemoryBackend, OnError,
    RedisBackend, Throttle,
};

use crate::support::RedisCluster;

const CLIENTS: u32 = 60;

fn node(cluster: &RedisCluster) -> (Failover<RedisBackend, MemoryBackend>, Throttle) {
    let urls = cluster.urls();
    let redis = RedisBackend::cluster(urls.iter().map(String::as_str));
    let redis = redis.deadline(Duration::from_secs(5)).build().unwrap();
    let backend = redis
        .failover(MemoryBackend::new(), CircuitBreaker::new())
        .nodes(2);
    let limit = Throttle::builder("api")
        .rate("20/day")
        .backend(backend.clone())
        .on_error(OnError::Raise);
    (backend, limit.build().unwrap())
}

/// With one breaker for all, every key was decided in memory: the worst had 1.65 times its limit.
#[tokio::test]
async fn a_dead_node_takes_no_keys_of_the_others_away() {
    let mut cluster = RedisCluster::start();
    let nodes = [node(&cluster), node(&cluster)];
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
