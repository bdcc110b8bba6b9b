use traffik_core::{
    BackendExt, BreakerState, CircuitBreaker, Failover, Identity, MemoryBackend, OnError,
    RedisBackend, Throttle, TokenBucket,
};

use crate::support::RedisServer;

const NODES: u32 = 4;

/// A process of its own, as far as Redis can tell: it shares nothing with the others.
struct Node {
    api: Throttle,
    backend: Failover<RedisBackend, MemoryBackend>,
}

impl Node {
    fn new(server: &RedisServer) -> Node {
        let backend = server
            .backend()
            .failover(MemoryBackend::new(), CircuitBreaker::new())
            .nodes(NODES);
        let api = Throttle::builder("api")
            .rate("100/day")
            .strategy(TokenBucket::new())
            .backend(backend.clone())
            .on_error(OnError::Raise)
            .build()
            .unwrap();
        Node { api, backend }
    }

    async fn is_admitted(&self) -> bool {
        let ann = Identity::of("ann");
        self.api.hit(&ann).await.unwrap().is_allowed()
    }

    async fn drain(&self) -> u64 {
        let mut admitted = 0;
        while self.is_admitted().await {
            admitted += 1;
        }
        admitted
    }
}

#[tokio::test]
async fn nodes_that_lose_their_store_share_what_was_left() {
    let mut server = RedisServer::start();
    let nodes: Vec<_> = (0..NODES).map(|_| Node::new(&server)).collect();
    let mut admitted = 0;
    for _ in 0..10 {
        for node in &nodes {
            assert!(node.is_admitted().await);
            admitted += 1;
        }
    }

    server.kill();
    for node in &nodes {
        let share = node.drain().await;
        assert_eq!(share, 15, "a quarter of what was left of the limit");
        admitted += share;
        // Half open, if a probe is under way.
        assert_ne!(node.backend.breaker().state(), BreakerState::Closed);
    }
    assert_eq!(admitted, 100);

    // For maintenance: nobody asks a store that is announced to be down, nor waits for it.
    server.resurrect();
    for node in &nodes {
        node.backend.breaker().force_open();
        assert!(!node.is_admitted().await);
        node.backend.breaker().force_close();
        // What was admitted meanwhile is not given again.
        assert!(!node.is_admitted().await);
    }
}

/// It did for one outage: the hits of the next were errors, for a day.
#[tokio::test]
async fn a_redis_stands_in_for_another_one_whenever_that_dies() {
    let (mut first, second) = (RedisServer::start(), RedisServer::start());
    let backend = first.backend().fallback(second.backend());
    let api = Throttle::builder("api")
        .rate("1000000000/day")
        .backend(backend)
        .on_error(OnError::Raise)
        .build()
        .unwrap();
    let ann = Identity::of("ann");
    let is_degraded = async || api.hit(&ann).await.unwrap().is_degraded();
    assert!(!is_degraded().await);
    for _ in 0..2 {
        first.kill();
        for _ in 0..3 {
            assert!(is_degraded().await);
        }
        first.resurrect();
        // Until it is connected again.
        while is_degraded().await {}
        assert!(!is_degraded().await);
    }
}
