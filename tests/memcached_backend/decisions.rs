//! Decisions are those of memory, whoever else asks.

use std::time::Duration;

use super::{admitted, ann, throttle};
use crate::support::{MemcachedServer, Random};
use traffik_core::{
    Attempt, Cell, Clock, Decision, FixedWindow, Gcra, Hit, Hits, Identity, ManualClock,
    MemcachedBackend, MemoryBackend, Rate, Strategy, Throttle, Timestamp, TokenBucket,
};

const TOLERANT: Gcra = Gcra::new().burst_tolerance(Duration::from_millis(1_700));

#[tokio::test]
async fn random_traces_are_decided_as_in_memory() {
    let server = MemcachedServer::start();
    for rate in [
        "1/ms",
        "7/s",
        "3/100ms",
        "5/minute",
        "100/hour",
        "3000000/day",
        "2/31d",
    ] {
        trace(&server, rate, FixedWindow).await;
        trace(&server, rate, TokenBucket::new()).await;
        trace(&server, rate, TokenBucket::new().burst(3)).await;
        trace(&server, rate, Gcra::new()).await;
        trace(&server, rate, TOLERANT).await;
        trace(&server, rate, TOLERANT.strict()).await;
    }
}

/// Hits one key on both backends at the same instants, clocks that step back included.
async fn trace(server: &MemcachedServer, rate: &str, strategy: impl Strategy + Copy) {
    let clock = ManualClock::default();
    let namespace = format!("{rate} {strategy:?}");
    let remote = server.builder().namespace(&namespace).clock(clock.clone());
    let remote = throttle(&remote.pool_size(1).build().unwrap(), rate, strategy);
    let memory = MemoryBackend::builder()
        .clock(clock.clone())
        .build()
        .unwrap();
    let memory = throttle(&memory, rate, strategy);
    let rate: Rate = rate.parse().unwrap();

    let mut random = Random::new(7);
    for _ in 0..60 {
        let cost = match random.below(4) {
            0 => u32::try_from(random.below(u64::from(rate.limit().min(9)) + 2)).unwrap(),
            _ => 1,
        };
        let ann = ann();
        let attempt = Attempt::by(&ann).cost(cost);
        assert_eq!(
            remote.stat(attempt).await.unwrap(),
            memory.stat(attempt).await.unwrap()
        );
        let decision = memory.hit(attempt).await.unwrap();
        assert_eq!(
            remote.hit(attempt).await.unwrap(),
            decision,
            "{namespace}, cost {cost}"
        );

        let period = rate.period_us();
        match random.below(8) {
            0..4 => {}
            4 => clock.advance(decision.wait()),
            5 => clock.advance_micros(random.below(period)),
            6 => clock.advance_micros(random.below(3 * period)),
            _ => {
                let back = random.below(period.min(5_000_000));
                clock.set(Timestamp::from_micros(clock.now().as_micros() - back));
            }
        }
    }
}

#[tokio::test]
async fn batches_are_decided_as_in_memory() {
    let server = MemcachedServer::start();
    let other = MemcachedServer::start();
    let clock = ManualClock::default();
    let remote = server
        .builder()
        .server(other.url())
        .clock(clock.clone())
        .build()
        .unwrap();
    let memory = MemoryBackend::builder()
        .clock(clock.clone())
        .build()
        .unwrap();
    let (remote, memory) = (limits(&remote), limits(&memory));

    let mut random = Random::new(11);
    let who: Vec<Identity> = (0..4).map(Identity::of).collect();
    for _ in 0..300 {
        let all: Vec<(usize, usize, u32)> = (0..1 + random.below(3))
            .map(|_| {
                let mut index = |end| usize::try_from(random.below(end)).unwrap();
                let (limit, who) = (index(3), index(4));
                (limit, who, u32::try_from(index(3)).unwrap())
            })
            .collect();
        let hits = |limits: &'_ [Throttle; 3]| {
            let mut hits = Hits::new();
            let limits: &'static [Throttle; 3] = Box::leak(Box::new(limits.clone()));
            let who: &'static [Identity] = Box::leak(who.clone().into());
            for (limit, one, cost) in &all {
                hits.push(&limits[*limit], Attempt::by(&who[*one]).cost(*cost));
            }
            hits
        };
        let decided = hits(&remote).decide().await.unwrap();
        assert_eq!(decided, hits(&memory).decide().await.unwrap(), "{all:?}");
        clock.advance_micros(random.below(400_000));
    }
}

fn limits(backend: &(impl traffik_core::Backend + Clone)) -> [Throttle; 3] {
    [
        throttle(backend, "5/second", FixedWindow),
        throttle(backend, "9/2s", TokenBucket::new()),
        throttle(backend, "4/second", TOLERANT),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_admit_exactly_the_limit() {
    let server = MemcachedServer::start();
    exactly(&server, FixedWindow, 1).await;
    exactly(&server, FixedWindow, 4).await;
    exactly(&server, TokenBucket::new(), 1).await;
    exactly(
        &server,
        TOLERANT
            .burst_tolerance(Duration::from_secs(86_400))
            .strict(),
        4,
    )
    .await;
}

/// 150 tasks on three backends, which know nothing of each other, hit one key.
async fn exactly(server: &MemcachedServer, strategy: impl Strategy + Copy, cost: u32) {
    let clock = ManualClock::default();
    let namespace = format!("{strategy:?} {cost}");
    let backend = || {
        let builder = server.builder().namespace(&namespace);
        builder.clock(clock.clone()).build().unwrap()
    };
    let throttles = [(); 3].map(|()| throttle(&backend(), "100/day", strategy));
    let tasks: Vec<_> = (0..150)
        .map(|at| {
            let throttle = throttles[at % 3].clone();
            tokio::spawn(async move {
                let ann = ann();
                let decision = throttle.hit(Attempt::by(&ann).cost(cost)).await;
                u32::from(decision.unwrap().is_allowed())
            })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.unwrap();
    }
    let capacity = throttles[0].stat(&ann()).await.unwrap().limit;
    assert!(capacity >= 100);
    // GCRA holds one more than the limit: the hit that is due now.
    let expected = (100 + u32::from(strategy.id() == "gcra")) / cost;
    assert_eq!(admitted, expected, "{namespace}");
}

/// A denied hit of a window is counted and taken back. If it were not, a higher limit would find
/// less left than there is.
#[tokio::test(flavor = "multi_thread")]
async fn denied_hits_consume_nothing() {
    let server = MemcachedServer::start();
    let clock = ManualClock::default();
    let backends = [(); 3].map(|()| server.builder().clock(clock.clone()).build().unwrap());
    let throttles = backends
        .each_ref()
        .map(|one| throttle(one, "5/day", FixedWindow));
    let tasks: Vec<_> = (0..90)
        .map(|at| {
            let throttle = throttles[at % 3].clone();
            tokio::spawn(async move { admitted(&throttle, &ann(), 3).await.unwrap() })
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        total += task.await.unwrap();
    }
    assert_eq!(total, 5);
    assert_eq!(unreturned(&backends), 0);

    let (ann, more) = (ann(), Rate::per_day(9));
    for left in [3, 2, 1, 0] {
        let decision = throttles[0]
            .hit(Attempt::by(&ann).rate(more))
            .await
            .unwrap();
        assert!(decision.is_allowed());
        assert_eq!(decision.remaining(), left);
    }
}

/// Admits far more than its rate says.
#[derive(Clone, Copy, Debug)]
struct Lavish;

impl Strategy for Lavish {
    fn id(&self) -> &'static str {
        "lavish"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let rate = &Rate::per_day(Rate::MAX_LIMIT);
        FixedWindow.step(cell, &Hit { rate, ..*hit })
    }

    fn counts(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_counter_never_runs_over() {
    let server = MemcachedServer::start();
    let throttle = throttle(&server.backend(), "5/day", Lavish);
    assert_eq!(admitted(&throttle, &ann(), 1).await.unwrap(), 1);
    let keys = server.keys();
    let key = keys.keys().find(|key| key.starts_with("tfk1:")).unwrap();
    let counter: u64 = server.get(key).unwrap().parse().unwrap();
    for count in [(1 << 21) - 3, (1 << 22) - 3] {
        server.set(key, (counter - 1 + count).to_string());
        let mut left = u64::from(Rate::MAX_LIMIT) - count;
        for _ in 0..6 {
            let decision = throttle.hit(&ann()).await.unwrap();
            assert_eq!(decision.remaining(), left - 1, "{count}");
            left = decision.remaining();
        }
    }
}

/// Batches from several processes, and hits on one of their limits alone.
#[tokio::test(flavor = "multi_thread")]
async fn batches_charge_all_or_nothing() {
    let server = MemcachedServer::start();
    let other = MemcachedServer::start();
    let clock = ManualClock::default();
    let backends = [(); 3].map(|()| {
        let builder = server.builder().server(other.url());
        builder.clock(clock.clone()).build().unwrap()
    });
    let small = |backend| throttle(backend, "40/day", TokenBucket::new());
    let large = |backend| throttle(backend, "60/day", FixedWindow);
    let tasks: Vec<_> = (0..90)
        .map(|at| {
            let (small, large) = (small(&backends[at % 3]), large(&backends[at % 3]));
            tokio::spawn(async move {
                let ann = ann();
                let mut hits = Hits::from_iter([(&large, &ann)]);
                if at % 5 != 0 {
                    hits.push(&small, &ann);
                }
                (at % 5 != 0, hits.decide().await.unwrap().is_allowed())
            })
        })
        .collect();
    let (mut both, mut alone) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            (true, true) => both += 1,
            (false, true) => alone += 1,
            (_, false) => {}
        }
    }
    assert!(both <= 40 && both + alone <= 60);
    let left = |throttle: Throttle| async move { throttle.stat(&ann()).await.unwrap().remaining };
    let charged = (
        40 - left(small(&backends[0])).await,
        60 - left(large(&backends[0])).await,
    );
    // Whatever was charged in vain is known.
    assert!(charged.0 >= both && charged.1 >= both + alone);
    assert_eq!(
        charged.0 - both + charged.1 - both - alone,
        unreturned(&backends)
    );
}

fn unreturned(backends: &[MemcachedBackend]) -> u64 {
    backends.iter().map(MemcachedBackend::unreturned).sum()
}
