//! What denied requests are answered.

use std::sync::{Arc, LazyLock, Mutex};

use actix_web::body::to_bytes;
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, HttpRequest, HttpResponse, web};
use traffik_actix::{
    BackendExt, Denial, Headers, HttpThrottle, HttpThrottleBuilder, MemoryBackend, ThrottleBackend,
    ThrottleMiddleware, ThrottleRule, Throttled,
};

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

/// What was said to be left to a recipient who was denied was left to the sender.
#[actix_web::test]
async fn a_denial_is_about_whom_of_two_that_one_throttle_asks_about_it_denied() {
    let (_, memory) = memory();
    let mails = throttle("mails", "2/minute")
        .on_denied_async(async |denial: &Denial<'_>| {
            let left = denial.stat().await.unwrap().remaining;
            HttpResponse::TooManyRequests().body(format!("{left} left"))
        })
        .backend(memory)
        .build()
        .unwrap();
    let req = TestRequest::default().to_http_request();
    let spent = mails.ask().by("recipient").cost(2).enforce(&req).await;
    assert!(spent.is_ok());
    for pair in [["sender", "recipient"], ["recipient", "sender"]] {
        let asks = pair.map(|who| mails.ask().by(who));
        let denied = HttpThrottle::enforce_all(&req, asks).await.unwrap_err();
        let body = to_bytes(denied.error_response().into_body()).await;
        assert_eq!(body.unwrap(), "0 left", "{pair:?}");
    }
}

fn teapot(_: &Denial<'_>) -> HttpResponse {
    HttpResponse::ImATeapot().finish()
}

fn own(name: &str) -> HttpThrottleBuilder {
    throttle(name, "1/minute")
        .on_denied(teapot)
        .headers(Headers::Never)
}

struct Extracted;

impl ThrottleRule for Extracted {
    fn throttle() -> &'static HttpThrottle {
        static RULE: LazyLock<HttpThrottle> = LazyLock::new(|| own("extracted").build().unwrap());
        &RULE
    }
}

#[cfg(feature = "macros")]
#[traffik_actix::throttle("1/minute", name = "attributed", on_denied = teapot, headers = "never")]
async fn attributed() -> &'static str {
    "hello"
}

/// Issue 9.11: only the default response said when to come back, and that it must not be stored.
#[actix_web::test]
async fn an_answer_of_ones_own_says_when_to_come_back_in_every_way_in() {
    let (_, memory) = memory();
    let wrapped = own("wrapped").build().unwrap();
    let enforced = own("enforced").build().unwrap();
    let enforced = web::get().to(move |req: HttpRequest| {
        let enforced = enforced.clone();
        async move { enforced.enforce(&req).await.map(|()| "hello") }
    });
    let app = App::new()
        .app_data(web::Data::new(ThrottleBackend::new(memory)))
        .service(
            web::resource("/middleware")
                .wrap(ThrottleMiddleware::new(wrapped))
                .get(async || "hello"),
        )
        .route("/enforce", enforced)
        .route(
            "/extractor",
            web::get().to(async |_: Throttled<Extracted>| "hello"),
        );
    #[cfg(feature = "macros")]
    let app = app.route("/attribute", web::get().to(attributed));
    let app = init_service(app).await;

    let ways = ["/middleware", "/enforce", "/extractor", "/attribute"];
    for path in &ways[..if cfg!(feature = "macros") { 4 } else { 3 }] {
        assert!(send(&app, get(path)).await.is_ok(), "{path}");
        let denied = send(&app, get(path)).await;
        assert_eq!(denied.status, 418, "{path}");
        assert_eq!(
            denied.header("retry-after").as_deref(),
            Some("60"),
            "{path}"
        );
        let stored = denied.header("cache-control");
        assert_eq!(stored.as_deref(), Some("no-store"), "{path}");
        assert_eq!(denied.header("ratelimit"), None, "{path}");
    }
}

#[actix_web::test]
async fn an_answer_of_ones_own_keeps_what_it_says() {
    let (_, memory) = memory();
    let later = throttle("later", "1/minute").on_denied(|_| {
        HttpResponse::ServiceUnavailable()
            .insert_header(("retry-after", "7"))
            .insert_header(("cache-control", "private"))
            .finish()
    });
    let never = throttle("never", "1/minute").cost(2).on_denied(teapot);
    let limits = |throttle: HttpThrottleBuilder| {
        ThrottleMiddleware::new(throttle.build().unwrap()).backend(memory.clone())
    };

    let later = app(limits(later)).await;
    send(&later, get("/")).await;
    let denied = send(&later, get("/")).await;
    assert_eq!(denied.header("retry-after").as_deref(), Some("7"));
    assert_eq!(denied.header("cache-control").as_deref(), Some("private"));

    let denied = send(&app(limits(never)).await, get("/")).await;
    assert_eq!(denied.header("retry-after"), None);
    assert_eq!(denied.header("cache-control").as_deref(), Some("no-store"));
}

/// Issue 9.12: a logger wrote the whole throttle, and the headers of the request, for each denied one.
#[actix_web::test]
async fn a_denial_is_logged_in_one_short_line() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let (_, memory) = memory();
    let api = throttle("api", "1/minute").on_denied(move |denial| {
        let response = denial.default_response();
        let error = response.error().unwrap();
        let mut seen = note.lock().unwrap();
        *seen = vec![
            format!("{denial:?}"),
            format!("{error:?}"),
            format!("{error:#?}"),
        ];
        response
    });
    let limits = ThrottleMiddleware::new(api.build().unwrap())
        .rule(throttle("big", "9/minute").build().unwrap())
        .backend(memory);
    let app = app(limits).await;
    let secret = || get("/").insert_header(("authorization", "secret"));
    send(&app, secret()).await;
    assert!(send(&app, secret()).await.is_throttled());
    let expected = "Throttled(throttled by api; retry after 60s)";
    assert_eq!(
        *seen.lock().unwrap(),
        [
            "Denial(throttled by api; retry after 60s)",
            expected,
            expected
        ]
    );
}

/// The same of requests that no decision was made about: their causes quote clients, or are long.
#[actix_web::test]
async fn a_refusal_is_logged_in_one_short_line() {
    let raise = throttle("raise", "9/day").on_error(traffik_actix::OnError::Raise);
    let raise = ThrottleMiddleware::new(raise.build().unwrap()).backend(Store::down());
    let unknown = throttle("unknown", "9/day")
        .identify(|_: &HttpRequest| Err::<traffik_actix::Identity, _>("quotes a client"));
    let unknown = ThrottleMiddleware::new(unknown.build().unwrap());
    for (limits, expected) in [
        (raise, "Unavailable("),
        (
            unknown,
            "Unresolved(throttle `unknown`: the identity function could not make sense of the \
             request)",
        ),
    ] {
        let app = app(limits).await;
        let response = call_service(&app, get("/").to_request()).await;
        let line = format!("{:?}", response.response().error().unwrap());
        assert!(line.starts_with(expected), "{line}");
        assert!(
            line.len() < 120 && !line.contains("quotes a client"),
            "{line}"
        );
    }
}
