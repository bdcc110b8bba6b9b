//! A store that fails on command, and what wrappers make of it.

mod permits;
mod settlement;

use std::cell::RefCell;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{BackendExt, BreakerState, CircuitBreaker, Failover, Retry};
use crate::backend::{Backend, Batch, BoxFuture, Op};
use crate::{
    Attempt, Cell, Decision, Decisions, Error, FixedWindow, Gcra, Hits, Identity, ManualClock,
    MemoryBackend, OnError, Result, Strategy, Throttle, Timestamp, TokenBucket, Verdict,
};

/// Answers as a store in another process would: under shared keys, and by `apply` only, unless it
/// remembers to deny or is told to answer at once.
#[derive(Clone, Debug)]
pub(super) struct Store {
    cells: MemoryBackend,
    failing: Arc<AtomicBool>,
    remembering: Arc<AtomicBool>,
    at_once: bool,
    error: fn() -> Error,
    calls: Arc<AtomicU64>,
    /// Whether answers are lost after what was asked has been done.
    losing: Arc<AtomicBool>,
}

impl Store {
    pub(super) fn new(clock: &ManualClock) -> Store {
        Store {
            cells: memory(clock),
            failing: Arc::default(),
            remembering: Arc::default(),
            at_once: false,
            error: || Error::timeout("the store did not answer within 50ms"),
            calls: Arc::default(),
            losing: Arc::default(),
        }
    }

    /// The same store, seen from a node that is cut off for itself.
    fn elsewhere(&self) -> Store {
        Store {
            failing: Arc::default(),
            ..self.clone()
        }
    }

    pub(super) fn failing_with(mut self, error: fn() -> Error) -> Store {
        self.error = error;
        self.fail(true);
        self
    }

    pub(super) fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// As Redis does, no denial of what corrects counts.
    fn remembers(&self, batch: &Batch<'_>) -> bool {
        let corrects = |op: &Op<'_>| op.strategy.is_correction();
        self.remembering.load(Ordering::Relaxed) && !batch.ops().iter().any(corrects)
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match self.failing.load(Ordering::Relaxed) {
            true => Err((self.error)()),
            false => {
                let done = call.await;
                match self.losing.load(Ordering::Relaxed) {
                    true => Err((self.error)()),
                    false => done,
                }
            }
        }
    }
}

impl Backend for Store {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(async {
            match self.remembers(batch) {
                true => Ok(Decision::deny(1, 0, 1).into()),
                // Memory charges when it is called, not when it is awaited.
                false => self.call(async { self.cells.apply(batch).await }).await,
            }
        })
    }

    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        let at_once = self.at_once || self.remembers(batch);
        at_once.then(|| now(self.apply(batch)))
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(self.call(async { self.cells.load(op).await }))
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.call(async { self.cells.reset().await }))
    }

    fn now(&self) -> Timestamp {
        Backend::now(&self.cells)
    }
}

/// A store that takes its time.
#[derive(Clone, Debug)]
struct Slow {
    store: Store,
    answers_after_ms: Arc<AtomicU64>,
}

impl Slow {
    fn new(store: &Store) -> Slow {
        Slow {
            store: store.clone(),
            answers_after_ms: Arc::default(),
        }
    }

    fn answers_after(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.answers_after_ms.store(ms, Ordering::Relaxed);
    }
}

impl Backend for Slow {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(async {
            let ms = self.answers_after_ms.load(Ordering::Relaxed);
            if ms > 0 {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            self.store.apply(batch).await
        })
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        self.store.load(op)
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        self.store.reset()
    }

    fn now(&self) -> Timestamp {
        self.store.now()
    }
}

/// The result of a future that waits for nothing.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the future waits"),
    }
}

fn memory(clock: &ManualClock) -> MemoryBackend {
    MemoryBackend::builder()
        .clock(clock.clone())
        .build()
        .unwrap()
}

fn breaker(clock: &ManualClock) -> CircuitBreaker {
    CircuitBreaker::builder()
        .failure_threshold(3)
        .recovery_timeout(Duration::from_secs(5))
        .clock(clock.clone())
        .build()
        .unwrap()
}

pub(super) fn throttle(rate: &str, strategy: impl Strategy, backend: impl Backend) -> Throttle {
    Throttle::builder("api")
        .rate(rate)
        .strategy(strategy)
        .backend(backend)
        .on_error(OnError::Raise)
        .build()
        .unwrap()
}

fn hit(throttle: &Throttle) -> Decision {
    now(throttle.hit(&Identity::of("ann"))).unwrap()
}

fn spend(throttle: &Throttle, hits: usize) {
    for _ in 0..hits {
        let _ = hit(throttle);
    }
}

fn every_strategy() -> Vec<Arc<dyn Strategy>> {
    use crate::strategy::*;
    let tolerance = Duration::from_millis(400);
    vec![
        Arc::new(FixedWindow),
        Arc::new(SlidingWindowLog),
        Arc::new(SlidingWindowCounter),
        Arc::new(TokenBucket::new()),
        Arc::new(TokenBucket::new().burst(20)),
        Arc::new(TokenBucketWithDebt::new().max_debt(5)),
        Arc::new(LeakyBucket),
        Arc::new(LeakyBucketWithQueue),
        Arc::new(Gcra::new()),
        Arc::new(Gcra::new().burst_tolerance(tolerance)),
        Arc::new(Gcra::new().strict().burst_tolerance(tolerance)),
        Arc::new(TieredRate::new()),
        Arc::new(QuotaWithRollover::new()),
        Arc::new(AdaptiveThrottle::new()),
        Arc::new(PriorityQueue::new()),
        Arc::new(CostBasedTokenBucket::new()),
        Arc::new(GeographicDistribution::new()),
        Arc::new(DistributedFairness::new("a")),
        Arc::new(TimeOfDay::new()),
    ]
}

/// How many hits of cost 1 are admitted at once.
fn drain(throttle: &Throttle) -> u64 {
    (0..).take_while(|_| hit(throttle).is_allowed()).count() as u64
}

/// A failing store with a failover to memory.
struct Outage {
    clock: ManualClock,
    store: Store,
    memory: MemoryBackend,
    backend: Failover<Store, MemoryBackend>,
}

impl Outage {
    fn new() -> Outage {
        let clock = ManualClock::default();
        let store = Store::new(&clock);
        store.fail(true);
        let memory = memory(&clock);
        let backend = store
            .clone()
            .failover(memory.clone(), breaker(&clock))
            .clock(clock.clone());
        Outage {
            clock,
            store,
            memory,
            backend,
        }
    }

    fn throttle(&self, rate: &str) -> Throttle {
        throttle(rate, FixedWindow, self.backend.clone())
    }
}

/// Issue: SPEC 3.33. A success of the fallback was recorded as one of the primary, so failures never
/// added up and the breaker never opened.
#[test]
fn success_of_the_fallback_is_not_success_of_the_primary() {
    let outage = Outage::new();
    let api = outage.throttle("100/hour");
    for _ in 0..10 {
        assert!(hit(&api).is_degraded());
    }
    assert_eq!(outage.backend.breaker().state(), BreakerState::Open);
    assert_eq!(outage.store.calls(), 3);
}

/// Issue: SPEC 3.33. The same success closed a half-open breaker.
#[test]
fn success_of_the_fallback_does_not_end_an_outage() {
    let outage = Outage::new();
    let api = outage.throttle("100/hour");
    spend(&api, 3);
    outage.clock.advance(Duration::from_secs(5));
    spend(&api, 1);
    assert_eq!(outage.backend.breaker().state(), BreakerState::Open);
    assert_eq!(outage.backend.breaker().info().opened_total, 2);
}

/// Issue: SPEC 3.34. The breaker was asked only after the primary had failed, so every request of an
/// outage paid for a timeout.
#[test]
fn an_open_breaker_spares_the_primary() {
    let outage = Outage::new();
    let api = outage.throttle("100/hour");
    spend(&api, 3);
    for _ in 0..50 {
        // Nothing is waited for, nor boxed: memory decides.
        assert!(api.hit_now(&Identity::of("ann")).unwrap().is_degraded());
    }
    assert_eq!(outage.store.calls(), 3);
    assert_eq!(outage.backend.breaker().info().refused_total, 50);
    assert_eq!(outage.backend.info().degraded_total, 53);
}

#[test]
fn the_primary_decides_again_once_it_has_recovered() {
    let outage = Outage::new();
    let api = outage.throttle("100/hour");
    spend(&api, 9);
    outage.store.fail(false);
    assert!(hit(&api).is_degraded());
    outage.clock.advance(Duration::from_secs(5));
    assert!(!hit(&api).is_degraded());
    // What was admitted meanwhile has been charged, which is the second success.
    assert_eq!(outage.backend.info().owing, 0);
    assert_eq!(outage.backend.breaker().state(), BreakerState::Closed);
    assert!(!hit(&api).is_degraded());
}

/// Not with every request: a log that fills up is an outage of its own.
#[test]
fn says_once_that_an_outage_begins_and_once_that_it_ends() {
    let outage = Outage::new();
    let api = outage.throttle("100/hour");
    let lines = log_lines(|| {
        spend(&api, 2);
        // An error now and then is one outage, not many.
        for failing in [false, true, false, true] {
            outage.store.fail(failing);
            spend(&api, if failing { 1 } else { 5 });
            outage.clock.advance(Duration::from_millis(900));
        }
        assert!(outage.backend.info().lasts);
    });
    let begins = "the backend of rate limits fails, its fallback decides: \
                  the store did not answer within 50ms";
    assert_eq!(lines, [begins]);

    let lines = log_lines(|| {
        outage.store.fail(false);
        spend(&api, 1);
        outage.clock.advance(Duration::from_secs(1));
        spend(&api, 9);
        assert!(!outage.backend.info().lasts);
    });
    assert_eq!(lines, ["the backend of rate limits decides again"]);

    let lines = log_lines(|| {
        outage.store.fail(true);
        spend(&api, 50);
    });
    let opens = "circuit breaker `store`: closed -> open: the store did not answer within 50ms";
    assert_eq!(lines, [begins, opens]);
}

/// Else nobody would know that a throttle protects nothing, or denies everybody.
#[test]
fn a_throttle_without_a_fallback_says_so_too() {
    let handler = OnError::handler(|failure| {
        let answer = failure.allow();
        async move { Ok(answer) }
    });
    let cases = [
        (OnError::Allow, 9),
        (OnError::Throttle, 9),
        (handler, 9),
        (OnError::Raise, 0),
    ];
    for (policy, degraded) in cases {
        let clock = ManualClock::default();
        let store = Store::new(&clock);
        let api = Throttle::builder("api").rate("100/hour").on_error(policy);
        let api = api.backend(store.clone()).build().unwrap();
        let (lasts, none) = (api.outage().lasts, log_lines(|| spend(&api, 2)));
        assert_eq!((lasts, none), (false, vec![]));
        let lines = log_lines(|| {
            store.fail(true);
            for _ in 0..9 {
                let _ = now(api.hit(&Identity::of("ann")));
            }
        });
        let begins = "the backend of throttle `api` fails, its error policy decides: \
                      the store did not answer within 50ms";
        assert_eq!(lines, [begins]);
        assert!(api.outage().lasts);
        assert_eq!(api.outage().degraded_total, degraded);
        // An error now and then is one outage: it is over after a second without one.
        store.fail(false);
        assert_eq!(log_lines(|| spend(&api, 9)), [""; 0]);
        assert!(api.outage().lasts);
    }
}

/// What this thread logs meanwhile.
fn log_lines(run: impl FnOnce()) -> Vec<String> {
    thread_local! {
        static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }
    struct Collector;
    impl log::Log for Collector {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
        }
        fn flush(&self) {}
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Collector).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
    LINES.take();
    run();
    LINES.take()
}

#[test]
fn only_errors_that_match_are_taken_over() {
    let clock = ManualClock::default();
    let store = Store::new(&clock).failing_with(|| Error::invalid("no such thing"));
    let api = throttle(
        "1/hour",
        FixedWindow,
        store.clone().fallback(memory(&clock)),
    );
    assert!(now(api.hit(&Identity::of("ann"))).unwrap_err().is_invalid());

    let timeouts = store
        .failing_with(|| Error::connection("refused"))
        .fallback(memory(&clock))
        .on(Error::is_timeout);
    let api = throttle("1/hour", FixedWindow, timeouts);
    assert!(
        now(api.hit(&Identity::of("ann")))
            .unwrap_err()
            .is_connection()
    );
}

/// One that is not memory was not asked again after its first outage, for a period of the rate: the hits
/// of the next ones were errors, and that one was said to last.
#[test]
fn another_store_stood_in_for_one_outage_only() {
    let clock = ManualClock::default();
    let (first, second) = (Store::new(&clock), Store::new(&clock));
    let backend = first.clone().fallback(second.clone());
    let backend = backend.clock(clock.clone());
    let api = throttle("100/hour", FixedWindow, backend.clone());
    for outage in 1..=3 {
        first.fail(true);
        assert!(hit(&api).is_degraded());
        first.fail(false);
        for _ in 0..2 {
            assert!(!hit(&api).is_degraded());
            clock.advance(Duration::from_secs(1));
        }
        assert!(!backend.info().lasts);
        // What the other one admitted is paid with the next hit.
        assert_eq!(backend.info().owing, 0);
        let direct = throttle("100/hour", FixedWindow, first.clone());
        assert_eq!(hit(&direct).remaining(), 100 - 4 * outage);
    }
}

/// It had a say after an outage, and what it said was an error: of a store that was well.
#[test]
fn a_fallback_that_failed_itself_had_hits_fail_that_a_store_would_decide() {
    fn check(fallback: impl Backend, clock: &ManualClock, fail: impl FnOnce()) {
        let store = Store::new(clock);
        let backend = store.clone().fallback(fallback).clock(clock.clone());
        let api = throttle("100/hour", FixedWindow, backend.clone());
        store.fail(true);
        assert!(hit(&api).is_degraded());
        store.fail(false);
        assert!(!hit(&api).is_degraded());
        fail();
        for left in [97, 96] {
            clock.advance(Duration::from_secs(1));
            let decision = hit(&api);
            assert_eq!(
                (decision.remaining(), decision.is_degraded()),
                (left, false)
            );
        }
        assert!(!backend.info().lasts);
    }
    let clock = ManualClock::default();
    let open = breaker(&clock);
    let other = Store::new(&clock).guarded(open.clone());
    check(other, &clock, || open.force_open());
    let open = breaker(&clock);
    let guarded = memory(&clock).guarded(open.clone());
    check(guarded, &clock, || open.force_open());
    let closed = memory(&clock);
    check(closed.clone(), &clock, || now(closed.close()).unwrap());
}

#[test]
fn wrong_arguments_and_contention_do_not_open_a_breaker() {
    let clock = ManualClock::default();
    for (error, state) in [
        (
            (|| Error::contended("busy")) as fn() -> Error,
            BreakerState::Closed,
        ),
        (|| Error::invalid("no"), BreakerState::Closed),
        (|| Error::closed("gone"), BreakerState::Closed),
        (|| Error::connection("refused"), BreakerState::Open),
        (|| Error::overloaded("full"), BreakerState::Open),
        (|| Error::other("READONLY"), BreakerState::Open),
    ] {
        let breaker = breaker(&clock);
        let store = Store::new(&clock).failing_with(error);
        let api = throttle("9/hour", FixedWindow, store.guarded(breaker.clone()));
        for _ in 0..3 {
            assert!(now(api.hit(&Identity::of("ann"))).is_err());
        }
        assert_eq!(breaker.state(), state, "{}", error());
    }
}

/// Redis denials that are remembered are given without asking Redis.
#[test]
fn a_denial_given_at_once_proves_nothing() {
    let outage = Outage::new();
    let api = outage.throttle("100/hour");
    let remember = |remembering| {
        outage
            .store
            .remembering
            .store(remembering, Ordering::Relaxed)
    };
    let ask_both_ways = || {
        // What is owed would be paid, for which the store is asked.
        let _ = now(outage.backend.reset());
        assert!(hit(&api).is_denied());
        assert!(api.hit_now(&Identity::of("ann")).unwrap().is_denied());
    };
    // The failures before are not forgotten.
    spend(&api, 2);
    remember(true);
    ask_both_ways();
    assert_eq!(outage.backend.breaker().info().failures, 2);
    remember(false);
    spend(&api, 1);
    assert!(outage.backend.breaker().state().is_open());

    // A breaker does not close.
    outage.clock.advance(Duration::from_secs(5));
    remember(true);
    for _ in 0..5 {
        ask_both_ways();
    }
    assert_eq!(outage.backend.breaker().state(), BreakerState::HalfOpen);
    assert_eq!(outage.backend.breaker().info().successes, 0);
}

/// Memory has nothing to remember denials for: what it answers at once is its answer.
#[test]
fn denials_of_a_local_backend_prove_that_it_works() {
    let clock = ManualClock::default();
    let breaker = breaker(&clock);
    let api = throttle(
        "1/hour",
        FixedWindow,
        memory(&clock).guarded(breaker.clone()),
    );
    spend(&api, 1);
    for _ in 0..3 {
        let permit = breaker.acquire().expect("a permit");
        permit.fail(&Error::other("not by memory, but for the sake of argument"));
    }
    clock.advance(Duration::from_secs(5));
    for _ in 0..2 {
        assert!(hit(&api).is_denied());
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn failures_at_once_count_as_well() {
    let clock = ManualClock::default();
    let mut store = Store::new(&clock);
    store.at_once = true;
    store.fail(true);
    let breaker = breaker(&clock);
    let backend = store.clone().failover(memory(&clock), breaker.clone());
    let api = throttle("9/hour", FixedWindow, backend);
    for _ in 0..9 {
        let decision = api.hit_now(&Identity::of("ann")).unwrap();
        assert!(decision.is_allowed() && decision.is_degraded());
    }
    assert!(breaker.state().is_open());
    assert_eq!(store.calls(), 3);
}

/// Clients go away at any time, and the futures of their requests with them.
#[test]
fn a_dropped_probe_makes_room_for_the_next() {
    let outage = Outage::new();
    let api = outage.throttle("100/hour");
    spend(&api, 3);
    outage.store.fail(false);
    outage.clock.advance(Duration::from_secs(5));

    let guarded = outage.backend.primary();
    let ann = Identity::of("ann");
    let op = api
        .op(&Attempt::by(&ann), guarded.key_hasher())
        .expect("limited");
    let batch = Batch::new(std::slice::from_ref(&op));
    let permit = guarded.breaker().acquire().expect("the first probe");
    assert!(now(guarded.apply(&batch)).unwrap_err().is_connection());
    drop(permit);
    assert!(now(guarded.apply(&batch)).is_ok());
}

/// A fair share is exact: together at most the limit, and as much of it as whole hits allow.
#[test]
fn nodes_without_their_store_admit_the_limit_together() {
    for limit in [1, 2, 3, 7, 10, 100] {
        for nodes in [1, 2, 3, 4, 7, 11] {
            let rate = format!("{limit}/hour");
            let admitted = |strategy: fn(&str, Failover<Store, MemoryBackend>) -> Throttle| {
                (0..nodes)
                    .map(|_| {
                        let outage = Outage::new();
                        drain(&strategy(&rate, outage.backend.clone().nodes(nodes)))
                    })
                    .sum::<u64>()
            };
            let whole = u64::from(limit / nodes * nodes);
            let window = admitted(|rate, backend| throttle(rate, FixedWindow, backend));
            assert_eq!(window, whole, "{rate} on {nodes}");
            let bucket = admitted(|rate, backend| throttle(rate, TokenBucket::new(), backend));
            assert_eq!(bucket, whole, "{rate} on {nodes}");
            // A burst of its own is shared too, though the rate says nothing of it.
            let burst =
                admitted(|rate, backend| throttle(rate, TokenBucket::new().burst(12), backend));
            assert_eq!(burst, u64::from(12 / nodes * nodes), "{rate} on {nodes}");
        }
    }
}

/// Whatever the strategy: at any time, nodes by themselves admit no more than a store would.
#[test]
fn nodes_with_any_strategy_admit_no_more_than_a_store() {
    const SECOND: u64 = 1_000_000;
    for strategy in every_strategy() {
        for nodes in [1, 2, 3, 5] {
            let outage = Outage::new();
            let over = |backend: Arc<dyn Backend>| {
                let builder = Throttle::builder("api").rate("12/second").backend(backend);
                builder.strategy(Arc::clone(&strategy)).build().unwrap()
            };
            let store = over(Arc::new(memory(&outage.clock)));
            let alone: Vec<_> = (0..nodes)
                .map(|_| {
                    let store = Store::new(&outage.clock);
                    store.fail(true);
                    over(Arc::new(store.fallback(memory(&outage.clock)).nodes(nodes)))
                })
                .collect();
            let (mut drained, mut admitted) = (0, 0);
            for step in 0..40 {
                drained += drain(&store);
                let elapsed_us = 123_457 * step;
                let most = match strategy.id() {
                    // A post-paid hit is admitted before it is paid for, on every node.
                    "gcra" => drained.max(u64::from(nodes) + (400_000 + elapsed_us) * 12 / SECOND),
                    // It reacts to what it admits, which is less on a node.
                    "adaptive_throttle" => 12 * (elapsed_us / SECOND + 1),
                    _ => drained,
                };
                admitted += alone.iter().map(drain).sum::<u64>();
                assert!(
                    admitted <= most,
                    "{admitted} > {most} on {nodes}: {strategy:?}"
                );
                outage.clock.advance_micros(123_457);
            }
            assert!(admitted > 0, "{store:?} on {nodes}");
        }
    }
}

#[test]
fn a_share_of_a_rate_is_not_rounded() {
    let outage = Outage::new();
    let backend = outage.backend.clone().nodes(3);
    let api = throttle("10/second", TokenBucket::new(), backend);
    assert_eq!(drain(&api), 3);
    let mut admitted = 0;
    for _ in 0..30_000 {
        outage.clock.advance_micros(1_000);
        admitted += drain(&api);
    }
    // A third of 10 per second for 30 s; rounding the rate down to 3 would make it 90.
    assert_eq!(admitted, 100);
}

#[test]
fn waits_of_a_share_are_exact() {
    let strategies: [fn(Failover<Store, MemoryBackend>) -> Throttle; 4] = [
        |backend| throttle("10/second", FixedWindow, backend),
        |backend| throttle("10/second", TokenBucket::new(), backend),
        |backend| throttle("7/second", TokenBucket::new().burst(11), backend),
        |backend| throttle("7/second", Gcra::new(), backend),
    ];
    for build in strategies {
        let outage = Outage::new();
        outage.clock.advance_micros(1234);
        let api = build(outage.backend.clone().nodes(3));
        drain(&api);
        for _ in 0..20 {
            let wait = hit(&api).retry_after().expect("denied");
            outage.clock.advance(wait - Duration::from_micros(1));
            assert!(hit(&api).is_denied());
            outage.clock.advance_micros(1);
            assert!(hit(&api).is_allowed(), "{api:?}");
            drain(&api);
        }
    }
}

#[test]
fn a_share_below_one_hit_is_denied_for_a_while_and_not_for_ever() {
    let outage = Outage::new();
    let backend = outage.backend.clone().nodes(4);
    let api = throttle("3/hour", FixedWindow, backend);
    let denied = hit(&api);
    assert_eq!(denied.verdict(), Verdict::Deny);
    assert_eq!(denied.retry_after(), Some(OnError::WAIT));
    // On a single node what never fits still never fits.
    let api = outage.throttle("3/hour");
    let ann = Identity::of("ann");
    let decision = now(api.hit(Attempt::by(&ann).cost(4))).unwrap();
    assert_eq!(decision.verdict(), Verdict::Never);
}

#[test]
fn statistics_of_a_share_agree_with_its_decisions() {
    let strategies: [fn(Failover<Store, MemoryBackend>) -> Throttle; 4] = [
        |backend| throttle("10/second", FixedWindow, backend),
        |backend| throttle("10/second", TokenBucket::new(), backend),
        |backend| throttle("10/second", TokenBucket::new().burst(14), backend),
        |backend| {
            let gcra = Gcra::new().burst_tolerance(Duration::from_millis(350));
            throttle("10/second", gcra, backend)
        },
    ];
    let ann = Identity::of("ann");
    for build in strategies {
        for nodes in [1, 2, 3, 5] {
            let outage = Outage::new();
            let api = build(outage.backend.clone().nodes(nodes));
            let mut seen = [false; 2];
            for cost in [1, 2, 1, 3, 1, 1, 1, 2, 1].into_iter().cycle().take(90) {
                outage.clock.advance_micros(70_000);
                let attempt = Attempt::by(&ann).cost(cost);
                let stat = now(api.stat(attempt)).unwrap();
                let preview = api.try_check_on(api.backend(), attempt);
                let decision = now(api.hit(attempt)).unwrap();
                assert_eq!(stat.verdict == Verdict::Allow, decision.is_allowed());
                // Not before the breaker has opened: until then the store has to be waited for.
                if let Some(preview) = preview {
                    assert_eq!(preview.unwrap(), decision.is_allowed());
                }
                seen[usize::from(decision.is_allowed())] = true;
            }
            assert_eq!(seen, [true; 2], "{api:?}");
        }
    }
}

#[test]
fn a_batch_without_its_store_is_still_all_or_nothing() {
    let outage = Outage::new();
    let backend: Arc<dyn Backend> = Arc::new(outage.backend.clone().nodes(2));
    let build = |name: &str, rate: &str| {
        let builder = Throttle::builder(name).rate(rate);
        builder.backend(Arc::clone(&backend)).build().unwrap()
    };
    let (wide, tight) = (build("wide", "10/hour"), build("tight", "4/hour"));
    let ann = Identity::of("ann");
    let hits = Hits::from_iter([(&wide, &ann), (&tight, &ann)]);
    let allowed = |_: &i32| now(hits.decide()).unwrap().is_allowed();
    assert_eq!((0..9).filter(allowed).count(), 2);
    assert_eq!(drain(&wide), 3);
}

#[test]
fn an_outage_starts_from_what_was_known() {
    let outage = Outage::new();
    outage.store.fail(false);
    let (api, elsewhere) = (
        outage.throttle("10/hour"),
        throttle("10/hour", FixedWindow, outage.store.clone()),
    );
    spend(&api, 1);
    // Another node takes five; this one hears of it with its next hit.
    spend(&elsewhere, 5);
    assert_eq!(hit(&api).remaining(), 3);
    outage.store.fail(true);
    assert_eq!(drain(&api), 3);

    // In shares, the rest is shared.
    let two = Outage::new();
    two.store.fail(false);
    let api = throttle("10/hour", FixedWindow, two.backend.clone().nodes(2));
    spend(&api, 4);
    two.store.fail(true);
    assert_eq!(drain(&api), 3);
}

/// Whatever the strategy, memory has as much left as the store, from now on.
#[test]
fn on_a_single_node_memory_knows_what_the_store_knows() {
    let ann = Identity::of("ann");
    for strategy in every_strategy() {
        let outage = Outage::new();
        outage.store.fail(false);
        let over = |backend: Arc<dyn Backend>| {
            let builder = Throttle::builder("api").rate("7/second").backend(backend);
            builder.strategy(Arc::clone(&strategy)).build().unwrap()
        };
        let api = over(Arc::new(outage.backend.clone()));
        let memory = over(Arc::new(outage.memory.clone()));
        let mut random = 1_u32;
        for _ in 0..2_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            outage
                .clock
                .advance_micros(u64::from(random >> 8) % 100_000);
            let _ = now(api.hit(Attempt::by(&ann).cost(random >> 30)));
            let op = |throttle: &Throttle| {
                let op = throttle.op(&Attempt::by(&ann), api.backend().key_hasher());
                let op = op.expect("limited");
                let (cell, at) = now(throttle.backend().load(&op)).unwrap();
                let stat = op.stat(&cell, at);
                (stat.remaining, stat.wait, stat.reset)
            };
            assert_eq!(op(&api), op(&memory), "{api:?}");
        }
    }
}

/// Were each answer charged as it comes, two that overtake each other would be charged thrice.
#[test]
fn memory_follows_answers_in_any_order() {
    let outage = Outage::new();
    outage.store.fail(false);
    let api = outage.throttle("10000/hour");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| spend(&api, 2_000));
        }
    });
    assert_eq!(hit(&api).remaining(), 1_999);
    outage.store.fail(true);
    assert_eq!(hit(&api).remaining(), 1_998);
}

#[test]
fn a_store_that_comes_back_empty_does_not_renew_limits() {
    let outage = Outage::new();
    outage.store.fail(false);
    let api = outage.throttle("10/hour");
    for _ in 0..4 {
        assert!(hit(&api).is_allowed());
    }
    outage.store.fail(true);
    for _ in 0..4 {
        assert!(hit(&api).is_allowed());
    }
    now(outage.store.cells.reset()).unwrap();
    outage.store.fail(false);
    outage.clock.advance(Duration::from_secs(5));
    assert_eq!(drain(&api), 2);
    // What memory admitted has been charged to the store, so the other nodes learn of it: only what
    // the store has lost is lost.
    let elsewhere = throttle("10/hour", FixedWindow, outage.store.clone());
    assert_eq!(drain(&elsewhere), 10 - 4 - 2);

    // One period later the store is trusted again, whatever memory thinks.
    outage.clock.advance(Duration::from_secs(3600));
    assert_eq!(drain(&api), 10);
    now(outage.store.cells.reset()).unwrap();
    assert_eq!(drain(&api), 10);
}

/// What is left in the memory of an outage.
fn known_to_memory(outage: &Outage, throttle: &Throttle) -> u64 {
    let hasher = throttle.backend().key_hasher();
    let ann = Identity::of("ann");
    let op = throttle.op(&Attempt::by(&ann), hasher).expect("limited");
    let (cell, at) = now(outage.memory.load(&op)).unwrap();
    op.stat(&cell, at).remaining
}

/// With the rest of a batch that memory admitted and the store did not.
#[test]
fn a_shadow_was_given_back_what_it_had_not_taken() {
    let outage = Outage::new();
    outage.store.fail(false);
    let backend: Arc<dyn Backend> = Arc::new(outage.backend.clone());
    let build = |name: &str, rate: &str| {
        let builder = Throttle::builder(name).rate(rate).strategy(FixedWindow);
        builder.backend(Arc::clone(&backend))
    };
    let trial = build("trial", "3/day").shadow().build().unwrap();
    let api = build("api", "9/day").build().unwrap();
    let ann = Identity::of("ann");
    let both = || {
        let hits = Hits::from_iter([(&trial, &ann), (&api, &ann)]);
        now(hits.decide()).unwrap()
    };
    for failing in [false, false, true] {
        outage.store.fail(failing);
        assert!(both().is_allowed());
    }
    // The store comes back empty, and another node takes all that it has.
    outage.store.fail(false);
    now(outage.store.cells.reset()).unwrap();
    assert!(now(api.hit(&Identity::of("ben"))).unwrap().is_allowed());
    drain(&throttle("9/day", FixedWindow, outage.store.clone()));
    assert_eq!(known_to_memory(&outage, &trial), 0);
    assert!(both().is_denied());
    assert_eq!(known_to_memory(&outage, &trial), 0);
}

/// Where the store had none left and memory some, but too little for the hit.
#[test]
fn memory_did_not_follow_a_shadow_that_would_deny() {
    let outage = Outage::new();
    outage.store.fail(false);
    let trial = Throttle::builder("api")
        .rate("10/day")
        .strategy(FixedWindow);
    let trial = trial.backend(outage.backend.clone()).shadow();
    let trial = trial.build().unwrap();
    let ann = Identity::of("ann");
    let hit = |cost| now(trial.hit(Attempt::by(&ann).cost(cost))).unwrap();
    assert_eq!(hit(7).remaining(), 3);
    assert_eq!(known_to_memory(&outage, &trial), 3);
    let elsewhere = throttle("10/day", FixedWindow, outage.store.clone());
    assert_eq!(drain(&elsewhere), 3);
    assert!(hit(5).shadowed().unwrap().is_denied());
    assert_eq!(known_to_memory(&outage, &trial), 0);
}

#[test]
fn resetting_resets_the_fallback_too() {
    let outage = Outage::new();
    let api = outage.throttle("1/hour");
    assert_eq!(drain(&api), 1);
    assert!(now(api.backend().reset()).unwrap_err().is_timeout());
    assert_eq!(drain(&api), 1);
}

#[test]
fn a_wrapper_is_the_store_it_wraps() {
    let memory = MemoryBackend::new();
    let wrapped = memory
        .clone()
        .failover(MemoryBackend::new(), CircuitBreaker::new());
    assert_eq!(wrapped.store_id(), memory.store_id());
    assert!(wrapped.is_local());
}
