use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::Error;
use crate::time::{Clock, MonotonicClock};

/// Takes note of when a backend fails, and says so once, not with every request.
pub(crate) struct Outage {
    /// Of what it is the backend, and who decides instead, for the log.
    of: Cow<'static, str>,
    instead: &'static str,
    clock: Arc<dyn Clock>,
    /// Whether the backend failed last time.
    failing: AtomicBool,
    /// When it first succeeded after it had failed, in µs of the clock; `NEVER` before that.
    ended_us: AtomicU64,
    /// Whether the log was told that it fails, and not yet that it does no more.
    announced: AtomicBool,
    degraded: AtomicU64,
}

/// What a [`Fallback`](super::Fallback), or a [`Throttle`](crate::Throttle) without one, has seen of
/// failures, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct OutageInfo {
    /// Whether the backend is taken to be failing: from its first error until it has decided
    /// without one for a second.
    pub lasts: bool,
    /// How many decisions were made without it.
    pub degraded_total: u64,
}

const NEVER: u64 = u64::MAX;

/// So long without an error, an outage is over. Errors now and then are one outage, not many.
const QUIET_US: u64 = 1_000_000;

impl Outage {
    /// Of a backend with a fallback.
    pub(super) fn with_fallback(clock: Arc<dyn Clock>) -> Outage {
        Self::new("rate limits".into(), "its fallback decides", clock)
    }

    /// Of a throttle without one.
    pub(crate) fn of_throttle(name: &str) -> Outage {
        let of = format!("throttle `{name}`").into();
        Self::new(
            of,
            "its error policy decides",
            Arc::new(MonotonicClock::new()),
        )
    }

    fn new(of: Cow<'static, str>, instead: &'static str, clock: Arc<dyn Clock>) -> Outage {
        Outage {
            of,
            instead,
            clock,
            failing: AtomicBool::new(false),
            ended_us: AtomicU64::new(NEVER),
            announced: AtomicBool::new(false),
            degraded: AtomicU64::new(0),
        }
    }

    pub(crate) fn info(&self) -> OutageInfo {
        OutageInfo {
            lasts: self.announced.load(Ordering::Relaxed),
            degraded_total: self.degraded.load(Ordering::Relaxed),
        }
    }

    /// The backend failed. While an outage lasts every request comes along here, so it neither
    /// reads the clock nor writes what other threads read.
    #[inline]
    pub(crate) fn fail(&self, error: &Error) {
        if !self.failing.load(Ordering::Relaxed) {
            self.failing.store(true, Ordering::Relaxed);
            if !self.announced.swap(true, Ordering::Relaxed) {
                let Outage { of, instead, .. } = self;
                log::warn!("the backend of {of} fails, {instead}: {error}");
            }
        }
    }

    /// So many operations were decided without it.
    #[inline]
    pub(crate) fn degrade(&self, decisions: usize) {
        self.degraded.fetch_add(decisions as u64, Ordering::Relaxed);
    }

    /// The backend decided. Tells how many µs ago an outage ended, if there ever was one.
    #[inline]
    pub(crate) fn succeed(&self) -> Option<u64> {
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
            log::info!("the backend of {} decides again", self.of);
        }
        ago_us
    }
}

impl fmt::Debug for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info().fmt(f)
    }
}
