//! Connections that are closed because of their limits.

use std::cell::Cell;
use std::time::Duration;

use actix_web::{App, HttpRequest, web};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::{Excess, HttpThrottle, OnExcess, WsRule, WsThrottle};

use crate::client::Client;
use crate::server::{serve, serve_pipes};
use crate::support::{memory, notice, paused, settle, throttle};

fn two_a_day() -> HttpThrottle {
    let (_, backend) = memory();
    throttle("daily", "2/day").backend(backend).build().unwrap()
}

const TOMORROW: &str = "close: 1008 rate_limit;retry_after_ms=86400000";

async fn expect_the_third_to_close(limits: WsThrottle) {
    let mut ann = Client::connect(serve(limits).await, "ann").await;
    for text in ["1", "2", "3"] {
        ann.say(text).await;
    }
    for expected in ["1", "2", TOMORROW] {
        assert_eq!(ann.hear().await, expected);
    }
}

#[actix_web::test]
async fn closing_tells_why_and_for_how_long() {
    let limits = WsThrottle::new(two_a_day()).on_excess(OnExcess::Close);
    expect_the_third_to_close(limits).await;
}

#[actix_web::test]
async fn so_many_denials_in_a_row_close() {
    let (clock, backend) = memory();
    let daily = throttle("daily", "1/day").backend(backend).build().unwrap();
    // Pings are free, and make up for nothing.
    let texts = WsRule::new(daily).when(|message| !matches!(message, AggregatedMessage::Ping(_)));
    let limits = WsThrottle::new(texts).close_after(3);
    let mut ann = Client::connect(serve(limits).await, "ann").await;
    for text in ["1", "denied", "denied"] {
        ann.say(text).await;
    }
    ann.ping("so far").await;
    for expected in ["1", &notice(86_400), "pong: so far"] {
        assert_eq!(ann.hear().await, expected);
    }
    clock.advance(Duration::from_secs(86_400));
    ann.say("2").await;
    assert_eq!(ann.hear().await, "2");
    for _ in 0..3 {
        ann.say("denied").await;
        ann.ping("no").await;
    }
    for expected in ["pong: no", "pong: no", TOMORROW] {
        assert_eq!(ann.hear().await, expected);
    }
}

#[actix_web::test]
async fn a_function_may_close() {
    let limits = WsThrottle::new(two_a_day()).on_excess_by(async |_: &Excess<'_>| OnExcess::Close);
    expect_the_third_to_close(limits).await;
}

/// What is still on its way when a connection is closed must not make the client miss why.
#[actix_web::test]
async fn a_flood_is_told_why_it_is_cut() {
    let limits = WsThrottle::new(two_a_day()).on_excess(OnExcess::Close);
    let mut ann = Client::connect(serve(limits).await, "ann").await;
    let flood = "x".repeat(1_000);
    let mut sent = 0;
    while sent < 10_000 && ann.try_say(&flood).await {
        sent += 1;
    }
    for expected in [&*flood, &flood, TOMORROW] {
        assert_eq!(ann.hear().await, expected, "after {sent} messages");
    }
}

/// Nobody waits for a client that leaves no room for the frame that closes its connection.
#[actix_web::test]
async fn a_client_that_reads_nothing_is_hung_up_on() {
    let messages = throttle("messages", "1/day")
        .backend(paused())
        .build()
        .unwrap();
    let limits = web::Data::new(WsThrottle::new(messages).on_excess(OnExcess::Close));
    let (ended, end) = oneshot::channel::<Instant>();
    let ended = web::Data::new(Cell::new(Some(ended)));
    // Answers with more than anything between the two can hold, and never waits for room.
    let verbose =
        async |req: HttpRequest,
               body: web::Payload,
               limits: web::Data<WsThrottle>,
               ended: web::Data<Cell<Option<oneshot::Sender<Instant>>>>| {
            let (response, session, mut messages) = limits.handle(&req, body).await?;
            actix_web::rt::spawn(async move {
                while let Some(Ok(_)) = messages.recv().await {
                    let mut sender = session.clone();
                    actix_web::rt::spawn(async move {
                        while sender.binary(vec![0; 10_000]).await.is_ok() {}
                    });
                }
                ended.take().unwrap().send(Instant::now()).unwrap();
            });
            Ok::<_, actix_web::Error>(response)
        };
    let app = App::new()
        .app_data(limits)
        .app_data(ended)
        .route("/", web::get().to(verbose));
    let mut deaf = serve_pipes(app).await("deaf").await;
    deaf.say("1").await;
    settle().await;
    let start = Instant::now();
    deaf.say("2").await;
    let end = timeout(Duration::from_secs(60), end).await.expect("an end");
    let waited: Duration = end.unwrap() - start;
    assert_eq!(waited.as_secs(), 1);
}
