//! What counts, for whom, and how much.

use actix_web::HttpRequest;
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::{
    Identity, Limits, OnExcess, Rate, Tenants, ThrottleBackend, WsRule, WsThrottle,
};

use crate::client::Client;
use crate::server::{name, serve};
use crate::support::{memory, notice, throttle};

#[actix_web::test]
async fn admits_the_limit_and_tells_once_about_the_rest() {
    let (clock, backend) = memory();
    // Pings are not limited here: they tell that everything before them has been dealt with.
    let texts = throttle("texts", "2/10s").backend(backend).build().unwrap();
    let rule = WsRule::new(texts).when(|message| matches!(message, AggregatedMessage::Text(_)));
    let mut ann = Client::connect(serve(WsThrottle::new(rule)).await, "ann").await;
    for text in ["1", "2", "3", "4", "5"] {
        ann.say(text).await;
    }
    ann.ping("all").await;
    for expected in ["1", "2", &notice(10), "pong: all"] {
        assert_eq!(ann.hear().await, expected);
    }
    clock.advance(std::time::Duration::from_micros(9_999_999));
    ann.say("a microsecond early").await;
    ann.ping("early").await;
    assert_eq!(ann.hear().await, "pong: early");
    clock.advance(std::time::Duration::from_micros(1));
    ann.say("in time").await;
    assert_eq!(ann.hear().await, "in time");
}

/// Issue: a limit per connection is multiplied by opening tabs.
#[actix_web::test]
async fn all_connections_of_a_client_share_one_limit() {
    let (_, backend) = memory();
    let messages = throttle("messages", "3/day")
        .identify(name)
        .backend(backend);
    let addr = serve(WsThrottle::new(messages.build().unwrap())).await;
    let (mut one, mut two) = (
        Client::connect(addr, "ann").await,
        Client::connect(addr, "ann").await,
    );
    for text in ["1", "2"] {
        one.say(text).await;
        assert_eq!(one.hear().await, text);
    }
    two.say("3").await;
    assert_eq!(two.hear().await, "3");
    for tab in [&mut one, &mut two] {
        tab.say("4").await;
        assert_eq!(tab.hear().await, notice(86_400));
    }
    let mut bob = Client::connect(addr, "bob").await;
    bob.say("another's").await;
    assert_eq!(bob.hear().await, "another's");
}

#[actix_web::test]
async fn a_rule_per_connection_counts_each_beside_the_client() {
    let (_, backend) = memory();
    let client = throttle("client", "3/day").build().unwrap();
    let connection = throttle("connection", "2/day").build().unwrap();
    let limits = WsThrottle::new(client)
        .rule(WsRule::new(connection).per_connection())
        .backend(backend);
    let addr = serve(limits).await;
    let mut tabs = [
        Client::connect(addr, "ann").await,
        Client::connect(addr, "ann").await,
    ];
    let mut passed = Vec::new();
    for tab in &mut tabs {
        for _ in 0..3 {
            tab.say("hi").await;
        }
        passed.push(tab.leave().await);
    }
    let denied = notice(86_400);
    assert_eq!(passed[0], ["hi", "hi", &denied], "two by the connection");
    assert_eq!(passed[1], ["hi", &denied], "the third of the client");
}

#[actix_web::test]
async fn kinds_may_have_limits_of_their_own() {
    let (_, backend) = memory();
    let texts = WsRule::new(throttle("texts", "1/day").build().unwrap())
        .when(|message| matches!(message, AggregatedMessage::Text(_)));
    let binaries = WsRule::new(throttle("binaries", "2/day").build().unwrap())
        .when(|message| matches!(message, AggregatedMessage::Binary(_)));
    let limits = WsThrottle::new(texts).rule(binaries).backend(backend);
    let mut ann = Client::connect(serve(limits).await, "ann").await;
    for _ in 0..3 {
        ann.say("text").await;
        ann.send(tokio_tungstenite::tungstenite::Message::binary(vec![7]))
            .await;
    }
    let denied = notice(86_400);
    // Each throttle has its own say: a notice by one does not silence the other.
    let expected = [
        "text",
        "binary: 1 bytes",
        &denied,
        "binary: 1 bytes",
        &denied,
    ];
    assert_eq!(ann.leave().await, expected);
}

#[actix_web::test]
async fn messages_and_bytes_are_one_decision() {
    let (_, backend) = memory();
    let messages = throttle("messages", "4/day").build().unwrap();
    let bytes = throttle("bytes", "10/day").build().unwrap();
    let limits = WsThrottle::new(messages)
        .rule(WsRule::new(bytes).per_byte())
        .backend(backend);
    let mut ann = Client::connect(serve(limits).await, "ann").await;
    ann.say("12345").await;
    // Denied by its bytes, at no cost in messages; then by a limit that it can never keep.
    ann.say("123456").await;
    ann.say("12345678901").await;
    ann.say("").await;
    ann.say("1234").await;
    ann.say("").await;
    let heard = ann.leave().await;
    assert_eq!(heard, ["12345", &notice(86_400), "", "1234"]);
}

#[actix_web::test]
async fn pings_and_pongs_count_and_goodbyes_do_not() {
    let (_, backend) = memory();
    let all = throttle("all", "3/day").backend(backend).build().unwrap();
    let mut ann = Client::connect(serve(WsThrottle::new(all)).await, "ann").await;
    ann.ping("1").await;
    ann.send(tokio_tungstenite::tungstenite::Message::Pong("2".into()))
        .await;
    ann.ping("3").await;
    ann.ping("4").await;
    ann.say("5").await;
    assert_eq!(ann.hear().await, "pong: 1");
    assert_eq!(ann.hear().await, "pong: 3");
    assert_eq!(ann.hear().await, notice(86_400));
    assert_eq!(ann.leave().await, Vec::<String>::new());
}

/// What a throttle asks about its request, it asks about the handshake, once.
#[actix_web::test]
async fn rates_and_costs_of_the_handshake_hold_for_its_messages() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let (_, backend) = memory();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let all = throttle("all", "1/day")
        .identify_async(async move |req: &actix_web::HttpRequest| {
            count.fetch_add(1, Ordering::Relaxed);
            name(req)
        })
        .rate_by(|_: &actix_web::HttpRequest| traffik_actix::Rate::per_day(7))
        .cost_by(|_: &actix_web::HttpRequest| 3_u32)
        .backend(backend);
    let addr = serve(WsThrottle::new(all.build().unwrap())).await;
    let mut ann = Client::connect(addr, "ann").await;
    for text in ["1", "2", "3"] {
        ann.say(text).await;
    }
    assert_eq!(ann.leave().await, ["1", "2", &notice(86_400)]);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// The handshake says whose client it is, and where its messages count.
#[actix_web::test]
async fn messages_of_two_tenants_counted_in_one_backend() {
    let memories = [memory().1, memory().1];
    let backends = memories.clone();
    let tenants = Tenants::new(move |tenant: &str| match tenant {
        "north" => Ok(ThrottleBackend::new(backends[0].clone())),
        "south" => Ok(ThrottleBackend::new(backends[1].clone())),
        _ => Err("there is no such tenant"),
    });
    let messages = throttle("messages", "3/day")
        .identify(|_: &HttpRequest| Identity::of("ann"))
        .backend_by_async(async move |req: &HttpRequest| {
            let tenant = req.headers().get("x-name").unwrap().to_str().unwrap();
            tenants.open(tenant).await
        });
    // Beside it one that counts for all tenants together.
    let all = throttle("all", "8/day").identify(|_: &HttpRequest| Identity::of("ann"));
    let all = all.backend(memory().1).build().unwrap();
    let limits = WsThrottle::new(messages.build().unwrap()).rule(all);
    let addr = serve(limits).await;
    let passed = async |tenant: &str, times: usize| {
        let mut client = Client::connect(addr, tenant).await;
        for _ in 0..times {
            client.say("hi").await;
        }
        let heard = client.leave().await;
        heard.into_iter().filter(|text| text == "hi").count()
    };
    assert_eq!(passed("north", 2).await, 2);
    assert_eq!(passed("south", 5).await, 3);
    assert_eq!(passed("north", 5).await, 1);
    assert_eq!(memories.each_ref().map(|memory| memory.len()), [1, 1]);
    // Before anybody has said anything.
    let refused = Client::try_connect(addr, "west").await;
    assert_eq!(refused.err(), Some(400));
    assert_eq!(memories.each_ref().map(|memory| memory.len()), [1, 1]);
}

#[actix_web::test]
async fn whoever_is_exempt_is_not_limited() {
    let (_, backend) = memory();
    let all = throttle("all", "1/day")
        .identify(|_: &actix_web::HttpRequest| traffik_actix::Identity::EXEMPT)
        .backend(backend);
    let addr = serve(WsThrottle::new(all.build().unwrap())).await;
    let mut boss = Client::connect(addr, "boss").await;
    for _ in 0..5 {
        boss.say("hi").await;
    }
    assert_eq!(boss.leave().await, ["hi"; 5]);
}

/// How many of nine texts pass.
async fn passed(client: &mut Client) -> usize {
    for _ in 0..9 {
        client.say("hi").await;
    }
    client.ping("all").await;
    let mut passed = 0;
    while client.hear().await == "hi" {
        passed += 1;
    }
    passed
}

/// Open connections follow their limits, those included that were opened while there was none.
#[actix_web::test]
async fn limits_change_while_connections_are_open() {
    let (_, backend) = memory();
    let limits = Limits::new();
    let texts = throttle("texts", "2/day").identify(name).backend(backend);
    let rule = WsRule::new(limits.add(texts).unwrap())
        .when(|message| matches!(message, AggregatedMessage::Text(_)));
    let addr = serve(WsThrottle::new(rule).on_excess(OnExcess::Discard)).await;
    let mut ann = Client::connect(addr, "ann").await;
    limits.disable("texts").unwrap();
    let mut bob = Client::connect(addr, "bob").await;
    assert_eq!(
        (passed(&mut ann).await, passed(&mut bob).await),
        (9, 9),
        "disabled"
    );
    limits.enable("texts").unwrap();
    assert_eq!(
        (passed(&mut ann).await, passed(&mut bob).await),
        (2, 2),
        "enabled"
    );
    limits.update("texts", |texts| texts.rate("5/day")).unwrap();
    assert_eq!(
        (passed(&mut ann).await, passed(&mut bob).await),
        (3, 3),
        "raised"
    );
    limits
        .update("texts", |texts| texts.strategy("token_bucket,burst=4"))
        .unwrap();
    assert_eq!(
        (passed(&mut ann).await, passed(&mut bob).await),
        (4, 4),
        "of another strategy"
    );
}

/// Its own rate is none then, and the function was never asked.
#[actix_web::test]
async fn open_connections_were_not_limited_by_a_rate_that_became_a_function() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let (_, backend) = memory();
    let (limits, asked) = (Limits::new(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let texts = throttle("texts", "2/day").identify(move |req: &HttpRequest| {
        count.fetch_add(1, Ordering::Relaxed);
        name(req)
    });
    let rule = WsRule::new(limits.add(texts.backend(backend)).unwrap())
        .when(|message| matches!(message, AggregatedMessage::Text(_)));
    let addr = serve(WsThrottle::new(rule).on_excess(OnExcess::Discard)).await;
    let mut ann = Client::connect(addr, "ann").await;
    assert_eq!(passed(&mut ann).await, 2);
    let count = Arc::clone(&asked);
    let by_function = move |_: &HttpRequest| {
        count.fetch_add(1, Ordering::Relaxed);
        Rate::per_day(5)
    };
    limits
        .update("texts", |it| it.rate_by(by_function))
        .unwrap();
    assert_eq!(passed(&mut ann).await, 3, "under the rate of the function");
    assert_eq!(passed(&mut ann).await, 0);
    let by_function = |_: &HttpRequest| Rate::per_day(11);
    limits
        .update("texts", |it| it.rate_by(by_function))
        .unwrap();
    assert_eq!(passed(&mut ann).await, 0, "what a function gave stays");
    assert_eq!(asked.load(Ordering::Relaxed), 2, "each of them once");
}

#[actix_web::test]
async fn open_connections_did_not_ask_for_a_cost_that_became_a_function() {
    let (_, backend) = memory();
    let limits = Limits::new();
    let texts = throttle("texts", "7/day").identify(name).backend(backend);
    let rule = WsRule::new(limits.add(texts).unwrap())
        .when(|message| matches!(message, AggregatedMessage::Text(_)));
    let addr = serve(WsThrottle::new(rule).on_excess(OnExcess::Discard)).await;
    let mut ann = Client::connect(addr, "ann").await;
    let by_function = |_: &HttpRequest| 3_u32;
    limits
        .update("texts", |it| it.cost_by(by_function))
        .unwrap();
    assert_eq!(passed(&mut ann).await, 2);
    // One that makes no sense of the handshake lets nobody pass.
    limits.update("texts", |it| it.rate("99/day")).unwrap();
    let mut bob = Client::connect(addr, "bob").await;
    limits
        .update("texts", |it| {
            it.rate_by(|_: &HttpRequest| Err::<Rate, _>("no plan"))
        })
        .unwrap();
    bob.say("hi").await;
    assert!(
        bob.hear().await.starts_with("close"),
        "it cannot be said what is left"
    );
}
