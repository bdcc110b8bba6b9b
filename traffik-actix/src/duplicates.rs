//! Notices limits that are multiplied by accident.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::backend::ThrottleBackend;
use crate::throttle::HttpThrottle;

/// Notes where a throttle counts, as its middleware starts on a worker. The same name in two
/// memories means that throttle and backend were both built inside the closure, once per worker.
pub(crate) fn note(throttle: &HttpThrottle, outer: Option<&ThrottleBackend>) {
    static STORES: Mutex<Option<HashMap<String, usize>>> = Mutex::new(None);

    let Some(backend) = throttle
        .own_backend()
        .or(outer)
        .map(|backend| &backend.backend)
    else {
        return;
    };
    if !backend.is_local() {
        return;
    }
    let store = backend.store_id();
    let before = STORES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert_default()
        .insert(throttle.name().to_owned(), store);
    if before.is_some_and(|before| before != store) {
        warn(throttle.name());
    }
}

#[cold]
pub(crate) fn warn(name: &str) {
    log::warn!(
        "throttle `{name}` counts in more than one memory, so its limit is multiplied: build the \
         backend once, outside the `HttpServer::new` closure, and move clones of it in"
    );
}
