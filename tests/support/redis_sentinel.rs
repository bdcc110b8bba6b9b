use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::process::{PATIENCE, Process};
use super::redis_server::RedisServer;

/// A master, a replica, and a sentinel that promotes it half a second after the master is gone.
#[derive(Debug)]
pub(crate) struct WatchedRedis {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    sentinel: Process,
}

impl WatchedRedis {
    pub(crate) fn start() -> WatchedRedis {
        let master = RedisServer::start();
        // The sentinel asks the master for replicas at once, and then only every ten seconds.
        let replica = master.replica();
        let port = master.port();
        let sentinel = Process::start("redis-server", |own, directory| {
            let configuration = directory.join("sentinel.conf");
            let settings = format!(
                "port {own}\nbind 127.0.0.1\ndir {}\n\
                 sentinel monitor shop 127.0.0.1 {port} 1\n\
                 sentinel down-after-milliseconds shop 500\n\
                 sentinel failover-timeout shop 60000\n",
                directory.display(),
            );
            std::fs::write(&configuration, settings).expect("a configuration");
            vec![configuration.display().to_string(), "--sentinel".into()]
        });
        let watched = WatchedRedis {
            master,
            replica,
            sentinel,
        };
        wait("the sentinel knows no good replica", || {
            let replicas: Vec<HashMap<String, String>> = watched.ask(&["REPLICAS", "shop"]);
            replicas
                .iter()
                .any(|replica| replica["master-link-status"] == "ok")
        });
        watched
    }

    /// Promotes the replica and demotes the master, which lives on.
    pub(crate) fn fail_over(&self) {
        wait("the replica is not good enough", || {
            self.try_ask::<()>(&["FAILOVER", "shop"]).is_ok()
        });
        wait("the replica is not promoted", || {
            let master: HashMap<String, String> = self.ask(&["MASTER", "shop"]);
            // Other flags tell that it does not answer the sentinel, which has just turned to it.
            master["flags"] == "master" && master["port"] == self.replica.port().to_string()
        });
        // The sentinel does both as well, but ten seconds later, and not while a busy machine makes
        // the master look dead now and then.
        let port = self.replica.port().to_string();
        let _: () = self.master.command(&["REPLICAOF", "127.0.0.1", &port]);
        let _: u32 = self.master.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    }

    fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).expect("an answer")
    }

    fn try_ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.sentinel_url())?;
        let mut command = redis::cmd("SENTINEL");
        command.arg(words).query(&mut client.get_connection()?)
    }

    pub(crate) fn sentinel_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.sentinel.port())
    }
}

fn wait(or: &str, until: impl Fn() -> bool) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < PATIENCE, "{or}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
