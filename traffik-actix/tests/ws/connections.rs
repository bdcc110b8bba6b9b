//! So many connections at a time.

use std::time::Duration;

use actix_web::{App, web};
use traffik_actix::traffik_core::ConcurrencyInfo;
use traffik_actix::{ConcurrencyLimit, WsThrottle};

use crate::client::Client;
use crate::server::{echo, name, serve, serve_app};
use crate::support::{memory, throttle};

fn tabs() -> ConcurrencyLimit {
    let tabs = ConcurrencyLimit::builder("tabs").in_flight(2);
    tabs.identify(name).build().unwrap()
}

fn messages() -> WsThrottle {
    let (_, backend) = memory();
    WsThrottle::new(
        throttle("messages", "1000/day")
            .backend(backend)
            .build()
            .unwrap(),
    )
}

/// Until it is, which is in a moment.
async fn connects(addr: std::net::SocketAddr, who: &str) -> Client {
    for _ in 0..30_000 {
        match Client::try_connect(addr, who).await {
            Ok(client) => return client,
            Err(status) => assert_eq!(status, 429),
        }
        actix_web::rt::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("its place was never free");
}

/// By the limits of messages, and by a middleware around the handler, however a connection ends.
#[actix_web::test]
async fn connections_of_a_client_are_counted_until_they_end() {
    let of_messages = tabs();
    let around = tabs();
    let app = App::new()
        .app_data(web::Data::new(messages()))
        .service(web::resource("/").wrap(around.clone()).get(echo));
    let addrs = [
        (
            serve(messages().connections(of_messages.clone())).await,
            of_messages,
        ),
        (serve_app(app).await, around),
    ];
    for (addr, limit) in addrs {
        let mut one = Client::connect(addr, "ann").await;
        let mut two = Client::connect(addr, "ann").await;
        assert_eq!(Client::try_connect(addr, "ann").await.unwrap_err(), 429);
        let mut other = Client::connect(addr, "bob").await;
        for client in [&mut one, &mut two, &mut other] {
            client.say("hello").await;
            assert_eq!(client.hear().await, "hello");
        }
        assert_eq!(limit.counter().info().in_flight, 3);
        // Its socket is closed without a word.
        drop(one);
        let mut three = connects(addr, "ann").await;
        three.say("hello").await;
        assert_eq!(three.hear().await, "hello");
        assert_eq!(Client::try_connect(addr, "ann").await.unwrap_err(), 429);
        drop((two, three, other));
        for _ in 0..30_000 {
            if limit.counter().info().in_flight == 0 {
                break;
            }
            actix_web::rt::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(limit.counter().info(), ConcurrencyInfo::default());
    }
}
