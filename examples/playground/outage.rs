//! What several nodes admit together while their store is away.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use traffik_core::{
    BackendExt, CircuitBreaker, Clock, Error, Identity, ManualClock, MemoryBackend, OnError,
    Result, Throttle,
};

use crate::remote::Remote;
use crate::strategies::instant;
use crate::traffic::{self, Shape};

/// What the page asks.
#[derive(Deserialize)]
pub(crate) struct Question {
    rate: String,
    strategy: String,
    shape: Shape,
    /// Of all nodes together.
    per_second: u64,
    seconds: u64,
    nodes: u32,
    away_from: u64,
    away_until: u64,
}

/// How many nodes there are at most.
const MOST: u32 = 16;

/// What nodes do without their store.
#[derive(Clone, Copy)]
enum Policy {
    Failover { nodes: u32 },
    Fixed(fn() -> OnError),
}

impl Question {
    pub(crate) fn answer(&self) -> Result<Value, String> {
        traffic::check(self.per_second, self.seconds)?;
        if !(1..=MOST).contains(&self.nodes) {
            return Err(format!("there are from 1 to {MOST} nodes"));
        }
        let times = self.shape.times(self.per_second, self.seconds);
        let policies = [
            (
                "failover, nodes said",
                Policy::Failover { nodes: self.nodes },
            ),
            ("failover, nodes not said", Policy::Failover { nodes: 1 }),
            ("OnError::Throttle", Policy::Fixed(|| OnError::Throttle)),
            ("OnError::Allow", Policy::Fixed(|| OnError::Allow)),
        ];
        let lines = policies.into_iter().map(|(name, policy)| {
            let passed = self.passed(policy, &times);
            Ok(json!({ "name": name, "passed": passed.map_err(|error| error.to_string())? }))
        });
        Ok(json!({
            "view": "outage",
            "seconds": self.seconds,
            "away": [self.away_from, self.away_until],
            "lines": lines.collect::<Result<Vec<_>, String>>()?,
        }))
    }

    /// When requests passed, whose turn it was at the nodes one after the other.
    fn passed(&self, policy: Policy, times: &[u64]) -> Result<Vec<u64>> {
        let clock = ManualClock::default();
        let start = clock.now();
        let store = Remote::over(memory(&clock)?);
        let nodes = (0..self.nodes).map(|_| self.node(policy, store.clone(), &clock));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        let [from, until] = [self.away_from, self.away_until].map(|at| at.saturating_mul(1_000));
        let away = from..until;
        let mut passed = Vec::new();
        for (at, node) in times.iter().zip(nodes.iter().cycle()) {
            clock.set(instant(start, *at));
            store.take_away(away.contains(at));
            if done(node.hit(&Identity::ANONYMOUS))?.is_allowed() {
                passed.push(*at);
            }
        }
        Ok(passed)
    }

    fn node(&self, policy: Policy, store: Remote, clock: &ManualClock) -> Result<Throttle> {
        let throttle = Throttle::builder("trial")
            .rate(&*self.rate)
            .strategy(&*self.strategy);
        let nodes = match policy {
            Policy::Fixed(on_error) => return throttle.backend(store).on_error(on_error()).build(),
            Policy::Failover { nodes } => nodes,
        };
        let breaker = CircuitBreaker::builder()
            .recovery_timeout(Duration::from_secs(1))
            .clock(clock.clone())
            .build()?;
        let shared = store.failover(memory(clock)?, breaker).nodes(nodes);
        throttle.backend(shared.clock(clock.clone())).build()
    }
}

fn memory(clock: &ManualClock) -> Result<MemoryBackend> {
    MemoryBackend::builder()
        .shards(1)
        .clock(clock.clone())
        .build()
}

/// Nothing here waits.
fn done<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => Err(Error::other("a memory made somebody wait")),
    }
}
