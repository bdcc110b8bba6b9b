//! What was charged in a Redis is settled there.

use std::sync::Arc;
use std::time::Duration;

use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, HttpRequest, HttpResponse, web};
use traffik_actix::HttpThrottle;
use traffik_core::{
    Attempt, FixedWindow, Flow, Identity, LeakyBucket, Quota, QuotaWithRollover,
    SlidingWindowCounter, SlidingWindowLog, Strategy, TokenBucket,
};

use super::{builder, throttle};
use crate::support::RedisServer;

/// As a hit of what it came to. A bucket gives back what cannot have drained meanwhile, which is less by what
/// drains in some milliseconds; and what drains between two looks may make up a whole.
#[tokio::test]
async fn a_permit_has_cost_what_it_is_settled_at() {
    let server = RedisServer::start();
    let ann = Identity::of("ann");
    let strategies: [(Arc<dyn Strategy>, u64); 6] = [
        (Arc::new(FixedWindow), 0),
        (Arc::new(SlidingWindowLog), 0),
        (Arc::new(SlidingWindowCounter), 0),
        (Arc::new(QuotaWithRollover::new()), 0),
        (Arc::new(TokenBucket::new()), 1),
        (Arc::new(LeakyBucket), 1),
    ];
    for (strategy, tolerance) in strategies {
        let id = strategy.id();
        let tokens = builder(id, "1000/day", server.backend());
        let tokens = tokens.strategy(strategy).build().unwrap();
        for (estimate, actual) in [(40, 10), (10, 40), (40, 0), (900, 1)] {
            let before = tokens.stat(&ann).await.unwrap().remaining;
            let reserved = tokens.reserve(Attempt::by(&ann).cost(estimate)).await;
            reserved.unwrap().unwrap().settle(actual).await.unwrap();
            let after = tokens.stat(&ann).await.unwrap().remaining;
            let told = before.abs_diff(after + u64::from(actual));
            assert!(
                told <= tolerance,
                "{id}: {before}, then {after} for {actual}"
            );
        }
    }
}

#[tokio::test]
async fn settlements_at_once_are_one_trip() {
    let server = RedisServer::start();
    let tokens = throttle("tokens", "1000/day", server.backend());
    let ann = Identity::of("ann");
    let mut permits = Vec::new();
    for _ in 0..10 {
        let reserved = tokens.reserve(Attempt::by(&ann).cost(50)).await;
        permits.push(reserved.unwrap().unwrap());
    }
    server.calls();
    for permit in permits {
        permit.settle_later(7);
    }
    // What is asked on the same connection afterwards comes after them.
    assert_eq!(tokens.hit(&ann).await.unwrap().remaining(), 1000 - 70 - 1);
    let trips = || {
        let calls = server.calls();
        let scripts = ["eval", "evalsha"].map(|name| calls.get(name).copied().unwrap_or(0));
        scripts.iter().sum::<u64>()
    };
    assert!((1..=2).contains(&trips()));
    // Neither do those of one quota, or of one permit, come one after the other.
    let mut quota = Quota::new();
    let many = ["ben", "cid", "dan", "eve"].map(Identity::of);
    for who in &many {
        quota.add(&tokens, Attempt::by(who).cost(30));
    }
    quota.charge();
    // The question comes after them on the same connection, with them or in a trip of its own.
    assert_eq!(tokens.stat(&many[3]).await.unwrap().remaining, 970);
    assert!((1..=2).contains(&trips()));
    for who in &many {
        assert_eq!(tokens.stat(who).await.unwrap().remaining, 970);
    }
}

#[tokio::test]
async fn a_meter_and_a_quota_count_there_too() {
    let server = RedisServer::start();
    let tokens = throttle("tokens", "100/day", server.backend());
    let ann = Identity::of("ann");
    let reserved = tokens.reserve(Attempt::by(&ann).cost(30)).await;
    let mut permit = reserved.unwrap().unwrap().ahead(0);
    assert_eq!(permit.meter(90).await.unwrap(), Flow::Go);
    assert!(matches!(permit.meter(20).await.unwrap(), Flow::Pause(_)));
    permit.settle(60).await.unwrap();
    let mut quota = Quota::new();
    quota.add(&tokens, Attempt::by(&ann).cost(30));
    quota.add(&tokens, Attempt::by(&ann).cost(20));
    assert!(!quota.check().await.unwrap());
    assert!(quota.apply().await.unwrap().is_denied());
    quota.charge();
    tokio::time::sleep(Duration::ZERO).await;
    assert_eq!(tokens.stat(&ann).await.unwrap().remaining, 0);
}

/// Only failed logins count, on two nodes that share them.
#[test]
fn logins_that_succeed_are_given_back_over_http() {
    let server = RedisServer::start();
    actix_rt::System::new().block_on(async {
        let node = async || {
            let logins = HttpThrottle::builder("logins")
                .rate("5/day")
                .identify(|_: &HttpRequest| Identity::of("ann"))
                .refund_if(|answered| answered.status().is_success())
                .backend(server.backend())
                .build()
                .unwrap();
            let login = async |req: HttpRequest| match req.query_string() {
                "right" => HttpResponse::Ok(),
                _ => HttpResponse::Unauthorized(),
            };
            init_service(App::new().wrap(logins).route("/", web::get().to(login))).await
        };
        let nodes = [node().await, node().await];
        let status = async |at: usize, path: &str| {
            let request = TestRequest::get().uri(path).to_request();
            call_service(&nodes[at], request).await.status().as_u16()
        };
        for at in 0..20 {
            assert_eq!(status(at % 2, "/?right").await, 200);
            // The other node has another connection.
            actix_rt::time::sleep(Duration::from_millis(2)).await;
        }
        for at in 0..5 {
            assert_eq!(status(at % 2, "/?wrong").await, 401);
        }
        assert_eq!(status(0, "/?right").await, 429);
        assert_eq!(status(1, "/?wrong").await, 429);
    });
}
