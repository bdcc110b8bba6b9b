//! So many requests at a time, however each of them ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::test::init_service;
use actix_web::web::{self, Bytes};
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer};
use futures_util::{poll, stream};
use tokio::sync::Semaphore;
use traffik_actix::traffik_core::ConcurrencyInfo;
use traffik_actix::{
    BusyDenial, ConcurrencyLimit, ConcurrencyLimitBuilder, Headers, Identity, ThrottleBackend,
};

use crate::sockets::{Connection, Running};
use crate::support::{get, memory, send};

fn limit(in_flight: u32) -> ConcurrencyLimitBuilder {
    ConcurrencyLimit::builder("work").in_flight(in_flight)
}

/// Where handlers wait until they are let on.
#[derive(Clone)]
struct Gate {
    permits: Arc<Semaphore>,
    entered: Arc<AtomicU32>,
}

impl Gate {
    fn new() -> Gate {
        Gate {
            permits: Arc::new(Semaphore::new(0)),
            entered: Arc::default(),
        }
    }

    async fn pass(&self) {
        self.entered.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
    }

    fn let_on(&self, count: usize) {
        self.permits.add_permits(count);
    }

    fn entered(&self) -> u32 {
        self.entered.load(Ordering::SeqCst)
    }
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(work))
        .route("/stream", web::get().to(streamed))
        .route("/endless", web::get().to(endless))
        .route("/panic", web::get().to(panics))
        .route("/free", web::get().to(async || "free"));
}

async fn work(gate: web::Data<Gate>) -> &'static str {
    gate.pass().await;
    "done"
}

/// Its head comes at once, its body when the gate opens.
async fn streamed(gate: web::Data<Gate>) -> HttpResponse {
    let last = stream::once(async move {
        gate.pass().await;
        Ok::<_, Error>(Bytes::from_static(b"last"))
    });
    HttpResponse::Ok().streaming(last)
}

async fn endless() -> HttpResponse {
    let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
    let chunks = stream::unfold(chunk, async |chunk| {
        actix_web::rt::task::yield_now().await;
        Some((Ok::<_, Error>(chunk.clone()), chunk))
    });
    HttpResponse::Ok().streaming(chunks)
}

async fn panics() -> &'static str {
    panic!("a handler that panics, as this test wants it")
}

fn serve(limit: &ConcurrencyLimit, gate: &Gate) -> (SocketAddr, Running) {
    let (limit, gate) = (limit.clone(), web::Data::new(gate.clone()));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(gate.clone())
            .wrap(limit.clone())
            .configure(routes)
    })
    .workers(2)
    .bind(("127.0.0.1", 0))
    .unwrap();
    (server.addrs()[0], Running::start(server.run()))
}

/// What is going to be, in a moment.
async fn soon(is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(60), "in vain");
        actix_web::rt::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn is_free(limit: &ConcurrencyLimit) {
    soon(|| limit.counter().info().in_flight == 0).await;
    assert_eq!(limit.counter().info().counts, 0);
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[actix_web::test]
async fn exactly_so_many_requests_are_in_flight_on_all_workers() {
    let limit = limit(10).build().unwrap();
    let gate = Gate::new();
    let (addr, running) = serve(&limit, &gate);
    for round in 1..=3 {
        let (tell, told) = std::sync::mpsc::channel();
        for _ in 0..40 {
            let tell = tell.clone();
            std::thread::spawn(move || tell.send(Connection::open(addr).ask(REQUEST).status));
        }
        let told = web::block(move || {
            let denied: Vec<u16> = told.iter().take(30).collect();
            assert_eq!(denied, [429; 30]);
            told
        });
        let told = told.await.unwrap();
        soon(|| gate.entered() == 10 * round).await;
        assert_eq!(limit.counter().info().in_flight, 10);
        gate.let_on(10);
        let served = web::block(move || told.iter().take(10).collect::<Vec<_>>());
        assert_eq!(served.await.unwrap(), [200; 10]);
        is_free(&limit).await;
    }
    running.stop().await;
}

#[actix_web::test]
async fn a_streamed_response_is_in_flight_until_its_body_ends() {
    let limit = limit(1).build().unwrap();
    let gate = Gate::new();
    let (addr, running) = serve(&limit, &gate);
    let mut socket = TcpStream::connect(addr).unwrap();
    socket
        .write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let head = web::block(move || {
        let mut head = [0; 12];
        socket.read_exact(&mut head).unwrap();
        (socket, head)
    });
    let (mut socket, head) = head.await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    assert_eq!(limit.counter().info().in_flight, 1);
    let other = web::block(move || Connection::open(addr).ask(REQUEST).status);
    assert_eq!(other.await.unwrap(), 429);
    gate.let_on(1);
    let rest = web::block(move || {
        let mut rest = Vec::new();
        while !rest.ends_with(b"0\r\n\r\n") {
            let mut more = [0; 1024];
            let read = socket.read(&mut more).unwrap();
            assert!(read > 0);
            rest.extend(&more[..read]);
        }
        socket
    });
    // The connection is still there, and idle.
    let _idle = rest.await.unwrap();
    is_free(&limit).await;
    running.stop().await;
}

#[actix_web::test]
async fn a_client_that_goes_away_in_the_middle_of_a_body_frees_its_place() {
    let limit = limit(1).build().unwrap();
    let (addr, running) = serve(&limit, &Gate::new());
    for _ in 0..3 {
        web::block(move || {
            let mut socket = TcpStream::connect(addr).unwrap();
            socket
                .write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .unwrap();
            let mut some = [0; 100_000];
            socket.read_exact(&mut some).unwrap();
            assert!(some.starts_with(b"HTTP/1.1 200"));
        })
        .await
        .unwrap();
        is_free(&limit).await;
    }
    running.stop().await;
}

#[actix_web::test]
async fn a_handler_that_panics_frees_its_place() {
    let limit = limit(1).build().unwrap();
    let (addr, running) = serve(&limit, &Gate::new());
    for _ in 0..3 {
        web::block(move || {
            let mut socket = TcpStream::connect(addr).unwrap();
            socket
                .write_all(b"GET /panic HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .unwrap();
            let mut nothing = Vec::new();
            let _ = socket.read_to_end(&mut nothing);
            assert!(nothing.is_empty());
        })
        .await
        .unwrap();
        is_free(&limit).await;
    }
    running.stop().await;
}

/// An application in memory, whose requests are looked at by hand.
async fn app(
    limit: &ConcurrencyLimit,
    gate: &Gate,
) -> impl Service<actix_http::Request, Response = ServiceResponse<impl MessageBody>, Error = Error>
{
    let app = App::new()
        .app_data(web::Data::new(gate.clone()))
        .wrap(limit.clone())
        .configure(routes);
    init_service(app).await
}

type Calling<'a, B> = Pin<Box<dyn Future<Output = Result<ServiceResponse<B>, Error>> + 'a>>;

fn call<'a, S, B>(app: &'a S, path: &str) -> Calling<'a, B>
where
    S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = Error>,
    S::Future: 'a,
{
    Box::pin(app.call(get(path).to_request()))
}

#[actix_web::test]
async fn requests_wait_in_order_and_a_dropped_one_is_passed_over() {
    let limit = limit(1)
        .wait_up_to(Duration::from_secs(3_600))
        .build()
        .unwrap();
    let gate = Gate::new();
    let app = app(&limit, &gate).await;
    let mut calls: Vec<_> = (0..5).map(|_| Some(call(&app, "/"))).collect();
    for one in calls.iter_mut().flatten() {
        assert!(poll!(one).is_pending());
    }
    assert_eq!((gate.entered(), limit.counter().info().waiting), (1, 4));
    // In the middle, and the one whose turn is next.
    calls[3] = None;
    calls[1] = None;
    assert_eq!(limit.counter().info().waiting, 2);
    for (nth, next) in [(0, Some(2)), (2, Some(4)), (4, None)] {
        gate.let_on(1);
        let answered = calls[nth].take().unwrap().await.unwrap();
        assert_eq!(answered.status(), StatusCode::OK);
        // In flight until its body is gone.
        for one in calls.iter_mut().flatten() {
            assert!(poll!(one).is_pending());
        }
        let before = gate.entered();
        drop(answered);
        for one in calls.iter_mut().flatten() {
            assert!(poll!(one).is_pending());
        }
        assert_eq!(gate.entered() - before, u32::from(next.is_some()));
    }
    assert_eq!(limit.counter().info().in_flight, 0);
}

#[actix_web::test]
async fn places_to_wait_are_bounded() {
    let limit = limit(1)
        .wait_up_to(Duration::from_secs(3_600))
        .max_waiters(8)
        .build()
        .unwrap();
    let gate = Gate::new();
    let app = app(&limit, &gate).await;
    let mut calls: Vec<_> = (0..4).map(|_| call(&app, "/")).collect();
    let mut denied = 0;
    for one in &mut calls {
        if let Poll::Ready(answer) = poll!(one) {
            assert_eq!(answer.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
            denied += 1;
        }
    }
    // One is in flight, and two, a quarter, wait.
    assert_eq!((denied, limit.counter().info().waiting), (1, 2));
    drop(calls);
    assert_eq!(limit.counter().info(), ConcurrencyInfo::default());
}

/// 429 where it is the client's, 503 where it is the server's own capacity.
#[actix_web::test]
async fn a_denial_says_what_and_when() {
    for (is_shared, status, title, detail) in [
        (
            false,
            429,
            "Quota Exceeded",
            "2 of your requests are not answered yet. Retry in 7 seconds.",
        ),
        (
            true,
            503,
            "Temporary Reduced Capacity",
            "The server is busy. Retry in 7 seconds.",
        ),
    ] {
        let builder = limit(2).retry_after(Duration::from_millis(6_500));
        let limit = match is_shared {
            true => builder.shared().build().unwrap(),
            false => builder.build().unwrap(),
        };
        let gate = Gate::new();
        let app = app(&limit, &gate).await;
        let mut calls = [call(&app, "/"), call(&app, "/")];
        for one in &mut calls {
            assert!(poll!(one).is_pending());
        }
        let denied = send(&app, get("/")).await;
        assert_eq!(denied.status.as_u16(), status);
        let header = |name: &str| denied.header(name).unwrap();
        assert_eq!(header("retry-after"), "7");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("content-type"), "application/problem+json");
        assert_eq!(
            header("ratelimit-policy"),
            r#""work";q=2;qu="concurrent-requests""#
        );
        assert_eq!(header("ratelimit"), r#""work";r=0;t=7"#);
        let problem: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["title"], title);
        assert_eq!(problem["detail"], detail);
        assert_eq!(problem["violated-policies"].is_array(), !is_shared);
        drop(calls);
        let admitted = send(&app, get("/free")).await;
        let told = (!is_shared).then(|| r#""work";r=1;t=0"#.to_owned());
        assert_eq!(admitted.header("ratelimit"), told);
        assert_eq!(limit.counter().info(), ConcurrencyInfo::default());
    }
}

#[actix_web::test]
async fn who_asks_is_found_out_as_by_throttles() {
    let by_key = |req: &HttpRequest| {
        let key = req.headers().get("x-key").and_then(|key| key.to_str().ok());
        key.map(Identity::of).ok_or("no key")
    };
    let own = limit(1).identify(by_key).build().unwrap();
    let later = limit(1)
        .identify_async(async move |req: &HttpRequest| by_key(req))
        .build()
        .unwrap();
    let backend = ThrottleBackend::new(memory().1).identify(by_key);
    let of_backend = limit(1).build().unwrap();
    for limit in [own, later, of_backend] {
        let gate = Gate::new();
        let app = App::new()
            .app_data(web::Data::new(gate.clone()))
            .app_data(backend.clone())
            .wrap(limit.clone())
            .configure(routes);
        let app = init_service(app).await;
        let by = |key: &'static str| get("/").insert_header(("x-key", key));
        let mut ann = Box::pin(app.call(by("ann").to_request()));
        assert!(poll!(&mut ann).is_pending());
        assert_eq!(send(&app, by("ann")).await.status.as_u16(), 429);
        // The first of them is for Ann, who is not polled.
        gate.let_on(2);
        assert_eq!(send(&app, by("ben")).await.status.as_u16(), 200);
        assert_eq!(send(&app, get("/")).await.status.as_u16(), 400);
        drop(ann);
        assert_eq!(limit.counter().info(), ConcurrencyInfo::default());
    }
    let exempt = limit(1)
        .identify(|_: &HttpRequest| Identity::EXEMPT)
        .build()
        .unwrap();
    let gate = Gate::new();
    let app = app(&exempt, &gate).await;
    let mut calls = [call(&app, "/"), call(&app, "/")];
    for one in &mut calls {
        assert!(poll!(one).is_pending());
    }
    assert_eq!(send(&app, get("/free")).await.header("ratelimit"), None);
}

#[actix_web::test]
async fn a_denial_is_answered_by_the_function_for_it() {
    let limit = limit(1)
        .headers(Headers::Never)
        .on_denied(|denial: &BusyDenial<'_>| {
            let text = format!("{} {}", denial.limit.name(), denial.busy.limit());
            HttpResponse::ServiceUnavailable().body(text)
        })
        .build()
        .unwrap();
    let gate = Gate::new();
    let app = app(&limit, &gate).await;
    let mut one = call(&app, "/");
    assert!(poll!(&mut one).is_pending());
    let denied = send(&app, get("/")).await;
    assert_eq!((denied.status.as_u16(), &*denied.body), (503, "work 1"));
    assert_eq!(denied.header("retry-after").unwrap(), "1");
    assert_eq!(denied.header("ratelimit"), None);
}

/// A job goes on after its response.
#[actix_web::test]
async fn a_handler_keeps_it_for_as_long_as_its_job_takes() {
    let jobs = limit(1).build().unwrap();
    let gate = Gate::new();
    let start = {
        let gate = gate.clone();
        move |req: HttpRequest, jobs: web::Data<ConcurrencyLimit>| {
            let gate = gate.clone();
            async move {
                let in_flight = jobs.acquire(&req).await?;
                actix_web::rt::spawn(async move {
                    gate.pass().await;
                    drop(in_flight);
                });
                Ok::<_, Error>(HttpResponse::Accepted())
            }
        }
    };
    let app = App::new()
        .app_data(web::Data::new(jobs.clone()))
        .route("/", web::get().to(start));
    let app = init_service(app).await;
    assert_eq!(send(&app, get("/")).await.status.as_u16(), 202);
    let denied = send(&app, get("/")).await;
    assert!(denied.is_throttled() && denied.header("retry-after").is_some());
    gate.let_on(1);
    is_free(&jobs).await;
    assert_eq!(send(&app, get("/")).await.status.as_u16(), 202);
}
