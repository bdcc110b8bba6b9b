//! Throttles that only say what they would do.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use traffik_core::strategy::{NAMES, named};
use traffik_core::{
    Attempt, Backend, BackendExt, Batch, BoxFuture, Cell, CircuitBreaker, Decisions, Error, Hits,
    Identity, ManualClock, MemoryBackend, OnError, Op, Result, ShadowReport, Throttle,
    ThrottleBuilder, Timestamp,
};

fn memory(clock: &ManualClock) -> MemoryBackend {
    let memory = MemoryBackend::builder().clock(clock.clone());
    memory.build().unwrap()
}

fn ann() -> Identity {
    Identity::of("ann")
}

fn throttle(name: &str, rate: &str, backend: &impl Cloned) -> ThrottleBuilder {
    Throttle::builder(name).rate(rate).backend(backend.clone())
}

trait Cloned: Backend + Clone {}
impl<B: Backend + Clone> Cloned for B {}

fn numbers(report: ShadowReport) -> [u64; 5] {
    [
        report.admitted,
        report.newly_denied,
        report.newly_admitted,
        report.denied,
        report.withheld,
    ]
}

/// Whatever the strategy: what a shadow says is what the same throttle decides in earnest.
#[test]
fn a_shadow_said_something_else_than_the_throttle_decides() {
    for name in NAMES {
        let text = match *name {
            "distributed_fairness" => "distributed_fairness,instance=a".to_owned(),
            "time_of_day" => "time_of_day,windows=0-24:1".to_owned(),
            name => name.to_owned(),
        };
        let clock = ManualClock::default();
        let backend = memory(&clock);
        let one = |name: &str| {
            let strategy = named(&text).unwrap();
            throttle(name, "5/minute", &backend).strategy(strategy)
        };
        let (earnest, shadow) = (one("earnest").build(), one("trial").shadow().build());
        let (earnest, shadow) = (earnest.unwrap(), shadow.unwrap());
        let ann = ann();
        let mut denied = 0;
        for (at, cost) in [1, 2, 1, 5, 1, 3, 1, 900, 1, 1]
            .iter()
            .cycle()
            .take(200)
            .enumerate()
        {
            let attempt = || Attempt::by(&ann).cost(*cost);
            let decided = earnest.hit_now(attempt()).unwrap();
            let said = shadow.hit_now(attempt()).unwrap();
            assert!(said.is_allowed() && said.wait().is_zero(), "{name}");
            assert_eq!(said.shadowed(), Some(decided), "{name}, hit {at}");
            denied += u64::from(decided.is_denied());
            clock.advance(Duration::from_millis(2_300));
        }
        assert_eq!(shadow.shadow_report().newly_denied, denied, "{name}");
        assert_eq!(shadow.shadow_report().hits(), 200, "{name}");
    }
}

#[test]
fn a_shadow_stopped_what_others_charge_or_was_charged_for_what_they_denied() {
    let backend = memory(&ManualClock::default());
    let real = throttle("real", "4/day", &backend).build().unwrap();
    let tight = throttle("tight", "1/day", &backend)
        .shadow()
        .build()
        .unwrap();
    let loose = throttle("loose", "100/day", &backend)
        .shadow()
        .build()
        .unwrap();
    let ann = ann();
    let hit = || {
        let all = [(&tight, &ann), (&real, &ann), (&loose, &ann)];
        Hits::from_iter(all).try_decide().unwrap().unwrap()
    };
    let allowed: Vec<_> = (0..10).map(|_| hit().is_allowed()).collect();
    assert_eq!(allowed, [[true; 4].as_slice(), &[false; 6]].concat());
    assert_eq!(numbers(tight.shadow_report()), [1, 3, 0, 6, 0]);
    assert_eq!(numbers(loose.shadow_report()), [4, 0, 0, 0, 6]);
    // Six denials of another were not charged to it.
    loose.set_shadow(false);
    assert_eq!(
        loose
            .hit_now(Attempt::by(&ann).cost(0))
            .unwrap()
            .remaining(),
        96
    );
}

#[test]
fn who_is_to_replace_a_limit_was_not_charged_for_what_it_would_admit() {
    let backend = memory(&ManualClock::default());
    let old = throttle("api", "2/day", &backend).build().unwrap();
    let next = throttle("api-next", "5/day", &backend).shadow_of("api");
    let next = next.build().unwrap();
    let other = throttle("other", "8/day", &backend).build().unwrap();
    let (ann, ben) = (ann(), Identity::of("ben"));
    let hit = |who| {
        let all = [(&old, who), (&next, who), (&other, &ann)];
        Hits::from_iter(all).try_decide().unwrap().unwrap()
    };
    for _ in 0..20 {
        let _ = hit(&ann);
    }
    assert_eq!(numbers(next.shadow_report()), [2, 0, 3, 15, 0]);
    // What another limit denies as well, it is not to replace.
    assert!(
        other
            .hit_now(Attempt::by(&ann).cost(6))
            .unwrap()
            .is_allowed()
    );
    for _ in 0..3 {
        assert!(hit(&ben).is_denied());
    }
    assert_eq!(numbers(next.shadow_report()), [2, 0, 3, 15, 3]);
    // In earnest, with the counts that it has.
    next.set_shadow(false);
    assert!(next.hit_now(&ann).unwrap().is_denied());
    let remaining = next.hit_now(Attempt::by(&ben).cost(0)).unwrap().remaining();
    assert_eq!(remaining, 5);
}

#[test]
fn a_shadow_of_itself_is_refused() {
    let error = throttle("api", "1/s", &MemoryBackend::new())
        .shadow_of("api")
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("`api-next`"), "{error}");
}

#[test]
fn a_shadow_that_shares_counts_with_another_took_part_of_them() {
    let backend = memory(&ManualClock::default());
    let real = throttle("api", "4/day", &backend).build().unwrap();
    let shadow = throttle("api", "4/day", &backend).shadow().build().unwrap();
    let ann = ann();
    for both in [[&real, &shadow], [&shadow, &real]] {
        for _ in 0..2 {
            let hits = Hits::from_iter(both.map(|one| (one, &ann)));
            assert!(hits.try_decide().unwrap().unwrap().is_allowed());
        }
    }
    let hits = Hits::from_iter([(&shadow, &ann), (&real, &ann)]);
    assert!(hits.try_decide().unwrap().unwrap().is_denied());
    assert_eq!(shadow.shadow_report().hits(), 0);
}

/// Answers nothing.
#[derive(Clone, Debug)]
struct Down;

impl Backend for Down {
    fn apply<'a>(&'a self, _: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(async { Err(Error::connection("the store is down")) })
    }

    fn load<'a>(&'a self, _: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(async { Err(Error::connection("the store is down")) })
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn the_store_of_a_shadow_failed_and_requests_with_it() {
    let backend = memory(&ManualClock::default());
    let ann = ann();
    for policy in [OnError::Raise, OnError::Throttle] {
        let shadow = throttle("trial", "1/day", &Down).on_error(policy).shadow();
        let shadow = shadow.build().unwrap();
        let real = throttle("real", "1/day", &backend).build().unwrap();
        assert!(shadow.hit(&ann).await.unwrap().is_allowed());
        let hits = Hits::from_iter([(&shadow, &ann), (&real, &ann)]);
        let first = hits.decide().await.unwrap();
        assert!(first[0].is_allowed(), "{first:?}");
        assert!(shadow.outage().lasts);
    }
}

/// What a shadow would have denied during an outage was charged to the store afterwards.
#[tokio::test]
async fn an_outage_made_a_shadow_owe_what_it_took_not() {
    let clock = ManualClock::default();
    let breaker = CircuitBreaker::builder().clock(clock.clone());
    let failover = Down.failover(memory(&clock), breaker.build().unwrap());
    let trial = throttle("trial", "3/day", &failover).shadow();
    let trial = trial.build().unwrap();
    let ann = ann();
    for _ in 0..3 {
        assert!(trial.hit(&ann).await.unwrap().is_degraded());
    }
    let owed = failover.info().owing;
    let shadow = throttle("other", "1/day", &failover).cost(2).shadow();
    let never = shadow.build().unwrap();
    for _ in 0..3 {
        assert!(never.hit(&ann).await.unwrap().is_allowed());
    }
    assert_eq!(numbers(never.shadow_report()), [0, 3, 0, 0, 0]);
    assert_eq!((owed, failover.info().owing), (1, 1), "never took anything");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_shadow() {
    let backend = memory(&ManualClock::default());
    let trial = throttle("trial", "1/day", &backend)
        .shadow()
        .build()
        .unwrap();
    let ann = ann();
    for _ in 0..3 {
        let decided = trial.until_ready(&ann, Duration::MAX).await.unwrap();
        assert!(decided.is_allowed());
    }
    assert_eq!(trial.shadow_report().newly_denied, 2);
}
