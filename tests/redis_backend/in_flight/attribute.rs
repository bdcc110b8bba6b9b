//! `#[throttle(in_flight = .., backend = ..)]`.

use std::sync::OnceLock;

use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::web::{self, Bytes};
use actix_web::{App, Error, HttpRequest, HttpResponse};
use futures_util::stream;
use traffik_actix::{Identity, throttle};
use traffik_core::RedisBackend;

use super::{permits, soon};
use crate::support::{PATIENCE, RedisServer};

/// Of the server of the test: handlers are built when they are first asked.
static URL: OnceLock<String> = OnceLock::new();

fn redis() -> RedisBackend {
    let backend = RedisBackend::builder(URL.get().unwrap()).deadline(PATIENCE);
    backend.build().unwrap()
}

fn client(req: &HttpRequest) -> Identity {
    Identity::of(req.query_string())
}

fn endless() -> HttpResponse {
    HttpResponse::Ok().streaming(stream::pending::<Result<Bytes, Error>>())
}

#[throttle(in_flight = 2, name = "exports", identify = client, backend = redis())]
async fn one() -> HttpResponse {
    endless()
}

/// As it is on another server.
#[throttle("3/day", identify = client)]
#[throttle(in_flight = 2, name = "exports", identify = client, backend = redis())]
async fn other() -> HttpResponse {
    endless()
}

#[actix_rt::test]
async fn handlers_have_one_count_on_a_redis_until_bodies_are_dropped() {
    let server = RedisServer::start();
    URL.set(server.url()).unwrap();
    let app = App::new()
        .route("/one", web::get().to(one))
        .route("/other", web::get().to(other));
    let app = init_service(app).await;
    let ask = async |path: &str| {
        let req = TestRequest::get().uri(path).to_request();
        call_service(&app, req).await
    };
    let mut held = vec![ask("/one?ann").await, ask("/other?ann").await];
    assert_eq!(permits(&server), 2);
    for path in ["/one?ann", "/other?ann"] {
        let denied = ask(path).await;
        assert_eq!(denied.status().as_u16(), 429, "{path}");
        assert!(denied.headers().contains_key("retry-after"));
    }
    held.push(ask("/one?ben").await);
    for response in &held {
        assert_eq!(response.status().as_u16(), 200);
    }
    assert_eq!(permits(&server), 3);
    held.clear();
    soon(|| permits(&server) == 0).await;
    // What was denied for what is in flight was charged at no rate: two are left of three.
    for expected in [200, 200, 429] {
        let answer = ask("/other?ann").await;
        assert_eq!(answer.status().as_u16(), expected);
        drop(answer);
        soon(|| permits(&server) == 0).await;
    }
}
