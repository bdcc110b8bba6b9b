//! Denials that are answered after a while, or caught.

use std::sync::LazyLock;
use std::time::Duration;

use actix_web::body::{BodyStream, BoxBody};
use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpRequest, HttpResponse, ResponseError, web};
use futures_util::stream;
use traffik_actix::{
    BusyDenial, ConcurrencyLimit, Decision, Denial, HttpThrottle, HttpThrottleBuilder, Identity,
    OnError, Stat, StatOf, ThrottleBackend, ThrottleMiddleware, ThrottleRule, Throttled,
    ThrottledError, TooManyInFlight, Unavailable, Unresolved,
};

use crate::store::Store;
use crate::support::{get, memory, send, throttle};

/// An answer that takes a look, and a while.
async fn look(denial: &Denial<'_>) -> HttpResponse {
    tokio::task::yield_now().await;
    let stat: Stat = denial.stat().await.unwrap();
    assert_eq!(stat.wait, denial.retry_after().unwrap());
    let detail = format!("{} of {}", stat.remaining, stat.limit);
    denial.problem().detail(detail).finish()
}

fn looking(name: &str) -> HttpThrottleBuilder {
    throttle(name, "1/minute").on_denied_async(look)
}

struct Extracted;

impl ThrottleRule for Extracted {
    fn throttle() -> &'static HttpThrottle {
        static RULE: LazyLock<HttpThrottle> =
            LazyLock::new(|| looking("extracted").build().unwrap());
        &RULE
    }
}

#[cfg(feature = "macros")]
#[traffik_actix::throttle("1/minute", name = "attributed", on_denied_async = look)]
async fn attributed() -> &'static str {
    "hello"
}

/// Issue 10.8: who answers a denial could not wait for anything.
#[actix_web::test]
async fn an_answer_may_be_waited_for_in_every_way_in() {
    let (_, outer) = memory();
    let (_, inner) = memory();
    let enforced = looking("enforced").build().unwrap();
    let enforced = web::to(move |req: HttpRequest| {
        let enforced = enforced.clone();
        async move { enforced.enforce_as(&req, "ann").await.map(|()| "hello") }
    });
    let reserved = looking("reserved").build().unwrap();
    let reserved = web::to(move |req: HttpRequest| {
        let reserved = reserved.clone();
        async move { reserved.reserve(&req, 1).await.map(|_| "hello") }
    });
    let of_async_identity =
        looking("waiting").identify_async(async |_: &HttpRequest| Identity::of("ann"));
    let middleware = ThrottleMiddleware::new(looking("middleware").build().unwrap());
    let app = App::new()
        .app_data(web::Data::new(ThrottleBackend::new(inner)))
        // Its denials are about what it has counted elsewhere.
        .service(
            web::resource("/middleware")
                .wrap(middleware.backend(outer))
                .to(async || "hello"),
        )
        .service(
            web::resource("/waiting")
                .wrap(of_async_identity.build().unwrap())
                .to(async || "hello"),
        )
        .route("/enforced", enforced)
        .route("/reserved", reserved)
        .route(
            "/extracted",
            web::to(async |_: Throttled<Extracted>| "hello"),
        );
    #[cfg(feature = "macros")]
    let app = app.route("/attributed", web::to(attributed));
    let app = init_service(app).await;
    let ways = [
        "/middleware",
        "/waiting",
        "/enforced",
        "/reserved",
        "/extracted",
        "/attributed",
    ];
    for path in &ways[..if cfg!(feature = "macros") { 6 } else { 5 }] {
        assert!(send(&app, get(path)).await.is_ok(), "{path}");
        let with_body = TestRequest::post().uri(path).set_payload("small");
        for request in [get(path), with_body] {
            let denied = send(&app, request).await;
            assert!(denied.is_throttled(), "{path}");
            let problem: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
            assert_eq!(problem["detail"], "0 of 1", "{path}");
            assert_eq!(denied.header("retry-after").as_deref(), Some("60"));
            assert!(denied.header("ratelimit").unwrap().contains(";r=0;t=60"));
        }
    }
}

#[actix_web::test]
async fn a_backend_answers_after_a_while_for_all_its_throttles() {
    let (_, memory) = memory();
    let backend = ThrottleBackend::new(memory).on_denied_async(look);
    let app = App::new()
        .route("/", web::get().to(async || "hello"))
        .wrap(ThrottleMiddleware::new(throttle("one", "1/day").build().unwrap()).backend(backend));
    let app = init_service(app).await;
    assert!(send(&app, get("/")).await.is_ok());
    assert!(send(&app, get("/")).await.body.contains("0 of 1"));
}

#[actix_web::test]
async fn who_is_one_too_many_may_be_answered_after_a_while() {
    let one = ConcurrencyLimit::builder("one").in_flight(1);
    let one = one.on_denied_async(async |denial: &BusyDenial<'_>| {
        tokio::task::yield_now().await;
        HttpResponse::ImATeapot().body(denial.limit.name().to_owned())
    });
    let one = one.build().unwrap();
    let hand = one.clone();
    let app = App::new()
        .service(
            web::resource("/middleware")
                .wrap(one.clone())
                .get(async || "hello"),
        )
        .route(
            "/hand",
            web::get().to(move |req: HttpRequest| {
                let hand = hand.clone();
                async move {
                    let error = hand.acquire(&req).await.unwrap_err();
                    let caught = error.as_error::<TooManyInFlight>().unwrap();
                    assert_eq!(caught.limit(), "one");
                    assert_eq!(caught.retry_after(), Duration::from_secs(1));
                    Err::<&str, _>(error)
                }
            }),
        );
    let app = init_service(app).await;
    let req = TestRequest::default().to_http_request();
    let _held = one.acquire(&req).await.unwrap();
    for path in ["/middleware", "/hand"] {
        let denied = send(&app, get(path)).await;
        assert_eq!((denied.status.as_u16(), &*denied.body), (418, "one"));
        assert_eq!(denied.header("retry-after").as_deref(), Some("1"), "{path}");
    }
}

/// Parity: `enforce(..).unwrap_err().as_error::<ThrottledError>()` was `None`.
#[actix_web::test]
async fn a_denial_is_caught_by_its_type_whoever_answers() {
    let (_, memory) = memory();
    let teapot = |_: &Denial<'_>| HttpResponse::ImATeapot().body("tea");
    for (name, builder, status) in [
        ("usual", throttle("usual", "1/minute"), 429),
        ("own", throttle("own", "1/minute").on_denied(teapot), 418),
        (
            "late",
            throttle("late", "1/minute")
                .on_denied_async(async |_: &Denial<'_>| HttpResponse::ImATeapot().finish()),
            418,
        ),
    ] {
        let one = builder.backend(memory.clone()).build().unwrap();
        let req = TestRequest::default().to_http_request();
        one.enforce(&req).await.unwrap();
        let all = HttpThrottle::enforce_all(&req, [&one]).await;
        let reserved = one.reserve(&req, 1).await.map(|_| ());
        for denied in [one.enforce(&req).await, all, reserved] {
            let error = denied.unwrap_err();
            let throttled = error.as_error::<ThrottledError>().unwrap();
            assert_eq!(throttled.retry_after(), Some(Duration::from_secs(60)));
            assert_eq!(throttled.violated_policies().collect::<Vec<_>>(), [name]);
            assert_eq!(error.to_string(), format!("throttled by {name}"));
            // As often as it is asked.
            for _ in 0..2 {
                let response = error.error_response();
                assert_eq!(response.status(), status, "{name}");
                let headers = response.headers();
                assert_eq!(headers.get("retry-after").unwrap(), "60");
                assert!(headers.contains_key("ratelimit"));
            }
        }
    }
}

#[actix_web::test]
async fn failures_are_caught_by_their_types_too() {
    let down = throttle("down", "1/day").on_error(OnError::Raise);
    let down = down.backend(Store::down()).build().unwrap();
    let who = throttle("who", "1/day").identify(|_: &HttpRequest| Err::<Identity, _>("nobody"));
    let (_, memory) = memory();
    let who = who.backend(memory).build().unwrap();
    let req = TestRequest::default().to_http_request();
    let error = down.enforce(&req).await.unwrap_err();
    assert!(error.as_error::<Unavailable>().is_some());
    assert_eq!(error.error_response().status(), 503);
    let error = who.reserve(&req, 1).await.unwrap_err();
    assert!(error.as_error::<Unresolved>().is_some());
    assert_eq!(error.error_response().status(), 400);
    let busy = ConcurrencyLimit::builder("busy").in_flight(1);
    let busy = busy.identify(|_: &HttpRequest| Err::<Identity, _>("nobody"));
    let error = busy.build().unwrap().acquire(&req).await.unwrap_err();
    assert!(error.as_error::<Unresolved>().is_some());
}

#[actix_web::test]
async fn an_answer_that_is_streamed_arrives_as_a_whole() {
    let (_, memory) = memory();
    let one = throttle("one", "1/day").backend(memory).on_denied(|_| {
        let parts = ["so ", "much"].map(|part| Ok::<_, std::io::Error>(part.into()));
        let body = BoxBody::new(BodyStream::new(stream::iter(parts)));
        HttpResponse::ServiceUnavailable().body(body)
    });
    let one = one.build().unwrap();
    let app = App::new().route(
        "/",
        web::get().to(move |req: HttpRequest| {
            let one = one.clone();
            async move { one.enforce(&req).await.map(|()| "hello") }
        }),
    );
    let app = init_service(app).await;
    assert!(send(&app, get("/")).await.is_ok());
    let denied = send(&app, get("/")).await;
    assert_eq!((denied.status.as_u16(), &*denied.body), (503, "so much"));
}

#[actix_web::test]
async fn the_usual_response_may_be_changed() {
    let (_, memory) = memory();
    let one = throttle("one", "1/minute").on_denied(|denial| {
        denial
            .problem()
            .detail("Say \"please\".")
            .status(StatusCode::PAYMENT_REQUIRED)
            .header(("link", "</plans>"))
            .header(("x-bad", "two\nlines"))
            .finish()
    });
    let app = App::new().route("/", web::get().to(async || "hello"));
    let app = init_service(app.wrap(one.backend(memory).build().unwrap())).await;
    assert!(send(&app, get("/")).await.is_ok());
    let denied = send(&app, get("/")).await;
    assert_eq!(denied.status, 402);
    assert_eq!(denied.header("link").as_deref(), Some("</plans>"));
    assert_eq!(denied.header("x-bad"), None);
    assert_eq!(denied.header("retry-after").as_deref(), Some("60"));
    let problem: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
    assert_eq!(problem["detail"], "Say \"please\".");
    assert_eq!(problem["status"], 402);
    assert_eq!(problem["violated-policies"], serde_json::json!(["one"]));
}

#[test]
fn the_error_of_a_denial_can_be_made_for_tests() {
    let error = ThrottledError::of([
        ("open", Decision::allow(9, 3)),
        ("minute", Decision::deny(9, 0, 1_500_000)),
        ("big", Decision::never(9, 9)),
    ]);
    let violated: Vec<_> = error.violated_policies().collect();
    assert_eq!(violated, ["minute", "big"]);
    assert_eq!(error.retry_after(), None);
    assert_eq!(error.error_response().status(), 429);
}

/// Parity: `Depends(throttle.stat)` was twelve lines of one's own.
#[actix_web::test]
async fn a_stat_is_an_argument() {
    struct Looked;
    impl ThrottleRule for Looked {
        fn throttle() -> &'static HttpThrottle {
            static RULE: LazyLock<HttpThrottle> =
                LazyLock::new(|| throttle("looked", "3/day").build().unwrap());
            &RULE
        }
    }
    struct Down;
    impl ThrottleRule for Down {
        fn throttle() -> &'static HttpThrottle {
            static RULE: LazyLock<HttpThrottle> = LazyLock::new(|| {
                let down = throttle("down", "3/day").backend(Store::down());
                down.build().unwrap()
            });
            &RULE
        }
    }
    let (_, memory) = memory();
    let app = App::new()
        .app_data(ThrottleBackend::new(memory))
        .route(
            "/look",
            web::get().to(async |stat: StatOf<Looked>| stat.remaining.to_string()),
        )
        .route("/hit", web::get().to(async |_: Throttled<Looked>| "hit"))
        .route(
            "/down",
            web::get().to(async |stat: StatOf<Down>| stat.into_inner().limit.to_string()),
        )
        .route(
            "/perhaps",
            web::get().to(async |stat: Option<StatOf<Down>>| stat.is_none().to_string()),
        );
    let app = init_service(app).await;
    for left in ["3", "2", "1", "0"] {
        for _ in 0..2 {
            assert_eq!(send(&app, get("/look")).await.body, left);
        }
        send(&app, get("/hit")).await;
    }
    assert_eq!(send(&app, get("/down")).await.status, 503);
    assert_eq!(send(&app, get("/perhaps")).await.body, "true");
}
