//! How many at a time, as the middleware does it.

use std::pin::Pin;
use std::task::{Context, Waker};

use actix_web::web::Bytes;
use futures_util::stream;
use tokio::sync::Semaphore;
use traffik_actix::BusyDenial;

use super::{
    App, Denial, FROZEN, HttpRequest, HttpResponse, Identity, MessageBody, Payload, Request,
    Service, ServiceResponse, StatusCode, answer, ask, client, get, post, test, throttle, web,
};

/// Where a handler waits until it is let on.
static GATE: Semaphore = Semaphore::const_new(0);

type Calling<'a, B> =
    Pin<Box<dyn Future<Output = Result<ServiceResponse<B>, actix_web::Error>> + 'a>>;

fn call<'a, S, B>(app: &'a S, uri: &str, client: &'static str) -> Calling<'a, B>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
    S::Future: 'a,
{
    let request = get(uri).insert_header(("client", client)).to_request();
    Box::pin(app.call(request))
}

fn is_pending<B>(calling: &mut Calling<'_, B>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    calling.as_mut().poll(&mut context).is_pending()
}

async fn status<B: MessageBody>(calling: Calling<'_, B>) -> u16 {
    answer(calling.await.expect("a response"))
        .await
        .status
        .as_u16()
}

#[throttle(in_flight = 2, identify = client)]
async fn held() -> &'static str {
    GATE.acquire().await.expect("never closed").forget();
    "done"
}

#[actix_web::test]
async fn so_many_requests_of_each_client_are_in_flight_however_they_end() {
    let app = test::init_service(App::new().route("/", web::get().to(held))).await;
    let mut first = call(&app, "/", "ann");
    let mut second = call(&app, "/", "ann");
    let mut other = call(&app, "/", "ben");
    for one in [&mut first, &mut second, &mut other] {
        assert!(is_pending(one));
    }
    let denied = answer(call(&app, "/", "ann").await.unwrap()).await;
    assert!(denied.is_denied());
    assert_eq!(denied.retry_after.as_deref(), Some("1"));
    assert_eq!(
        denied.rate_limit.as_deref(),
        Some(r#""behaviour::in_flight::held";r=0;t=1"#)
    );
    // One that goes away, one that is answered.
    drop(second);
    let mut third = call(&app, "/", "ann");
    assert!(is_pending(&mut third));
    for one in [first, other] {
        GATE.add_permits(1);
        assert_eq!(status(one).await, 200);
    }
    let mut fourth = call(&app, "/", "ann");
    assert!(is_pending(&mut fourth));
    assert_eq!(status(call(&app, "/", "ann")).await, 429);
}

#[throttle(in_flight = 1, identify = client)]
async fn streamed() -> HttpResponse {
    let chunks = ["one", "two"].map(|text| Ok::<_, actix_web::Error>(Bytes::from(text)));
    HttpResponse::Ok().streaming(stream::iter(chunks))
}

#[actix_web::test]
async fn a_streamed_response_is_in_flight_until_its_body_ends_or_is_dropped() {
    let app = test::init_service(App::new().route("/", web::get().to(streamed))).await;
    for is_read in [true, false] {
        let response = call(&app, "/", "ann").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(status(call(&app, "/", "ann")).await, 429);
        let mut body = Box::pin(response.into_body());
        if is_read {
            for _ in 0..2 {
                let next = std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await;
                assert!(next.unwrap().is_ok());
                assert_eq!(status(call(&app, "/", "ann")).await, 429);
            }
            let end = std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await;
            assert!(end.is_none());
            assert_eq!(status(call(&app, "/", "ann")).await, 200);
        }
        drop(body);
        assert_eq!(status(call(&app, "/", "ann")).await, 200);
    }
}

/// Stays until it is dropped.
#[throttle("3/day", strategy = "token_bucket", in_flight = 1, identify = client)]
async fn both() -> &'static str {
    std::future::pending().await
}

#[actix_web::test]
async fn what_is_denied_for_what_is_in_flight_is_not_charged_and_the_other_way_round() {
    let app = test::init_service(App::new().route("/", web::get().to(both))).await;
    for _ in 0..3 {
        let mut one = call(&app, "/", "ann");
        assert!(is_pending(&mut one));
        for _ in 0..5 {
            let denied = answer(call(&app, "/", "ann").await.unwrap()).await;
            assert!(denied.is_denied());
            assert!(
                denied
                    .body
                    .contains(r#""behaviour::in_flight::both#in_flight""#)
            );
        }
    }
    // Nothing is in flight, but the day is over.
    for _ in 0..2 {
        let denied = answer(call(&app, "/", "ann").await.unwrap()).await;
        assert!(denied.body.contains(r#"["behaviour::in_flight::both"]"#));
        let told = denied.rate_limit.unwrap();
        assert!(
            told.contains(r#""behaviour::in_flight::both";r=0"#),
            "{told}"
        );
    }
}

async fn client_later(req: &HttpRequest) -> Result<Identity, &'static str> {
    client(req)
}

async fn forever(_: &Denial<'_>) -> HttpResponse {
    std::future::pending().await
}

#[throttle("1/day", identify = client, backend = FROZEN.backend())]
#[throttle(in_flight = 1, shared = true)]
async fn denied_at_once() -> &'static str {
    "done"
}

#[throttle("1/day", identify_async = client_later, backend = FROZEN.backend())]
#[throttle(in_flight = 1, shared = true)]
async fn denied_later() -> &'static str {
    "done"
}

#[throttle("1/day", identify = client, on_denied_async = forever, backend = FROZEN.backend())]
#[throttle(in_flight = 1, shared = true)]
async fn answered_later() -> &'static str {
    "done"
}

/// Whoever was over a rate kept a place for as long as the rest of its body, which never came, was waited for.
#[actix_web::test]
async fn a_request_that_a_rate_denied_was_still_in_flight() {
    let app = App::new()
        .route("/at-once", web::post().to(denied_at_once))
        .route("/later", web::post().to(denied_later))
        .route("/answer", web::post().to(answered_later));
    let app = test::init_service(app).await;
    for uri in ["/at-once", "/later", "/answer"] {
        let posted = |client: &'static str, body: Payload| {
            let request = post(uri, "").insert_header(("client", client));
            let request = request.insert_header(("content-length", 5)).to_request();
            app.call(request.replace_payload(body).0)
        };
        let first = posted("ann", Payload::None).await.unwrap();
        assert_eq!(first.status(), StatusCode::OK, "{uri}");
        drop(first);
        let body = Box::pin(stream::pending());
        let mut denied: Calling<'_, _> = Box::pin(posted("ann", Payload::Stream { payload: body }));
        assert!(is_pending(&mut denied), "{uri}");
        let other = posted("ben", Payload::None).await.unwrap();
        assert_eq!(other.status(), StatusCode::OK, "{uri}");
    }
}

fn full(denial: &BusyDenial<'_>) -> HttpResponse {
    HttpResponse::ImATeapot().body(denial.limit.name().to_owned())
}

#[throttle(in_flight = 1, identify = client)]
#[throttle(
    in_flight = 2,
    shared = true,
    name = "all",
    retry_after = "7s",
    headers = "never"
)]
#[throttle(in_flight = 1, name = "own", identify = |_| Identity::EXEMPT, on_denied = full)]
async fn several() -> &'static str {
    std::future::pending().await
}

#[actix_web::test]
async fn several_limits_hold_and_each_says_what_it_denies() {
    let app = test::init_service(App::new().route("/", web::get().to(several))).await;
    let mut ann = call(&app, "/", "ann");
    let mut ben = call(&app, "/", "ben");
    assert!(is_pending(&mut ann));
    assert!(is_pending(&mut ben));
    assert_eq!(status(call(&app, "/", "ann")).await, 429);
    let denied = answer(call(&app, "/", "cid").await.unwrap()).await;
    assert_eq!(denied.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(denied.retry_after.as_deref(), Some("7"));
    assert_eq!(denied.rate_limit, None);
    // What the first limit let in of Cid's was let go when the second denied.
    drop(ann);
    let mut cid = call(&app, "/", "cid");
    assert!(is_pending(&mut cid));
}

#[throttle(in_flight = MOST, on_denied = full, name = "busy".to_owned())]
async fn answered() -> &'static str {
    std::future::pending().await
}

const MOST: u32 = 1;

#[actix_web::test]
async fn a_denial_is_answered_by_the_function_for_it() {
    let app = test::init_service(App::new().route("/", web::get().to(answered))).await;
    let mut one = call(&app, "/", "ann");
    assert!(is_pending(&mut one));
    let denied = ask(&app, get("/")).await;
    assert_eq!(denied.status, StatusCode::IM_A_TEAPOT);
    assert_eq!(denied.body, "busy");
}

static TURNS: Semaphore = Semaphore::const_new(0);

#[throttle(in_flight = 1, identify = client, wait_up_to = "1h", max_waiters = 8, max_waiters_per_client = 2)]
async fn in_turn() -> &'static str {
    TURNS.acquire().await.expect("never closed").forget();
    "done"
}

#[actix_web::test]
async fn requests_wait_in_order_and_places_are_bounded() {
    let app = test::init_service(App::new().route("/", web::get().to(in_turn))).await;
    let mut calls: Vec<_> = (0..3).map(|_| call(&app, "/", "ann")).collect();
    for one in &mut calls {
        assert!(is_pending(one));
    }
    assert_eq!(status(call(&app, "/", "ann")).await, 429);
    for _ in 0..3 {
        TURNS.add_permits(1);
        assert_eq!(status(calls.remove(0)).await, 200);
        for one in &mut calls {
            assert!(is_pending(one));
        }
        assert_eq!(TURNS.available_permits(), 0);
    }
}

const NONE: u32 = 0;

#[throttle(in_flight = NONE)]
async fn unbuildable() -> &'static str {
    "unreachable"
}

#[throttle("1/day", in_flight = 1)]
async fn reads(body: web::Bytes) -> String {
    body.len().to_string()
}

#[actix_web::test]
async fn what_the_compiler_could_not_check_is_never_served_unlimited() {
    let app = App::new()
        .route("/", web::get().to(unbuildable))
        .route("/reads", web::post().to(reads));
    let app = test::init_service(app).await;
    let refused = ask(&app, get("/")).await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    let read = ask(&app, post("/reads", "[1,2]")).await;
    assert_eq!((read.status, &*read.body), (StatusCode::OK, "5"));
}
