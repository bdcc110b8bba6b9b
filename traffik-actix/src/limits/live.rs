//! Throttles that are whatever their registry says at the time.

use std::ops::Deref;
use std::sync::Arc;

use crate::limits::registry::{Origin, Registry, State};
use crate::throttle::HttpThrottle;

/// Where a throttle is found that may change.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) registry: Arc<Registry>,
    at: usize,
}

impl Live {
    pub(crate) fn new(registry: Arc<Registry>, at: usize) -> Live {
        Live { registry, at }
    }

    pub(crate) fn origin(&self) -> Origin {
        self.registry.origin(self.at)
    }

    pub(crate) fn current(&self) -> HttpThrottle {
        self.in_state(&self.registry.state())
    }

    pub(crate) fn in_state(&self, state: &State) -> HttpThrottle {
        state.entry(self.at).in_force().clone()
    }
}

/// A throttle as it is now, which does not change any more.
#[derive(Debug)]
pub(crate) enum Current<'a> {
    /// It never does.
    Fixed(&'a HttpThrottle),
    Live(HttpThrottle),
}

impl Deref for Current<'_> {
    type Target = HttpThrottle;

    #[inline]
    fn deref(&self) -> &HttpThrottle {
        match self {
            Current::Fixed(throttle) => throttle,
            Current::Live(throttle) => throttle,
        }
    }
}
