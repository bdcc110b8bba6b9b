use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use super::process::PATIENCE;
use super::redis_server::RedisServer;

/// Three masters that share the slots.
#[derive(Debug)]
pub(crate) struct RedisCluster(Vec<RedisServer>);

impl RedisCluster {
    pub(crate) fn start() -> RedisCluster {
        let settings = [
            ["--cluster-enabled", "yes"],
            ["--cluster-node-timeout", "2000"],
            // Else a node that is gone takes all slots with it.
            ["--cluster-require-full-coverage", "no"],
        ];
        let settings = settings.as_flattened();
        let nodes: Vec<_> = (0..3).map(|_| RedisServer::start_with(settings)).collect();
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
            assert!(start.elapsed() < PATIENCE, "no cluster comes about");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.0.iter().map(RedisServer::url).collect()
    }

    /// The node that has a key, and the key's slot.
    pub(crate) fn home(&self, key: &str) -> (usize, u16) {
        let has = |node: &RedisServer| node.keys().iter().any(|known| known == key);
        let node = self.0.iter().position(has).expect("somebody has the key");
        (node, self.0[node].command(&["CLUSTER", "KEYSLOT", key]))
    }

    /// Moves a slot to another node as `redis-cli --cluster reshard` does, and calls `halfway` when
    /// half of its keys have arrived.
    pub(crate) fn move_slot(&self, slot: u16, from: usize, to: usize, halfway: impl FnOnce()) {
        let (source, target) = (&self.0[from], &self.0[to]);
        let id = |node: &RedisServer| node.command::<String>(&["CLUSTER", "MYID"]);
        let (source_id, target_id) = (id(source), id(target));
        let text = slot.to_string();
        let set = |node: &RedisServer, state: &[&str]| {
            let () = node.command(&[&["CLUSTER", "SETSLOT", &text], state].concat());
        };
        set(target, &["IMPORTING", &source_id]);
        set(source, &["MIGRATING", &target_id]);
        let keys: Vec<String> = source.command(&["CLUSTER", "GETKEYSINSLOT", &text, "1000"]);
        let (first, rest) = keys.split_at(keys.len() / 2);
        let send = |keys: &[String]| {
            let port = target.port().to_string();
            let head = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let keys = keys.iter().map(String::as_str);
            let words: Vec<_> = head.into_iter().chain(keys).collect();
            if words.len() > head.len() {
                let _: String = source.command(&words);
            }
        };
        send(first);
        halfway();
        send(rest);
        // The target first: else nobody has the slot for a moment.
        for node in [target, source].into_iter().chain(&self.0) {
            set(node, &["NODE", &target_id]);
        }
        self.wait_until_all_know_the_same();
    }

    /// Who has which slots, and since which epoch. If a slot moves on before that has got about, a node
    /// may take an old owner for the new one, and drop the keys.
    fn wait_until_all_know_the_same(&self) {
        let known = |node: &RedisServer| -> BTreeSet<String> {
            let nodes: String = node.command(&["CLUSTER", "NODES"]);
            // `id address flags master ping pong epoch link slot ..`
            let facts = |line: &str| {
                let words: Vec<_> = line.split(' ').collect();
                [&words[..1], &words[6..7], &words[8..]].concat().join(" ")
            };
            nodes.lines().map(facts).collect()
        };
        let start = Instant::now();
        while self.0.iter().map(known).collect::<BTreeSet<_>>().len() > 1 {
            assert!(start.elapsed() < PATIENCE, "the nodes do not agree");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn kill(&mut self, node: usize) {
        self.0[node].kill();
    }

    pub(crate) fn resurrect(&mut self, node: usize) {
        self.0[node].resurrect();
    }

    pub(crate) fn nodes(&self) -> &[RedisServer] {
        &self.0
    }
}
