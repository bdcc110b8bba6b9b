//! Limits on what is sent to clients.

use std::cell::RefCell;
use std::time::Duration;

use actix_web::rt::spawn;
use actix_web::rt::task::yield_now;
use actix_web::{App, HttpRequest, HttpResponse, web};
use tokio::time::Instant;
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::strategy::Gcra;
use traffik_actix::{
    HttpThrottle, OnError, OnSpent, Outbox, Rate, SendError, ThrottledSession, WsRule, WsThrottle,
};

use crate::client::Client;
use crate::server::{AppFactory, name, serve_app, serve_pipes};
use crate::store::Store;
use crate::support::{memory, paused, throttle};

/// What comes in is not limited in these tests.
fn anything() -> HttpThrottle {
    let anything = throttle("anything", "1000000/day").identify(name);
    anything.backend(memory().1).build().unwrap()
}

fn a_day(rate: &str) -> HttpThrottle {
    let sent = throttle("sent", rate).identify(name);
    sent.backend(memory().1).build().unwrap()
}

/// Sends everything back within limits, and says why it could not, without.
async fn echo_within(
    req: HttpRequest,
    body: web::Payload,
    limits: web::Data<WsThrottle>,
) -> actix_web::Result<HttpResponse> {
    let (response, mut unlimited, mut messages) = limits.handle(&req, body).await?;
    let mut session = messages.session();
    spawn(async move {
        while let Some(Ok(message)) = messages.recv().await {
            let sent = match message {
                AggregatedMessage::Text(text) => session.text(text).await,
                AggregatedMessage::Binary(bytes) => session.binary(bytes).await,
                AggregatedMessage::Ping(bytes) => session.pong(&bytes).await,
                AggregatedMessage::Pong(_) => Ok(()),
                AggregatedMessage::Close(reason) => {
                    unlimited
                        .text(format!("{} unsent", session.unsent()))
                        .await?;
                    return session.close(reason).await;
                }
            };
            if let Err(error) = sent {
                let _ = unlimited.text(error.to_string()).await;
            }
        }
        Ok(())
    });
    Ok(response)
}

fn app(limits: WsThrottle) -> App<impl AppFactory> {
    App::new()
        .app_data(web::Data::new(limits))
        .route("/", web::get().to(echo_within))
}

async fn hears(limits: WsThrottle, texts: &[&str]) -> Vec<String> {
    let mut ann = Client::connect(serve_app(app(limits)).await, "ann").await;
    for text in texts {
        ann.say(text).await;
    }
    ann.leave().await
}

#[actix_web::test]
async fn what_is_beyond_is_not_sent_and_what_then_is_declared() {
    let limits = |on_spent| {
        WsThrottle::new(anything())
            .outgoing(a_day("2/day"))
            .on_spent(on_spent)
    };
    let denied = "the message is beyond a limit for 86400s";
    let texts = ["1", "2", "3", "4"];
    let heard = hears(limits(OnSpent::Fail), &texts).await;
    assert_eq!(heard, ["1", "2", denied, denied, "2 unsent"]);
    let heard = hears(limits(OnSpent::Discard), &texts).await;
    assert_eq!(heard, ["1", "2", "2 unsent"]);

    let addr = serve_app(app(limits(OnSpent::Close))).await;
    let mut ann = Client::connect(addr, "ann").await;
    for text in ["1", "2", "3"] {
        ann.say(text).await;
    }
    let closed = "close: 1013 rate_limit;retry_after_ms=86400000";
    for expected in ["1", "2", closed] {
        assert_eq!(ann.hear().await, expected);
    }
}

#[actix_web::test]
async fn bytes_kinds_and_both_ways_can_be_limited() {
    let never = "the message costs more than a limit ever allows";
    let denied = "the message is beyond a limit for 86400s";
    // Messages and bytes are one decision: what is denied by one is charged to none.
    let both = WsThrottle::new(anything())
        .outgoing(a_day("3/day"))
        .outgoing(
            WsRule::new(
                throttle("bytes", "10/day")
                    .backend(memory().1)
                    .build()
                    .unwrap(),
            )
            .per_byte(),
        );
    let heard = hears(both, &["12345", "123456", "12345678901", "67890", ""]).await;
    assert_eq!(heard, ["12345", denied, never, "67890", denied, "3 unsent"]);

    let texts = WsRule::new(a_day("1/day"))
        .when(|message| matches!(message, AggregatedMessage::Text(text) if text.len() > 1));
    let heard = hears(
        WsThrottle::new(anything()).outgoing(texts),
        &["long", "1", "long", "2"],
    )
    .await;
    assert_eq!(heard, ["long", "1", denied, "2", "1 unsent"]);

    // One throttle for both ways: each text comes in, and goes out.
    let both_ways = a_day("4/day");
    let limits = WsThrottle::new(both_ways.clone()).outgoing(both_ways);
    let heard = hears(limits, &["1", "2", "3"]).await;
    assert_eq!(heard.len(), 4, "{heard:?}");
    assert_eq!(heard[..2], ["1", "2"]);
    assert!(heard[2].contains("Too many messages"));
}

#[actix_web::test]
async fn what_waits_for_its_turn_is_sent_then_and_holds_up_nothing_that_comes_in() {
    let slow = throttle("slow", "1/2s")
        .strategy(Gcra::new())
        .backend(paused());
    let slow = slow.wait_up_to(Duration::from_secs(3)).build().unwrap();
    let limits = WsThrottle::new(anything()).outgoing(slow);
    let handler = async |req: HttpRequest, body: web::Payload, limits: web::Data<WsThrottle>| {
        let (response, mut unlimited, mut messages) = limits.handle(&req, body).await?;
        let session = messages.session();
        spawn(async move {
            while let Some(Ok(AggregatedMessage::Text(text))) = messages.recv().await {
                let _ = unlimited.text(format!("{text} came in")).await;
                let mut session = session.clone();
                spawn(async move { session.text(text).await });
            }
        });
        Ok::<_, actix_web::Error>(response)
    };
    let app = App::new()
        .app_data(web::Data::new(limits))
        .route("/", web::get().to(handler));
    let mut ann = serve_pipes(app).await("ann").await;
    let began = Instant::now();
    for text in ["1", "2"] {
        ann.say(text).await;
    }
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push((ann.hear().await, began.elapsed().as_millis() / 100));
    }
    heard.sort();
    let expected = [("1", 0), ("1 came in", 0), ("2", 20), ("2 came in", 0)];
    let expected = expected.map(|(text, at)| (text.to_owned(), at));
    assert_eq!(heard, expected);
}

#[actix_web::test]
async fn a_store_that_fails_is_told_to_whoever_sends() {
    for (policy, expected) in [
        (OnError::Allow, vec!["1", "0 unsent"]),
        (
            OnError::Throttle,
            vec!["the message is beyond a limit for 1s", "1 unsent"],
        ),
        (
            OnError::Raise,
            vec!["a limit cannot be checked", "0 unsent"],
        ),
    ] {
        let sent = throttle("sent", "1/day")
            .backend(Store::down())
            .on_error(policy);
        let limits = WsThrottle::new(anything()).outgoing(sent.build().unwrap());
        assert_eq!(hears(limits, &["1"]).await, expected);
    }
}

/// Everybody who is there, by name.
type Room = RefCell<Vec<(String, Outbox, ThrottledSession)>>;

/// Says what comes in to everybody; `bye` drops what is held of this connection, but for its outbox.
async fn chat(
    req: HttpRequest,
    body: web::Payload,
    limits: web::Data<WsThrottle>,
    room: web::Data<Room>,
) -> actix_web::Result<HttpResponse> {
    let (response, _, mut messages) = limits.handle(&req, body).await?;
    let who = req
        .headers()
        .get("x-name")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let session = messages.session();
    room.borrow_mut().push((who, session.outbox(4), session));
    spawn(async move {
        while let Some(Ok(AggregatedMessage::Text(text))) = messages.recv().await {
            if text == "bye" {
                return;
            }
            for (_, outbox, _) in &*room.borrow() {
                let _ = outbox.text(text.clone());
            }
        }
    });
    Ok(response)
}

/// A broadcast would wait for whoever reads nothing, and for whoever has to wait for its budget.
#[actix_web::test]
async fn one_client_holds_up_no_broadcast_to_others() {
    let sent = throttle("sent", "1/day")
        .identify(name)
        .rate_by(|req: &HttpRequest| match req.headers().get("x-name") {
            Some(name) if name == "poor" => Rate::per_day(1),
            _ => Rate::UNLIMITED,
        })
        .wait_up_to(Duration::MAX)
        .backend(memory().1);
    let limits = WsThrottle::new(anything()).outgoing(sent.build().unwrap());
    let room = web::Data::new(Room::default());
    let app = App::new()
        .app_data(web::Data::new(limits))
        .app_data(room.clone())
        .route("/", web::get().to(chat));
    let connect = serve_pipes(app).await;
    // What is unread takes more than the pipe, the queue of actix-ws and the outbox have room for.
    let text = "x".repeat(16 * 1024);
    let _deaf = connect("deaf").await;
    let mut poor = connect("poor").await;
    let mut quick = connect("quick").await;
    for _ in 0..100 {
        quick.say(&text).await;
        assert_eq!(quick.hear().await, text);
    }
    assert_eq!(poor.hear().await, text);
    for (who, outbox, session) in &*room.borrow() {
        let full = matches!(outbox.text("more"), Err(SendError::Full));
        assert_eq!(full, who != "quick", "{who}");
        assert_eq!(session.unsent(), 0, "they wait, or found no room");
    }
}

#[actix_web::test]
async fn an_outbox_keeps_no_connection_open() {
    keeps_no_connection_open(WsThrottle::new(anything()), "").await;
}

/// It held the connection, and a place among those who wait, for as long as a message had to wait.
#[actix_web::test]
async fn an_outbox_whose_message_waits_for_its_turn_kept_the_connection_open() {
    let sent = throttle("sent", "1/day")
        .wait_up_to(Duration::MAX)
        .backend(memory().1);
    let limits = WsThrottle::new(anything()).outgoing(sent.build().unwrap());
    keeps_no_connection_open(limits, "it is a day until this is sent").await;
}

async fn keeps_no_connection_open(limits: WsThrottle, waits: &str) {
    let room = web::Data::new(Room::default());
    let app = App::new()
        .app_data(web::Data::new(limits))
        .app_data(room.clone())
        .route("/", web::get().to(chat));
    let mut ann = Client::connect(serve_app(app).await, "ann").await;
    ann.say("hello").await;
    assert_eq!(ann.hear().await, "hello");
    if !waits.is_empty() {
        ann.say(waits).await;
        // Nothing tells that it was put in; an outbox that does not wait yet would not keep it open either.
        for _ in 0..1_000 {
            yield_now().await;
        }
    }
    let (_, outbox, session) = room.borrow_mut().remove(0);
    drop(session.outbox(usize::MAX)); // which panicked
    ann.say("bye").await;
    ann.ping("nobody answers").await;
    drop(session);
    assert_eq!(ann.hear().await, "gone");
    while !outbox.is_closed() {
        yield_now().await;
    }
    assert!(matches!(outbox.text("anybody?"), Err(SendError::Closed)));
}
