use std::task::{Context, Poll, Waker};

use super::*;
use crate::strategy::{
    FixedWindow, IntoStrategy, NAMES, SlidingWindowCounter, SlidingWindowLog, Strategy,
    TokenBucket, TokenBucketWithDebt, named,
};
use crate::{Clock, Gcra, Identity, ManualClock, MemoryBackend, Quota, Rate};

/// Memory need not wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("memory answers at once"),
    }
}

fn memory() -> (ManualClock, MemoryBackend) {
    let clock = ManualClock::default();
    let builder = MemoryBackend::builder().clock(clock.clone());
    (clock, builder.build().unwrap())
}

fn throttle(rate: &str, strategy: impl IntoStrategy, backend: &MemoryBackend) -> Throttle {
    let builder = Throttle::builder("tokens").rate(rate).strategy(strategy);
    builder.backend(backend.clone()).build().unwrap()
}

fn reserve(throttle: &Throttle, cost: u32) -> Permit {
    let ann = Identity::of("ann");
    now(throttle.reserve(Attempt::by(&ann).cost(cost)))
        .unwrap()
        .expect("there is room")
}

fn left(throttle: &Throttle) -> u64 {
    now(throttle.stat(&Identity::of("ann"))).unwrap().remaining
}

fn strategies() -> Vec<Arc<dyn Strategy>> {
    vec![
        Arc::new(FixedWindow),
        Arc::new(SlidingWindowLog),
        Arc::new(SlidingWindowCounter),
        Arc::new(TokenBucket::new()),
        Arc::new(TokenBucketWithDebt::new()),
        Arc::new(
            Gcra::new()
                .burst_tolerance(Duration::from_secs(60))
                .strict(),
        ),
    ]
}

/// A permit is a hit of what it came to, whatever was estimated.
#[test]
fn what_is_settled_is_what_a_hit_would_have_cost() {
    for strategy in strategies() {
        for (estimate, actual) in [(40, 10), (40, 40), (40, 70), (40, 0), (0, 30), (100, 1)] {
            let ((_, one), (_, other)) = (memory(), memory());
            let settled = throttle("100/minute", Arc::clone(&strategy), &one);
            let hit = throttle("100/minute", Arc::clone(&strategy), &other);
            let (fresh, permit) = (left(&hit), reserve(&settled, estimate));
            assert_eq!(left(&settled), fresh - u64::from(estimate), "{strategy:?}");
            now(permit.settle(actual)).unwrap();
            reserve(&hit, actual).settle_later(actual);
            assert_eq!(
                left(&settled),
                left(&hit),
                "{strategy:?}: {estimate}, {actual}"
            );
        }
    }
}

/// What goes beyond the limit is taken nevertheless: it holds back who comes next.
#[test]
fn an_actual_cost_beyond_the_limit_is_charged() {
    let (clock, backend) = memory();
    let bucket = throttle("60/minute", TokenBucket::new(), &backend);
    now(reserve(&bucket, 10).settle(90)).unwrap();
    let denied = bucket.hit_now(&Identity::of("ann")).unwrap();
    assert_eq!(denied.retry_after(), Some(Duration::from_secs(31)));
    clock.advance(Duration::from_secs(31));
    assert!(bucket.hit_now(&Identity::of("ann")).unwrap().is_allowed());
}

/// A client that goes away must not get back what its request took.
#[test]
fn a_permit_that_is_dropped_has_cost_what_was_declared() {
    let (_, backend) = memory();
    let tokens = throttle("1000/minute", FixedWindow, &backend);
    let metered = |used: u32, on_drop: Option<OnDrop>| {
        let before = left(&tokens);
        let mut permit = reserve(&tokens, 100);
        if let Some(on_drop) = on_drop {
            permit = permit.on_drop(on_drop);
        }
        assert!(now(permit.meter(used)).unwrap().is_go());
        drop(permit);
        before - left(&tokens)
    };
    assert_eq!(metered(0, None), 100);
    assert_eq!(metered(30, None), 100);
    // What was charged ahead was never used.
    assert_eq!(metered(130, None), 130);
    assert_eq!(metered(130, Some(OnDrop::Metered)), 130);
    assert_eq!(metered(30, Some(OnDrop::Metered)), 30);
}

/// It was given back as well: a client got more back than it was charged.
#[test]
fn a_shadow_that_shares_a_count_was_taken_for_charged() {
    for shadow_first in [false, true] {
        let (_, backend) = memory();
        let earnest = throttle("100/minute", FixedWindow, &backend);
        let shadow = Throttle::builder("tokens").rate("100/minute").shadow();
        let shadow = shadow.backend(backend.clone()).build().unwrap();
        let ann = Identity::of("ann");
        let mut both = [&earnest, &shadow];
        if shadow_first {
            both.reverse();
        }
        let attempt = Attempt::by(&ann).cost(10);
        let charges = both.map(|one| (one, attempt, one.shared_backend()));
        let expected = Permit::expecting(charges);
        let hits = crate::Hits::from_iter(both.map(|one| (one, attempt)));
        let permit = expected.confirm(now(hits.decide()).unwrap()).unwrap();
        assert_eq!((permit.charged(), left(&earnest)), (10, 90));
        now(permit.settle(4)).unwrap();
        assert_eq!(left(&earnest), 96);
    }
}

/// Denials are no permits, and what nothing limits has nothing to settle.
#[test]
fn only_what_was_charged_is_settled() {
    let (_, backend) = memory();
    let tokens = throttle("10/minute", FixedWindow, &backend);
    let ann = Identity::of("ann");
    let denied = now(tokens.reserve(Attempt::by(&ann).cost(11))).unwrap();
    assert_eq!(denied.unwrap_err().verdict(), crate::Verdict::Never);
    assert_eq!(left(&tokens), 10);
    let free = now(tokens.reserve(&Identity::EXEMPT)).unwrap().unwrap();
    assert_eq!(free.charged(), 0);
    now(free.settle(5)).unwrap();
    let free = now(tokens.reserve(Attempt::by(&ann).rate(Rate::UNLIMITED)));
    let mut free = free.unwrap().unwrap();
    assert_eq!(now(free.meter(u32::MAX)).unwrap(), Flow::Go);
    drop(free);
    assert_eq!(left(&tokens), 10);
}

/// A window that is over has nothing to give back, or the next would admit too much.
#[test]
fn nothing_is_refunded_into_a_later_window() {
    let (clock, backend) = memory();
    let tokens = throttle("100/minute", FixedWindow, &backend);
    let permit = reserve(&tokens, 60);
    clock.advance(Duration::from_secs(60));
    let _ = reserve(&tokens, 70);
    now(permit.settle(0)).unwrap();
    assert_eq!(left(&tokens), 30);
    // What it has cost beyond the estimate is known only now.
    now(reserve(&tokens, 10).settle(20)).unwrap();
    assert_eq!(left(&tokens), 10);
}

#[test]
fn a_meter_charges_ahead_then_exactly_then_says_when() {
    let (clock, backend) = memory();
    let tokens = throttle("100/minute", FixedWindow, &backend);
    let mut permit = reserve(&tokens, 30).ahead(40);
    assert_eq!(now(permit.meter(30)).unwrap(), Flow::Go);
    assert_eq!(left(&tokens), 70);
    assert_eq!(now(permit.meter(1)).unwrap(), Flow::Go);
    assert_eq!((permit.charged(), left(&tokens)), (71, 29));
    assert_eq!(now(permit.meter(45)).unwrap(), Flow::Go);
    // Five of what is left: another forty ahead do not fit.
    assert_eq!((permit.charged(), left(&tokens)), (76, 24));
    assert_eq!(now(permit.meter(24)).unwrap(), Flow::Go);
    assert_eq!(left(&tokens), 0);
    clock.advance(Duration::from_secs(20));
    let minute = Flow::Pause(Duration::from_secs(40));
    assert_eq!(now(permit.meter(5)).unwrap(), minute);
    assert_eq!(now(permit.meter(0)).unwrap(), minute);
    clock.advance(Duration::from_secs(40));
    assert_eq!(now(permit.meter(0)).unwrap(), Flow::Go);
    assert_eq!(left(&tokens), 55, "five, and forty ahead");
    now(permit.finish()).unwrap();
    assert_eq!(left(&tokens), 95);
    let mut permit = reserve(&tokens, 30);
    assert_eq!(now(permit.meter(131)).unwrap(), Flow::Stop);
}

/// It was told of the whole step.
#[test]
fn a_pause_was_as_long_as_the_clock_had_stepped_back() {
    let (clock, backend) = memory();
    let tokens = throttle("10/minute", FixedWindow, &backend);
    let mut permit = reserve(&tokens, 10);
    let minute = Duration::from_secs(60);
    assert_eq!(now(permit.meter(15)).unwrap(), Flow::Pause(minute));
    let year_ago = clock.now().as_micros() - micros(365 * 24 * 60 * minute);
    clock.set(Timestamp::from_micros(year_ago));
    let Flow::Pause(wait) = now(permit.meter(0)).unwrap() else {
        panic!("the limit is reached");
    };
    // A window ahead is brought back to the next one.
    assert!(wait <= 2 * minute, "{wait:?}");
    clock.advance(wait);
    assert_eq!(now(permit.meter(0)).unwrap(), Flow::Go);
}

/// Of several limits all charge more, or none.
#[test]
fn a_meter_of_several_throttles_takes_from_all_or_none() {
    let ((_, one), (_, other)) = (memory(), memory());
    let ann = Identity::of("ann");
    for elsewhere in [one.clone(), other] {
        let minute = throttle("100/minute", FixedWindow, &one);
        let day = Throttle::builder(format!("day {}", elsewhere.store_id()));
        let day = day.rate("120/day").backend(elsewhere).build().unwrap();
        let attempts = [&minute, &day].map(|one| (one, Attempt::by(&ann).cost(20)));
        let hits = crate::Hits::from_iter(attempts);
        let shared = attempts.map(|(one, attempt)| (one, attempt, one.shared_backend()));
        let expected = Permit::expecting(shared);
        let mut permit = expected.confirm(now(hits.decide()).unwrap()).unwrap();
        assert_eq!(now(permit.meter(60)).unwrap(), Flow::Go);
        let before = (left(&minute), left(&day));
        assert_eq!(before, (20, 40));
        let _ = now(day.hit(Attempt::by(&ann).cost(40))).unwrap();
        assert!(!now(permit.meter(30)).unwrap().is_go());
        assert_eq!((left(&minute), left(&day)), (20, 0));
        now(permit.settle(10)).unwrap();
        assert_eq!((left(&minute), left(&day)), (90, 70));
        now(one.reset()).unwrap();
    }
}

/// Two hits of a batch on one count are one charge.
#[test]
fn twins_are_settled_once() {
    let (_, backend) = memory();
    let tokens = throttle("100/minute", FixedWindow, &backend);
    let ann = Identity::of("ann");
    let attempts = [20, 30].map(|cost| (&tokens, Attempt::by(&ann).cost(cost)));
    let hits = crate::Hits::from_iter(attempts);
    let shared = attempts.map(|(one, attempt)| (one, attempt, one.shared_backend()));
    let expected = Permit::expecting(shared);
    let permit = expected.confirm(now(hits.decide()).unwrap()).unwrap();
    assert_eq!((permit.charged(), left(&tokens)), (50, 50));
    now(permit.settle(5)).unwrap();
    assert_eq!(left(&tokens), 95);
}

/// It was charged when its turn came, not when it was asked for: in the window that it waited for.
#[cfg(feature = "tokio")]
#[test]
fn who_waited_for_a_window_gets_back_what_was_taken_from_it() {
    use crate::lease::simulation::{Simulated, simulated};
    simulated(async {
        let memory = MemoryBackend::builder().clock(Simulated::new());
        let memory = memory.build().unwrap();
        let tokens = throttle("10/minute", FixedWindow, &memory);
        let ann = Identity::of("ann");
        drop(reserve(&tokens, 10));
        let attempt = Attempt::by(&ann).cost(4).wait_up_to(Duration::MAX);
        let mut expected = Permit::expecting([(&tokens, attempt, tokens.shared_backend())]);
        let hits = crate::Hits::from((&tokens, attempt));
        let decided = hits.until_ready_telling(&mut || expected.begin()).await;
        let permit = expected.confirm(decided.unwrap()).unwrap();
        assert_eq!(left(&tokens), 6);
        now(permit.settle(0)).unwrap();
        assert_eq!(left(&tokens), 10);
    });
}

#[test]
fn a_quota_charges_what_was_done_whether_it_fits_or_not() {
    let (_, backend) = memory();
    let tokens = throttle("100/minute", FixedWindow, &backend);
    let ann = Identity::of("ann");
    let mut quota = Quota::new();
    quota.add(&tokens, Attempt::by(&ann).cost(80));
    quota.add(&tokens, Attempt::by(&ann).cost(40));
    quota.add(&tokens, Attempt::by(&ann).cost(7).scope("/elsewhere"));
    assert!(!now(quota.check()).unwrap());
    assert!(now(quota.apply()).unwrap().is_denied());
    assert_eq!(
        (quota.queued(), quota.applied(), left(&tokens)),
        (127, 0, 100)
    );
    quota.charge();
    assert_eq!(
        (quota.queued(), quota.applied(), left(&tokens)),
        (0, 127, 0)
    );
    let elsewhere = Attempt::by(&ann).scope("/elsewhere");
    assert_eq!(now(tokens.stat(elsewhere)).unwrap().remaining, 93);
}

#[test]
fn the_time_of_memory_is_that_of_its_cells() {
    let (clock, backend) = memory();
    clock.advance(Duration::from_secs(9));
    assert_eq!(Backend::now(&backend), clock.now());
}

/// Every strategy by name, as far as one hit may cost ten.
fn all() -> impl Iterator<Item = Arc<dyn Strategy>> {
    let texts = NAMES.iter().map(|name| match *name {
        "distributed_fairness" => "distributed_fairness,instance=a",
        "time_of_day" => "time_of_day,windows=0-24:1",
        "gcra" => "gcra,strict=true,burst_tolerance=600s",
        name => name,
    });
    texts.map(|text| named(text).expect("a name"))
}

/// What becomes of a permit that was opened before a rate was changed, if there is one.
#[derive(Clone, Copy, Debug)]
enum Fate {
    None,
    Settled(u32),
    /// Metered until it has to pause, and dropped.
    Metered(u32),
}

/// Two throttles of which one takes the place of the other.
struct Change {
    clock: ManualClock,
    before: Throttle,
    after: Throttle,
}

impl Change {
    fn of(strategy: &Arc<dyn Strategy>, rates: [&str; 2]) -> Change {
        let (clock, backend) = memory();
        clock.advance(Duration::from_secs(1_704_067_200));
        let builder = |rate: &str| {
            let builder = Throttle::builder("tokens").strategy(Arc::clone(strategy));
            builder.rate(rate).backend(backend.clone())
        };
        let before = builder(rates[0]).build().unwrap();
        let after = builder(rates[1]).succeeding(&before).build().unwrap();
        Change {
            clock,
            before,
            after,
        }
    }

    fn drain(&self) -> u32 {
        let hits = std::iter::repeat_with(|| self.after.hit_now(&Identity::of("ann")));
        let admitted = hits.take_while(|hit| hit.as_ref().unwrap().is_allowed());
        u32::try_from(admitted.count()).unwrap()
    }

    /// What others were admitted by three times: after the change, `held` later, when the permit is at its end, and
    /// a while after that.
    fn admitted(&self, fate: Fate, held: u64) -> [u32; 3] {
        let mut permit = match fate {
            Fate::None => None,
            _ => Some(reserve(&self.before, 10)),
        };
        self.after.come_into_force(true);
        self.clock.advance(Duration::from_secs(5));
        let first = self.drain();
        self.clock.advance(Duration::from_secs(held));
        match (fate, permit.take()) {
            (Fate::Settled(actual), Some(permit)) => now(permit.settle(actual)).unwrap(),
            (Fate::Metered(units), Some(mut permit)) => {
                while now(permit.meter(units)).unwrap().is_go() {}
            }
            _ => {}
        }
        let second = first + self.drain();
        self.clock.advance(Duration::from_secs(100));
        [first, second, second + self.drain()]
    }
}

/// Its settlement, under the old rate, cut what was owed under the new one, or began a window anew: `1000/hour` was
/// given twice in two minutes.
#[test]
fn a_permit_from_before_a_change_gave_the_new_limit_again() {
    for strategy in all() {
        for rates in [
            ["100/minute", "100/hour"],
            ["100/minute", "20/day"],
            ["100/hour", "100/minute"],
            ["100/minute", "300/minute"],
        ] {
            for held in [2, 40, 70] {
                let admitted = |fate| Change::of(&strategy, rates).admitted(fate, held);
                let without = admitted(Fate::None);
                for fate in [
                    Fate::Settled(0),
                    Fate::Settled(9),
                    Fate::Settled(10),
                    Fate::Settled(11),
                    Fate::Settled(40),
                    Fate::Metered(4),
                    Fate::Metered(40),
                ] {
                    let with = admitted(fate);
                    assert!(
                        with.iter()
                            .zip(without)
                            .all(|(with, without)| *with <= without),
                        "{strategy:?}, {rates:?}, {fate:?} after {held} s: {with:?}, not {without:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_left_of_a_permit_from_before_a_change_is_given_back() {
    for (strategy, admitted) in [
        // Of the window that goes on as an hour.
        ("fixed_window", [90, 98]),
        ("sliding_window_log", [90, 98]),
        // Ten took 6 s, of which nothing is left after 7, though eight are worth 288 s now.
        ("token_bucket", [99, 100]),
    ] {
        let strategy = named(strategy).unwrap();
        let change = Change::of(&strategy, ["100/minute", "100/hour"]);
        let [first, second, _] = change.admitted(Fate::Settled(2), 2);
        assert_eq!([first, second], admitted, "{strategy:?}");
    }
}

/// It paused as long as the old rate had said, and so it did when nothing was limited any more.
#[test]
fn a_meter_goes_by_what_is_in_force() {
    let change = Change::of(&named("fixed_window").unwrap(), ["20/hour", "100/hour"]);
    let Change { before, after, .. } = &change;
    let mut permit = reserve(before, 10);
    assert_eq!(now(permit.meter(20)).unwrap(), Flow::Go);
    let hour = Flow::Pause(Duration::from_secs(3_600));
    assert_eq!(now(permit.meter(5)).unwrap(), hour);
    after.come_into_force(true);
    assert_eq!(now(permit.meter(0)).unwrap(), Flow::Go);
    assert_eq!((permit.charged(), left(after)), (35, 65));
    assert_eq!(change.drain(), 65);
    assert_eq!(now(permit.meter(15)).unwrap(), hour);

    after.reign().end();
    assert_eq!(now(permit.meter(300)).unwrap(), Flow::Go);
    after.come_into_force(true);
    // What was admitted meanwhile is not asked for afterwards.
    assert_eq!(now(permit.meter(1)).unwrap(), hour);
    assert_eq!(permit.charged(), 35);
    change.clock.advance(Duration::from_secs(3_600));
    assert_eq!(now(permit.meter(0)).unwrap(), Flow::Go);
    assert_eq!((permit.charged(), left(after)), (46, 89));
    now(permit.finish()).unwrap();
    assert_eq!(left(after), 99);
}

/// An attempt's own rate is nobody else's, and other counts are others'.
#[test]
fn a_permit_keeps_the_rate_that_it_brought_and_the_counts_that_it_is_in() {
    let change = Change::of(&named("fixed_window").unwrap(), ["20/minute", "100/hour"]);
    let ann = Identity::of("ann");
    let own = Attempt::by(&ann).rate(Rate::per_hour(30)).cost(30);
    let mut permit = now(change.before.reserve(own)).unwrap().unwrap();
    change.after.come_into_force(true);
    let hour = Flow::Pause(Duration::from_secs(3_600));
    assert_eq!(now(permit.meter(40)).unwrap(), hour);
    now(permit.settle(30)).unwrap();

    let bucket = Throttle::builder("tokens")
        .rate("5/hour")
        .strategy("token_bucket");
    let backend = change.before.own_backend().unwrap();
    let bucket = bucket
        .backend(Arc::clone(backend))
        .succeeding(&change.after);
    let bucket = bucket.build().unwrap();
    let mut permit = reserve(&change.after, 70);
    bucket.come_into_force(true);
    assert_eq!(now(permit.meter(71)).unwrap(), hour);
    now(permit.settle(20)).unwrap();
    assert_eq!((left(&change.after), left(&bucket)), (50, 5));
}
