//! Limits are not given again after an outage: what was admitted without Redis is charged to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use traffik_core::{
    Backend, BackendExt, CircuitBreaker, Failover, Identity, ManualClock, MemoryBackend, OnError,
    RedisBackend, Strategy, Throttle,
};

use crate::support::{Fault, Proxy, RedisServer};

const NODES: u32 = 3;
const RATE: &str = "300/day";

/// A process of its own, as far as Redis can tell, at its own end of the network.
struct Node {
    proxy: Proxy,
    backend: Failover<RedisBackend, MemoryBackend>,
    limits: Vec<Throttle>,
    alone: bool,
}

impl Node {
    /// Next to no time passes for the limits: what is admitted beyond them was given twice.
    fn new(server: &RedisServer, clock: &ManualClock, nodes: u32) -> Node {
        let proxy = Proxy::before(server.port());
        let redis = RedisBackend::builder(&proxy.url())
            .deadline(Duration::from_millis(250))
            .clock(clock.clone());
        let memory = MemoryBackend::builder().clock(clock.clone());
        let backend = redis
            .build()
            .unwrap()
            .failover(memory.build().unwrap(), CircuitBreaker::new())
            .nodes(nodes)
            .clock(clock.clone());
        let limits = strategies().into_iter().enumerate();
        Node {
            proxy,
            limits: limits
                .map(|(at, strategy)| limit(at, strategy, backend.clone()))
                .collect(),
            backend,
            alone: nodes == 1,
        }
    }

    /// What is admitted now.
    async fn drain(&self, limit: usize) -> u64 {
        let mut admitted = 0;
        while self.is_admitted(limit).await {
            admitted += 1;
        }
        admitted
    }

    async fn is_admitted(&self, limit: usize) -> bool {
        let ann = Identity::of("ann");
        self.limits[limit].hit(&ann).await.unwrap().is_allowed()
    }

    /// Whether it denies with everything settled; of several nodes, whether Redis itself does. A single
    /// one goes on to hear memory.
    async fn is_over(&self, limit: usize) -> bool {
        let ann = Identity::of("ann");
        let decision = self.limits[limit].hit(&ann).await.unwrap();
        let is_settled =
            self.backend.info().owing == 0 && !self.backend.breaker().state().is_open();
        decision.is_denied() && is_settled && (self.alone || !decision.is_degraded())
    }
}

/// A queue that is bounded in hits, not in costs, has no shares: each node has its own.
fn strategies() -> Vec<Arc<dyn Strategy>> {
    let mut all = crate::support::strategies();
    all.retain(|one| !format!("{one:?}").contains("max_queue_size: 4,"));
    all
}

fn limit(at: usize, strategy: Arc<dyn Strategy>, backend: impl Backend) -> Throttle {
    let builder = Throttle::builder(format!("limit {at}")).rate(RATE);
    let builder = builder.strategy(strategy).backend(backend);
    builder.on_error(OnError::Raise).build().unwrap()
}

/// What one store would admit of each limit.
async fn wholes(clock: &ManualClock) -> Vec<u64> {
    let mut wholes = Vec::new();
    for (at, strategy) in strategies().into_iter().enumerate() {
        let memory = MemoryBackend::builder().clock(clock.clone());
        let limit = limit(at, strategy, memory.build().unwrap());
        let mut whole = 0;
        while limit.hit(&Identity::of("ann")).await.unwrap().is_allowed() {
            whole += 1;
        }
        wholes.push(whole);
    }
    wholes
}

/// Admits what there is through outages, and then until Redis denies everywhere; for each limit what
/// was admitted, and what the limit is.
async fn through_outages(cut: usize, nodes: u32, outages: u32) -> Vec<(u64, u64, String)> {
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let nodes: Vec<_> = (0..nodes)
        .map(|_| Node::new(&server, &clock, nodes))
        .collect();
    let wholes = wholes(&clock).await;
    let mut admitted = vec![0; wholes.len()];
    for node in &nodes {
        for (at, sum) in admitted.iter_mut().enumerate() {
            *sum += u64::from(node.is_admitted(at).await);
        }
    }
    for _ in 0..outages {
        for node in &nodes[..cut] {
            node.proxy.set(Fault::Cut);
        }
        for node in &nodes {
            for (at, sum) in admitted.iter_mut().enumerate() {
                *sum += node.drain(at).await;
            }
        }
        clock.advance(Duration::from_secs(1));
        for node in &nodes[..cut] {
            node.proxy.set(Fault::None);
        }
    }
    let start = Instant::now();
    for (at, sum) in admitted.iter_mut().enumerate() {
        for node in &nodes {
            while !node.is_over(at).await {
                *sum += node.drain(at).await;
                let late = start.elapsed() > Duration::from_secs(60);
                assert!(!late, "never settled: {:?}", node.backend);
                tokio::time::sleep(Duration::from_millis(20)).await;
                clock.advance(Duration::from_millis(20));
            }
        }
    }
    let names = strategies().into_iter().map(|one| format!("{one:?}"));
    let results = admitted.into_iter().zip(wholes).zip(names);
    results
        .map(|((sum, whole), name)| (sum, whole, name))
        .collect()
}

/// A post-paid hit is admitted before it is paid for, on every node.
fn most(whole: u64, name: &str, nodes: u64) -> u64 {
    match name.contains("Gcra") && name.contains("strict: false") {
        true => whole + nodes,
        false => whole,
    }
}

/// Three nodes admitted 100 + 100 + 100 of 300, and Redis another 300 when it was back.
#[tokio::test]
async fn three_nodes_admit_a_limit_once() {
    for (sum, whole, name) in through_outages(3, NODES, 1).await {
        assert!(sum <= most(whole, &name, 3), "{sum} of {whole}: {name}");
    }
}

#[tokio::test]
async fn one_node_admits_a_limit_once() {
    for (sum, whole, name) in through_outages(1, 1, 1).await {
        assert!(sum <= most(whole, &name, 1), "{sum} of {whole}: {name}");
    }
}

#[tokio::test]
async fn a_redis_that_comes_and_goes_does_not_multiply_limits() {
    for (sum, whole, name) in through_outages(3, NODES, 4).await {
        assert!(sum <= most(whole, &name, 3), "{sum} of {whole}: {name}");
    }
}

/// What those who are cut off admit comes on top, and no more.
#[tokio::test]
async fn a_partial_outage_admits_the_shares_of_those_cut_off_at_most() {
    for cut in [1, 2] {
        for (sum, whole, name) in through_outages(cut, NODES, 1).await {
            let most = most(whole + whole * cut as u64 / 3, &name, 3);
            assert!(sum <= most, "{sum} of {whole}, {cut} cut off: {name}");
        }
    }
}
