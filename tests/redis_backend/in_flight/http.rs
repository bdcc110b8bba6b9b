//! Requests, handlers and WebSockets, counted over several servers.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::web::{self, Bytes};
use actix_web::{App, Error, HttpRequest, HttpResponse};
use futures_util::stream;
use traffik_actix::{
    ConcurrencyLimit, ConcurrencyLimitBuilder, HttpThrottle, Identity, OnOutage, WsThrottle,
};
use traffik_core::RedisBackend;

use super::{HOUR, soon};
use crate::support::ws::client::Client;
use crate::support::ws::server::{name, serve};
use crate::support::{PATIENCE, RedisServer};

fn limit(backend: RedisBackend) -> ConcurrencyLimitBuilder {
    let limit = ConcurrencyLimit::builder("downloads").in_flight(2);
    limit.backend(backend).lease(HOUR).identify(client)
}

fn client(req: &HttpRequest) -> Identity {
    Identity::of(req.query_string())
}

async fn download() -> HttpResponse {
    HttpResponse::Ok().streaming(stream::pending::<Result<Bytes, Error>>())
}

#[actix_rt::test]
async fn a_client_has_one_limit_on_two_servers_until_bodies_are_dropped() {
    let server = RedisServer::start();
    let apps = [0, 1].map(|_| {
        let limit = limit(server.backend()).build().unwrap();
        let downloads = web::resource("/").wrap(limit).get(download);
        init_service(App::new().service(downloads))
    });
    let [one, other] = futures_util::future::join_all(apps)
        .await
        .try_into()
        .ok()
        .unwrap();
    let ask = || TestRequest::get().uri("/?ann").to_request();
    let first = call_service(&one, ask()).await;
    let second = call_service(&other, ask()).await;
    let left = |response: &actix_web::dev::ServiceResponse<_>| {
        let left = response.headers().get("ratelimit").unwrap();
        left.to_str().unwrap().to_owned()
    };
    assert_eq!(left(&first), r#""downloads";r=1;t=0"#);
    assert_eq!(left(&second), r#""downloads";r=0;t=0"#);
    for app in [&one, &other] {
        let denied = call_service(app, ask()).await;
        assert_eq!(denied.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(left(&denied), r#""downloads";r=0;t=1"#);
        let ben = TestRequest::get().uri("/?ben").to_request();
        assert_eq!(call_service(app, ben).await.status(), StatusCode::OK);
    }
    drop((first, second));
    soon(|| server.keys().is_empty()).await;
    assert_eq!(call_service(&other, ask()).await.status(), StatusCode::OK);
}

#[actix_rt::test]
async fn a_denial_says_that_nothing_could_be_counted() {
    for (policy, status, detail) in [
        (
            OnOutage::Deny,
            429,
            "Requests cannot be counted at the moment",
        ),
        (OnOutage::Raise, 503, "Rate limits cannot be checked"),
        (OnOutage::Allow, 200, "free"),
    ] {
        let mut server = RedisServer::start();
        let limit = limit(server.backend()).on_outage(policy).build().unwrap();
        server.kill();
        let free = web::resource("/").wrap(limit).get(async || "free");
        let app = init_service(App::new().service(free)).await;
        let answer = call_service(&app, TestRequest::get().uri("/?ann").to_request()).await;
        assert_eq!(answer.status().as_u16(), status);
        let (names, waits) = (
            answer.headers().contains_key("ratelimit-policy"),
            answer.headers().contains_key("retry-after"),
        );
        assert_eq!((names, waits), (status == 200, status == 429));
        let body = read_body(answer).await;
        let body = String::from_utf8_lossy(&body);
        assert!(
            body.contains(detail) && !body.contains("downloads"),
            "{body}"
        );
    }
}

#[test]
fn websockets_of_a_client_are_counted_over_two_servers() {
    let redis = RedisServer::start();
    actix_rt::System::new().block_on(async {
        let tabs = || {
            let tabs = ConcurrencyLimit::builder("tabs").in_flight(2);
            let tabs = tabs
                .backend(redis.backend())
                .identify(name)
                .build()
                .unwrap();
            let messages = HttpThrottle::builder("messages").rate("1000/day");
            WsThrottle::new(messages.build().unwrap()).connections(tabs)
        };
        let nodes = [serve(tabs()).await, serve(tabs()).await];
        let one = Client::connect(nodes[0], "ann").await;
        let two = Client::connect(nodes[1], "ann").await;
        for node in nodes {
            assert_eq!(Client::try_connect(node, "ann").await.unwrap_err(), 429);
            drop(Client::connect(node, "bob").await);
        }
        drop(one);
        let start = std::time::Instant::now();
        let three = loop {
            match Client::try_connect(nodes[1], "ann").await {
                Ok(client) => break client,
                Err(status) => assert_eq!(status, 429),
            }
            assert!(start.elapsed() < PATIENCE, "its place was never free");
            actix_rt::time::sleep(Duration::from_millis(2)).await;
        };
        drop((two, three));
        soon(|| redis.keys().is_empty()).await;
    });
}
