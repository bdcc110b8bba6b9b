//! What a program adds to a file, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::HttpRequest;
use traffik_core::Identity;

use super::document::{Mistake, Place, Read};
use super::reader::unknown;
use crate::request::source::Source;
use crate::throttle::backend::ThrottleBackend;

pub(super) type Predicate = Arc<dyn Fn(&HttpRequest) -> bool + Send + Sync>;
pub(super) type TierOf = Arc<dyn Fn(&HttpRequest) -> Option<String> + Send + Sync>;

#[derive(Clone, Default)]
pub(super) struct Parts {
    pub(super) identities: BTreeMap<String, Source<Identity>>,
    pub(super) tiers: BTreeMap<String, TierOf>,
    pub(super) predicates: BTreeMap<String, Predicate>,
    pub(super) backends: BTreeMap<String, ThrottleBackend>,
    /// What the program would add is taken to be there, and so are variables of the environment.
    pub(super) is_rehearsal: bool,
    /// What was taken to be there.
    pub(super) needed: Arc<Mutex<BTreeSet<String>>>,
}

impl Parts {
    pub(super) fn identity(&self, name: &str, at: Option<Place>) -> Read<Source<Identity>> {
        let anybody = || Source::sync("identity", |_: &HttpRequest| Identity::ANONYMOUS);
        self.find("identity function", &self.identities, name, at, anybody)
    }

    pub(super) fn tier(&self, name: &str, at: Option<Place>) -> Read<TierOf> {
        self.find("tier function", &self.tiers, name, at, || {
            Arc::new(|_| None)
        })
    }

    /// A predicate. In a rehearsal it is true, as one that fails.
    pub(super) fn predicate(&self, name: &str, at: Option<Place>) -> Read<Predicate> {
        self.find("predicate", &self.predicates, name, at, || {
            Arc::new(|_| true)
        })
    }

    pub(super) fn need(&self, what: String) {
        // It is added to, and nothing else.
        let mut needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        needed.insert(what);
    }

    fn find<T: Clone>(
        &self,
        kind: &str,
        all: &BTreeMap<String, T>,
        name: &str,
        at: Option<Place>,
        rehearsed: impl FnOnce() -> T,
    ) -> Read<T> {
        match all.get(name) {
            Some(found) => Ok(found.clone()),
            None if self.is_rehearsal => {
                self.need(format!("{kind} `{name}`"));
                Ok(rehearsed())
            }
            None => {
                let known = all.keys().map(String::as_str);
                let what = unknown(kind, name, known);
                Err(Mistake::at(
                    at,
                    format!("{what}: the program registers them by name"),
                ))
            }
        }
    }
}
