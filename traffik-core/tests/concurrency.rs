//! Many threads at once: exactly the limit is admitted, and no batch is charged by half.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use traffik_core::{
    FixedWindow, Gcra, Hits, Identity, ManualClock, MemoryBackend, Strategy, Throttle, TokenBucket,
};

const THREADS: usize = 64;
const LIMIT: u64 = 1_000;

/// On a clock that stands still, so that nothing is earned back.
fn memory() -> MemoryBackend {
    let backend = MemoryBackend::builder().clock(ManualClock::default());
    backend.build().unwrap()
}

fn throttle(name: &str, strategy: impl Strategy, backend: &MemoryBackend) -> Throttle {
    Throttle::builder(name)
        .rate(format!("{LIMIT}/hour"))
        .strategy(strategy)
        .backend(backend.clone())
        .build()
        .unwrap()
}

/// Lets all threads call `f` with their number at the same time, `times` times each.
fn hammer(times: u64, f: impl Fn(usize) + Sync) {
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (start, f) = (&start, &f);
            scope.spawn(move || {
                start.wait();
                for _ in 0..times {
                    f(thread);
                }
            });
        }
    });
}

fn admits_exactly_the_limit(strategy: impl Strategy) {
    let throttle = throttle("hammered", strategy, &memory());
    let ann = Identity::of("ann");
    let admitted = AtomicU64::new(0);
    hammer(100, |_| {
        let decision = throttle.hit_now(&ann).unwrap();
        admitted.fetch_add(u64::from(decision.is_allowed()), Ordering::Relaxed);
    });
    assert_eq!(admitted.into_inner(), LIMIT);
}

#[test]
fn a_hammered_fixed_window_admits_exactly_its_limit() {
    admits_exactly_the_limit(FixedWindow::new());
}

#[test]
fn a_hammered_token_bucket_admits_exactly_its_burst() {
    admits_exactly_the_limit(TokenBucket::new());
}

#[test]
fn a_hammered_gcra_admits_exactly_its_tolerance_and_one() {
    // 1000 an hour are 3.6 s apart.
    let tolerance = Duration::from_millis(3_600 * (LIMIT - 1));
    admits_exactly_the_limit(Gcra::new().burst_tolerance(tolerance));
    admits_exactly_the_limit(Gcra::new().burst_tolerance(tolerance).strict());
}

/// Everybody charges a limit of their own and one that all share, in either order. The shared one
/// runs out: were a batch ever charged by half, what the owners have taken would not add up to it.
#[test]
fn a_batch_is_charged_as_a_whole_or_not_at_all() {
    let backend = memory();
    let shared = throttle("shared", FixedWindow::new(), &backend);
    let own = throttle("own", TokenBucket::new(), &backend);
    let everybody = Identity::of("everybody");
    let owners: Vec<Identity> = (0..THREADS).map(Identity::of).collect();

    let admitted: Vec<AtomicU64> = owners.iter().map(|_| AtomicU64::new(0)).collect();
    hammer(100, |thread| {
        let owner = &owners[thread];
        let pairs = match thread % 2 {
            0 => [(&shared, &everybody), (&own, owner)],
            _ => [(&own, owner), (&shared, &everybody)],
        };
        let decisions = Hits::from_iter(pairs).try_decide().unwrap().unwrap();
        let count = u64::from(decisions.is_allowed());
        admitted[thread].fetch_add(count, Ordering::Relaxed);
    });

    let left = |throttle: &Throttle, identity| {
        let nothing = traffik_core::Attempt::by(identity).cost(0);
        throttle.hit_now(nothing).unwrap().remaining()
    };
    let mut total = 0;
    for (owner, admitted) in owners.iter().zip(admitted) {
        let admitted = admitted.into_inner();
        assert_eq!(left(&own, owner), LIMIT - admitted);
        total += admitted;
    }
    assert_eq!(total, LIMIT);
    assert_eq!(left(&shared, &everybody), 0);
}
