use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::*;
use crate::resilience::Backoff;
use crate::time::ManualClock;

const RECOVERY: Duration = Duration::from_secs(60);

fn breaker() -> (ManualClock, CircuitBreaker) {
    let clock = ManualClock::default();
    let builder = CircuitBreaker::builder().recovery_timeout(RECOVERY);
    let breaker = builder.clock(clock.clone()).build().unwrap();
    (clock, breaker)
}

fn failure() -> Error {
    Error::timeout("the store did not answer within 50ms")
}

fn fail(breaker: &CircuitBreaker, times: usize) {
    for _ in 0..times {
        breaker.acquire().expect("a permit").fail(&failure());
    }
}

/// A breaker that lets probes pass.
fn half_open() -> (ManualClock, CircuitBreaker) {
    let (clock, breaker) = breaker();
    fail(&breaker, 5);
    clock.advance(RECOVERY);
    drop(breaker.acquire());
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    (clock, breaker)
}

#[test]
fn opens_after_so_many_failures_in_a_row() {
    let (_, breaker) = breaker();
    fail(&breaker, 4);
    breaker.acquire().unwrap().succeed();
    fail(&breaker, 4);
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!(breaker.info().failures, 4);
    fail(&breaker, 1);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert!(breaker.acquire().is_none());
}

#[test]
fn stays_open_until_the_recovery_timeout_is_over() {
    let (clock, breaker) = breaker();
    fail(&breaker, 5);
    clock.advance(RECOVERY - Duration::from_micros(1));
    assert!(breaker.acquire().is_none());
    clock.advance_micros(1);
    assert!(breaker.acquire().is_some());
}

/// An outage of a second was followed by limits in shares for a minute.
#[test]
fn probes_soon_and_then_less_and_less_often() {
    let clock = ManualClock::default();
    let breaker = CircuitBreaker::builder().clock(clock.clone());
    let breaker = breaker.build().unwrap();
    fail(&breaker, 5);
    for longest in [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000] {
        let mut waited = 0;
        while breaker
            .acquire()
            .map(|probe| probe.fail(&failure()))
            .is_none()
        {
            clock.advance(Duration::from_millis(10));
            waited += 10;
        }
        assert!((longest / 2..=longest).contains(&waited), "{waited} ms");
    }
    // The next outage begins anew.
    breaker.force_close();
    fail(&breaker, 5);
    clock.advance(Duration::from_millis(100));
    breaker.acquire().expect("a probe").succeed();
    breaker.acquire().expect("a probe").succeed();
    assert_eq!(breaker.state(), BreakerState::Closed);
}

/// One node of a cluster that was dead took the keys of all away.
#[test]
fn a_shard_that_fails_takes_no_other_away() {
    let (clock, breaker) = breaker();
    let [dead, alive] = [7, 8].map(|shard| breaker.of_shard(shard).into_owned());
    fail(&dead, 5);
    assert!(dead.state().is_open() && breaker.state().is_open());
    assert_eq!(alive.state(), BreakerState::Closed);
    assert!(breaker.of_shard(8).acquire().is_some() && breaker.of_shard(0).acquire().is_some());
    assert!(breaker.of_shard(7).acquire().is_none());
    let info = breaker.info();
    assert_eq!((info.opened_total, info.failed_total), (1, 5));
    assert_eq!((info.state, info.refused_total), (BreakerState::Open, 1));
    assert_eq!(dead.name(), "store, shard 7");

    breaker.force_close();
    assert_eq!(
        (dead.state(), breaker.state()),
        (BreakerState::Closed, BreakerState::Closed)
    );
    // Those that come later are forced as well.
    breaker.force_open();
    clock.advance(RECOVERY * 1000);
    for shard in [0, 7, 8, 9] {
        assert!(breaker.of_shard(shard).acquire().is_none());
    }
    breaker.force_close();
    for shard in [0, 7, 8, 9] {
        assert!(breaker.of_shard(shard).acquire().is_some());
    }
}

/// Which shards there are is known once a cluster has been connected to. One that was away before was never asked
/// again: its shards were taken for forced open.
#[test]
fn a_shard_that_was_found_in_an_outage_was_never_asked() {
    let (_, breaker) = breaker();
    fail(&breaker, 5);
    assert!(breaker.of_shard(7).acquire().is_some());
    assert_eq!(breaker.state(), BreakerState::Closed, "nobody asks all");
    let dead = breaker.of_shard(7).into_owned();
    fail(&dead, 5);
    assert!(breaker.of_shard(8).acquire().is_some());
    assert!(dead.acquire().is_none() && breaker.state().is_open());
}

/// Nobody would have closed what they open.
#[test]
fn calls_from_before_shards_were_found_do_not_count() {
    let (_, breaker) = breaker();
    let slow: Vec<_> = (0..5).map(|_| breaker.acquire().unwrap()).collect();
    assert!(breaker.of_shard(7).acquire().is_some());
    slow.into_iter().for_each(|call| call.fail(&failure()));
    assert_eq!(breaker.state(), BreakerState::Closed);
}

/// It waited for itself.
#[test]
fn a_hook_could_not_ask_of_a_shard_that_was_found() {
    let known = Arc::new(Mutex::new(None::<CircuitBreaker>));
    let asked = Arc::clone(&known);
    let breaker = CircuitBreaker::builder().on_transition(move |_| {
        let asked = asked.lock().unwrap();
        assert!(asked.as_ref().is_none_or(|one| one.state().is_open()));
    });
    let breaker = breaker.build().unwrap();
    breaker.force_open();
    *known.lock().unwrap() = Some(breaker.clone());
    for shard in [7, 8] {
        assert!(breaker.of_shard(shard).acquire().is_none());
    }
    // They know each other.
    *known.lock().unwrap() = None;
}

#[test]
fn closes_after_so_many_probes_and_reopens_after_one() {
    let (clock, breaker) = half_open();
    breaker.acquire().unwrap().succeed();
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(breaker.info().successes, 1);
    fail(&breaker, 1);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert!(breaker.acquire().is_none());

    clock.advance(RECOVERY);
    breaker.acquire().unwrap().succeed();
    breaker.acquire().unwrap().succeed();
    assert_eq!(breaker.state(), BreakerState::Closed);
    // The failures that opened it are forgotten.
    fail(&breaker, 4);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

/// Issue: SPEC 3.35. Any number of calls probed a store that had just come back.
#[test]
fn one_probe_at_a_time() {
    let (_, breaker) = half_open();
    let first = breaker.acquire().expect("the first probe");
    assert!(breaker.acquire().is_none());
    first.succeed();
    let second = breaker.acquire().expect("the second probe");
    assert!(breaker.acquire().is_none());
    drop(second);
    assert!(breaker.acquire().is_some());
}

/// However it ends: one that has told its outcome gives its place back once, not twice.
#[test]
fn one_probe_at_a_time_among_threads() {
    let clock = ManualClock::default();
    let builder = CircuitBreaker::builder().clock(clock.clone());
    let builder = builder.recovery_timeout(RECOVERY);
    let breaker = builder.success_threshold(u32::MAX).build().unwrap();
    fail(&breaker, 5);
    clock.advance(RECOVERY);
    let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (breaker, under_way, most) = (&breaker, &under_way, &most);
            scope.spawn(move || {
                for round in 0..200_000 {
                    if let Some(permit) = breaker.acquire() {
                        let probes = under_way.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(probes, Ordering::SeqCst);
                        // Not a yield: on a busy machine each is a time slice of everybody.
                        (0..50).for_each(|_| std::hint::spin_loop());
                        under_way.fetch_sub(1, Ordering::SeqCst);
                        match (thread + round) % 2 {
                            0 => permit.succeed(),
                            _ => drop(permit),
                        }
                    }
                }
            });
        }
    });
    assert!(breaker.info().successes > 1);
    assert_eq!(most.into_inner(), 1);
}

#[test]
fn outcomes_of_calls_from_before_do_not_count() {
    let (clock, breaker) = breaker();
    let slow: Vec<_> = (0..5).map(|_| breaker.acquire().unwrap()).collect();
    let mut slow = slow.into_iter();
    fail(&breaker, 5);
    slow.next().unwrap().succeed();
    assert_eq!(breaker.state(), BreakerState::Open);

    clock.advance(RECOVERY);
    let probe = breaker.acquire().unwrap();
    slow.next().unwrap().succeed();
    slow.next().unwrap().fail(&failure());
    drop(slow.next());
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(breaker.info().successes, 0);
    assert!(breaker.acquire().is_none(), "the probe is still under way");
    probe.succeed();
    breaker.acquire().unwrap().succeed();
    slow.next().unwrap().fail(&failure());
    assert_eq!(breaker.info().failures, 0);
}

#[test]
fn outcomes_of_probes_of_an_earlier_outage_do_not_count() {
    let (clock, breaker) = half_open();
    let [first, second, third] = [(); 3].map(|()| {
        let probe = breaker.acquire().expect("a probe");
        breaker.force_close();
        fail(&breaker, 5);
        clock.advance(RECOVERY);
        probe
    });
    let probe = breaker.acquire().expect("a probe");
    first.succeed();
    second.fail(&failure());
    drop(third);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(breaker.info().successes, 0);
    assert!(breaker.acquire().is_none());
    probe.succeed();
    assert_eq!(breaker.info().successes, 1);
}

#[test]
fn a_clock_that_steps_back_only_prolongs_the_wait() {
    let (clock, breaker) = breaker();
    fail(&breaker, 5);
    clock.set(Timestamp::EPOCH);
    assert!(breaker.acquire().is_none());
    assert_eq!(breaker.info().state_age_us, 0);
}

#[test]
fn forced_open_it_lets_no_probe_pass() {
    let (clock, breaker) = breaker();
    breaker.force_open();
    clock.advance(RECOVERY * 1000);
    assert!(breaker.acquire().is_none());
    breaker.force_close();
    assert!(breaker.acquire().is_some());

    fail(&breaker, 5);
    breaker.force_open();
    clock.advance(RECOVERY);
    assert!(breaker.acquire().is_none());
    assert_eq!(breaker.info().opened_total, 2);

    // Failures before a forced close are forgotten as well.
    breaker.force_close();
    fail(&breaker, 4);
    breaker.force_close();
    fail(&breaker, 4);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn tells_of_every_change_of_state_once() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let clock = ManualClock::default();
    let hook = {
        let log = Arc::clone(&log);
        move |change: &Transition<'_>| {
            let cause = change.cause.map(Error::to_string).unwrap_or_default();
            let line = format!(
                "{}: {} -> {} {cause}",
                change.breaker, change.from, change.to
            );
            log.lock().unwrap().push(line);
        }
    };
    let breaker = CircuitBreaker::builder()
        .name("redis")
        .failure_threshold(1)
        .success_threshold(1)
        .recovery_timeout(RECOVERY)
        .clock(clock.clone())
        .on_transition(hook)
        .build()
        .unwrap();
    fail(&breaker, 1);
    for _ in 0..100 {
        assert!(breaker.acquire().is_none());
    }
    clock.advance(RECOVERY);
    breaker.acquire().unwrap().succeed();
    breaker.force_close();
    assert_eq!(
        *log.lock().unwrap(),
        [
            "redis: closed -> open the store did not answer within 50ms",
            "redis: open -> half open ",
            "redis: half open -> closed ",
        ]
    );
    let info = breaker.info();
    assert_eq!(
        (info.opened_total, info.failed_total, info.refused_total),
        (1, 1, 100)
    );
}

#[test]
fn refuses_settings_that_could_not_work() {
    let complaint = |builder: CircuitBreakerBuilder| builder.build().unwrap_err().to_string();
    let redis = || CircuitBreaker::builder().name("redis");
    assert_eq!(
        complaint(redis().failure_threshold(0)),
        "the failure threshold of circuit breaker `redis` must be at least 1"
    );
    assert_eq!(
        complaint(redis().success_threshold(0)),
        "the success threshold of circuit breaker `redis` must be at least 1"
    );
    for timeout in [Duration::ZERO, Duration::MAX] {
        assert!(complaint(redis().recovery_timeout(timeout)).starts_with(
            "the recovery timeout of circuit breaker `redis` must be between 1ms and"
        ));
    }
    let endless = Backoff::exponential(Duration::from_secs(1)).max(Duration::MAX);
    let ending = "must be between 1ms and 366 days, not 18446744073709551615.999999999s";
    assert!(complaint(redis().recovery(endless)).ends_with(ending));
}
