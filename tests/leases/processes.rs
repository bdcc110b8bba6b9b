//! Four processes on one Redis, each of which tells what it admitted and when.
//!
//! How few trips they need and how much they admit depends on whether they get to run: what is asserted
//! leaves room for a machine that does other things. The bench `leases` prints the same figures.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use traffik_core::{Identity, RedisBackend, TokenBucket};

use super::throttle;
use crate::support::leasing::{self, Log, Plan};
use crate::support::{PATIENCE, RedisServer};

const RATE: &str = "400/second";
const LIMIT: u64 = 400;

/// Every process asks for half again as much as all may have.
const FLOOD: [u64; 4] = [600; 4];

pub(super) fn run(plan: &Plan<'_>, meanwhile: impl FnOnce()) -> Log {
    let program = std::env::current_exe().unwrap();
    let command = || {
        let mut command = Command::new(&program);
        command.args(["--exact", "--ignored", "--nocapture"]);
        command.arg("leases::processes::a_process_that_leases");
        command
    };
    plan.run(command, meanwhile)
}

/// What four processes admit while something is done to the server.
pub(super) fn flood(url: &str, meanwhile: impl FnOnce()) -> Log {
    run(&Plan::new(url, RATE, FLOOD), meanwhile)
}

/// Whether leases had anything to do with it.
pub(super) fn was_leased(log: &Log) -> bool {
    log.local > 4 * log.trips && log.admitted() > LIMIT
}

#[test]
fn four_processes_admit_no_more_than_one_would_in_any_interval() {
    let server = RedisServer::start();
    let log = flood(&server.url(), || ());
    let (admitted, hits) = (log.admitted(), log.hits());
    assert!(hits > admitted + LIMIT, "no flood: {admitted} of {hits}");
    let (local, trips) = (log.local, log.trips);
    assert!(was_leased(&log), "{local} decided here, {trips} trips");
    assert_eq!(log.beyond(1), 0);
}

/// The fifth part of the hits at most, where on an idle machine it is the thirtieth and the three
/// hundredth; and what the processes say of their trips Redis says, too.
#[test]
fn four_processes_below_a_limit_need_few_trips_and_deny_nobody() {
    for (rate, each, most) in [("10000/second", 250, 200), ("100000/second", 1_000, 60)] {
        let server = RedisServer::start();
        server.calls();
        let log = run(&Plan::new(&server.url(), rate, [each; 4]), || ());
        let calls = server.calls();
        let asked: u64 = ["eval", "evalsha"]
            .iter()
            .filter_map(|name| calls.get(*name))
            .sum();
        assert_eq!(log.admitted(), log.hits());
        let trips = log.trips_per_thousand();
        assert!(trips <= most, "{rate}: {trips} of 1,000");
        // Each process loads a script for each kind of command, which takes two; and several questions may travel in one.
        let counted = log.trips;
        assert!(
            asked <= counted + 4 * 4,
            "{rate}: {counted} counted, {calls:?}"
        );
        assert!(asked * 2 > counted, "{rate}: {counted} counted, {calls:?}");
    }
}

#[test]
fn four_processes_above_a_limit_admit_nearly_all_of_it_in_few_trips() {
    for demands in [[300; 4], [1_500; 4], [640, 320, 160, 80]] {
        let server = RedisServer::start();
        let log = run(&Plan::new(&server.url(), "1000/second", demands), || ());
        let (trips, admitted) = (log.trips_per_thousand(), log.admitted_per_thousand());
        assert!(trips <= 150, "{demands:?}: {trips} of 1,000");
        assert!(admitted >= 800, "{demands:?}: {admitted} of 1,000");
        assert_eq!(log.beyond(1), 0, "{demands:?}");
        // No denial sends anybody away for long.
        let waits = log.excess_waits();
        let median = waits.get(waits.len() / 2).copied().unwrap_or_default();
        assert!(median < 150_000, "{demands:?}: {median} µs too long");
    }
}

/// It gives nothing back, and takes its lease with it.
#[test]
fn a_process_that_dies_takes_nothing_beyond_the_bound_and_keeps_nothing() {
    let server = RedisServer::start();
    let url = server.url();
    let plan = Plan {
        lives: [1_500, 2_200, u64::MAX, u64::MAX],
        ..Plan::new(&url, RATE, FLOOD)
    };
    let log = run(&plan, || ());
    assert!(was_leased(&log));
    let (died, stranded) = (log.died, log.stranded);
    assert!(died > 0 && stranded > 0, "{died} died, with {stranded}");
    assert_eq!(log.beyond(1), 0);

    // All of the limit is there again once what they held has ended.
    let redis = throttle(RATE, TokenBucket::new(), server.backend());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let left = || runtime.block_on(async { redis.stat(&Identity::of("ann")).await.unwrap() });
    let start = Instant::now();
    while left().remaining < LIMIT {
        assert!(start.elapsed() < PATIENCE, "{:?} is left", left());
        sleep(Duration::from_millis(20));
    }
}

/// What the tests run several times, on a Redis or one that a sentinel knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is a part of other tests"]
async fn a_process_that_leases() {
    let redis = |url: &str| match url.strip_prefix("sentinel ") {
        Some(sentinel) => RedisBackend::sentinel([sentinel], "redis://shop"),
        None => RedisBackend::builder(url),
    };
    leasing::live(redis).await;
}
