use std::time::Duration;

use traffik_core::{
    Backend, BackendExt, CircuitBreaker, FixedWindow, Identity, Lease, Leased, MemoryBackend,
    RedisBackend, Throttle, TokenBucket,
};

use super::throttle;
use crate::support::{MemcachedServer, RedisCluster, RedisServer, WatchedRedis};

/// Two nodes that hit in turn, quickly, until both deny: what they admit together.
async fn admitted<B: Backend + Clone>(nodes: &[Leased<B>; 2]) -> u32 {
    let api = nodes
        .each_ref()
        .map(|node| throttle("600/day", FixedWindow, node.clone()));
    let mut admitted = 0;
    for _ in 0..1_000 {
        for api in &api {
            admitted += u32::from(hit(api).await);
        }
    }
    admitted
}

async fn hit(api: &Throttle) -> bool {
    api.hit(&Identity::of("ann")).await.unwrap().is_allowed()
}

async fn shares_a_limit<B: Backend + Clone>(nodes: [B; 2]) {
    let nodes = nodes.map(|node| node.lease(Lease::new()));
    let together = admitted(&nodes).await;
    assert!((500..=600).contains(&together), "{together}");
    for node in &nodes {
        let info = node.info();
        assert!(info.lent > 0 && info.local > 500, "{info:?}");
        assert!(info.trips < 500, "{info:?}");
    }
}

#[tokio::test]
async fn nodes_share_a_limit_on_redis() {
    let server = RedisServer::start();
    shares_a_limit([server.backend(), server.backend()]).await;
}

#[tokio::test]
async fn nodes_share_a_limit_on_memcached() {
    let server = MemcachedServer::start();
    shares_a_limit([server.backend(), server.backend()]).await;
}

#[tokio::test]
async fn nodes_share_a_limit_on_a_cluster() {
    let cluster = RedisCluster::start();
    let urls = cluster.urls();
    let node = || {
        let builder = RedisBackend::cluster([urls[0].as_str()]);
        builder.deadline(Duration::from_secs(10)).build().unwrap()
    };
    shares_a_limit([node(), node()]).await;
}

#[tokio::test]
async fn nodes_share_a_limit_on_the_master_that_sentinels_name() {
    let watched = WatchedRedis::start();
    let url = watched.sentinel_url();
    let node = || {
        let builder = RedisBackend::sentinel([url.as_str()], "redis://shop");
        builder.deadline(Duration::from_secs(10)).build().unwrap()
    };
    shares_a_limit([node(), node()]).await;
}

/// What a shadow counts on leases is what it would have admitted in earnest: of one node all of the limit, and no more.
async fn counts_in_shadow<B: Backend + Clone>(backend: B) {
    let leased = backend.lease(Lease::new().length(Duration::from_secs(60)));
    let one = |name: &str| {
        let builder = Throttle::builder(name)
            .rate("600/day")
            .strategy(FixedWindow);
        builder.backend(leased.clone())
    };
    let earnest = one("earnest").build().unwrap();
    let shadow = one("trial").shadow().build().unwrap();
    let mut admitted = 0;
    for _ in 0..1_000 {
        admitted += u64::from(hit(&earnest).await);
        assert!(hit(&shadow).await);
    }
    let report = shadow.shadow_report();
    let info = leased.info();
    assert!(info.local > 500, "{info:?}");
    assert_eq!(admitted, 600, "{info:?}");
    assert_eq!((report.admitted, report.newly_denied), (600, 400));
    // In earnest it goes on where it was.
    shadow.set_shadow(false);
    assert!(!hit(&shadow).await);
}

#[tokio::test]
async fn a_shadow_on_leases_counted_something_else_than_it_would_admit() {
    let redis = RedisServer::start();
    counts_in_shadow(redis.builder().persistent(true).build().unwrap()).await;
    let memcached = MemcachedServer::start();
    counts_in_shadow(memcached.backend()).await;
}

/// A node that leases beside one that does not; what it held is there for the other when it closes.
#[tokio::test]
async fn what_a_node_held_another_may_have_once_it_is_closed() {
    let server = RedisServer::start();
    let keeping = server.builder().persistent(true).build().unwrap();
    // Longer than this process may be kept from running: what is held when a lease ends is stranded.
    let leased = keeping.lease(Lease::new().length(Duration::from_secs(60)));
    let one = throttle("600/day", TokenBucket::new(), leased.clone());
    let two = throttle("600/day", TokenBucket::new(), server.backend());
    for _ in 0..400 {
        assert!(hit(&one).await);
    }
    assert!(leased.info().held > 0);
    leased.close().await.unwrap();
    let mut rest = 0;
    while hit(&two).await {
        rest += 1;
    }
    assert_eq!(rest, 200, "{:?}", leased.info());
}

/// What a lease loses when it ends before it is spent is counted, and nothing else is lost.
#[tokio::test]
async fn what_is_not_there_for_others_was_stranded() {
    let server = RedisServer::start();
    let keeping = server.builder().persistent(true).build().unwrap();
    let leased = keeping.lease(Lease::new());
    let one = throttle("600/day", TokenBucket::new(), leased.clone());
    let two = throttle("600/day", TokenBucket::new(), server.backend());
    let (mut taken, mut rest) = (0, 0);
    while taken < 400 && hit(&one).await {
        taken += 1;
        if leased.info().held == 40 {
            // Until all that is held has ended, at once: nobody gives it back meanwhile.
            std::thread::sleep(Duration::from_millis(1_100));
        }
    }
    leased.close().await.unwrap();
    while hit(&two).await {
        rest += 1;
    }
    let info = leased.info();
    assert!(info.stranded > 0, "{info:?}");
    assert_eq!(taken + rest + info.stranded + info.void, 600, "{info:?}");
}

/// Nodes of which one asks seldom saw the count become less, took that for a loss, and undid it.
#[tokio::test]
async fn what_others_give_back_is_no_loss_to_a_node_that_asks_seldom() {
    let server = RedisServer::start();
    let node = || server.builder().persistent(true).build().unwrap();
    let redis = node();
    let seldom = throttle("600/day", FixedWindow, redis.clone().lease(Lease::new()));
    for _ in 0..3 {
        let leased = node().lease(Lease::new().length(Duration::from_secs(60)));
        let often = throttle("600/day", FixedWindow, leased.clone());
        for _ in 0..100 {
            assert!(hit(&often).await);
        }
        assert!(hit(&seldom).await);
        assert!(leased.info().held > 0);
        leased.close().await.unwrap();
        for _ in 0..3 {
            assert!(hit(&seldom).await);
            // Longer than two hits that make a key hot.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let stat = seldom.stat(&Identity::of("ann")).await.unwrap();
    assert_eq!(stat.remaining, 600 - 3 * 104);
    assert_eq!(redis.state_loss_total(), 0);
}

/// Commands, as the server counts them.
#[tokio::test]
async fn few_decisions_are_a_command() {
    let server = RedisServer::start();
    let leased = server.backend().lease(Lease::new());
    let api = throttle("1000000/day", TokenBucket::new(), leased.clone());
    assert!(hit(&api).await);
    server.calls();
    for _ in 0..5_000 {
        assert!(hit(&api).await);
    }
    let calls = server.calls()["evalsha"];
    assert!(calls < 500, "{calls}");
    assert!(calls <= leased.info().trips);
}

#[tokio::test]
async fn under_a_fallback_what_is_held_is_served_first() {
    let mut server = RedisServer::start();
    let backend = server
        .builder()
        .deadline(Duration::from_millis(300))
        .build()
        .unwrap()
        .guarded(CircuitBreaker::new())
        .lease(Lease::new().length(Duration::from_secs(60)));
    let api = throttle(
        "1000000/day",
        TokenBucket::new(),
        backend.clone().fallback(MemoryBackend::new()),
    );
    let decide = async || api.hit(&Identity::of("ann")).await.unwrap();
    while backend.info().held < 40 {
        assert!(!decide().await.is_degraded());
    }
    server.kill();
    let mut own = 0;
    while !decide().await.is_degraded() {
        own += 1;
    }
    assert!(own >= 20, "{own}");
    assert!(decide().await.is_allowed());
}
