//! Processes that end, or are held up, with something in flight.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use traffik_core::{Concurrency, Identity, ManualClock, RedisBackend};

use super::{ann, limit, now, permits, soon};
use crate::support::{PATIENCE, RedisServer};

const URL: &str = "TRAFFIK_TESTS_REDIS";
const LEASE_MS: &str = "TRAFFIK_TESTS_LEASE";
const CLOCK: &str = "TRAFFIK_TESTS_CLOCK";

/// A process that has two in flight.
struct Other(Child);

impl Other {
    fn start(server: &RedisServer, lease: Duration, clock: &str) -> Other {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture"])
            .arg("redis_backend::in_flight::crashes::another_process")
            .env(URL, server.url())
            .env(LEASE_MS, lease.as_millis().to_string())
            .env(CLOCK, clock)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "has two"));
        Other(child)
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn three(backend: RedisBackend, lease: Duration) -> Concurrency {
    limit(backend, 3).lease(lease).build().unwrap()
}

/// What tests here run beside themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is a part of other tests"]
async fn another_process() {
    let mut backend = RedisBackend::builder(&std::env::var(URL).unwrap()).deadline(PATIENCE);
    if std::env::var(CLOCK).unwrap() == "manual" {
        backend = backend.clock(ManualClock::default());
    }
    let lease = std::env::var(LEASE_MS).unwrap().parse().unwrap();
    let limit = three(backend.build().unwrap(), Duration::from_millis(lease));
    let _held = [now(&limit).await.unwrap(), now(&limit).await.unwrap()];
    println!("\nhas two");
    // Until it is killed, or whoever started it is gone.
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_a_killed_process_had_is_free_when_its_lease_ends_and_not_before() {
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let lease = Duration::from_secs(10);
    let other = Other::start(&server, lease, "manual");
    let backend = server.builder().clock(clock.clone()).build().unwrap();
    let limit = three(backend, lease);
    let one = now(&limit).await.unwrap();
    assert!(now(&limit).await.is_err());
    // By SIGKILL.
    drop(other);
    drop(one);
    soon(|| permits(&server) == 2).await;
    clock.advance(lease - Duration::from_millis(1));
    let one = now(&limit).await.unwrap();
    assert!(now(&limit).await.is_err());
    clock.advance(Duration::from_millis(1));
    let others = [now(&limit).await.unwrap(), now(&limit).await.unwrap()];
    assert!(now(&limit).await.is_err());
    drop((one, others));
    soon(|| server.keys().is_empty()).await;
}

/// Its requests go on when it does: as many too many as it had, until they end.
#[tokio::test]
async fn what_a_process_has_that_was_paused_for_longer_than_a_lease_is_known_again() {
    let server = RedisServer::start();
    let lease = Duration::from_millis(100);
    let other = Other::start(&server, lease, "of redis");
    other.signal("-STOP");
    let limit = three(server.backend(), Duration::from_secs(60));
    let mut held = Vec::new();
    while held.len() < 3 {
        held.extend(limit.acquire(&ann(), PATIENCE).await);
    }
    // Three and the two of the other, and no more than that.
    assert!(now(&limit).await.is_err());
    other.signal("-CONT");
    soon(|| permits(&server) == 5).await;
    // Of a lease that is longer than whatever holds this test up.
    while !held.is_empty() {
        assert!(now(&limit).await.is_err());
        let before = permits(&server);
        held.pop();
        soon(|| permits(&server) < before || permits(&server) <= 2).await;
    }
    // One fits in beside the two.
    let one = now(&limit).await;
    assert!(one.is_ok());
    assert_eq!(limit.in_flight(&Identity::of("ann")), 1);
}
