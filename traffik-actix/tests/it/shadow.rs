//! Limits that only say what they would do, over requests.

use actix_web::{HttpRequest, HttpResponse, get};
use traffik_actix::{MemoryBackend, Rule, ThrottleMiddleware};

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::test::TestRequest;

use crate::support::{Answer, app, memory, send, throttle};

async fn call<S, B>(app: &S, path: &str) -> Answer
where
    S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    send(app, TestRequest::with_uri(path)).await
}

#[actix_web::test]
async fn a_shadow_denied_a_request_or_told_clients_of_its_limit() {
    let (_, backend) = memory();
    let real = throttle("real", "4/day").build().unwrap();
    let trial = throttle("trial", "1/day").shadow().build().unwrap();
    let told = throttle("told", "2/day").shadow().shadow_header();
    let told = told.build().unwrap();
    let limits = ThrottleMiddleware::new(real)
        .rule(trial.clone())
        .rule(told.clone())
        .backend(backend);
    let app = app(limits).await;
    let mut said = Vec::new();
    for _ in 0..4 {
        let answer = call(&app, "/").await;
        assert!(answer.is_ok());
        assert_eq!(
            answer.header("ratelimit-policy").unwrap(),
            r#""real";q=4;w=86400"#
        );
        said.push(answer.header("ratelimit-shadow").unwrap());
    }
    assert_eq!(
        said[..2],
        [r#""told";would=allow;r=1"#, r#""told";would=allow;r=0"#]
    );
    assert!(said[2].starts_with(r#""told";would=deny;t="#), "{said:?}");
    let denied = call(&app, "/").await;
    assert!(denied.is_throttled());
    assert!(denied.body.contains(r#""violated-policies":["real"]"#));
    assert!(!denied.header("ratelimit").unwrap().contains("trial"));
    assert_eq!(
        trial.shadow_report().to_string(),
        "of 5 hits, 3 newly denied, 0 newly admitted"
    );
    // Promoted while requests pass.
    trial.set_shadow(false);
    let denied = call(&app, "/").await;
    assert!(
        denied
            .body
            .contains(r#""violated-policies":["real","trial"]"#),
        "{}",
        denied.body
    );
}

#[actix_web::test]
async fn a_function_of_a_shadow_failed_and_the_request_was_refused() {
    let nobody = |_: &HttpRequest| Err::<traffik_actix::Identity, _>("no key");
    for beside in [false, true] {
        let trial = throttle("trial", "1/day").identify(nobody).shadow();
        let trial = trial.build().unwrap();
        let mut limits = ThrottleMiddleware::new(trial).backend(MemoryBackend::new());
        if beside {
            limits = limits.rule(throttle("real", "1/day").build().unwrap());
        }
        assert!(call(&app(limits).await, "/").await.is_ok());
    }
}

#[actix_web::test]
async fn a_rule_is_tried_and_then_in_force() {
    let writes = throttle("writes", "1/day").build().unwrap();
    let rule = Rule::new(writes.clone()).path("/").unwrap().shadow();
    let app = app(ThrottleMiddleware::new(rule).backend(MemoryBackend::new())).await;
    for _ in 0..3 {
        let answer = call(&app, "/").await;
        assert!(answer.is_ok() && answer.header("ratelimit").is_none());
    }
    writes.set_shadow(false);
    assert!(call(&app, "/").await.is_throttled());
}

#[get("/")]
#[traffik_actix::throttle("1/day", shadow = true, shadow_header = true, backend = MemoryBackend::new())]
async fn tried() -> HttpResponse {
    HttpResponse::Ok().finish()
}

#[actix_web::test]
async fn an_attribute_is_tried() {
    let app = actix_web::test::init_service(actix_web::App::new().service(tried)).await;
    for would in ["allow", "deny"] {
        let answer = call(&app, "/").await;
        let said = answer.header("ratelimit-shadow").unwrap();
        assert!(
            answer.is_ok() && said.contains(&format!("would={would}")),
            "{said}"
        );
    }
}

#[actix_web::test]
async fn a_change_ended_a_shadow_or_began_it_again() {
    let limits = traffik_actix::Limits::new();
    let (_, backend) = memory();
    let builder = || throttle("api", "1/day").backend(backend.clone()).shadow();
    let api = limits.add(builder()).unwrap();
    api.set_shadow(false);
    limits.update("api", |now| now.rate("2/day")).unwrap();
    assert!(!api.is_shadow(), "promoted before");
    limits.update("api", |now| now.shadow()).unwrap();
    assert!(!api.is_shadow(), "built as it was");
    api.set_shadow(true);
    assert!(api.is_shadow());
}
