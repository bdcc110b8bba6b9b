//! Clients that are invented, come once and never again: what they cost new clients, known ones,
//! memory, and honest newcomers.
//!
//! `cargo bench -p traffik-benches --no-default-features --bench churn`

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use traffik_core::{
    Gcra, Identity, ManualClock, MemoryBackend, SlidingWindowLog, Strategy, Throttle, TokenBucket,
};

fn main() {
    println!("ns per hit of a new client | of a known one, median, 99 % and longest");
    churn("gcra 5/s, 1,000,000 alive", Gcra::new(), 5, 1);
    churn("token bucket 5/s, 1,000,000", TokenBucket::new(), 5, 1);
    churn("token bucket 5/s, 20,000", TokenBucket::new(), 1, 10);

    println!("\nmost live bytes, 3,000,000 clients of whom 1,000 are known, a log of 1000/hour");
    println!("  {}", log_bytes());

    println!("\nof 1,000 newcomers to a full table of 100,000, 5/hour, those admitted");
    for (name, invented, each) in [
        ("after 10,000 invented clients", 10_000, 1),
        ("after 50,000", 50_000, 1),
        ("after 100,000", 100_000, 1),
        ("after 200,000", 200_000, 1),
        ("after 2,000 that use all of it", 2_000, 5),
        ("after 10,000 that use all of it", 10_000, 5),
    ] {
        println!("  {name:34} {:5}", newcomers(invented, each));
    }
}

/// New clients come in order, so many at once and then none for a pause, and are worth nothing
/// 200 ms later. Every tenth hit is of one of a thousand that stay.
fn churn(name: &str, strategy: impl Strategy, at_once: u32, pause_us: u64) {
    let clock = ManualClock::default();
    let throttle = throttle("5/s", strategy, 2_000_000, &clock);
    let (mut new, mut known) = (Vec::new(), Vec::new());
    for n in 0..6_000_000 {
        if n % at_once == 0 {
            clock.advance_micros(pause_us);
        }
        new.push(time(&throttle, address(1_000 + n)));
        if n % 10 == 0 {
            known.push(time(&throttle, address(n / 10 % 1_000)));
        }
    }
    // Once everybody has expired once: that is when order tells.
    let mut new = new.split_off(new.len() / 2);
    let mut known = known.split_off(known.len() / 2);
    let mean = new.iter().sum::<u64>() / new.len() as u64;
    new.sort_unstable();
    known.sort_unstable();
    println!(
        "  {name:30} mean {mean:6} median {:6} | {:6} {:6} {:8}",
        new[new.len() / 2],
        known[known.len() / 2],
        known[known.len() / 100 * 99],
        known[known.len() - 1],
    );
}

fn time(throttle: &Throttle, client: IpAddr) -> u64 {
    let begun = Instant::now();
    let decision = throttle.hit_now(&Identity::ip(client));
    let elapsed = begun.elapsed();
    assert!(decision.is_ok());
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

fn log_bytes() -> u64 {
    let allocated = allocation_counter::measure(|| {
        let throttle = throttle(
            "1000/hour",
            SlidingWindowLog::new(),
            1_000,
            &ManualClock::default(),
        );
        for n in (0..1_000_000).map(|n| n % 1_000).chain(0..3_000_000) {
            let decision = throttle.hit_now(&Identity::ip(address(n)));
            assert!(decision.is_ok());
        }
    });
    allocated.bytes_max
}

fn newcomers(invented: u32, each: u32) -> usize {
    let clock = ManualClock::default();
    let throttle = throttle("5/hour", TokenBucket::new(), 100_000, &clock);
    let admitted = |n: u32| {
        let decision = throttle.hit_now(&Identity::ip(address(n)));
        decision.is_ok_and(|decision| decision.is_allowed())
    };
    // Shards do not fill evenly.
    for n in 0..150_000 {
        admitted(n);
    }
    for n in 0..invented {
        for _ in 0..each {
            admitted(1_000_000 + n);
        }
    }
    (0..1_000).filter(|n| admitted(50_000_000 + n)).count()
}

fn throttle(rate: &str, strategy: impl Strategy, max_keys: usize, clock: &ManualClock) -> Throttle {
    let backend = MemoryBackend::builder()
        .max_keys(max_keys)
        .clock(clock.clone())
        .build()
        .expect("valid");
    Throttle::builder("churn")
        .rate(rate)
        .strategy(strategy)
        .backend(backend)
        .build()
        .expect("valid")
}

fn address(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n))
}
