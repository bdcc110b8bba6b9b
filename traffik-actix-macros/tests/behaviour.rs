//! What throttled handlers do: requests in, responses out.

#[path = "behaviour/in_flight.rs"]
mod in_flight;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use actix_http::Request;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, Service, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::test::{self, TestRequest};
use actix_web::{App, HttpRequest, HttpResponse, Responder, get, web};
use tokio::time::Instant;
use traffik_actix::{
    Backend, BackendExt, CircuitBreaker, Clock, Decision, Denial, Error, Failed, Identity,
    ManualClock, MemoryBackend, Rate, ThrottleBackend, Timestamp, throttle,
};

/// Counts on a clock that stands still unless a test moves it.
struct Memory {
    clock: ManualClock,
    backend: MemoryBackend,
}

impl Memory {
    fn new() -> Memory {
        let clock = ManualClock::default();
        let backend = MemoryBackend::builder().clock(clock.clone()).build();
        Memory {
            clock,
            backend: backend.expect("the defaults are valid"),
        }
    }

    fn backend(&self) -> MemoryBackend {
        self.backend.clone()
    }
}

static FROZEN: LazyLock<Memory> = LazyLock::new(Memory::new);

/// What a test looks at in a response.
struct Answer {
    status: StatusCode,
    retry_after: Option<String>,
    rate_limit: Option<String>,
    body: String,
}

impl Answer {
    fn is_ok(&self) -> bool {
        self.status == StatusCode::OK
    }

    fn is_denied(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
    }
}

async fn ask<B: MessageBody>(
    app: &impl Service<Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
    request: TestRequest,
) -> Answer {
    answer(test::call_service(app, request.to_request()).await).await
}

async fn answer<B: MessageBody>(response: ServiceResponse<B>) -> Answer {
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        Some(value.to_str().expect("ours are text").to_owned())
    };
    Answer {
        status: response.status(),
        retry_after: header("retry-after"),
        rate_limit: header("ratelimit"),
        body: String::from_utf8_lossy(&test::read_body(response).await).into_owned(),
    }
}

fn get(uri: &str) -> TestRequest {
    TestRequest::get().uri(uri)
}

fn post(uri: &str, json: &'static str) -> TestRequest {
    TestRequest::post()
        .uri(uri)
        .insert_header(("content-type", "application/json"))
        .set_payload(json)
}

#[throttle("2/day", backend = FROZEN.backend())]
async fn sum(numbers: web::Json<Vec<u32>>) -> String {
    numbers.iter().sum::<u32>().to_string()
}

#[actix_web::test]
async fn a_malformed_body_of_a_denied_request_is_429_and_not_400() {
    let app = test::init_service(
        App::new()
            .app_data(web::JsonConfig::default().limit(64))
            .route("/sum", web::post().to(sum)),
    )
    .await;
    let admitted = ask(&app, post("/sum", "[1,2]")).await;
    assert!(admitted.is_ok());
    assert_eq!(admitted.body, "3");
    let malformed = ask(&app, post("/sum", "[1,")).await;
    assert_eq!(malformed.status, StatusCode::BAD_REQUEST);

    let huge = " ".repeat(1_000_000);
    assert!(ask(&app, post("/sum", "[1,2]")).await.is_denied());
    assert!(ask(&app, post("/sum", "[1,")).await.is_denied());
    let huge = post("/sum", "").set_payload(huge);
    assert!(ask(&app, huge).await.is_denied());
}

/// Waits once before it answers, as a look-up in a session store would.
async fn slow_identity(_req: &HttpRequest) -> Identity {
    let mut has_waited = false;
    std::future::poll_fn(|context| match std::mem::replace(&mut has_waited, true) {
        true => Poll::Ready(Identity::ANONYMOUS),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

#[throttle("1/day", identify_async = slow_identity, backend = FROZEN.backend())]
async fn store(body: web::Bytes) -> String {
    body.len().to_string()
}

/// As an extractor beside the body the throttle would let it be read while it waits itself.
#[actix_web::test]
async fn the_body_of_a_denied_request_is_not_even_polled() {
    static IS_POLLED: AtomicBool = AtomicBool::new(false);
    let app = test::init_service(App::new().route("/", web::post().to(store))).await;
    let request = || {
        let body = futures_util::stream::poll_fn(|_| {
            IS_POLLED.store(true, Ordering::Relaxed);
            Poll::Ready(None)
        });
        let body: Payload = Payload::Stream {
            payload: Box::pin(body),
        };
        TestRequest::post().to_request().replace_payload(body).0
    };
    let admitted = answer(test::call_service(&app, request()).await).await;
    assert!(admitted.is_ok());
    assert!(IS_POLLED.swap(false, Ordering::Relaxed));

    let denied = answer(test::call_service(&app, request()).await).await;
    assert!(denied.is_denied());
    assert!(!IS_POLLED.load(Ordering::Relaxed));
}

static STACKED: LazyLock<Memory> = LazyLock::new(Memory::new);

#[throttle("3/day", backend = STACKED.backend())]
#[get("/stacked")]
#[throttle("1/minute", backend = STACKED.backend())]
async fn stacked() -> impl Responder {
    "stacked"
}

#[actix_web::test]
async fn a_batch_charges_nothing_when_one_of_its_limits_denies() {
    let app = test::init_service(App::new().service(stacked)).await;
    for _ in 0..3 {
        assert!(ask(&app, get("/stacked")).await.is_ok());
        // Were these charged to the day, it would be over before three are admitted.
        for _ in 0..5 {
            let denied = ask(&app, get("/stacked")).await;
            assert!(denied.is_denied());
            assert!(denied.body.contains(r#""behaviour::stacked#2""#));
        }
        STACKED.clock.advance(Duration::from_secs(60));
    }
    let denied = ask(&app, get("/stacked")).await;
    assert!(denied.is_denied());
    assert!(denied.body.contains(r#"["behaviour::stacked"]"#));
}

static EXACT: LazyLock<Memory> = LazyLock::new(Memory::new);

#[get("/exact")]
#[throttle("1/minute", backend = EXACT.backend())]
async fn exact() -> impl Responder {
    "exact"
}

#[actix_web::test]
async fn who_waits_for_retry_after_is_admitted_and_not_a_microsecond_earlier() {
    let app = test::init_service(App::new().service(exact)).await;
    let admitted = ask(&app, get("/exact")).await;
    assert!(admitted.is_ok());
    assert_eq!(admitted.retry_after, None);
    assert!(admitted.rate_limit.unwrap().contains("behaviour::exact"));

    let denied = ask(&app, get("/exact")).await;
    assert!(denied.is_denied());
    assert_eq!(denied.retry_after.as_deref(), Some("60"));
    EXACT.clock.advance_micros(59_999_999);
    assert!(ask(&app, get("/exact")).await.is_denied());
    EXACT.clock.advance_micros(1);
    assert!(ask(&app, get("/exact")).await.is_ok());
}

mod v1 {
    use super::{FROZEN, Responder, get, throttle, web};

    #[throttle("1/day", backend = FROZEN.backend())]
    #[get("/above/{id}")]
    pub(super) async fn item(id: web::Path<u32>) -> impl Responder {
        id.to_string()
    }
}

mod v2 {
    use super::{FROZEN, Responder, get, throttle, web};

    #[get("/below/{id}")]
    #[throttle("1/day", backend = FROZEN.backend())]
    pub(super) async fn item(id: web::Path<u32>) -> impl Responder {
        id.to_string()
    }
}

#[actix_web::test]
async fn each_handler_has_a_count_of_its_own_whatever_the_path() {
    let app = test::init_service(App::new().service(v1::item).service(v2::item)).await;
    for uri in ["/above/1", "/below/1"] {
        assert!(ask(&app, get(uri)).await.is_ok(), "{uri}");
    }
    for uri in ["/above/2", "/below/2", "/above/not-a-number"] {
        assert!(ask(&app, get(uri)).await.is_denied(), "{uri}");
    }
}

trait Greeting: 'static {
    const TEXT: &'static str;
}

struct Hello;
struct Bye;

impl Greeting for Hello {
    const TEXT: &'static str = "hello";
}

impl Greeting for Bye {
    const TEXT: &'static str = "bye";
}

#[throttle("2/day", backend = FROZEN.backend())]
async fn greet<G: Greeting>() -> &'static str {
    G::TEXT
}

#[actix_web::test]
async fn a_generic_handler_has_one_limit_for_all_its_types() {
    let app = test::init_service(
        App::new()
            .route("/hello", web::get().to(greet::<Hello>))
            .route("/bye", web::get().to(greet::<Bye>)),
    )
    .await;
    assert_eq!(ask(&app, get("/hello")).await.body, "hello");
    assert_eq!(ask(&app, get("/bye")).await.body, "bye");
    assert!(ask(&app, get("/hello")).await.is_denied());
    assert!(ask(&app, get("/bye")).await.is_denied());
}

fn client(req: &HttpRequest) -> Result<Identity, &'static str> {
    let client = req.headers().get("client").ok_or("no client")?;
    Ok(Identity::of(client.to_str().map_err(|_| "not a text")?))
}

fn teapot(denial: &Denial<'_>) -> HttpResponse {
    HttpResponse::ImATeapot().body(format!("{:?}", denial.retry_after()))
}

#[throttle(
    rate_by = |req| match req.headers().contains_key("premium") {
        true => Rate::per_minute(10),
        false => Rate::per_minute(5),
    },
    strategy = "gcra",
    burst_tolerance = "1m",
    strict = true,
    cost_by = |req| u32::try_from(req.query_string().len()),
    identify = client,
    scope = "path",
    min_wait = "90s",
    on_error = "raise",
    on_denied = teapot,
    headers = "never",
    backend = FROZEN.backend()
)]
async fn configured() -> &'static str {
    "configured"
}

async fn admit_probes(failed: &Failed<'_>) -> Result<Decision, Error> {
    actix_web::rt::task::yield_now().await;
    match failed.request.headers().contains_key("probe") {
        true => Ok(failed.allow()),
        false => Ok(failed.deny_for(Duration::from_secs(7))),
    }
}

#[throttle(
    "5/minute",
    identify = |_| Err::<Identity, _>("no session"),
    on_error_by = admit_probes
)]
async fn doubtful() -> &'static str {
    "served"
}

#[actix_web::test]
async fn an_error_handler_looks_at_the_request() {
    let app = test::init_service(App::new().route("/", web::get().to(doubtful))).await;
    assert_eq!(ask(&app, get("/")).await.status, 429);
    assert!(
        ask(&app, get("/").insert_header(("probe", "1")))
            .await
            .is_ok()
    );
}

#[actix_web::test]
async fn arguments_arrive_at_the_throttle() {
    let app = test::init_service(
        App::new()
            .route("/one", web::get().to(configured))
            .route("/two", web::get().to(configured)),
    )
    .await;
    let by = |client, uri| get(uri).insert_header(("client", client));

    // A bucket of one minute and one interval: six at five per minute.
    let admitted = ask(&app, by("ann", "/one?234")).await;
    assert!(admitted.is_ok());
    assert_eq!(admitted.rate_limit, None);
    let denied = ask(&app, by("ann", "/one?2345")).await;
    assert_eq!(denied.status, StatusCode::IM_A_TEAPOT);
    assert_eq!(denied.body, "Some(90s)");
    assert!(ask(&app, by("ann", "/one?23")).await.is_ok());
    assert!(ask(&app, by("ann", "/one?2")).await.is_ok());
    assert!(!ask(&app, by("ann", "/one?2")).await.is_ok());

    assert!(ask(&app, by("ann", "/two?234567")).await.is_ok());
    assert!(ask(&app, by("bob", "/one?234567")).await.is_ok());
    let premium = by("cid", "/one?23456789012").insert_header(("premium", "1"));
    assert!(ask(&app, premium).await.is_ok());

    let nobody = ask(&app, get("/one?2")).await;
    assert_eq!(nobody.status, StatusCode::BAD_REQUEST);
}

/// A backend that is not even asked.
fn down() -> impl Backend {
    let breaker = CircuitBreaker::new();
    breaker.force_open();
    MemoryBackend::new().guarded(breaker)
}

#[throttle("1/day", on_error = "raise", backend = down())]
async fn raising() -> &'static str {
    "unreachable"
}

#[throttle("1/day", on_error = "allow", backend = down())]
async fn allowing() -> &'static str {
    "allowed"
}

#[actix_web::test]
async fn a_policy_arrives_at_the_throttle() {
    let app = App::new()
        .route("/raising", web::get().to(raising))
        .route("/allowing", web::get().to(allowing));
    let app = test::init_service(app).await;
    assert_eq!(ask(&app, get("/raising")).await.status, 503);
    assert!(ask(&app, get("/allowing")).await.is_ok());
}

/// Tells tokio's time, which stands still in a test until everybody waits for it.
#[derive(Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX);
        Timestamp::EPOCH.plus_micros(elapsed)
    }
}

fn tokio_memory() -> MemoryBackend {
    let builder = MemoryBackend::builder().clock(TokioClock(Instant::now()));
    builder.build().expect("the defaults are valid")
}

#[throttle("1/minute", strategy = "gcra", wait_up_to = "1m", max_waiters = 1, backend = tokio_memory())]
async fn patient() -> &'static str {
    "patient"
}

#[actix_web::test]
async fn a_request_waits_for_its_turn_if_there_is_a_place() {
    tokio::time::pause();
    let app = test::init_service(App::new().route("/", web::get().to(patient))).await;
    let start = Instant::now();
    let asked = (0..3).map(|_| async {
        let answer = ask(&app, get("/")).await;
        (answer.status.as_u16(), start.elapsed().as_secs())
    });
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers, [(200, 0), (200, 60), (429, 0)]);
}

#[get("/shared")]
#[throttle("1/day")]
async fn shared() -> impl Responder {
    "shared"
}

#[actix_web::test]
async fn the_backend_of_the_application_is_used_when_none_is_given() {
    let memories = [Memory::new(), Memory::new()];
    for memory in &memories {
        let backend = ThrottleBackend::new(memory.backend());
        let app =
            test::init_service(App::new().app_data(web::Data::new(backend)).service(shared)).await;
        assert!(ask(&app, get("/shared")).await.is_ok());
        assert!(ask(&app, get("/shared")).await.is_denied());
        assert_eq!(memory.backend.len(), 1);
    }
}

const NO_RATE: &str = "often";

#[throttle(rate = NO_RATE)]
async fn unbuildable() -> &'static str {
    "unreachable"
}

#[actix_web::test]
async fn what_the_compiler_could_not_check_is_never_served_unlimited() {
    let app = test::init_service(App::new().route("/", web::get().to(unbuildable))).await;
    for _ in 0..2 {
        let refused = ask(&app, get("/")).await;
        assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!refused.body.contains("often"));
    }
}

#[throttle("1000/day", backend = FROZEN.backend())]
async fn stays() -> Result<HttpResponse<BoxBody>, actix_web::Error> {
    Err(actix_web::error::ErrorConflict("taken"))
}

#[actix_web::test]
async fn errors_of_the_handler_are_answered_as_without_the_throttle() {
    let app = test::init_service(App::new().route("/", web::get().to(stays))).await;
    let failed = ask(&app, get("/")).await;
    assert_eq!(failed.status, StatusCode::CONFLICT);
    assert_eq!(failed.body, "taken");
    assert!(failed.rate_limit.is_some());
}
