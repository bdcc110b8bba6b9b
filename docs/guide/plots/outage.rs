//! Three nodes whose store is away for a minute, and what they admit together.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use traffik_core::{
    BackendExt, CircuitBreaker, Clock, Identity, ManualClock, MemoryBackend, OnError, Throttle,
    ThrottleBuilder, Timestamp,
};

use super::remote::Remote;
use super::svg::{Axis, Svg};

const NODES: usize = 3;
const UNTIL: u64 = 180_000;
const AWAY: std::ops::Range<u64> = 65_000..125_000;
/// Each node is asked twice a second.
const BETWEEN: usize = 500 / NODES;

const AXIS: Axis = Axis {
    left: 44,
    width: 690,
    until: UNTIL,
};
const TOP: u64 = 60;
const BOTTOM: u64 = 340;
const MOST: u64 = 540;

/// What nodes do without their store.
#[derive(Clone, Copy)]
enum Policy {
    /// Decide in memory as one of so many.
    Memory {
        nodes: u32,
    },
    Fixed(fn() -> OnError),
}

const POLICIES: [(&str, &str, Policy); 4] = [
    ("failover, nodes(3)", "line a", Policy::Memory { nodes: 3 }),
    (
        "failover, nodes not said",
        "line b",
        Policy::Memory { nodes: 1 },
    ),
    (
        "OnError::Throttle",
        "line c",
        Policy::Fixed(|| OnError::Throttle),
    ),
    ("OnError::Allow", "line d", Policy::Fixed(|| OnError::Allow)),
];

/// One limit on several nodes that share a store.
struct Nodes {
    nodes: Vec<Throttle>,
    store: Remote,
    clock: ManualClock,
    start: Timestamp,
}

impl Nodes {
    fn new(policy: Policy) -> Nodes {
        let clock = ManualClock::default();
        let store = Remote::over(memory(&clock));
        let node = || {
            node(policy, store.clone(), &clock)
                .build()
                .expect("a valid throttle")
        };
        Nodes {
            nodes: std::iter::repeat_with(node).take(NODES).collect(),
            start: clock.now(),
            store,
            clock,
        }
    }

    /// Whether a node admits a request.
    fn admits(&self, node: usize, at: u64) -> bool {
        self.clock.set(self.start.plus_micros(at * 1_000));
        self.store.take_away(AWAY.contains(&at));
        let decided = done(self.nodes[node].hit(&Identity::ANONYMOUS));
        decided.expect("a policy decides").is_allowed()
    }
}

fn memory(clock: &ManualClock) -> MemoryBackend {
    let memory = MemoryBackend::builder().clock(clock.clone());
    memory.build().expect("the default settings")
}

fn node(policy: Policy, store: Remote, clock: &ManualClock) -> ThrottleBuilder {
    let throttle = Throttle::builder("api").rate("60/minute");
    let nodes = match policy {
        Policy::Fixed(on_error) => return throttle.backend(store).on_error(on_error()),
        Policy::Memory { nodes } => nodes,
    };
    // Without chance, so that the plot is the same every time.
    let breaker = CircuitBreaker::builder().recovery_timeout(Duration::from_secs(1));
    let breaker = breaker
        .clock(clock.clone())
        .build()
        .expect("a valid breaker");
    let shared = store.failover(memory(clock), breaker).nodes(nodes);
    throttle.backend(shared.clock(clock.clone()))
}

/// Nothing here waits.
fn done<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("memory answers at once"),
    }
}

fn y(admitted: u64) -> u64 {
    BOTTOM - admitted * (BOTTOM - TOP) / MOST
}

/// What all nodes have admitted so far.
pub(super) fn admitted() -> String {
    let title = "Admitted so far by three nodes at 60/minute, each asked twice a second";
    let mut svg = Svg::new(760, BOTTOM + 24, title);
    svg.text("", 20, 18, title);
    let (from, to) = (AXIS.x(AWAY.start), AXIS.x(AWAY.end));
    svg.rect("shade", from, TOP, to - from, BOTTOM - TOP);
    svg.centred("small", from.midpoint(to), TOP + 14, "the store is away");
    AXIS.draw(&mut svg, TOP, BOTTOM, 30_000);
    for most in (0..=MOST).step_by(60) {
        svg.line(
            "grid",
            (AXIS.left, y(most)),
            (AXIS.left + AXIS.width, y(most)),
        );
        svg.text("small", 14, y(most) + 4, &most.to_string());
    }
    for ((name, class, policy), at) in POLICIES.into_iter().zip(0..) {
        let nodes = Nodes::new(policy);
        let (mut sum, mut points) = (0, vec![(AXIS.x(0), y(0))]);
        for (at, turn) in (0..UNTIL).step_by(BETWEEN).zip(0..) {
            let x = AXIS.x(at);
            points.push((x, y(sum)));
            sum += u64::from(nodes.admits(turn % NODES, at));
            points.push((x, y(sum)));
        }
        svg.path(class, points);
        let x = 44 + at * 178;
        svg.line(class, (x, 40), (x + 24, 40));
        svg.text("small", x + 30, 44, name);
    }
    svg.finish()
}
