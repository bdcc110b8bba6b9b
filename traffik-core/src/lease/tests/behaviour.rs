use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::backend::{Batch, BoxFuture, Op};
use crate::lease::Leased;
use crate::lease::errand::Errand;
use crate::lease::simulation::{Simulated, Store, simulated};
use crate::lease::tending::{Tended, tend};
use crate::strategy::IntoStrategy;
use crate::{
    Attempt, Backend, BackendExt, Cell, CircuitBreaker, Decision, Decisions, Error, FixedWindow,
    Gcra, Hits, Identity, KeyHasher, Lease, MemoryBackend, OnError, Rate, Result, SlidingWindowLog,
    Strategy, Throttle, TieredRate, Timestamp, TokenBucket,
};

fn throttle(rate: &str, strategy: impl IntoStrategy, backend: impl Backend) -> Throttle {
    Throttle::builder("api")
        .rate(rate)
        .strategy(strategy)
        .backend(backend)
        .on_error(OnError::Raise)
        .build()
        .unwrap()
}

fn ann() -> Identity {
    Identity::of("ann")
}

struct Node {
    store: Store,
    leased: Leased<Store>,
}

impl Node {
    fn new() -> Node {
        Self::with(Lease::new())
    }

    fn with(lease: Lease) -> Node {
        let clock = Simulated::new();
        let store = Store::new(clock, 7);
        let leased = store.clone().lease(lease.clock(clock));
        Node { store, leased }
    }

    fn throttle(&self, rate: &str, strategy: impl IntoStrategy) -> Throttle {
        throttle(rate, strategy, self.leased.clone())
    }
}

/// A hit every millisecond, one after the other.
async fn hits(throttle: &Throttle, count: u32) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for _ in 0..count {
        sleep(Duration::from_millis(1)).await;
        decisions.push(throttle.hit(&ann()).await.unwrap());
    }
    decisions
}

fn admitted(decisions: &[Decision]) -> u64 {
    decisions.iter().filter(|one| one.is_allowed()).count() as u64
}

/// What is left in the store, and not held by anybody.
async fn left(node: &Node, throttle: &Throttle) -> u64 {
    let ann = ann();
    let attempt = Attempt::by(&ann);
    let backend: &dyn Backend = &node.store;
    throttle.stat_on(backend, &attempt).await.unwrap().remaining
}

#[test]
fn keys_that_are_asked_for_once_in_a_while_go_to_the_store() {
    simulated(async {
        let node = Node::with(Lease::new().max_keys(640));
        let api = node.throttle("100/minute", TokenBucket::new());
        for round in 0..3 {
            for who in 0..2_000_u32 {
                assert!(api.hit(&Identity::of(who)).await.unwrap().is_allowed());
            }
            assert_eq!(node.store.trips(), (round + 1) * 2_000);
            // But for a few that are taken for others, they leave nothing behind.
            let known = node.leased.0.table.len();
            assert!(known < 40, "{known}");
        }
        let info = node.leased.info();
        assert_eq!((info.local, info.lent, info.trips), (0, 0, 6_000));
    });
}

/// What is held is looked through every 20 ms, and who had asked only was taken for one that nobody asks for.
#[test]
fn a_key_that_is_asked_for_evenly_is_leased() {
    for (length, gap_ms) in [(1, 10), (1, 25), (1, 35), (4, 100)] {
        simulated(async {
            let length = Duration::from_secs(length);
            let node = Node::with(Lease::new().length(length).period(length / 4));
            let api = node.throttle("1000/10s", TokenBucket::new());
            for _ in 0..200 {
                sleep(Duration::from_millis(gap_ms)).await;
                assert!(api.hit(&ann()).await.unwrap().is_allowed());
            }
            let info = node.leased.info();
            assert!(info.local > 100, "{gap_ms} ms: {info:?}");
        });
    }
}

/// Hits that memory decided are settled by the store, which lent what they took.
#[test]
fn refunds_of_what_was_lent_do_not_open_the_limit() {
    simulated(async {
        let window = FixedWindow.into_strategy().unwrap();
        let bucket = TokenBucket::new().into_strategy().unwrap();
        for strategy in [window, bucket] {
            let node = Node::new();
            let api = node.throttle("1000/day", strategy);
            let (mut used, mut denied) = (0, 0);
            for n in 0..5_000 {
                sleep(Duration::from_millis(1)).await;
                let Ok(permit) = api.reserve(&ann()).await.unwrap() else {
                    denied += 1;
                    continue;
                };
                permit.settle(n % 2).await.unwrap();
                used += n % 2;
            }
            assert!(node.leased.info().local > 0 && denied > 0);
            assert!((950..=1_000).contains(&used), "{used}");
        }
    });
}

#[test]
fn what_cannot_be_lent_the_store_decides() {
    simulated(async {
        let log = SlidingWindowLog.into_strategy().unwrap();
        let tiny = TokenBucket::new().burst(20).into_strategy().unwrap();
        let short = TokenBucket::new().burst(30).into_strategy().unwrap();
        for (rate, strategy) in [("500/day", log), ("500/day", tiny), ("10000/s", short)] {
            let node = Node::new();
            let api = node.throttle(rate, strategy);
            hits(&api, 300).await;
            assert_eq!(node.leased.info().lent, 0, "{rate}");
            assert_eq!(node.store.trips(), 300, "{rate}");
        }
        // Post-paid, what a hit costs is known only afterwards.
        let node = Node::new();
        let tolerance = Duration::from_secs(86_400);
        let api = node.throttle("100000/day", Gcra::new().burst_tolerance(tolerance));
        for _ in 0..300 {
            sleep(Duration::from_millis(1)).await;
            assert!(
                api.hit(Attempt::by(&ann()).cost(3))
                    .await
                    .unwrap()
                    .is_allowed()
            );
        }
        assert_eq!(node.leased.info().lent, 0);
    });
}

#[test]
fn hits_at_one_moment_ask_one_question() {
    simulated(async {
        let node = Node::new();
        let api = node.throttle("100000/day", FixedWindow);
        hits(&api, 200).await;
        sleep(Duration::from_secs(1)).await;
        let before = node.store.trips();
        let mut crowd = JoinSet::new();
        for _ in 0..5_000 {
            let api = api.clone();
            crowd.spawn(async move { api.hit(&ann()).await.unwrap().is_allowed() });
        }
        assert!(
            crowd
                .join_all()
                .await
                .into_iter()
                .all(|is_allowed| is_allowed)
        );
        let trips = node.store.trips() - before;
        assert!(trips < 100, "{trips}");
    });
}

/// Of a node alone, what is told is what there is.
#[test]
fn remaining_is_what_is_held_and_what_the_store_had_left() {
    simulated(async {
        let node = Node::new();
        let api = node.throttle("1000/day", FixedWindow);
        for (before, decision) in hits(&api, 600).await.iter().enumerate() {
            assert_eq!(decision.remaining(), 999 - before as u64);
            assert_eq!(decision.limit(), 1_000);
        }
        assert!(node.leased.info().held > 0);
        let stat = api.stat(&ann()).await.unwrap();
        assert_eq!((stat.remaining, stat.limit), (400, 1_000));
        assert!(left(&node, &api).await < 400);
        assert_eq!(admitted(&hits(&api, 600).await), 400);
    });
}

#[test]
fn what_is_left_goes_back_when_the_hits_cease() {
    simulated(async {
        let node = Node::new();
        let api = node.throttle("10000/day", TokenBucket::new());
        assert_eq!(admitted(&hits(&api, 700).await), 700);
        sleep(Duration::from_millis(400)).await;
        let info = node.leased.info();
        assert_eq!((info.held, info.stranded, info.void), (0, 0, 0));
        assert!(info.returned > 0 && info.local > 500);
        assert_eq!(left(&node, &api).await, 9_300);
        // Nothing is done for those who have gone.
        let trips = node.store.trips();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(node.store.trips(), trips);
    });
}

#[test]
fn closing_gives_back() {
    simulated(async {
        let node = Node::new();
        let api = node.throttle("10000/day", TokenBucket::new());
        hits(&api, 700).await;
        assert!(node.leased.info().held > 0);
        node.leased.close().await.unwrap();
        assert_eq!(node.leased.info().held, 0);
        assert_eq!(left(&node, &api).await, 9_300);
    });
}

#[test]
fn a_reset_voids_what_is_held_and_what_is_on_its_way() {
    simulated(async {
        let node = Node::new();
        let api = node.throttle("1000/day", TokenBucket::new());
        hits(&api, 700).await;
        node.store.delay(Duration::from_millis(300));
        let asking = tokio::spawn({
            let api = api.clone();
            async move { hits(&api, 200).await }
        });
        sleep(Duration::from_millis(250)).await;
        node.leased.reset().await.unwrap();
        assert_eq!(node.leased.info().held, 0);
        node.store.delay(Duration::ZERO);
        let late = admitted(&asking.await.unwrap());
        let fresh = admitted(&hits(&api, 1_500).await);
        assert!(late <= 200 && fresh <= 1_000, "{late} {fresh}");
        assert!(late + fresh >= 1_000);
    });
}

#[test]
fn batches_are_all_or_none() {
    simulated(async {
        let node = Node::new();
        let build = |name: &str, rate: &str| {
            let builder = Throttle::builder(name)
                .rate(rate)
                .strategy(TokenBucket::new());
            let builder = builder.on_error(OnError::Raise);
            builder.backend(node.leased.clone()).build().unwrap()
        };
        let (wide, narrow) = (build("wide", "10000/day"), build("narrow", "400/day"));
        let log = Throttle::builder("log")
            .rate("300/day")
            .strategy(SlidingWindowLog);
        let log = log.on_error(OnError::Raise).backend(node.leased.clone());
        let log = log.build().unwrap();
        for (least, all) in [(&narrow, 400), (&log, 300)] {
            node.leased.reset().await.unwrap();
            let before = node.leased.info();
            let mut admitted = 0;
            for _ in 0..1_000 {
                sleep(Duration::from_millis(1)).await;
                let ann = ann();
                let hits = Hits::from_iter([(&wide, &ann), (least, &ann)]);
                let decisions = match hits.try_decide() {
                    Some(decided) => decided.unwrap(),
                    None => hits.decide().await.unwrap(),
                };
                admitted += u64::from(decisions.is_allowed());
                assert_eq!(decisions[0].limit(), 10_000);
                assert!(decisions[0].is_allowed());
                // Less while something is on its way back.
                assert!(decisions[0].remaining() <= 10_000 - admitted);
            }
            assert_eq!(admitted, all);
            let local = node.leased.info().local - before.local;
            assert!(local > 500, "{local}");
            sleep(Duration::from_millis(500)).await;
            let info = node.leased.info();
            // What was put back a moment before it ended.
            assert!(info.stranded < 10, "{info:?}");
            let left = left(&node, &wide).await;
            assert!(left <= 10_000 - all && left + 10 > 10_000 - all, "{left}");
        }
    });
}

/// The rest of it was told to the store as spent once more, which then took nothing back of that term.
#[test]
fn what_is_held_of_a_batch_is_spent_once_though_a_part_of_it_ends_meanwhile() {
    simulated(async {
        let node = Node::new();
        let build = |name: &str, rate: &str, strategy: Arc<dyn Strategy>| {
            let builder = Throttle::builder(name).rate(rate).strategy(strategy);
            let builder = builder.on_error(OnError::Raise);
            builder.backend(node.leased.clone()).build().unwrap()
        };
        let bucket = build("bucket", "100000/day", Arc::new(TokenBucket::new()));
        let window = build("window", "10000/2s", Arc::new(FixedWindow));
        let log = build("log", "1000/day", Arc::new(SlidingWindowLog));
        let (ann, start) = (ann(), Instant::now());
        let mut used = 1;
        while start.elapsed() < Duration::from_millis(1_960) {
            sleep(Duration::from_millis(1)).await;
            used += 1;
            for throttle in [&bucket, &window] {
                assert!(throttle.hit(&ann).await.unwrap().is_allowed());
            }
        }
        node.store.delay(Duration::from_millis(100));
        let hits = Hits::from_iter([(&bucket, &ann), (&window, &ann), (&log, &ann)]);
        let decisions = hits.decide().await.unwrap();
        assert!(decisions.is_allowed());
        assert!(decisions[1].remaining() > 9_000, "the next window decided");
        sleep(Duration::from_secs(3)).await;
        assert_eq!(node.leased.info().held, 0);
        let left = left(&node, &bucket).await;
        assert!(left + 10 > 100_000 - used, "{left} after {used}");
    });
}

/// A hit after exactly the told wait is admitted if nobody else took it.
#[test]
fn waits_are_kept() {
    simulated(async {
        let node = Node::new();
        let api = node.throttle("200/s", TokenBucket::new());
        let mut denials = 0;
        while denials < 20 {
            let decision = hits(&api, 1).await[0];
            if let Some(wait) = decision.retry_after() {
                denials += 1;
                assert!(wait <= Duration::from_millis(150), "{wait:?}");
                sleep(wait).await;
                assert!(api.hit(&ann()).await.unwrap().is_allowed(), "{wait:?}");
            }
            for _ in 0..5 {
                let _ = api.hit(&ann()).await.unwrap();
            }
        }
        assert!(node.leased.info().lent > 0);
        let ann = ann();
        let patient = Attempt::by(&ann);
        for _ in 0..300 {
            let ready = api
                .until_ready(patient, Duration::from_secs(5))
                .await
                .unwrap();
            assert!(ready.is_allowed());
        }
    });
}

#[test]
fn another_rate_is_not_paid_from_the_lease() {
    simulated(async {
        let node = Node::new();
        let api = node.throttle("1000/day", FixedWindow);
        hits(&api, 600).await;
        assert!(node.leased.info().held > 50);
        let ann = ann();
        let less = Attempt::by(&ann).rate(Rate::per_day(500));
        for _ in 0..20 {
            assert!(api.hit(less).await.unwrap().is_denied());
        }
        assert_eq!(admitted(&hits(&api, 600).await), 400);
    });
}

#[test]
fn what_is_held_outlasts_the_store_and_then_the_fallback_decides() {
    simulated(async {
        let node = Node::new();
        let api = throttle(
            "100000/day",
            TokenBucket::new(),
            node.leased.clone().fallback(MemoryBackend::new()),
        );
        hits(&api, 1_000).await;
        let held = node.leased.info().held;
        node.store.lose(1_000);
        let decisions = hits(&api, 500).await;
        assert_eq!(admitted(&decisions), 500);
        let own = decisions
            .iter()
            .take_while(|one| !one.is_degraded())
            .count() as u64;
        assert!(held > 0 && own >= held / 2, "{own} of {held}");
        assert!(decisions.iter().filter(|one| one.is_degraded()).count() > 300);

        // Nobody could tell which of two stores had lent.
        let around = node.store.clone().fallback(MemoryBackend::new());
        let around = around.lease(Lease::new());
        let api = throttle("100000/day", TokenBucket::new(), around.clone());
        node.store.lose(0);
        hits(&api, 300).await;
        assert_eq!(around.info().lent, 0);
    });
}

#[test]
fn those_who_wait_for_an_answer_hear_of_its_failure() {
    simulated(async {
        let node = Node::new();
        let api = node.throttle("100000/day", FixedWindow);
        hits(&api, 300).await;
        sleep(Duration::from_secs(1)).await;
        node.store.lose(1_000);
        let before = node.store.trips();
        let mut crowd = JoinSet::new();
        for _ in 0..1_000 {
            let api = api.clone();
            crowd.spawn(async move { api.hit(&ann()).await });
        }
        let all = crowd.join_all().await;
        assert!(
            all.iter()
                .all(|one| one.as_ref().is_err_and(crate::Error::is_timeout))
        );
        let trips = node.store.trips() - before;
        assert!(trips < 30, "{trips}");
        node.store.lose(0);
        assert_eq!(admitted(&hits(&api, 300).await), 300);
    });
}

/// Whoever asked goes away; the lease is for all.
#[test]
fn an_asker_that_goes_away_leaves_the_lease_behind() {
    simulated(async {
        let node = Node::new();
        let api = node.throttle("100000/day", FixedWindow);
        for _ in 0..300 {
            sleep(Duration::from_millis(1)).await;
            let hit = api.clone();
            let asker = tokio::spawn(async move { hit.hit(&ann()).await });
            tokio::task::yield_now().await;
            asker.abort();
        }
        assert!(node.leased.info().lent > 0);
        assert_eq!(admitted(&hits(&api, 300).await), 300);
    });
}

/// It was lent after all had been given back, and nobody else could have it until it ended.
#[test]
fn closing_gives_back_what_is_on_its_way() {
    simulated(async {
        let node = Node::new();
        let api = node.throttle("10000/day", TokenBucket::new());
        hits(&api, 700).await;
        node.store.delay(Duration::from_millis(300));
        let (before, mut spent) = (node.store.trips(), 700);
        while node.store.trips() == before {
            spent += admitted(&hits(&api, 1).await);
        }
        let lent = node.leased.info().lent;
        node.leased.close().await.unwrap();
        let info = node.leased.info();
        assert!(info.lent > lent, "nothing was on its way");
        assert_eq!((info.held, info.stranded, info.void), (0, 0, 0), "{info:?}");
        assert_eq!(info.lent - info.returned, info.local);
        assert_eq!(left(&node, &api).await, 10_000 - spent);
    });
}

/// Whoever is not there any more gives nothing back: what it held is lost to others for two lengths
/// at most, and not for good.
#[test]
fn a_node_that_dies_strands_what_it_held_until_it_ends() {
    simulated(async {
        let node = Node::new();
        let api = node.throttle("1000/s", TokenBucket::new());
        assert_eq!(admitted(&hits(&api, 900).await), 900);
        let held = node.leased.info().held;
        assert!(held > 20, "{held}");
        // Nothing of it is heard any more.
        node.store.lose(1_000);
        sleep(Duration::from_millis(990)).await;
        assert!(left(&node, &api).await <= 1_000 - held);
        sleep(Duration::from_millis(1_010)).await;
        // It ended, and drains like a hit made at its end.
        sleep(Duration::from_millis(held)).await;
        assert_eq!(left(&node, &api).await, 1_000);
    });
}

/// An outage was over as soon as a lease had admitted anything, whatever became of the store, and a
/// breaker never opened.
#[test]
fn what_was_lent_before_does_not_prove_that_the_store_is_there() {
    simulated(async {
        let breaker = CircuitBreaker::builder().failure_threshold(3);
        let breaker = breaker.recovery_timeout(Duration::from_secs(3_600));
        let breaker = breaker.build().unwrap();
        let clock = Simulated::new();
        let store = Store::new(clock, 7);
        let leased = store.clone().lease(Lease::new().clock(clock));
        let guarded = leased.clone().guarded(breaker.clone());
        let backend = guarded.fallback(MemoryBackend::new()).clock(clock);
        let api = throttle("100000/day", TokenBucket::new(), backend.clone());
        hits(&api, 1_000).await;
        assert!(leased.info().held > 20);

        store.lose(1_000);
        let cold = Identity::of("bob");
        for failed in 1..=2 {
            assert!(api.hit(&cold).await.unwrap().is_degraded());
            let local = leased.info().local;
            assert!(!hits(&api, 1).await[0].is_degraded());
            assert_eq!(leased.info().local, local + 1);
            assert_eq!(breaker.info().failures, failed);
            assert!(backend.info().lasts);
        }
        assert!(api.hit(&cold).await.unwrap().is_degraded());
        assert!(breaker.state().is_open());

        // What is lent by a store that answers again does, though no hit waited for it.
        breaker.force_close();
        store.lose(0);
        hits(&api, 1_000).await;
        sleep(Duration::from_secs(2)).await;
        hits(&api, 400).await;
        assert!(!backend.info().lasts, "{:?}", backend.info());
    });
}

/// It kept the tiers with which it had become hot until it was not asked for any more.
#[test]
fn a_key_that_is_asked_for_all_the_time_follows_other_tiers() {
    simulated(async {
        let node = Node::new();
        let gold = |factor| {
            let tiers = TieredRate::new().tier("gold", factor).default_tier("gold");
            node.throttle("100/s", tiers)
        };
        let (five, one) = (gold(5.0), gold(1.0));
        assert!(admitted(&hits(&five, 2_000).await) > 900);
        // What is held ends.
        hits(&one, 1_000).await;
        let local = node.leased.info().local;
        let since = hits(&one, 2_000).await;
        assert!(since.iter().all(|decision| decision.limit() == 100));
        // Parts of three windows.
        assert!(admitted(&since) <= 300, "{}", admitted(&since));
        assert!(node.leased.info().local > local + 1_000);
    });
}

/// Two nodes of a store, of which one hangs: that of the limits of 999.
#[derive(Clone, Debug)]
struct Nodes {
    store: Store,
    hangs: Arc<AtomicBool>,
}

impl Backend for Nodes {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(async move {
            // They decide each for itself, and what is lent by one is lent whatever the other says.
            let lends = batch.ops().iter().any(|op| op.strategy.is_correction());
            assert!(!lends || !batch.is_scattered(), "{batch:?}");
            let is_there = |op: &Op<'_>| op.rate.limit() == 999;
            if self.hangs.load(Ordering::Relaxed) && batch.ops().iter().any(is_there) {
                sleep(Duration::from_millis(50)).await;
                return Err(Error::timeout("a node does not answer"));
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

    fn key_hasher(&self) -> &KeyHasher {
        self.store.key_hasher()
    }
}

/// The question for the limit that all share went with a hit on the other node, and all waited for its
/// deadline and were told its error.
#[test]
fn a_node_that_hangs_fails_no_hits_on_another() {
    simulated(async {
        let clock = Simulated::new();
        let nodes = Nodes {
            store: Store::new(clock, 7),
            hangs: Arc::default(),
        };
        let leased = nodes.clone().lease(Lease::new().clock(clock));
        let build = |name: &str, rate: &str| {
            let builder = Throttle::builder(name).rate(rate).backend(leased.clone());
            builder
                .strategy(TokenBucket::new())
                .on_error(OnError::Raise)
        };
        let all = build("all", "2000/s").shared().build().unwrap();
        let here = build("here", "1000/s").build().unwrap();
        let there = build("there", "999/s").build().unwrap();
        for hangs in [false, true] {
            nodes.hangs.store(hangs, Ordering::Relaxed);
            let (mut crowd, before) = (JoinSet::new(), leased.info());
            for n in 0..400 {
                sleep(Duration::from_millis(2)).await;
                // Who comes first asks for all.
                let is_there = n % 40 == 0;
                if is_there {
                    leased.reset().await.unwrap();
                }
                let one = if is_there {
                    there.clone()
                } else {
                    here.clone()
                };
                let all = all.clone();
                crowd.spawn(async move {
                    let (who, start) = (Identity::of(n % 50), Instant::now());
                    let hits = Hits::from_iter([(&one, &who), (&all, &who)]);
                    let failed = hits.decide().await.is_err();
                    (is_there, failed, start.elapsed())
                });
            }
            for (is_there, failed, took) in crowd.join_all().await {
                assert_eq!(failed, is_there && hangs);
                assert!(is_there || took < Duration::from_millis(20), "{took:?}");
            }
            assert!(leased.info().local > before.local + 200);
        }
    });
}

/// They waited until it was: until the thread of whoever had asked had time again, if a handler blocked it.
#[test]
fn a_question_that_is_not_answered_keeps_nobody_waiting_for_long() {
    for is_batch in [false, true] {
        simulated(async {
            let node = Node::new();
            let api = node.throttle("100000/day", TokenBucket::new());
            let log = Throttle::builder("log").rate("1000/day");
            let log = log.strategy(SlidingWindowLog).backend(node.leased.clone());
            let log = log.build().unwrap();
            hits(&api, 300).await;
            node.leased.reset().await.unwrap();
            node.store.delay(Duration::from_secs(1_000));
            let before = node.store.trips();
            let asking = api.clone();
            let asks = tokio::spawn(async move { asking.hit(&ann()).await });
            while node.store.trips() == before {
                tokio::task::yield_now().await;
            }
            node.store.delay(Duration::ZERO);
            let (ann, start) = (ann(), Instant::now());
            for _ in 0..20 {
                let hits = match is_batch {
                    true => Hits::from_iter([(&api, &ann), (&log, &ann)]),
                    false => Hits::from_iter([(&api, &ann)]),
                };
                let decided = timeout(Duration::from_secs(9), hits.decide()).await;
                assert!(decided.unwrap().unwrap().is_allowed());
            }
            // The first waits for a while, and the others know.
            let took = start.elapsed().as_millis();
            assert!((250..300).contains(&took), "{took} ms");
            assert!(!asks.is_finished());
        });
    }
}

/// What nobody can give back any more was given back, some at a time.
#[test]
fn closing_ends_soon_though_the_store_does_not_answer() {
    simulated(async {
        let node = Node::new();
        let api = node.throttle("10000/day", TokenBucket::new());
        let mut crowd = JoinSet::new();
        for who in 0..500_u32 {
            let api = api.clone();
            crowd.spawn(async move {
                for _ in 0..100 {
                    sleep(Duration::from_millis(5)).await;
                    let hit = api.hit(&Identity::of(who)).await;
                    assert!(hit.unwrap().is_allowed());
                }
            });
        }
        crowd.join_all().await;
        assert!(node.leased.info().held > 2_000);
        node.store.lose(1_000);
        node.store.delay(Duration::from_secs(1));
        let start = Instant::now();
        node.leased.close().await.unwrap();
        let took = start.elapsed();
        assert!(took < Duration::from_millis(2_500), "{took:?}");
    });
}

/// A question in between found that somebody looked after what is hot, and nobody did.
#[test]
fn what_becomes_hot_while_the_looking_ends_is_looked_after() {
    simulated(async {
        let node = Node::new();
        let api = node.throttle("10000/day", TokenBucket::new());
        let tended = Tended::begin(&node.leased.0).expect("nothing is hot");
        assert!(Tended::begin(&node.leased.0).is_none());
        hits(&api, 300).await;
        sleep(Duration::from_millis(400)).await;
        assert!(node.leased.info().held > 0);
        let again = tended.end(&node.leased.0).expect("something is hot");
        tokio::spawn(tend(again));
        sleep(Duration::from_millis(400)).await;
        assert_eq!(
            (node.leased.info().held, left(&node, &api).await),
            (0, 9_700)
        );
        // And then it ends.
        sleep(Duration::from_secs(2)).await;
        let tended = Tended::begin(&node.leased.0).expect("nothing is hot");
        assert!(tended.end(&node.leased.0).is_none());
        assert!(Tended::begin(&node.leased.0).is_some());
    });
}

/// It was taken for begun, and nothing that fell idle went back any more.
#[test]
fn what_is_left_goes_back_though_a_runtime_ended_before_it_looked() {
    let busy = Builder::new_current_thread().build().unwrap();
    simulated(async {
        let node = Node::new();
        drop(node.leased.spawn(busy.handle(), Errand::default()));
        busy.shutdown_background();
        let api = node.throttle("10000/day", TokenBucket::new());
        hits(&api, 300).await;
        sleep(Duration::from_millis(400)).await;
        assert_eq!(
            (node.leased.info().held, left(&node, &api).await),
            (0, 9_700)
        );
    });
}
