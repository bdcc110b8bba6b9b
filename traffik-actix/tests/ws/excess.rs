//! What is done about messages beyond their limits.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use actix_web::rt::spawn;
use actix_web::{App, HttpMessage, HttpRequest, HttpResponse, web};
use futures_util::FutureExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::consume_budget;
use traffik_actix::strategy::Gcra;
use traffik_actix::{
    Excess, Failed, HttpThrottle, Identity, OnError, OnExcess, ThrottleBackend, WsRule, WsThrottle,
};

use crate::client::Client;
use crate::server::{app, echo, name, serve, serve_app, serve_pipes};
use crate::store::Store;
use crate::support::{memory, notice, paused, throttle};

fn one_a_day() -> HttpThrottle {
    let (_, backend) = memory();
    throttle("daily", "1/day").backend(backend).build().unwrap()
}

#[actix_web::test]
async fn a_flood_is_not_answered_with_a_flood() {
    let mut ann = Client::connect(serve(one_a_day().into()).await, "ann").await;
    for _ in 0..10_000 {
        ann.say("flood").await;
    }
    assert_eq!(ann.leave().await, ["flood", &notice(86_400)]);
}

#[actix_web::test]
async fn a_client_is_told_again_when_it_was_told_to_come_back_and_is_too_early_still() {
    let daily = throttle("slow", "1/2s")
        .strategy(Gcra::new())
        .backend(paused())
        .build()
        .unwrap();
    let mut ann = serve_pipes(app(daily.into())).await("ann").await;
    for after in [0, 500, 500, 500] {
        tokio::time::sleep(Duration::from_millis(after)).await;
        ann.say("hi").await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Two seconds after the first, and after the wait that was announced half a second later.
    ann.say("again").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    ann.say("hi").await;
    assert_eq!(ann.leave().await, ["hi", &notice(2), "again", &notice(2)]);
}

#[actix_web::test]
async fn discarding_is_silent() {
    let limits = WsThrottle::new(one_a_day()).on_excess(OnExcess::Discard);
    let mut ann = Client::connect(serve(limits).await, "ann").await;
    for text in ["1", "2", "3"] {
        ann.say(text).await;
    }
    assert_eq!(ann.leave().await, ["1"]);
}

/// tokio makes tasks pause that have done much at a stretch: whatever they try fails until they do.
#[actix_web::test]
async fn a_client_is_told_however_busy_the_task_was() {
    let limits = web::Data::new(WsThrottle::new(one_a_day()));
    let busy = async |req: HttpRequest, body: web::Payload, limits: web::Data<WsThrottle>| {
        let (response, _, mut messages) = limits.handle(&req, body).await?;
        spawn(async move {
            while let Some(Ok(_)) = messages.recv().await {
                while consume_budget().now_or_never().is_some() {}
            }
        });
        Ok::<_, actix_web::Error>(response)
    };
    let app = App::new().app_data(limits).route("/", web::get().to(busy));
    let mut ann = Client::connect(serve_app(app).await, "ann").await;
    // In one piece, so that they are dealt with at a stretch.
    ann.feed("1").await;
    ann.say("2").await;
    assert_eq!(ann.hear().await, notice(86_400));
}

/// `ctx["extras"]` of the original.
#[actix_web::test]
async fn notices_carry_extra_fields() {
    let limits = WsThrottle::new(one_a_day())
        .extra("room", "the \"lobby\"")
        .extra("retry_after", 60)
        .extra("error", serde_json::json!({"code": 7}));
    let mut ann = Client::connect(serve(limits).await, "ann").await;
    ann.say("1").await;
    ann.say("2").await;
    let heard = ann.leave().await;
    let notice: serde_json::Value = serde_json::from_str(&heard[1]).unwrap();
    let expected = serde_json::json!({
        "type": "rate_limit", "error": {"code": 7}, "retry_after": 60, "room": "the \"lobby\"",
    });
    assert_eq!(notice, expected);
}

#[actix_web::test]
async fn a_message_that_never_passes_is_not_told_when_to_come_back() {
    let rule = WsRule::new(one_a_day()).cost_by(|_| 2);
    let mut ann = Client::connect(serve(WsThrottle::new(rule)).await, "ann").await;
    ann.say("dear").await;
    ann.say("dear").await;
    let expected =
        r#"{"type":"rate_limit","error":"This message costs more than its limit ever allows"}"#;
    assert_eq!(ann.leave().await, [expected]);
}

#[actix_web::test]
async fn a_function_sees_everything_and_decides() {
    async fn lenient(excess: &Excess<'_>) -> OnExcess {
        let (denial, text) = (&excess.denial, format!("{:?}", excess.message));
        if text.contains("please") {
            return OnExcess::Admit;
        }
        let agent = denial.request.headers().get("x-name").unwrap();
        let answer = format!(
            "{} by {} as {}. of {:?}: {text}",
            agent.to_str().unwrap(),
            denial.throttle.name(),
            excess.in_a_row,
            denial.retry_after().unwrap(),
        );
        tokio::task::yield_now().await;
        excess.session().text(answer).await.unwrap();
        OnExcess::Discard
    }

    let limits = WsThrottle::new(one_a_day()).on_excess_by(lenient);
    let mut ann = Client::connect(serve(limits).await, "ann").await;
    for text in ["1", "2", "please", "3"] {
        ann.say(text).await;
    }
    let expected = [
        "1",
        "ann by daily as 1. of 86400s: Text(\"2\")",
        "please",
        "ann by daily as 3. of 86400s: Text(\"3\")",
    ];
    assert_eq!(ann.leave().await, expected);
}

/// A backend's default handlers did not reach WebSockets.
#[actix_web::test]
async fn the_throttle_says_what_happens_else_the_backend_of_what_denied() {
    let daily = |backend: ThrottleBackend| throttle("daily", "1/day").backend(backend);
    let memory = || ThrottleBackend::new(memory().1);
    let silent = || memory().on_excess(OnExcess::Discard);
    let asks = || {
        memory().on_excess_by(async |excess: &Excess<'_>| {
            let _ = excess.session().text("slow down").await;
            OnExcess::Discard
        })
    };
    let limits = |backend| WsThrottle::new(daily(backend).build().unwrap());
    let unlimited = || throttle("all", "100/day").backend(asks()).build().unwrap();
    for (limits, expected) in [
        (limits(memory()), vec!["1".to_owned(), notice(86_400)]),
        (limits(silent()), vec!["1".to_owned()]),
        (limits(asks()), vec!["1".to_owned(), "slow down".to_owned()]),
        // Whoever denied says so, not whoever is asked as well.
        (limits(silent()).rule(unlimited()), vec!["1".to_owned()]),
        (
            limits(asks()).on_excess(OnExcess::Notify),
            vec!["1".to_owned(), notice(86_400)],
        ),
    ] {
        let mut ann = Client::connect(serve(limits).await, "ann").await;
        ann.say("1").await;
        ann.say("2").await;
        assert_eq!(ann.leave().await, expected);
    }
    let in_app = App::new()
        .app_data(web::Data::new(silent()))
        .app_data(web::Data::new(WsThrottle::new(
            throttle("app", "1/day").build().unwrap(),
        )))
        .route("/", web::get().to(echo));
    let mut ann = Client::connect(serve_app(in_app).await, "ann").await;
    ann.say("1").await;
    ann.say("2").await;
    assert_eq!(ann.leave().await, ["1"]);
}

/// Wherever a throttle finds its backend, and whatever that says.
#[actix_web::test]
async fn defaults_of_a_backend_hold_wherever_it_is_found() {
    type Place = fn(ThrottleBackend) -> Apps;
    enum Apps {
        Own(WsThrottle),
        App(WsThrottle, ThrottleBackend),
        Request(WsThrottle, ThrottleBackend),
    }
    let places: [(&str, Place); 4] = [
        ("the throttle's own", |backend| {
            let daily = throttle("daily", "1/day").backend(backend);
            Apps::Own(WsThrottle::new(daily.build().unwrap()))
        }),
        ("that of the limits", |backend| {
            let daily = throttle("daily", "1/day").build().unwrap();
            Apps::Own(WsThrottle::new(daily).backend(backend))
        }),
        ("in the application data", |backend| {
            let daily = throttle("daily", "1/day").build().unwrap();
            Apps::App(WsThrottle::new(daily), backend)
        }),
        ("in the extensions of the handshake", |backend| {
            let daily = throttle("daily", "1/day").build().unwrap();
            Apps::Request(WsThrottle::new(daily), backend)
        }),
    ];
    async fn start(apps: Apps) -> SocketAddr {
        match apps {
            Apps::Own(limits) => serve(limits).await,
            Apps::App(limits, backend) => {
                let app = App::new()
                    .app_data(web::Data::new(limits))
                    .app_data(web::Data::new(backend))
                    .route("/", web::get().to(echo));
                serve_app(app).await
            }
            Apps::Request(limits, backend) => {
                let chosen = async move |req: HttpRequest, body: web::Payload, limits: _| {
                    let backend = req.app_data::<web::Data<Chosen>>().unwrap();
                    req.extensions_mut().insert(backend.0.clone());
                    echo(req, body, limits).await
                };
                let app = App::new()
                    .app_data(web::Data::new(limits))
                    .app_data(web::Data::new(Chosen(backend)))
                    .route("/", web::get().to(chosen));
                serve_app(app).await
            }
        }
    }
    for (place, put) in places {
        let backend = || ThrottleBackend::new(memory().1).identify(name);
        for (backend, expected) in [
            (backend(), vec!["1".to_owned(), notice(86_400)]),
            (backend().on_excess(OnExcess::Discard), vec!["1".to_owned()]),
            (
                backend().on_excess(OnExcess::Admit),
                vec!["1".to_owned(), "2".to_owned()],
            ),
            (
                ThrottleBackend::new(Store::down()).on_error(OnError::Allow),
                vec!["1".to_owned(), "2".to_owned()],
            ),
        ] {
            let addr = start(put(backend)).await;
            // Who asks is what the backend says: each of them is somebody.
            for who in ["ann", "ben"] {
                let mut client = Client::connect(addr, who).await;
                client.say("1").await;
                client.say("2").await;
                assert_eq!(client.leave().await, expected, "{place}, {who}");
            }
        }
        let closes = ThrottleBackend::new(memory().1).on_excess(OnExcess::Close);
        let mut ann = Client::connect(start(put(closes)).await, "ann").await;
        ann.say("1").await;
        ann.say("2").await;
        assert_eq!(ann.hear().await, "1", "{place}");
        assert!(ann.hear().await.starts_with("close: 1008"), "{place}");
    }
}

/// A backend that a middleware would choose.
struct Chosen(ThrottleBackend);

/// Issue 9.5 (h): all that a client had sent was seen to in one go, while the rest of its worker waited.
#[actix_web::test]
async fn a_flood_lets_others_run() {
    const FLOOD: usize = 5_000;

    async fn sink(
        req: HttpRequest,
        body: web::Payload,
        limits: web::Data<WsThrottle>,
    ) -> actix_web::Result<HttpResponse> {
        let (response, session, mut messages) = limits.handle(&req, body).await?;
        spawn(async move {
            while let Some(Ok(_)) = messages.recv().await {}
            drop(session);
        });
        Ok(response)
    }

    for rate in ["1/day", "1000000/day"] {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        let all = throttle("flood", rate).backend(memory().1).build().unwrap();
        let rule = WsRule::new(all).when(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            true
        });
        let limits = WsThrottle::new(rule).on_excess(OnExcess::Discard);
        let app = App::new()
            .app_data(web::Data::new(limits))
            .route("/", web::get().to(sink));
        let mut ann = serve_pipes(app).await("ann").await;
        for _ in 1..FLOOD {
            ann.feed("flood").await;
        }
        let beside = spawn(async move {
            let (mut before, mut most) = (0, 0);
            while before < FLOOD {
                let mut paused = false;
                poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    match std::mem::replace(&mut paused, true) {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    }
                })
                .await;
                let now = seen.load(Ordering::Relaxed);
                most = most.max(now - before);
                before = now;
            }
            most
        });
        ann.say("flood").await;
        let most = beside.await.unwrap();
        assert!(most <= 64, "{most} messages without a pause");
    }
}

/// Issue 9.11, of handshakes.
#[actix_web::test]
async fn a_denied_handshake_says_when_to_come_back() {
    let nobody = throttle("nobody", "1/day")
        .identify(|_: &HttpRequest| Err::<Identity, _>("nobody"))
        .on_error_by(async |failed: &Failed<'_>| Ok(failed.deny_for(Duration::from_secs(9))))
        .on_denied(|_| HttpResponse::ImATeapot().finish())
        .build()
        .unwrap();
    let mut socket = TcpStream::connect(serve(nobody.into()).await)
        .await
        .unwrap();
    let handshake = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(handshake.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(socket).lines();
    let mut head = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap()
        && !line.is_empty()
    {
        head.push(line.to_lowercase());
    }
    assert!(head[0].contains("418"), "{head:?}");
    assert!(head.contains(&"retry-after: 9".to_owned()), "{head:?}");
    assert!(
        head.contains(&"cache-control: no-store".to_owned()),
        "{head:?}"
    );
}
