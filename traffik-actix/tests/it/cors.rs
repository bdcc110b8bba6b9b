//! Browsers of other origins, with actix-cors and without.

use actix_cors::Cors;
use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpResponse, web};
use traffik_actix::{HeaderStyle, HttpThrottle, ThrottleHeaders, ThrottleMiddleware};

use crate::support::{Answer, get, memory, send, throttle};

const ORIGIN: (&str, &str) = ("origin", "https://shop.example");
const EXPOSED: &str = "access-control-expose-headers";

fn cors() -> Cors {
    Cors::default()
        .allowed_origin("https://shop.example")
        .allowed_methods(["GET"])
        .expose_headers(HeaderStyle::Standard.names())
}

fn preflight() -> TestRequest {
    TestRequest::default()
        .method(Method::OPTIONS)
        .insert_header(ORIGIN)
        .insert_header(("access-control-request-method", "GET"))
}

/// Two a day.
fn two() -> HttpThrottle {
    let (_, memory) = memory();
    throttle("two", "2/day").backend(memory).build().unwrap()
}

fn exposed(answer: &Answer) -> Vec<String> {
    let line = answer.header(EXPOSED).unwrap_or_default();
    let mut names: Vec<String> = line
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    names.sort_unstable();
    names
}

#[actix_web::test]
async fn preflights_that_cors_answers_outside_are_free() {
    let app = App::new().route("/", web::get().to(async || "hello"));
    let app = init_service(app.wrap(two()).wrap(cors())).await;
    for _ in 0..5 {
        let answer = send(&app, preflight()).await;
        assert!(answer.is_ok());
        assert_eq!(answer.header("ratelimit"), None);
    }
    for status in [200, 200, 429] {
        let answer = send(&app, get("/").insert_header(ORIGIN)).await;
        assert_eq!(answer.status, status);
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed.as_deref(), Some("https://shop.example"), "{status}");
        assert_eq!(
            exposed(&answer),
            ["ratelimit", "ratelimit-policy", "retry-after"]
        );
    }
}

/// Issue 10.8: a preflight spent the budget of the request that it was about.
#[actix_web::test]
async fn preflights_before_cors_are_free_if_that_is_said() {
    for skip in [true, false] {
        let limits = ThrottleMiddleware::new(two());
        let limits = match skip {
            true => limits.skip_preflights(),
            false => limits,
        };
        let app = App::new().route("/", web::get().to(async || "hello"));
        let app = init_service(app.wrap(cors()).wrap(limits)).await;
        for at in 0..3 {
            let answer = send(&app, preflight()).await;
            assert_eq!(answer.is_ok(), skip || at < 2);
            assert_eq!(answer.header("ratelimit").is_some(), !skip);
        }
        let status = send(&app, get("/").insert_header(ORIGIN)).await.status;
        assert_eq!(status, if skip { 200 } else { 429 });
    }
}

/// What a client sends that is no preflight, or not quite one, is limited.
#[actix_web::test]
async fn only_preflights_are_skipped() {
    let (_, memory) = memory();
    let one = throttle("one", "1/day").refund_if(|answered| answered.status() == 500);
    let one = one.backend(memory).build().unwrap();
    let limits = ThrottleMiddleware::new(one).skip_preflights();
    let app = App::new().default_service(web::to(async || HttpResponse::Ok()));
    let app = init_service(app.wrap(limits)).await;
    assert!(send(&app, get("/")).await.is_ok());
    let options = || TestRequest::default().method(Method::OPTIONS);
    let method = ("access-control-request-method", "GET");
    for (what, request) in [
        ("OPTIONS", options()),
        ("no method", options().insert_header(ORIGIN)),
        ("no origin", options().insert_header(method)),
        ("GET", get("/").insert_header(ORIGIN).insert_header(method)),
    ] {
        assert!(send(&app, request).await.is_throttled(), "{what}");
    }
    // That is why it is an option: a handler of one's own is unlimited for whoever pretends.
    assert!(send(&app, preflight()).await.is_ok());
}

#[actix_web::test]
async fn headers_are_exposed_without_cors() {
    for (style, expected) in [
        (HeaderStyle::Standard, vec!["ratelimit", "ratelimit-policy"]),
        (
            HeaderStyle::Legacy,
            vec!["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
        ),
        (
            HeaderStyle::XRateLimit,
            vec![
                "x-ratelimit-limit",
                "x-ratelimit-remaining",
                "x-ratelimit-reset",
            ],
        ),
    ] {
        let (_, memory) = memory();
        let one = throttle("one", "1/day").header_style(style).backend(memory);
        let app =
            App::new().service(web::resource("/").wrap(one.build().unwrap()).get(async || {
                let exposed = (EXPOSED, "ETag, RateLimit");
                HttpResponse::Ok().insert_header(exposed).finish()
            }));
        let app = app.route("/free", web::get().to(async || "hello"));
        let app = init_service(app.wrap(ThrottleHeaders::new().expose())).await;
        assert_eq!(send(&app, get("/free")).await.header(EXPOSED), None);

        let mut names = vec!["etag", "ratelimit"];
        names.extend(expected.iter().filter(|name| **name != "ratelimit"));
        names.sort_unstable();
        assert_eq!(exposed(&send(&app, get("/")).await), names, "{style:?}");
        let mut names = expected;
        names.push("retry-after");
        names.sort_unstable();
        assert_eq!(exposed(&send(&app, get("/")).await), names, "{style:?}");
    }
}

/// Behind actix-cors it is of no use, and does no harm.
#[actix_web::test]
async fn what_cors_exposes_stays() {
    let app = App::new().route("/", web::get().to(async || "hello"));
    let app = app.wrap(two()).wrap(ThrottleHeaders::new().expose());
    let app = init_service(app.wrap(cors())).await;
    let answer = send(&app, get("/").insert_header(ORIGIN)).await;
    assert_eq!(
        exposed(&answer),
        ["ratelimit", "ratelimit-policy", "retry-after"]
    );
}
