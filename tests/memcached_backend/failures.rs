//! Servers that are slow, gone, or back again.

use std::time::{Duration, Instant};

use super::{admitted, ann, eventually, throttle};
use crate::support::{Fault, MemcachedServer, Proxy};
use traffik_core::{
    Attempt, BackendExt, Cell, Decision, Error, FixedWindow, Hit, Identity, MemcachedBackend,
    Strategy, Throttle, TokenBucket,
};

const DEADLINE: Duration = Duration::from_millis(200);

/// What a very busy machine may add; still less than what went wrong took.
const SCHEDULING: Duration = Duration::from_secs(2);

fn impatient(server: &MemcachedServer) -> MemcachedBackend {
    server.builder().deadline(DEADLINE).build().unwrap()
}

/// Hits by many at once; the slowest, and how many were admitted.
async fn storm(throttle: &Throttle, hits: usize) -> (Duration, usize, Vec<Error>) {
    let tasks: Vec<_> = (0..hits)
        .map(|n| {
            let throttle = throttle.clone();
            tokio::spawn(async move {
                let start = Instant::now();
                let outcome = throttle.hit(&Identity::of(n % 50)).await;
                (start.elapsed(), outcome)
            })
        })
        .collect();
    let (mut slowest, mut admitted, mut errors) = (Duration::ZERO, 0, Vec::new());
    for task in tasks {
        let (took, outcome) = task.await.unwrap();
        slowest = slowest.max(took);
        match outcome {
            Ok(decision) => admitted += usize::from(decision.is_allowed()),
            Err(error) => errors.push(error),
        }
    }
    (slowest, admitted, errors)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_costs_one_deadline_and_no_wrong_count() {
    let server = MemcachedServer::start();
    let backend = server
        .builder()
        .namespace("frz")
        .deadline(DEADLINE)
        .build()
        .unwrap();
    let limits_on = |backend: &MemcachedBackend| {
        [
            throttle(backend, "3/day", FixedWindow),
            throttle(backend, "3/day", TokenBucket::new()),
        ]
    };
    let limits = limits_on(&backend);
    // The same counts, for when the server is well: a busy machine may then take longer than a deadline.
    let patient = server.builder().namespace("frz").build().unwrap();
    let patient = limits_on(&patient);
    // 50 clients, one hit each.
    for limit in &patient {
        assert_eq!(storm(limit, 50).await.1, 50);
    }
    for limit in &limits {
        eventually("it connects", async || {
            limit.hit(&Identity::of("bob")).await.is_ok()
        })
        .await;
    }
    let threads = threads("traffik-frz");
    for _ in 0..3 {
        server.pause();
        for limit in &limits {
            let (slowest, admitted, errors) = storm(limit, 500).await;
            assert!(slowest < DEADLINE + SCHEDULING, "{slowest:?}");
            assert_eq!(admitted, 0);
            // Connections that got no answer are replaced, for which there may be no time.
            let expected = |error: &Error| {
                error.is_timeout() || error.is_overloaded() || error.is_connection()
            };
            assert!(errors.iter().all(expected), "{errors:?}");
        }
        assert_eq!(self::threads("traffik-frz"), threads);
        server.resume();
        for limit in &limits {
            eventually("it decides again", async || {
                limit.hit(&Identity::of("bob")).await.is_ok()
            })
            .await;
        }
    }
    // What was on its way when the server froze may have been charged, but nobody gets more than
    // the limit, and nobody somebody else's count.
    for limit in &patient {
        let (_, admitted, errors) = storm(limit, 500).await;
        assert!(admitted <= 2 * 50, "{admitted}");
        assert!(errors.is_empty(), "{errors:?}");
        for n in 0..50 {
            assert_eq!(limit.stat(&Identity::of(n)).await.unwrap().remaining, 0);
        }
        let fresh = Identity::of("fresh");
        assert_eq!(self::admitted(limit, &fresh, 5).await.unwrap(), 3);
    }
}

/// Before `DEADLINE` is over a byte of such a reply has come, and the next is awaited.
const TRICKLE: Fault = Fault::Trickle(Duration::from_millis(150));

/// A limit to each read of a socket let a server that sends one byte of 20 now and then take 3 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_trickles_costs_one_deadline() {
    let server = MemcachedServer::start();
    let proxy = Proxy::before(server.port());
    let backend = MemcachedBackend::builder(format!("127.0.0.1:{}", proxy.port()))
        .namespace("drip")
        .deadline(DEADLINE)
        .build()
        .unwrap();
    let limits = [
        throttle(&backend, "3/day", FixedWindow),
        throttle(&backend, "3/day", TokenBucket::new()),
    ];
    for _ in 0..2 {
        for limit in &limits {
            eventually("it decides", async || limit.hit(&ann()).await.is_ok()).await;
        }
        proxy.set(TRICKLE);
        // The first of these meet a connection that worked, the others find none.
        let storms = [storm(&limits[0], 200).await, storm(&limits[1], 200).await];
        assert!(storms[0].2.iter().any(Error::is_timeout), "{storms:?}");
        for (slowest, admitted, errors) in storms {
            assert!(slowest < DEADLINE + SCHEDULING, "{slowest:?}");
            assert_eq!((admitted, errors.len()), (0, 200));
        }
        let threads = threads("traffik-drip");
        let (slowest, ..) = storm(&limits[0], 200).await;
        assert!(slowest < DEADLINE + SCHEDULING, "{slowest:?}");
        assert_eq!(self::threads("traffik-drip"), threads);
        proxy.set(Fault::None);
    }
}

/// What a reply is cut off from may have been charged, so that nobody may ask again for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_in_mid_reply_is_no_proof_that_nothing_was_charged() {
    let server = MemcachedServer::start();
    let proxy = Proxy::before(server.port());
    let backend = MemcachedBackend::builder(format!("127.0.0.1:{}", proxy.port()))
        .deadline(Duration::from_secs(10))
        .connect_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let limits = [
        throttle(&backend, "9/day", FixedWindow),
        throttle(&backend, "9/day", TokenBucket::new()),
    ];
    for limit in limits {
        eventually("it decides", async || limit.hit(&ann()).await.is_ok()).await;
        proxy.set(Fault::Cut);
        let error = limit.hit(&ann()).await.unwrap_err();
        assert!(error.is_interrupted() && !error.is_unexecuted(), "{error}");
        let error = limit.hit(&ann()).await.unwrap_err();
        assert!(error.is_connection() && error.is_unexecuted(), "{error}");
        proxy.set(Fault::None);
        eventually("it decides again", async || {
            limit.stat(&ann()).await.is_ok()
        })
        .await;
        let left = limit.stat(&ann()).await.unwrap().remaining;
        assert!((7..=8).contains(&left), "{left}");
    }
}

/// It was sent again, met what it had written itself, and was made once more on top of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_whose_reply_is_lost_was_given_twice() {
    let server = MemcachedServer::start();
    let proxy = Proxy::before(server.port());
    let backend = MemcachedBackend::builder(format!("127.0.0.1:{}", proxy.port()))
        .deadline(Duration::from_secs(10))
        .build()
        .unwrap();
    let limits = [
        throttle(&backend, "1000/day", FixedWindow),
        throttle(&backend, "1000/day", TokenBucket::new()),
    ];
    for limit in limits {
        let ann = ann();
        let charged = limit.hit(Attempt::by(&ann).cost(500)).await.unwrap();
        assert!(charged.is_allowed());
        let reserved = limit.reserve(Attempt::by(&ann).cost(100)).await;
        let permit = reserved.unwrap().expect("there is room");
        proxy.set(Fault::Lose("cas"));
        let error = permit.refund().await.unwrap_err();
        assert!(error.is_interrupted() && !error.is_unexecuted(), "{error}");
        assert_eq!(limit.stat(&ann).await.unwrap().remaining, 500);
        // A hit is: it pays twice, and does not fail.
        proxy.set(Fault::Lose("cas"));
        let hit = limit.hit(Attempt::by(&ann).cost(100)).await.unwrap();
        assert_eq!((hit.is_allowed(), hit.remaining()), (true, 300));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_end_with_their_backend() {
    let server = MemcachedServer::start();
    let backend = server.builder().namespace("end").build().unwrap();
    let limit = throttle(&backend, "3/day", FixedWindow);
    assert_eq!(admitted(&limit, &ann(), 1).await.unwrap(), 1);
    assert!(threads("traffik-end") >= 8);
    drop((backend, limit));
    eventually("no thread is left", async || threads("traffik-end") == 0).await;
}

/// The threads of this process whose name starts so.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|comm| comm.starts_with(name)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_fails_at_once_and_comes_back_by_itself() {
    let mut server = MemcachedServer::start();
    let backend = impatient(&server);
    let limit = throttle(&backend, "3/day", TokenBucket::new());
    assert_eq!(admitted(&limit, &ann(), 2).await.unwrap(), 2);
    for _ in 0..2 {
        server.kill();
        eventually("it is known to be down", async || {
            let error = limit.hit(&ann()).await.unwrap_err();
            error.is_connection() && error.is_unexecuted()
        })
        .await;
        let (slowest, _, errors) = storm(&limit, 500).await;
        assert_eq!(errors.len(), 500);
        assert!(slowest < DEADLINE + SCHEDULING, "{slowest:?}");

        server.resurrect();
        eventually("it is known to be up", async || {
            limit.hit(&ann()).await.is_ok()
        })
        .await;
        // Memory is all it had.
        let bob = Identity::of("bob");
        assert_eq!(admitted(&limit, &bob, 5).await.unwrap(), 3);
    }
}

/// All connections are dead after a restart; no hit has to find out for itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_two_hits_costs_no_hit() {
    let mut server = MemcachedServer::start();
    let limit = throttle(&server.backend(), "1000/day", TokenBucket::new());
    assert_eq!(storm(&limit, 200).await.1, 200);
    server.kill();
    server.resurrect();
    let (_, admitted, errors) = storm(&limit, 200).await;
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(admitted, 200);
}

#[tokio::test]
async fn it_can_be_built_while_the_server_is_down() {
    let mut server = MemcachedServer::start();
    server.kill();
    let backend = impatient(&server);
    let limit = throttle(&backend, "1/day", FixedWindow);
    assert!(limit.hit(&ann()).await.is_err());
    assert!(backend.ready().await.is_err());
    server.resurrect();
    eventually("it is ready", async || backend.ready().await.is_ok()).await;
    assert_eq!(admitted(&limit, &ann(), 2).await.unwrap(), 1);
}

#[tokio::test]
async fn one_of_several_servers_that_is_dead_was_not_noticed_by_a_check() {
    let (mut one, other) = (MemcachedServer::start(), MemcachedServer::start());
    let backend = one.builder().server(other.url()).build().unwrap();
    backend.health().await.unwrap();
    one.kill();
    backend.health().await.unwrap_err();
    one.resurrect();
    eventually("it is healthy", async || backend.health().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_does_not_slow_the_others() {
    let (frozen, lively) = (MemcachedServer::start(), MemcachedServer::start());
    // Longer than the pause between looks for resets, which must not add to it.
    let deadline = Duration::from_millis(1_500);
    let backend = frozen.builder().server(lively.url()).deadline(deadline);
    let limit = throttle(&backend.build().unwrap(), "100000/day", FixedWindow);
    assert_eq!(storm(&limit, 100).await.1, 100);
    frozen.pause();
    let tasks: Vec<_> = (0..400)
        .map(|n| {
            let limit = limit.clone();
            tokio::spawn(async move {
                let start = Instant::now();
                let outcome = limit.hit(&Identity::of(n % 50)).await;
                (start.elapsed(), outcome.is_ok())
            })
        })
        .collect();
    let mut quick = 0;
    for task in tasks {
        let (took, answered) = task.await.unwrap();
        let limit = if answered {
            SCHEDULING
        } else {
            deadline + SCHEDULING
        };
        assert!(took < limit, "{took:?}");
        quick += usize::from(answered);
    }
    // Half of the clients live on either; rendezvous hashing is fair, not exact.
    assert!((100..300).contains(&quick), "{quick}");
}

/// A hit that nobody waits for is either charged or not, and blocks nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_hit_leaves_nothing_behind() {
    let server = MemcachedServer::start();
    let limit = throttle(&server.backend(), "100/day", TokenBucket::new());
    let ann = ann();
    for _ in 0..50 {
        let hit = limit.hit(&ann);
        let soon = tokio::time::timeout(Duration::from_micros(50), hit);
        let _ = soon.await;
    }
    let left = limit.stat(&ann).await.unwrap().remaining;
    assert!((50..=100).contains(&left), "{left}");
    assert_eq!(
        admitted(&limit, &ann, 200).await.unwrap(),
        usize::try_from(left).unwrap()
    );
}

#[derive(Debug)]
struct Panics;

impl Strategy for Panics {
    fn id(&self) -> &'static str {
        "panics"
    }

    fn step(&self, _cell: &mut Cell, _hit: &Hit<'_>) -> Decision {
        panic!("as it should");
    }
}

#[tokio::test]
async fn a_strategy_that_panics_ends_no_thread() {
    let server = MemcachedServer::start();
    let backend = server.builder().pool_size(1).build().unwrap();
    let (bad, good) = (
        throttle(&backend, "1/day", Panics),
        throttle(&backend, "1/day", FixedWindow),
    );
    for _ in 0..3 {
        assert!(
            bad.hit(&ann())
                .await
                .unwrap_err()
                .to_string()
                .contains("panicked")
        );
    }
    assert_eq!(admitted(&good, &ann(), 3).await.unwrap(), 1);
}

/// Its cell is larger than the megabyte that an item holds.
#[derive(Debug)]
struct Huge;

impl Strategy for Huge {
    fn id(&self) -> &'static str {
        "huge"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let decision = FixedWindow.step(cell, hit);
        (0..70_000).for_each(|at| cell.queue_mut().push([1 << 50, at]));
        decision
    }
}

/// What does not fit was taken for a broken connection, which was dropped and made anew each time.
#[tokio::test]
async fn a_server_that_refuses_says_why_and_keeps_its_connection() {
    let server = MemcachedServer::start();
    let limit = throttle(&server.backend(), "9/day", Huge);
    assert!(limit.hit(&ann()).await.is_err());
    let connections = || server.count(&["total_connections"]);
    let before = connections();
    for _ in 0..20 {
        let error = limit.hit(&ann()).await.unwrap_err().to_string();
        let why = "memcached refused a command: SERVER_ERROR object too large for cache";
        assert_eq!(error, why);
    }
    // That of the question itself.
    assert_eq!(connections(), before + 1);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_said_to_be_why() {
    let mut server = MemcachedServer::start();
    server.kill();
    let limit = throttle(&impatient(&server), "3/day", FixedWindow);
    for _ in 0..3 {
        let error = limit.hit(&ann()).await.unwrap_err().to_string();
        assert!(
            error.starts_with("memcached cannot be reached: "),
            "{error}"
        );
        assert!(error.contains("refused"), "{error}");
    }
}

#[test]
fn a_wrong_setting_is_named_with_its_value() {
    let builder = || MemcachedBackend::builder("localhost");
    for (builder, expected) in [
        (
            builder().deadline(Duration::ZERO),
            "deadline must be between 1 ms and 60 s, not 0ns",
        ),
        (
            builder().connect_timeout(Duration::from_secs(61)),
            "connect_timeout must be between 1 ms and 60 s, not 61s",
        ),
        (
            builder().pool_size(0),
            "pool_size must be between 1 and 1024, not 0",
        ),
        (
            builder().namespace("n".repeat(129)),
            "a namespace has at most 128 bytes, not 129 as \"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn..\" has",
        ),
        (
            builder().pool_min_idle(9),
            "pool_min_idle must be at most pool_size, 8, not 9",
        ),
    ] {
        assert_eq!(builder.build().unwrap_err().to_string(), expected);
    }
}
