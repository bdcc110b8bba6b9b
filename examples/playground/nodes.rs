//! Nodes that share a limit, and a store that goes away.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use traffik_core::{
    Backend, BackendExt, CircuitBreaker, Clock, Identity, Lease, Leased, ManualClock,
    MemoryBackend, OnError, Result, Throttle, ThrottleBuilder, Timestamp,
};

use crate::leases::Tasks;
use crate::remote::Remote;
use crate::strategies::instant;

/// What a node does without the store.
#[derive(Clone, Copy)]
pub(crate) enum Policy {
    Failover { nodes: u32 },
    Fixed(fn() -> OnError),
}

/// What is tried.
#[derive(Clone, Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) rate: &'a str,
    pub(crate) strategy: &'a str,
    pub(crate) nodes: u32,
    /// In milliseconds.
    pub(crate) away: Range<u64>,
    /// Whether the store comes back empty.
    pub(crate) forgets: bool,
    /// How long leases are. None are taken if it is nothing.
    pub(crate) lease: Duration,
}

/// One limit on several nodes.
pub(crate) struct Nodes<'a> {
    scene: &'a Scene<'a>,
    clock: ManualClock,
    start: Timestamp,
    tasks: Tasks,
    store: Remote,
    nodes: Vec<Node>,
    /// How many milliseconds have passed.
    at: u64,
    has_forgotten: bool,
}

struct Node {
    throttle: Throttle,
    store: Remote,
    leased: Option<Leased<Remote>>,
    admitted: u64,
    denied: u64,
}

/// What a node has done, and what became of what was lent to it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sums {
    admitted: u64,
    denied: u64,
    /// To the store, in vain or not.
    trips: u64,
    /// How many hits were decided by a lease.
    local: u64,
    lent: u64,
    returned: u64,
    stranded: u64,
}

impl<'a> Nodes<'a> {
    /// As often as a lease looks what is to be given back.
    const STEP: u64 = 20;

    pub(crate) fn new(scene: &'a Scene<'a>, policy: Policy) -> Result<Nodes<'a>> {
        let clock = ManualClock::default();
        let (tasks, store) = (Tasks::new()?, Remote::over(memory(&clock)?));
        let nodes = (0..scene.nodes).map(|_| scene.node(policy, &store, &clock, &tasks));
        Ok(Nodes {
            nodes: nodes.collect::<Result<_>>()?,
            scene,
            start: clock.now(),
            clock,
            tasks,
            store,
            at: 0,
            has_forgotten: false,
        })
    }

    /// Whether a request passes that a node gets at some millisecond.
    pub(crate) fn admits(&mut self, node: usize, at: u64) -> Result<bool> {
        self.go_on_to(at)?;
        let node = &mut self.nodes[node];
        let decided = self.tasks.run(node.throttle.hit(&Identity::ANONYMOUS))?;
        match decided.is_allowed() {
            true => node.admitted += 1,
            false => node.denied += 1,
        }
        Ok(decided.is_allowed())
    }

    /// In steps, in which what is left of leases goes back.
    fn go_on_to(&mut self, at: u64) -> Result<()> {
        loop {
            let next = at.min(self.at + Self::STEP);
            let passes = Duration::from_millis(next - self.at);
            self.at = next;
            self.clock.set(instant(self.start, next));
            let away = &self.scene.away;
            self.store.take_away(away.contains(&next));
            if self.scene.forgets && !self.has_forgotten && away.end <= next && !away.is_empty() {
                self.has_forgotten = true;
                self.tasks.run(self.store.reset())?;
            }
            self.tasks.pass(passes);
            if next == at {
                return Ok(());
            }
        }
    }

    pub(crate) fn clock(&self) -> &ManualClock {
        &self.clock
    }

    pub(crate) fn sums(&self) -> Vec<Sums> {
        self.nodes.iter().map(Node::sums).collect()
    }
}

impl Node {
    fn sums(&self) -> Sums {
        let leases = self.leased.as_ref().map(Leased::info).unwrap_or_default();
        Sums {
            admitted: self.admitted,
            denied: self.denied,
            trips: self.store.trips(),
            local: leases.local,
            lent: leases.lent,
            returned: leases.returned,
            stranded: leases.stranded,
        }
    }
}

impl Scene<'_> {
    fn throttle(&self) -> ThrottleBuilder {
        Throttle::builder("trial")
            .rate(self.rate)
            .strategy(self.strategy)
    }

    /// One limiter in memory, which others are held to.
    pub(crate) fn alone(&self, clock: &ManualClock) -> Result<Throttle> {
        self.throttle().backend(memory(clock)?).build()
    }

    fn node(
        &self,
        policy: Policy,
        store: &Remote,
        clock: &ManualClock,
        tasks: &Tasks,
    ) -> Result<Node> {
        let store = store.of_another_node();
        let leased = (!self.lease.is_zero()).then(|| store.clone().lease(self.lease(clock)));
        let shared: Arc<dyn Backend> = match &leased {
            Some(leased) => Arc::new(tasks.beside(leased.clone())),
            None => Arc::new(store.clone()),
        };
        let throttle = match policy {
            Policy::Fixed(on_error) => self.throttle().backend(shared).on_error(on_error()),
            Policy::Failover { nodes } => {
                let breaker = CircuitBreaker::builder()
                    .recovery_timeout(Duration::from_secs(1))
                    .clock(clock.clone())
                    .build()?;
                let shared = shared.failover(memory(clock)?, breaker).nodes(nodes);
                self.throttle().backend(shared.clock(clock.clone()))
            }
        };
        Ok(Node {
            throttle: throttle.build()?,
            store,
            leased,
            admitted: 0,
            denied: 0,
        })
    }

    /// Asked for four times within its length, as by default.
    fn lease(&self, clock: &ManualClock) -> Lease {
        Lease::new()
            .length(self.lease)
            .period(self.lease / 4)
            .max_keys(1)
            .clock(clock.clone())
    }
}

fn memory(clock: &ManualClock) -> Result<MemoryBackend> {
    MemoryBackend::builder()
        .shards(1)
        .clock(clock.clone())
        .build()
}
