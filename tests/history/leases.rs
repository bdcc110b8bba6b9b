//! Processes that lease of one Redis. No order is promised of them, but that all together admit no more than the bound,
//! in an interval of any length.

use std::thread::sleep;
use std::time::Duration;

use super::event::Event;
use super::nodes::{Node, Store};
use super::record::Plan;
use super::runs::{Runs, Tell};
use super::table::{Promise, Row};
use crate::support::RedisServer;

struct Fault {
    name: &'static str,
    happen: fn(&mut [Node; 3], &mut RedisServer),
    /// One more than the number of times that the store is lost: what was lent before it may still be spent.
    fills: u64,
}

const FAULTS: [Fault; 5] = [
    Fault {
        name: "a process is killed",
        happen: |nodes, _| nodes[0].kill(),
        fills: 1,
    },
    Fault {
        name: "a process stands still, 1.3 s",
        // Longer than what it has lasts.
        happen: |nodes, _| {
            nodes[0].pause();
            sleep(Duration::from_millis(1_300));
            nodes[0].resume();
        },
        fills: 1,
    },
    Fault {
        name: "SIGSTOP, 700 ms",
        happen: |_, server| {
            server.pause();
            sleep(Duration::from_millis(700));
            server.resume();
        },
        fills: 1,
    },
    Fault {
        name: "FLUSHALL",
        happen: |_, server| server.command(&["FLUSHALL"]),
        fills: 2,
    },
    Fault {
        name: "kill -9, 200 ms, back empty",
        happen: |_, server| {
            server.kill();
            sleep(Duration::from_millis(200));
            server.resurrect();
        },
        fills: 2,
    },
];

/// So few strategies at a time that each key is hot.
const TOGETHER: usize = 2;

impl Runs {
    /// In a short run each strategy meets one fault.
    pub(super) fn leases(&self, tell: Tell<'_>) {
        let world = Store::LeasedRedis.world();
        let parts = world.groups() / TOGETHER;
        let mine = |part: usize, at: usize| !self.scale.is_short || at % parts == part;
        for (at, fault) in FAULTS.iter().enumerate() {
            let parts = (0..parts).filter(|part| mine(*part, at));
            let events = parts.flat_map(|part| self.lease_while(fault, part * TOGETHER));
            let promise = Promise::Lent { fills: fault.fills };
            let processes = "Redis, three processes that lease";
            tell(Row::new(
                processes,
                fault.name,
                promise,
                &world,
                events.collect(),
            ));
        }
    }

    fn lease_while(&self, fault: &Fault, first: usize) -> Vec<Event> {
        let mut server = RedisServer::start();
        let mut nodes = [50, 51, 52].map(|seed| {
            let plan = Plan {
                seed,
                // Each key is asked for again and again.
                stay: 1,
                rest: Duration::from_millis(4),
                groups: (first, TOGETHER),
                ..self.endless()
            };
            Node::start(Store::LeasedRedis, &server.url(), plan)
        });
        let around = self
            .scale
            .around
            .clamp(Duration::from_millis(600), Duration::from_secs(3));
        sleep(around);
        (fault.happen)(&mut nodes, &mut server);
        sleep(around);
        nodes.into_iter().flat_map(Node::stop).collect()
    }
}
