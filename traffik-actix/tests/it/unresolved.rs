//! Requests that the functions of a throttle cannot make sense of.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::dev::ServiceResponse;
use actix_web::error::{ErrorServiceUnavailable, ErrorUnauthorized, InternalError};
use actix_web::http::StatusCode;
use actix_web::middleware::{ErrorHandlerResponse, ErrorHandlers};
use actix_web::test::init_service;
use actix_web::{App, HttpRequest, HttpResponse, web};
use serde_json::Value;
use traffik_actix::strategy::TokenBucket;
use traffik_actix::{
    Failed, HttpThrottle, HttpThrottleBuilder, Identity, MemoryBackend, OnError, Rate,
    ThrottleBackend, ThrottleMiddleware, Unresolved,
};

use crate::support::{Answer, app, get, memory, send, throttle};

async fn ask(builder: HttpThrottleBuilder, backend: impl Into<ThrottleBackend>) -> Answer {
    let limits = ThrottleMiddleware::new(builder.build().unwrap()).backend(backend);
    send(&app(limits).await, get("/")).await
}

fn fails<T>(_: &HttpRequest) -> Result<T, &'static str> {
    Err("secret cause")
}

/// Throttles of which one function or another fails, and which it is.
fn failures() -> Vec<(&'static str, HttpThrottleBuilder, ThrottleBackend)> {
    async fn fails_later<T>(req: &HttpRequest) -> Result<T, &'static str> {
        actix_web::rt::task::yield_now().await;
        fails(req)
    }
    let limited = || throttle("api", "9/day");
    let memory = || ThrottleBackend::new(MemoryBackend::new());
    let rate_by = || HttpThrottle::builder("api").rate_by(fails::<Rate>);
    let rate_later = HttpThrottle::builder("api").rate_by_async(fails_later::<Rate>);
    vec![
        ("identity", limited().identify(fails::<Identity>), memory()),
        (
            "identity",
            limited().identify_async(fails_later::<Identity>),
            memory(),
        ),
        ("identity", limited(), memory().identify(fails::<Identity>)),
        ("cost", limited().cost_by(fails::<u32>), memory()),
        (
            "cost",
            limited().cost_by_async(fails_later::<u32>),
            memory(),
        ),
        ("rate", rate_by(), memory()),
        ("rate", rate_later, memory()),
    ]
}

/// A client that leaves its key out, or sends a cost that is none, was unlimited, or blamed for too many
/// requests, or answered a 5xx, as the policy for stores that fail would have it.
#[actix_web::test]
async fn no_fixed_policy_decides_about_them() {
    for policy in [OnError::Allow, OnError::Throttle, OnError::Raise] {
        for (what, builder, backend) in failures() {
            let answer = ask(builder.on_error(policy.clone()), backend).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what} {policy:?}");
            for header in ["retry-after", "ratelimit", "ratelimit-policy"] {
                assert_eq!(answer.header(header), None, "{what} {policy:?}");
            }
            let kind = answer.header("content-type").unwrap();
            assert_eq!(kind, "application/problem+json");
            let problem: Value = serde_json::from_str(&answer.body).unwrap();
            let detail =
                format!("throttle `api`: the {what} function could not make sense of the request");
            assert_eq!(
                problem,
                serde_json::json!({
                    "type": "about:blank", "title": "Bad Request", "status": 400, "detail": detail
                })
            );
        }
    }
}

#[actix_web::test]
async fn the_name_is_quoted_as_json_wants() {
    let odd = throttle(r#"a "b" \c"#, "1/day").identify(fails::<Identity>);
    let answer = ask(odd, MemoryBackend::new()).await;
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with(r#"throttle `a "b" \c`: "#), "{detail}");
}

#[actix_web::test]
async fn an_error_of_actix_is_answered_as_it_says() {
    let answer_of = async |error: fn() -> actix_web::Error| {
        let strict = throttle("api", "9/day")
            .on_error(OnError::Allow)
            .identify(move |_: &HttpRequest| Err::<Identity, _>(error()));
        ask(strict, MemoryBackend::new()).await
    };
    let answer = answer_of(|| ErrorUnauthorized("an API key is missing")).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.body, "an API key is missing");

    let answer = answer_of(|| ErrorServiceUnavailable("no sessions")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);

    let answer = answer_of(|| {
        let response = HttpResponse::Unauthorized()
            .insert_header(("www-authenticate", "Bearer"))
            .json(["log in"]);
        InternalError::from_response("no token", response).into()
    });
    let answer = answer.await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.header("www-authenticate").unwrap(), "Bearer");
    assert_eq!(answer.body, r#"["log in"]"#);
}

#[actix_web::test]
async fn a_handler_sees_them_and_may_answer_otherwise() {
    let by_cause = |policy: Result<u64, ()>| {
        OnError::handler(move |failure| {
            let cause = std::error::Error::source(failure.error).map(ToString::to_string);
            let is_it = failure.error.is_unresolved() && cause.as_deref() == Some("secret cause");
            assert!(is_it, "{:?}", failure.error);
            let answer = match policy {
                Ok(0) => Ok(failure.allow()),
                Ok(wait) => Ok(failure.deny_for(Duration::from_secs(wait))),
                Err(()) => Err(failure.error.clone()),
            };
            async move { answer }
        })
    };
    for (what, builder, backend) in failures() {
        let answer = ask(builder.on_error(by_cause(Ok(0))), backend).await;
        assert!(answer.is_ok(), "{what}");
    }
    for (what, builder, backend) in failures() {
        let answer = ask(builder, backend.on_error(by_cause(Err(())))).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}");
    }
    for (what, builder, backend) in failures() {
        let answer = ask(builder.on_error(by_cause(Ok(3))), backend).await;
        assert!(answer.is_throttled(), "{what}");
        assert_eq!(answer.header("retry-after").unwrap(), "3", "{what}");
        // A window of no seconds was announced where the rate is not known.
        let policy = answer.header("ratelimit-policy").unwrap_or_default();
        assert!(!policy.contains("w=0"), "{what}: {policy}");
    }
    for (what, builder, backend) in failures() {
        let looks = async |failed: &Failed<'_>| match failed.request.path() {
            "/" if failed.identity == &Identity::ANONYMOUS => Err(failed.error.clone()),
            _ => Ok(failed.allow()),
        };
        let answer = ask(builder.on_error_by(looks), backend).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}");
    }
}

#[actix_web::test]
async fn who_asks_by_hand_can_tell_them_from_failures_of_the_store() {
    let req = get("/").to_http_request();
    for (what, builder, backend) in failures() {
        let throttle = builder.on_error(OnError::Allow).backend(backend);
        let throttle = throttle.build().unwrap();
        for error in [
            throttle.hit(&req).await.unwrap_err(),
            throttle.stat(&req).await.unwrap_err(),
            throttle.check(&req).await.unwrap_err(),
        ] {
            assert!(error.is_unresolved() && error.is_unexecuted(), "{what}");
        }
        let error = throttle.enforce(&req).await.unwrap_err();
        assert_eq!(error.as_response_error().status_code(), 400, "{what}");
    }
}

/// It depends on the request whether the strategy can serve such a rate.
#[actix_web::test]
async fn a_rate_that_cannot_be_served_is_one_of_them() {
    let slow = |_: &HttpRequest| Rate::literal("1/366d");
    let builder = HttpThrottle::builder("api")
        .strategy(TokenBucket::new().burst(u32::MAX))
        .on_error(OnError::Allow)
        .rate_by(slow);
    let status = ask(builder, MemoryBackend::new()).await.status;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

/// What another limit had been charged was lost to a request that made no sense.
#[actix_web::test]
async fn nothing_is_charged_for_them() {
    let (_, backend) = memory();
    let cost = |req: &HttpRequest| match req.query_string() {
        "" => Ok(1),
        cost => cost.parse::<u32>(),
    };
    let limits = ThrottleMiddleware::new(throttle("all", "1/day").build().unwrap())
        .rule(throttle("cost", "9/day").cost_by(cost).build().unwrap())
        .backend(backend);
    let app = app(limits).await;
    for _ in 0..3 {
        assert_eq!(send(&app, get("/?abc")).await.status, 400);
    }
    assert!(send(&app, get("/")).await.is_ok());
    assert!(send(&app, get("/")).await.is_throttled());
}

#[actix_web::test]
async fn outer_middlewares_see_the_cause() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let bad_request = ErrorHandlers::new().handler(
        StatusCode::BAD_REQUEST,
        move |response: ServiceResponse<_>| {
            let cause = response.response().error().expect("a cause");
            let cause = cause.as_error::<Unresolved>().expect("ours").error();
            let source = std::error::Error::source(cause).map(ToString::to_string);
            log.lock().unwrap().extend(source);
            Ok(ErrorHandlerResponse::Response(
                response.map_into_left_body(),
            ))
        },
    );
    let limits = throttle("api", "9/day").identify(fails::<Identity>);
    let app = App::new()
        .wrap(ThrottleMiddleware::new(limits.build().unwrap()))
        .wrap(bad_request)
        .route("/", web::get().to(async || "hello"));
    send(&init_service(app).await, get("/")).await;
    assert_eq!(*seen.lock().unwrap(), ["secret cause"]);
}
