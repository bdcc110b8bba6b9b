use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{CircuitBreaker, Transition};
use crate::error::{Error, Result};
use crate::rate::Rate;
use crate::time::{Clock, MonotonicClock, micros};

pub(super) type Hook = dyn Fn(&Transition<'_>) + Send + Sync;

pub(super) struct Settings {
    pub(super) name: String,
    pub(super) failure_threshold: u32,
    pub(super) recovery_us: u64,
    pub(super) success_threshold: u32,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) hook: Option<Box<Hook>>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            name: "store".into(),
            failure_threshold: 5,
            recovery_us: 60_000_000,
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
    /// Sets a name for logs and metrics. Default: `store`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.0.name = name.into();
        self
    }

    /// Sets how many failures in a row open the breaker. Default: 5.
    pub fn failure_threshold(mut self, failures: u32) -> Self {
        self.0.failure_threshold = failures;
        self
    }

    /// Sets how long an open breaker waits before it lets a probe pass. Default: 60 seconds.
    pub fn recovery_timeout(mut self, timeout: Duration) -> Self {
        self.0.recovery_us = micros(timeout);
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
    /// If a threshold is zero, or the recovery timeout shorter than a millisecond or longer than
    /// 366 days.
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
        if !(1_000..=micros(Rate::MAX_PERIOD)).contains(&settings.recovery_us) {
            return Err(Error::invalid(format!(
                "the recovery timeout of circuit breaker `{}` must be between 1ms and 366 days, \
                 not {:?}",
                settings.name,
                Duration::from_micros(settings.recovery_us)
            )));
        }
        Ok(CircuitBreaker::from_settings(settings))
    }
}

impl fmt::Debug for CircuitBreakerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerBuilder")
            .field("name", &self.0.name)
            .field("failure_threshold", &self.0.failure_threshold)
            .field(
                "recovery_timeout",
                &Duration::from_micros(self.0.recovery_us),
            )
            .field("success_threshold", &self.0.success_threshold)
            .finish_non_exhaustive()
    }
}
