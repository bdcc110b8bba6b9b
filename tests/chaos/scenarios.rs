use std::time::Duration;

use crate::support::{Fault, Proxy, RedisServer};

/// A Redis, behind a network.
pub(super) struct World {
    server: RedisServer,
    proxy: Proxy,
    /// A master that knows nothing.
    empty: Option<RedisServer>,
}

/// Something that happens to a store, and ends.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) begin: fn(&mut World),
    pub(super) lasts: Duration,
    pub(super) end: fn(&mut World),
    /// Whether decisions go on as if nothing had happened.
    pub(super) is_unnoticed: bool,
}

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "kill -9, 1 s, back empty",
        begin: |world| world.server.kill(),
        lasts: Duration::from_secs(1),
        end: |world| world.server.resurrect(),
        is_unnoticed: false,
    },
    Scenario {
        name: "restart, back empty",
        begin: |world| {
            world.server.kill();
            world.server.resurrect();
        },
        lasts: Duration::ZERO,
        end: |_| {},
        is_unnoticed: false,
    },
    Scenario {
        name: "SIGSTOP, 3 s",
        begin: |world| world.server.pause(),
        lasts: Duration::from_secs(3),
        end: |world| world.server.resume(),
        is_unnoticed: false,
    },
    Scenario {
        name: "FLUSHALL",
        begin: |world| world.server.command(&["FLUSHALL"]),
        lasts: Duration::from_millis(100),
        end: |_| {},
        is_unnoticed: true,
    },
    Scenario {
        name: "SCRIPT FLUSH, 10 times",
        begin: |world| {
            for _ in 0..10 {
                world.server.command::<()>(&["SCRIPT", "FLUSH"]);
                std::thread::sleep(Duration::from_millis(20));
            }
        },
        lasts: Duration::ZERO,
        end: |_| {},
        is_unnoticed: true,
    },
    Scenario {
        name: "CLIENT KILL, 10 times",
        begin: |world| {
            for _ in 0..10 {
                world
                    .server
                    .command::<u32>(&["CLIENT", "KILL", "TYPE", "normal"]);
                std::thread::sleep(Duration::from_millis(50));
            }
        },
        lasts: Duration::ZERO,
        end: |_| {},
        is_unnoticed: false,
    },
    Scenario {
        name: "failover to an empty replica, 500 ms",
        begin: |world| {
            let empty = RedisServer::start();
            let port = empty.port().to_string();
            world
                .server
                .command::<()>(&["REPLICAOF", "127.0.0.1", &port]);
            world.empty = Some(empty);
        },
        lasts: Duration::from_millis(500),
        end: |world| world.server.command(&["REPLICAOF", "NO", "ONE"]),
        is_unnoticed: false,
    },
    Scenario {
        name: "out of memory, 1 s",
        begin: |world| world.server.command(&["CONFIG", "SET", "maxmemory", "1"]),
        lasts: Duration::from_secs(1),
        end: |world| world.server.command(&["CONFIG", "SET", "maxmemory", "0"]),
        is_unnoticed: false,
    },
    Scenario {
        name: "everything 300 ms late, 1 s",
        begin: |world| world.proxy.set(Fault::Delay(Duration::from_millis(300))),
        lasts: Duration::from_secs(1),
        end: |world| world.proxy.set(Fault::None),
        is_unnoticed: false,
    },
    Scenario {
        name: "replies cut in the middle, 500 ms",
        begin: |world| world.proxy.set(Fault::Cut),
        lasts: Duration::from_millis(500),
        end: |world| world.proxy.set(Fault::None),
        is_unnoticed: false,
    },
    Scenario {
        name: "black hole, 2 s",
        begin: |world| world.proxy.set(Fault::BlackHole),
        lasts: Duration::from_secs(2),
        end: |world| world.proxy.set(Fault::None),
        is_unnoticed: false,
    },
];

impl World {
    pub(super) fn new() -> World {
        let server = RedisServer::start();
        let proxy = Proxy::before(server.port());
        World {
            server,
            proxy,
            empty: None,
        }
    }

    pub(super) fn url(&self) -> String {
        self.proxy.url()
    }
}
