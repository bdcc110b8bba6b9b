use std::process::Command;
use std::time::{Duration, Instant};

use super::redis_server::RedisServer;

/// Three masters that share the slots.
#[derive(Debug)]
pub(crate) struct RedisCluster(Vec<RedisServer>);

impl RedisCluster {
    pub(crate) fn start() -> RedisCluster {
        let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let nodes: Vec<_> = (0..3).map(|_| RedisServer::start_with(&settings)).collect();
        let addresses = nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()));
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "0", "--cluster-yes"])
            .output()
            .expect("redis-cli: apt-get install redis-tools");
        assert!(created.status.success(), "{created:?}");
        let cluster = RedisCluster(nodes);
        cluster.wait_until_all_agree();
        cluster
    }

    fn wait_until_all_agree(&self) {
        let start = Instant::now();
        let agrees = |node: &RedisServer| {
            let info: String = node.command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        };
        while !self.0.iter().all(agrees) {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "no cluster comes about"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.0.iter().map(RedisServer::url).collect()
    }

    pub(crate) fn nodes(&self) -> &[RedisServer] {
        &self.0
    }
}
