//! Requests that wait instead of being denied.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use traffik_actix::strategy::Gcra;
use traffik_actix::{Clock, MemoryBackend, ThrottleMiddleware, Timestamp};

use crate::support::{app, get, send, throttle};

/// Tells tokio's time, which stands still in these tests until everybody waits for it.
#[derive(Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.0.elapsed().as_micros()).unwrap();
        Timestamp::from_micros(1_704_067_200_000_000 + elapsed)
    }
}

#[actix_web::test]
async fn excess_is_spaced_evenly_and_the_rest_denied() {
    tokio::time::pause();
    let backend = MemoryBackend::builder()
        .clock(TokioClock(Instant::now()))
        .build()
        .unwrap();
    let patient = throttle("patient", "10/s")
        .strategy(Gcra::new())
        .wait_up_to(Duration::from_millis(250))
        .max_waiters(3)
        .max_waiters_per_client(3)
        .build()
        .unwrap();
    let app = app(ThrottleMiddleware::new(patient).backend(backend)).await;

    let start = Instant::now();
    let answers = (0..6).map(|_| async {
        let answer = send(&app, get("/")).await;
        // The timer rounds up to its next millisecond.
        (answer.status.as_u16(), start.elapsed().as_millis() / 100)
    });
    let answers = join_all(answers).await;
    // One at once, two that can wait, one whose time runs out in line, two without a place.
    let expected = [(200, 0), (200, 1), (200, 2), (429, 2), (429, 0), (429, 0)];
    assert_eq!(answers, expected);
}

#[actix_web::test]
async fn a_request_that_goes_away_frees_its_place() {
    tokio::time::pause();
    let backend = MemoryBackend::builder()
        .clock(TokioClock(Instant::now()))
        .build()
        .unwrap();
    let patient = throttle("gone", "1/s")
        .strategy(Gcra::new())
        .wait_up_to(Duration::from_secs(5))
        .max_waiters(1)
        .build()
        .unwrap();
    let app = app(ThrottleMiddleware::new(patient).backend(backend)).await;

    assert!(send(&app, get("/")).await.is_ok());
    let gone = tokio::time::timeout(Duration::from_millis(10), send(&app, get("/")));
    assert!(gone.await.is_err());
    let start = Instant::now();
    assert!(send(&app, get("/")).await.is_ok());
    assert_eq!(
        start.elapsed(),
        Duration::from_millis(990),
        "the one that left was not charged"
    );
}

/// It stood in the line of what all share, for its own limit, and everybody behind it.
#[actix_web::test]
async fn a_client_that_waited_for_its_own_limit_held_up_the_others() {
    tokio::time::pause();
    let backend = MemoryBackend::builder()
        .clock(TokioClock(Instant::now()))
        .build()
        .unwrap();
    let all = throttle("all", "1000000/s").shared().build().unwrap();
    let each = throttle("each", "1/s")
        .strategy(Gcra::new())
        .wait_up_to(Duration::from_millis(2_500))
        .build()
        .unwrap();
    let app = app(ThrottleMiddleware::new(all).rule(each).backend(backend)).await;

    let start = Instant::now();
    let answers = [1, 1, 1, 1, 1, 2].map(|client| {
        let req = get("/").peer_addr(([192, 0, 2, client], 80).into());
        let (app, start) = (&app, &start);
        async move {
            let answer = send(app, req).await;
            (answer.status.as_u16(), start.elapsed().as_secs())
        }
    });
    let answers = join_all(answers).await;
    let expected = [(200, 0), (200, 1), (200, 2), (429, 2), (429, 2), (200, 0)];
    assert_eq!(answers, expected);
}
