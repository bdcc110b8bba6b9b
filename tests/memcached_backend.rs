mod conformance;
mod decisions;
mod failures;
mod keys;
mod reset;
mod shadow;
mod trips;

use std::time::{Duration, Instant};

use traffik_core::{Backend, Identity, OnError, Result, Strategy, Throttle};

/// A throttle that hides no error.
fn throttle(backend: &impl HasHandle, rate: &str, strategy: impl Strategy) -> Throttle {
    Throttle::builder("api")
        .rate(rate)
        .strategy(strategy)
        .on_error(OnError::Raise)
        .backend(backend.handle())
        .build()
        .unwrap()
}

trait HasHandle {
    fn handle(&self) -> impl Backend;
}

impl<B: Backend + Clone> HasHandle for B {
    fn handle(&self) -> impl Backend {
        self.clone()
    }
}

fn ann() -> Identity {
    Identity::of("ann")
}

/// How many of `hits` hits in a row are admitted.
async fn admitted(throttle: &Throttle, who: &Identity, hits: usize) -> Result<usize> {
    let mut admitted = 0;
    for _ in 0..hits {
        admitted += usize::from(throttle.hit(who).await?.is_allowed());
    }
    Ok(admitted)
}

/// Tries until it succeeds, for what another process does in its own time.
async fn eventually(what: &str, mut test: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !test().await {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
