//! What requests are answered when a backend fails.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::middleware::{ErrorHandlerResponse, ErrorHandlers};
use actix_web::test::init_service;
use actix_web::{App, web};
use traffik_actix::{
    Backend, BackendExt, CircuitBreaker, Decision, Error, Failed, HttpThrottle,
    HttpThrottleBuilder, ManualClock, MemoryBackend, OnError, ThrottleBackend, ThrottleMiddleware,
    Unavailable,
};

use crate::store::Store;
use crate::support::{Answer, app, get, memory, send, throttle};

async fn ask(builder: HttpThrottleBuilder, backend: impl Into<ThrottleBackend>) -> Answer {
    let limits = ThrottleMiddleware::new(builder.build().unwrap()).backend(backend);
    send(&app(limits).await, get("/")).await
}

/// A throttle whose backend fails.
fn failing() -> (HttpThrottleBuilder, ThrottleBackend) {
    (throttle("api", "9/day"), Store::down().into())
}

#[actix_web::test]
async fn when_the_backend_fails_the_policy_decides() {
    let (builder, backend) = failing();
    let answer = ask(builder.on_error(OnError::Allow), backend).await;
    assert!(answer.is_ok());
    assert_eq!(answer.header("ratelimit"), None);

    let (builder, backend) = failing();
    let answer = ask(builder.on_error(OnError::Throttle), backend).await;
    assert!(answer.is_throttled());
    assert_eq!(answer.header("retry-after").unwrap(), "1");

    let (builder, backend) = failing();
    let floor = builder.min_wait(Duration::from_secs(7));
    let answer = ask(floor.on_error(OnError::Throttle), backend).await;
    assert_eq!(answer.header("retry-after").unwrap(), "7");

    let (builder, backend) = failing();
    let answer = ask(builder.on_error(OnError::Raise), backend).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.body.contains("refused"), "{}", answer.body);

    let (builder, backend) = failing();
    let handler = OnError::handler(|failure| {
        let answer = match failure.throttle.name() {
            "api" => Ok(failure.deny_for(Duration::from_secs(3))),
            _ => Err(Error::other("another throttle")),
        };
        async move { answer }
    });
    let answer = ask(builder.on_error(handler), backend).await;
    assert_eq!(answer.header("retry-after").unwrap(), "3");

    let (builder, backend) = failing();
    let handler = async |failed: &Failed<'_>| Ok(failed.deny_for(Duration::from_secs(3)));
    let floor = builder
        .min_wait(Duration::from_secs(7))
        .on_error_by(handler);
    let answer = ask(floor, backend).await;
    assert_eq!(answer.header("retry-after").unwrap(), "7");
}

/// Issue: SPEC 3.32. A throttle that found its backend later kept the default policy.
#[actix_web::test]
async fn the_policy_is_the_throttles_then_the_backends_then_to_deny() {
    let (builder, backend) = failing();
    assert!(ask(builder, backend).await.is_throttled());
    let (builder, backend) = failing();
    let answer = ask(builder, backend.on_error(OnError::Allow)).await;
    assert!(answer.is_ok());
    let (builder, backend) = failing();
    let builder = builder.on_error(OnError::Allow);
    let answer = ask(builder, backend.on_error(OnError::Raise)).await;
    assert!(answer.is_ok());
}

/// A middleware outside sees the 503 as a response, with the error in it.
#[actix_web::test]
async fn what_is_raised_reaches_outer_middlewares_with_its_cause() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let unavailable = ErrorHandlers::new().handler(
        StatusCode::SERVICE_UNAVAILABLE,
        move |response: actix_web::dev::ServiceResponse<_>| {
            let cause = response.response().error().expect("a cause");
            let cause = cause.as_error::<Unavailable>().expect("ours").error();
            log.lock().unwrap().push(cause.to_string());
            Ok(ErrorHandlerResponse::Response(
                response.map_into_left_body(),
            ))
        },
    );
    let (builder, backend) = failing();
    let limits = builder.on_error(OnError::Raise).build().unwrap();
    let app = App::new()
        .wrap(ThrottleMiddleware::new(limits).backend(backend))
        .wrap(unavailable)
        .route("/", web::get().to(async || "hello"));
    let answer = send(&init_service(app).await, get("/")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(*seen.lock().unwrap(), ["the store refused the connection"]);
}

/// One policy for all: a throttle that fails does not keep the others from denying, and none is
/// charged for a request that is denied.
#[actix_web::test]
async fn a_failing_throttle_among_others() {
    let (_, backend) = memory();
    let with = |policy| {
        let user = throttle("user", "9/day").backend(Store::down());
        ThrottleMiddleware::new(throttle("all", "2/day").build().unwrap())
            .rule(user.on_error(policy).build().unwrap())
            .backend(backend.clone())
    };
    let denying = app(with(OnError::Throttle)).await;
    let raising = app(with(OnError::Raise)).await;
    for _ in 0..3 {
        assert!(send(&denying, get("/")).await.is_throttled());
        assert_eq!(send(&raising, get("/")).await.status, 503);
    }
    let allowing = app(with(OnError::Allow)).await;
    assert!(send(&allowing, get("/")).await.is_ok());
    assert!(send(&allowing, get("/")).await.is_ok());
    assert!(send(&allowing, get("/")).await.is_throttled());
}

/// Issue: SPEC 3.37. A store that was down when a request came was a 500, whatever the policy.
#[actix_web::test]
async fn no_request_fails_with_its_store() {
    let clock = ManualClock::default();
    let breaker = CircuitBreaker::builder()
        .clock(clock.clone())
        .build()
        .unwrap();
    let store = Store::down();
    let backend = store
        .clone()
        .failover(MemoryBackend::new(), breaker.clone())
        .clock(clock.clone());
    let api = throttle("api", "9/day").on_error(OnError::Raise);
    let limits = ThrottleMiddleware::new(api.build().unwrap()).backend(backend);
    let app = app(limits).await;
    for admitted in 0..9 {
        let answer = send(&app, get("/")).await;
        assert!(answer.is_ok());
        let left = answer.header("ratelimit").unwrap();
        assert!(
            left.starts_with(&format!("\"api\";r={}", 8 - admitted)),
            "{left}"
        );
    }
    assert!(send(&app, get("/")).await.is_throttled());
    assert!(breaker.state().is_open());

    store.down.store(false, Ordering::Relaxed);
    clock.advance(Duration::from_secs(60));
    // What was admitted during the outage still counts.
    assert!(send(&app, get("/")).await.is_throttled());
    assert!(!breaker.state().is_open());
}

#[actix_web::test]
async fn handlers_that_ask_themselves_get_the_error() {
    let api = throttle("api", "9/day").backend(Store::down());
    let raising: HttpThrottle = api.on_error(OnError::Raise).build().unwrap();
    let req = get("/").to_http_request();
    assert!(raising.hit(&req).await.unwrap_err().is_connection());
    assert!(raising.stat(&req).await.unwrap_err().is_connection());
    let error = raising.enforce(&req).await.unwrap_err();
    assert_eq!(error.as_response_error().status_code(), 503);

    let api = throttle("api", "9/day").backend(Store::down());
    let denying = api.build().unwrap();
    let decision: Decision = denying.hit(&req).await.unwrap();
    assert!(decision.is_denied() && decision.is_degraded());
}

/// Memory decides about several limits at once, without waiting.
#[actix_web::test]
async fn when_a_closed_memory_is_asked_about_several_each_policy_is_heard() {
    let slow = OnError::handler(|failure| {
        let answer = Ok(failure.deny_for(Duration::from_secs(3)));
        async move {
            actix_web::rt::task::yield_now().await;
            answer
        }
    });
    for (policy, status) in [
        (OnError::Allow, StatusCode::OK),
        (OnError::Throttle, StatusCode::TOO_MANY_REQUESTS),
        (OnError::Raise, StatusCode::SERVICE_UNAVAILABLE),
        (slow, StatusCode::TOO_MANY_REQUESTS),
    ] {
        let (_, backend) = memory();
        backend.close().await.unwrap();
        let built = |name, policy| throttle(name, "9/day").on_error(policy).build().unwrap();
        let second = built("second", policy);
        let limits = ThrottleMiddleware::new(built("first", OnError::Allow))
            .rule(second.clone())
            .backend(backend);
        let answer = send(&app(limits).await, get("/")).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("ratelimit"), None);
        let degraded = u64::from(status != StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(second.outage().degraded_total, degraded, "{status}");
    }
}
