use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use traffik_core::metrics::{ALL, Kind};
use traffik_core::{
    Attempt, BackendExt, CircuitBreaker, FixedWindow, Hits, Identity, Lease, ManualClock, OnError,
    Throttle, TokenBucket,
};

use crate::remote::{Remote, memory};

/// What a thread records.
pub(crate) struct Scraped {
    handle: PrometheusHandle,
    _guard: metrics::LocalRecorderGuard<'static>,
}

impl Scraped {
    pub(crate) fn start() -> Scraped {
        let recorder: &'static PrometheusRecorder =
            Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
        Scraped {
            handle: recorder.handle(),
            _guard: metrics::set_default_local_recorder(recorder),
        }
    }

    /// The number of a series; 0 if there is none.
    pub(crate) fn number(&self, series: &str) -> f64 {
        let text = self.handle.render();
        let line = text.lines().find_map(|line| {
            let rest = line.strip_prefix(series)?;
            rest.strip_prefix(' ')
        });
        line.map_or(0.0, |number| number.parse().unwrap())
    }

    /// How many decisions of a throttle were admitted, denied, never, withheld, failed.
    fn decisions(&self, throttle: &str) -> [f64; 5] {
        ["admitted", "denied", "never", "withheld", "failed"].map(|outcome| {
            self.number(&format!(
                "traffik_decisions_total{{throttle=\"{throttle}\",outcome=\"{outcome}\"}}"
            ))
        })
    }
}

fn ann() -> Identity {
    Identity::of("ann")
}

#[test]
fn every_decision_was_counted_once_and_as_what_it_was() {
    let scraped = Scraped::start();
    let backend = memory(&ManualClock::default());
    let throttle = |name: &str, rate: &str| {
        let builder = Throttle::builder(name).rate(rate);
        builder.backend(backend.clone()).build().unwrap()
    };
    let (few, many) = (throttle("few", "2/day"), throttle("many", "100/day"));
    let ann = ann();
    for _ in 0..5 {
        let hits = Hits::from_iter([(&few, &ann), (&many, &ann)]);
        let _ = hits.try_decide().unwrap().unwrap();
    }
    let _ = many.hit_now(Attempt::by(&ann).cost(101)).unwrap();
    let _ = many.hit_now(Attempt::by(&ann).cost(88)).unwrap();
    assert_eq!(scraped.decisions("few"), [2.0, 3.0, 0.0, 0.0, 0.0]);
    assert_eq!(scraped.decisions("many"), [3.0, 0.0, 1.0, 3.0, 0.0]);
    let near = |throttle| {
        scraped.number(&format!(
            "traffik_near_limit_total{{throttle=\"{throttle}\"}}"
        ))
    };
    // Of two, the last; of a hundred, ten were left.
    assert_eq!((near("few"), near("many")), (1.0, 1.0));
    // Nothing decides about these.
    let _ = many.hit_now(&Identity::EXEMPT).unwrap();
    assert_eq!(scraped.decisions("many"), [3.0, 0.0, 1.0, 3.0, 0.0]);
    // A decision in memory is not timed.
    assert_eq!(
        scraped.number("traffik_decision_seconds_count{throttle=\"few\"}"),
        0.0
    );
    // Nothing of a client is in a label.
    assert!(!scraped.handle.render().contains("ann"));
}

/// A permit is one decision, whatever it comes to: what was used, given back or taken as well, decides nothing.
#[tokio::test]
async fn what_was_settled_is_no_decision() {
    let scraped = Scraped::start();
    let throttle = Throttle::builder("permits")
        .rate("100/day")
        .backend(memory(&ManualClock::default()))
        .build()
        .unwrap();
    let ann = ann();
    let reserve = async |cost| throttle.reserve(Attempt::by(&ann).cost(cost)).await;
    reserve(10).await.unwrap().unwrap().refund().await.unwrap();
    reserve(10)
        .await
        .unwrap()
        .unwrap()
        .settle(30)
        .await
        .unwrap();
    let mut metered = reserve(10).await.unwrap().unwrap();
    assert!(metered.meter(20).await.unwrap().is_go());
    assert!(!metered.meter(60).await.unwrap().is_go());
    metered.finish().await.unwrap();
    assert_eq!(
        scraped.decisions("permits"),
        [3.0, 0.0, 0.0, 0.0, 0.0],
        "each was admitted once"
    );
    assert!(reserve(1).await.unwrap().is_err());
    assert_eq!(scraped.decisions("permits"), [3.0, 1.0, 0.0, 0.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn a_hit_that_waited_was_counted_each_time_it_asked() {
    let scraped = Scraped::start();
    let backend = Remote::new();
    let throttle = Throttle::builder("patient")
        .rate("1/second")
        .backend(backend.clone())
        .build()
        .unwrap();
    let ann = ann();
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    let waiting = || scraped.number("traffik_waiting{throttle=\"patient\"}");
    let patient = throttle.until_ready(&ann, Duration::from_secs(5));
    let mut patient = std::pin::pin!(patient);
    tokio::select! {
        biased;
        _ = &mut patient => panic!("its time stands still"),
        () = tokio::time::sleep(Duration::from_millis(10)) => {}
    }
    assert_eq!(waiting(), 1.0);
    assert_eq!(scraped.decisions("patient"), [1.0, 0.0, 0.0, 0.0, 0.0]);
    assert!(patient.await.unwrap().is_denied());
    assert_eq!(waiting(), 0.0);
    assert_eq!(scraped.decisions("patient"), [1.0, 1.0, 0.0, 0.0, 0.0]);
}

#[tokio::test]
async fn a_store_that_fails_was_not_seen() {
    let scraped = Scraped::start();
    let remote = Remote::new();
    let clock = ManualClock::default();
    let throttle = |name: &str| Throttle::builder(name).rate("100/day");
    let lenient = throttle("lenient").on_error(OnError::Allow);
    let lenient = lenient.backend(remote.clone()).build().unwrap();
    let strict = throttle("strict").on_error(OnError::Raise);
    let strict = strict.backend(remote.clone()).build().unwrap();
    let breaker = CircuitBreaker::builder().name("redis");
    let breaker = breaker.failure_threshold(1).clock(clock.clone());
    let breaker = breaker.build().unwrap();
    let failover = remote.clone().failover(memory(&clock), breaker);
    let covered = throttle("covered").backend(failover).build().unwrap();
    let state = || scraped.number("traffik_breaker_state{breaker=\"redis\"}");

    let ann = ann();
    let _ = lenient.hit(&ann).await.unwrap();
    remote.fail(true);
    let _ = lenient.hit(&ann).await.unwrap();
    assert!(strict.hit(&ann).await.is_err());
    let _ = covered.hit(&ann).await.unwrap();

    assert_eq!(scraped.decisions("lenient"), [2.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(scraped.decisions("strict"), [0.0, 0.0, 0.0, 0.0, 1.0]);
    assert_eq!(scraped.decisions("covered"), [1.0, 0.0, 0.0, 0.0, 0.0]);
    for (series, number) in [
        ("degraded_total{throttle=\"lenient\",by=\"policy\"}", 1.0),
        ("degraded_total{throttle=\"lenient\",by=\"fallback\"}", 0.0),
        ("degraded_total{throttle=\"covered\",by=\"fallback\"}", 1.0),
        ("decision_seconds_count{throttle=\"lenient\"}", 2.0),
        ("decision_seconds_count{throttle=\"strict\"}", 1.0),
        ("outages{of=\"throttle\"}", 2.0),
        ("outages{of=\"fallback\"}", 1.0),
        (
            "breaker_transitions_total{breaker=\"redis\",to=\"open\"}",
            1.0,
        ),
    ] {
        assert_eq!(
            scraped.number(&format!("traffik_{series}")),
            number,
            "{series}"
        );
    }
    assert_eq!(state(), 2.0);
}

/// And one that lasts was taken over as a copy, so that whoever is replaced and its successor would have told its end.
#[tokio::test(start_paused = true)]
async fn an_outage_lasted_for_ever_when_what_failed_was_dropped() {
    let scraped = Scraped::start();
    let outages = |of: &str| scraped.number(&format!("traffik_outages{{of=\"{of}\"}}"));
    let remote = Remote::new();
    let lenient = || {
        let lenient = Throttle::builder("lenient").rate("100/day");
        lenient.on_error(OnError::Allow).backend(remote.clone())
    };
    let replaced = lenient().build().unwrap();
    let fallback = remote.clone().fallback(memory(&ManualClock::default()));
    let covered = Throttle::builder("covered").rate("100/day");
    let covered = covered.backend(fallback).build().unwrap();
    remote.fail(true);
    for throttle in [&replaced, &covered] {
        assert!(throttle.hit(&ann()).await.unwrap().is_allowed());
    }
    assert_eq!((outages("throttle"), outages("fallback")), (1.0, 1.0));

    let successor = lenient().succeeding(&replaced).build().unwrap();
    let _ = replaced.hit(&ann()).await.unwrap();
    assert_eq!(successor.outage().degraded_total, 2);
    drop(replaced);
    assert_eq!(outages("throttle"), 1.0, "it goes on");
    drop((successor, covered));
    // Until the task that pays debts finds that nobody is left to be paid.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((outages("throttle"), outages("fallback")), (0.0, 0.0));
}

/// All of a file were, and whichever was made, or changed, last told its own state as that of all.
#[test]
fn a_breaker_of_the_same_name_hid_one_that_was_open() {
    let scraped = Scraped::start();
    let state = || scraped.number("traffik_breaker_state{breaker=\"twin\"}");
    let twin = || CircuitBreaker::builder().name("twin").build().unwrap();
    let (open, other) = (twin(), twin());
    open.force_open();
    assert_eq!(state(), 2.0);
    drop(twin());
    other.force_open();
    other.force_close();
    assert_eq!(state(), 2.0);
    drop(open);
    assert_eq!(state(), 0.0);
    other.force_open();
    drop(other);
    assert_eq!(state(), 0.0, "there is none any more");
}

/// Told of a throttle whose place it was to take, in an update that was refused.
#[test]
fn a_throttle_that_nobody_asked_forgot_who_was_denied() {
    let memory = memory(&ManualClock::default());
    let limit = || {
        let limit = Throttle::builder("watched").rate("1/day");
        limit.backend(memory.clone())
    };
    let deny = |throttle: &Throttle| {
        for who in 0..10 {
            let who = Identity::of(who);
            while throttle.hit_now(&who).unwrap().is_allowed() {}
        }
    };
    let first = limit().build().unwrap();
    deny(&first);
    drop(limit().offenders(0).succeeding(&first).build().unwrap());
    assert_eq!(first.offenders().len(), 10);
    let second = limit().offenders(3).name_offenders();
    let second = second.succeeding(&first).build().unwrap();
    assert_eq!(second.offenders().len(), 3);
    deny(&second);
    assert!(second.offenders().iter().all(|one| one.name.is_some()));
    let third = limit().offenders(3).succeeding(&second).build().unwrap();
    assert!(third.offenders().iter().all(|one| one.name.is_none()));
}

#[tokio::test(start_paused = true)]
async fn leases_were_told_twice_or_not_at_all() {
    use traffik_core::Backend as _;

    let scraped = Scraped::start();
    let leased = Remote::new().lease(Lease::new());
    let throttle = Throttle::builder("hot")
        .rate("100000/second")
        .strategy(TokenBucket::new())
        .backend(leased.clone())
        .build()
        .unwrap();
    let ann = ann();
    for _ in 0..3_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let _ = throttle.hit(&ann).await.unwrap();
    }
    let number = |what: &str| scraped.number(&format!("traffik_lease_{what}"));
    assert!(number("held") > 0.0, "{:?}", leased.info());
    leased.close().await.unwrap();
    let info = leased.info();
    assert!(info.lent > 0 && info.local > 0, "{info:?}");
    for (name, expected) in [
        ("lent_total", info.lent),
        ("local_total", info.local),
        ("trips_total", info.trips),
        ("returned_total", info.returned),
        ("held", info.held),
    ] {
        let expected = f64::from(u32::try_from(expected).unwrap());
        assert_eq!(number(name), expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_lent_was_held_on_when_nobody_was_left_to_hold_it() {
    let scraped = Scraped::start();
    let leased = Remote::new().lease(Lease::new());
    let throttle = Throttle::builder("hot")
        .rate("100000/second")
        .strategy(TokenBucket::new());
    let throttle = throttle.backend(leased).build().unwrap();
    for _ in 0..3_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let _ = throttle.hit(&ann()).await.unwrap();
    }
    let held = || scraped.number("traffik_lease_held");
    assert!(held() > 0.0);
    drop(throttle);
    // Questions that are on their way hold it, too.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(held(), 0.0);
}

/// Handles are asked for once.
#[test]
fn a_decision_allocated_to_be_counted() {
    let _scraped = Scraped::start();
    let throttle = Throttle::builder("cheap")
        .rate("1000000/day")
        .strategy(FixedWindow::new())
        .backend(memory(&ManualClock::default()))
        .build()
        .unwrap();
    let ann = ann();
    let costs = [1, 10_000_000];
    let hit = || costs.map(|cost| throttle.hit_now(Attempt::by(&ann).cost(cost)).unwrap());
    let _ = hit();
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            let _ = hit();
        }
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn names_are_as_recorders_want_them() {
    for metric in ALL {
        let of_ours = metric.name.strip_prefix("traffik_").unwrap();
        assert!(
            of_ours
                .bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_lowercase())
        );
        assert_eq!(
            metric.kind == Kind::Counter,
            metric.name.ends_with("_total")
        );
        assert_eq!(
            metric.kind == Kind::Histogram,
            metric.name.ends_with("_seconds")
        );
        assert!(!metric.help.is_empty());
    }
}
