use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{CircuitBreaker, Transition};
use crate::error::{Error, Result};
use crate::rate::Rate;
use crate::resilience::{Backoff, Jitter};
use crate::time::{Clock, MonotonicClock};

pub(super) type Hook = dyn Fn(&Transition<'_>) + Send + Sync;

pub(super) struct Settings {
    pub(super) name: String,
    pub(super) failure_threshold: u32,
    pub(super) recovery: Backoff,
    pub(super) success_threshold: u32,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) hook: Option<Box<Hook>>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            name: "store".into(),
            failure_threshold: 5,
            recovery: CircuitBreakerBuilder::RECOVERY,
            success_threshold: 2,
            clock: Arc::new(MonotonicClock::new()),
            hook: None,
        }
    }
}

/// Settings of a [`CircuitBreaker`].
#[derive(Default)]
#[must_use]
pub struct CircuitBreakerBuilder(Settings);

impl CircuitBreakerBuilder {
    /// Sets a name for logs and metrics, which tell the worst of several of one name. Default: `store`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.0.name = name.into();
        self
    }

    /// Sets how many failures in a row open the breaker. Default: 5.
    pub fn failure_threshold(mut self, failures: u32) -> Self {
        self.0.failure_threshold = failures;
        self
    }

    /// Soon, since after a second's outage a limit in shares for a minute would be the longer one;
    /// and less and less often, with chance, so that many nodes do not probe at the same moment.
    const RECOVERY: Backoff = Backoff::exponential(Duration::from_millis(100))
        .max(Duration::from_secs(5))
        .jitter(Jitter::Equal);

    /// Sets how long an open breaker waits before it lets a probe pass, always the same. Default: as
    /// [`recovery`](CircuitBreakerBuilder::recovery) says.
    pub fn recovery_timeout(self, timeout: Duration) -> Self {
        let always = Backoff::constant(timeout).max(timeout).jitter(Jitter::None);
        self.recovery(always)
    }

    /// Sets how long an open breaker waits before it lets a probe pass: the first wait is the one
    /// after it has opened, each next one comes after a probe that failed. Default: 100 ms, then
    /// twice as long each time, up to 5 seconds, each between half of that and all of it.
    pub fn recovery(mut self, waits: Backoff) -> Self {
        self.0.recovery = waits;
        self
    }

    /// Sets how many probes in a row must succeed to close the breaker. Default: 2.
    pub fn success_threshold(mut self, successes: u32) -> Self {
        self.0.success_threshold = successes;
        self
    }

    /// Sets another clock, for tests. Default: a [`MonotonicClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.0.clock = Arc::new(clock);
        self
    }

    /// Sets a function that is told of every change of state, by the thread that caused it.
    pub fn on_transition(mut self, hook: impl Fn(&Transition<'_>) + Send + Sync + 'static) -> Self {
        self.0.hook = Some(Box::new(hook));
        self
    }

    /// The breaker.
    ///
    /// # Errors
    ///
    /// If a threshold is zero, or the first wait for recovery shorter than a millisecond or the longest
    /// longer than 366 days.
    pub fn build(self) -> Result<CircuitBreaker> {
        let settings = self.0;
        for (what, threshold) in [
            ("failure", settings.failure_threshold),
            ("success", settings.success_threshold),
        ] {
            if threshold == 0 {
                return Err(Error::invalid(format!(
                    "the {what} threshold of circuit breaker `{}` must be at least 1",
                    settings.name
                )));
            }
        }
        let (first, longest) = (settings.recovery.first(), settings.recovery.longest());
        let sensible = Duration::from_millis(1)..=Rate::MAX_PERIOD;
        if let Some(wrong) = [first, longest]
            .iter()
            .find(|wait| !sensible.contains(wait))
        {
            return Err(Error::invalid(format!(
                "the recovery timeout of circuit breaker `{}` must be between 1ms and 366 days, \
                 not {wrong:?}",
                settings.name,
            )));
        }
        Ok(CircuitBreaker::from_settings(Arc::new(settings), None))
    }
}

impl fmt::Debug for CircuitBreakerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerBuilder")
            .field("name", &self.0.name)
            .field("failure_threshold", &self.0.failure_threshold)
            .field("recovery", &self.0.recovery)
            .field("success_threshold", &self.0.success_threshold)
            .finish_non_exhaustive()
    }
}
