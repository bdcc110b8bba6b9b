//! Batches that travel in one command.

use futures_util::FutureExt;
use futures_util::future::join_all;
use traffik_core::{Attempt, Hits, Identity, ManualClock, MemoryBackend, OnError, Throttle};

use super::{builder, throttle};
use crate::support::{Random, RedisServer, strategies};

/// How many commands decided since this was last asked.
fn trips(server: &RedisServer) -> u64 {
    let calls = server.calls();
    let of = |name| calls.get(name).copied().unwrap_or_default();
    of("evalsha") + of("eval")
}

#[tokio::test]
async fn hits_of_one_moment_are_one_round_trip() {
    let server = RedisServer::start();
    let throttle = throttle("moment", "150/day", server.backend());
    let ann = Identity::of("ann");
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    trips(&server);

    let decisions = join_all((0..60).map(|_| throttle.hit(&ann))).await;
    let remaining: Vec<_> = decisions
        .into_iter()
        .map(|decision| decision.unwrap().remaining())
        .collect();
    assert_eq!(remaining, Vec::from_iter((89..149).rev()));
    assert_eq!(trips(&server), 1);

    // Those that are too many for one make several, which together admit what is left.
    let decisions = join_all((0..200).map(|_| throttle.hit(&ann))).await;
    let admitted = decisions.into_iter().filter(|decision| {
        let decision = decision.as_ref().unwrap();
        decision.is_allowed()
    });
    assert_eq!(admitted.count(), 89);
    assert_eq!(trips(&server), 4);
}

/// Whoever else is in the same command, and in what order.
#[tokio::test]
async fn company_changes_no_decision() {
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let redis = server
        .builder()
        .clock(clock.clone())
        .deny_cache(0)
        .build()
        .unwrap();
    let memory = MemoryBackend::builder()
        .clock(clock.clone())
        .build()
        .unwrap();
    let pairs: Vec<(Throttle, Throttle)> = strategies()
        .into_iter()
        // With a gauge it takes two trips, and others come in between.
        .filter(|strategy| !format!("{strategy:?}").contains("LoadGauge"))
        .enumerate()
        .map(|(at, strategy)| {
            let name = format!("{at}");
            let on_redis = builder(&name, "5/second", redis.clone()).strategy(strategy.clone());
            let in_memory = Throttle::builder(&name)
                .rate("5/second")
                .strategy(strategy)
                .backend(memory.clone())
                .on_error(OnError::Raise);
            (on_redis.build().unwrap(), in_memory.build().unwrap())
        })
        .collect();
    let people: Vec<_> = (0..3)
        .map(|who| Identity::of(format_args!("user:{who}")))
        .collect();

    let mut random = Random::new(7);
    let (mut admitted, mut denied) = (0, 0);
    for _ in 0..150 {
        let mut below = |end: usize| usize::try_from(random.below(end as u64)).expect("it is less");
        // A request by somebody to up to three throttles, at a cost.
        let requests: Vec<_> = (0..=below(20))
            .map(|_| {
                let mut throttles: Vec<_> = (0..=below(3)).map(|_| below(pairs.len())).collect();
                throttles.sort_unstable();
                throttles.dedup();
                (&people[below(3)], throttles, [1, 2][below(2)])
            })
            .collect();
        let hits = |request: usize, on_redis: bool| {
            let (who, throttles, cost) = &requests[request];
            let attempt = Attempt::by(who).cost(*cost);
            let throttles = throttles.iter().map(|at| match on_redis {
                true => (&pairs[*at].0, attempt),
                false => (&pairs[*at].1, attempt),
            });
            Hits::from_iter(throttles)
        };
        let together: Vec<_> = (0..requests.len())
            .map(|request| hits(request, true))
            .collect();
        let together = join_all(together.iter().map(Hits::decide)).await;
        for (request, decided) in together.into_iter().enumerate() {
            let alone = hits(request, false).decide().await.unwrap();
            assert_eq!(decided.unwrap(), alone, "{:?}", requests[request]);
            match alone.is_allowed() {
                true => admitted += 1,
                false => denied += 1,
            }
        }
        clock.advance_micros(random.below(400_000));
    }
    assert!(admitted > 100 && denied > 100, "{admitted} {denied}");
}

#[tokio::test]
async fn those_who_go_away_keep_nobody_from_travelling() {
    let server = RedisServer::start();
    let throttle = throttle("impatient", "3/day", server.backend());
    let ann = Identity::of("ann");
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());

    // Polled once, a hit takes its place; then its client hangs up.
    assert!(throttle.hit(&ann).now_or_never().is_none());
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 0);
    assert!(throttle.hit(&ann).await.unwrap().is_denied());
}

#[tokio::test]
async fn a_trip_that_fails_fails_for_all() {
    let mut server = RedisServer::start();
    let throttle = throttle("lost", "100/day", server.backend());
    let ann = Identity::of("ann");
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    server.kill();
    for failed in join_all((0..20).map(|_| throttle.hit(&ann))).await {
        let error = failed.unwrap_err();
        assert!(error.is_interrupted() || error.is_unexecuted(), "{error}");
    }
}
