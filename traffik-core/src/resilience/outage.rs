use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::Error;
use crate::time::{Clock, MonotonicClock};

/// Takes note of when a primary backend fails, and says so once, not with every request.
pub(super) struct Outage {
    clock: Arc<dyn Clock>,
    lasts: AtomicBool,
    /// When something was last decided without the primary, in µs of the clock; `NEVER` at first.
    last_us: AtomicU64,
    failed: AtomicU64,
    degraded: AtomicU64,
}

/// What a [`Fallback`](super::Fallback) has seen, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct OutageInfo {
    /// Whether the primary backend is taken to be failing: from its first error until it decides
    /// without one for a second.
    pub lasts: bool,
    /// How many operations the primary failed at, those that a breaker refused included.
    pub failed_total: u64,
    /// How many decisions were made without the primary.
    pub degraded_total: u64,
}

const NEVER: u64 = u64::MAX;

/// So long without an error, an outage is over. Errors now and then are one outage, not many.
const QUIET_US: u64 = 1_000_000;

impl Outage {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Outage {
        Outage {
            clock,
            lasts: AtomicBool::new(false),
            last_us: AtomicU64::new(NEVER),
            failed: AtomicU64::new(0),
            degraded: AtomicU64::new(0),
        }
    }

    pub(super) fn info(&self) -> OutageInfo {
        OutageInfo {
            lasts: self.lasts.load(Ordering::Relaxed),
            failed_total: self.failed.load(Ordering::Relaxed),
            degraded_total: self.degraded.load(Ordering::Relaxed),
        }
    }

    /// The primary failed.
    pub(super) fn fail(&self, error: &Error) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.last_us
            .store(self.clock.now().as_micros(), Ordering::Relaxed);
        // Looked at first: during an outage every request comes along here.
        if !self.lasts.load(Ordering::Relaxed) && !self.lasts.swap(true, Ordering::Relaxed) {
            log::warn!("the primary backend of rate limits fails, its fallback decides: {error}");
        }
    }

    /// The fallback decided so many operations.
    pub(super) fn degrade(&self, decisions: usize) {
        self.degraded.fetch_add(decisions as u64, Ordering::Relaxed);
    }

    /// The primary decided. Tells how many µs ago it did not, if ever.
    pub(super) fn succeed(&self) -> Option<u64> {
        let last_us = self.last_us.load(Ordering::Relaxed);
        if last_us == NEVER {
            return None;
        }
        let ago = self.clock.now().as_micros().saturating_sub(last_us);
        if ago >= QUIET_US
            && self.lasts.load(Ordering::Relaxed)
            && self.lasts.swap(false, Ordering::Relaxed)
        {
            log::info!("the primary backend of rate limits decides again");
        }
        Some(ago)
    }
}

impl Default for Outage {
    fn default() -> Self {
        Outage::new(Arc::new(MonotonicClock::new()))
    }
}

impl fmt::Debug for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info().fmt(f)
    }
}
