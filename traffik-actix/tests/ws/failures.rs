//! Limits that cannot be checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, web};
use tokio_tungstenite::tungstenite::Message;
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::{Error, Failed, HttpThrottleBuilder, Identity, OnError, OnExcess, WsThrottle};

use crate::client::Client;
use crate::server::{serve, serve_app};
use crate::store::Store;
use crate::support::{memory, notice, throttle};

async fn connect(throttle: HttpThrottleBuilder, on_excess: OnExcess) -> Client {
    let limits = WsThrottle::new(throttle.build().unwrap()).on_excess(on_excess);
    Client::connect(serve(limits).await, "ann").await
}

#[actix_web::test]
async fn the_policy_of_the_throttle_decides_about_each_message() {
    let broken = |policy| {
        throttle("api", "1/day")
            .backend(Store::down())
            .on_error(policy)
    };

    let mut allowed = connect(broken(OnError::Allow), OnExcess::Close).await;
    allowed.say("1").await;
    allowed.say("2").await;
    assert_eq!(allowed.leave().await, ["1", "2"]);

    let mut denied = connect(broken(OnError::Throttle), OnExcess::Notify).await;
    denied.say("1").await;
    assert_eq!(denied.leave().await, [notice(1)]);

    // It is not the client's fault: code 1013, try again later.
    let mut closed = connect(broken(OnError::Throttle), OnExcess::Close).await;
    closed.say("1").await;
    let expected = "close: 1013 rate_limit;retry_after_ms=1000";
    assert_eq!(closed.hear().await, expected);

    let mut raised = connect(broken(OnError::Raise), OnExcess::Notify).await;
    raised.say("1").await;
    let expected = "close: 1011 rate limits cannot be checked";
    assert_eq!(raised.hear().await, expected);

    let asked = OnError::handler(|failure| {
        let wait = failure.deny_for(Duration::from_secs(7));
        async move { Ok(wait) }
    });
    let mut asked = connect(broken(asked), OnExcess::Notify).await;
    asked.say("1").await;
    assert_eq!(asked.leave().await, [notice(7)]);

    let looks = async |failed: &Failed<'_>| match failed.request.headers().contains_key("upgrade") {
        true => Ok(failed.deny_for(Duration::from_secs(9))),
        false => Err(Error::other("this is not the handshake")),
    };
    let by = throttle("api", "1/day").backend(Store::down());
    let mut looks = connect(by.on_error_by(looks), OnExcess::Notify).await;
    looks.say("1").await;
    assert_eq!(looks.leave().await, [notice(9)]);

    let fails = OnError::handler(|_| async { Err(Error::other("the handler failed, too")) });
    let mut fails = connect(broken(fails), OnExcess::Notify).await;
    fails.say("1").await;
    let expected = "close: 1011 rate limits cannot be checked";
    assert_eq!(fails.hear().await, expected);
}

#[actix_web::test]
async fn a_store_that_comes_back_counts_again() {
    let store = Store::over(memory().1, true);
    let api = throttle("api", "1/day").backend(store.clone());
    let api = api.on_error(OnError::Allow).build().unwrap();
    let mut ann = Client::connect(serve(api.into()).await, "ann").await;
    for text in ["1", "2"] {
        ann.say(text).await;
        assert_eq!(ann.hear().await, text);
    }
    store.down.store(false, Ordering::Relaxed);
    for text in ["3", "4"] {
        ann.say(text).await;
    }
    assert_eq!(ann.leave().await, ["3", &notice(86_400)]);
}

/// Denials by a store that is down do not make a client an offender.
#[actix_web::test]
async fn failures_do_not_count_as_denials_in_a_row() {
    let limits = throttle("api", "1/day")
        .backend(Store::down())
        .build()
        .unwrap();
    let limits = WsThrottle::new(limits).close_after(2);
    let mut ann = Client::connect(serve(limits).await, "ann").await;
    for _ in 0..5 {
        ann.say("1").await;
    }
    // On a slow machine the second is over before the last of them, and it is told again.
    let mut heard = ann.leave().await;
    heard.dedup();
    assert_eq!(heard, [notice(1)]);
}

/// Identities that cannot be found for the first `failures` times.
fn flaky(failures: usize) -> HttpThrottleBuilder {
    let asked = Arc::new(AtomicUsize::new(0));
    throttle("api", "1/day").identify_async(async move |_: &HttpRequest| {
        actix_web::rt::task::yield_now().await;
        match asked.fetch_add(1, Ordering::Relaxed) >= failures {
            true => Ok(Identity::of("ann")),
            false => Err("the sessions cannot be reached"),
        }
    })
}

#[actix_web::test]
async fn who_cannot_be_told_is_refused_or_asked_again() {
    let (_, backend) = memory();
    let with = |policy| {
        let api = flaky(3).on_error(policy).backend(backend.clone());
        WsThrottle::new(api.build().unwrap())
    };
    let refused = async |policy| {
        let addr = serve(with(policy)).await;
        Client::try_connect(addr, "ann").await.unwrap_err()
    };
    assert_eq!(refused(OnError::Throttle).await, 429);
    assert_eq!(refused(OnError::Raise).await, 503);

    let mut ann = Client::connect(serve(with(OnError::Allow)).await, "ann").await;
    // Unknown at the handshake and with two messages; then it is known, and stays known.
    for text in ["1", "2", "3", "4", "5"] {
        ann.say(text).await;
    }
    assert_eq!(ann.leave().await, ["1", "2", "3", &notice(86_400)]);
}

/// Who was let in unknown may still be denied, which charges nothing.
#[actix_web::test]
async fn who_stays_unknown_is_denied_if_the_policy_changes_its_mind() {
    let (_, backend) = memory();
    let asked = AtomicUsize::new(0);
    let strict_later = OnError::handler(move |failure| {
        let answer = match asked.fetch_add(1, Ordering::Relaxed) {
            0 => failure.allow(),
            1 => failure.deny_for(Duration::from_secs(5)),
            _ => failure.allow(),
        };
        async move { Ok(answer) }
    });
    let user = flaky(usize::MAX).on_error(strict_later).build().unwrap();
    let all = throttle("all", "1/day").build().unwrap();
    let limits = WsThrottle::new(user).rule(all).backend(backend);
    let mut ann = Client::connect(serve(limits).await, "ann").await;
    for text in ["1", "2", "3"] {
        ann.say(text).await;
    }
    assert_eq!(ann.leave().await, [&notice(5), "2", &notice(86_400)]);
}

/// A handler that polls beside other things drops `recv` again and again.
#[actix_web::test]
async fn a_message_that_is_being_decided_is_neither_lost_nor_charged_twice() {
    async fn impatient(
        req: HttpRequest,
        body: web::Payload,
        limits: web::Data<WsThrottle>,
    ) -> actix_web::Result<HttpResponse> {
        let (response, mut session, mut messages) = limits.handle(&req, body).await?;
        actix_web::rt::spawn(async move {
            loop {
                let message = tokio::select! {
                    biased;
                    message = messages.recv() => message,
                    () = actix_web::rt::task::yield_now() => continue,
                };
                match message {
                    Some(Ok(AggregatedMessage::Text(text))) => session.text(text).await.unwrap(),
                    Some(Ok(AggregatedMessage::Close(_))) => break session.close(None).await,
                    other => panic!("{other:?}"),
                }
            }
        });
        Ok(response)
    }

    let store = Store::over(memory().1, false);
    let api = throttle("api", "3/day").backend(store).build().unwrap();
    let limits = web::Data::new(WsThrottle::new(api).on_excess(OnExcess::Discard));
    let app = App::new()
        .app_data(limits)
        .route("/", web::get().to(impatient));
    let mut ann = Client::connect(serve_app(app).await, "ann").await;
    for text in ["1", "2", "3", "4"] {
        ann.send(Message::text(text)).await;
    }
    for text in ["1", "2", "3"] {
        assert_eq!(ann.hear().await, text);
    }
}
