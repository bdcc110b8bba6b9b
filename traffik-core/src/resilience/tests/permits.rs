//! Permits whose store fails between the hit and its settlement.

use super::*;
use crate::Permit;

fn left(throttle: &Throttle) -> u64 {
    now(throttle.stat(&Identity::of("ann"))).unwrap().remaining
}

fn reserve(throttle: &Throttle, cost: u32) -> Permit {
    let ann = Identity::of("ann");
    let reserved = now(throttle.reserve(Attempt::by(&ann).cost(cost)));
    reserved.unwrap().expect("there is room")
}

/// A store, and a throttle on it that never fails.
fn store() -> (Store, Throttle) {
    let store = Store::new(&ManualClock::default());
    let direct = throttle("1000/day", FixedWindow, store.elsewhere());
    (store, direct)
}

/// A store whose answers take a while.
fn slow(store: &Store) -> Slow {
    let slow = Slow::new(store);
    slow.answers_after(Duration::from_millis(10));
    slow
}

/// What was asked and done is not asked again.
#[tokio::test(start_paused = true)]
async fn a_refund_whose_answer_is_lost_is_given_once() {
    let (store, direct) = store();
    let api = throttle("1000/day", FixedWindow, store.clone());
    for error in [Error::timeout, Error::interrupted] {
        let store = Store {
            error: match error("") {
                error if error.is_timeout() => || Error::timeout("late"),
                _ => || Error::interrupted("broken"),
            },
            losing: Arc::default(),
            ..store.clone()
        };
        let api = throttle("1000/day", FixedWindow, store.clone());
        let before = left(&direct);
        let permit = reserve(&api, 100);
        store.losing.store(true, Ordering::Relaxed);
        permit.settle(40).await.unwrap_err();
        store.losing.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(before - left(&direct), 40);
    }
    drop(api);
}

/// A retry that was told to ask again after timeouts gave it four times.
#[tokio::test(start_paused = true)]
async fn a_refund_whose_answer_is_lost_is_not_retried() {
    let (store, direct) = store();
    let retry = || Retry::new().attempts(4).on(|_| true);
    let api = throttle("1000/day", FixedWindow, store.clone().retry(retry()));
    drop(reserve(&api, 500));
    for (actual, spent) in [(0, 500), (40, 540)] {
        let permit = reserve(&api, 100);
        store.losing.store(true, Ordering::Relaxed);
        permit.settle(actual).await.unwrap_err();
        store.losing.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(left(&direct), 1000 - spent);
    }
}

/// What is asked again of those that give something back, and of others.
#[tokio::test(start_paused = true)]
async fn what_gives_something_back_is_not_retried_unless_it_certainly_was_not_done() {
    use crate::strategy::{Lending, Loan, Settlement, Settling};
    let hits: Arc<dyn Strategy> = Arc::new(FixedWindow);
    let settling = |settlement| Settling::of(&hits, settlement);
    let lending = |back_of| -> Arc<dyn Strategy> {
        let loan = Loan {
            want: 5,
            back_of,
            ..Loan::default()
        };
        Lending::of(&hits, 1, loan)
    };
    let refund = Settlement::Refund { cost: 1, age_us: 0 };
    for (strategy, gives_back) in [
        (Arc::clone(&hits), false),
        (settling(Settlement::Charge(1)), false),
        (settling(refund), true),
        (lending(0), false),
        (lending(7), true),
    ] {
        let op = Op {
            key: crate::key::Key {
                throttle: 1,
                scope: 2,
                who: 3,
            },
            strategy: &strategy,
            rate: "9/day".parse().unwrap(),
            cost: 1,
            attributes: &crate::identity::Attributes::NONE,
        };
        let batch = Batch::new(std::slice::from_ref(&op));
        for (error, is_done) in [
            ((|| Error::timeout("late")) as fn() -> Error, true),
            (|| Error::connection("refused"), false),
        ] {
            let calls = if gives_back && is_done { 1 } else { 3 };
            let store = Store {
                at_once: true,
                ..Store::new(&ManualClock::default()).failing_with(error)
            };
            let retrying = store.clone().retry(Retry::new().on(|_| true));
            retrying.apply(&batch).await.unwrap_err();
            assert_eq!(store.calls(), calls, "{strategy:?}");
            retrying.settle(&op, false).await.unwrap_err();
            assert_eq!(store.calls(), 2 * calls, "{strategy:?}");
            // Who gets no answer at once asks in earnest, which is again.
            let at_once = retrying.try_apply(&batch);
            assert_eq!(at_once.is_some(), calls == 1, "{strategy:?}");
            assert_eq!(retrying.try_step(&op).is_some(), calls == 1, "{strategy:?}");
        }
    }
}

/// What certainly was not done is done when the store is back.
#[tokio::test(start_paused = true)]
async fn a_settlement_that_did_not_reach_the_store_is_made_again() {
    for (actual, error) in [
        (40, Error::connection as fn(&'static str) -> Error),
        (130, Error::connection),
        (40, Error::contended),
        (130, Error::overloaded),
    ] {
        let (store, direct) = store();
        let store = Store {
            failing: Arc::default(),
            error: match error("") {
                error if error.is_connection() => || Error::connection("refused"),
                error if error.is_contended() => || Error::contended("busy"),
                _ => || Error::overloaded("full"),
            },
            ..store
        };
        let api = throttle("1000/day", FixedWindow, store.clone());
        let permit = reserve(&api, 100);
        store.fail(true);
        permit.settle(actual).await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(left(&direct), 900);
        store.fail(false);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(left(&direct), 1000 - u64::from(actual));
    }
}

/// Each attempt may have been executed: less is admitted, but not without end.
#[tokio::test(start_paused = true)]
async fn a_charge_whose_answers_are_lost_is_made_a_few_times_at_most() {
    let (store, direct) = store();
    let store = Store {
        error: || Error::timeout("late"),
        ..store
    };
    let api = throttle("1000/day", FixedWindow, store.clone());
    let permit = reserve(&api, 10);
    store.losing.store(true, Ordering::Relaxed);
    permit.settle(30).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(300)).await;
    store.losing.store(false, Ordering::Relaxed);
    assert_eq!(left(&direct), 1000 - 10 - 3 * 20);
}

/// A handler is dropped wherever it is: also while it settles.
#[tokio::test(start_paused = true)]
async fn a_settlement_that_was_begun_is_made_though_nobody_waits_for_it() {
    let (store, direct) = store();
    let api = throttle("1000/day", FixedWindow, slow(&store));
    let ann = Identity::of("ann");
    for way in 0..3 {
        let before = left(&direct);
        let permit = api.reserve(Attempt::by(&ann).cost(100)).await;
        let mut permit = permit.unwrap().unwrap();
        match way {
            0 => {
                let settling = permit.settle(10);
                let late = tokio::time::timeout(Duration::from_millis(1), settling).await;
                assert!(late.is_err());
            }
            1 => permit.settle_later(10),
            _ => {
                permit = permit.on_drop(crate::OnDrop::Metered);
                assert!(permit.meter(10).await.unwrap().is_go());
                drop(permit);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(before - left(&direct), 10, "{way}");
    }
}

/// A charge that was asked for and not waited for may have been made, and is made again: never less.
#[tokio::test(start_paused = true)]
async fn a_meter_that_is_dropped_at_any_point_forgets_nothing() {
    for wait in [0, 1, 9, 10, 11, 25] {
        let (store, direct) = store();
        let api = throttle("1000/day", FixedWindow, slow(&store));
        let reserved = api
            .reserve(Attempt::by(&Identity::of("ann")).cost(10))
            .await;
        let mut permit = reserved.unwrap().unwrap().ahead(5);
        let metering = permit.meter(30);
        let _ = tokio::time::timeout(Duration::from_millis(wait), metering).await;
        assert_eq!(permit.metered(), 30);
        drop(permit);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let cost = 1000 - left(&direct);
        assert!([30, 30 + 25].contains(&cost), "{wait}: {cost}");
    }
}

/// One node before a store, with memory to fall back to.
struct Node {
    clock: ManualClock,
    store: Store,
    backend: Failover<Store, MemoryBackend>,
    api: Throttle,
    direct: Throttle,
}

impl Node {
    fn new(nodes: u32) -> Node {
        let clock = ManualClock::default();
        let all = Store::new(&clock);
        let store = all.elsewhere();
        let breaker = CircuitBreaker::builder().clock(clock.clone());
        let backend = store
            .clone()
            .failover(memory(&clock), breaker.build().unwrap())
            .nodes(nodes)
            .clock(clock.clone());
        Node {
            api: throttle("1000/day", FixedWindow, backend.clone()),
            direct: throttle("1000/day", FixedWindow, all),
            clock,
            store,
            backend,
        }
    }

    /// What is left when everything is paid, and how many hits that took.
    fn recover(&self) -> u64 {
        self.store.fail(false);
        let mut hits = 0;
        for _ in 0..300 {
            self.clock.advance(Duration::from_secs(1));
            hits += u64::from(hit(&self.api).is_allowed());
            if self.backend.info().owing == 0 && !self.backend.info().lasts {
                break;
            }
        }
        assert_eq!(self.backend.info().owing, 0);
        left(&self.direct) + hits
    }
}

/// Whatever happens when, in the end the store has been charged what was used.
#[test]
fn under_failover_a_permit_is_settled_where_it_was_charged() {
    for nodes in [1, 3] {
        for actual in [0, 20, 50, 80] {
            // Charged and settled without the store.
            let node = Node::new(nodes);
            let mut used = 1;
            let _ = hit(&node.api);
            node.store.fail(true);
            let permit = reserve(&node.api, 50);
            assert!(permit.decisions()[0].is_degraded());
            now(permit.settle(actual)).unwrap();
            used += u64::from(actual);
            assert_eq!(node.recover(), 1000 - used, "{nodes}, {actual}");

            // Charged without it, and settled after that was paid.
            let node = Node::new(nodes);
            node.store.fail(true);
            let permit = reserve(&node.api, 50);
            assert_eq!(node.recover(), 950);
            let before = left(&node.direct);
            now(permit.settle(actual)).unwrap();
            assert_eq!(left(&node.direct), before + 50 - u64::from(actual));
        }
        // Charged by the store, and settled without it: what is too little is owed.
        let node = Node::new(nodes);
        let permit = reserve(&node.api, 50);
        node.store.fail(true);
        now(permit.settle(80)).unwrap();
        assert_eq!(node.recover(), 920, "{nodes}");
        // What is too much may have been given back, for all that is known.
        let node = Node::new(nodes);
        let permit = reserve(&node.api, 50);
        node.store.fail(true);
        now(permit.settle(20)).unwrap_err();
        assert_eq!(node.recover(), 950, "{nodes}");
    }
}

/// Memory does not admit again what it has given back for a hit of the store's.
#[test]
fn a_refund_does_not_open_the_limit_of_an_outage() {
    let node = Node::new(1);
    let permit = reserve(&node.api, 500);
    now(permit.settle(200)).unwrap();
    assert_eq!(left(&node.direct), 800);
    node.store.fail(true);
    assert_eq!(drain(&node.api), 800);
}

/// After one outage with more debts than are kept, refunds were made in memory only, for good.
#[test]
fn debts_that_were_not_kept_concerned_every_refund_that_followed() {
    type Forget = fn(&Node);
    let forget: [Forget; 2] = [
        |node| node.clock.advance(Duration::from_secs(86_400)),
        |node| now(node.backend.reset()).unwrap(),
    ];
    for forget in forget {
        let node = Node::new(1);
        node.store.fail(true);
        for who in 0..2_000 {
            assert!(now(node.api.hit(&Identity::of(who))).unwrap().is_degraded());
        }
        assert_eq!(node.backend.info().owing, 1_024);
        // This one is known to memory only, and so is what it gives back.
        let permit = reserve(&node.api, 50);
        assert_eq!(node.recover(), 1_000);
        let before = left(&node.direct);
        now(permit.settle(20)).unwrap();
        assert_eq!(left(&node.direct), before);

        forget(&node);
        node.store.fail(true);
        let permit = reserve(&node.api, 50);
        assert!(permit.decisions()[0].is_degraded());
        node.recover();
        let before = left(&node.direct);
        now(permit.settle(20)).unwrap();
        assert_eq!(left(&node.direct), before + 30);
    }
}

/// With two stores, one in the place of the other, a refund was lost wherever the first was away: it was to
/// be made where the hit had not been charged.
#[test]
fn a_refund_finds_who_was_charged_behind_two_stores() {
    for (memory_is_behind, is_back) in [(1, false), (1, true), (2, false), (2, true)] {
        let clock = ManualClock::default();
        let (first, second) = (Store::new(&clock), Store::new(&clock));
        let (one, two, memory) = (first.clone(), second.clone(), memory(&clock));
        let backend: Arc<dyn Backend> = match memory_is_behind {
            1 => {
                let two = two.fallback(memory).clock(clock.clone());
                Arc::new(one.fallback(two).clock(clock.clone()))
            }
            _ => {
                let both = one.fallback(two).clock(clock.clone());
                Arc::new(both.fallback(memory).clock(clock.clone()))
            }
        };
        let api = throttle("1000/day", FixedWindow, Arc::clone(&backend));
        first.fail(true);
        second.fail(true);
        let permit = reserve(&api, 50);
        second.fail(!is_back);
        spend(&api, 2);
        now(permit.settle(20)).unwrap();
        second.fail(false);
        spend(&api, 2);
        first.fail(false);
        spend(&api, 3);
        let direct = throttle("1000/day", FixedWindow, first.clone());
        assert_eq!(left(&direct), 1000 - 20 - 7, "{memory_is_behind} {is_back}");
    }
}

/// It was, once for each attempt to tell that to whoever stood in, who was away as well.
#[tokio::test(start_paused = true)]
async fn a_debt_is_made_less_by_a_refund_once() {
    let clock = ManualClock::default();
    let refused = || Error::connection("refused");
    let (first, second) = (Store::new(&clock), Store::new(&clock));
    let first = first.failing_with(refused);
    let second = second.failing_with(refused);
    second.fail(false);
    let backend = first.clone().fallback(second.clone());
    let backend = backend.clock(clock.clone());
    let api = throttle("1000/day", FixedWindow, backend.clone());
    let ann = Identity::of("ann");
    let permit = api.reserve(Attempt::by(&ann).cost(50)).await;
    let others = api.hit(Attempt::by(&ann).cost(100)).await;
    assert!(others.unwrap().is_degraded());
    second.fail(true);
    let _ = permit.unwrap().unwrap().settle(20).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    first.fail(false);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(backend.info().owing, 0);
    let direct = throttle("1000/day", FixedWindow, first.clone());
    assert_eq!(left(&direct), 1000 - 100 - 20);
}
