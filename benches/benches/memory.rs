//! Live bytes per tracked key, beside governor's keyed limiter.
//!
//! `cargo bench -p traffik-benches --bench memory [-- <keys> <strategy>...]`

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{Quota, RateLimiter};
use traffik_core::{Identity, MemoryBackend, Sharing, Strategy, Throttle, strategy};

fn main() {
    let arguments = || std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let keys = arguments().find_map(|arg| arg.parse().ok());
    let keys = keys.unwrap_or(1_000_000);
    let chosen: Vec<_> = arguments()
        .filter(|arg| arg.parse::<u32>().is_err())
        .collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|one| one == name);
    println!("live bytes per key at {keys} keys");
    let quota = Quota::per_hour(NonZeroU32::new(100).expect("not zero"));
    report("governor", keys, || {
        let limiter = RateLimiter::keyed(quota);
        for address in addresses(keys) {
            limiter.check_key(&address).expect("the first hit of a key");
        }
        limiter
    });
    for name in strategy::NAMES.iter().filter(|name| wanted(name)) {
        let strategy = strategy::named(name).expect("one of the names");
        // One cell for everybody is nothing per client.
        if strategy.sharing() == Sharing::Identity {
            report(name, keys, || ours(strategy, keys));
        }
    }
}

fn ours(strategy: Arc<dyn Strategy>, keys: u32) -> Throttle {
    let throttle = Throttle::builder("bytes")
        .rate("100/hour")
        .strategy(strategy)
        .backend(backend())
        .build()
        .expect("valid");
    for address in addresses(keys) {
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

fn addresses(keys: u32) -> impl Iterator<Item = IpAddr> {
    (0..keys).map(|n| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)))
}

fn report<T>(name: &str, keys: u32, fill: impl FnOnce() -> T) {
    let mut filled = None;
    let allocated = allocation_counter::measure(|| filled = Some(fill()));
    let per_key = allocated.bytes_current as f64 / f64::from(keys);
    println!("  {name:24} {per_key:6.1}");
    drop(filled);
}
