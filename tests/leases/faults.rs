//! The same while something happens to the store.
//!
//! A store that forgets begins a new bucket, and what was lent of the old one may still be spent.
//! Both buckets together admit at most two fills and what the rate earns.

use std::thread::sleep;
use std::time::Duration;

use super::processes::{flood, was_leased};
use crate::support::{RedisServer, WatchedRedis};

/// When the processes are under way.
fn a_while() {
    sleep(Duration::from_millis(1_500));
}

#[test]
fn a_redis_that_stands_still_forgets_nothing() {
    let server = RedisServer::start();
    let log = flood(&server.url(), || {
        a_while();
        server.pause();
        sleep(Duration::from_millis(700));
        server.resume();
    });
    assert!(was_leased(&log), "{log:?}");
    assert_eq!(log.beyond(1), 0);
}

#[test]
fn a_redis_that_is_flushed_gives_another_fill_at_most() {
    let server = RedisServer::start();
    let log = flood(&server.url(), || {
        a_while();
        server.command::<()>(&["FLUSHALL"]);
    });
    assert!(was_leased(&log), "{log:?}");
    assert_eq!(log.beyond(2), 0);
}

#[test]
fn a_redis_that_crashes_gives_another_fill_at_most() {
    let mut server = RedisServer::start();
    let url = server.url();
    let log = flood(&url, || {
        a_while();
        server.kill();
        sleep(Duration::from_millis(200));
        server.resurrect();
    });
    assert!(was_leased(&log), "{log:?}");
    assert_eq!(log.beyond(2), 0);
}

#[test]
fn a_replica_that_takes_over_gives_another_fill_at_most() {
    let mut watched = WatchedRedis::start();
    let url = format!("sentinel {}", watched.sentinel_url());
    let log = flood(&url, || {
        a_while();
        watched.master.kill();
    });
    assert!(log.admitted() > 400, "{log:?}");
    assert_eq!(log.beyond(2), 0);
}
