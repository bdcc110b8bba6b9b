//! Users of a Redis that may not do everything: an error must never be read as a fresh quota.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use traffik_core::{
    Backend, Busy, Concurrency, FixedWindow, Identity, InFlight, Lock, LockConfig, ManualClock,
    RedisBackend, RedisStore, Store, Strategy, Throttle,
};

use super::builder;
use crate::support::{RedisCluster, RedisServer, WatchedRedis, strategies};

/// The rows of the table in the documentation of `RedisBackend`: what for, and which commands.
fn documented() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let source = include_str!("../../traffik-core/src/backend/redis.rs");
    let (_, section) = source.split_once("/// # Permissions").unwrap();
    let (section, _) = section.split_once("/// With a [clock]").unwrap();
    let row = |line: &'static str| {
        let (what, commands) = line.strip_prefix("/// | ")?.split_once(" | `+")?;
        let commands = commands.strip_suffix("` |")?.split(" +");
        Some((what, commands.collect()))
    };
    let rows: BTreeMap<_, _> = section.lines().filter_map(row).collect();
    assert_eq!(rows.len(), 9, "{rows:?}");
    rows
}

fn row(begins: &str) -> BTreeSet<&'static str> {
    let found = documented()
        .into_iter()
        .find(|(what, _)| what.starts_with(begins));
    found.expect("a row").1
}

/// Gives somebody these permissions and no others.
fn allow<'a>(server: &RedisServer, keys: &str, commands: impl IntoIterator<Item = &'a str>) {
    let commands: Vec<String> = commands
        .into_iter()
        .map(|name| format!("+{name}"))
        .collect();
    let mut words = vec!["ACL", "SETUSER", "shop", "reset", "on", ">sesame", keys];
    words.extend(commands.iter().map(String::as_str));
    let _: () = server.command(&words);
}

fn url(server: &RedisServer) -> String {
    server.url().replace("redis://", "redis://shop:sesame@")
}

fn backend(server: &RedisServer) -> RedisBackend {
    let builder = RedisBackend::builder(&url(server)).namespace("shop");
    let builder = builder.deadline(Duration::from_secs(10)).deny_cache(0);
    builder.build().unwrap()
}

fn decisions() -> BTreeSet<&'static str> {
    row("every decision")
}

fn with_logs() -> BTreeSet<&'static str> {
    decisions()
        .union(&row("[`SlidingWindowLog`]"))
        .copied()
        .collect()
}

fn without<'a>(all: &BTreeSet<&'a str>, missing: &str) -> impl Iterator<Item = &'a str> {
    let rest: Vec<&str> = all.iter().copied().filter(|one| *one != missing).collect();
    rest.into_iter()
}

fn keeps_a_log(strategy: &Arc<dyn Strategy>) -> bool {
    [
        "sliding_window_log",
        "priority_queue",
        "leaky_bucket_with_queue",
    ]
    .contains(&strategy.id())
}

fn ten_a_day(strategy: &Arc<dyn Strategy>, name: &str, backend: &RedisBackend) -> Throttle {
    let throttle = builder(name, "10/day", backend.clone()).strategy(Arc::clone(strategy));
    throttle.build().unwrap()
}

/// How many hits are admitted of more than any burst, and what they were told that were errors.
async fn sixty_hits(throttle: &Throttle) -> (u32, BTreeSet<String>) {
    hits(throttle, 60).await
}

async fn hits(throttle: &Throttle, count: u32) -> (u32, BTreeSet<String>) {
    let (mut admitted, mut errors) = (0, BTreeSet::new());
    for _ in 0..count {
        match throttle.hit(&Identity::of("ann")).await {
            Ok(decision) => admitted += u32::from(decision.is_allowed()),
            Err(error) => drop(errors.insert(error.to_string())),
        }
    }
    (admitted, errors)
}

fn assert_named(errors: &BTreeSet<String>, missing: &str, place: &str) {
    for error in errors {
        let named = error
            .to_lowercase()
            .contains(missing.split('|').next().unwrap());
        assert!(named, "{place} without {missing}: {error}");
    }
}

#[tokio::test]
async fn what_is_documented_suffices_for_every_strategy() {
    let server = RedisServer::start();
    for strategy in strategies() {
        allow(
            &server,
            "~shop:*",
            match keeps_a_log(&strategy) {
                true => with_logs(),
                false => decisions(),
            },
        );
        let (mine, everything) = (backend(&server), server.backend());
        let name = format!("{strategy:?}");
        let (admitted, errors) = sixty_hits(&ten_a_day(&strategy, &name, &mine)).await;
        assert!(errors.is_empty(), "{name}: {errors:?}");
        assert!(admitted > 0, "{name}");
        let (expected, _) = sixty_hits(&ten_a_day(&strategy, &name, &everything)).await;
        assert_eq!(admitted, expected, "{name}");
    }
}

/// Where counts could not be read, all hits were admitted.
#[tokio::test]
async fn a_missing_permission_admits_nobody_and_is_named() {
    let server = RedisServer::start();
    let mut noticed = BTreeSet::new();
    for strategy in strategies() {
        let everything = server.backend();
        let all = ten_a_day(&strategy, &format!("{strategy:?}"), &everything);
        let (most, _) = sixty_hits(&all).await;
        for missing in with_logs() {
            let place = format!("{strategy:?}");
            // From the beginning, and on a new connection, which brings the script.
            allow(&server, "~shop:*", without(&with_logs(), missing));
            let throttle = ten_a_day(&strategy, &format!("{missing} {place}"), &backend(&server));
            let (admitted, errors) = sixty_hits(&throttle).await;
            assert!(
                admitted <= most,
                "{place} without {missing}: {admitted} > {most}"
            );
            assert_named(&errors, missing, &place);

            // In the middle of it: all counts are there, and nothing is left.
            allow(&server, "~shop:*", with_logs());
            let (first, _) = sixty_hits(&throttle).await;
            assert!(
                admitted + first <= most,
                "{place} without {missing}: {admitted} and {first}"
            );
            allow(&server, "~shop:*", without(&with_logs(), missing));
            let (more, later) = hits(&throttle, 3).await;
            assert_eq!(more, 0, "{place} without {missing}");
            assert_named(&later, missing, &place);
            if !errors.is_empty() || !later.is_empty() {
                noticed.insert(missing);
            }
        }
    }
    assert_eq!(noticed, with_logs(), "each of them is needed");
}

/// A count that is restored after a loss, which looks at the mark of the last reset.
#[tokio::test]
async fn a_loss_is_not_healed_wrongly_for_want_of_a_permission() {
    let server = RedisServer::start();
    for (keys, missing) in [
        ("~shop:{*", "access"),
        ("~shop:*", "get"),
        ("~shop:*", "set"),
    ] {
        allow(&server, "~shop:*", decisions());
        let strategy: Arc<dyn Strategy> = Arc::new(FixedWindow);
        let throttle = ten_a_day(&strategy, missing, &backend(&server));
        assert_eq!(sixty_hits(&throttle).await.0, 10);
        let _: () = server.command(&["FLUSHALL"]);
        allow(&server, keys, without(&decisions(), missing));
        let (admitted, errors) = sixty_hits(&throttle).await;
        assert_eq!(admitted, 0, "{missing}");
        assert!(!errors.is_empty());
        assert_named(&errors, missing, "a loss");
    }
}

/// A command that has been renamed is forbidden in another way, of which Redis says even less.
#[tokio::test]
async fn a_command_that_the_server_does_not_have_is_named() {
    let whole = RedisServer::start();
    for missing in [
        "time", "get", "set", "setrange", "getrange", "strlen", "pexpire",
    ] {
        let server = RedisServer::start_with(&["--rename-command", missing, ""]);
        for strategy in strategies() {
            let name = format!("{missing} {strategy:?}");
            let (most, _) = sixty_hits(&ten_a_day(&strategy, &name, &whole.backend())).await;
            let throttle = ten_a_day(&strategy, &name, &server.backend());
            let (admitted, errors) = sixty_hits(&throttle).await;
            assert!(admitted <= most, "{name}");
            assert_named(&errors, missing, &name);
            if missing == "time" {
                assert_eq!((admitted, errors.len()), (0, 1), "{errors:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_clock_of_ones_own_needs_no_time() {
    let server = RedisServer::start();
    allow(&server, "~shop:*", without(&decisions(), "time"));
    let builder = RedisBackend::builder(&url(&server)).namespace("shop");
    let builder = builder
        .deadline(Duration::from_secs(10))
        .clock(ManualClock::default());
    let strategy: Arc<dyn Strategy> = Arc::new(FixedWindow);
    let throttle = ten_a_day(&strategy, "clock", &builder.build().unwrap());
    assert_eq!(sixty_hits(&throttle).await, (10, BTreeSet::new()));
}

#[tokio::test]
async fn a_database_needs_to_be_selected() {
    let server = RedisServer::start();
    let strategy: Arc<dyn Strategy> = Arc::new(FixedWindow);
    let with_select: BTreeSet<&str> = decisions().union(&row("a URL")).copied().collect();
    for (allowed, expected) in [(with_select, 10), (decisions(), 0)] {
        allow(&server, "~shop:*", allowed);
        let builder = RedisBackend::builder(&format!("{}/2", url(&server))).namespace("shop");
        let builder = builder.deadline(Duration::from_secs(10));
        let throttle = ten_a_day(&strategy, "database", &builder.build().unwrap());
        let (admitted, errors) = sixty_hits(&throttle).await;
        assert_eq!(admitted, expected);
        assert_named(&errors, "select", "a database");
    }
}

#[tokio::test]
async fn a_reset_says_what_it_may_not_do_and_forgives_nobody() {
    let server = RedisServer::start();
    let all: BTreeSet<&str> = decisions().union(&row("`reset`")).copied().collect();
    let strategy: Arc<dyn Strategy> = Arc::new(FixedWindow);
    allow(&server, "~shop:*", all.iter().copied());
    let backend = backend(&server);
    let throttle = ten_a_day(&strategy, "reset", &backend);
    assert_eq!(sixty_hits(&throttle).await.0, 10);
    for missing in row("`reset`") {
        allow(&server, "~shop:*", without(&all, missing));
        let error = backend.reset().await.unwrap_err().to_string();
        assert!(error.contains(missing), "without {missing}: {error}");
        allow(&server, "~shop:*", all.iter().copied());
        assert_eq!(
            sixty_hits(&throttle).await,
            (0, BTreeSet::new()),
            "{missing}"
        );
    }
    backend.reset().await.unwrap();
    assert_eq!(sixty_hits(&throttle).await, (10, BTreeSet::new()));
}

#[tokio::test]
async fn a_store_and_its_locks_need_what_is_documented() {
    let server = RedisServer::start();
    for (what, commands) in [
        ("a [`RedisStore`]", row("a [`RedisStore`]")),
        ("its locks", row("its locks")),
    ] {
        let errors = async || {
            let store = backend(&server).store();
            match what {
                "its locks" => uses_locks(&store).await,
                _ => uses_the_store(&store).await,
            }
        };
        allow(&server, "~shop:*", commands.iter().copied());
        assert_eq!(errors().await, BTreeSet::new(), "{what}");
        for missing in &commands {
            allow(&server, "~shop:*", without(&commands, missing));
            let errors = errors().await;
            assert!(!errors.is_empty(), "{what} needs no {missing}");
            // Of scripts that are no decision's Redis itself tells.
            assert_named(&errors, missing, what);
        }
    }
}

#[tokio::test]
async fn permits_to_be_in_flight_need_what_is_documented() {
    let server = RedisServer::start();
    let all = row("a [`Concurrency`]");
    allow(&server, "~shop:*", all.iter().copied());
    assert_eq!(uses_permits(&server, "all").await, BTreeSet::new());
    for missing in &all {
        allow(&server, "~shop:*", without(&all, missing));
        let errors = uses_permits(&server, missing).await;
        assert!(!errors.is_empty(), "{missing} is not needed");
        assert_named(&errors, missing, "permits");
    }
}

async fn uses_permits(server: &RedisServer, name: &str) -> BTreeSet<String> {
    let limit = Concurrency::builder(name).in_flight(1);
    // If it cannot be given back, it ends.
    let limit = limit
        .backend(backend(server))
        .lease(Duration::from_millis(50));
    let limit = limit.build().unwrap();
    let ann = Identity::of("ann");
    let one = limit.acquire(&ann, Duration::ZERO).await;
    let waiter = tokio::spawn({
        let (limit, ann) = (limit.clone(), ann.clone());
        async move { limit.acquire(&ann, Duration::MAX).await }
    });
    while limit.info().waiting == 0 && !waiter.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let failure = |outcome: &Result<InFlight, Busy>| {
        let failure = outcome.as_ref().err().and_then(Busy::failure);
        failure.map(ToString::to_string)
    };
    let first = failure(&one);
    drop(one);
    let second = failure(&waiter.await.unwrap());
    first.into_iter().chain(second).collect()
}

async fn uses_the_store(store: &RedisStore) -> BTreeSet<String> {
    let ttl = Duration::from_secs(60);
    let entry = traffik_core::Entry {
        key: "c",
        value: b"3",
        ttl: Some(ttl),
    };
    let outcomes = [
        store.get("a").await.err(),
        store.set("a", b"1", Some(ttl)).await.err(),
        store.increment("a", 2).await.err(),
        store.decrement("a", 1).await.err(),
        store.expire("a", ttl).await.err(),
        store.delete("b").await.err(),
        store.increment_with_ttl("b", 1, ttl).await.err(),
        store.increment_with_ttl("b", 1, ttl).await.err(),
        store.multi_get(&["a", "b"]).await.err(),
        store.multi_set(&[entry]).await.err(),
    ];
    outcomes
        .into_iter()
        .flatten()
        .map(|error| error.to_string())
        .collect()
}

async fn uses_locks(store: &RedisStore) -> BTreeSet<String> {
    let ttl = Duration::from_secs(60);
    let taken = store.lock("nightly", "me", ttl).await;
    let released = store.unlock("nightly", "me").await;
    let outcomes = [taken.err(), released.err()];
    let errors = outcomes
        .into_iter()
        .flatten()
        .map(|error| error.to_string());
    let errors: BTreeSet<String> = errors.collect();
    if errors.is_empty() {
        Lock::acquire(store, "daily", LockConfig::new())
            .await
            .unwrap()
            .release()
            .await;
    }
    errors
}

/// A count that was made and could not be given an end would have counted for ever.
#[tokio::test]
async fn a_count_with_an_end_is_made_with_it_or_not_at_all() {
    let server = RedisServer::start();
    let commands = row("a [`RedisStore`]");
    let hour = Duration::from_secs(3_600);
    for missing in ["pexpire", "set", "incrby", "exists"] {
        allow(&server, "~shop:*", without(&commands, missing));
        let store = backend(&server).store();
        let key = format!("visits {missing}");
        let _ = store.increment_with_ttl(&key, 1, hour).await;
        let left: i64 = server.command(&["PTTL", &format!("shop:kv:{key}")]);
        assert_ne!(left, -1, "it never ends without {missing}");
    }
}

#[tokio::test]
async fn a_watched_master_needs_what_is_documented() {
    let watched = WatchedRedis::start();
    let all: BTreeSet<&str> = decisions().union(&row("a master")).copied().collect();
    let errors = async || {
        let sentinels = [watched.sentinel_url()];
        let builder = RedisBackend::sentinel(
            sentinels.iter().map(String::as_str),
            "redis://shop:sesame@shop",
        );
        let builder = builder.namespace("shop").deadline(Duration::from_secs(10));
        let backend = builder
            .connect_timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        let strategy: Arc<dyn Strategy> = Arc::new(FixedWindow);
        sixty_hits(&ten_a_day(&strategy, "watched", &backend))
            .await
            .1
    };
    allow(&watched.master, "~shop:*", all.iter().copied());
    assert_eq!(errors().await, BTreeSet::new());
    for missing in row("a master") {
        allow(&watched.master, "~shop:*", without(&all, missing));
        let errors = errors().await;
        assert!(!errors.is_empty(), "{missing} is not needed");
    }
}

#[tokio::test]
async fn a_cluster_needs_what_is_documented() {
    let cluster = RedisCluster::start();
    let all: BTreeSet<&str> = with_logs().union(&row("a cluster")).copied().collect();
    let node = &cluster.nodes()[0];
    let errors = async |name: &str| {
        let builder = RedisBackend::cluster([url(node).as_str()]).namespace("shop");
        let builder = builder.deadline(Duration::from_secs(10)).deny_cache(0);
        let backend = builder
            .connect_timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        let mut errors = BTreeSet::new();
        for strategy in strategies() {
            let name = format!("{name} {strategy:?}");
            errors.extend(sixty_hits(&ten_a_day(&strategy, &name, &backend)).await.1);
        }
        errors
    };
    for node in cluster.nodes() {
        allow(node, "~shop:*", all.iter().copied());
    }
    assert_eq!(errors("all").await, BTreeSet::new());
    for missing in row("a cluster") {
        for node in cluster.nodes() {
            allow(node, "~shop:*", without(&all, missing));
        }
        let errors = errors(missing).await;
        assert!(!errors.is_empty(), "{missing} is not needed");
        assert_named(&errors, missing, "a cluster");
    }
}
