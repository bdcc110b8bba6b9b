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
