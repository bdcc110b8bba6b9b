//! Bodies of denied requests, over real sockets.

use actix_web::{App, HttpRequest, HttpServer, web};
use traffik_actix::{
    HttpThrottle, MemoryBackend, ThrottleBackend, ThrottleMiddleware, ThrottleRule, Throttled,
};

use crate::sockets::{Connection, Response, Running};
use crate::support::throttle;

struct Login;

impl ThrottleRule for Login {
    fn throttle() -> &'static HttpThrottle {
        static LOGIN: std::sync::LazyLock<HttpThrottle> =
            std::sync::LazyLock::new(|| throttle("extractor", "1/day").build().unwrap());
        &LOGIN
    }
}

#[cfg(feature = "macros")]
#[traffik_actix::throttle("1/day", name = "attribute")]
async fn attribute(body: web::Bytes) -> String {
    body.len().to_string()
}

fn closes(response: &Response) -> bool {
    let mut headers = response.headers.iter();
    headers.any(|line| line.eq_ignore_ascii_case("connection: close"))
}

fn post(path: &str, length: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n").into()
}

/// Issue 9.15: each denied login cost its client the connection.
#[actix_web::test]
async fn a_denied_login_keeps_its_connection() {
    let middleware = throttle("middleware", "1/day").build().unwrap();
    let waiting = throttle("waiting", "1/day")
        .identify_async(async |_: &HttpRequest| traffik_actix::Identity::ANONYMOUS)
        .build()
        .unwrap();
    let backend = ThrottleBackend::new(MemoryBackend::new());
    let server = HttpServer::new(move || {
        let login = || web::post().to(async |body: web::Bytes| body.len().to_string());
        let limits = |throttle: &HttpThrottle| ThrottleMiddleware::new(throttle.clone());
        let app = App::new()
            .app_data(web::Data::new(backend.clone()))
            .service(
                web::resource("/middleware")
                    .wrap(limits(&middleware))
                    .route(login()),
            )
            .service(
                web::resource("/waiting")
                    .wrap(limits(&waiting))
                    .route(login()),
            )
            .route(
                "/extractor",
                web::post().to(async |body: Throttled<Login, web::Bytes>| body.len().to_string()),
            );
        #[cfg(feature = "macros")]
        let app = app.route("/attribute", web::post().to(attribute));
        app
    })
    .workers(1)
    .bind(("127.0.0.1", 0))
    .unwrap();
    let addr = server.addrs()[0];
    let running = Running::start(server.run());

    web::block(move || {
        let ways = ["/middleware", "/waiting", "/extractor", "/attribute"];
        for path in &ways[..if cfg!(feature = "macros") { 4 } else { 3 }] {
            let mut client = Connection::open(addr);
            let login = [post(path, 20), b"user=ann&password=ab".to_vec()].concat();
            assert_eq!(client.ask(&login).status, 200, "{path}");
            for _ in 0..3 {
                let denied = client.ask(&login);
                assert_eq!((denied.status, closes(&denied)), (429, false), "{path}");
            }
            // The head in one packet, the body in another.
            client.send(&post(path, 20));
            client.send(b"user=ann&password=ab");
            let denied = client.read();
            assert_eq!((denied.status, closes(&denied)), (429, false), "{path}");
            let none = client.ask(&post(path, 0));
            assert_eq!((none.status, closes(&none)), (429, false), "{path}");
            // Nobody waits for an upload.
            let upload = client.ask(&post(path, 1 << 20));
            assert_eq!((upload.status, closes(&upload)), (429, true), "{path}");
        }
    })
    .await
    .unwrap();
    running.stop().await;
}

/// It is actix-web that answers it, before any middleware: documented, and held to.
#[actix_web::test]
async fn who_expects_to_be_asked_for_the_body_is_asked_and_denied() {
    let all = throttle("expect", "1/day").build().unwrap();
    let limits = ThrottleMiddleware::new(all).backend(MemoryBackend::new());
    let server = HttpServer::new(move || {
        App::new().wrap(limits.clone()).route(
            "/",
            web::post().to(async |body: web::Bytes| body.len().to_string()),
        )
    })
    .workers(1)
    .bind(("127.0.0.1", 0))
    .unwrap();
    let addr = server.addrs()[0];
    let running = Running::start(server.run());

    web::block(move || {
        let mut client = Connection::open(addr);
        let head = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";
        for expected in [200, 429, 429] {
            assert_eq!(client.ask(head).status, 100);
            let answer = client.ask(b"hi");
            assert_eq!((answer.status, closes(&answer)), (expected, false));
        }
    })
    .await
    .unwrap();
    running.stop().await;
}
