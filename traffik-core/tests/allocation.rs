//! An admitted decision in memory takes nothing from the heap.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::IpAddr;
use std::time::Duration;

use traffik_core::{
    FixedWindow, Gcra, Hits, Identity, MemoryBackend, Strategy, Throttle, TokenBucket,
};

const TIMES: u32 = 1_000;

fn throttle(name: &str, strategy: impl Strategy, backend: &MemoryBackend) -> Throttle {
    Throttle::builder(name)
        .rate("1000000/day")
        .strategy(strategy)
        .backend(backend.clone())
        .build()
        .unwrap()
}

fn throttles() -> [Throttle; 3] {
    let backend = MemoryBackend::new();
    let tolerant = Gcra::new().burst_tolerance(Duration::from_secs(24 * 60 * 60));
    [
        throttle("window", FixedWindow::new(), &backend),
        throttle("bucket", TokenBucket::new(), &backend),
        throttle("gcra", tolerant, &backend),
    ]
}

fn peer() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

/// How often `f`, called many times, asked the allocator for memory.
fn allocations(f: impl Fn()) -> u64 {
    f(); // the key comes into being, and with it its place
    let counted = allocation_counter::measure(|| {
        for _ in 0..TIMES {
            f();
        }
    });
    counted.count_total
}

#[test]
fn a_decision_allocates_nothing() {
    for throttle in throttles() {
        let count = allocations(|| {
            let decision = throttle.hit_now(&Identity::ip(peer())).unwrap();
            assert!(decision.is_allowed());
        });
        assert_eq!(count, 0, "{}", throttle.name());
    }
}

#[test]
fn a_batch_of_three_allocates_nothing() {
    let throttles = throttles();
    let count = allocations(|| {
        let peer = Identity::ip(peer());
        let hits: Hits<'_> = throttles.iter().map(|throttle| (throttle, &peer)).collect();
        let decisions = hits.try_decide().unwrap().unwrap();
        assert!(decisions.is_allowed());
    });
    assert_eq!(count, 0);
}

/// What is held is spent as cheaply as memory decides.
#[cfg(feature = "tokio")]
#[test]
fn a_decision_by_a_lease_allocates_nothing() {
    use traffik_core::{Backend, BackendExt, CircuitBreaker, Lease};

    fn build_on(name: &str, backend: impl Backend) -> Throttle {
        let builder = Throttle::builder(name).rate("10000000/day");
        let builder = builder.strategy(TokenBucket::new());
        builder.backend(backend).build().unwrap()
    }

    let minute = Duration::from_secs(60);
    let lease = Lease::new().period(minute).length(2 * minute);
    let leased = MemoryBackend::new().lease(lease);
    let throttles = ["one", "two"].map(|name| build_on(name, leased.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let peer = Identity::ip(peer());
    runtime.block_on(async {
        for throttle in &throttles {
            for _ in 0..5_000 {
                assert!(throttle.hit(&peer).await.unwrap().is_allowed());
            }
        }
    });

    // Outside of a runtime nothing is asked for.
    let before = leased.info();
    let count = allocations(|| assert!(throttles[0].hit_now(&peer).unwrap().is_allowed()));
    assert_eq!(count, 0);
    let count = allocations(|| {
        let hits: Hits<'_> = throttles.iter().map(|throttle| (throttle, &peer)).collect();
        assert!(hits.try_decide().unwrap().unwrap().is_allowed());
    });
    assert_eq!(count, 0);

    // Nor does the memory that follows them, in case that the store fails.
    let followed = leased
        .clone()
        .failover(MemoryBackend::new(), CircuitBreaker::new());
    let throttle = build_on("one", followed);
    let count = allocations(|| assert!(throttle.hit_now(&peer).unwrap().is_allowed()));
    assert_eq!(count, 0);
    let info = leased.info();
    assert_eq!(
        (info.local - before.local, info.trips),
        (4 * 1_001, before.trips)
    );
}

/// Otherwise a count of zero would mean nothing.
#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(Identity::of("ann"))), u64::from(TIMES));
}
