//! A process that does not get to run: no store is to blame for that.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use traffik_core::{BackendExt, Identity, Throttle};

use super::throttle;
use crate::support::{MemcachedServer, RedisServer};

/// Long enough for a server to answer, even on a busy machine.
const DEADLINE: Duration = Duration::from_millis(200);

/// Blocks this thread for longer than the deadline, at one moment of a hit after the other: before
/// it is sent, when it has been, and when its answer is there.
async fn blocked(throttle: Throttle) {
    // A task like others; the one of the test itself always runs first.
    tokio::spawn(async move { blocked_here(&throttle).await })
        .await
        .unwrap();
}

async fn blocked_here(throttle: &Throttle) {
    let ann = Identity::of("ann");
    while throttle.hit(&ann).await.is_err() {}
    for turns in 0..5 {
        let block = async {
            for _ in 0..turns {
                next_turn().await;
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

/// Lets the tasks run that are ready, before the runtime looks at its sockets, unlike tokio's `yield_now`.
async fn next_turn() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// On a busy machine a healthy Redis gave an error for one hit in a thousand, and opened breakers.
#[tokio::test]
async fn a_thread_that_was_blocked_is_no_timeout_of_redis() {
    let server = RedisServer::start();
    let backend = server.builder().deadline(DEADLINE).build().unwrap();
    blocked(throttle("busy", "1000/day", backend)).await;
}

#[tokio::test]
async fn a_thread_that_was_blocked_is_no_timeout_of_a_backend_with_a_deadline() {
    let server = RedisServer::start();
    let backend = server.backend().deadline(DEADLINE);
    blocked(throttle("busy", "1000/day", backend)).await;
}

#[tokio::test]
async fn a_thread_that_was_blocked_is_no_timeout_of_memcached() {
    let server = MemcachedServer::start();
    let backend = server.builder().deadline(DEADLINE).build().unwrap();
    blocked(throttle("busy", "1000/day", backend)).await;
}
