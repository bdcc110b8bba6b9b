//! One decision of each strategy in memory, beside a fixed window and governor.
//!
//! `cargo bench -p traffik-benches --bench strategies [-- <rounds>]`

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::{Quota, RateLimiter};
use traffik_benches::{Contestant, compete, pin};
use traffik_core::strategy::{NAMES, named};
use traffik_core::{Identity, ManualClock, MemoryBackend, Rate, Throttle};

const DECISIONS_PER_TURN: u32 = 50_000;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<usize>().ok());
    let rounds = numbers.next().unwrap_or(51);
    pin(0);
    println!("ns per decision: median (min - max), ratio to the first: median (min - max)");
    println!("\none key, {LIMIT} per {PERIOD:?}, the default clocks");
    print(rounds, clocked());
    println!("\none key, as many hits logged as the limit allows, the clock set by hand");
    print(rounds, full());
}

/// No loop reaches this limit, and what is logged of one turn is gone by the next.
const LIMIT: u32 = 1_000_000;
const PERIOD: Duration = Duration::from_millis(10);

/// What each needs in order never to deny so much.
fn options(name: &str) -> &'static str {
    match name {
        "gcra" => ",burst_tolerance=10ms",
        "priority_queue" => ",max_queue_size=1000000",
        "distributed_fairness" => ",instance=a",
        _ => "",
    }
}

fn clocked() -> Vec<Contestant<'static, 1>> {
    let ours = NAMES.iter().map(|name| {
        let strategy = named(&format!("{name}{}", options(name))).expect("valid");
        let rate = Rate::new(LIMIT, PERIOD).expect("valid");
        let throttle = Throttle::builder(*name)
            .rate(rate)
            .strategy(strategy)
            .backend(MemoryBackend::new())
            .build()
            .expect("valid");
        contestant(*name, move || {
            let decision = throttle.hit_now(&Identity::ip(black_box(CLIENT)));
            decision.is_ok_and(|decision| decision.is_allowed())
        })
    });
    let mut all: Vec<_> = ours.collect();
    all.insert(1, governor());
    all
}

fn governor() -> Contestant<'static, 1> {
    let quota = Quota::with_period(PERIOD / LIMIT).expect("not zero");
    let limit = NonZeroU32::new(LIMIT).expect("not zero");
    let limiter = RateLimiter::keyed(quota.allow_burst(limit));
    contestant("governor", move || {
        limiter.check_key(black_box(&CLIENT)).is_ok()
    })
}

/// One hit a millisecond, all of which fit: for each that enters the log one leaves it.
fn full() -> Vec<Contestant<'static, 1>> {
    [
        ("fixed_window", 10_000, 10_000),
        ("sliding_window_log", 100, 100),
        ("sliding_window_log", 10_000, 10_000),
        ("leaky_bucket_with_queue", 10_000, 10_000),
        // A fifth is reserved for more important hits.
        ("priority_queue,max_queue_size=10000", 12_500, 10_000),
    ]
    .into_iter()
    .map(|(strategy, limit, hits)| {
        let clock = ManualClock::default();
        let backend = MemoryBackend::builder().clock(clock.clone()).build();
        let period = Duration::from_millis(hits);
        let throttle = Throttle::builder("log")
            .rate(Rate::new(limit, period).expect("valid"))
            .strategy(named(strategy).expect("valid"))
            .backend(backend.expect("valid"))
            .build()
            .expect("valid");
        let hit = move || {
            clock.advance_micros(1_000);
            let decision = throttle.hit_now(&Identity::ip(black_box(CLIENT)));
            decision.is_ok_and(|decision| decision.is_allowed())
        };
        for _ in 0..hits {
            assert!(hit());
        }
        let name = strategy.split(',').next().unwrap_or_default();
        contestant(format!("{name}, {hits}"), hit)
    })
    .collect()
}

/// A contestant that decides over and over, and is to admit all.
fn contestant<'a>(name: impl Into<String>, hit: impl Fn() -> bool + 'a) -> Contestant<'a, 1> {
    Contestant::new(name, move || {
        let begun = Instant::now();
        for _ in 0..DECISIONS_PER_TURN {
            assert!(black_box(hit()));
        }
        [begun.elapsed().as_nanos() as f64 / f64::from(DECISIONS_PER_TURN)]
    })
}

fn print(rounds: usize, contestants: Vec<Contestant<'_, 1>>) {
    for standing in compete(rounds, contestants) {
        let [ns] = standing.figures;
        println!("  {:32} {:24.1} {:.2}", standing.name, ns.value, ns.ratio);
    }
}
