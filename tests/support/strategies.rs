use std::sync::Arc;
use std::time::Duration;

use traffik_core::{FixedWindow, Gcra, Strategy, TokenBucket};

/// Every strategy, with its parameters at and off their defaults.
pub(crate) fn strategies() -> Vec<Arc<dyn Strategy>> {
    vec![
        Arc::new(FixedWindow),
        Arc::new(TokenBucket::new()),
        Arc::new(TokenBucket::new().burst(7)),
        Arc::new(Gcra::new()),
        Arc::new(Gcra::new().burst_tolerance(Duration::from_micros(1_234_567))),
        Arc::new(Gcra::new().strict()),
        Arc::new(
            Gcra::new()
                .strict()
                .burst_tolerance(Duration::from_secs(60)),
        ),
    ]
}
