//! What a registry knows, and how that is replaced while requests pass.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use traffik_core::{Error, Reign, Result};

#[cfg(feature = "config")]
use crate::entry::rule::Rule;
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
    /// Where each of them is does not change while it is there: handles know it. The place of one that was
    /// removed is taken by the next.
    entries: Vec<Option<Entry>>,
    names: HashMap<Arc<str>, usize>,
    /// Names that led somewhere once: who asks for these by name is no mistake of the program. And what is held of
    /// their counts.
    removed: HashMap<Arc<str>, Reign>,
    /// Rules of middlewares that follow them, which are replaced together with their throttles.
    #[cfg(feature = "config")]
    lists: Vec<Arc<Vec<Rule>>>,
}

/// A throttle of a registry at some time.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    recipe: HttpThrottleBuilder,
    throttle: HttpThrottle,
    /// What is asked instead while it is disabled.
    stand_in: Option<HttpThrottle>,
}

/// Of which registry a throttle is, in which names are unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin(u64);

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
        state.come_into_force();
        self.state.store(Arc::new(state));
        self.changes.fetch_add(1, Ordering::Release);
        Ok(done)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // The state is replaced as a whole or not at all.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin(self.id)
    }
}

impl State {
    /// From now on permits that are held go by it.
    fn come_into_force(&self) {
        self.removed.values().for_each(Reign::end);
        self.entries
            .iter()
            .flatten()
            .for_each(Entry::come_into_force);
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries[self.find(name)?].as_ref()
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Entry> {
        let at = self.find(name)?;
        self.entries[at].as_mut()
    }

    /// The same for who knows where it was.
    #[inline]
    pub(crate) fn get_near(&self, at: usize, name: &str) -> Option<&Entry> {
        match self.entries.get(at) {
            Some(Some(entry)) if entry.throttle.name() == name => Some(entry),
            _ => self.get(name),
        }
    }

    /// In the order of their names.
    pub(crate) fn entries(&self) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.iter().flatten().collect();
        entries.sort_by(|one, other| one.throttle.name().cmp(other.throttle.name()));
        entries
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().flatten()
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
        let recipe = recipe.originating(registry.origin());
        let mut throttle = recipe.clone().build()?;
        let name: Arc<str> = throttle.name().into();
        if let Some(reign) = self.removed.get(&name) {
            throttle = recipe.clone().reigning(reign).build()?;
        }
        if self.names.contains_key(&name) {
            return Err(Error::invalid(format!(
                "there is a throttle `{name}` already: change it with `update`, or give this one another name"
            )));
        }
        let entry = Entry {
            recipe,
            throttle,
            stand_in: None,
        };
        let free = self.entries.iter().position(Option::is_none);
        let at = free.unwrap_or(self.entries.len());
        match free {
            Some(at) => self.entries[at] = Some(entry),
            None => self.entries.push(Some(entry)),
        }
        self.removed.remove(&name);
        self.names.insert(name, at);
        Ok(at)
    }

    /// Forgets a throttle, and says whether it was there.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        match self.names.remove_entry(name) {
            Some((name, at)) => match self.entries[at].take() {
                Some(entry) => {
                    let reign = entry.throttle.throttle().reign().clone();
                    self.removed.insert(name, reign);
                    true
                }
                None => false,
            },
            None => false,
        }
    }

    #[cfg(feature = "config")]
    pub(crate) fn add_list(&mut self) -> usize {
        self.lists.push(Arc::default());
        self.lists.len() - 1
    }

    #[cfg(feature = "config")]
    pub(crate) fn list(&self, list: usize) -> &[Rule] {
        &self.lists[list]
    }

    #[cfg(feature = "config")]
    pub(crate) fn set_list(&mut self, list: usize, rules: Vec<Rule>) {
        self.lists[list] = Arc::new(rules);
    }

    pub(crate) fn was_removed(&self, name: &str) -> bool {
        self.removed.contains_key(name)
    }
}

impl Entry {
    /// Who decides.
    #[inline]
    pub(crate) fn in_force(&self) -> &HttpThrottle {
        self.stand_in.as_ref().unwrap_or(&self.throttle)
    }

    /// From now on it decides, unless it limits nothing.
    fn come_into_force(&self) {
        let throttle = self.throttle.throttle();
        let limits = !throttle.rate().is_unlimited() || self.throttle.asks().rate;
        throttle.come_into_force(limits && self.is_enabled());
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

    /// Builds it anew. It goes on where it is: its counts, who waits, and an outage that lasts.
    ///
    /// # Errors
    ///
    /// If it cannot be built, or has another name; nothing has changed then.
    pub(crate) fn rebuild(&mut self, recipe: HttpThrottleBuilder) -> Result<()> {
        let throttle = recipe.clone().succeeding(&self.throttle).build()?;
        let (name, other) = (self.throttle.name(), throttle.name());
        if name != other {
            return Err(Error::invalid(format!(
                "throttle `{name}` cannot become one named `{other}`: change the builder that the function is given, \
                 or `add` the other one"
            )));
        }
        // What is said to the one that stands in is said to the throttle, not to the one before it.
        self.stand_in = match &self.stand_in {
            Some(_) => Some(stand_in(&recipe, &throttle)?),
            None => None,
        };
        (self.recipe, self.throttle) = (recipe, throttle);
        Ok(())
    }

    /// # Errors
    ///
    /// None, as long as what was built once can be built again.
    pub(crate) fn set_enabled(&mut self, is_enabled: bool) -> Result<()> {
        self.stand_in = match (is_enabled, self.stand_in.take()) {
            (true, _) => None,
            (false, Some(stand_in)) => Some(stand_in),
            (false, None) => Some(stand_in(&self.recipe, &self.throttle)?),
        };
        Ok(())
    }
}

/// What is asked instead of a throttle that is disabled.
fn stand_in(recipe: &HttpThrottleBuilder, throttle: &HttpThrottle) -> Result<HttpThrottle> {
    recipe.clone().disabled().succeeding(throttle).build()
}
