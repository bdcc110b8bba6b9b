use std::time::Duration;

use traffik_core::{Concurrency, Identity};

use crate::numbers::Scraped;

fn ann() -> Identity {
    Identity::of("ann")
}

/// What became of those who asked: admitted, waited, degraded, busy, no room, in vain, gave up, failed.
fn outcomes(scraped: &Scraped) -> [f64; 8] {
    [
        "admitted", "waited", "degraded", "busy", "no_room", "in_vain", "gave_up", "failed",
    ]
    .map(|outcome| {
        scraped.number(&format!(
            "traffik_in_flight_outcomes_total{{limit=\"uploads\",outcome=\"{outcome}\"}}"
        ))
    })
}

#[tokio::test(start_paused = true)]
async fn how_many_are_in_flight_was_not_told() {
    let scraped = Scraped::start();
    let limit = Concurrency::builder("uploads").in_flight(2).max_waiters(1);
    let limit = limit.build().unwrap();
    let (ann, second) = (ann(), Duration::from_secs(1));
    let gauges = || {
        ["", "_waiting"]
            .map(|what| scraped.number(&format!("traffik_in_flight{what}{{limit=\"uploads\"}}")))
    };

    // Whoever is exempt is in no count.
    let _nobody = limit.try_acquire(&Identity::EXEMPT).unwrap();
    let first = limit.try_acquire(&ann).unwrap();
    let other = limit.acquire(&ann, second).await.unwrap();
    assert_eq!(gauges(), [2.0, 0.0]);
    assert!(limit.try_acquire(&ann).is_err());
    assert!(limit.acquire(&ann, Duration::ZERO).await.is_err());
    // It asks anew, and only then it is told what became of it.
    assert!(limit.try_acquire_or_wait(&ann).is_none());
    assert_eq!(outcomes(&scraped), [2.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0]);

    assert!(limit.acquire(&ann, second).await.unwrap_err().waited());
    {
        let mut waits = std::pin::pin!(limit.acquire(&ann, second));
        assert!(futures_now(waits.as_mut()).is_none());
        assert_eq!(gauges(), [2.0, 1.0]);
        assert!(limit.acquire(&ann, second).await.is_err(), "one may wait");
        assert_eq!(gauges(), [2.0, 1.0]);
        // The client goes away.
    }
    assert_eq!(gauges(), [2.0, 0.0]);
    let mut waits = std::pin::pin!(limit.acquire(&ann, second));
    assert!(futures_now(waits.as_mut()).is_none());
    drop(first);
    // Its turn has come, and before it knows that nobody is in flight more than are.
    let third = waits.await.unwrap();
    assert_eq!(gauges(), [2.0, 0.0]);
    assert_eq!(outcomes(&scraped), [2.0, 1.0, 0.0, 2.0, 1.0, 1.0, 1.0, 0.0]);
    drop((third, other));
    assert_eq!(gauges(), [0.0, 0.0]);
}

/// Polled once.
fn futures_now<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
