//! Identities, costs, rates and scopes that depend on the request.

use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::HttpRequest;
use traffik_actix::traffik_core::{Batch, BoxFuture, Cell, Decisions, Op};
use traffik_actix::{
    Backend, Error, HttpThrottleBuilder, Identity, MemoryBackend, Rate, Rule, Scope,
    ThrottleMiddleware, Timestamp,
};

use crate::support::{app, get, memory, send, throttle};

fn header<'a>(req: &'a HttpRequest, name: &str) -> Option<&'a str> {
    req.headers().get(name)?.to_str().ok()
}

/// How many of `paths` are admitted, in order, each with the given headers.
async fn admitted(
    builder: HttpThrottleBuilder,
    requests: &[(&str, &[(&'static str, &'static str)])],
) -> Vec<bool> {
    let (_, backend) = memory();
    let app = app(ThrottleMiddleware::new(builder.build().unwrap()).backend(backend)).await;
    let mut admitted = Vec::new();
    for (path, headers) in requests {
        let request = headers
            .iter()
            .fold(get(path), |request, header| request.insert_header(*header));
        admitted.push(send(&app, request).await.is_ok());
    }
    admitted
}

#[actix_web::test]
async fn identities_at_once_or_awaited() {
    let by_key = |req: &HttpRequest| Identity::of(header(req, "x-key").unwrap_or("nobody"));
    let by_key_later = async |req: &HttpRequest| {
        actix_web::rt::task::yield_now().await;
        Identity::of(header(req, "x-key").unwrap_or("nobody"))
    };
    let requests: &[(&str, &[_])] = &[
        ("/", &[("x-key", "a")]),
        ("/", &[("x-key", "b")]),
        ("/", &[("x-key", "a")]),
        ("/", &[]),
        ("/", &[]),
    ];
    let expected = [true, true, false, true, false];
    assert_eq!(
        admitted(throttle("now", "1/day").identify(by_key), requests).await,
        expected
    );
    assert_eq!(
        admitted(
            throttle("later", "1/day").identify_async(by_key_later),
            requests
        )
        .await,
        expected
    );
}

#[actix_web::test]
async fn costs_and_rates_of_the_request() {
    let cost = |req: &HttpRequest| header(req, "x-cost").map_or(Ok(1), str::parse::<u32>);
    let requests: &[(&str, &[_])] = &[
        ("/", &[("x-cost", "3")]),
        ("/", &[("x-cost", "3")]),
        ("/", &[("x-cost", "2")]),
        ("/", &[("x-cost", "0")]),
        ("/", &[]),
        ("/", &[("x-cost", "-1")]),
    ];
    let expected = [true, false, true, true, false, false];
    assert_eq!(
        admitted(throttle("cost", "5/day").cost_by(cost), requests).await,
        expected
    );
    let later = async move |req: &HttpRequest| cost(req);
    assert_eq!(
        admitted(throttle("cost", "5/day").cost_by_async(later), requests).await,
        expected
    );

    let rate = |req: &HttpRequest| match header(req, "x-plan") {
        Some("unlimited") => Rate::UNLIMITED,
        Some("paid") => Rate::per_day(3),
        _ => Rate::per_day(1),
    };
    let requests: &[(&str, &[_])] = &[
        ("/", &[]),
        ("/", &[]),
        ("/", &[("x-plan", "paid")]),
        ("/", &[("x-plan", "paid")]),
        ("/", &[("x-plan", "paid")]),
        ("/", &[("x-plan", "unlimited")]),
    ];
    let by_plan = traffik_actix::HttpThrottle::builder("rate").rate_by(rate);
    assert_eq!(
        admitted(by_plan, requests).await,
        [true, false, true, true, false, true]
    );
}

/// Issue: SPEC 3.27. Five paths were five limits.
#[actix_web::test]
async fn scopes_say_what_shares_a_count() {
    let requests: &[(&str, &[_])] = &[
        ("/items/1", &[]),
        ("/items/2", &[]),
        ("/", &[]),
        ("/items/1", &[]),
    ];
    let with = |scope| throttle("scope", "1/day").scope(scope);
    assert_eq!(
        admitted(with(Scope::Throttle), requests).await,
        [true, false, false, false]
    );
    assert_eq!(
        admitted(with(Scope::Route), requests).await,
        [true, false, true, false]
    );
    assert_eq!(
        admitted(with(Scope::Path), requests).await,
        [true, true, true, false]
    );
}

/// Answers like a memory, but never at once, as remote backends do.
#[derive(Debug)]
struct Later(MemoryBackend);

impl Backend for Later {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions, Error>> {
        Box::pin(async move {
            actix_web::rt::task::yield_now().await;
            self.0.apply(batch).await
        })
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp), Error>> {
        self.0.load(op)
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.0.reset()
    }
}

#[actix_web::test]
async fn functions_are_asked_once_though_the_backend_has_to_wait() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let (_, memory) = memory();
    let limit = |name| {
        let throttle = throttle(name, "1/day").identify(|_: &HttpRequest| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            Identity::of("ann")
        });
        throttle.build().unwrap()
    };
    let rule = Rule::new(limit("one")).when(|_: &HttpRequest| {
        ASKED.fetch_add(100, Ordering::Relaxed);
        true
    });
    let limits = ThrottleMiddleware::new(rule).backend(Later(memory));

    let single = app(limits.clone()).await;
    assert!(send(&single, get("/")).await.is_ok());
    assert!(send(&single, get("/")).await.is_throttled());
    assert_eq!(ASKED.swap(0, Ordering::Relaxed), 202);

    let both = app(limits.rule(limit("other"))).await;
    assert!(send(&both, get("/")).await.is_throttled());
    assert_eq!(ASKED.load(Ordering::Relaxed), 102);
}

/// Functions that gave their answer at once were asked again if one that came later had to be waited for.
#[actix_web::test]
async fn functions_are_asked_once_though_another_has_to_wait() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let counted = |name| {
        let throttle = throttle(name, "9/day").identify(|_: &HttpRequest| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            Identity::of("ann")
        });
        throttle.cost_by(|_: &HttpRequest| {
            ASKED.fetch_add(10, Ordering::Relaxed);
            1_u32
        })
    };
    let first = |name| {
        Rule::new(counted(name).build().unwrap()).when(|_: &HttpRequest| {
            ASKED.fetch_add(100, Ordering::Relaxed);
            true
        })
    };
    let who = async |_: &HttpRequest| Identity::of("ben");
    let rate = async |_: &HttpRequest| Rate::per_day(9);
    let later = [
        Rule::new(throttle("predicate", "9/day").build().unwrap())
            .when_async(async |_: &HttpRequest| true),
        Rule::new(
            throttle("who", "9/day")
                .identify_async(who)
                .build()
                .unwrap(),
        ),
    ];
    for (at, later) in later.into_iter().enumerate() {
        let limits = ThrottleMiddleware::new(first("counted")).rule(later);
        let app = app(limits.backend(memory().1)).await;
        assert!(send(&app, get("/")).await.is_ok());
        assert_eq!(ASKED.swap(0, Ordering::Relaxed), 111, "{at}");
    }
    let one = counted("rate").rate_by_async(rate).build().unwrap();
    let app = app(ThrottleMiddleware::new(one).backend(memory().1)).await;
    assert!(send(&app, get("/")).await.is_ok());
    assert_eq!(ASKED.load(Ordering::Relaxed), 11);
}

/// Issue: SPEC 3.20. Tier, priority, region and instance were looked for in the text of the key, which
/// a client writes itself: `/x/tier:enterprise:` picked a tier.
#[actix_web::test]
async fn markers_that_a_client_writes_gain_nothing() {
    let strategies = [
        "tiered_rate",
        "priority_queue",
        "geographic_distribution",
        "distributed_fairness,instance=here",
    ];
    let markers = "tier:enterprise:priority:4:region:eu:instance:b:";
    let (ann, forger) = ([("x-key", "ann")], [("x-key", markers)]);
    let forged = format!("/items/{markers}");
    let plain = [("/items/1", &ann[..]); 8];
    let forged = [(forged.as_str(), &forger[..]); 8];
    for strategy in strategies {
        let limit = || {
            throttle("api", "4/day")
                .strategy(traffik_actix::strategy::named(strategy).unwrap())
                .scope(Scope::Path)
                .identify(|req: &HttpRequest| Identity::of(header(req, "x-key").unwrap()))
        };
        let honest = admitted(limit(), &plain).await;
        assert!(honest.contains(&true) && honest.contains(&false));
        assert_eq!(admitted(limit(), &forged).await, honest, "{strategy}");
    }
}

/// Issue: SPEC 3.30. Statistics under a rate function crashed.
#[actix_web::test]
async fn statistics_under_a_rate_function_agree_with_the_hit() {
    let rate = |req: &HttpRequest| match header(req, "x-plan") {
        Some(_) => Rate::per_day(3),
        None => Rate::per_day(1),
    };
    let (_, backend) = memory();
    let builder = traffik_actix::HttpThrottle::builder("api").rate_by(rate);
    let throttle = builder.backend(backend).build().unwrap();
    let free = get("/").to_http_request();
    let paid = get("/").insert_header(("x-plan", "paid")).to_http_request();
    for (req, limit, left) in [(&free, 1, 1), (&paid, 3, 2), (&paid, 3, 1)] {
        let stat = throttle.stat(req).await.unwrap();
        assert_eq!((stat.limit, stat.remaining), (limit, left));
        assert_eq!(stat.rate, rate(req));
        assert_eq!(throttle.hit(req).await.unwrap().remaining(), left - 1);
    }
    for req in [&free, &paid] {
        let stat = throttle.stat(req).await.unwrap();
        assert_eq!(throttle.hit(req).await.unwrap().wait(), stat.wait);
        assert!(!throttle.check(req).await.unwrap());
    }
}
