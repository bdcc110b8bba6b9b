//! Servers that keep counts.

use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use traffik_core::RedisBackend;

use crate::pin;

#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../../tests/support/port.rs"]
mod port;

use self::port::Port;

/// A store of our own on a port of its own, on the second core; it ends with this.
#[derive(Debug)]
pub struct Store {
    process: Child,
    port: Port,
}

impl Store {
    /// A Redis that writes nothing to disk.
    pub fn redis() -> Store {
        Self::start("redis-server", |port| {
            vec![
                "--port",
                port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--logfile",
                "/dev/null",
            ]
        })
    }

    /// A memcached with one thread.
    pub fn memcached() -> Store {
        Self::start("memcached", |port| {
            // It refuses to run as root unless told that this is meant.
            vec![
                "-l",
                "127.0.0.1",
                "-p",
                port,
                "-U",
                "0",
                "-t",
                "1",
                "-u",
                "root",
            ]
        })
    }

    fn start(program: &'static str, arguments: impl FnOnce(&str) -> Vec<&str> + Send) -> Store {
        let reserved = Port::reserve();
        let port = reserved.number();
        // A process begins on the core of the thread that starts it.
        let process = std::thread::scope(|scope| {
            let starting = scope.spawn(|| {
                pin(1);
                Command::new(program)
                    .args(arguments(&port.to_string()))
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap_or_else(|error| panic!("`{program}` cannot be run: {error}"))
            });
            starting.join().expect("no panic")
        });
        let store = Store {
            process,
            port: reserved,
        };
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let in_time = begun.elapsed() < Duration::from_secs(10);
            assert!(in_time, "`{program}` does not listen on port {port}");
            std::thread::sleep(Duration::from_millis(5));
        }
        store
    }

    /// What counts in this Redis, apart from others. Its deadline is longer than any hiccup of a busy machine: a decision
    /// that is late is no figure.
    pub fn backend(&self, namespace: &str) -> RedisBackend {
        let builder = RedisBackend::builder(&self.url("redis")).namespace(namespace);
        let builder = builder.deadline(Duration::from_secs(5));
        builder.build().expect("valid")
    }

    /// Where it listens.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port.number())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // It is ours, and has nothing to lose.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
