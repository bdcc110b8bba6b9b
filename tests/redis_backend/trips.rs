use std::collections::BTreeMap;

use traffik_core::strategy::Weekday;
use traffik_core::{
    Backend, CalendarWindow, Gcra, Hits, Identity, ManualClock, SlidingWindowLog, Strategy,
    Throttle, TokenBucket,
};

use super::{builder, throttle};
use crate::support::{RedisServer, strategies};

/// What `times` batches in one trip each look like to the server, if so many of their hits write a
/// cell anew and so many write it in place.
fn one_trip_each(times: u64, anew: u64, in_place: u64) -> BTreeMap<String, u64> {
    let calls = [
        ("evalsha", times),
        ("get", times * (anew + in_place)),
        ("set", times * anew),
        ("setrange", times * in_place),
        ("time", times),
    ];
    let calls = calls.into_iter().filter(|(_, calls)| *calls > 0);
    calls
        .map(|(name, calls)| (name.to_owned(), calls))
        .collect()
}

fn one(strategy: impl Strategy, backend: impl Backend) -> Throttle {
    let name = strategy.id();
    builder(name, "1000/day", backend)
        .strategy(strategy)
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_decision_is_one_round_trip_and_so_is_a_batch() {
    let server = RedisServer::start();
    let backend = server.backend();
    let ann = Identity::of("ann");
    let throttles = [
        throttle("fixed", "1000/day", backend.clone()),
        one(TokenBucket::new(), backend.clone()),
        one(
            Gcra::new().burst_tolerance(std::time::Duration::from_secs(90_000)),
            backend,
        ),
    ];
    assert!(throttles[0].hit(&ann).await.unwrap().is_allowed());
    let first = server.calls();
    assert_eq!(
        (first.get("evalsha"), first["eval"]),
        (None, 1),
        "brings the script along"
    );

    // A window that goes on ends when it did.
    for (throttle, anew) in throttles.iter().zip([0, 1, 1]) {
        for _ in 0..10 {
            assert!(throttle.hit(&ann).await.unwrap().is_allowed());
        }
        let expected = one_trip_each(10, anew, 1 - anew);
        assert_eq!(server.calls(), expected, "{}", throttle.name());
    }
    let batch = Hits::from_iter(throttles.iter().map(|throttle| (throttle, &ann)));
    for _ in 0..10 {
        assert!(batch.decide().await.unwrap().is_allowed());
    }
    assert_eq!(server.calls(), one_trip_each(10, 2, 1));
    assert_eq!(throttles[0].stat(&ann).await.unwrap().remaining, 979);
    assert_eq!(server.calls()["evalsha"], 1);
}

/// The one exception is a gauge of the user's, which may change between asking and deciding.
#[tokio::test]
async fn every_strategy_decides_in_one_round_trip() {
    let server = RedisServer::start();
    let backend = server.builder().deny_cache(0).build().unwrap();
    let ann = Identity::of("ann");
    assert!(
        throttle("warm-up", "1/day", backend.clone())
            .hit(&ann)
            .await
            .unwrap()
            .is_allowed()
    );
    for strategy in strategies() {
        let name = format!("{strategy:?}");
        let throttle = builder(&name, "1000000/hour", backend.clone()).strategy(strategy);
        let throttle = throttle.build().unwrap();
        server.calls();
        for _ in 0..5 {
            let _ = throttle.hit(&ann).await.unwrap();
        }
        let calls = server.calls();
        let trips = if name.contains("LoadGauge") { 10 } else { 5 };
        assert_eq!(
            (calls["evalsha"], calls.get("eval")),
            (trips, None),
            "{name}"
        );
    }
}

/// Scripts are told where some windows begin and end, not all of them.
#[tokio::test]
async fn a_calendar_of_another_time_than_was_thought_takes_two_trips_more_once() {
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let backend = server.builder().deny_cache(0).clock(clock.clone());
    let backend = backend.build().unwrap();
    let ann = Identity::of("ann");
    let warm_up = throttle("warm-up", "1/day", backend.clone());
    assert!(warm_up.hit(&ann).await.unwrap().is_allowed());
    let strategy = CalendarWindow::new()
        .zone("Europe/Berlin")
        .week_starts_on(Weekday::Sunday);
    let month = builder("month", "2/month", backend.clone()).strategy(strategy.clone());
    let week = builder("week", "1000/week", backend).strategy(strategy);
    let both = [month.build().unwrap(), week.build().unwrap()];
    let batch = Hits::from_iter(both.iter().map(|throttle| (throttle, &ann)));
    let hit = async |admitted, trips| {
        server.calls();
        assert_eq!(batch.decide().await.unwrap().is_allowed(), admitted);
        assert_eq!(server.calls()["evalsha"], trips);
    };
    // It is 2024 there.
    hit(true, 3).await;
    hit(true, 1).await;
    hit(false, 1).await;
    // January is over in Berlin an hour earlier. The next month was told, the week after next was not.
    const DAY_US: u64 = 24 * 60 * 60 * 1_000_000;
    clock.advance_micros(31 * DAY_US - DAY_US / 24 - 1);
    hit(false, 2).await;
    clock.advance_micros(1);
    hit(true, 1).await;
    clock.advance_micros(100 * DAY_US);
    hit(true, 3).await;
    hit(true, 1).await;
    hit(false, 1).await;
    assert_eq!(both[1].stat(&ann).await.unwrap().remaining, 998);
}

#[actix_rt::test]
async fn levels_of_several_identities_are_one_round_trip() {
    use actix_web::http::StatusCode;
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App, HttpRequest, web};
    use traffik_actix::{HttpThrottle, Rule, ThrottleMiddleware};

    let server = RedisServer::start();
    let level = |name, rate, header: &'static str| {
        let throttle = HttpThrottle::builder(name).rate(rate);
        let who = move |req: &HttpRequest| {
            Identity::of(req.headers().get(header).unwrap().to_str().unwrap())
        };
        throttle.identify(who).build().unwrap()
    };
    let levels = Rule::new(level("user", "2/day", "x-user"))
        .and(level("organisation", "3/day", "x-org"))
        .and(level("everybody", "1000/day", "x-all"));
    let limits = ThrottleMiddleware::new(levels).backend(server.backend());
    let app = App::new().wrap(limits);
    let app = init_service(app.route("/", web::get().to(async || "hello"))).await;
    let get = async |user: &str| {
        let req = TestRequest::get().insert_header(("x-user", user));
        let req = req
            .insert_header(("x-org", "acme"))
            .insert_header(("x-all", "all"));
        call_service(&app, req.to_request()).await.status()
    };
    assert_eq!(get("ann").await, StatusCode::OK);
    for (user, status) in [
        ("ann", StatusCode::OK),
        ("ann", StatusCode::TOO_MANY_REQUESTS),
        ("ben", StatusCode::OK),
        ("ben", StatusCode::TOO_MANY_REQUESTS),
    ] {
        server.calls();
        assert_eq!(get(user).await, status, "{user}");
        assert_eq!(server.calls()["evalsha"], 1, "{user}");
    }
}

#[test]
fn every_thread_has_one_connection() {
    let server = RedisServer::start();
    let throttle = throttle("threads", "1000/day", server.backend());
    let connections = || {
        let clients: String = server.command(&["CLIENT", "LIST"]);
        // But for the one that asks.
        clients.lines().count() - 1
    };
    let hit = |times: u32| {
        let throttle = throttle.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                for _ in 0..times {
                    assert!(
                        throttle
                            .hit(&Identity::of("ann"))
                            .await
                            .unwrap()
                            .is_allowed()
                    );
                }
            });
            runtime
        })
        .join()
        .unwrap()
    };
    let first = hit(5);
    assert_eq!(connections(), 1);
    let second = hit(5);
    assert_eq!(connections(), 2);
    drop((first, second));
    drop(hit(1));
}

/// The log of a busy client is long; a hit must not move all of it.
#[tokio::test]
async fn a_hit_on_a_long_log_moves_little_of_it() {
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let backend = server.builder().clock(clock.clone()).build().unwrap();
    let throttle = builder("log", "2000/minute", backend).strategy(SlidingWindowLog);
    let throttle = throttle.build().unwrap();
    let ann = Identity::of("ann");
    for _ in 0..2_000 {
        clock.advance_micros(10);
        assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    }
    let size = async || server.command::<u64>(&["STRLEN", &server.keys()[0]]);
    assert_eq!(size().await, 25 + 16 * 2_000);

    let wait = throttle.hit(&ann).await.unwrap().retry_after().unwrap();
    clock.advance(wait);
    server.calls();
    for _ in 0..100 {
        assert!(throttle.hit(&ann).await.unwrap().is_allowed());
        clock.advance_micros(10);
    }
    let calls = server.calls();
    assert_eq!(
        (calls["evalsha"], calls.get("get"), calls.get("set")),
        (100, None, None)
    );
    assert_eq!(calls["setrange"], 200);
    assert!(calls["getrange"] < 100 * 16, "{calls:?}");
    assert_eq!(size().await, 25 + 16 * 2_100);

    // What has left is dropped once it is the larger part.
    clock.advance(wait);
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    assert_eq!(server.calls()["set"], 1);
    assert_eq!(size().await, 25 + 16 * 101);
}
