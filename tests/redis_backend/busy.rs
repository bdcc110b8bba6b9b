//! A process that does not get to run: no store is to blame for that.

use std::time::Duration;

use traffik_core::{BackendExt, Identity, Throttle};

use super::throttle;
use crate::support::{MemcachedServer, RedisServer};

/// Long enough for a server to answer, even on a busy machine.
const DEADLINE: Duration = Duration::from_millis(200);

/// Blocks this thread for longer than the deadline, at one moment of a hit after the other: before
/// it is sent, when it has been, and when its answer is there.
async fn blocked(throttle: &Throttle) {
    let ann = Identity::of("ann");
    while throttle.hit(&ann).await.is_err() {}
    for turns in 0..5 {
        let block = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            std::thread::sleep(DEADLINE * 2);
        };
        let (decision, ()) = tokio::join!(throttle.hit(&ann), block);
        assert!(
            decision.unwrap().is_allowed(),
            "blocked after {turns} turns"
        );
    }
}

/// On a busy machine a healthy Redis gave an error for one hit in a thousand, and opened breakers.
#[tokio::test]
async fn a_thread_that_was_blocked_is_no_timeout_of_redis() {
    let server = RedisServer::start();
    let backend = server.builder().deadline(DEADLINE).build().unwrap();
    blocked(&throttle("busy", "1000/day", backend)).await;
}

#[tokio::test]
async fn a_thread_that_was_blocked_is_no_timeout_of_a_backend_with_a_deadline() {
    let server = RedisServer::start();
    let backend = server.backend().deadline(DEADLINE);
    blocked(&throttle("busy", "1000/day", backend)).await;
}

#[tokio::test]
async fn a_thread_that_was_blocked_is_no_timeout_of_memcached() {
    let server = MemcachedServer::start();
    let backend = server.builder().deadline(DEADLINE).build().unwrap();
    blocked(&throttle("busy", "1000/day", backend)).await;
}
