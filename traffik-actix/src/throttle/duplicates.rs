//! Notices limits that are multiplied, or that do not hold, by accident.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use traffik_core::Backend;

use crate::throttle::{HttpThrottle, WeakThrottle};

/// What is known about the throttles of one name.
#[derive(Default)]
struct Known {
    /// Where they count in memory; those still in use have parts in common.
    backends: Vec<Weak<dyn Backend>>,
    /// They count in several memories, and that was said.
    are_several: bool,
    /// Who they are, and where each was seen. Only of a backend that is still there the store can be compared: others
    /// take the place of those that are gone.
    throttles: Vec<(WeakThrottle, Weak<dyn Backend>)>,
    /// That some of them share their counts was said.
    quarrel: bool,
}

/// What is known by the names of throttles.
#[derive(Default)]
struct Names {
    all: HashMap<String, Known>,
    /// At how many it is looked for those that nobody uses any more, such as of customers who come and go.
    enough: usize,
}

/// What was found out about a throttle on a backend.
pub(crate) struct Noted {
    /// Throttles of this name count in several memories: nothing more can be learnt about them.
    pub(crate) are_several: bool,
    /// Another throttle shares its counts, and cannot be meant to.
    pub(crate) quarrel: Option<String>,
    /// That was not said yet.
    pub(crate) is_news: bool,
}

/// Notes where a throttle counts. The same name in two memories means that the backend, or the memory that
/// stands in for it, was built inside the `HttpServer::new` closure, once per worker: that is said once.
/// Memories and throttles that nobody uses any more, such as those of earlier tests, do not matter.
pub(crate) fn note(throttle: &HttpThrottle, backend: &Arc<dyn Backend>) -> Noted {
    static NAMES: Mutex<Option<Names>> = Mutex::new(None);

    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = names.get_or_insert_default();
    let known = names.of(throttle.name());
    known.note_memory(throttle.name(), backend);
    let quarrel = known.note_company(throttle, backend);
    Noted {
        are_several: known.are_several,
        is_news: quarrel.is_some() && !std::mem::replace(&mut known.quarrel, true),
        quarrel,
    }
}

impl Names {
    fn of(&mut self, name: &str) -> &mut Known {
        if self.all.len() >= self.enough {
            self.all.retain(|_, known| known.is_needed());
            self.enough = 2 * self.all.len().max(64);
        }
        self.all.entry(name.to_owned()).or_default()
    }
}

impl Known {
    /// Whether there is still a throttle of this name, or something was said that is not to be said again.
    fn is_needed(&self) -> bool {
        let mut throttles = self.throttles.iter();
        self.are_several || self.quarrel || throttles.any(|(one, _)| one.is_used())
    }

    fn note_memory(&mut self, name: &str, backend: &Arc<dyn Backend>) {
        let stores = local_stores(&**backend);
        if self.are_several || stores.is_empty() {
            return;
        }
        self.backends.retain(|one| one.strong_count() > 0);
        let mut others = self.backends.iter().filter_map(Weak::upgrade);
        self.are_several = others.any(|other| !is_part(&stores, &local_stores(&*other)));
        match self.are_several {
            true => warn(name),
            false => self.backends.push(Arc::downgrade(backend)),
        }
    }

    /// What another throttle, with which this one shares its counts on a store, says about that.
    fn note_company(
        &mut self,
        throttle: &HttpThrottle,
        backend: &Arc<dyn Backend>,
    ) -> Option<String> {
        self.throttles
            .retain(|(one, place)| one.is_used() && place.strong_count() > 0);
        let (mut quarrel, mut is_known) = (None, false);
        for (other, place) in &self.throttles {
            let (Some(other), Some(place)) = (other.upgrade(), place.upgrade()) else {
                continue;
            };
            if place.store_id() != backend.store_id() {
                continue;
            }
            is_known |= other.is(throttle);
            quarrel = quarrel.or_else(|| throttle.quarrel_with(&other));
        }
        if !is_known {
            let place = Arc::downgrade(backend);
            self.throttles.push((throttle.downgrade(), place));
        }
        quarrel
    }
}

fn local_stores(backend: &dyn Backend) -> Vec<usize> {
    let mut stores = Vec::new();
    backend.local_stores(&mut |store| stores.push(store));
    stores
}

/// Whether one of them has no store that the other has not.
fn is_part(one: &[usize], other: &[usize]) -> bool {
    one.iter().all(|store| other.contains(store)) || other.iter().all(|store| one.contains(store))
}

fn warn(name: &str) {
    log::warn!(
        "throttle `{name}` counts in more than one memory, so its limit is multiplied: build the \
         backend once, outside the `HttpServer::new` closure, and move clones of it in; or say that \
         this is meant, with `ThrottleBackend::separate`"
    );
}

#[cfg(test)]
mod tests {
    use traffik_core::MemoryBackend;

    use super::*;

    #[test]
    fn names_were_kept_of_throttles_that_came_and_went() {
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        let mut names = Names::default();
        let mut note = |name: String| {
            let throttle = HttpThrottle::builder(&name).rate("1/s").build().unwrap();
            names.of(&name).note_company(&throttle, &backend);
            (throttle, names.all.len())
        };
        let (_stays, _) = note("stays".to_owned());
        for customer in 0..1_000 {
            let (_, known) = note(format!("customer-{customer}"));
            assert!(known <= 130, "{known} of {customer}");
        }
        assert!(names.all.contains_key("stays"));
    }
}
