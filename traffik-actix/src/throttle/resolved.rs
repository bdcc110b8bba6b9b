use std::time::Duration;

use traffik_core::{Attempt, Identity, Rate};

#[cfg(feature = "ws")]
use crate::throttle::HttpThrottle;

/// What a throttle needs to know about a request.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) identity: Identity,
    pub(crate) cost: Option<u32>,
    pub(crate) rate: Option<Rate>,
    pub(crate) scope: Option<String>,
    pub(super) max_wait: Option<Duration>,
}

impl Resolved {
    /// What there is if only this is asked.
    pub(crate) fn only(identity: Identity) -> Resolved {
        Resolved {
            identity,
            cost: None,
            rate: None,
            scope: None,
            max_wait: None,
        }
    }

    /// Whether a denial is not the last word.
    #[cfg(feature = "ws")]
    pub(crate) fn waits(&self) -> bool {
        self.max_wait.is_some()
    }

    /// Whether functions of the throttle gave all that they give. There may have been none of rate or cost when this was
    /// found out.
    #[cfg(feature = "ws")]
    #[inline]
    pub(crate) fn suffices(&self, throttle: &HttpThrottle) -> bool {
        let asks = throttle.asks();
        (self.rate.is_some() || !asks.rate) && (self.cost.is_some() || !asks.cost)
    }

    /// With what functions gave that are asked by now, where this has nothing.
    #[cfg(feature = "ws")]
    pub(crate) fn completed_by(&self, later: &Resolved) -> Resolved {
        Resolved {
            cost: self.cost.or(later.cost),
            rate: self.rate.or(later.rate),
            ..self.clone()
        }
    }

    #[inline]
    pub(crate) fn attempt(&self) -> Attempt<'_> {
        self.attempt_by(&self.identity)
    }

    /// The same by somebody else.
    #[inline]
    pub(crate) fn attempt_by<'a>(&'a self, identity: &'a Identity) -> Attempt<'a> {
        let mut attempt = Attempt::by(identity);
        if let Some(cost) = self.cost {
            attempt = attempt.cost(cost);
        }
        if let Some(rate) = self.rate {
            attempt = attempt.rate(rate);
        }
        if let Some(scope) = &self.scope {
            attempt = attempt.scope(scope);
        }
        if let Some(max_wait) = self.max_wait {
            attempt = attempt.wait_up_to(max_wait);
        }
        attempt
    }
}
