//! What several nodes admit together, with leases or without, while their store is away.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use traffik_core::{Attempt, Clock, Identity, ManualClock, OnError, Result, Throttle};

use crate::nodes::{Nodes, Policy, Scene};
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
    /// Whether the store has lost its counts when it is back.
    #[serde(default)]
    forgets: bool,
    /// For how many seconds hits are lent; not at all if it is 0.
    #[serde(default)]
    lease: u64,
}

/// How many nodes there are at most.
const MOST: u32 = 16;
/// How many requests a trial has at most: leases are for many.
const MOST_REQUESTS: u64 = 12_000;
/// How many seconds a lease has at most.
const LONGEST_LEASE: u64 = 60;

impl Question {
    pub(crate) fn answer(&self) -> Result<Value, String> {
        traffic::check(self.per_second, self.seconds, MOST_REQUESTS)?;
        if !(1..=MOST).contains(&self.nodes) {
            return Err(format!("there are from 1 to {MOST} nodes"));
        }
        if self.lease > LONGEST_LEASE {
            return Err(format!("a lease takes {LONGEST_LEASE} seconds at most"));
        }
        let times = self.shape.times(self.per_second, self.seconds);
        let scene = self.scene();
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
            let line = line(&scene, name, policy, &times);
            line.map_err(|error| error.to_string())
        });
        Ok(json!({
            "view": "outage",
            "seconds": self.seconds,
            "away": [self.away_from, self.away_until],
            "forgets": self.forgets,
            "lease": self.lease,
            "alone": alone(&scene, &times).map_err(|error| error.to_string())?,
            "lines": lines.collect::<Result<Vec<_>, String>>()?,
        }))
    }

    fn scene(&self) -> Scene<'_> {
        let [from, until] = [self.away_from, self.away_until].map(|at| at.saturating_mul(1_000));
        Scene {
            rate: &self.rate,
            strategy: &self.strategy,
            nodes: self.nodes,
            away: from..until,
            forgets: self.forgets,
            lease: Duration::from_secs(self.lease),
        }
    }
}

/// What nodes make of it, whose turn it is one after the other: when requests passed, and how many that
/// one limiter would have denied that sees these only. None, if all of them together keep the limit.
fn line(scene: &Scene<'_>, name: &str, policy: Policy, times: &[u64]) -> Result<Value> {
    let mut nodes = Nodes::new(scene, policy)?;
    let one = scene.alone(nodes.clock())?;
    let (mut passed, mut beyond) = (Vec::new(), 0);
    for (at, node) in times.iter().zip((0..scene.nodes as usize).cycle()) {
        if nodes.admits(node, *at)? {
            passed.push(*at);
            beyond += u64::from(!admits(&one)?);
        }
    }
    Ok(json!({ "name": name, "passed": passed, "beyond": beyond, "nodes": nodes.sums() }))
}

/// How many requests one limiter admits that sees all of them.
fn alone(scene: &Scene<'_>, times: &[u64]) -> Result<u64> {
    let clock = ManualClock::default();
    let (start, one) = (clock.now(), scene.alone(&clock)?);
    let mut admitted = 0;
    for at in times {
        clock.set(instant(start, *at));
        admitted += u64::from(admits(&one)?);
    }
    Ok(admitted)
}

fn admits(one: &Throttle) -> Result<bool> {
    let decision = one.hit_now(Attempt::by(&Identity::ANONYMOUS))?;
    Ok(decision.is_allowed())
}
