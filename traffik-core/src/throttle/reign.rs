//! Which of the throttles that take each other's place decides.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::Throttle;
use crate::rate::Rate;
use crate::strategy::Strategy;

/// What is in force of throttles that take each other's place: all of them have it in common, so that what one
/// of them has charged is settled by the one that decides when it is. For adapters.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Reign(Arc<State>);

#[derive(Debug)]
struct State {
    /// How often the terms have changed. As long as they have not, nobody locks them.
    changes: AtomicU64,
    terms: RwLock<Terms>,
}

/// By what it decides.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// Which cells are meant.
    pub(super) digest: u128,
    pub(super) strategy: Arc<dyn Strategy>,
    /// Unlimited if every attempt brings its own.
    pub(super) rate: Rate,
    /// Whether anything is limited.
    pub(super) limits: bool,
}

impl Terms {
    fn are(&self, other: &Terms) -> bool {
        self.digest == other.digest
            && Arc::ptr_eq(&self.strategy, &other.strategy)
            && self.rate == other.rate
            && self.limits == other.limits
    }
}

impl Reign {
    pub(super) fn new(terms: Terms) -> Reign {
        Reign(Arc::new(State {
            changes: AtomicU64::new(0),
            terms: RwLock::new(terms),
        }))
    }

    /// None of them decides any more: nothing is limited.
    pub fn end(&self) {
        self.change(|terms| Terms {
            limits: false,
            ..terms.clone()
        });
    }

    /// What is in force, and how often that has changed, unless whoever asks knows of all changes.
    pub(super) fn since(&self, known: u64) -> Option<(u64, Terms)> {
        if self.0.changes.load(Ordering::Acquire) == known {
            return None;
        }
        let terms = self.0.terms.read().unwrap_or_else(PoisonError::into_inner);
        // Changes are counted while they are locked.
        Some((self.0.changes.load(Ordering::Acquire), terms.clone()))
    }

    fn change(&self, to: impl FnOnce(&Terms) -> Terms) {
        let mut terms = self.0.terms.write().unwrap_or_else(PoisonError::into_inner);
        let next = to(&terms);
        if !next.are(&terms) {
            *terms = next;
            self.0.changes.fetch_add(1, Ordering::Release);
        }
    }
}

impl Throttle {
    /// What is in force of those that it has taken the place of, and of those that take its. For adapters.
    #[doc(hidden)]
    pub fn reign(&self) -> &Reign {
        &self.0.reign
    }

    /// From now on this one decides, of all that take each other's place, or nothing is limited. To be said before
    /// it is asked: a permit that is settled earlier does no harm, one that is settled by what was in force before
    /// does. For adapters.
    #[doc(hidden)]
    pub fn come_into_force(&self, limits: bool) {
        self.0.reign.change(|_| Terms {
            digest: self.0.digest,
            strategy: Arc::clone(&self.0.strategy),
            rate: self.0.rate,
            limits,
        });
    }
}
