//! What the server answers.

use std::sync::{Arc, PoisonError, RwLock};

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::strategy::Strategy;
use traffik_actix::{
    ClientIp, Clock, HttpThrottle, ManualClock, Rate, Rule, ThrottleBackend, WsThrottle,
};

use crate::flags::Error;
use crate::identity;
use crate::options::Options;
use crate::refusal::Refusal;
use crate::store::Leases;

pub(crate) struct Bench {
    /// What is limited of the paths that are served.
    pub(crate) rules: Vec<Rule>,
    throttle: HttpThrottle,
    messages: WsThrottle,
    backend: ThrottleBackend,
    client_ip: ClientIp,
    rate: Arc<RwLock<Rate>>,
    strategy: Arc<dyn Strategy>,
    /// If time stands still.
    clock: Option<ManualClock>,
    leases: Option<Leases>,
}

impl Bench {
    pub(crate) fn new(options: Options) -> Result<Bench, Error> {
        let (client_ip, cost) = (options.client_ip.clone(), options.cost);
        let backend = ThrottleBackend::new(options.backend)
            .identify(move |req: &HttpRequest| identity::identify(req, &client_ip))
            .on_error(options.on_error)
            .headers(options.headers);
        // A throttle whose rate is given by a function does not know it when it is built.
        check(&*options.strategy, &options.rate)?;
        let rate = Arc::new(RwLock::new(options.rate));
        let current = Arc::clone(&rate);
        let throttle = HttpThrottle::builder("bench")
            .rate_by(move |_: &HttpRequest| *current.read().unwrap_or_else(PoisonError::into_inner))
            .strategy(Arc::clone(&options.strategy))
            .cost_by(move |req: &HttpRequest| identity::cost(req, cost))
            .backend(backend.clone())
            .build()?;
        let rules = options.patterns.iter().map(|pattern| {
            let rule = Rule::new(throttle.clone()).path(pattern);
            rule.map_err(|error| format!("--rule {pattern:?}: {error}").into())
        });
        Ok(Bench {
            rules: rules.collect::<Result<_, Error>>()?,
            messages: throttle.clone().into(),
            throttle,
            backend,
            client_ip: options.client_ip,
            rate,
            strategy: options.strategy,
            clock: options.clock,
            leases: options.leases,
        })
    }

    pub(crate) fn throttle(&self) -> &HttpThrottle {
        &self.throttle
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
    identity::identify(&req, &bench.client_ip)?;
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

/// What leases did since the server was started.
pub(crate) async fn leases(bench: web::Data<Bench>) -> Result<HttpResponse, Refusal> {
    match &bench.leases {
        Some(leases) => Ok(HttpResponse::Ok().json(leases())),
        None => Err(Refusal::conflict(
            "there are no leases: start the server with `--lease`",
        )),
    }
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

#[derive(Deserialize)]
struct Change {
    rate: String,
}

/// Another rate for the same throttle, as if the server had been started again with it: what clients
/// have taken is kept.
pub(crate) async fn rate(
    req: HttpRequest,
    bench: web::Data<Bench>,
) -> Result<HttpResponse, Refusal> {
    let query = req.query_string();
    let change = web::Query::<Change>::from_query(query).map_err(|_| {
        Refusal::bad_request(format!(
            "write `?rate=RATE`, such as `?rate=100/minute`, not `?{query}`"
        ))
    })?;
    let text = &change.rate;
    let refuse = |error: String| Refusal::bad_request(format!("rate {text:?}: {error}"));
    let rate = Rate::parse(text).map_err(|error| refuse(error.to_string()))?;
    check(&*bench.strategy, &rate).map_err(|error| refuse(error.to_string()))?;
    *bench.rate.write().unwrap_or_else(PoisonError::into_inner) = rate;
    Ok(ok().await)
}

/// Whether a strategy can serve a rate, and was given all that it needs.
fn check(strategy: &dyn Strategy, rate: &Rate) -> Result<(), traffik_actix::Error> {
    match rate.is_unlimited() {
        true => Ok(()),
        false => strategy.validate(rate),
    }
}
