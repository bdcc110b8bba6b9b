//! What the server answers.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use traffik_actix::{HttpThrottle, ManualClock, ThrottleBackend};

use crate::identity;
use crate::options::Options;

pub(crate) struct Bench {
    pub(crate) throttle: HttpThrottle,
    backend: ThrottleBackend,
    /// If time stands still.
    clock: Option<ManualClock>,
}

impl Bench {
    pub(crate) fn new(options: Options) -> Result<Bench, traffik_actix::Error> {
        let backend = ThrottleBackend::new(options.backend)
            .identify(identity::identify)
            .on_error(options.on_error)
            .headers(options.headers);
        let cost = options.cost;
        let throttle = HttpThrottle::builder("bench")
            .rate(options.rate)
            .strategy(options.strategy)
            .cost_by(move |req: &HttpRequest| identity::cost(req, cost))
            .backend(backend.clone())
            .build()?;
        Ok(Bench {
            throttle,
            backend,
            clock: options.clock,
        })
    }
}

pub(crate) async fn ok() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(r#"{"status":"ok"}"#)
}

/// The statistics of the client that asks, who is not charged for it.
pub(crate) async fn stat(req: HttpRequest, bench: web::Data<Bench>) -> HttpResponse {
    match bench.throttle.stat(&req).await {
        Ok(stat) => HttpResponse::Ok().json(stat),
        Err(error) => HttpResponse::ServiceUnavailable().body(error.to_string()),
    }
}

pub(crate) async fn reset(bench: web::Data<Bench>) -> HttpResponse {
    match bench.backend.backend().reset().await {
        Ok(()) => ok().await,
        Err(error) => HttpResponse::ServiceUnavailable().body(error.to_string()),
    }
}

#[derive(Deserialize)]
pub(crate) struct Advance {
    advance_us: u64,
}

pub(crate) async fn clock(bench: web::Data<Bench>, by: web::Query<Advance>) -> HttpResponse {
    match &bench.clock {
        Some(clock) => {
            clock.advance(Duration::from_micros(by.advance_us));
            ok().await
        }
        None => HttpResponse::Conflict().body("start the server with `--clock manual`"),
    }
}
