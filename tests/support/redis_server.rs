use std::collections::BTreeMap;
use std::iter;
use std::path::Path;
use std::time::{Duration, Instant};

use traffik_core::RedisBackend;
use traffik_core::backend::RedisBackendBuilder;

use super::faketime::ahead;
use super::port::Port;
use super::process::{PATIENCE, Process};

/// A Redis of our own.
#[derive(Debug)]
pub(crate) struct RedisServer(Process);

impl RedisServer {
    pub(crate) fn start() -> RedisServer {
        Self::start_with(&[])
    }

    /// One with settings of its own.
    pub(crate) fn start_with(settings: &[&str]) -> RedisServer {
        Self::start_at(&[], iter::repeat_with(Port::reserve), settings)
    }

    /// One whose clock is ahead of ours by so many seconds, where [clocks can be set](super::clocks_can_be_set).
    pub(crate) fn start_ahead(seconds: u64) -> RedisServer {
        Self::start_at(&ahead(seconds), iter::repeat_with(Port::reserve), &[])
    }

    /// One on the first of some ports that is not taken.
    pub(crate) fn start_on(ports: impl IntoIterator<Item = Port>) -> RedisServer {
        Self::start_at(&[], ports, &[])
    }

    fn start_at(
        environment: &[(&'static str, String)],
        ports: impl IntoIterator<Item = Port>,
        settings: &[&str],
    ) -> RedisServer {
        let arguments = |port: u16, directory: &Path| {
            let port = port.to_string();
            let directory = directory.display().to_string();
            [
                "--port",
                &port,
                "--dir",
                &directory,
                "--save",
                "",
                "--bind",
                "127.0.0.1",
            ]
            .iter()
            .chain(settings)
            .map(ToString::to_string)
            .collect()
        };
        let server = Process::start_in(environment, ports, "redis-server", arguments);
        RedisServer(server)
    }

    /// A replica of this one, once it has caught up.
    pub(crate) fn replica(&self) -> RedisServer {
        self.replica_in(&[])
    }

    /// The same with a clock ahead of ours by so many seconds.
    pub(crate) fn replica_ahead(&self, seconds: u64) -> RedisServer {
        self.replica_in(&ahead(seconds))
    }

    fn replica_in(&self, environment: &[(&'static str, String)]) -> RedisServer {
        // By default a master waits for more of them for five seconds.
        self.command::<()>(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
        let port = self.port().to_string();
        let settings = ["--replicaof", "127.0.0.1", &port];
        let ports = iter::repeat_with(Port::reserve);
        let replica = Self::start_at(environment, ports, &settings);
        let start = Instant::now();
        loop {
            let link: String = replica.command(&["INFO", "replication"]);
            if link.contains("master_link_status:up") {
                return replica;
            }
            let late = start.elapsed() > PATIENCE;
            assert!(!late, "the replica has no link: {link}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A replica that has heard of nothing since now, and is a master itself.
    pub(crate) fn laggard(&self) -> RedisServer {
        let replica = self.replica();
        replica.command::<()>(&["REPLICAOF", "NO", "ONE"]);
        replica
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.0.port())
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    /// A backend that no scheduling hiccup of a busy machine can time out.
    pub(crate) fn backend(&self) -> RedisBackend {
        self.builder().build().expect("valid settings")
    }

    pub(crate) fn builder(&self) -> RedisBackendBuilder {
        RedisBackend::builder(&self.url()).deadline(Duration::from_secs(10))
    }

    /// Sends a command on a connection of its own.
    pub(crate) fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).expect("an answer")
    }

    /// The same to a server that may hang up.
    pub(crate) fn try_command<T: redis::FromRedisValue>(
        &self,
        words: &[&str],
    ) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut command = redis::Cmd::new();
        command.arg(words).query(&mut client.get_connection()?)
    }

    /// How often each command was executed since the last time this was asked, those of scripts
    /// included, those of connecting and counting not.
    pub(crate) fn calls(&self) -> BTreeMap<String, u64> {
        let client = redis::Client::open(self.url()).expect("a URL");
        let mut both = redis::pipe();
        both.cmd("INFO").arg("commandstats");
        both.cmd("CONFIG").arg("RESETSTAT").ignore();
        let mut connection = client.get_connection().expect("a connection");
        let (stats,): (String,) = both.query(&mut connection).expect("an answer");
        let calls = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls = rest.split(',').next()?.parse().ok()?;
            Some((name.to_owned(), calls))
        };
        let all = stats.lines().filter_map(calls);
        all.filter(|(name, _)| !name.starts_with("client") && !name.starts_with("config"))
            .filter(|(name, _)| name != "info")
            .collect()
    }

    /// How many connections were ever made to it, this one's included.
    pub(crate) fn connections(&self) -> u64 {
        connections_in(&self.command::<String>(&["INFO", "stats"]))
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.command(&["KEYS", "*"])
    }

    /// What its clock shows, since 1970.
    pub(crate) fn seconds(&self) -> u64 {
        let (seconds, _): (u64, u64) = self.command(&["TIME"]);
        seconds
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill();
    }

    pub(crate) fn resurrect(&mut self) {
        self.0.resurrect();
    }

    pub(crate) fn pause(&self) {
        self.0.pause();
    }

    pub(crate) fn resume(&self) {
        self.0.resume();
    }
}

/// How many connections were ever made, according to `INFO stats`.
pub(crate) fn connections_in(stats: &str) -> u64 {
    let figure = stats
        .lines()
        .find_map(|line| line.strip_prefix("total_connections_received:"));
    figure.expect("a figure").parse().expect("a number")
}
