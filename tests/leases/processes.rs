//! Four processes on one Redis, each of which tells what it admitted and when.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use traffik_core::{BackendExt, Identity, Lease, RedisBackend, Span, TokenBucket};

use super::throttle;
use crate::support::{PATIENCE, RedisServer};

const URL: &str = "TRAFFIK_TESTS_LEASES_REDIS";
const RATE: &str = "400/second";
const LIMIT: u64 = 400;
/// After how many milliseconds a process dies as soon as it holds something.
const LIFE: &str = "TRAFFIK_TESTS_LEASES_LIFE";
const SIGABRT: i32 = 6;

/// What four processes admitted.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// When each hit was asked for, and when it was known to be admitted; in µs.
    admitted: Vec<(u64, u64)>,
    hits: u64,
    local: u64,
    trips: u64,
    /// What those held that died, and how many did.
    stranded: u64,
    died: u64,
}

impl Log {
    /// What they admit while something is done to the server. Every process asks for half again as
    /// much as all may have.
    pub(super) fn of_four_processes(url: &str, meanwhile: impl FnOnce()) -> Log {
        Self::of_four(url, &[u64::MAX; 4], meanwhile)
    }

    /// The same if they die after so many milliseconds.
    fn of_four(url: &str, lives: &[u64; 4], meanwhile: impl FnOnce()) -> Log {
        let program = std::env::current_exe().unwrap();
        let processes = lives.map(|life| {
            Command::new(&program)
                .args(["--exact", "--ignored", "--nocapture"])
                .arg("leases::processes::a_process_that_leases")
                .env(URL, url)
                .env(LIFE, life.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        });
        meanwhile();
        let mut log = Log::default();
        for process in processes {
            let output = process.wait_with_output().unwrap();
            let died = output.status.signal() == Some(SIGABRT);
            assert!(died || output.status.success());
            log.died += u64::from(died);
            for line in String::from_utf8(output.stdout).unwrap().lines() {
                log.read(line);
            }
        }
        log.admitted.sort_unstable_by_key(|(_, known)| *known);
        log
    }

    fn read(&mut self, line: &str) {
        let mut words = line.split(' ');
        let kind = words.next();
        let mut number = || words.next().and_then(|word| word.parse().ok());
        match kind {
            Some("admitted") => self.admitted.push((number().unwrap(), number().unwrap())),
            Some("stranded") => self.stranded += number().unwrap(),
            Some("counted") => {
                self.hits += number().unwrap();
                self.local += number().unwrap();
                self.trips += number().unwrap();
            }
            _ => {}
        }
    }

    /// How many more than a bucket of so many fills gives were admitted in any interval: of those
    /// that were asked for and answered in it.
    pub(super) fn beyond(&self, fills: u64) -> u64 {
        let rate = traffik_core::Rate::literal(RATE);
        let mut worst = 0;
        for (start, _) in &self.admitted {
            let within = self.admitted.iter().filter(|(asked, _)| asked >= start);
            for ((_, known), count) in within.zip(1_u64..) {
                let earned = rate.earned_in(Span::from_micros(known - start + 1));
                worst = worst.max(count.saturating_sub(fills * LIMIT + earned));
            }
        }
        worst
    }

    pub(super) fn admitted(&self) -> u64 {
        self.admitted.len() as u64
    }

    /// Whether leases had anything to do with it.
    pub(super) fn was_leased(&self) -> bool {
        self.local > 4 * self.trips && self.admitted() > LIMIT
    }
}

#[test]
fn four_processes_admit_no_more_than_one_would_in_any_interval() {
    let server = RedisServer::start();
    let log = Log::of_four_processes(&server.url(), || ());
    assert!(
        log.hits > log.admitted() + LIMIT,
        "it was no flood: {} of {}",
        log.admitted(),
        log.hits
    );
    assert!(
        log.was_leased(),
        "{} decided here, {} trips",
        log.local,
        log.trips
    );
    assert_eq!(log.beyond(1), 0);
}

/// It gives nothing back, and takes its lease with it.
#[test]
fn a_process_that_dies_takes_nothing_beyond_the_bound_and_keeps_nothing() {
    let server = RedisServer::start();
    let log = Log::of_four(&server.url(), &[1_500, 2_200, u64::MAX, u64::MAX], || ());
    assert!(log.was_leased());
    assert!(
        log.died > 0 && log.stranded > 0,
        "{} died, with {}",
        log.died,
        log.stranded
    );
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

/// What the tests run several times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is a part of other tests"]
async fn a_process_that_leases() {
    let url = std::env::var(URL).unwrap();
    let builder = match url.strip_prefix("sentinel ") {
        Some(sentinel) => RedisBackend::sentinel([sentinel], "redis://shop"),
        None => RedisBackend::builder(&url),
    };
    let backend = builder
        .deadline(Duration::from_millis(500))
        .persistent(true)
        .build()
        .unwrap();
    let backend = backend.lease(Lease::new());
    let api = throttle(RATE, TokenBucket::new(), backend.clone());
    let life = Duration::from_millis(std::env::var(LIFE).unwrap().parse().unwrap());
    let start = Instant::now();
    let mut hits = 0_u64;
    // After what the harness says of it.
    println!();
    while start.elapsed() < Duration::from_millis(3_500) {
        let mut crowd = JoinSet::new();
        for _ in 0..12 {
            let (api, backend) = (api.clone(), backend.clone());
            crowd.spawn(async move {
                let asked = now_us();
                let decided = api.hit(&Identity::of("ann")).await;
                if decided.is_ok_and(|decision| decision.is_allowed()) {
                    println!("admitted {asked} {}", now_us());
                }
                if start.elapsed() > life {
                    die_with(backend.info().held);
                }
            });
        }
        hits += 12;
        crowd.join_all().await;
        tokio::time::sleep(Duration::from_millis(19)).await;
    }
    let info = backend.info();
    println!("counted {hits} {} {}", info.local, info.trips);
}

/// Without a word to anybody, if there is something to die with.
fn die_with(held: u64) {
    if held > 0 {
        println!("stranded {held}");
        std::process::abort();
    }
}

/// The wall clock, which all processes of a machine share.
fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}
