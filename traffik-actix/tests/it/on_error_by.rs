//! Error handlers that look at the request.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use actix_web::dev::Service;
use actix_web::http::StatusCode;
use actix_web::rt::task::yield_now;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpMessage, HttpRequest, web};
use traffik_actix::{
    Decision, Error, Failed, HttpThrottle, Identity, OnError, Rule, ThrottleBackend,
    ThrottleMiddleware, ThrottleRule, Throttled,
};

use crate::store::Store;
use crate::support::{app, get, memory, send, throttle};

/// What an earlier middleware found out.
#[derive(Debug)]
struct Plan(&'static str);

/// Whoever pays passes, whoever asks for a health check too; others come back later, at the pace of
/// their limit.
async fn when_in_doubt(failed: &Failed<'_>) -> Result<Decision, Error> {
    yield_now().await;
    let req = failed.request;
    let pays = req
        .extensions()
        .get::<Plan>()
        .is_some_and(|plan| plan.0 == "paid");
    if pays || req.path() == "/admin/users" || req.headers().contains_key("x-probe") {
        return Ok(failed.allow());
    }
    match req.query_string() {
        "raise" => Err(failed.error.clone()),
        _ => Ok(failed.deny_for(Duration::from_secs(7))),
    }
}

#[actix_web::test]
async fn a_middleware_lets_its_handler_look_at_the_request() {
    let of_the_throttle = (
        throttle("api", "9/day").on_error_by(when_in_doubt),
        ThrottleBackend::new(Store::down()).on_error(OnError::Raise),
    );
    let of_the_backend = (
        throttle("api", "9/day"),
        ThrottleBackend::new(Store::down()).on_error_by(when_in_doubt),
    );
    for (throttle, backend) in [of_the_throttle, of_the_backend] {
        let limits = ThrottleMiddleware::new(throttle.build().unwrap()).backend(backend);
        let plain = app(limits.clone()).await;
        let denied = send(&plain, get("/")).await;
        assert!(denied.is_throttled());
        assert_eq!(denied.header("retry-after").as_deref(), Some("7"));
        assert!(send(&plain, get("/admin/users")).await.is_ok());
        assert!(
            send(&plain, get("/").insert_header(("x-probe", "1")))
                .await
                .is_ok()
        );
        let raised = send(&plain, get("/?raise")).await;
        assert_eq!(raised.status, StatusCode::SERVICE_UNAVAILABLE);

        let paying = App::new()
            .wrap(limits)
            .wrap_fn(|req, service| {
                req.extensions_mut().insert(Plan("paid"));
                service.call(req)
            })
            .route("/", web::get().to(async || "hello"));
        assert!(send(&init_service(paying).await, get("/")).await.is_ok());
    }
}

struct Api;

impl ThrottleRule for Api {
    fn throttle() -> &'static HttpThrottle {
        static API: LazyLock<HttpThrottle> = LazyLock::new(|| {
            let api = throttle("api", "9/day").on_error_by(when_in_doubt);
            api.backend(Store::down()).build().unwrap()
        });
        &API
    }
}

#[actix_web::test]
async fn an_extractor_does_too() {
    let handler = async |_: Throttled<Api>| "hello";
    let app = App::new()
        .route("/", web::get().to(handler))
        .route("/admin/users", web::get().to(handler));
    let app = init_service(app).await;
    let denied = send(&app, get("/")).await;
    assert_eq!(denied.header("retry-after").as_deref(), Some("7"));
    assert!(send(&app, get("/admin/users")).await.is_ok());
    assert_eq!(send(&app, get("/?raise")).await.status, 503);
}

#[actix_web::test]
async fn a_handler_is_told_everything_about_the_hit() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let told = async move |failed: &Failed<'_>| {
        let note = format!(
            "{} {} {:?} of {} from {}: {}",
            failed.throttle.name(),
            failed.rate,
            failed.scope,
            failed.cost,
            failed.identity == &Identity::of("ann"),
            failed.error,
        );
        log.lock().unwrap().push(note);
        Ok(failed.allow())
    };
    let api = throttle("api", "9/day")
        .identify(|_: &HttpRequest| Identity::of("ann"))
        .cost(3)
        .on_error_by(told)
        .backend(Store::down())
        .build()
        .unwrap();
    let req = TestRequest::default().to_http_request();
    assert!(api.hit(&req).await.unwrap().is_degraded());
    assert!(api.hit_at(&req, 2).await.unwrap().is_allowed());
    assert_eq!(
        *seen.lock().unwrap(),
        [3, 2].map(|cost| format!(
            "api 9/day None of {cost} from true: the store refused the connection"
        ))
    );
}

/// One throttle asks its handler, the other does not; and what failed is not what is charged.
#[actix_web::test]
async fn only_those_are_asked_whose_backend_failed() {
    let (_, working) = memory();
    let denied = async |_: &Failed<'_>| -> Result<Decision, Error> {
        panic!("its backend works");
    };
    let all = throttle("all", "2/day").on_error_by(denied);
    let all = all.backend(working).build().unwrap();
    let remote = throttle("remote", "9/day").on_error_by(when_in_doubt);
    let remote = remote.backend(Store::down()).build().unwrap();
    let app = app(ThrottleMiddleware::new(all).rule(Rule::new(remote))).await;
    for _ in 0..3 {
        assert_eq!(
            send(&app, get("/")).await.header("retry-after").as_deref(),
            Some("7")
        );
    }
    for left in [1, 0] {
        let admitted = send(&app, get("/admin/users")).await;
        assert!(admitted.is_ok());
        let header = admitted.header("ratelimit").unwrap();
        assert!(header.contains(&format!("\"all\";r={left}")), "{header}");
    }
    assert!(send(&app, get("/admin/users")).await.is_throttled());
}

/// The policy that is set last counts.
#[actix_web::test]
async fn a_function_replaces_a_policy_and_the_other_way_round() {
    let api = || throttle("api", "9/day");
    let cases = [
        (
            api().on_error(OnError::Raise).on_error_by(when_in_doubt),
            429,
        ),
        (
            api().on_error_by(when_in_doubt).on_error(OnError::Raise),
            503,
        ),
    ];
    for (builder, status) in cases {
        let limits = ThrottleMiddleware::new(builder.build().unwrap());
        let app = app(limits.backend(Store::down())).await;
        assert_eq!(send(&app, get("/")).await.status, status);
    }
}
