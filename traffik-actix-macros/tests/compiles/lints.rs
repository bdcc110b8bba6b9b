//! Lints of clippy that a limit must not bring about: `cargo clippy --all-targets` is their test.
#![warn(clippy::pedantic, clippy::future_not_send)]

use actix_web::{App, HttpRequest, HttpResponse, Responder, get, web};
use traffik_actix::throttle;

/// Issue 9, F 18: every handler without an `.await` was one that need not be async.
#[throttle("100/minute")]
pub async fn without_await() -> &'static str {
    "plain"
}

#[get("/")]
#[throttle("100/minute")]
#[throttle("5/s", strategy = "gcra")]
pub async fn routed(query: web::Query<Vec<(String, u32)>>) -> impl Responder {
    query.len().to_string()
}

#[throttle("100/minute")]
pub async fn awaits(body: web::Payload) -> actix_web::Result<HttpResponse> {
    let body = body.to_bytes().await?;
    Ok(HttpResponse::Ok().body(body))
}

#[throttle("100/minute", original = named_unlimited)]
pub async fn named(name: String) -> String {
    name
}

#[derive(Debug)]
pub struct Service;

impl Service {
    #[throttle("100/minute", original = Self::index_unlimited)]
    pub async fn index() -> &'static str {
        "index"
    }
}

#[throttle("100/minute")]
pub async fn generic<T: 'static>() -> &'static str {
    std::any::type_name::<T>()
}

#[throttle("100/minute")]
#[allow(
    clippy::future_not_send,
    reason = "as every handler that keeps its request"
)]
pub async fn keeps_its_request(req: HttpRequest) -> String {
    let body = without_await_at_all(&req).await;
    format!("{body} {}", req.path())
}

#[allow(
    clippy::unused_async,
    clippy::future_not_send,
    reason = "to have something to wait for"
)]
async fn without_await_at_all(req: &HttpRequest) -> String {
    req.path().to_owned()
}

#[test]
fn is_taken() {
    let _ = App::new()
        .service(routed)
        .route("/1", web::get().to(without_await))
        .route("/2", web::get().to(awaits))
        .route("/3", web::get().to(named))
        .route("/4", web::get().to(Service::index))
        .route("/5", web::get().to(generic::<u32>))
        .route("/6", web::get().to(keeps_its_request));
}
