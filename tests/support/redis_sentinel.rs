use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::process::Process;
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
                 sentinel failover-timeout shop 3000\n",
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
        let _: () = self.ask(&["FAILOVER", "shop"]);
        wait("the master is not demoted", || {
            // Sentinel kills the connections of a master that it demotes.
            let role: redis::RedisResult<String> =
                self.master.try_command(&["INFO", "replication"]);
            let (_, port): (String, u16) = self.ask(&["GET-MASTER-ADDR-BY-NAME", "shop"]);
            role.is_ok_and(|role| role.contains("role:slave")) && port == self.replica.port()
        });
    }

    fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.sentinel_url()).expect("a URL");
        let mut connection = client.get_connection().expect("a connection");
        let mut command = redis::cmd("SENTINEL");
        command
            .arg(words)
            .query(&mut connection)
            .expect("an answer")
    }

    pub(crate) fn sentinel_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.sentinel.port())
    }
}

fn wait(or: &str, until: impl Fn() -> bool) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < Duration::from_secs(30), "{or}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
