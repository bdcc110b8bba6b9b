//! What is left in memory of WebSockets that have come and gone.

#![cfg(feature = "ws")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that panics fails; clippy knows only functions marked as tests"
)]

#[allow(dead_code, reason = "others use the rest")]
#[path = "ws/client.rs"]
mod client;
#[allow(dead_code, reason = "others use the rest")]
#[path = "ws/server.rs"]
mod server;
#[allow(dead_code, reason = "others use the rest")]
#[path = "ws/support.rs"]
mod support;

use std::time::Duration;

use actix_web::rt::task::yield_now;
use actix_web::{App, HttpRequest, HttpResponse, rt, web};
use tokio::io::DuplexStream;
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::traffik_core::ConcurrencyInfo;
use traffik_actix::{ConcurrencyLimit, Identity, ManualClock, WsRule, WsThrottle};

use crate::client::Client;
use crate::server::{AppFactory, name, serve_pipes};
use crate::support::{memory, throttle};

/// Everything that a connection can have: rules of both ways, for it, for rooms and with a wait, a place among those in flight, an
/// outbox, and a login.
fn limits(clock: &mut Option<ManualClock>, places: &ConcurrencyLimit) -> WsThrottle {
    let (time, backend) = memory();
    *clock = Some(time);
    let rule = |title: &str, rate: &str| {
        let throttle = throttle(title, rate).identify(name);
        throttle.backend(backend.clone())
    };
    let room = |message: &AggregatedMessage| match message {
        AggregatedMessage::Text(text) => Some(text.to_string()),
        _ => None,
    };
    let waits = rule("waits", "100000/day").wait_up_to(Duration::MAX);
    WsThrottle::new(rule("client", "1000000/day").build().unwrap())
        .rule(WsRule::new(rule("connection", "3/day").build().unwrap()).per_connection())
        .rule(WsRule::new(rule("room", "1000000/day").build().unwrap()).scope_by(room))
        .rule(
            WsRule::new(waits.build().unwrap())
                .when(|message| matches!(message, AggregatedMessage::Binary(_)))
                .cost_by(|_| 100_000),
        )
        .outgoing(WsRule::new(rule("sent", "1000000/day").build().unwrap()).per_byte())
        .connections(places.clone())
        .close_after(2)
}

async fn serve_one(
    req: HttpRequest,
    body: web::Payload,
    limits: web::Data<WsThrottle>,
) -> actix_web::Result<HttpResponse> {
    let (response, _, mut messages) = limits.handle(&req, body).await?;
    let session = messages.session();
    let outbox = session.outbox(4);
    rt::spawn(async move {
        while let Some(Ok(AggregatedMessage::Text(text))) = messages.recv().await {
            let _ = session.identify_as(Identity::of("the user")).await;
            let _ = outbox.text(text);
        }
    });
    Ok(response)
}

fn app(limits: WsThrottle) -> App<impl AppFactory> {
    App::new()
        .app_data(web::Data::new(limits))
        .route("/", web::get().to(serve_one))
}

/// What becomes of a connection.
async fn live(mut client: Client<DuplexStream>, at: usize) {
    client.say("hello").await;
    assert_eq!(client.hear().await, "hello");
    match at % 4 {
        0 => drop(client.leave().await),
        1 => client.vanish(),
        // It vanishes while a message waits for tomorrow.
        2 => {
            for _ in 0..2 {
                let bytes = tokio_tungstenite::tungstenite::Message::binary(vec![1]);
                client.send(bytes).await;
            }
            yield_now().await;
            client.vanish();
        }
        // It is shown the door.
        _ => {
            for _ in 0..4 {
                client.say("flood").await;
            }
            while !client.hear().await.starts_with("close: 1008") {}
        }
    }
}

async fn come_and_go(
    connections: usize,
    at_once: usize,
    connect: &impl AsyncFn(&str) -> Client<DuplexStream>,
    clock: &ManualClock,
    places: &ConcurrencyLimit,
) {
    for wave in 0..connections / at_once {
        for at in 0..at_once {
            // They come one after the other, and there are always some.
            let client = connect(["ann", "ben", "cid"][at % 3]).await;
            rt::spawn(live(client, wave + at));
        }
        while places.counter().info() != ConcurrencyInfo::default() {
            yield_now().await;
        }
        // Those that are done let go of what they have.
        for _ in 0..100 {
            yield_now().await;
        }
        clock.advance(Duration::from_secs(2 * 86_400));
    }
}

#[test]
fn ten_thousand_connections_leave_no_byte_behind() {
    let places = ConcurrencyLimit::builder("places").in_flight(1_000);
    let places = places.identify(name).build().unwrap();
    let mut clock = None;
    let limits = limits(&mut clock, &places);
    let clock = clock.unwrap();
    let system = rt::System::new();
    let connect = system.block_on(serve_pipes(app(limits)));
    let run = |connections, at_once| {
        system.block_on(come_and_go(connections, at_once, &connect, &clock, &places));
    };
    // Tables and pools find their size: with more at a time than later on.
    run(1_000, 250);
    // Now and then a table grows once more. What a connection leaves, each round of them leaves.
    let mut left = Vec::new();
    while left.len() < 5 && left.last() != Some(&(0, 0)) {
        let round = allocation_counter::measure(|| run(10_000, 50));
        assert!(round.bytes_total > 10_000 * 1_000, "it is counted");
        left.push((round.count_current, round.bytes_current));
    }
    assert_eq!(left.last(), Some(&(0, 0)), "left each time: {left:?}");
}
