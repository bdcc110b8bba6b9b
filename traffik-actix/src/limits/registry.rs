//! What a registry knows, and how that is replaced while requests pass.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use traffik_core::{Error, Result};

use crate::throttle::HttpThrottle;
use crate::throttle::builder::HttpThrottleBuilder;

/// One state after the other: a decision sees one of them, whole.
#[derive(Debug)]
pub(crate) struct Registry {
    id: u64,
    state: ArcSwap<State>,
    /// How often the state was replaced; counted after it was.
    changes: AtomicU64,
    changing: Mutex<()>,
}

/// All throttles of a registry at some time.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// Where each of them is does not change: handles know it.
    entries: Vec<Entry>,
    names: HashMap<String, usize>,
}

/// A throttle of a registry at some time.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    recipe: HttpThrottleBuilder,
    throttle: HttpThrottle,
    /// What is asked instead while it is disabled.
    stand_in: Option<HttpThrottle>,
    /// Whether somebody has a handle, or a handler has asked for it.
    is_used: Arc<AtomicBool>,
}

/// Which throttle of which registry one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    registry: u64,
    at: usize,
}

impl Registry {
    pub(crate) fn new() -> Arc<Registry> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Arc::new(Registry {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            state: ArcSwap::default(),
            changes: AtomicU64::new(0),
            changing: Mutex::new(()),
        })
    }

    pub(crate) fn state(&self) -> arc_swap::Guard<Arc<State>> {
        self.state.load()
    }

    /// Grows with every change. Ask for it *before* the state: then a change in between is seen later, not
    /// never.
    #[inline]
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Replaces the state, unless the change fails.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let _changing = self.lock();
        let mut state = State::clone(&self.state.load());
        let done = change(&mut state)?;
        self.state.store(Arc::new(state));
        self.changes.fetch_add(1, Ordering::Release);
        Ok(done)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // The state is replaced as a whole or not at all.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn origin(&self, at: usize) -> Origin {
        let registry = self.id;
        Origin { registry, at }
    }
}

impl State {
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    pub(crate) fn entry(&self, at: usize) -> &Entry {
        &self.entries[at]
    }

    pub(crate) fn entry_mut(&mut self, at: usize) -> &mut Entry {
        &mut self.entries[at]
    }

    /// In the order of their names.
    pub(crate) fn entries(&self) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|one, other| one.throttle.name().cmp(other.throttle.name()));
        entries
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    /// Adds a throttle.
    ///
    /// # Errors
    ///
    /// If there is one of this name, or it cannot be built.
    pub(crate) fn add(
        &mut self,
        registry: &Registry,
        recipe: HttpThrottleBuilder,
    ) -> Result<usize> {
        let at = self.entries.len();
        let recipe = recipe.originating(registry.origin(at));
        let throttle = recipe.clone().build()?;
        let name = throttle.name().to_owned();
        if self.names.contains_key(&name) {
            return Err(Error::invalid(format!(
                "there is a throttle `{name}` already: change it with `update`, or give this one another name"
            )));
        }
        self.names.insert(name, at);
        self.entries.push(Entry {
            recipe,
            throttle,
            stand_in: None,
            is_used: Arc::default(),
        });
        Ok(at)
    }
}

impl Entry {
    /// Who decides.
    #[inline]
    pub(crate) fn in_force(&self) -> &HttpThrottle {
        self.stand_in.as_ref().unwrap_or(&self.throttle)
    }

    /// The throttle, whether it is enabled or not.
    pub(crate) fn throttle(&self) -> &HttpThrottle {
        &self.throttle
    }

    pub(crate) fn recipe(&self) -> &HttpThrottleBuilder {
        &self.recipe
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.stand_in.is_none()
    }

    /// Notes that somebody relies on it.
    pub(crate) fn use_it(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }

    /// Builds it anew. It goes on where it is: its counts, who waits, and an outage that lasts.
    ///
    /// # Errors
    ///
    /// If it cannot be built; nothing has changed then.
    pub(crate) fn rebuild(&mut self, recipe: HttpThrottleBuilder) -> Result<()> {
        self.throttle = recipe.clone().succeeding(&self.throttle).build()?;
        self.recipe = recipe;
        Ok(())
    }

    /// # Errors
    ///
    /// None, as long as what was built once can be built again.
    pub(crate) fn set_enabled(&mut self, is_enabled: bool) -> Result<()> {
        self.stand_in = match (is_enabled, self.stand_in.take()) {
            (true, _) => None,
            (false, Some(stand_in)) => Some(stand_in),
            (false, None) => {
                let stand_in = self.recipe.clone().disabled().succeeding(&self.throttle);
                Some(stand_in.build()?)
            }
        };
        Ok(())
    }
}
