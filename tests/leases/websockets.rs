use traffik_actix::{HttpThrottle, WsThrottle};
use traffik_core::{BackendExt, Lease};

use crate::support::RedisServer;
use crate::support::ws::client::Client;
use crate::support::ws::server::{self as server, serve};

/// Frames are decided here, and there are no more of them than the limit allows.
#[test]
fn the_messages_of_a_client_are_leased() {
    let redis = RedisServer::start();
    actix_rt::System::new().block_on(async {
        let leased = redis.backend().lease(Lease::new());
        let throttle = HttpThrottle::builder("messages")
            .rate("2000/day")
            .identify(server::name)
            .build()
            .unwrap();
        let limits = WsThrottle::new(throttle).backend(leased.clone());
        let mut client = Client::connect(serve(limits).await, "ann").await;
        for at in 0..1_000 {
            client.say(&at.to_string()).await;
            assert_eq!(client.hear().await, at.to_string());
        }
        let info = leased.info();
        assert!(info.local > 500 && info.trips < 500, "{info:?}");
    });
}
