//! Costs that are known when the response is: settled once, whatever became of the request.

use std::task::Poll;
use std::time::Duration;

use actix_web::body::BodyStream;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::error::{ErrorBadGateway, InternalError};
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::test::{TestRequest, init_service};
use actix_web::web::{self, Bytes};
use actix_web::{App, Error, HttpMessage, HttpRequest, HttpResponse};
use futures_util::stream;
use traffik_actix::{Flow, HttpThrottle, Identity, OnDrop, Rule, ThrottleMiddleware};

use crate::store::Store;
use crate::support::{Answer, get, memory, send, throttle};

const ANN: Identity = Identity::ANONYMOUS;

/// Gives tasks the time that they need.
async fn settled() {
    for _ in 0..3 {
        actix_web::rt::task::yield_now().await;
    }
}

async fn left(throttle: &HttpThrottle) -> u64 {
    throttle.by(&ANN).stat().await.unwrap().remaining
}

/// The same on memory, which answers at once, and on a store that has to be waited for.
fn stores() -> [HttpThrottle; 2] {
    let (_, one) = memory();
    let (_, other) = memory();
    let build = |builder: traffik_actix::HttpThrottleBuilder| {
        let builder = builder.cost(10).identify(|_: &HttpRequest| ANN);
        builder.cost_after(cost).refund_if(is_free).build().unwrap()
    };
    [
        build(throttle("work", "1000/day").backend(one)),
        build(throttle("work", "1000/day").backend(Store::over(other, false))),
    ]
}

#[derive(Clone, Copy)]
struct Rows(u32);

fn is_free(answered: &traffik_actix::Answered<'_>) -> bool {
    answered.status().is_server_error()
}

/// What the handler says, else a unit for each byte.
fn cost(answered: &traffik_actix::Answered<'_>) -> u32 {
    match answered.extension() {
        Some(Rows(rows)) => rows,
        None => u32::try_from(answered.content_length().unwrap_or(7)).unwrap(),
    }
}

async fn in_request(req: HttpRequest) -> &'static str {
    req.extensions_mut().insert(Rows(3));
    "three rows"
}

async fn in_response() -> HttpResponse {
    let mut response = HttpResponse::Ok().body("twenty rows");
    response.extensions_mut().insert(Rows(20));
    response
}

async fn streamed(length: Option<usize>) -> HttpResponse {
    let chunks = stream::iter([Ok::<_, Error>(Bytes::from_static(b"chunk"))]);
    let mut response = HttpResponse::Ok();
    if let Some(length) = length {
        response.insert_header((CONTENT_LENGTH, length));
    }
    response.body(BodyStream::new(chunks))
}

/// Routes, and what each costs.
const COSTS: [(&str, u64); 9] = [
    ("/request", 3),
    ("/response", 20),
    ("/bytes", 5),
    ("/nothing", 0),
    ("/stream", 7),
    ("/stream/5", 5),
    ("/down", 0),
    ("/failed", 0),
    ("/missing", 0),
];

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/request", web::get().to(in_request))
        .route("/response", web::get().to(in_response))
        .route("/bytes", web::get().to(async || "bytes"))
        .route("/nothing", web::get().to(HttpResponse::NoContent))
        .route("/stream", web::get().to(async || streamed(None).await))
        .route("/stream/5", web::get().to(async || streamed(Some(5)).await))
        .route("/down", web::get().to(HttpResponse::ServiceUnavailable))
        .route(
            "/failed",
            web::get().to(async || Err::<&str, _>(ErrorBadGateway("broken"))),
        )
        .route(
            "/never",
            web::get().to(async || std::future::pending::<&str>().await),
        );
}

#[actix_web::test]
async fn a_request_has_cost_what_its_response_says() {
    for throttle in stores() {
        let app = init_service(App::new().wrap(throttle.clone()).configure(routes)).await;
        for (path, cost) in COSTS {
            let before = left(&throttle).await;
            let answer = send(&app, get(path)).await;
            settled().await;
            // What a client is told is what was left with all estimates taken.
            let header = answer.header("ratelimit").unwrap();
            assert!(header.contains(&format!("r={};", before - 10)), "{header}");
            assert_eq!(before - left(&throttle).await, cost, "{path}");
        }
    }
}

/// An error of a middleware further in has no response yet: it is made for the function to look at.
#[actix_web::test]
async fn an_error_that_is_not_a_response_yet_is_looked_at() {
    for throttle in stores() {
        let app = App::new()
            .wrap_fn(|req, inner| {
                let response = inner.call(req);
                async {
                    drop(response.await?);
                    let answer = HttpResponse::BadRequest().body("four");
                    let error = InternalError::from_response("wrong", answer);
                    Err::<ServiceResponse, _>(error.into())
                }
            })
            .wrap(throttle.clone())
            .configure(routes);
        let app = init_service(app).await;
        let error = app.call(get("/bytes").to_request()).await.err().unwrap();
        // Some errors give their response only once.
        assert_eq!(error.error_response().status(), StatusCode::BAD_REQUEST);
        settled().await;
        assert_eq!(left(&throttle).await, 996);
    }
}

/// Nobody gains by going away, whenever.
#[actix_web::test]
async fn a_request_that_is_dropped_has_cost_its_estimate() {
    for throttle in stores() {
        let app = init_service(App::new().wrap(throttle.clone()).configure(routes)).await;
        let mut call = Box::pin(app.call(get("/never").to_request()));
        for _ in 0..5 {
            assert!(matches!(futures_util::poll!(&mut call), Poll::Pending));
            settled().await;
        }
        drop(call);
        settled().await;
        assert_eq!(left(&throttle).await, 990);
    }
}

/// One rule settles and another does not, and a denial charges neither.
#[actix_web::test]
async fn rules_settle_for_themselves() {
    let (_, backend) = memory();
    let logins = throttle("logins", "2/minute")
        .refund_if(|answered| answered.status().is_success())
        .build()
        .unwrap();
    let all = throttle("all", "1000/minute").build().unwrap();
    let limits = ThrottleMiddleware::new(all.clone())
        .rule(Rule::new(logins).path("/login$").unwrap())
        .backend(backend.clone());
    let login = async |req: HttpRequest| match req.query_string() {
        "right" => HttpResponse::Ok(),
        _ => HttpResponse::Unauthorized(),
    };
    let app = App::new()
        .wrap(limits)
        .route("/login", web::get().to(login));
    let app = init_service(app).await;
    let status = async |path: &str| send(&app, get(path)).await.status.as_u16();
    for _ in 0..20 {
        assert_eq!(status("/login?right").await, 200);
    }
    assert_eq!(status("/login?wrong").await, 401);
    assert_eq!(status("/login?right").await, 200);
    assert_eq!(status("/login?wrong").await, 401);
    // Who guesses does not learn whether it was right.
    assert_eq!(status("/login?right").await, 429);
    assert_eq!(status("/login?wrong").await, 429);
    let backend = traffik_actix::ThrottleBackend::from(backend);
    let stat = all.by(&ANN).on(&backend).stat().await.unwrap();
    assert_eq!(stat.remaining, 1000 - 23);
}

/// As many guesses at once as there are left are admitted: counting afterwards would let all pass.
#[actix_web::test]
async fn guesses_at_once_are_counted_before_they_are_answered() {
    let (_, backend) = memory();
    let logins = throttle("logins", "5/minute")
        .refund_if(|answered| answered.status().is_success())
        .backend(Store::over(backend, false))
        .build()
        .unwrap();
    let login = async || {
        actix_web::rt::time::sleep(Duration::from_millis(5)).await;
        HttpResponse::Unauthorized().finish()
    };
    let app = App::new().wrap(logins).route("/", web::get().to(login));
    let app = init_service(app).await;
    let guesses = (0..50).map(|_| send(&app, get("/")));
    let answers = futures_util::future::join_all(guesses).await;
    let count = |is: fn(&Answer) -> bool| answers.iter().filter(|one| is(one)).count();
    assert_eq!(count(|one| one.status == StatusCode::UNAUTHORIZED), 5);
    assert_eq!(count(Answer::is_throttled), 45);
}

#[actix_web::test]
async fn a_handler_reserves_and_settles() {
    for (settle, cost) in [("settle", 30), ("later", 30), ("refund", 0), ("drop", 100)] {
        let (_, backend) = memory();
        let build = |name: &str, rate: &str| {
            let builder = throttle(name, rate).identify(|_: &HttpRequest| ANN);
            builder
                .backend(Store::over(backend.clone(), false))
                .build()
                .unwrap()
        };
        let (minute, day) = (build("minute", "250/minute"), build("day", "1000/day"));
        let throttles = web::Data::new([minute.clone(), day.clone()]);
        let handler = move |req: HttpRequest, all: web::Data<[HttpThrottle; 2]>| async move {
            let asks = all.each_ref().map(|one| one.ask().cost(100));
            let permit = HttpThrottle::reserve_all(&req, asks).await?;
            match settle {
                "settle" => permit.settle(30).await.unwrap(),
                "later" => permit.settle_later(30),
                "refund" => permit.refund().await.unwrap(),
                _ => drop(permit),
            }
            Ok::<_, Error>("done")
        };
        let app = App::new()
            .app_data(throttles)
            .route("/", web::get().to(handler));
        let app = init_service(app).await;
        for n in 1..=2 {
            assert!(send(&app, get("/")).await.is_ok());
            settled().await;
            let both = (left(&minute).await, left(&day).await);
            assert_eq!(both, (250 - n * cost, 1000 - n * cost), "{settle}");
        }
        let third = send(&app, get("/")).await;
        match settle {
            "drop" => assert!(third.is_throttled() && left(&day).await == 800, "{third:?}"),
            _ => assert!(third.is_ok(), "{third:?}"),
        }
    }
}

/// A job has no request.
#[actix_web::test]
async fn a_job_reserves_by_somebody() {
    let (clock, backend) = memory();
    let tokens = throttle("tokens", "100/minute")
        .backend(backend)
        .build()
        .unwrap();
    let req = TestRequest::default().to_http_request();
    let ann = Identity::of("ann");
    let permit = tokens
        .ask()
        .by(ann.clone())
        .cost(60)
        .reserve(&req)
        .await
        .unwrap();
    let by = tokens.by(&ann).cost(60);
    assert!(by.reserve().await.unwrap().unwrap_err().is_denied());
    permit.settle(20).await.unwrap();
    let mut permit = by.reserve().await.unwrap().unwrap().ahead(0);
    permit = permit.on_drop(OnDrop::Metered);
    assert_eq!(permit.meter(60).await.unwrap(), Flow::Go);
    assert_eq!(permit.meter(20).await.unwrap(), Flow::Go);
    let minute = Duration::from_secs(60);
    assert_eq!(permit.meter(5).await.unwrap(), Flow::Pause(minute));
    clock.advance(minute);
    assert_eq!(permit.meter(0).await.unwrap(), Flow::Go);
    permit.finish().await.unwrap();
    assert_eq!(tokens.by(&ann).stat().await.unwrap().remaining, 95);
}
