//! The combinations that are recorded and checked: a short run with every test run, and a long one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;
use traffik_core::{
    Backend, BackendExt, CircuitBreaker, Clock, Locked, ManualClock, MemoryBackend, RedisBackend,
    Strategy, SystemClock, Timestamp,
};

use super::check::Terms;
use super::event::Event;
use super::faults::{happen, may_lose, scenarios};
use super::nodes::{Node, Store};
use super::record::{ALL, Plan, STAY, record};
use super::table::{Promise, Row};
use super::witness::Muted;
use super::world::World;
use crate::chaos::scenarios::{Scenario, World as Network};
use crate::support::{MapStore, MemcachedServer, Random, RedisCluster, RedisServer, WatchedRedis};

/// In the order of the store's time.
const TIMED: Promise = Promise::Order(Terms {
    by_store_time: true,
    forgets: false,
    steps_back: false,
    counts_first: false,
});

/// In any order that respects what was over when something began.
pub(super) const UNTIMED: Promise = Promise::Order(Terms {
    by_store_time: false,
    forgets: false,
    steps_back: false,
    counts_first: false,
});

const TIMED_WITH_LOSSES: Promise = Promise::Order(Terms {
    by_store_time: true,
    forgets: true,
    steps_back: false,
    counts_first: false,
});

/// Of Memcached, which counts some strategies before it asks them.
const COUNTED: Promise = Promise::Order(Terms {
    by_store_time: false,
    forgets: false,
    steps_back: false,
    counts_first: true,
});

const COUNTED_WITH_LOSSES: Promise = Promise::Order(Terms {
    by_store_time: false,
    forgets: true,
    steps_back: false,
    counts_first: true,
});

/// How much is recorded.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// Of each of four clients, where nothing happens.
    events: u64,
    /// Before something happens, and after.
    pub(super) around: Duration,
    pub(super) is_short: bool,
    /// Which of what may happen to a Redis behind a network.
    redis: fn(&Scenario) -> bool,
}

const SHORT: Scale = Scale {
    events: 500,
    around: Duration::from_millis(250),
    is_short: true,
    // Those that are over soonest, one of each kind.
    redis: |scenario| {
        [
            "FLUSHALL",
            "SCRIPT FLUSH, 10 times",
            "replies cut in the middle, 500 ms",
        ]
        .contains(&scenario.name)
            || scenario.name.contains("300 ms behind")
            || scenario.name.contains("snapshot")
    },
};

const LONG: Scale = Scale {
    events: 20_000,
    around: Duration::from_secs(6),
    is_short: false,
    redis: |_| true,
};

/// A batch of which one strategy has no script took two trips. In the second one the steps of the
/// others were made again at the time of the first: if a key had expired in between, it was taken for
/// lost, and what had been charged last was forgotten.
#[test]
fn a_key_that_expires_between_two_trips_is_not_lost() {
    let gauged = |strategy: &dyn Strategy| format!("{strategy:?}").contains("LoadGauge");
    let runs = Runs::new(World::of(gauged), SHORT);
    let server = RedisServer::start();
    let two = [(); 2].map(|()| {
        let builder = server.builder().deny_cache(0);
        Arc::new(builder.build().unwrap())
    });
    let backends = two
        .iter()
        .map(|backend| Arc::clone(backend) as Arc<dyn Backend>);
    let events = runs.record(backends.collect(), runs.plan(), || {});
    let row = runs.row("Redis", "nothing", UNTIMED, events);
    assert_eq!(row.broken(), [""; 0]);
    let lost = two.iter().map(|backend| backend.state_loss_total());
    assert_eq!(lost.sum::<u64>(), 0);
}

#[test]
fn histories_have_an_order() {
    run(SHORT, |name| !APART.contains(&name));
}

/// Those that wait for processes most of the time: beside the others, not after them.
#[test]
fn apart_histories_have_an_order() {
    run(SHORT, |name| APART.contains(&name));
}

const APART: [&str; 4] = ["processes", "sqlite", "leases", "clocks"];

/// A million decisions, in about ten minutes; or some combinations, as in `TRAFFIK_HISTORY_ONLY=faults,ways`.
#[test]
#[ignore = "takes long"]
fn long_histories_have_an_order() {
    run(LONG, |_| true);
}

fn run(scale: Scale, is_wanted: fn(&str) -> bool) {
    let wanted = std::env::var("TRAFFIK_HISTORY_STRATEGIES").unwrap_or_default();
    let has_it = |strategy: &dyn Strategy| format!("{strategy:?}").contains(&wanted);
    let runs = Runs::new(World::of(has_it), scale);
    let mut broken = Vec::new();
    let mut decisions = 0;
    let mut by_strategy = String::new();
    println!("{}", Row::head());
    let mut tell = |row: Row| {
        println!("{row}");
        decisions += row.decisions();
        // A long run is worth knowing of before it ends.
        row.broken().iter().for_each(|broken| eprintln!("{broken}"));
        broken.extend(row.broken());
        by_strategy += &row.by_strategy();
    };
    let only = std::env::var("TRAFFIK_HISTORY_ONLY").ok();
    for (name, combinations) in Runs::ALL.iter().filter(|(name, _)| is_wanted(name)) {
        if only
            .as_ref()
            .is_none_or(|only| only.split(',').any(|one| one == *name))
        {
            combinations(&runs, &mut tell);
        }
    }
    println!("{decisions} decisions");
    if let Ok(file) = std::env::var("TRAFFIK_HISTORY_TABLE") {
        let head = "strategy,backend,fault,decisions,in an order,without an answer,charged,forgotten,unexplained,violations,worst\n";
        std::fs::write(file, head.to_owned() + &by_strategy).unwrap();
    }
    assert!(
        broken.is_empty(),
        "{} broken:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

pub(super) struct Runs {
    runtime: Runtime,
    pub(super) world: Arc<World>,
    pub(super) scale: Scale,
}

pub(super) type Tell<'a> = &'a mut dyn FnMut(Row);

type Combinations = fn(&Runs, Tell<'_>);

impl Runs {
    const ALL: &[(&str, Combinations)] = &[
        ("memory", Runs::memory),
        ("locked", Runs::locked),
        ("memcached", Runs::memcached),
        ("redis", Runs::redis),
        ("faults", Runs::faults),
        ("processes", Runs::processes),
        ("sqlite", Runs::sqlite),
        ("leases", Runs::leases),
        ("clocks", Runs::clocks),
        ("ways", Runs::ways_to_redis),
        ("failover", Runs::failover),
    ];

    fn new(world: World, scale: Scale) -> Runs {
        Runs {
            runtime: Runtime::new().unwrap(),
            world: Arc::new(world),
            scale,
        }
    }

    pub(super) fn plan(&self) -> Plan {
        Plan {
            clients: 4,
            events: self.scale.events,
            batches: true,
            askers: true,
            seed: 1,
            stay: STAY,
            rest: Duration::ZERO,
            groups: ALL,
        }
    }

    /// Until something has happened, however long that takes.
    pub(super) fn endless(&self) -> Plan {
        Plan {
            events: u64::MAX,
            ..self.plan()
        }
    }

    /// Records what several backends decide, which share a store, until they are done and, on a
    /// thread of its own, something has happened.
    pub(super) fn record(
        &self,
        backends: Vec<Arc<dyn Backend>>,
        plan: Plan,
        happens: impl FnOnce() + Send + 'static,
    ) -> Vec<Event> {
        self.runtime.block_on(async {
            let stop = Arc::new(AtomicBool::new(false));
            let recording = backends.into_iter().enumerate().map(|(at, backend)| {
                let plan = Plan {
                    seed: plan.seed + at as u64,
                    ..plan
                };
                let world = Arc::clone(&self.world);
                tokio::spawn(record(backend, world, plan, Arc::clone(&stop), None))
            });
            let recording: Vec<_> = recording.collect();
            spawn_blocking(happens).await.unwrap();
            if plan.events == u64::MAX {
                stop.store(true, Ordering::Relaxed);
            }
            let mut events = Vec::new();
            for recorded in recording {
                events.extend(recorded.await.unwrap());
            }
            events
        })
    }

    pub(super) fn row(
        &self,
        backend: &'static str,
        fault: &str,
        promise: Promise,
        events: Vec<Event>,
    ) -> Row {
        Row::new(backend, fault, promise, &self.world, events)
    }

    fn memory(&self, tell: Tell<'_>) {
        let memory: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        let events = self.record(vec![memory], self.plan(), || {});
        tell(self.row("memory", "nothing", UNTIMED, events));

        let clock = ManualClock::at(SystemClock::new().now());
        let memory = MemoryBackend::builder()
            .clock(clock.clone())
            .build()
            .unwrap();
        let plan = self.plan();
        let promise = Promise::Order(Terms {
            steps_back: true,
            ..Terms::default()
        });
        let events = {
            let stop = Arc::new(AtomicBool::new(false));
            let stepping = step_about(clock, Arc::clone(&stop));
            let events = self.record(vec![Arc::new(memory)], plan, || {});
            stop.store(true, Ordering::Relaxed);
            stepping.join().unwrap();
            events
        };
        tell(self.row("memory", "a clock that steps to and fro", promise, events));

        let tiny = MemoryBackend::builder()
            .shards(1)
            .max_keys(8)
            .build()
            .unwrap();
        let events = self.record(vec![Arc::new(tiny)], self.plan(), || {});
        tell(self.row("memory", "a table that is full", Promise::Bound, events));
    }

    fn locked(&self, tell: Tell<'_>) {
        let plan = Plan {
            events: self.scale.events / 2,
            ..self.plan()
        };
        let two = |store: &Arc<MapStore>| {
            [(); 2].map(|()| Arc::new(Locked::new(Arc::clone(store)).unwrap()) as Arc<dyn Backend>)
        };
        let store = Arc::<MapStore>::default();
        let events = self.record(two(&store).into(), plan, || {});
        tell(self.row("Locked on a map", "nothing", UNTIMED, events));

        let store = Arc::<MapStore>::default();
        let (backends, time) = (two(&store).into(), self.scale.around);
        // This store sets the values of a batch one after the other.
        let alone = Plan {
            batches: false,
            ..self.endless()
        };
        let events = self.record(backends, alone, move || {
            for at in 0..20 {
                std::thread::sleep(time / 20);
                store.break_down(["get", "set", "lock"][at % 3]);
                std::thread::sleep(Duration::from_millis(2));
                store.break_down(None);
            }
        });
        tell(self.row(
            "Locked on a map",
            "commands fail, 20 times",
            UNTIMED,
            events,
        ));

        let server = RedisServer::start();
        let backends = [(); 2].map(|()| {
            let store = server.backend().store();
            Arc::new(Locked::new(store).unwrap()) as Arc<dyn Backend>
        });
        let plan = Plan {
            events: plan.events / 4,
            ..plan
        };
        let events = self.record(backends.into(), plan, || {});
        tell(self.row("Locked on a Redis", "nothing", UNTIMED, events));
    }

    fn memcached(&self, tell: Tell<'_>) {
        // One key at a time is exact, for hits under the same limit: see MemcachedBackend.
        let alone = Plan {
            batches: false,
            // Who is denied under a lower limit is counted for a moment, as its documentation says.
            askers: false,
            ..self.plan()
        };
        let alone = |events| Plan { events, ..alone };
        let few = self.scale.events / 4;
        let server = MemcachedServer::start();
        let two = || [(); 2].map(|()| Arc::new(server.backend()) as Arc<dyn Backend>);
        let events = self.record(two().into(), alone(few), || {});
        tell(self.row("Memcached", "nothing", COUNTED, events));

        let server = MemcachedServer::start();
        let skewed = [0, 10_000_000].map(|ahead_us| {
            let clock = Ahead(SystemClock::new(), ahead_us);
            Arc::new(server.builder().clock(clock).build().unwrap()) as Arc<dyn Backend>
        });
        let events = self.record(skewed.into(), alone(few), || {});
        // An increment that the one who is ahead makes in a window that is over for him counts for the
        // other one.
        let skewed = Promise::NoOrder(Terms::default());
        tell(self.row("Memcached", "clocks 10 s apart", skewed, events));

        let server = MemcachedServer::start();
        let two = [(); 2].map(|()| Arc::new(server.backend()) as Arc<dyn Backend>);
        let batches = Plan {
            batches: true,
            ..alone(few)
        };
        let events = self.record(two.into(), batches, || {});
        tell(self.row("Memcached", "batches", Promise::Bound, events));

        let around = self.scale.around;
        type Inflict = fn(&mut MemcachedServer);
        let faults: [(&str, Promise, Inflict); 3] = [
            ("SIGSTOP, 300 ms", COUNTED, |server| {
                server.pause();
                std::thread::sleep(Duration::from_millis(300));
                server.resume();
            }),
            ("flush_all", COUNTED_WITH_LOSSES, |server| {
                server.command("flush_all");
            }),
            ("restart", COUNTED_WITH_LOSSES, |server| {
                server.kill();
                server.resurrect();
            }),
        ];
        for (name, promise, happen) in faults {
            let mut server = MemcachedServer::start();
            let two = [(); 2].map(|()| {
                let deadline = Duration::from_millis(200);
                let builder = server.builder().deadline(deadline);
                Arc::new(builder.build().unwrap()) as Arc<dyn Backend>
            });
            let events = self.record(two.into(), alone(u64::MAX), move || {
                std::thread::sleep(around);
                happen(&mut server);
                std::thread::sleep(around);
            });
            tell(self.row("Memcached", name, promise, events));
        }
    }

    fn redis(&self, tell: Tell<'_>) {
        let server = RedisServer::start();
        let two = || [(); 2].map(|()| server.builder().deny_cache(0));
        let two = two().map(|builder| Arc::new(builder.build().unwrap()) as Arc<dyn Backend>);
        let events = self.record(two.into(), self.plan(), || {});
        tell(self.row("Redis", "nothing", TIMED, events));

        // Nobody knows the store's time of what it was not asked about. It may be remembered until a batch is
        // answered that admits, of which others have seen another cell by then: an order there is of each cell.
        for (fault, batches, promise) in [
            ("nothing", false, UNTIMED),
            ("batches", true, Promise::Bound),
        ] {
            let server = RedisServer::start();
            let plan = Plan {
                batches,
                ..self.plan()
            };
            let events = self.record(vec![Arc::new(server.backend())], plan, || {});
            tell(self.row("Redis, denials remembered", fault, promise, events));
        }
    }

    fn faults(&self, tell: Tell<'_>) {
        let only = std::env::var("TRAFFIK_HISTORY_FAULTS").unwrap_or_default();
        for scenario in scenarios().filter(|scenario| (self.scale.redis)(scenario)) {
            if !scenario.name.contains(&only) {
                continue;
            }
            let mut network = Network::new();
            let two = [(); 2].map(|()| {
                let builder = RedisBackend::builder(&network.url()).deny_cache(0);
                let deadline = Duration::from_millis(100);
                Arc::new(builder.deadline(deadline).build().unwrap()) as Arc<dyn Backend>
            });
            let around = self.scale.around;
            let events = self.record(two.into(), self.endless(), move || {
                happen(scenario, &mut network, around, around);
            });
            let promise = match may_lose(scenario) {
                true => TIMED_WITH_LOSSES,
                false => TIMED,
            };
            tell(self.row("Redis", scenario.name, promise, events));
        }
    }

    /// Three processes, one of which dies or stands still.
    fn processes(&self, tell: Tell<'_>) {
        let around = 2 * self.scale.around;
        for fault in ["a process is killed", "a process stands still, 300 ms"] {
            let server = RedisServer::start();
            let mut nodes = [10, 11, 12].map(|seed| {
                let plan = Plan {
                    seed,
                    clients: 2,
                    ..self.endless()
                };
                Node::start(Store::Redis, &server.url(), plan)
            });
            std::thread::sleep(around);
            match fault.contains("killed") {
                true => nodes[0].kill(),
                false => {
                    nodes[0].pause();
                    std::thread::sleep(Duration::from_millis(300));
                    nodes[0].resume();
                }
            }
            std::thread::sleep(around);
            let events = nodes.into_iter().flat_map(Node::stop).collect();
            tell(self.row("Redis, three processes", fault, TIMED, events));
        }
        let server = MemcachedServer::start();
        let nodes = [20, 21].map(|seed| {
            let plan = Plan {
                seed,
                clients: 2,
                batches: false,
                askers: false,
                ..self.endless()
            };
            Node::start(Store::Memcached, &server.url(), plan)
        });
        std::thread::sleep(around);
        let events = nodes.into_iter().flat_map(Node::stop).collect();
        tell(self.row("Memcached, two processes", "nothing", COUNTED, events));
    }

    fn ways_to_redis(&self, tell: Tell<'_>) {
        let around = self.scale.around;
        // Whoever shares a cell with everybody has it in another slot.
        let alone = Plan {
            batches: false,
            ..self.endless()
        };
        let cluster = RedisCluster::start();
        let urls = cluster.urls();
        let two = [(); 2].map(|()| {
            let urls = urls.iter().map(String::as_str);
            let builder = RedisBackend::cluster(urls).deny_cache(0);
            let deadline = Duration::from_secs(2);
            Arc::new(builder.deadline(deadline).build().unwrap()) as Arc<dyn Backend>
        });
        let events = self.record(two.into(), alone, move || {
            std::thread::sleep(around);
            move_some_slots(&cluster);
            std::thread::sleep(around);
        });
        tell(self.row("Redis Cluster", "slots move", TIMED, events));

        let watched = WatchedRedis::start();
        let sentinel = watched.sentinel_url();
        let two = [(); 2].map(|()| {
            let builder = RedisBackend::sentinel([sentinel.as_str()], "redis://shop").deny_cache(0);
            let deadline = Duration::from_millis(500);
            Arc::new(builder.deadline(deadline).build().unwrap()) as Arc<dyn Backend>
        });
        let events = self.record(two.into(), self.endless(), move || {
            std::thread::sleep(around);
            watched.fail_over();
            std::thread::sleep(around);
        });
        tell(self.row(
            "Redis, watched by a sentinel",
            "failover",
            TIMED_WITH_LOSSES,
            events,
        ));
    }

    fn failover(&self, tell: Tell<'_>) {
        let two = |server: &RedisServer| {
            [(); 2].map(|()| {
                let store = server.builder().deny_cache(0).build().unwrap();
                let memory = Muted(MemoryBackend::new());
                let failover = store.failover(memory, CircuitBreaker::new()).nodes(2);
                Arc::new(failover) as Arc<dyn Backend>
            })
        };
        let server = RedisServer::start();
        let events = self.record(two(&server).into(), self.plan(), || {});
        tell(self.row("failover to memory", "nothing", TIMED, events));

        let mut server = RedisServer::start();
        let (backends, around) = (two(&server).into(), self.scale.around);
        let events = self.record(backends, self.endless(), move || {
            std::thread::sleep(around);
            server.kill();
            std::thread::sleep(around);
            server.resurrect();
            std::thread::sleep(around);
        });
        tell(self.row(
            "failover to memory",
            "kill -9, back empty",
            Promise::Nothing,
            events,
        ));
    }
}

fn move_some_slots(cluster: &RedisCluster) {
    let slot_of = |node: usize| -> Option<u16> {
        let key = cluster.nodes()[node].keys().into_iter().next()?;
        Some(cluster.nodes()[node].command(&["CLUSTER", "KEYSLOT", &key]))
    };
    for at in 0..6 {
        let (from, to) = (at % 3, (at + 1) % 3);
        if let Some(slot) = slot_of(from) {
            cluster.move_slot(slot, from, to, || {});
        }
    }
}

/// Lets a clock run, and step back by up to 20 ms now and then.
fn step_about(clock: ManualClock, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut random = Random::new(5);
        while !stop.load(Ordering::Relaxed) {
            let now = clock.now().as_micros();
            let to = match random.below(10) {
                0 => now - random.below(20_000),
                _ => now + random.below(6_000),
            };
            clock.set(Timestamp::from_micros(to));
            std::thread::sleep(Duration::from_micros(200));
        }
    })
}

/// The clock of a server that is ahead of the others by so many µs.
#[derive(Debug)]
struct Ahead(SystemClock, u64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.0.now().plus_micros(self.1)
    }
}
