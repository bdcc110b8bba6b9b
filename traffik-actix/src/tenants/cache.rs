//! Which backends are open, and which of them may be closed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use traffik_core::{Error, Result, Timestamp};

use crate::throttle::backend::ThrottleBackend;

#[derive(Default)]
pub(super) struct Cache {
    tenants: Mutex<Tenants>,
    /// When idle ones are looked for again, in microseconds.
    next_look: AtomicU64,
}

#[derive(Default)]
struct Tenants {
    open: HashMap<Box<str>, Open>,
    making: HashMap<Box<str>, Arc<Outcome>>,
    /// Why some could not be made, until when that is remembered.
    failed: HashMap<Box<str>, (Error, Timestamp)>,
    /// Until when none is looked for that could be closed to make room, since there was none.
    full: Timestamp,
    /// That there are too many was said.
    told: bool,
    is_shut: bool,
}

struct Open {
    backend: ThrottleBackend,
    used: Timestamp,
}

/// What became of a backend that was to be made.
type Outcome = OnceCell<Result<ThrottleBackend>>;

/// What is known of a tenant.
pub(super) enum Found<'a> {
    Open(ThrottleBackend),
    Failed(Error),
    Full,
    Making(Seat<'a>),
}

/// What holds for a tenant that is to be opened.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) max: usize,
    pub(super) idle: Duration,
    pub(super) now: Timestamp,
    /// Until when a failure is remembered.
    pub(super) retry: Timestamp,
}

/// Of somebody who waits until a backend is made. The first of them makes it, or the next if that one is gone.
pub(super) struct Seat<'a> {
    cache: &'a Cache,
    name: &'a str,
    outcome: Option<Arc<Outcome>>,
}

impl Seat<'_> {
    pub(super) async fn outcome<F: Future<Output = Result<ThrottleBackend>>>(
        &self,
        make: impl FnOnce() -> F,
    ) -> Result<ThrottleBackend> {
        match &self.outcome {
            Some(outcome) => outcome.get_or_init(make).await.clone(),
            None => unreachable!("it is taken when this is dropped"),
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut tenants = self.cache.lock();
        drop(self.outcome.take());
        let making = tenants.making.get(self.name);
        if making.is_some_and(|outcome| Arc::strong_count(outcome) == 1) {
            tenants.making.remove(self.name);
        }
    }
}

impl Cache {
    pub(super) fn look_up<'a>(&'a self, name: &'a str, limits: Limits) -> Result<Found<'a>> {
        let mut tenants = self.lock();
        if tenants.is_shut {
            return Err(shut());
        }
        if let Some(open) = tenants.open.get_mut(name) {
            open.used = limits.now;
            return Ok(Found::Open(open.backend.clone()));
        }
        match tenants.failed.get(name) {
            Some((error, until)) if limits.now < *until => return Ok(Found::Failed(error.clone())),
            Some(_) => drop(tenants.failed.remove(name)),
            None => {}
        }
        if limits.now < tenants.full && tenants.open.len() >= limits.max {
            return Ok(Found::Full);
        }
        let outcome = tenants.making.entry(name.into()).or_default();
        Ok(Found::Making(Seat {
            cache: self,
            name,
            outcome: Some(Arc::clone(outcome)),
        }))
    }

    /// Keeps what was made, or why it could not be.
    ///
    /// # Errors
    ///
    /// That, or `None` if there is no room.
    pub(super) fn place(
        &self,
        name: &str,
        made: Result<ThrottleBackend>,
        limits: Limits,
    ) -> Result<ThrottleBackend, Option<Error>> {
        let backend = match made {
            Ok(backend) => backend.separate(),
            Err(error) => {
                self.lock().fail(name, error.clone(), limits);
                return Err(Some(error));
            }
        };
        if self.len() >= limits.max {
            close_later(self.idle(limits.now, limits.idle));
            close_later(self.make_room(limits));
        }
        let mut tenants = self.lock();
        let refused = match (tenants.is_shut, tenants.open.len() < limits.max) {
            (true, _) => Some(shut()),
            (false, true) => {
                let open = Open {
                    backend: backend.clone(),
                    used: limits.now,
                };
                tenants.open.insert(name.into(), open);
                return Ok(backend);
            }
            (false, false) => {
                tenants.full = limits.retry;
                None
            }
        };
        let closed = tenants.unless_shared(backend);
        drop(tenants);
        close_later(closed.into_iter().collect());
        Err(refused)
    }

    /// Removes those which nobody has needed for so long, as far as they may be closed.
    pub(super) fn idle(&self, now: Timestamp, idle: Duration) -> Vec<ThrottleBackend> {
        let mut tenants = self.lock();
        tenants.failed.retain(|_, (_, until)| now < *until);
        let mut idlers = Vec::new();
        for (name, open) in &mut tenants.open {
            if open.is_used() {
                open.used = now;
            } else if u128::from(now.micros_since(open.used)) >= idle.as_micros() {
                idlers.push(name.clone());
            }
        }
        drop(tenants);
        let removed = idlers.iter().filter_map(|name| self.remove(name));
        removed.flatten().collect()
    }

    /// Removes the one that nobody has needed for the longest time, of those that may be closed.
    fn make_room(&self, limits: Limits) -> Vec<ThrottleBackend> {
        let tenants = self.lock();
        let excess = (tenants.open.len() + 1).saturating_sub(limits.max);
        let unused = tenants.open.iter().filter(|(_, open)| !open.is_used());
        let mut unused: Vec<_> = unused
            .map(|(name, open)| (open.used, name.clone()))
            .collect();
        drop(tenants);
        unused.sort_unstable();
        let removed = unused.iter().filter_map(|(_, name)| self.remove(name));
        removed.take(excess).flatten().collect()
    }

    /// Removes one, unless it is used or would forget something. It is to be closed, unless another tenant has the
    /// same store. Nothing is locked while that is found out: memories look through all they have.
    fn remove(&self, name: &str) -> Option<Option<ThrottleBackend>> {
        let (backend, used) = {
            let tenants = self.lock();
            let open = tenants.open.get(name).filter(|open| !open.is_used())?;
            (open.backend.clone(), open.used)
        };
        let would_forget = backend.backend.would_forget();
        let mut tenants = self.lock();
        drop(backend);
        let open = tenants.open.get(name)?;
        if would_forget || open.is_used() || open.used != used {
            return None;
        }
        let open = tenants.open.remove(name)?;
        Some(tenants.unless_shared(open.backend))
    }

    /// Whether it is time to look for idle ones again.
    pub(super) fn is_time(&self, now: Timestamp, every: Duration) -> bool {
        let (now, due) = (now.as_micros(), self.next_look.load(Ordering::Relaxed));
        let next = now.saturating_add(micros(every));
        let exchange = |due| {
            let order = Ordering::Relaxed;
            self.next_look.compare_exchange(due, next, order, order)
        };
        now >= due && exchange(due).is_ok()
    }

    /// Whether that is said for the first time.
    pub(super) fn is_news_that_it_is_full(&self) -> bool {
        !std::mem::replace(&mut self.lock().told, true)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().open.len()
    }

    pub(super) fn all(&self) -> Vec<(String, ThrottleBackend)> {
        let tenants = self.lock();
        let all = tenants.open.iter();
        all.map(|(name, open)| (name.to_string(), open.backend.clone()))
            .collect()
    }

    /// Removes all, for good.
    pub(super) fn shut(&self) -> Vec<ThrottleBackend> {
        let mut tenants = self.lock();
        tenants.is_shut = true;
        let all = std::mem::take(&mut tenants.open);
        all.into_values().map(|open| open.backend).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Tenants> {
        // Nothing that is done under the lock leaves anything half done.
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenants {
    /// Remembers a failure. Names are what clients write: beyond so many none is remembered for long.
    fn fail(&mut self, name: &str, error: Error, limits: Limits) {
        if self.failed.len() >= limits.max.max(MOST_FAILED) {
            self.failed.retain(|_, (_, until)| limits.now < *until);
        }
        if self.failed.len() >= limits.max.max(MOST_FAILED) {
            self.failed.clear();
        }
        self.failed.insert(name.into(), (error, limits.retry));
    }

    /// The backend, if no tenant counts in its store.
    fn unless_shared(&self, backend: ThrottleBackend) -> Option<ThrottleBackend> {
        let store = backend.backend.store_id();
        let mut all = self.open.values();
        let is_shared = all.any(|open| open.backend.backend.store_id() == store);
        (!is_shared).then_some(backend)
    }
}

impl Open {
    /// Whether a request, a permit or a WebSocket has it. Only under the lock does nobody else get it meanwhile.
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.backend.backend) > 1
    }
}

/// How many failures are remembered at least.
const MOST_FAILED: usize = 1_000;

fn shut() -> Error {
    Error::closed("the backends of all tenants were closed")
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) async fn close_all(backends: Vec<ThrottleBackend>) {
    for backend in backends {
        if let Err(error) = backend.backend.close().await {
            log::warn!("a tenant's backend could not be closed as it should be: {error}");
        }
    }
}

/// Closes them beside the requests. Without a runtime they are dropped.
pub(super) fn close_later(backends: Vec<ThrottleBackend>) {
    if let (false, Ok(runtime)) = (backends.is_empty(), Handle::try_current()) {
        drop(runtime.spawn(close_all(backends)));
    }
}
