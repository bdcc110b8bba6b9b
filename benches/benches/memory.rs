//! Live bytes per tracked key, beside governor's keyed limiter.
//!
//! `cargo bench -p traffik-benches --bench memory`

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{Quota, RateLimiter};
use traffik_core::{Identity, MemoryBackend, Sharing, Strategy, Throttle, strategy};

const KEYS: u32 = 1_000_000;

fn main() {
    println!("live bytes per key at {KEYS} keys");
    let quota = Quota::per_hour(NonZeroU32::new(100).expect("not zero"));
    report("governor", || {
        let limiter = RateLimiter::keyed(quota);
        for address in addresses() {
            limiter.check_key(&address).expect("the first hit of a key");
        }
        limiter
    });
    for name in strategy::NAMES {
        let strategy = strategy::named(name).expect("one of the names");
        // One cell for everybody is nothing per client.
        if strategy.sharing() == Sharing::Identity {
            report(name, || ours(strategy));
        }
    }
}

fn ours(strategy: Arc<dyn Strategy>) -> Throttle {
    let throttle = Throttle::builder("bytes")
        .rate("100/hour")
        .strategy(strategy)
        .backend(backend())
        .build()
        .expect("valid");
    for address in addresses() {
        let decision = throttle.hit_now(&Identity::ip(address));
        assert!(decision.is_ok_and(|decision| decision.is_allowed()));
    }
    throttle
}

/// With room to spare: shards never fill evenly.
fn backend() -> MemoryBackend {
    let backend = MemoryBackend::builder().max_keys(2_000_000).build();
    backend.expect("valid")
}

fn addresses() -> impl Iterator<Item = IpAddr> {
    (0..KEYS).map(|n| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)))
}

fn report<T>(name: &str, fill: impl FnOnce() -> T) {
    let mut filled = None;
    let allocated = allocation_counter::measure(|| filled = Some(fill()));
    let per_key = allocated.bytes_current as f64 / f64::from(KEYS);
    println!("  {name:24} {per_key:6.1}");
    drop(filled);
}
