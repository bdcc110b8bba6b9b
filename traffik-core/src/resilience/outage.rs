use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::Error;
use crate::time::{Clock, MonotonicClock};

/// Takes note of when a primary backend fails, and says so once, not with every request.
pub(super) struct Outage {
    clock: Arc<dyn Clock>,
    /// Whether the primary failed last time.
    failing: AtomicBool,
    /// When it first succeeded after it had failed, in µs of the clock; `NEVER` before that.
    ended_us: AtomicU64,
    /// Whether the log was told that it fails, and not yet that it does no more.
    announced: AtomicBool,
    degraded: AtomicU64,
}

/// What a [`Fallback`](super::Fallback) has seen, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct OutageInfo {
    /// Whether the primary backend is taken to be failing: from its first error until it has
    /// decided without one for a second.
    pub lasts: bool,
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
            failing: AtomicBool::new(false),
            ended_us: AtomicU64::new(NEVER),
            announced: AtomicBool::new(false),
            degraded: AtomicU64::new(0),
        }
    }

    pub(super) fn info(&self) -> OutageInfo {
        OutageInfo {
            lasts: self.announced.load(Ordering::Relaxed),
            degraded_total: self.degraded.load(Ordering::Relaxed),
        }
    }

    /// The primary failed. While an outage lasts every request comes along here, so it neither
    /// reads the clock nor writes what other threads read.
    #[inline]
    pub(super) fn fail(&self, error: &Error) {
        if !self.failing.load(Ordering::Relaxed) {
            self.failing.store(true, Ordering::Relaxed);
            if !self.announced.swap(true, Ordering::Relaxed) {
                log::warn!("the backend of rate limits fails, its fallback decides: {error}");
            }
        }
    }

    /// The fallback decided so many operations.
    #[inline]
    pub(super) fn degrade(&self, decisions: usize) {
        self.degraded.fetch_add(decisions as u64, Ordering::Relaxed);
    }

    /// The primary decided. Tells how many µs ago an outage ended, if there ever was one.
    #[inline]
    pub(super) fn succeed(&self) -> Option<u64> {
        let failing = self.failing.load(Ordering::Relaxed);
        let ended_us = self.ended_us.load(Ordering::Relaxed);
        (failing || ended_us != NEVER).then(|| self.recover(failing, ended_us))
    }

    fn recover(&self, failing: bool, ended_us: u64) -> u64 {
        let now_us = self.clock.now().as_micros();
        if failing {
            self.ended_us.store(now_us, Ordering::Relaxed);
            self.failing.store(false, Ordering::Relaxed);
            return 0;
        }
        let ago_us = now_us.saturating_sub(ended_us);
        if ago_us >= QUIET_US
            && self.announced.load(Ordering::Relaxed)
            && self.announced.swap(false, Ordering::Relaxed)
        {
            log::info!("the backend of rate limits decides again");
        }
        ago_us
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
