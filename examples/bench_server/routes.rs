//! What the server answers.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::{HttpThrottle, ManualClock, ThrottleBackend, WsThrottle};

use crate::identity;
use crate::options::Options;

pub(crate) struct Bench {
    pub(crate) throttle: HttpThrottle,
    messages: WsThrottle,
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
            messages: throttle.clone().into(),
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

/// Sends back each message that the limit admits. It is the limit of `/test`, and the headers of the
/// handshake say who asks, and what each message costs.
pub(crate) async fn ws(
    req: HttpRequest,
    body: web::Payload,
    bench: web::Data<Bench>,
) -> actix_web::Result<HttpResponse> {
    let (response, mut session, mut messages) = bench.messages.handle(&req, body).await?;
    actix_web::rt::spawn(async move {
        while let Some(Ok(message)) = messages.recv().await {
            let answered = match message {
                AggregatedMessage::Text(text) => {
                    let answer = json!({"echo": &*text, "status": "ok"});
                    session.text(answer.to_string()).await
                }
                AggregatedMessage::Binary(bytes) => session.binary(bytes).await,
                AggregatedMessage::Ping(bytes) => session.pong(&bytes).await,
                AggregatedMessage::Pong(_) => Ok(()),
                AggregatedMessage::Close(reason) => return session.close(reason).await,
            };
            answered?;
        }
        session.close(None).await
    });
    Ok(response)
}

/// The statistics of the client that asks, who is not charged for it.
pub(crate) async fn stat(req: HttpRequest, bench: web::Data<Bench>) -> HttpResponse {
    match bench.throttle.stat(&req).await {
        Ok(stat) => HttpResponse::Ok().json(stat),
        Err(error) if error.is_unresolved() => HttpResponse::BadRequest().body(error.to_string()),
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
