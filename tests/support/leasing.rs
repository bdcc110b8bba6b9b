//! Four processes that lease one limit of a Redis, and what they tell of it. The bench `leases` runs
//! them, too.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use traffik_core::backend::RedisBackendBuilder;
use traffik_core::{
    Attributes, BackendExt, Cell, Decision, Hit, Identity, Lease, OnError, Rate, Result, Span,
    Strategy, Throttle, Timestamp, TokenBucket,
};

/// What one process is to do: see [`Plan::of`] and [`live`].
const PLAN: &str = "TRAFFIK_LEASING";
const SIGABRT: i32 = 6;
/// Hits are made in lots, so often.
const EVERY: Duration = Duration::from_millis(20);

/// What four processes do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// What [`live`] finds the Redis by.
    pub(crate) url: &'a str,
    pub(crate) rate: &'a str,
    /// Hits per second of each.
    pub(crate) demands: [u64; 4],
    pub(crate) time: Duration,
    /// After how many milliseconds each dies as soon as it holds something, if need be after the others
    /// have ended.
    pub(crate) lives: [u64; 4],
}

impl<'a> Plan<'a> {
    /// For three and a half seconds, of which all see the end.
    pub(crate) fn new(url: &'a str, rate: &'a str, demands: [u64; 4]) -> Plan<'a> {
        Plan {
            url,
            rate,
            demands,
            time: Duration::from_millis(3_500),
            lives: [u64::MAX; 4],
        }
    }

    fn of(&self, process: usize) -> String {
        let (demand, life) = (self.demands[process], self.lives[process]);
        let millis = self.time.as_millis();
        format!("{} {demand} {millis} {life} {}", self.rate, self.url)
    }

    /// What becomes of it while something is done to the server; `command` is a program that
    /// [lives](live).
    pub(crate) fn run(&self, command: impl Fn() -> Command, meanwhile: impl FnOnce()) -> Log {
        let processes = [0, 1, 2, 3].map(|process| {
            let mut command = command();
            command.env(PLAN, self.of(process)).stdout(Stdio::piped());
            command.spawn().expect("this program can be run")
        });
        meanwhile();
        let mut log = Log::default();
        for process in processes {
            let output = process.wait_with_output().expect("it ends");
            let died = output.status.signal() == Some(SIGABRT);
            assert!(died || output.status.success(), "{:?}", output.status);
            log.died += u64::from(died);
            let text = String::from_utf8(output.stdout).expect("text");
            text.lines().for_each(|line| log.read(line));
        }
        log.rate = Some(self.rate.parse().expect("a rate"));
        log.hits.sort_unstable();
        log.admitted.sort_unstable_by_key(|(_, known)| *known);
        log.denied.sort_unstable();
        log
    }
}

/// What they did. Times are in µs, by the wall clock that all processes of a machine share.
#[derive(Debug, Default)]
pub(crate) struct Log {
    rate: Option<Rate>,
    /// When hits were made.
    hits: Vec<u64>,
    /// When those were asked for that were admitted, and when that was known.
    admitted: Vec<(u64, u64)>,
    /// When it was known of the others, and the waits they were told.
    denied: Vec<(u64, u64)>,
    pub(crate) local: u64,
    pub(crate) trips: u64,
    /// What those held that died, and how many did.
    pub(crate) stranded: u64,
    pub(crate) died: u64,
}

impl Log {
    fn read(&mut self, line: &str) {
        let mut words = line.split(' ');
        let kind = words.next();
        let mut number = || words.next().and_then(|word| word.parse().ok());
        let mut number = || number().expect("a number");
        match kind {
            Some("admitted") => {
                let (asked, known) = (number(), number());
                self.hits.push(asked);
                self.admitted.push((asked, known));
            }
            Some("denied") => {
                self.hits.push(number());
                self.denied.push((number(), number()));
            }
            Some("failed") => self.hits.push(number()),
            Some("stranded") => self.stranded += number(),
            Some("counted") => {
                self.local += number();
                self.trips += number();
            }
            _ => {}
        }
    }

    fn rate(&self) -> Rate {
        self.rate.expect("it is set when the log is")
    }

    pub(crate) fn hits(&self) -> u64 {
        self.hits.len() as u64
    }

    pub(crate) fn admitted(&self) -> u64 {
        self.admitted.len() as u64
    }

    /// Per thousand hits.
    pub(crate) fn trips_per_thousand(&self) -> u64 {
        self.trips * 1_000 / self.hits().max(1)
    }

    /// Of a thousand hits that one strict limiter would have admitted.
    pub(crate) fn admitted_per_thousand(&self) -> u64 {
        let mut strict = Bucket::new(self.rate());
        let strictly = self.hits.iter().filter(|at| strict.hit(**at).is_allowed());
        self.admitted() * 1_000 / (strictly.count() as u64).max(1)
    }

    /// How many more than a bucket of so many fills gives were admitted in any interval: of those
    /// that were asked for and answered in it.
    pub(crate) fn beyond(&self, fills: u64) -> u64 {
        let rate = self.rate();
        let burst = fills * u64::from(rate.limit());
        let mut worst = 0;
        for (start, _) in &self.admitted {
            let within = self.admitted.iter().filter(|(asked, _)| asked >= start);
            for ((_, known), count) in within.zip(1_u64..) {
                let earned = rate.earned_in(Span::from_micros(known - start + 1));
                worst = worst.max(count.saturating_sub(burst + earned));
            }
        }
        worst
    }

    /// By how much the waits of denials were too long, in µs, in order: had one limiter seen what
    /// was admitted, in the order in which it was.
    pub(crate) fn excess_waits(&self) -> Vec<u64> {
        let mut admitted = self.admitted.iter().map(|(_, known)| *known).peekable();
        let mut strict = Bucket::new(self.rate());
        let excess = self.denied.iter().map(|(at, wait)| {
            while let Some(known) = admitted.next_if(|known| known <= at) {
                let _ = strict.hit(known);
            }
            wait.saturating_sub(micros(strict.clone().hit(*at).wait()))
        });
        let mut excess: Vec<u64> = excess.collect();
        excess.sort_unstable();
        excess
    }
}

/// One strict limiter.
#[derive(Clone, Debug)]
struct Bucket {
    cell: Cell,
    rate: Rate,
}

impl Bucket {
    fn new(rate: Rate) -> Bucket {
        let cell = Cell::fresh();
        Bucket { cell, rate }
    }

    fn hit(&mut self, at_us: u64) -> Decision {
        let hit = Hit {
            now: Timestamp::from_micros(at_us),
            rate: &self.rate,
            cost: 1,
            attributes: &Attributes::NONE,
        };
        TokenBucket::new().step(&mut self.cell, &hit)
    }
}

/// What one of the processes does: its part of the plan, on the Redis that is at its URL.
pub(crate) async fn live(redis: impl FnOnce(&str) -> RedisBackendBuilder) {
    let plan = std::env::var(PLAN).expect("a process of a plan");
    let words: Vec<&str> = plan.splitn(5, ' ').collect();
    let [rate, demand, millis, life, url] = *words else {
        panic!("no plan: {plan}")
    };
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let (demand, time) = (number(demand), Duration::from_millis(number(millis)));
    let life = Duration::from_millis(number(life));
    let builder = redis(url)
        .deadline(Duration::from_millis(500))
        .persistent(true);
    let backend = builder.build().expect("a URL").lease(Lease::new());
    let api = Throttle::builder("leases").rate(rate);
    let api = api.strategy(TokenBucket::new()).on_error(OnError::Raise);
    let api = api.backend(backend.clone()).build().expect("valid");
    let diary = Arc::new(Mutex::new(String::new()));
    let (start, mut made) = (Instant::now(), 0);
    let time = if life < time { 3 * time } else { time };
    while start.elapsed() < time {
        let due = demand * micros(start.elapsed()) / 1_000_000;
        // What was missed is not made up for at once.
        let crowd = (due - made).min(demand / 10);
        made = due;
        let hits = (0..crowd).map(|_| hit(api.clone(), Arc::clone(&diary)));
        if start.elapsed() < life {
            hits.collect::<JoinSet<()>>().join_all().await;
        } else {
            // One after the other: a crowd has spent what it was given by the time it is through.
            for hit in hits {
                hit.await;
                let held = backend.info().held;
                if held > 0 {
                    // Without a word to anybody but the log.
                    println!("\n{}stranded {held}", read(&diary));
                    std::process::abort();
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    let info = backend.info();
    // After what a harness says of it.
    println!("\n{}counted {} {}", read(&diary), info.local, info.trips);
}

async fn hit(api: Throttle, diary: Arc<Mutex<String>>) {
    let asked = now_us();
    let decided = api.hit(&Identity::of("ann")).await;
    let line = said(asked, now_us(), &decided);
    diary
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push_str(&line);
}

fn said(asked: u64, known: u64, decided: &Result<Decision>) -> String {
    match decided {
        Ok(decision) if decision.is_allowed() => format!("admitted {asked} {known}\n"),
        Ok(decision) => format!("denied {asked} {known} {}\n", micros(decision.wait())),
        Err(_) => format!("failed {asked}\n"),
    }
}

fn read(diary: &Mutex<String>) -> String {
    diary.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    micros(since.expect("after 1970"))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
