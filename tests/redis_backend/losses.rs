//! What Redis forgets before its time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use traffik_core::strategy::SlidingWindowCounter;
use traffik_core::{
    Attempt, Backend, Decision, FixedWindow, Gcra, Identity, ManualClock, MemoryBackend, Rate,
    RedisBackend, Strategy, Throttle, TokenBucket,
};

use super::{builder, throttle};
use crate::support::{RedisServer, elsewhere};

const LIMIT: u32 = 200;

pub(super) fn growing() -> [Arc<dyn Strategy>; 4] {
    [
        Arc::new(FixedWindow),
        Arc::new(TokenBucket::new()),
        Arc::new(SlidingWindowCounter),
        Arc::new(Gcra::new().burst_tolerance(Duration::from_secs(80_000))),
    ]
}

/// Processes of their own, as far as Redis can tell.
pub(super) struct Nodes {
    pub(super) backends: Vec<RedisBackend>,
    pub(super) clock: ManualClock,
}

impl Nodes {
    pub(super) fn new(server: &RedisServer, count: usize) -> Nodes {
        Self::at(&server.url(), count)
    }

    pub(super) fn at(url: &str, count: usize) -> Nodes {
        let clock = ManualClock::default();
        let backend = |_| {
            let builder = RedisBackend::builder(url).deadline(Duration::from_secs(10));
            builder.clock(clock.clone()).build().unwrap()
        };
        Nodes {
            backends: (0..count).map(backend).collect(),
            clock,
        }
    }

    pub(super) fn losses(&self) -> u64 {
        self.backends
            .iter()
            .map(RedisBackend::state_loss_total)
            .sum()
    }

    /// How many of six times the limit are admitted by each strategy, if Redis loses its keys now
    /// and then; and how many would be if it did not.
    pub(super) async fn overload(&self, mut lose: impl AsyncFnMut()) -> Vec<(u32, u32)> {
        let ann = Identity::of("ann");
        let truth = memory_at(&self.clock);
        let mut all = Vec::new();
        for strategy in growing() {
            let name = format!("{strategy:?}");
            let on = |backend: Arc<dyn Backend>| -> Throttle {
                let throttle = builder(&name, "200/day", backend);
                throttle.strategy(Arc::clone(&strategy)).build().unwrap()
            };
            let throttles: Vec<_> = self
                .backends
                .iter()
                .map(|backend| on(Arc::new(backend.clone())))
                .collect();
            let truth = on(Arc::new(truth.clone()));
            let (mut admitted, mut due) = (0, 0);
            for turn in 0..6 * LIMIT {
                if turn % 90 == 60 {
                    lose().await;
                }
                self.clock.advance(Duration::from_millis(2));
                let throttle = &throttles[turn as usize % throttles.len()];
                admitted += u32::from(hit(throttle, Attempt::by(&ann)).await.is_allowed());
                due += u32::from(truth.hit(&ann).await.unwrap().is_allowed());
            }
            all.push((admitted, due));
        }
        all
    }
}

/// Hits a server whose predecessor has hung up: what did not know that yet is not charged.
pub(super) async fn hit(throttle: &Throttle, attempt: Attempt<'_>) -> Decision {
    let start = Instant::now();
    loop {
        match throttle.hit(attempt).await {
            Ok(decision) => return decision,
            Err(error) if start.elapsed() > Duration::from_secs(20) => panic!("{error:?}"),
            Err(error) => assert!(error.is_interrupted() || error.is_connection(), "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

pub(super) fn memory_at(clock: &ManualClock) -> MemoryBackend {
    let builder = MemoryBackend::builder().clock(clock.clone());
    builder.build().unwrap()
}

#[tokio::test]
async fn one_process_restores_exactly_what_was_lost() {
    let server = RedisServer::start();
    let nodes = Nodes::new(&server, 1);
    let flush = async || server.command(&["FLUSHALL"]);
    for (admitted, due) in nodes.overload(flush).await {
        assert_eq!(admitted, due);
    }
    assert!(nodes.losses() >= 4 * 3, "{}", nodes.losses());
}

#[tokio::test]
async fn several_processes_restore_what_they_saw_last() {
    let server = RedisServer::start();
    let nodes = Nodes::new(&server, 2);
    let evict = async || {
        for key in server.keys() {
            let _: () = server.command(&["DEL", &key]);
        }
    };
    for (admitted, due) in nodes.overload(evict).await {
        assert!(admitted * 100 <= due * 105, "{admitted} of {due}");
        assert!(admitted >= due, "{admitted} of {due}");
    }
    assert!(nodes.losses() >= 4 * 3, "{}", nodes.losses());
}

/// Who has seen little is the first to restore what Redis lost; who has seen more comes later.
#[tokio::test]
async fn who_remembers_more_restores_the_rest() {
    let server = RedisServer::start();
    let nodes = Nodes::new(&server, 2);
    let ann = Identity::of("ann");
    for strategy in growing() {
        let name = format!("{strategy:?}");
        let [idle, busy] = [0, 1].map(|node: usize| {
            let builder = builder(&name, "200/day", nodes.backends[node].clone());
            builder.strategy(Arc::clone(&strategy)).build().unwrap()
        });
        assert!(idle.hit(&ann).await.unwrap().is_allowed());
        let mut left = u64::MAX;
        while left > 100 {
            nodes.clock.advance_micros(1);
            let decision = busy.hit(&ann).await.unwrap();
            assert!(decision.is_allowed());
            left = decision.remaining();
        }

        let _: () = server.command(&["FLUSHALL"]);
        let mut admitted = 0;
        for _ in 0..2 * LIMIT {
            for node in [&idle, &busy] {
                nodes.clock.advance_micros(1);
                admitted += u64::from(node.hit(&ann).await.unwrap().is_allowed());
            }
        }
        // Two hits of the idle one, and one of the busy one, before that learns of it.
        assert!(
            (left..=left + 3).contains(&admitted),
            "{name}: {admitted} of {left}"
        );
    }
    assert_eq!(nodes.losses(), 2 * 4);
}

/// On the server's clock, which goes on.
#[tokio::test]
async fn a_limit_survives_an_empty_restart() {
    let mut server = RedisServer::start();
    let backend = server.backend();
    let bucket = builder("bucket", "200/day", backend.clone()).strategy(TokenBucket::new());
    let bucket = bucket.build().unwrap();
    let ann = Identity::of("ann");
    let mut admitted = 0;
    for hit in 0..6 * LIMIT {
        if hit == 150 {
            server = elsewhere(move || {
                server.kill();
                server.resurrect();
                server
            })
            .await;
        }
        admitted += u32::from(bucket.hit(&ann).await.unwrap().is_allowed());
    }
    assert_eq!((admitted, backend.state_loss_total()), (LIMIT, 1));
}

#[tokio::test]
async fn what_is_restored_holds_for_everybody_even_if_it_denies() {
    let server = RedisServer::start();
    let nodes = Nodes::new(&server, 2);
    let ann = Identity::of("ann");
    let [one, other] =
        [0, 1].map(|node: usize| throttle("all", "3/day", nodes.backends[node].clone()));
    for _ in 0..3 {
        assert!(one.hit(&ann).await.unwrap().is_allowed());
    }
    let _: () = server.command(&["FLUSHALL"]);
    assert!(one.hit(&ann).await.unwrap().is_denied());
    assert!(other.hit(&ann).await.unwrap().is_denied());
    assert_eq!(nodes.losses(), 1);
}

#[tokio::test]
async fn looking_shows_what_was_lost_and_writes_nothing() {
    let server = RedisServer::start();
    let backend = server.backend();
    let throttle = throttle("look", "3/day", backend.clone());
    let ann = Identity::of("ann");
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    let _: () = server.command(&["FLUSHALL"]);
    assert_eq!(throttle.stat(&ann).await.unwrap().remaining, 2);
    assert_eq!((server.keys().len(), backend.state_loss_total()), (0, 0));
}

#[tokio::test]
async fn a_reset_by_another_process_is_not_undone() {
    for clock in [None, Some(ManualClock::default())] {
        let server = RedisServer::start();
        let backend = || {
            let builder = server.builder().deny_cache(0);
            match &clock {
                None => builder.build().unwrap(),
                Some(clock) => builder.clock(clock.clone()).build().unwrap(),
            }
        };
        let (ours, theirs) = (backend(), backend());
        let throttle = throttle("reset", "3/day", ours.clone());
        let ann = Identity::of("ann");
        while throttle.hit(&ann).await.unwrap().is_allowed() {}
        theirs.reset().await.unwrap();
        if let Some(clock) = &clock {
            clock.advance_micros(1);
        }
        assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 2);
        assert_eq!(ours.state_loss_total(), 0);

        // What was charged since is healed again.
        let cells = server.keys().into_iter().filter(|key| key.contains('{'));
        for cell in cells {
            let _: () = server.command(&["DEL", &cell]);
        }
        assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 1);
        assert_eq!(ours.state_loss_total(), 1);
        let left: i64 = server.command(&["TTL", "traffik:reset"]);
        assert!((3_601..=7_200).contains(&left), "{left} s");
    }
}

#[tokio::test]
async fn expiry_and_age_are_no_losses() {
    for (rate, matters) in [("3/minute", 60), ("3/day", 3_600)] {
        for late in [false, true] {
            let server = RedisServer::start();
            let nodes = Nodes::new(&server, 1);
            let throttle = throttle(rate, rate, nodes.backends[0].clone());
            let ann = Identity::of("ann");
            assert!(throttle.hit(&ann).await.unwrap().is_allowed());
            let _: () = server.command(&["FLUSHALL"]);
            let last = Duration::from_secs(matters) - Duration::from_micros(1);
            nodes.clock.advance(last);
            nodes.clock.advance_micros(u64::from(late));
            let remaining = throttle.hit(&ann).await.unwrap().remaining();
            let expected = if late { (2, 0) } else { (1, 1) };
            assert_eq!((remaining, nodes.losses()), expected, "{rate}");
        }
    }
}

#[tokio::test]
async fn a_changed_rate_keeps_what_was_taken() {
    let server = RedisServer::start();
    let nodes = Nodes::new(&server, 1);
    let throttle = throttle("rate", "9/day", nodes.backends[0].clone());
    let ann = Identity::of("ann");
    for _ in 0..4 {
        assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    }
    let _: () = server.command(&["FLUSHALL"]);
    let changed = Attempt::by(&ann).rate(Rate::literal("6/day"));
    assert_eq!(throttle.hit(changed).await.unwrap().remaining(), 1);
}

#[tokio::test]
async fn it_can_be_turned_off_and_is_bounded() {
    let server = RedisServer::start();
    for (cells, most) in [(0, 0), (32, 32)] {
        let backend = server.builder().heal(cells).build().unwrap();
        let throttle = throttle(&cells.to_string(), "9/day", backend.clone());
        for _ in 0..2 {
            for who in 0..100 {
                assert!(throttle.hit(&Identity::of(who)).await.unwrap().is_allowed());
            }
        }
        let _: () = server.command(&["FLUSHALL"]);
        let mut healed = 0;
        for who in 0..100 {
            let remaining = throttle.stat(&Identity::of(who)).await.unwrap().remaining;
            healed += i32::from(remaining < 9);
        }
        assert!((most / 2..=most).contains(&healed), "{healed} of {most}");
    }
}
