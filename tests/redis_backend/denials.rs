//! Denials that are answered without asking Redis.

use std::time::{Duration, Instant};

use traffik_core::testing::conformance;
use traffik_core::{
    Attempt, Backend, Hits, Identity, ManualClock, Rate, RedisBackend, Throttle, TokenBucket,
};

use super::{builder, throttle};
use crate::support::{Fault, Proxy, RedisServer, strategies};

/// How many decisions Redis was asked for since the last time.
fn asked(server: &RedisServer) -> u64 {
    server.calls().get("evalsha").copied().unwrap_or(0)
}

#[tokio::test]
async fn a_denied_key_is_denied_locally_until_its_wait_is_over() {
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let backend = server.builder().clock(clock.clone()).build().unwrap();
    let throttle = throttle("cache", "1/400ms", backend.clone());
    let (ann, bob) = (Identity::of("ann"), Identity::of("bob"));
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    let wait = throttle.hit(&ann).await.unwrap().retry_after().unwrap();
    asked(&server);

    clock.advance(wait / 2);
    for _ in 0..100 {
        let denied = throttle.hit(&ann).await.unwrap();
        assert_eq!(denied.retry_after(), Some(wait - wait / 2));
    }
    // The adapter's way, without waiting.
    assert!(throttle.hit_now(&ann).unwrap().is_denied());
    assert_eq!(asked(&server), 0);
    assert!(throttle.hit(&bob).await.unwrap().is_allowed());
    assert_eq!(asked(&server), 1, "others are asked for");

    clock.advance(wait - wait / 2);
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    assert_eq!(asked(&server), 1);
}

#[tokio::test]
async fn a_denied_batch_is_denied_locally() {
    let server = RedisServer::start();
    let backend = server.backend();
    let throttles = ["9/day", "1/day", "5/day"].map(|rate| throttle(rate, rate, backend.clone()));
    let ann = Identity::of("ann");
    let batch = Hits::from_iter(throttles.iter().map(|throttle| (throttle, &ann)));
    assert!(batch.decide().await.unwrap().is_allowed());
    let denied = batch.decide().await.unwrap();
    asked(&server);
    let again = batch.decide().await.unwrap();
    assert_eq!(asked(&server), 0);
    let remaining = |decisions: &traffik_core::Decisions| {
        decisions
            .iter()
            .map(|one| (one.verdict(), one.remaining()))
            .collect::<Vec<_>>()
    };
    assert_eq!(remaining(&again), remaining(&denied));
    // Not denied by itself.
    assert!(throttles[0].hit(&ann).await.unwrap().is_allowed());
    assert_eq!(asked(&server), 1);
}

#[tokio::test]
async fn other_processes_are_noticed_within_a_second() {
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let backend = server.builder().clock(clock.clone()).build().unwrap();
    let other = server.builder().clock(clock.clone()).build().unwrap();
    let throttle = throttle("second", "1/day", backend);
    let ann = Identity::of("ann");
    while throttle.hit(&ann).await.unwrap().is_allowed() {}
    other.reset().await.unwrap();
    clock.advance(Duration::from_micros(999_999));
    assert!(throttle.hit(&ann).await.unwrap().is_denied());
    clock.advance_micros(1);
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
}

#[tokio::test]
async fn it_can_be_turned_off_and_is_bounded() {
    // What is remembered is asked again after a second: a busy machine would take longer.
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    for (denials, most) in [(0, 0), (16, 16)] {
        let name = denials.to_string();
        let builder = server.builder().clock(clock.clone());
        let backend = builder.deny_cache(denials).build().unwrap();
        let throttle = throttle(&name, "1/day", backend);
        for who in 0..100 {
            while throttle.hit(&Identity::of(who)).await.unwrap().is_allowed() {}
        }
        asked(&server);
        for who in 0..100 {
            assert!(throttle.hit(&Identity::of(who)).await.unwrap().is_denied());
        }
        let local = 100 - asked(&server);
        assert!((most / 2..=most).contains(&local), "{local} of {most}");
    }
}

/// Redis tells the time somewhen between question and answer. The wait was counted from the question,
/// and so was too short by up to a round trip.
#[tokio::test]
async fn a_remembered_wait_is_never_too_short_and_too_long_by_less_than_the_answer_took() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port());
    let builder = RedisBackend::builder(&proxy.url()).deadline(Duration::from_secs(10));
    let backend = builder.build().unwrap();
    // Of a window whose end is known, and far away.
    let (period, rate) = (366 * 86_400, "1/366d");
    let throttle = throttle("wait", rate, backend);
    let ann = Identity::of("ann");
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    let server_time = || -> Duration {
        let (seconds, micros): (u64, u32) = server.command(&["TIME"]);
        Duration::new(seconds, micros * 1_000)
    };
    let end = Duration::from_secs((server_time().as_secs() / period + 1) * period);

    // On the way there, on the way back, and both.
    for way in [1, 5, 20] {
        proxy.set(Fault::Delay(Duration::from_millis(way)));
        server.calls();
        let start = Instant::now();
        let told = throttle.hit(&ann).await.unwrap().retry_after().unwrap();
        let took = start.elapsed();
        assert_eq!(asked(&server), 1);
        assert!(server_time() + told >= end, "by Redis itself");
        for _ in 0..20 {
            let before = server_time();
            let denied = throttle.hit(&ann).await.unwrap();
            let (wait, after) = (denied.retry_after().unwrap(), server_time());
            assert!(after + wait >= end, "{:?} too short", end - (after + wait));
            assert!(
                before + wait <= end + took,
                "{:?} too long",
                before + wait - end
            );
        }
        assert_eq!(asked(&server), 0, "all were remembered");
        backend_forgets(&throttle, &ann).await;
    }
}

/// A hit of another cost is not denied from memory, and what it is told is remembered instead.
async fn backend_forgets(throttle: &Throttle, who: &Identity) {
    let attempt = Attempt::by(who).cost(0);
    let _ = throttle.hit(attempt).await.unwrap();
}

/// The law of this cache: whatever happens through the backend, it answers what Redis would.
#[tokio::test]
async fn never_denies_what_redis_would_admit() {
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let cached = server.builder().clock(clock.clone()).build().unwrap();
    let plain = server
        .builder()
        .clock(clock.clone())
        .deny_cache(0)
        .build()
        .unwrap();
    let pair = |backend| {
        let bucket = builder("bucket", "5/second", backend).strategy(TokenBucket::new());
        bucket.build().unwrap()
    };
    let window = |backend| throttle("window", "3/300ms", backend);
    let throttles: [(Throttle, Throttle); 2] = [
        (pair(cached.clone()), pair(plain.clone())),
        (window(cached.clone()), window(plain.clone())),
    ];
    let rates = ["5/second", "3/300ms", "40/minute", "1/100ms"].map(Rate::literal);
    let people = ["ann", "bob"].map(Identity::of);

    let mut dice = Dice(7);
    let mut local = 0;
    for _ in 0..4_000 {
        let (throttle, truth) = &throttles[dice.below(2)];
        let attempt = Attempt::by(&people[dice.below(2)])
            .rate(rates[if dice.below(4) > 0 { 0 } else { dice.below(4) }])
            .cost([1, 1, 1, 2, 9][dice.below(5)]);
        let expected = truth.stat(attempt).await.unwrap();
        server.calls();
        let decision = throttle.hit(attempt).await.unwrap();
        local += u32::from(!server.calls().contains_key("evalsha"));
        assert_eq!(decision.verdict(), expected.verdict);
        assert_eq!(decision.wait(), expected.wait);
        if decision.is_denied() {
            assert_eq!(decision.remaining(), expected.remaining);
        }
        match dice.below(60) {
            0 => cached.reset().await.unwrap(),
            1..20 => clock.advance_micros(40_000),
            20 => clock.advance(decision.wait()),
            _ => {}
        }
    }
    // A changed rate may bring a bucket back, after which Redis is asked anew.
    assert!(local > 400, "only {local} of 4000 were answered locally");
}

#[tokio::test]
async fn conforms_without_it() {
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let builder = server.builder().deny_cache(0).clock(clock.clone());
    let backend = builder.build().unwrap();
    conformance::decides_like_the_strategy(&backend, &clock, &strategies(), 10).await;
}

/// Choices that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        // <https://en.wikipedia.org/wiki/Linear_congruential_generator>, Knuth's constants.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }
}
