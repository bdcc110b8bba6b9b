//! Limits that cannot be checked.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::error::{ErrorBadGateway, ErrorServiceUnavailable, ErrorUnauthorized};
use actix_web::{App, HttpRequest, HttpResponse, web};
use tokio_tungstenite::tungstenite::Message;
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::{Error, Failed, HttpThrottleBuilder, Identity, OnError, OnExcess, WsThrottle};

use crate::client::Client;
use crate::server::{serve, serve_app};
use crate::store::Store;
use crate::support::{memory, notice, throttle};

/// What is said when the client is not to blame.
fn unchecked(seconds: u64) -> String {
    notice(seconds).replace(
        "Too many messages",
        "Rate limits cannot be checked at the moment",
    )
}

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
    assert_eq!(denied.leave().await, [unchecked(1)]);

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
    assert_eq!(asked.leave().await, [unchecked(7)]);

    let looks = async |failed: &Failed<'_>| match failed.request.headers().contains_key("upgrade") {
        true => Ok(failed.deny_for(Duration::from_secs(9))),
        false => Err(Error::other("this is not the handshake")),
    };
    let by = throttle("api", "1/day").backend(Store::down());
    let mut looks = connect(by.on_error_by(looks), OnExcess::Notify).await;
    looks.say("1").await;
    assert_eq!(looks.leave().await, [unchecked(9)]);

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
    assert_eq!(heard, [unchecked(1)]);
}

/// Identities that cannot be found for the first `failures` times.
fn flaky<E: Display + 'static>(failures: usize, error: fn() -> E) -> HttpThrottleBuilder {
    let asked = Arc::new(AtomicUsize::new(0));
    throttle("api", "1/day").identify_async(async move |_: &HttpRequest| {
        actix_web::rt::task::yield_now().await;
        match asked.fetch_add(1, Ordering::Relaxed) >= failures {
            true => Ok(Identity::of("ann")),
            false => Err(error()),
        }
    })
}

/// Otherwise a client that leaves its credentials out would be unlimited.
#[actix_web::test]
async fn a_handshake_that_makes_no_sense_is_refused_whatever_the_policy() {
    for policy in [OnError::Allow, OnError::Throttle, OnError::Raise] {
        let refused = async |throttle: HttpThrottleBuilder| {
            let throttle = throttle.on_error(policy.clone()).build().unwrap();
            let addr = serve(WsThrottle::new(throttle)).await;
            Client::try_connect(addr, "ann").await.unwrap_err()
        };
        assert_eq!(refused(flaky(1, || "no key")).await, 400);
        assert_eq!(refused(flaky(1, || ErrorUnauthorized("no key"))).await, 401);
        let down = || ErrorServiceUnavailable("the sessions cannot be reached");
        assert_eq!(refused(flaky(1, down)).await, 503);
    }
}

#[actix_web::test]
async fn who_is_let_in_unknown_is_asked_again() {
    let (_, backend) = memory();
    let lenient = async |failed: &Failed<'_>| Ok(failed.allow());
    let api = flaky(3, || "no key").on_error_by(lenient).backend(backend);
    let limits = WsThrottle::new(api.build().unwrap());
    let mut ann = Client::connect(serve(limits).await, "ann").await;
    // Unknown at the handshake and with two messages; then it is known, and stays known.
    for text in ["1", "2", "3", "4", "5"] {
        ann.say(text).await;
    }
    assert_eq!(ann.leave().await, ["1", "2", "3", &notice(86_400)]);
}

/// Who was let in unknown may still be denied, which charges nothing, or be shown the door.
#[actix_web::test]
async fn who_stays_unknown_is_at_the_mercy_of_the_handler() {
    let (_, backend) = memory();
    let with = |error: fn() -> actix_web::Error| {
        let asked = AtomicUsize::new(0);
        let strict_later = OnError::handler(move |failure| {
            let answer = match asked.fetch_add(1, Ordering::Relaxed) {
                0 | 2 => Ok(failure.allow()),
                1 => Ok(failure.deny_for(Duration::from_secs(5))),
                _ => Err(failure.error.clone()),
            };
            async move { answer }
        });
        let user = flaky(usize::MAX, error).on_error(strict_later);
        let all = throttle("all", "9/day").build().unwrap();
        let limits = WsThrottle::new(user.build().unwrap()).rule(all);
        serve(limits.backend(backend.clone()))
    };
    let mut ann = Client::connect(with(|| ErrorUnauthorized("no key")).await, "ann").await;
    for text in ["1", "2", "3"] {
        ann.say(text).await;
    }
    assert_eq!(ann.hear().await, unchecked(5));
    assert_eq!(ann.hear().await, "2");
    let expected = "close: 1008 the limits cannot make sense of the handshake";
    assert_eq!(ann.hear().await, expected);

    let mut ben = Client::connect(with(|| ErrorBadGateway("no sessions")).await, "ben").await;
    for text in ["1", "2", "3"] {
        ben.say(text).await;
    }
    assert_eq!(ben.hear().await, unchecked(5));
    assert_eq!(ben.hear().await, "2");
    let expected = "close: 1011 rate limits cannot be checked";
    assert_eq!(ben.hear().await, expected);
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
