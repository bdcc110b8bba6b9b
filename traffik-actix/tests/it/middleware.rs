//! Rules around an application.

use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use actix_web::middleware::{ErrorHandlerResponse, ErrorHandlers};
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpRequest, web};
use traffik_actix::strategy::Gcra;
use traffik_actix::{
    HttpThrottle, Identity, MemoryBackend, Rate, Rule, Scope, ThrottleBackend, ThrottleMiddleware,
};

use crate::support::{app, get, memory, send, throttle};

#[actix_web::test]
async fn admits_the_limit_then_denies_until_the_promised_instant() {
    let (clock, backend) = memory();
    let smooth = throttle("smooth", "10/s")
        .strategy(Gcra::new())
        .build()
        .unwrap();
    let app = app(ThrottleMiddleware::new(smooth).backend(backend)).await;

    assert!(send(&app, get("/")).await.is_ok());
    let denied = send(&app, get("/")).await;
    assert!(denied.is_throttled());
    assert!(
        denied.body.contains(r#""wait_us":100000"#),
        "{}",
        denied.body
    );

    clock.advance(Duration::from_micros(99_999));
    assert!(send(&app, get("/")).await.is_throttled());
    clock.advance(Duration::from_micros(1));
    assert!(send(&app, get("/")).await.is_ok());
}

#[actix_web::test]
async fn clients_have_counts_of_their_own() {
    let limits = ThrottleMiddleware::new(throttle("own", "1/day").build().unwrap())
        .backend(MemoryBackend::new());
    let app = app(limits).await;
    let from = |peer: &str| get("/").peer_addr(peer.parse().unwrap());

    assert!(send(&app, from("192.0.2.1:1")).await.is_ok());
    assert!(send(&app, from("192.0.2.2:1")).await.is_ok());
    assert!(send(&app, from("192.0.2.1:2")).await.is_throttled());
    assert!(
        send(&app, from("[::ffff:192.0.2.2]:1"))
            .await
            .is_throttled()
    );
}

/// Issue: SPEC 3.28. The first throttle was charged although the second denied.
#[actix_web::test]
async fn all_matching_rules_admit_or_none_is_charged() {
    let (_, backend) = memory();
    let burst = throttle("burst", "3/day").build().unwrap();
    let writes = throttle("writes", "1/day").build().unwrap();
    let limits = ThrottleMiddleware::new(burst.clone())
        .rule(Rule::new(writes).methods([Method::POST]))
        .backend(backend.clone());
    let app = app(limits).await;
    let post = || TestRequest::post().uri("/").set_json([1]);

    assert!(send(&app, post()).await.is_ok());
    for _ in 0..5 {
        let denied = send(&app, post()).await;
        assert!(denied.is_throttled());
        assert!(
            denied.body.contains(r#""violated-policies":["writes"]"#),
            "{}",
            denied.body
        );
    }
    assert!(send(&app, get("/")).await.is_ok());
    assert!(send(&app, get("/")).await.is_ok());
    assert!(send(&app, get("/")).await.is_throttled());
}

#[actix_web::test]
async fn rules_are_for_the_requests_they_name() {
    let admin = throttle("admin", "1/day").build().unwrap();
    let limits = ThrottleMiddleware::new(Rule::new(admin).path("/admin/").unwrap())
        .backend(MemoryBackend::new());
    let app = app(limits).await;

    assert!(send(&app, get("/admin/users")).await.is_ok());
    assert!(send(&app, get("/admin/users")).await.is_throttled());
    assert!(send(&app, get("/%61dmin/users")).await.is_throttled());
    for _ in 0..5 {
        let free = send(&app, get("/")).await;
        assert!(free.is_ok());
        assert_eq!(free.header("ratelimit"), None);
    }
}

#[actix_web::test]
async fn the_same_throttle_twice_is_charged_twice_at_once() {
    let twice = throttle("twice", "5/day").build().unwrap();
    let limits = ThrottleMiddleware::new(twice.clone())
        .rule(twice)
        .backend(MemoryBackend::new());
    let app = app(limits).await;

    assert_eq!(
        send(&app, get("/"))
            .await
            .header("ratelimit")
            .unwrap()
            .matches("r=3")
            .count(),
        2
    );
    assert!(send(&app, get("/")).await.is_ok());
    assert!(send(&app, get("/")).await.is_throttled());
}

#[actix_web::test]
async fn predicates_may_wait() {
    let keyed = throttle("keyed", "1/day").build().unwrap();
    let rule = Rule::new(keyed).when_async(async |req: &HttpRequest| {
        actix_web::rt::task::yield_now().await;
        req.headers().contains_key("authorization")
    });
    let app = app(ThrottleMiddleware::new(rule).backend(MemoryBackend::new())).await;
    let authorised = || get("/").insert_header(("authorization", "x"));

    assert!(send(&app, authorised()).await.is_ok());
    assert!(send(&app, authorised()).await.is_throttled());
    assert!(send(&app, get("/")).await.is_ok());
}

/// Issue: actix-governor 51. Errors of a middleware pass `ErrorHandlers` by; responses do not.
#[actix_web::test]
async fn middleware_outside_sees_denials() {
    let limits = ThrottleMiddleware::new(throttle("seen", "1/day").build().unwrap())
        .backend(MemoryBackend::new());
    let handlers = ErrorHandlers::new().handler(StatusCode::TOO_MANY_REQUESTS, |mut response| {
        let cause = response
            .response()
            .error()
            .map(ToString::to_string)
            .unwrap_or_default();
        let cause = cause.parse().unwrap();
        let name = actix_web::http::header::HeaderName::from_static("x-cause");
        response.response_mut().headers_mut().insert(name, cause);
        Ok(ErrorHandlerResponse::Response(
            response.map_into_left_body(),
        ))
    });
    let app = init_service(
        App::new()
            .wrap(limits)
            .wrap(handlers)
            .route("/", web::get().to(async || "hello")),
    )
    .await;

    assert!(send(&app, get("/")).await.is_ok());
    let denied = send(&app, get("/")).await;
    assert_eq!(
        denied.header("x-cause").as_deref(),
        Some("throttled by seen")
    );
}

#[actix_web::test]
async fn middlewares_nest_and_say_so() {
    let backend = ThrottleBackend::new(MemoryBackend::new());
    let outer = ThrottleMiddleware::new(throttle("outer", "9/day").build().unwrap());
    let inner = ThrottleMiddleware::new(throttle("inner", "3/day").build().unwrap());
    let app = init_service(
        App::new()
            .app_data(web::Data::new(backend))
            .wrap(outer)
            .service(web::resource("/").wrap(inner).to(async || "hello")),
    )
    .await;

    let answer = send(&app, get("/")).await;
    let limits = answer.header("ratelimit").unwrap();
    assert!(
        limits.contains(r#""inner";r=2"#) && limits.contains(r#""outer";r=8"#),
        "{limits}"
    );
}

#[actix_web::test]
async fn the_exempt_pass_without_a_trace() {
    let free = throttle("free", "1/day").identify(|_: &HttpRequest| Identity::EXEMPT);
    let limits = ThrottleMiddleware::new(free.build().unwrap()).backend(MemoryBackend::new());
    let app = app(limits).await;
    for _ in 0..3 {
        let answer = send(&app, get("/")).await;
        assert!(answer.is_ok());
        assert_eq!(answer.header("ratelimit"), None);
    }
}

/// Issue 9, F 23: a throttle alone could not be wrapped around anything.
#[actix_web::test]
async fn a_throttle_is_wrapped_around_a_resource_without_a_middleware() {
    let (_, backend) = memory();
    let throttle = throttle("alone", "1/day").backend(backend).build().unwrap();
    let app = App::new()
        .service(
            web::resource("/limited")
                .wrap(throttle.clone())
                .to(async || "limited"),
        )
        .route("/free", web::get().to(async || "free"));
    let app = init_service(app).await;
    let admitted = send(&app, get("/limited")).await;
    assert!(admitted.is_ok());
    assert_eq!(
        admitted.header("ratelimit").as_deref(),
        Some("\"alone\";r=0;t=86400")
    );
    assert!(send(&app, get("/limited")).await.is_throttled());
    assert!(send(&app, get("/free")).await.is_ok());
}

#[actix_web::test]
async fn namesakes_of_different_rates_are_refused_at_the_start() {
    let twice = |one: HttpThrottle, two: HttpThrottle| {
        let limits = ThrottleMiddleware::new(one);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| limits.rule(two)))
    };
    let api = |rate| throttle("api", rate).build().unwrap();
    let refused = twice(api("5/s"), api("9/day")).unwrap_err();
    let message = refused.downcast_ref::<String>().unwrap();
    assert!(
        message.contains("`api`") && message.contains("different names"),
        "{message}"
    );
    let dynamic = HttpThrottle::builder("api").rate_by(|_: &HttpRequest| Rate::per_day(9));
    let dynamic = dynamic.build().unwrap();
    assert!(twice(api("5/s"), dynamic.clone()).is_err());

    assert!(twice(dynamic.clone(), dynamic).is_ok(), "one throttle");
    assert!(twice(api("5/s"), api("5/s")).is_ok(), "one rate");
    let by_route = throttle("api", "9/day").scope(Scope::Route);
    assert!(twice(api("5/s"), by_route.build().unwrap()).is_ok());
}
