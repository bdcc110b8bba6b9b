//! Without the feature `metrics`: nothing.

use super::Outcome;
use crate::decision::Decision;
use crate::identity::Identity;
#[cfg(feature = "tokio")]
use crate::lease::LeaseInfo;
use crate::resilience::BreakerState;
use crate::throttle::Difference;

#[derive(Debug)]
pub(crate) struct Meters;

impl Meters {
    #[inline]
    pub(crate) fn new(_name: &str) -> Meters {
        Meters
    }

    pub(crate) fn going_on(self, _: &Meters) -> Meters {
        self
    }

    #[inline]
    pub(super) fn decided(&self, _: Outcome, _: &Decision, _: &Identity) {}

    #[inline]
    pub(super) fn failed(&self) {}

    #[inline]
    pub(super) fn shadowed(&self, _: Difference) {}

    #[inline]
    pub(crate) fn took(&self, _: &Stopwatch) {}

    #[cfg(feature = "tokio")]
    pub(crate) fn waits(&self) {}

    #[cfg(feature = "tokio")]
    pub(crate) fn waits_no_more(&self) {}
}

pub(crate) struct Stopwatch;

impl Stopwatch {
    #[inline]
    pub(crate) fn start() -> Stopwatch {
        Stopwatch
    }
}

pub(crate) fn breaker_is(_: &str, _: Option<BreakerState>, _: Option<BreakerState>) {}

pub(crate) fn outages(_: &'static str, _: i8) {}

#[cfg(feature = "redis")]
#[inline]
pub(crate) fn state_losses(_: u64) {}

#[cfg(feature = "tokio")]
#[derive(Debug)]
pub(crate) struct LeaseMeters;

#[cfg(feature = "tokio")]
impl LeaseMeters {
    pub(crate) fn new() -> LeaseMeters {
        LeaseMeters
    }

    #[inline]
    pub(crate) fn tell(&self, _: impl FnOnce() -> LeaseInfo) {}
}
