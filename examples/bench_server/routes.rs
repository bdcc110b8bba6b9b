//! What the server answers.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::{Clock, HttpThrottle, ManualClock, ThrottleBackend, WsThrottle};

use crate::identity;
use crate::options::Options;
use crate::refusal::Refusal;

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
pub(crate) async fn stat(
    req: HttpRequest,
    bench: web::Data<Bench>,
) -> actix_web::Result<HttpResponse> {
    // Who makes no sense is told why, before the throttle is asked.
    identity::identify(&req)?;
    identity::cost(&req, 1)?;
    let stat = bench.throttle.stat(&req).await;
    let stat = stat.map_err(|error| Refusal::unavailable(&error))?;
    Ok(HttpResponse::Ok().json(stat))
}

pub(crate) async fn reset(bench: web::Data<Bench>) -> Result<HttpResponse, Refusal> {
    let reset = bench.backend.backend().reset().await;
    reset.map_err(|error| Refusal::unavailable(&error))?;
    Ok(ok().await)
}

/// The end of a manual clock's time, in the year 2255: strategies count in integers that Lua holds.
const LATEST_US: u64 = 1 << 53;

pub(crate) async fn clock(
    req: HttpRequest,
    bench: web::Data<Bench>,
) -> Result<HttpResponse, Refusal> {
    let Some(clock) = &bench.clock else {
        return Err(Refusal::conflict(
            "the clock is the system's: start the server with `--clock manual`",
        ));
    };
    let most = LATEST_US.saturating_sub(clock.now().as_micros());
    let query = req.query_string();
    let by = query
        .strip_prefix("advance_us=")
        .and_then(|us| us.parse().ok());
    match by.filter(|by| *by <= most) {
        Some(by) => clock.advance_micros(by),
        None => {
            return Err(Refusal::bad_request(format!(
                "write `?advance_us=N` with a whole number of microseconds from 0 to {most}, not `?{query}`"
            )));
        }
    }
    Ok(ok().await)
}
