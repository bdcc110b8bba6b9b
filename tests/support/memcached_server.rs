use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::iter;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use traffik_core::MemcachedBackend;
use traffik_core::backend::MemcachedBackendBuilder;

use super::port::Port;
use super::process::Process;

/// A memcached of our own.
#[derive(Debug)]
pub(crate) struct MemcachedServer(Process);

impl MemcachedServer {
    pub(crate) fn start() -> MemcachedServer {
        MemcachedServer::with(&[])
    }

    pub(crate) fn with(options: &[&str]) -> MemcachedServer {
        Self::start_at(iter::repeat_with(Port::reserve), options)
    }

    /// One on the first of some ports that is not taken.
    pub(crate) fn start_on(ports: impl IntoIterator<Item = Port>) -> MemcachedServer {
        Self::start_at(ports, &[])
    }

    fn start_at(ports: impl IntoIterator<Item = Port>, options: &[&str]) -> MemcachedServer {
        MemcachedServer(Process::start_on(ports, "memcached", |port, _directory| {
            let port = port.to_string();
            // It refuses to run as root unless told that this is meant.
            let ours = ["-l", "127.0.0.1", "-p", &port, "-U", "0", "-u", "root"];
            let all = ours.iter().chain(options);
            all.map(ToString::to_string).collect()
        }))
    }

    pub(crate) fn url(&self) -> String {
        format!("memcache://127.0.0.1:{}", self.0.port())
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    /// A backend that no scheduling hiccup of a busy machine can time out.
    pub(crate) fn backend(&self) -> MemcachedBackend {
        self.builder().build().expect("valid settings")
    }

    pub(crate) fn builder(&self) -> MemcachedBackendBuilder {
        MemcachedBackend::builder(self.url())
            .deadline(Duration::from_secs(10))
            .connect_timeout(Duration::from_secs(5))
    }

    /// Sends a command on a connection of its own; the lines of the answer up to one that ends it.
    pub(crate) fn command(&self, command: impl AsRef<[u8]>) -> Vec<String> {
        let port = self.0.port();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("memcached");
        let command = [command.as_ref(), b"\r\n"].concat();
        stream.write_all(&command).expect("a command");
        let mut lines = Vec::new();
        for line in BufReader::new(stream).lines() {
            let line = line.expect("an answer");
            let ends = line.starts_with("BUSY")
                || ["END", "OK", "STORED", "DELETED", "NOT_FOUND", "ERROR"].contains(&&*line);
            lines.push(line);
            if ends {
                break;
            }
        }
        lines
    }

    pub(crate) fn set(&self, key: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        let line = format!("set {key} 0 0 {}\r\n", value.len());
        assert_eq!(self.command([line.as_bytes(), value].concat()), ["STORED"]);
    }

    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let lines = self.command(format!("get {key}"));
        lines.get(1).cloned()
    }

    /// Keys and the second at which each expires.
    pub(crate) fn keys(&self) -> HashMap<String, i64> {
        // A dump passes over what is locked at that moment, and is refused while another is made.
        (0..3).flat_map(|_| self.dump()).collect()
    }

    fn dump(&self) -> HashMap<String, i64> {
        let lines = loop {
            let lines = self.command("lru_crawler metadump hash");
            if !lines.iter().any(|line| line.starts_with("BUSY")) {
                break lines;
            }
        };
        let entries = lines.iter().filter_map(|line| {
            let mut words = line.split(' ');
            let key = words.next()?.strip_prefix("key=")?;
            let expires = words.next()?.strip_prefix("exp=")?.parse().ok()?;
            Some((key.replace("%3A", ":").replace("%3a", ":"), expires))
        });
        entries.collect()
    }

    /// How many commands on keys were executed so far.
    pub(crate) fn commands(&self) -> u64 {
        self.count(&[
            "cmd_get",
            "cmd_set",
            "cmd_touch",
            "incr_hits",
            "incr_misses",
            "decr_hits",
        ])
    }

    /// The sum of some of its counters.
    pub(crate) fn count(&self, names: &[&str]) -> u64 {
        let stats = self.command("stats");
        let values = stats.iter().filter_map(|line| {
            let (name, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
            names
                .contains(&name)
                .then(|| value.parse::<u64>().expect("a number"))
        });
        values.sum()
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
