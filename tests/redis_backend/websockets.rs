//! WebSockets of one client on several nodes.

use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, web};
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::{HttpThrottle, Identity, OnError, WsRule, WsThrottle};
use traffik_core::RedisBackend;

use crate::support::RedisServer;
use crate::support::ws::client::Client;
use crate::support::ws::server::{self as server, name, serve, serve_app};

fn throttle(name: &str, rate: &str) -> HttpThrottle {
    let throttle = HttpThrottle::builder(name)
        .rate(rate)
        .identify(server::name);
    throttle.build().unwrap()
}

/// Two limits for each message.
fn limits(backend: RedisBackend) -> WsThrottle {
    WsThrottle::new(throttle("messages", "30/day"))
        .rule(WsRule::new(throttle("bytes", "1000/day")).per_byte())
        .backend(backend)
}

#[test]
fn a_client_on_two_nodes_has_one_limit_and_each_message_is_one_round_trip() {
    let redis = RedisServer::start();
    actix_rt::System::new().block_on(async {
        let nodes = [
            serve(limits(redis.backend())).await,
            serve(limits(redis.backend())).await,
        ];
        let (mut one, mut two) = (
            Client::connect(nodes[0], "ann").await,
            Client::connect(nodes[1], "ann").await,
        );
        for node in [&mut one, &mut two] {
            node.say("the first brings the script along").await;
            assert_eq!(node.hear().await, "the first brings the script along");
        }
        redis.calls();
        for at in 0..5 {
            one.say(&at.to_string()).await;
            assert_eq!(one.hear().await, at.to_string());
        }
        assert_eq!(redis.calls()["evalsha"], 5);

        let talk = async |client: &mut Client| {
            for _ in 0..40 {
                client.say("x").await;
            }
            let mut heard = client.leave().await;
            heard.retain(|text| text == "x");
            heard.len()
        };
        let (one, two) = futures_util::future::join(talk(&mut one), talk(&mut two)).await;
        assert_eq!(one + two, 30 - 2 - 5);

        let mut bob = Client::connect(nodes[1], "bob").await;
        bob.say("mine").await;
        assert_eq!(bob.hear().await, "mine");
    });
}

/// Sends back what passes. Whoever says `as ann` is she from then on.
async fn log_in(
    req: HttpRequest,
    body: web::Payload,
    limits: web::Data<WsThrottle>,
) -> actix_web::Result<HttpResponse> {
    let (response, mut answers, mut messages) = limits.handle(&req, body).await?;
    let session = messages.session();
    actix_rt::spawn(async move {
        while let Some(Ok(AggregatedMessage::Text(text))) = messages.recv().await {
            if let Some(who) = text.strip_prefix("as ") {
                session.identify_as(Identity::of(who)).await.unwrap();
            }
            answers.text(text).await.unwrap();
        }
    });
    Ok(response)
}

/// What was taken is looked at and charged: two trips for each limit of which anything was. Of others nothing is asked.
#[test]
fn a_login_is_two_trips_for_each_limit_that_it_takes_along() {
    let redis = RedisServer::start();
    actix_rt::System::new().block_on(async {
        let is_said =
            |message: &AggregatedMessage| matches!(message, AggregatedMessage::Text(text) if !text.starts_with("as "));
        let pictures = WsRule::new(throttle("pictures", "9/day"))
            .when(|message| matches!(message, AggregatedMessage::Binary(_)));
        let limits = WsThrottle::new(WsRule::new(throttle("messages", "9/day")).when(is_said))
            .rule(WsRule::new(throttle("bytes", "900/day")).per_byte().when(is_said))
            .rule(pictures)
            .backend(redis.backend());
        let app = App::new()
            .app_data(web::Data::new(limits))
            .route("/", web::get().to(log_in));
        let addr = serve_app(app).await;
        let mut client = Client::connect(addr, "address").await;
        let mut says = async |text: &str| {
            client.say(text).await;
            assert_eq!(client.hear().await, text);
            let calls = redis.calls();
            let calls = ["evalsha", "eval"].map(|name| calls.get(name).copied());
            calls.into_iter().flatten().sum::<u64>()
        };
        assert_eq!(says("as nobody yet").await, 0, "there is nothing to take along");
        // The first brings the script along.
        assert!(says("hi").await >= 1);
        assert_eq!(says("hi").await, 1);
        assert!(says("as eve").await >= 4, "and other scripts");
        assert_eq!(says("hi").await, 1);
        assert_eq!(says("as ann").await, 2 * 2);
        // A login as the same one takes nothing along.
        assert_eq!(says("as ann").await, 0);
        for _ in 0..6 {
            assert_eq!(says("hi").await, 1);
        }
        client.say("hi").await;
        assert!(client.hear().await.contains("Too many messages"));
    });
}

#[test]
fn connections_counted_by_themselves_are_told_apart_on_all_nodes() {
    let redis = RedisServer::start();
    actix_rt::System::new().block_on(async {
        let limits = |backend| {
            let rule = WsRule::new(throttle("connection", "1/day")).per_connection();
            WsThrottle::new(rule).backend(backend)
        };
        for _ in 0..2 {
            let node = serve(limits(redis.backend())).await;
            for _ in 0..2 {
                let mut client = Client::connect(node, "ann").await;
                client.say("1").await;
                assert_eq!(client.hear().await, "1");
                client.say("2").await;
                assert!(client.hear().await.contains("Too many messages"));
            }
        }
        assert_eq!(redis.keys().len(), 4);
    });
}

#[test]
fn a_hung_store_holds_no_message_beyond_its_deadline() {
    let redis = RedisServer::start();
    actix_rt::System::new().block_on(async {
        let serve_with = async |on_error| {
            let backend = redis.builder().deadline(Duration::from_millis(80));
            let throttle = HttpThrottle::builder("messages")
                .rate("1000/day")
                .identify(name)
                .on_error(on_error)
                .backend(backend.build().unwrap());
            let node = serve(throttle.build().unwrap().into()).await;
            Client::connect(node, "ann").await
        };
        let mut allowed = serve_with(OnError::Allow).await;
        let mut denied = serve_with(OnError::Throttle).await;
        let mut raised = serve_with(OnError::Raise).await;
        redis.pause();
        // Nobody answers; each hears all the same.
        for client in [&mut allowed, &mut denied, &mut raised] {
            client.say("anybody?").await;
        }
        assert_eq!(allowed.hear().await, "anybody?");
        assert!(denied.hear().await.contains(r#""retry_after":1}"#));
        let closed = "close: 1011 rate limits cannot be checked";
        assert_eq!(raised.hear().await, closed);
        redis.resume();
    });
}
