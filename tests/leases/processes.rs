//! Four processes on one Redis, each of which tells what it admitted and when.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use traffik_core::{BackendExt, Identity, Lease, RedisBackend, Span, TokenBucket};

use super::throttle;
use crate::support::RedisServer;

const URL: &str = "TRAFFIK_TESTS_LEASES_REDIS";
const RATE: &str = "400/second";
const LIMIT: u64 = 400;

/// What four processes admitted.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// When each hit was asked for, and when it was known to be admitted; in µs.
    admitted: Vec<(u64, u64)>,
    hits: u64,
    local: u64,
    trips: u64,
}

impl Log {
    /// What they admit while something is done to the server. Every process asks for half again as
    /// much as all may have.
    pub(super) fn of_four_processes(url: &str, meanwhile: impl FnOnce()) -> Log {
        let program = std::env::current_exe().unwrap();
        let processes: Vec<Child> = (0..4)
            .map(|_| {
                Command::new(&program)
                    .args(["--exact", "--ignored", "--nocapture"])
                    .arg("leases::processes::a_process_that_leases")
                    .env(URL, url)
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        meanwhile();
        let mut log = Log::default();
        for process in processes {
            let output = process.wait_with_output().unwrap();
            assert!(output.status.success());
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
        log.hits > 3 * log.admitted(),
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
    let start = Instant::now();
    let (mut admitted, mut hits) = (Vec::new(), 0_u64);
    while start.elapsed() < Duration::from_millis(3_500) {
        let mut crowd = JoinSet::new();
        for _ in 0..12 {
            let api = api.clone();
            crowd.spawn(async move {
                let asked = now_us();
                let decided = api.hit(&Identity::of("ann")).await;
                let is_admitted = decided.is_ok_and(|decision| decision.is_allowed());
                is_admitted.then(|| (asked, now_us()))
            });
        }
        hits += 12;
        admitted.extend(crowd.join_all().await.into_iter().flatten());
        tokio::time::sleep(Duration::from_millis(19)).await;
    }
    let info = backend.info();
    println!("\ncounted {hits} {} {}", info.local, info.trips);
    for (asked, known) in admitted {
        println!("admitted {asked} {known}");
    }
}

/// The wall clock, which all processes of a machine share.
fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}
