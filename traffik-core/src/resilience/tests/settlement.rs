//! What is admitted without a store is charged there once it is back: limits are not given again.

use super::*;
use crate::time::Clock;

/// Several nodes on one store.
struct Nodes {
    clock: ManualClock,
    store: Store,
    nodes: Vec<(Store, Failover<Store, MemoryBackend>, Throttle)>,
    /// On the store itself, which never fails here.
    direct: Throttle,
}

impl Nodes {
    fn new(count: u32, rate: &str, strategy: &Arc<dyn Strategy>) -> Nodes {
        let clock = ManualClock::default();
        let store = Store::new(&clock);
        let over = |backend: Arc<dyn Backend>| {
            let builder = Throttle::builder("api").rate(rate).backend(backend);
            let builder = builder.strategy(Arc::clone(strategy));
            builder.on_error(OnError::Raise).build().unwrap()
        };
        let node = |_| {
            let store = store.elsewhere();
            let breaker = CircuitBreaker::builder().clock(clock.clone());
            let backend = store
                .clone()
                .failover(memory(&clock), breaker.build().unwrap())
                .nodes(count)
                .clock(clock.clone());
            (store, backend.clone(), over(Arc::new(backend)))
        };
        Nodes {
            nodes: (0..count).map(node).collect(),
            direct: over(Arc::new(store.clone())),
            clock,
            store,
        }
    }

    fn cut(&self, nodes: usize, failing: bool) {
        for (store, ..) in &self.nodes[..nodes] {
            store.fail(failing);
        }
    }

    /// Everything that each node admits, one after the other.
    fn drain(&self) -> u64 {
        self.nodes.iter().map(|(.., api)| drain(api)).sum()
    }

    /// One hit of each node: then all know what is left.
    fn greet(&self) -> u64 {
        let hits = self.nodes.iter().map(|(.., api)| hit(api));
        hits.filter(Decision::is_allowed).count() as u64
    }

    /// An outage of a second, in which all ask on.
    fn outage(&self, nodes: usize) -> u64 {
        self.cut(nodes, true);
        let mut admitted = 0;
        for _ in 0..10 {
            admitted += self.drain();
            self.clock.advance_micros(100_000);
        }
        self.cut(nodes, false);
        admitted
    }

    /// Six seconds, in which everything is settled.
    fn settle(&self) -> u64 {
        let mut admitted = 0;
        for _ in 0..60 {
            admitted += self.drain();
            self.clock.advance_micros(100_000);
        }
        assert!(self.nodes.iter().all(|(_, node, _)| node.info().owing == 0));
        admitted
    }
}

/// What a store alone would admit at once.
fn whole(rate: &str, strategy: &Arc<dyn Strategy>) -> u64 {
    drain(&Nodes::new(1, rate, strategy).direct)
}

/// Three nodes admitted 100 + 100 + 100 of 300, and the store another 300 when it was back.
#[test]
fn an_outage_does_not_give_a_limit_again() {
    for strategy in every_strategy() {
        for count in [1, 2, 3] {
            let nodes = Nodes::new(count, "300/day", &strategy);
            let whole = whole("300/day", &strategy);
            let mut admitted = nodes.greet();
            admitted += nodes.outage(count as usize);
            let before = admitted;
            admitted += nodes.settle();
            let most = match strategy.id() {
                // A post-paid hit is admitted before it is paid for, on every node.
                "gcra" => whole + u64::from(count),
                _ => whole,
            };
            assert!(before > 0, "{strategy:?}");
            assert!(
                admitted <= most,
                "{admitted} > {most} on {count}: {strategy:?}"
            );
        }
    }
}

/// A flapping store multiplied every limit.
#[test]
fn outages_in_a_row_do_not_multiply_a_limit() {
    for strategy in every_strategy() {
        for count in [1, 3] {
            let nodes = Nodes::new(count, "300/day", &strategy);
            let whole = whole("300/day", &strategy);
            let mut admitted = nodes.greet();
            for _ in 0..20 {
                admitted += nodes.outage(count as usize);
                nodes.clock.advance_micros(300_000);
                admitted += nodes.greet();
            }
            admitted += nodes.settle();
            // Whoever probes in the wrong moments misses that the store was there, and is cut off for
            // longer than the others: two of three at most.
            let missed = whole * u64::from(count - 1) / u64::from(count);
            let most = match strategy.id() {
                "gcra" => whole + missed + u64::from(count),
                _ => whole + missed,
            };
            assert!(
                admitted <= most,
                "{admitted} > {most} on {count}: {strategy:?}"
            );
        }
    }
}

/// The nodes that are not cut off cannot know: what the others admit comes on top, and no more.
#[test]
fn a_partial_outage_admits_only_the_shares_of_those_cut_off() {
    for strategy in every_strategy() {
        if matches!(strategy.id(), "gcra" | "adaptive_throttle") {
            continue; // Held to bounds of their own elsewhere.
        }
        for cut in [1, 2] {
            let nodes = Nodes::new(3, "300/day", &strategy);
            let whole = whole("300/day", &strategy);
            let mut admitted = nodes.greet();
            admitted += nodes.outage(cut);
            admitted += nodes.settle();
            let most = whole + whole * cut as u64 / 3;
            assert!(
                admitted <= most,
                "{admitted} > {most} with {cut} of 3: {strategy:?}"
            );
            // Afterwards the store knows of all of it.
            assert_eq!(drain(&nodes.direct), 0, "{strategy:?}");
        }
    }
}

/// 1200/60s admitted 1202 + 1205: whatever would have had to wait for 50 ms or less.
#[test]
fn a_burst_is_not_given_again_however_fast_it_refills() {
    for (rate, refilled) in [("1200/60s", 20), ("60000/60s", 1_000), ("10/10s", 1)] {
        let outage = Outage::new();
        let api = throttle(rate, TokenBucket::new(), outage.backend.clone());
        drain(&api);
        outage.store.fail(false);
        outage.clock.advance(Duration::from_secs(5));
        drain(&api);
        outage.clock.advance(Duration::from_secs(1));
        assert_eq!(drain(&api), refilled, "{rate}");
    }
}

/// Memory knew nothing of windows: 3.00 x the limit in 2.3 s.
#[test]
fn an_outage_over_the_edge_of_a_window_counts_in_the_window_of_each_hit() {
    let window: Arc<dyn Strategy> = Arc::new(FixedWindow);
    for count in [1, 3] {
        let nodes = Nodes::new(count, "30/10s", &window);
        let start = nodes.clock.now().as_micros() / 10_000_000 * 10_000_000;
        nodes.clock.set(Timestamp::from_micros(start + 9_500_000));
        assert_eq!(nodes.greet() + nodes.outage(count as usize), 60);
        // The second window has 5 s left to tell.
        assert_eq!(nodes.settle(), 0);
        // What was admitted in the second window is charged to it, not to the third.
        nodes.clock.set(Timestamp::from_micros(start + 20_000_000));
        assert_eq!(nodes.greet() + nodes.settle(), 30);
    }
}

/// A debt is no longer than what a store that knew of all would remember.
#[test]
fn after_a_long_outage_a_bucket_goes_on_as_if_there_had_been_none() {
    let bucket: Arc<dyn Strategy> = Arc::new(TokenBucket::new());
    let (nodes, whole) = (
        Nodes::new(1, "10/s", &bucket),
        Nodes::new(1, "10/s", &bucket),
    );
    let both = |rounds: u32| {
        let mut admitted = (0, 0);
        for _ in 0..rounds {
            admitted.0 += nodes.greet();
            admitted.1 += whole.greet();
            nodes.clock.advance_micros(70_000);
            whole.clock.advance_micros(70_000);
        }
        admitted
    };
    let _ = both(5);
    nodes.cut(1, true);
    let (without, with) = both(10_000);
    assert_eq!(without, with);
    nodes.cut(1, false);
    let (without, with) = both(10_000);
    // Debts are whole hits, rounded up.
    assert!(
        without <= with && with - without <= 2,
        "{without}, not {with}"
    );
}

#[test]
fn what_nobody_hits_again_is_charged_along_with_others() {
    let window: Arc<dyn Strategy> = Arc::new(FixedWindow);
    let nodes = Nodes::new(1, "10/hour", &window);
    let (_, backend, api) = &nodes.nodes[0];
    nodes.cut(1, true);
    for who in 0..100 {
        assert!(now(api.hit(&Identity::of(who))).unwrap().is_degraded());
    }
    assert_eq!(backend.info().owing, 100);
    nodes.cut(1, false);
    nodes.clock.advance(Duration::from_secs(5));
    spend(api, 3);
    assert!(backend.info().owing > 60, "a portion at a time");
    spend(api, 20);
    assert_eq!(backend.info().owing, 0);
    for who in 0..100 {
        let left = now(nodes.direct.hit(&Identity::of(who)))
            .unwrap()
            .remaining();
        assert_eq!(left, 8);
    }
}

/// With nobody asking at all.
#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn a_task_charges_what_nobody_hits_again() {
    let window: Arc<dyn Strategy> = Arc::new(FixedWindow);
    let nodes = Nodes::new(1, "10/hour", &window);
    let (_, backend, api) = &nodes.nodes[0];
    nodes.cut(1, true);
    for who in 0..1_000 {
        assert!(api.hit(&Identity::of(who)).await.unwrap().is_degraded());
    }
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(backend.info().owing, 1_000);
    nodes.cut(1, false);
    nodes.clock.advance(Duration::from_secs(5));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(backend.info().owing, 0);
    for who in 0..1_000 {
        let left = nodes.direct.hit(&Identity::of(who)).await.unwrap();
        assert_eq!(left.remaining(), 8);
    }
    // It has ended, and another begins with the next debt.
    nodes.cut(1, true);
    assert!(api.hit(&Identity::of("ann")).await.unwrap().is_degraded());
    nodes.cut(1, false);
    nodes.clock.advance(Duration::from_secs(5));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(backend.info().owing, 0);
}

/// Clients were the probes: each waited for a store that was still away.
#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn in_a_runtime_no_client_is_the_probe() {
    let window: Arc<dyn Strategy> = Arc::new(FixedWindow);
    let nodes = Nodes::new(1, "1000/hour", &window);
    let (store, backend, api) = &nodes.nodes[0];
    nodes.cut(1, true);
    let hit = async || api.hit(&Identity::of("ann")).await.unwrap();
    for _ in 0..5 {
        assert!(hit().await.is_degraded());
    }
    let breaker = backend.breaker();
    assert!(breaker.state().is_open());
    for _ in 0..20 {
        nodes.clock.advance(Duration::from_secs(5));
        let refused = breaker.info().refused_total;
        assert!(hit().await.is_degraded());
        assert_eq!(breaker.info().refused_total, refused + 1);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(breaker.info().opened_total, 21);
    store.fail(false);
    nodes.clock.advance(Duration::from_secs(5));
    assert!(hit().await.is_degraded());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert!(!hit().await.is_degraded());
}

/// The task left when it saw no debt, and the hit that was about to pay it went away: nobody paid.
#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn a_hit_that_was_paying_went_away_and_so_had_the_task() {
    let clock = ManualClock::default();
    let slow = Slow::new(&Store::new(&clock));
    let store = &slow.store;
    let backend = slow.clone().fallback(memory(&clock)).clock(clock.clone());
    let api = throttle("10/hour", FixedWindow, backend.clone());
    let (ann, ben) = (Identity::of("ann"), Identity::of("ben"));
    store.fail(true);
    assert!(api.hit(&ann).await.unwrap().is_degraded());
    store.fail(false);
    assert!(!api.hit(&ben).await.unwrap().is_degraded());
    slow.answers_after(Duration::from_secs(3_600));
    let paying = tokio::time::timeout(Duration::from_millis(300), api.hit(&ann));
    assert!(paying.await.is_err());
    slow.answers_after(Duration::ZERO);
    assert_eq!(backend.info().owing, 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(backend.info().owing, 0);
    let direct = throttle("10/hour", FixedWindow, store.clone());
    assert_eq!(direct.hit(&ann).await.unwrap().remaining(), 8);
}

/// The second store owed the first one hit for each payment, whatever that was of: 5 of 504.
#[test]
fn what_memory_admitted_is_charged_to_both_stores_before_it() {
    let clock = ManualClock::default();
    let (first, second) = (Store::new(&clock), Store::new(&clock));
    let inner = first.clone().fallback(second.clone()).clock(clock.clone());
    let outer = inner.clone().fallback(memory(&clock)).clock(clock.clone());
    let api = throttle("1000/day", FixedWindow, outer.clone());
    let left = |store: &Store| {
        let direct = throttle("1000/day", FixedWindow, store.clone());
        now(direct.stat(&Identity::of("ann"))).unwrap().remaining
    };
    first.fail(true);
    second.fail(true);
    spend(&api, 500);
    second.fail(false);
    spend(&api, 1);
    assert_eq!(outer.info().owing, 0);
    assert_eq!(left(&second), 499);
    assert_eq!(inner.info().owing, 1);
    first.fail(false);
    spend(&api, 2);
    assert_eq!(inner.info().owing, 0);
    assert_eq!(left(&first), 497);
}

/// Less is admitted then, never more.
#[test]
fn a_payment_whose_answer_was_lost_is_made_again() {
    let window: Arc<dyn Strategy> = Arc::new(FixedWindow);
    let nodes = Nodes::new(1, "100/hour", &window);
    let (store, backend, api) = &nodes.nodes[0];
    nodes.cut(1, true);
    spend(api, 10);
    nodes.cut(1, false);
    nodes.clock.advance(Duration::from_secs(5));
    spend(api, 2);
    assert_eq!(backend.info().owing, 0);
    nodes.cut(1, true);
    spend(api, 10);
    nodes.cut(1, false);
    store.losing.store(true, Ordering::Relaxed);
    for _ in 0..10 {
        nodes.clock.advance(Duration::from_secs(5));
        spend(api, 1);
    }
    assert!(backend.info().owing > 0);
    store.losing.store(false, Ordering::Relaxed);
    nodes.clock.advance(Duration::from_secs(5));
    let admitted = 10 + 2 + 10 + 10 + drain(api);
    assert!(admitted <= 100, "{admitted}");
}

#[test]
fn a_reset_forgives_debts() {
    let window: Arc<dyn Strategy> = Arc::new(FixedWindow);
    let nodes = Nodes::new(1, "10/hour", &window);
    let (_, backend, api) = &nodes.nodes[0];
    nodes.cut(1, true);
    spend(api, 10);
    assert_eq!(backend.info().owing, 1);
    nodes.cut(1, false);
    now(backend.reset()).unwrap();
    assert_eq!(backend.info().owing, 0);
    nodes.clock.advance(Duration::from_secs(5));
    assert_eq!(drain(api), 10);
}

#[test]
fn closing_pays_debts_first() {
    let window: Arc<dyn Strategy> = Arc::new(FixedWindow);
    let nodes = Nodes::new(1, "10/hour", &window);
    let (_, backend, api) = &nodes.nodes[0];
    nodes.cut(1, true);
    spend(api, 1);
    nodes.cut(1, false);
    now(backend.close()).unwrap();
    assert_eq!(backend.info().owing, 0);
    assert_eq!(drain(&nodes.direct), 9);
}

#[test]
fn debts_are_bounded_and_end_with_what_they_are_of() {
    let window: Arc<dyn Strategy> = Arc::new(FixedWindow);
    let nodes = Nodes::new(1, "10/s", &window);
    let (_, backend, api) = &nodes.nodes[0];
    nodes.cut(1, true);
    let meet = |from: u32| {
        for who in from..from + 2_000 {
            assert!(now(api.hit(&Identity::of(who))).unwrap().is_degraded());
        }
    };
    meet(0);
    assert_eq!(backend.info().owing, 1_024);
    nodes.clock.advance(Duration::from_secs(1));
    meet(1_000_000);
    assert_eq!(backend.info().owing, 1_024);
    assert!(nodes.store.calls() < 10);
}
