//! Throttles that are whatever their registry says at the time.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::limits::registry::{Origin, Registry, State};
use crate::throttle::HttpThrottle;

/// Where a throttle is found that may change.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) registry: Arc<Registry>,
    /// Where it was when the handle was made.
    at: usize,
}

impl Live {
    pub(crate) fn new(registry: Arc<Registry>, at: usize) -> Live {
        Live { registry, at }
    }

    pub(crate) fn origin(&self) -> Origin {
        self.registry.origin()
    }

    pub(crate) fn current(&self, name: &str) -> HttpThrottle {
        self.in_state(name, &self.registry.state())
    }

    pub(crate) fn in_state(&self, name: &str, state: &State) -> HttpThrottle {
        match state.get_near(self.at, name) {
            Some(entry) => entry.in_force().clone(),
            None => removed().clone(),
        }
    }
}

/// What is asked instead of a throttle that was removed, by who still asks for it.
#[cold]
pub(crate) fn removed() -> &'static HttpThrottle {
    static REMOVED: OnceLock<HttpThrottle> = OnceLock::new();
    REMOVED.get_or_init(|| {
        let built = HttpThrottle::builder("(removed)").disabled().build();
        // Printable ASCII, and the rate that every strategy serves.
        built.expect("a name and a rate are all that it takes")
    })
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
