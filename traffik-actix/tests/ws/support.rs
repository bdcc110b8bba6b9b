//! Limits in memory, and what is said about them.

use std::time::Duration;

use tokio::time::Instant;
use traffik_actix::{
    Clock, HttpThrottle, HttpThrottleBuilder, ManualClock, MemoryBackend, Timestamp,
};

pub(crate) fn throttle(name: &str, rate: &str) -> HttpThrottleBuilder {
    HttpThrottle::builder(name).rate(rate)
}

/// A memory whose time stands still until it is told to move.
pub(crate) fn memory() -> (ManualClock, MemoryBackend) {
    let clock = ManualClock::default();
    let backend = MemoryBackend::builder().clock(clock.clone());
    (clock, backend.build().unwrap())
}

/// A memory whose time is tokio's, which stands still in a test until everybody waits for it.
pub(crate) fn paused() -> MemoryBackend {
    #[derive(Debug)]
    struct TokioClock(Instant);

    impl Clock for TokioClock {
        fn now(&self) -> Timestamp {
            let elapsed = u64::try_from(self.0.elapsed().as_micros()).unwrap();
            Timestamp::from_micros(1_704_067_200_000_000 + elapsed)
        }
    }

    tokio::time::pause();
    let backend = MemoryBackend::builder().clock(TokioClock(Instant::now()));
    backend.build().unwrap()
}

/// The notice of the original.
pub(crate) fn notice(seconds: u64) -> String {
    format!(r#"{{"type":"rate_limit","error":"Too many messages","retry_after":{seconds}}}"#)
}

/// Lets everything happen that needs no time, where time stands still meanwhile.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
