//! Notices limits that are multiplied by accident.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use traffik_core::Backend;

/// Where the throttles of one name count.
enum Stores {
    /// In these memories, of which those still in use are one and the same.
    One(Vec<Weak<dyn Backend>>),
    /// In several, and that was said.
    Several,
}

/// Notes where a throttle counts. The same name in two memories means that the backend was built
/// inside the `HttpServer::new` closure, once per worker: that is said once. Memories that nobody
/// uses any more, such as those of earlier tests, do not matter.
///
/// True if there were several, so that nothing more can be learnt about this name.
pub(crate) fn note(name: &str, backend: &Arc<dyn Backend>) -> bool {
    static STORES: Mutex<Option<HashMap<String, Stores>>> = Mutex::new(None);

    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let stores = stores
        .get_or_insert_default()
        .entry(name.to_owned())
        .or_insert(Stores::One(Vec::new()));
    let Stores::One(known) = stores else {
        return true;
    };
    known.retain(|one| one.strong_count() > 0);
    let several = known
        .iter()
        .filter_map(Weak::upgrade)
        .any(|one| one.store_id() != backend.store_id());
    if several {
        *stores = Stores::Several;
        warn(name);
    } else {
        known.push(Arc::downgrade(backend));
    }
    several
}

fn warn(name: &str) {
    log::warn!(
        "throttle `{name}` counts in more than one memory, so its limit is multiplied: build the \
         backend once, outside the `HttpServer::new` closure, and move clones of it in"
    );
}
