//! One decision in memory, beside governor's keyed limiter: the same addresses, the same rate, one
//! that never denies, both with their default clocks.
//!
//! `cargo bench -p traffik-benches --bench decision`

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use traffik_benches::{Contestant, compete, pin};
use traffik_core::{
    FixedWindow, Gcra, Identity, MemoryBackend, Rate, Strategy, Throttle, TokenBucket,
};

const ROUNDS: usize = 51;
const DECISIONS_PER_TURN: u32 = 50_000;
const HOUR: Duration = Duration::from_secs(60 * 60);

fn main() {
    pin(0);
    println!("ns per decision: median (min - max), ratio to governor: median (min - max)");
    for threads in [1, 2] {
        for keys in [1, 1_000, 1_000_000] {
            println!("\n{keys} keys, {threads} threads");
            // Far above what comes, yet low enough that every key is still alive when it returns.
            let limit = 1_000_000_000 / keys;
            let limiters = [
                Limiter::governor(limit),
                Limiter::ours("gcra", limit, Gcra::new().burst_tolerance(HOUR)),
                Limiter::ours("token bucket", limit, TokenBucket::new()),
                Limiter::ours("fixed window", limit, FixedWindow::new()),
            ];
            race(&limiters, keys, threads);
        }
    }
}

fn race(limiters: &[Limiter], keys: u32, threads: usize) {
    for limiter in limiters {
        limiter.hit(Addresses::new(keys, 0), keys);
    }
    let mut turns = vec![0_u32; limiters.len()];
    let contestants = limiters
        .iter()
        .zip(&mut turns)
        .map(|(limiter, turn)| {
            Contestant::new(limiter.name(), move || {
                *turn += 1;
                [time(limiter, keys, threads, *turn)]
            })
        })
        .collect();
    for standing in compete(ROUNDS, contestants) {
        let [ns] = standing.figures;
        println!("  {:14} {:24.1} {:.2}", standing.name, ns.value, ns.ratio);
    }
}

/// Nanoseconds per decision of each thread while all of them decide.
fn time(limiter: &Limiter, keys: u32, threads: usize, turn: u32) -> f64 {
    let elapsed = |thread: u32, start: &dyn Fn()| {
        // Everybody goes through all keys, each from another place.
        let addresses = Addresses::new(
            keys,
            turn.wrapping_mul(DECISIONS_PER_TURN) + thread * 77_777,
        );
        start();
        let begun = Instant::now();
        limiter.hit(addresses, DECISIONS_PER_TURN);
        begun.elapsed().as_nanos() as f64 / f64::from(DECISIONS_PER_TURN)
    };
    if threads == 1 {
        return elapsed(0, &|| {});
    }
    let barrier = Barrier::new(threads);
    let all: Vec<f64> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let (elapsed, barrier) = (&elapsed, &barrier);
                scope.spawn(move || {
                    pin(thread);
                    let thread = u32::try_from(thread).expect("a few");
                    elapsed(thread, &|| {
                        barrier.wait();
                    })
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    all.iter().sum::<f64>() / threads as f64
}

/// With room to spare: shards never fill evenly.
fn backend() -> MemoryBackend {
    let backend = MemoryBackend::builder().max_keys(2_000_000).build();
    backend.expect("valid")
}

enum Limiter {
    Governor(DefaultKeyedRateLimiter<IpAddr>),
    Ours(&'static str, Throttle),
}

impl Limiter {
    fn governor(limit: u32) -> Limiter {
        let burst = NonZeroU32::new(limit).expect("not zero");
        let quota = Quota::with_period(HOUR / limit).expect("not zero");
        Limiter::Governor(RateLimiter::keyed(quota.allow_burst(burst)))
    }

    fn ours(name: &'static str, limit: u32, strategy: impl Strategy) -> Limiter {
        let throttle = Throttle::builder(name)
            .rate(Rate::per_hour(limit))
            .strategy(strategy)
            .backend(backend())
            .build();
        Limiter::Ours(name, throttle.expect("valid"))
    }

    fn name(&self) -> &'static str {
        match self {
            Limiter::Governor(_) => "governor",
            Limiter::Ours(name, _) => name,
        }
    }

    fn hit(&self, addresses: Addresses, times: u32) {
        let addresses = addresses.take(times as usize);
        match self {
            Limiter::Governor(limiter) => {
                for address in addresses {
                    let admitted = limiter.check_key(black_box(&address)).is_ok();
                    assert!(black_box(admitted));
                }
            }
            Limiter::Ours(_, throttle) => {
                for address in addresses {
                    let decision = throttle.hit_now(&Identity::ip(*black_box(&address)));
                    let admitted = decision.is_ok_and(|decision| decision.is_allowed());
                    assert!(black_box(admitted));
                }
            }
        }
    }
}

/// All of some addresses in an order that no cache can guess, over and over.
struct Addresses {
    keys: u32,
    at: u32,
}

/// A prime that divides no number of keys.
const STRIDE: u32 = 611_953;

impl Addresses {
    fn new(keys: u32, from: u32) -> Addresses {
        let at = u64::from(from) * u64::from(STRIDE) % u64::from(keys);
        Addresses {
            keys,
            at: u32::try_from(at).expect("below the number of keys"),
        }
    }
}

impl Iterator for Addresses {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        self.at += STRIDE % self.keys;
        if self.at >= self.keys {
            self.at -= self.keys;
        }
        Some(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + self.at)))
    }
}
