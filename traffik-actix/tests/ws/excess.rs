//! What is done about messages beyond their limits.

use std::time::Duration;

use actix_web::rt::spawn;
use actix_web::{App, HttpRequest, web};
use futures_util::FutureExt;
use tokio::task::consume_budget;
use traffik_actix::strategy::Gcra;
use traffik_actix::{Excess, HttpThrottle, OnExcess, WsRule, WsThrottle};

use crate::client::Client;
use crate::server::{app, serve, serve_app, serve_pipes};
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
