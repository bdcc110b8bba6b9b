//! What denied requests are answered.

use actix_web::test::TestRequest;
use actix_web::{HttpResponse, web};
use traffik_actix::{BackendExt, MemoryBackend, ThrottleBackend, ThrottleMiddleware};

use crate::store::Store;
use crate::support::{app, get, memory, send, throttle};

#[actix_web::test]
async fn the_body_is_a_problem_that_names_what_was_violated() {
    let (_, backend) = memory();
    let limits = ThrottleMiddleware::new(throttle(r#"a "b" \c"#, "1/minute").build().unwrap())
        .rule(throttle("other", "9/minute").build().unwrap())
        .backend(backend);
    let app = app(limits).await;
    send(&app, get("/")).await;

    let denied = send(&app, get("/")).await;
    assert_eq!(
        denied.header("content-type").as_deref(),
        Some("application/problem+json")
    );
    let problem: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
    assert_eq!(
        problem["type"],
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    assert_eq!(problem["title"], "Quota Exceeded");
    assert_eq!(problem["status"], 429);
    assert_eq!(
        problem["violated-policies"],
        serde_json::json!([r#"a "b" \c"#])
    );
    assert_eq!(problem["detail"], "Too many requests. Retry in 60 seconds.");
    assert_eq!(problem["wait_us"], 60_000_000);
}

#[actix_web::test]
async fn the_body_of_a_denied_request_is_not_parsed() {
    let (_, backend) = memory();
    let limits =
        ThrottleMiddleware::new(throttle("first", "1/day").build().unwrap()).backend(backend);
    let app = app(limits).await;
    let malformed = || {
        TestRequest::post()
            .uri("/")
            .set_payload("{")
            .insert_header(("content-type", "application/json"))
    };

    assert_eq!(send(&app, malformed()).await.status, 400);
    assert!(send(&app, malformed()).await.is_throttled());
}

#[actix_web::test]
async fn the_throttle_answers_else_its_backend_does() {
    let (_, memory) = memory();
    let backend = ThrottleBackend::new(memory).on_denied(|denial| {
        HttpResponse::Forbidden().body(format!("backend: {}", denial.throttle.name()))
    });
    let limits = |throttle| ThrottleMiddleware::new(throttle).backend(backend.clone());

    let plain = app(limits(throttle("plain", "1/day").build().unwrap())).await;
    send(&plain, get("/")).await;
    let denied = send(&plain, get("/")).await;
    assert_eq!(
        (denied.status.as_u16(), denied.body.as_str()),
        (403, "backend: plain")
    );
    assert!(
        denied.header("ratelimit").is_some(),
        "headers are added to any answer"
    );

    let own = throttle("own", "1/day").on_denied(|denial| {
        let wait = denial.retry_after().map_or(0, |wait| wait.as_secs());
        HttpResponse::ServiceUnavailable().body(format!("own: {wait}"))
    });
    let own = app(limits(own.build().unwrap())).await;
    send(&own, get("/")).await;
    let denied = send(&own, get("/")).await;
    assert_eq!(
        (denied.status.as_u16(), denied.body.as_str()),
        (503, "own: 86400")
    );
}

#[actix_web::test]
async fn several_denials_wait_for_the_longest() {
    let (_, backend) = memory();
    let limits = ThrottleMiddleware::new(throttle("second", "1/s").build().unwrap())
        .rule(throttle("minute", "1/minute").build().unwrap())
        .backend(backend);
    let app = app(limits).await;
    send(&app, get("/")).await;
    let denied = send(&app, get("/")).await;
    assert_eq!(denied.header("retry-after").as_deref(), Some("60"));
    assert!(
        denied
            .body
            .contains(r#""violated-policies":["second","minute"]"#),
        "{}",
        denied.body
    );
}

#[actix_web::test]
async fn the_application_may_bring_the_backend_either_way() {
    let one = || throttle("app_data", "1/day").build().unwrap();
    let backend = ThrottleBackend::new(MemoryBackend::new());
    let plain = actix_web::App::new()
        .app_data(backend.clone())
        .wrap(ThrottleMiddleware::new(one()));
    let plain = plain.route("/", web::get().to(async || "hello"));
    let plain = actix_web::test::init_service(plain).await;
    let data = actix_web::App::new()
        .app_data(web::Data::new(backend))
        .wrap(ThrottleMiddleware::new(one()));
    let data = data.route("/", web::get().to(async || "hello"));
    let data = actix_web::test::init_service(data).await;

    assert!(send(&plain, get("/")).await.is_ok());
    assert!(
        send(&data, get("/")).await.is_throttled(),
        "both are the same backend"
    );
}

/// Issue: a denial because the store could not be asked named violated policies, and blamed the client.
#[actix_web::test]
async fn who_could_not_be_checked_is_not_blamed() {
    let limits = ThrottleMiddleware::new(throttle("api", "9/day").build().unwrap());
    let app = app(limits.backend(Store::down())).await;
    let denied = send(&app, get("/")).await;
    assert!(denied.is_throttled());
    assert_eq!(denied.header("retry-after").unwrap(), "1");
    assert_eq!(
        denied.header("ratelimit"),
        None,
        "nobody knows what is left"
    );
    let problem: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
    assert_eq!(
        problem,
        serde_json::json!({
            "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
            "title": "Temporary Reduced Capacity",
            "status": 429,
            "detail": "Rate limits cannot be checked at the moment. Retry in 1 second.",
            "wait_us": 1_000_000,
        })
    );
}

#[actix_web::test]
async fn a_denial_by_a_fallback_is_one_like_any_other() {
    let (_, memory) = memory();
    let limits = ThrottleMiddleware::new(throttle("api", "1/minute").build().unwrap());
    let app = app(limits.backend(Store::down().fallback(memory))).await;
    assert!(send(&app, get("/")).await.is_ok());
    let denied = send(&app, get("/")).await;
    assert!(denied.body.contains(r#""violated-policies":["api"]"#));
    assert!(denied.body.contains("Too many requests. Retry in"));
    assert!(denied.header("ratelimit").is_some());
}

/// Issue: SPEC 3.6. A cost beyond the limit crashed, or announced a wait that would not have helped.
#[actix_web::test]
async fn what_can_never_pass_is_told_so() {
    let (_, backend) = memory();
    let limits = ThrottleMiddleware::new(throttle("all", "1/day").build().unwrap())
        .rule(throttle("big", "5/day").cost(6).build().unwrap())
        .backend(backend);
    let denied = send(&app(limits).await, get("/")).await;
    assert!(denied.is_throttled());
    assert_eq!(denied.header("retry-after"), None);
    let problem: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
    assert_eq!(
        problem["detail"],
        "This request costs more than can ever be admitted by `big`. Retrying is in vain."
    );
    assert_eq!(problem["violated-policies"], serde_json::json!(["big"]));
    assert_eq!(problem.get("wait_us"), None);
}
