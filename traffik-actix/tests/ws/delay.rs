//! Messages that wait for their turn.

use std::time::Duration;

use tokio::time::Instant;
use traffik_actix::strategy::Gcra;
use traffik_actix::{HttpThrottleBuilder, WsRule, WsThrottle};

use crate::server::{app, serve_pipes};
use crate::support::{notice, paused, settle, throttle};

/// Messages wait for up to so many seconds of tokio's time.
fn smooth(rate: &str, max_wait: u64) -> HttpThrottleBuilder {
    throttle("smooth", rate)
        .strategy(Gcra::new())
        .wait_up_to(Duration::from_secs(max_wait))
        .backend(paused())
}

#[actix_web::test]
async fn excess_is_spaced_evenly_and_in_order() {
    let smooth = smooth("10/s", 1).build().unwrap();
    let mut ann = serve_pipes(app(smooth.into())).await("ann").await;
    let start = Instant::now();
    for text in ["0", "1", "2", "3"] {
        ann.say(text).await;
    }
    for at in 0..4 {
        assert_eq!(ann.hear().await, at.to_string());
        // The timer rounds up to its next millisecond.
        assert_eq!(start.elapsed().as_millis() / 100, at);
    }
}

#[actix_web::test]
async fn connections_of_a_client_wait_in_one_line() {
    let smooth = smooth("10/s", 1).build().unwrap();
    let connect = serve_pipes(app(smooth.into())).await;
    let (mut one, mut two) = (connect("ann").await, connect("ann").await);
    let start = Instant::now();
    one.say("at once").await;
    assert_eq!(one.hear().await, "at once");
    one.say("first").await;
    settle().await;
    two.say("second").await;
    assert_eq!(one.hear().await, "first");
    assert_eq!(start.elapsed().as_millis() / 100, 1);
    assert_eq!(two.hear().await, "second");
    assert_eq!(start.elapsed().as_millis() / 100, 2);
}

#[actix_web::test]
async fn who_would_wait_too_long_is_told_at_once() {
    let smooth = smooth("1/10s", 9).build().unwrap();
    let mut ann = serve_pipes(app(smooth.into())).await("ann").await;
    let start = Instant::now();
    ann.say("now").await;
    ann.say("later").await;
    assert_eq!(ann.leave().await, ["now", &notice(10)]);
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[actix_web::test]
async fn nothing_more_is_decided_while_a_message_waits() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let smooth = smooth("1/s", 1).build().unwrap();
    let rule = WsRule::new(smooth).when(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        true
    });
    let mut ann = serve_pipes(app(WsThrottle::new(rule))).await("ann").await;
    for text in ["1", "2", "3", "4"] {
        ann.say(text).await;
    }
    assert_eq!(ann.hear().await, "1");
    settle().await;
    assert_eq!(seen.load(Ordering::Relaxed), 2);
    assert_eq!(ann.hear().await, "2");
    settle().await;
    assert_eq!(seen.load(Ordering::Relaxed), 3);
}

#[actix_web::test]
async fn a_client_that_vanishes_frees_its_place_and_is_not_charged() {
    vanishes(&[]).await;
}

/// Issue 9.5 (h): one message was read ahead, and who had sent another kept its turn.
#[actix_web::test]
async fn a_client_that_vanishes_after_more_messages_frees_its_place() {
    vanishes(&["more"]).await;
}

#[actix_web::test]
async fn a_client_that_vanishes_after_many_more_messages_frees_its_place() {
    vanishes(&["more"; 60]).await;
}

async fn vanishes(more: &[&str]) {
    let smooth = smooth("1/s", 5).max_waiters(1).build().unwrap();
    let connect = serve_pipes(app(smooth.into())).await;
    let mut gone = connect("ann").await;
    let start = Instant::now();
    gone.say("at once").await;
    assert_eq!(gone.hear().await, "at once");
    gone.say("never").await;
    for text in more {
        gone.say(text).await;
    }
    settle().await;

    let mut other = connect("ann").await;
    other.say("no place").await;
    assert_eq!(other.hear().await, notice(1), "the only place is taken");
    gone.vanish();
    settle().await;
    other.say("its place").await;
    assert_eq!(other.hear().await, "its place");
    assert_eq!(start.elapsed().as_millis() / 100, 10, "in the first turn");
}
