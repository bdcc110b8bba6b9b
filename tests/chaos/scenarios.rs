use std::time::Duration;

use crate::support::{Fault, Proxy, RedisServer};

/// A Redis, behind a network.
pub(crate) struct World {
    server: RedisServer,
    proxy: Proxy,
    /// Another one, which is its successor from some time on.
    successor: Option<RedisServer>,
}

/// Something that happens to a store, and ends.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) begin: fn(&mut World),
    pub(crate) lasts: Duration,
    pub(crate) end: fn(&mut World),
    /// Whether decisions go on as if nothing had happened.
    pub(crate) is_unnoticed: bool,
    /// Whether cells are certainly gone that should not be.
    pub(crate) loses_state: bool,
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "kill -9, 1 s, back empty",
        begin: |world| world.server.kill(),
        lasts: Duration::from_secs(1),
        end: |world| world.server.resurrect(),
        is_unnoticed: false,
        loses_state: true,
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
        loses_state: true,
    },
    Scenario {
        name: "SIGSTOP, 3 s",
        begin: |world| world.server.pause(),
        lasts: Duration::from_secs(3),
        end: |world| world.server.resume(),
        is_unnoticed: false,
        loses_state: false,
    },
    Scenario {
        name: "FLUSHALL",
        begin: |world| world.server.command(&["FLUSHALL"]),
        lasts: Duration::from_millis(100),
        end: |_| {},
        is_unnoticed: true,
        loses_state: true,
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
        loses_state: false,
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
        loses_state: false,
    },
    Scenario {
        name: "failover to an empty replica, 500 ms",
        // Its master has no answer, so it keeps what it has, but is no master any more.
        begin: |world| world.server.command(&["REPLICAOF", "127.0.0.1", "1"]),
        lasts: Duration::from_millis(500),
        end: |world| world.promote(RedisServer::start()),
        is_unnoticed: false,
        loses_state: true,
    },
    Scenario {
        name: "failover to a replica 300 ms behind",
        begin: |world| {
            let laggard = world.server.laggard();
            std::thread::sleep(Duration::from_millis(300));
            world.server.kill();
            world.successor = Some(laggard);
        },
        lasts: Duration::from_millis(300),
        end: |world| {
            let laggard = world.successor.take().expect("it was started");
            world.promote(laggard);
        },
        is_unnoticed: false,
        loses_state: true,
    },
    Scenario {
        name: "out of memory, no eviction, 1 s",
        begin: |world| world.server.command(&["CONFIG", "SET", "maxmemory", "1"]),
        lasts: Duration::from_secs(1),
        end: |world| world.server.command(&["CONFIG", "SET", "maxmemory", "0"]),
        is_unnoticed: false,
        loses_state: false,
    },
    Scenario {
        name: "out of memory, eviction at random",
        begin: |world| world.evict("allkeys-random"),
        lasts: Duration::ZERO,
        end: World::stop_evicting,
        is_unnoticed: true,
        loses_state: true,
    },
    Scenario {
        name: "out of memory, eviction of the coldest",
        begin: |world| world.evict("allkeys-lru"),
        lasts: Duration::ZERO,
        end: World::stop_evicting,
        is_unnoticed: true,
        // What is in use is spared, by and large.
        loses_state: false,
    },
    Scenario {
        name: "everything 300 ms late, 1 s",
        begin: |world| world.proxy.set(Fault::Delay(Duration::from_millis(300))),
        lasts: Duration::from_secs(1),
        end: |world| world.proxy.set(Fault::None),
        is_unnoticed: false,
        loses_state: false,
    },
    Scenario {
        name: "replies cut in the middle, 500 ms",
        begin: |world| world.proxy.set(Fault::Cut),
        lasts: Duration::from_millis(500),
        end: |world| world.proxy.set(Fault::None),
        is_unnoticed: false,
        loses_state: false,
    },
    Scenario {
        name: "black hole, 2 s",
        begin: |world| world.proxy.set(Fault::BlackHole),
        lasts: Duration::from_secs(2),
        end: |world| world.proxy.set(Fault::None),
        is_unnoticed: false,
        loses_state: false,
    },
];

impl World {
    pub(crate) fn new() -> World {
        let server = RedisServer::start();
        let proxy = Proxy::before(server.port());
        World {
            server,
            proxy,
            successor: None,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.proxy.url()
    }

    pub(crate) fn server(&self) -> &RedisServer {
        &self.server
    }

    pub(crate) fn server_mut(&mut self) -> &mut RedisServer {
        &mut self.server
    }

    fn promote(&mut self, successor: RedisServer) {
        self.proxy.redirect(successor.port());
        self.successor = Some(successor);
    }

    /// Lets somebody else fill the memory, of which there is little, for half a second.
    fn evict(&mut self, policy: &str) {
        let memory: String = self.server.command(&["INFO", "memory"]);
        let used = memory.split_once("used_memory:").expect("a figure").1;
        let used = used
            .lines()
            .next()
            .and_then(|used| used.parse::<u64>().ok());
        let room = (used.expect("bytes") + (1 << 20)).to_string();
        let set = |setting, value| {
            self.server
                .command::<()>(&["CONFIG", "SET", setting, value])
        };
        set("maxmemory-policy", policy);
        set("maxmemory", &room);
        // There is room for sixteen of them: each displaces another key, one of ours as likely as
        // any. That a certain one survives all of this happens once in ten million times.
        let large = "x".repeat(64 << 10);
        for foreign in 0..400 {
            let key = format!("foreign {foreign}");
            self.server.command::<()>(&["SET", &key, &large]);
            if foreign % 4 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn stop_evicting(&mut self) {
        self.server
            .command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    }
}
