use std::time::Duration;

use traffik_core::{Backend, Gcra, Identity, RedisBackend, TokenBucket};

use super::{builder, throttle};
use crate::support::{RedisCluster, RedisServer};

#[tokio::test]
async fn keys_live_as_long_as_they_matter() {
    let server = RedisServer::start();
    let ann = Identity::of("ann");
    for (strategy, rate) in [("fixed", "5/day"), ("bucket", "5/1h"), ("gcra", "3/ms")] {
        let throttle = builder(strategy, rate, server.backend());
        let throttle = match strategy {
            "fixed" => throttle,
            "bucket" => throttle.strategy(TokenBucket::new()),
            _ => throttle.strategy(Gcra::new().burst_tolerance(Duration::from_secs(9))),
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

/// On a cluster as well, where each node answers for itself.
#[tokio::test]
async fn a_reset_that_is_refused_says_so() {
    let user = [
        "ACL", "SETUSER", "clerk", "on", "nopass", "~*", "+@all", "-unlink",
    ];
    let clerk = |url: String| url.replace("redis://", "redis://clerk:x@");
    let (server, cluster) = (RedisServer::start(), RedisCluster::start());
    for node in cluster.nodes().iter().chain([&server]) {
        let () = node.command(&user);
    }
    let nodes = clerk(cluster.urls().remove(0));
    for builder in [
        RedisBackend::builder(&clerk(server.url())),
        RedisBackend::cluster([&*nodes]),
    ] {
        let backend = builder.deadline(Duration::from_secs(10)).build().unwrap();
        let api = throttle("api", "1/day", backend.clone());
        let ann = Identity::of("ann");
        assert!(api.hit(&ann).await.unwrap().is_allowed());
        let error = backend.reset().await.unwrap_err().to_string();
        let expected = "redis refused the command: NOPERM";
        assert!(error.starts_with(expected), "{error}");
        assert!(api.hit(&ann).await.unwrap().is_denied());
    }
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
