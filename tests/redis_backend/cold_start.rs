//! The first hits of a process, on a Redis that is far away.

use std::time::Duration;

use traffik_core::{Identity, RedisBackend};

use super::throttle;
use crate::support::{Fault, Proxy, RedisServer};

const WAY: Duration = Duration::from_millis(200);

/// Connecting, the script's digest, which Redis did not know, and the script shared one deadline.
#[tokio::test]
async fn the_first_hits_are_decided_in_one_trip_after_connecting() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port());
    proxy.set(Fault::Delay(WAY));
    // Three ways and a half.
    let builder = RedisBackend::builder(&proxy.url()).deadline(WAY * 7 / 2);
    let backend = builder.connect_timeout(WAY * 20).build().unwrap();
    let throttle = throttle("cold", "9/day", backend);
    let [ann, bob, eve] = ["ann", "bob", "eve"].map(Identity::of);
    let hits = [&ann, &bob, &eve].map(|who| throttle.hit(who));
    let [first, second, third] = hits;
    let (first, second, third) = tokio::join!(first, second, third);
    for decision in [first, second, third] {
        assert_eq!(decision.unwrap().remaining(), 8);
    }
    let calls = server.calls();
    assert_eq!(
        (calls.get("eval"), calls.get("evalsha")),
        (Some(&1), None),
        "{calls:?}"
    );
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 7);
    assert_eq!(server.calls()["evalsha"], 1);
}

/// It is not told of a deadline, which is not what was missed.
#[tokio::test]
async fn a_connection_that_takes_too_long_is_said_to() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port());
    proxy.set(Fault::BlackHole);
    let short = Duration::from_millis(30);
    let builder = RedisBackend::builder(&proxy.url()).deadline(short / 2);
    let backend = builder.connect_timeout(short).build().unwrap();
    let throttle = throttle("slow", "9/day", backend);
    let error = throttle.hit(&Identity::of("ann")).await.unwrap_err();
    assert!(error.is_connection() && error.is_unexecuted(), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("there was no connection within 30ms"),
        "{text}"
    );
}

/// Whom it takes longer than hits wait for is connected to all the same.
#[tokio::test]
async fn a_slow_connection_is_made_in_the_end() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port());
    proxy.set(Fault::Delay(Duration::from_millis(60)));
    let impatient = RedisBackend::builder(&proxy.url()).deadline(Duration::from_millis(1));
    let impatient = impatient
        .connect_timeout(Duration::from_millis(1))
        .build()
        .unwrap();
    let ann = Identity::of("ann");
    let throttle = throttle("slow", "9/day", impatient);
    let mut errors = 0;
    loop {
        match throttle.hit(&ann).await {
            Err(error) if error.is_connection() => errors += 1,
            // It was asked at last, and did not answer within a millisecond.
            Err(error) => break assert!(error.is_timeout(), "{error:?}"),
            Ok(decision) => panic!("within a millisecond: {decision:?}"),
        }
        assert!(errors < 10_000, "is never connected to");
    }
    assert!(errors > 0);
}
