use traffik_core::{Backend, Gcra, Identity, TokenBucket};

use super::{builder, throttle};
use crate::support::RedisServer;

#[tokio::test]
async fn keys_live_as_long_as_they_matter() {
    let server = RedisServer::start();
    let ann = Identity::of("ann");
    for (strategy, rate) in [("fixed", "5/day"), ("bucket", "5/1h"), ("gcra", "3/ms")] {
        let throttle = builder(strategy, rate, server.backend());
        let throttle = match strategy {
            "fixed" => throttle,
            "bucket" => throttle.strategy(TokenBucket::new()),
            _ => throttle.strategy(Gcra::new().burst_tolerance(std::time::Duration::from_secs(9))),
        };
        let reset = throttle.build().unwrap().hit(&ann).await.unwrap().reset();
        for key in server.keys() {
            let ttl: i128 = server.command(&["PTTL", &key]);
            // A key of a few hundred microseconds may be gone by now.
            assert!(ttl != -1, "{strategy}: lives for ever");
            assert!(ttl <= reset.as_millis() as i128 + 1, "{strategy}: {ttl} ms");
            assert!(
                ttl > reset.as_millis() as i128 - 5_000,
                "{strategy}: {ttl} ms"
            );
        }
        let _: () = server.command(&["FLUSHALL"]);
    }
}

#[tokio::test]
async fn reset_leaves_foreign_keys_alone() {
    let server = RedisServer::start();
    let ours = server.builder().namespace("shop").build().unwrap();
    let theirs = server.builder().namespace("shop:eu").build().unwrap();
    for who in 0..2_500 {
        let ann = Identity::of(who);
        assert!(
            throttle("api", "1/day", ours.clone())
                .hit(&ann)
                .await
                .unwrap()
                .is_allowed()
        );
    }
    let ann = Identity::of(7);
    assert!(
        throttle("api", "1/day", theirs.clone())
            .hit(&ann)
            .await
            .unwrap()
            .is_allowed()
    );
    for foreign in ["shop", "shop:{x}", "shop:cart:1", "other"] {
        let _: () = server.command(&["SET", foreign, "1"]);
    }

    ours.reset().await.unwrap();
    let _: () = server.command(&["DEL", "shop:reset"]);
    assert_eq!(server.keys().len(), 5);
    assert!(
        throttle("api", "1/day", ours)
            .hit(&ann)
            .await
            .unwrap()
            .is_allowed()
    );
    assert!(
        throttle("api", "1/day", theirs)
            .hit(&ann)
            .await
            .unwrap()
            .is_denied()
    );
}

#[tokio::test]
async fn closing_resets_unless_persistent() {
    let server = RedisServer::start();
    for (persistent, left) in [(true, "traffik:{"), (false, "traffik:reset")] {
        let backend = server.builder().persistent(persistent).build().unwrap();
        let throttle = throttle("api", "5/day", backend.clone());
        assert!(
            throttle
                .hit(&Identity::of("ann"))
                .await
                .unwrap()
                .is_allowed()
        );
        backend.close().await.unwrap();
        let keys = server.keys();
        assert!(keys.len() == 1 && keys[0].starts_with(left), "{keys:?}");
    }
}
