#[cfg(any(feature = "redis-cluster", feature = "redis-sentinel"))]
use std::process::Command;
#[cfg(feature = "redis-cluster")]
use std::time::{Duration, Instant};

#[cfg(feature = "redis-cluster")]
use super::process::PATIENCE;
use super::process::Process;

/// A Redis of our own.
#[cfg(feature = "redis")]
pub(crate) fn redis() -> Process {
    redis_with(&[])
}

/// One with settings of its own.
#[cfg(feature = "redis")]
pub(crate) fn redis_with(settings: &[&str]) -> Process {
    Process::start("redis-server", |port, directory| {
        let (port, directory) = (port.to_string(), directory.display().to_string());
        let own = ["--port", &port, "--dir", &directory, "--save", ""];
        let own = own.iter().chain(&["--bind", "127.0.0.1"]);
        own.chain(settings).map(ToString::to_string).collect()
    })
}

/// Three masters that share the slots.
#[cfg(feature = "redis-cluster")]
pub(crate) fn redis_cluster() -> [Process; 3] {
    let nodes = [(); 3].map(|()| redis_with(&["--cluster-enabled", "yes"]));
    let mut create = Command::new("redis-cli");
    create.args(["--cluster", "create", "--cluster-yes"]);
    create.args(
        nodes
            .each_ref()
            .map(|node| format!("127.0.0.1:{}", node.port())),
    );
    let created = create
        .output()
        .expect("redis-cli: apt-get install redis-tools");
    assert!(created.status.success(), "{created:?}");
    for node in &nodes {
        let start = Instant::now();
        while !redis_cli(node.port(), &["cluster", "info"]).contains("cluster_state:ok") {
            assert!(start.elapsed() < PATIENCE, "no cluster comes about");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    nodes
}

/// A sentinel that knows a Redis as `shop`.
#[cfg(feature = "redis-sentinel")]
pub(crate) fn sentinel_of(master: &Process) -> Process {
    Process::start("redis-server", |port, directory| {
        let configuration = directory.join("sentinel.conf");
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor shop 127.0.0.1 {} 1\n",
            directory.display(),
            master.port(),
        );
        std::fs::write(&configuration, settings).expect("a configuration");
        vec![configuration.display().to_string(), "--sentinel".into()]
    })
}

/// What a Redis answers.
#[cfg(any(feature = "redis-cluster", feature = "redis-sentinel"))]
pub(crate) fn redis_cli(port: u16, words: &[&str]) -> String {
    let mut ask = Command::new("redis-cli");
    let said = ask.args(["-p", &port.to_string()]).args(words).output();
    let said = said.expect("redis-cli: apt-get install redis-tools");
    String::from_utf8(said.stdout).expect("text")
}

/// A memcached of our own.
#[cfg(feature = "memcached")]
pub(crate) fn memcached() -> Process {
    Process::start("memcached", |port, _directory| {
        let port = port.to_string();
        // It refuses to run as root unless told that this is meant.
        ["-l", "127.0.0.1", "-p", &port, "-U", "0", "-u", "root"]
            .map(String::from)
            .to_vec()
    })
}
