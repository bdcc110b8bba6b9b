//! Where counts live, as a file says it.

use std::collections::BTreeMap;

use traffik_core::{MemoryBackend, Result};

use super::document::{Mistake, Place, Read};
use super::parts::Parts;
use super::reader::{Table, unknown};
use super::stores::{self, Kind};
use crate::throttle::backend::ThrottleBackend;

/// The backends of a file.
#[derive(Clone, Default)]
pub(super) struct Backends(BTreeMap<String, Made>);

#[derive(Clone)]
struct Made {
    /// All that it depends on, which may be secret.
    said: String,
    words: String,
    backend: ThrottleBackend,
}

/// A backend of the file or of the program.
pub(super) struct Found {
    /// Nothing in a rehearsal, if it is the program's.
    pub(super) backend: Option<ThrottleBackend>,
    /// All that it depends on, which may be secret.
    pub(super) said: String,
    pub(super) words: String,
}

pub(super) type Maker = Box<dyn FnOnce() -> Result<ThrottleBackend>>;

/// A backend that is not made yet.
pub(super) struct Recipe {
    pub(super) said: String,
    pub(super) words: String,
    pub(super) make: Maker,
}

impl Backends {
    /// Those of a file. One of which the same was said before goes on as it is, with all counts.
    pub(super) fn read(file: &Table<'_>, parts: &Parts, before: &Backends) -> Backends {
        let mut all = BTreeMap::new();
        for (name, _, table) in file.tables("backend") {
            let made = recipe(name, &table, parts).and_then(|recipe| {
                let known = before.0.get(name);
                table.note(recipe.made(known, &table))
            });
            // In the stead of one that is not understood, so that its name is known.
            all.insert(name.to_owned(), made.unwrap_or_else(Made::unread));
        }
        Backends(all)
    }

    /// The backend of this name.
    pub(super) fn find(&self, name: &str, at: Option<Place>, parts: &Parts) -> Read<Found> {
        if let Some(made) = self.0.get(name) {
            return Ok(Found {
                backend: Some(made.backend.clone()),
                said: made.said.clone(),
                words: format!("`{name}` ({})", made.words),
            });
        }
        let backend = parts.backends.get(name).cloned();
        if backend.is_none() {
            if !parts.is_rehearsal {
                let known = self.0.keys().chain(parts.backends.keys());
                let what = unknown("backend", name, known.map(String::as_str));
                return Err(Mistake::at(at, what));
            }
            parts.need(format!("backend `{name}`"));
        }
        Ok(Found {
            backend,
            said: "the program's".to_owned(),
            words: format!("`{name}` of the program"),
        })
    }

    /// The one that throttles have which name none.
    pub(super) fn has_default(&self, parts: &Parts) -> bool {
        self.0.contains_key("default") || parts.backends.contains_key("default")
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Recipe {
    fn made(self, known: Option<&Made>, table: &Table<'_>) -> Read<Made> {
        let Recipe { said, words, make } = self;
        let backend = match known.filter(|made| made.said == said) {
            Some(made) => made.backend.clone(),
            None => make().map_err(|error| table.mistake(error))?.separate(),
        };
        Ok(Made {
            said,
            words,
            backend,
        })
    }
}

impl Made {
    fn unread() -> Made {
        Made {
            said: String::new(),
            words: String::new(),
            backend: ThrottleBackend::new(MemoryBackend::new()),
        }
    }
}

/// Nothing if there are mistakes, of which all are told.
fn recipe(name: &str, table: &Table<'_>, parts: &Parts) -> Option<Recipe> {
    if parts.backends.contains_key(name) {
        table.refuse("the program has a backend of this name: give this one another");
    }
    let stores = Kind::ALL.map(|kind| (kind.name(), Some(kind)));
    let kinds: Vec<_> = [("memory", None)].into_iter().chain(stores).collect();
    let recipe = match table.required_choice("type", &kinds)? {
        None => Some(memory(table)),
        Some(kind) => stores::read(kind, name, table, parts),
    };
    table.finish();
    recipe.filter(|_| !table.is_mistaken())
}

fn memory(table: &Table<'_>) -> Recipe {
    let max_keys = table.count("max_keys");
    let make = move || {
        let mut builder = MemoryBackend::builder();
        if let Some(max_keys) = max_keys {
            builder = builder.max_keys(max_keys as usize);
        }
        Ok(ThrottleBackend::new(builder.build()?))
    };
    Recipe {
        said: format!("memory {max_keys:?}"),
        words: "the memory of the process".to_owned(),
        make: Box::new(make),
    }
}
