//! WebSockets that send back what they are sent: without limits, with limits in memory, on Redis and leased from it; on one
//! connection and on ten; and how long a hundred quiet ones wait beside one that floods.
//!
//! One worker on one core; the load generator and Redis on another.
//!
//! `cargo bench -p traffik-benches --bench echo [-- <rounds> <milliseconds>]`

use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, web};
use traffik_actix::actix_ws::{self, AggregatedMessage};
use traffik_actix::strategy::TokenBucket;
use traffik_actix::{HttpThrottle, OnExcess, WsThrottle};
use traffik_benches::server::Server;
use traffik_benches::sockets::{echoes, quiet};
use traffik_benches::store::Store;
use traffik_benches::{Contestant, compete, pin, serve};
use traffik_core::{Backend, BackendExt, Lease, MemoryBackend};

/// Clients that send ten messages a second.
const QUIET: u8 = 100;

fn main() {
    let redis = Store::redis();
    let on = |namespace: &str| redis.backend(namespace);
    let servers = [
        serve!("no limits", || App::new()
            .route("/", web::get().to(unlimited))
            .route("/few", web::get().to(unlimited))),
        limited("memory", MemoryBackend::new()),
        limited("each message on redis", on("each")),
        limited("leased from redis", on("leased").lease(Lease::new())),
    ];
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<u32>().ok());
    let rounds = numbers.next().unwrap_or(5) as usize;
    let time = Duration::from_millis(numbers.next().unwrap_or(1_000).into());
    pin(1);
    for server in &servers {
        turn(server, time / 10);
    }
    let contestants = servers
        .iter()
        .map(|server| Contestant::new(server.name(), move || turn(server, time)))
        .collect();
    let standings = compete(rounds, contestants);

    println!(
        "median (min - max) of {rounds} rounds of {time:?}; ratios are to {} in the same round",
        standings[0].name
    );
    let kinds = [
        "messages/s on one connection",
        "messages/s on ten",
        "µs of worker per message, ten",
        "p99 µs of 100 quiet ones, alone",
        "p99 µs of 100 quiet ones, a flood beside",
    ];
    for (kind, title) in kinds.into_iter().enumerate() {
        println!("\n{title}");
        for standing in &standings {
            let figure = &standing.figures[kind];
            let (name, value, ratio) = (&standing.name, figure.value, figure.ratio);
            println!("{name:25} {value:32.1} {ratio:.3}");
        }
    }
}

fn turn(server: &Server, time: Duration) -> [f64; 5] {
    let port = server.port();
    let (_, one) = echoes(port, 1, time);
    let before = server.worker_time();
    let (count, ten) = echoes(port, 10, time);
    let worked = server.worker_time() - before;
    [
        one,
        ten,
        worked.as_nanos() as f64 / count as f64 / 1_000.0,
        quiet(port, QUIET, false, time),
        quiet(port, QUIET, true, time),
    ]
}

/// At `/` nobody is denied, at `/few` whoever sends more than a hundred a second.
fn limited(name: &'static str, backend: impl Backend + Clone) -> Server {
    let limits = |title: &str, rate: &str| {
        let throttle = HttpThrottle::builder(title)
            .rate(rate)
            .strategy(TokenBucket::new());
        let throttle = throttle.build().expect("valid");
        let limits = WsThrottle::new(throttle).backend(backend.clone());
        web::Data::new(limits.on_excess(OnExcess::Discard))
    };
    let (many, few) = (
        limits("many", "1000000000/hour"),
        limits("few", "100/second"),
    );
    serve!(name, move || App::new()
        .service(web::resource("/").app_data(many.clone()).get(echo))
        .service(web::resource("/few").app_data(few.clone()).get(echo)))
}

async fn echo(
    req: HttpRequest,
    body: web::Payload,
    limits: web::Data<WsThrottle>,
) -> actix_web::Result<HttpResponse> {
    let (response, mut session, mut messages) = limits.handle(&req, body).await?;
    actix_web::rt::spawn(async move {
        while let Some(Ok(AggregatedMessage::Text(text))) = messages.recv().await {
            if session.text(text).await.is_err() {
                return;
            }
        }
    });
    Ok(response)
}

async fn unlimited(req: HttpRequest, body: web::Payload) -> actix_web::Result<HttpResponse> {
    let (response, mut session, messages) = actix_ws::handle(&req, body)?;
    let mut messages = messages.aggregate_continuations();
    actix_web::rt::spawn(async move {
        while let Some(Ok(AggregatedMessage::Text(text))) = messages.recv().await {
            if session.text(text).await.is_err() {
                return;
            }
        }
    });
    Ok(response)
}
