//! Backends on a store that only has locks. Time is tokio's, which stands still until all wait.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use traffik_core::testing::conformance;
use traffik_core::{
    Backend, BackendExt, BreakerState, CircuitBreaker, FixedWindow, Hits, Identity, Lock,
    LockConfig, Locked, ManualClock, OnError, Store, Throttle, TokenBucket,
};

use crate::support::{MapStore, strategies};

type Shared = Locked<Arc<MapStore>>;

fn backend(store: &Arc<MapStore>) -> Shared {
    Locked::new(Arc::clone(store)).unwrap()
}

fn throttle(backend: &Shared, rate: &str) -> Throttle {
    Throttle::builder("api")
        .rate(rate)
        .strategy(TokenBucket::new())
        .on_error(OnError::Raise)
        .backend(backend.clone())
        .build()
        .unwrap()
}

/// Polls a future until it has used the store so often, then drops it.
async fn abandon<T>(store: &MapStore, commands: u64, future: impl Future<Output = T>) {
    let end = store.commands() + commands;
    let mut future = pin!(future);
    poll_fn(|context| {
        let ready = future.as_mut().poll(context).is_ready();
        assert!(!ready, "it was done before it could be abandoned");
        match store.commands() >= end {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn conforms() {
    let clock = ManualClock::default();
    let store = Arc::<MapStore>::default();
    let backend = Locked::builder(Arc::clone(&store))
        .clock(clock.clone())
        .build()
        .unwrap();
    conformance::decides_like_the_strategy(&backend, &clock, &strategies(), 30).await;
    conformance::admits_exactly_the_limit(&backend, &strategies()).await;
    conformance::batches_are_all_or_nothing(&backend).await;
    conformance::dropped_futures_leave_nothing_behind(&backend).await;
    conformance::repairs_what_was_damaged(&backend, &strategies(), async |_, bytes| {
        store.put_everywhere(&bytes);
    })
    .await;
    let neighbour = self::backend(&Arc::default());
    backend.reset().await.unwrap();
    conformance::resets_its_own_namespace_only(&backend, &neighbour).await;
    assert_eq!(store.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn three_processes_admit_exactly_the_limit() {
    let store = Arc::new(MapStore::slow(Duration::from_millis(1)));
    let throttles = [(); 3].map(|()| throttle(&backend(&store), "20/day"));
    let tasks: Vec<_> = (0..60)
        .map(|at| {
            let throttle = throttles[at % 3].clone();
            tokio::spawn(async move { throttle.hit(&Identity::of("ann")).await.unwrap() })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += u32::from(task.await.unwrap().is_allowed());
    }
    assert_eq!(admitted, 20);
    assert_eq!(store.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hit_costs_four_commands_and_a_denied_one_three() {
    let store = Arc::<MapStore>::default();
    let throttle = throttle(&backend(&store), "1/day");
    let ann = Identity::of("ann");
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    assert_eq!(store.commands(), 4);
    assert!(throttle.hit(&ann).await.unwrap().is_denied());
    assert_eq!(store.commands(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_lock_left_by_a_dropped_hit_is_released_by_the_next_one() {
    let store = Arc::<MapStore>::default();
    let throttle = throttle(&backend(&store), "9/day");
    let ann = Identity::of("ann");
    for commands in 1..4 {
        abandon(&store, commands, throttle.hit(&ann)).await;
        assert_eq!(store.held(), 1);
        let start = Instant::now();
        assert!(throttle.hit(&ann).await.unwrap().is_allowed());
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(store.held(), 0);
    }
}

/// Issue: SPEC 3.39. A holder that crashed locked everybody out for ever.
#[tokio::test(start_paused = true)]
async fn a_lock_left_by_a_crash_expires() {
    let store = Arc::<MapStore>::default();
    let lease = Duration::from_secs(3);
    let with = |config: LockConfig| {
        let builder = Locked::builder(Arc::clone(&store))
            .lock(config.ttl(lease))
            .deadline(2 * lease);
        throttle(&builder.build().unwrap(), "9/day")
    };
    let ann = Identity::of("ann");
    let crashed = with(LockConfig::new());
    abandon(&store, 2, crashed.hit(&ann)).await;

    let start = Instant::now();
    let impatient = with(LockConfig::new().blocking(false));
    assert!(impatient.hit(&ann).await.unwrap_err().is_contended());
    assert_eq!(start.elapsed(), Duration::ZERO);
    let hasty = with(LockConfig::new().blocking_timeout(Duration::from_secs(1)));
    assert!(hasty.hit(&ann).await.unwrap_err().is_contended());
    assert_eq!(start.elapsed(), Duration::from_secs(1));

    let patient = with(LockConfig::new());
    assert!(patient.hit(&ann).await.unwrap().is_allowed());
    assert!((lease..lease + Duration::from_millis(60)).contains(&start.elapsed()));
    // Others were not affected.
    let bob = Identity::of("bob");
    assert!(impatient.hit(&bob).await.unwrap().is_allowed());
}

/// Issue: SPEC 3.43. A slow holder whose lock had expired overwrote what others had stored.
/// There were 64 queues for everybody, and one in so many of all clients stood behind who waited.
#[tokio::test(start_paused = true)]
async fn a_lock_left_by_a_crash_held_up_strangers() {
    let store = Arc::<MapStore>::default();
    let ann = Identity::of("ann");
    let crashed = throttle(&backend(&store), "9/day");
    abandon(&store, 1, crashed.hit(&ann)).await;

    let throttle = throttle(&backend(&store), "9/day");
    let hit = |who: Identity| {
        let throttle = throttle.clone();
        tokio::spawn(async move {
            let start = Instant::now();
            let outcome = throttle.hit(&who).await;
            (outcome, start.elapsed())
        })
    };
    let held_up = [hit(ann.clone()), hit(ann)];
    let strangers: Vec<_> = (0..500).map(|n| hit(Identity::of(n))).collect();
    for stranger in strangers {
        let (outcome, took) = stranger.await.unwrap();
        assert!(outcome.unwrap().is_allowed());
        assert_eq!(took, Duration::ZERO);
    }
    for own in held_up {
        let (outcome, _) = own.await.unwrap();
        assert!(outcome.unwrap_err().is_timeout());
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stored_after_the_lock_has_expired() {
    let store = Arc::new(MapStore::slow(Duration::from_secs(2)));
    let with_ttl = |seconds| {
        let config = LockConfig::new().ttl(Duration::from_secs(seconds));
        let builder = Locked::builder(Arc::clone(&store))
            .lock(config)
            .deadline(Duration::from_secs(60));
        throttle(&builder.build().unwrap(), "9/day")
    };
    let ann = Identity::of("ann");
    let error = with_ttl(3).hit(&ann).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(with_ttl(60).stat(&ann).await.unwrap().remaining, 9);
    assert_eq!(with_ttl(60).hit(&ann).await.unwrap().remaining(), 8);
}

/// A store that hung held its identity's turn for ever, and those who waited were taken for rivals:
/// contention, which tells a breaker that the store is well.
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_one_deadline_each_and_opens_a_breaker() {
    let store = Arc::new(MapStore::slow(Duration::from_secs(1_000)));
    let deadline = Duration::from_millis(50);
    let breaker = CircuitBreaker::new();
    let builder = Locked::builder(Arc::clone(&store)).deadline(deadline);
    let limit = Throttle::builder("api")
        .rate("9/day")
        .on_error(OnError::Raise)
        .backend(builder.build().unwrap().guarded(breaker.clone()))
        .build()
        .unwrap();
    let start = Instant::now();
    let tasks = [(); 5].map(|()| {
        let limit = limit.clone();
        tokio::spawn(async move { limit.hit(&Identity::of("ann")).await.unwrap_err() })
    });
    for task in tasks {
        let error = task.await.unwrap();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.to_string(), "the store did not answer within 50ms");
    }
    // At once, and not one after the other.
    assert!((deadline..5 * deadline).contains(&start.elapsed()));
    assert_ne!(breaker.state(), BreakerState::Closed);

    let patient = Locked::builder(Arc::clone(&store)).deadline(deadline);
    let limit = throttle(&patient.build().unwrap(), "9/day");
    assert!(
        limit
            .stat(&Identity::of("ann"))
            .await
            .unwrap_err()
            .is_timeout()
    );
    let error = Locked::builder(store).deadline(Duration::ZERO).build();
    let error = error.unwrap_err();
    assert!(
        error.is_invalid() && error.to_string().ends_with("not 0ns"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn batches_of_several_identities_do_not_wait_for_each_other_for_ever() {
    let store = Arc::<MapStore>::default();
    let backends = [(); 2].map(|()| backend(&store));
    let limit = |backend: &Shared, name| {
        Throttle::builder(name)
            .rate("30/day")
            .strategy(FixedWindow)
            .on_error(OnError::Raise)
            .backend(backend.clone())
            .build()
            .unwrap()
    };
    let tasks: Vec<_> = (0..60)
        .map(|at| {
            let (one, all) = (
                limit(&backends[at % 2], "one"),
                limit(&backends[at % 2], "all"),
            );
            tokio::spawn(async move {
                let who = Identity::of(at % 5);
                let mut both = [(&one, &who), (&all, &Identity::ANONYMOUS)];
                if at % 3 == 0 {
                    both.reverse();
                }
                Hits::from_iter(both).decide().await.unwrap().is_allowed()
            })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += u32::from(task.await.unwrap());
    }
    assert_eq!(admitted, 30);
}

#[tokio::test(start_paused = true)]
async fn the_provided_methods_count_and_keep_time() {
    let store = Arc::<MapStore>::default();
    let second = Duration::from_secs(1);
    assert_eq!(
        store.increment_with_ttl("a", 5, 2 * second).await.unwrap(),
        5
    );
    tokio::time::advance(second).await;
    assert_eq!(
        store.increment_with_ttl("a", 5, 2 * second).await.unwrap(),
        10
    );
    assert_eq!(store.decrement("a", 12).await.unwrap(), -2);
    tokio::time::advance(second).await;
    assert_eq!(store.increment("a", 1).await.unwrap(), 1);
    assert!(store.expire("a", second).await.unwrap());
    tokio::time::advance(second).await;
    assert!(!store.expire("a", second).await.unwrap());

    store.set("b", b"ten", None).await.unwrap();
    assert!(store.increment("b", 1).await.is_err());
    store
        .set("b", i64::MAX.to_string().as_bytes(), None)
        .await
        .unwrap();
    assert!(store.increment("b", 1).await.is_err());

    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.increment("c", 2).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        store.multi_get(&["c", "d"]).await.unwrap(),
        [Some(b"100".to_vec()), None]
    );
}

/// The lock of a key stayed behind whatever did not change it, and stalled the next 5 s.
#[tokio::test(start_paused = true)]
async fn the_provided_methods_release_their_lock_whatever_comes() {
    let store = Arc::<MapStore>::default();
    let second = Duration::from_secs(1);
    let largest = i64::MAX.to_string();
    store.set("text", b"ten", None).await.unwrap();
    store.set("full", largest.as_bytes(), None).await.unwrap();
    let start = Instant::now();
    for _ in 0..2 {
        assert!(!store.expire("none", second).await.unwrap());
        assert!(store.increment("text", 1).await.is_err());
        assert!(store.increment("full", 1).await.is_err());
        for broken in ["lock", "get", "set"] {
            store.break_down(broken);
            assert!(store.increment("new", 1).await.is_err());
            assert!(store.decrement("full", 1).await.is_err());
            assert!(store.expire("text", second).await.is_err());
        }
        store.break_down(None);
        assert_eq!(store.held(), 0);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);

    // The lock of 5 s is asked for at 0 s, and its end noticed at 6 s.
    let store = Arc::new(MapStore::slow(3 * second));
    assert!(store.increment("new", 1).await.is_err());
    assert_eq!(store.get("new").await.unwrap(), None);
    assert_eq!(store.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lock_of_ones_own_ends_when_released_dropped_or_over() {
    let store = Arc::<MapStore>::default();
    let ttl = Duration::from_secs(100);
    let now = LockConfig::new().ttl(ttl).blocking(false);
    let lock = Lock::acquire(&store, "report", now).await.unwrap();
    // A hundredth and 2 ms less, since clocks differ.
    let certain = ttl - Duration::from_millis(1_002);
    assert_eq!(lock.remaining(), certain);
    let error = Lock::acquire(&store, "report", now).await.unwrap_err();
    assert!(error.is_contended(), "{error}");
    lock.release().await;
    assert_eq!(store.held(), 0);

    let patient = now.blocking(true);
    let start = Instant::now();
    drop(Lock::acquire(&store, "report", now).await.unwrap());
    abandon(&store, 2, Lock::acquire(&store, "report", patient)).await;
    let lock = Lock::acquire(&store, "report", patient).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));

    tokio::time::advance(certain).await;
    assert_eq!(lock.remaining(), Duration::ZERO);
    assert_eq!(store.held(), 1);
    // Whose time is over leaves the next holder's alone.
    let next = Lock::acquire(&store, "report", patient).await.unwrap();
    lock.release().await;
    assert_eq!(store.held(), 1);
    next.release().await;
    assert_eq!(store.held(), 0);
}

/// Issue: SPEC 3.42. Tasks inherited the locks of whoever started them, and four held one at once.
#[tokio::test(start_paused = true)]
async fn a_lock_excludes_the_tasks_of_its_holder() {
    let store = Arc::<MapStore>::default();
    let now = LockConfig::new().blocking(false);
    let held = Lock::acquire(&store, "report", now).await.unwrap();
    let again = Lock::acquire(&store, "report", now).await;
    assert!(again.unwrap_err().is_contended());
    let child = tokio::spawn({
        let store = Arc::clone(&store);
        async move { Lock::acquire(&store, "report", now).await.map(drop) }
    });
    assert!(child.await.unwrap().unwrap_err().is_contended());
    held.release().await;
    assert_eq!(store.held(), 0);
}

#[tokio::test]
async fn a_lock_has_a_printable_name() {
    let store = Arc::<MapStore>::default();
    for name in ["", "a\r\nb", "schlo\u{df}", &"x".repeat(101)] {
        let error = Lock::acquire(&store, name, LockConfig::new()).await;
        let error = error.unwrap_err();
        assert!(error.is_invalid(), "{name:?}: {error}");
        assert!(error.to_string().contains("printable ASCII"), "{error}");
    }
    assert_eq!(store.commands(), 0);
}

#[tokio::test(start_paused = true)]
async fn closing_forgets_only_if_told_to() {
    let store = Arc::<MapStore>::default();
    let ann = Identity::of("ann");
    let builder = || Locked::builder(Arc::clone(&store));
    for (builder, left) in [
        (builder(), 8),
        (builder().persistent(true), 8),
        (builder().persistent(false), 9),
    ] {
        let locked = builder.build().unwrap();
        let smooth = throttle(&locked, "9/day");
        assert!(smooth.hit(&ann).await.unwrap().is_allowed());
        locked.close().await.unwrap();
        assert!(smooth.hit(&ann).await.unwrap_err().is_closed());
        let next = throttle(&backend(&store), "9/day");
        assert_eq!(next.stat(&ann).await.unwrap().remaining, left);
        store.reset().await.unwrap();
    }
}

/// A process cannot change its environment safely, so this test runs itself in others.
#[test]
fn defaults_come_from_the_environment() {
    const ROLE: &str = "TRAFFIK_TESTS_EXPECT_LOCK";
    if let Ok(expected) = std::env::var(ROLE) {
        let backend = format!("{:?}", Locked::new(MapStore::default()));
        assert!(backend.contains(&expected), "{backend} is not {expected}");
        return;
    }
    for (variables, expected) in [
        (&[][..], "ttl: 5s, patience: 5s"),
        (&[("LOCK_TTL", "2.5")], "ttl: 2.5s, patience: 2.5s"),
        (
            &[("LOCK_TTL", "0"), ("BLOCKING_TIMEOUT", "1")],
            "ttl: 5s, patience: 1s",
        ),
        (&[("BLOCKING", "no")], "ttl: 5s, patience: 0ns"),
        (
            &[("BLOCKING_TIMEOUT", "-1")],
            "must be a non-negative number",
        ),
        (
            &[("LOCK_TTL", "")],
            "TRAFFIK_DEFAULT_LOCK_TTL must be a number",
        ),
    ] {
        let variables = variables
            .iter()
            .map(|(name, value)| (format!("TRAFFIK_DEFAULT_{name}"), value));
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "locked_store::defaults_come_from_the_environment",
            ])
            .envs(variables)
            .env(ROLE, expected)
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && output.contains("1 passed"),
            "{output}"
        );
    }
}
