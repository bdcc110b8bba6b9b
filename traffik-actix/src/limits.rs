//! Throttles that change while requests pass.

#[cfg(feature = "config")]
pub(crate) mod lists;
pub(crate) mod live;
pub(crate) mod registry;

use std::fmt;
use std::sync::{Arc, Once};

use actix_web::{HttpRequest, web};
use smallvec::SmallVec;
use traffik_core::__private::nearest;
use traffik_core::{Error, OutageInfo, Rate, Result};

use crate::limits::live::{Live, removed};
use crate::limits::registry::{Entry, Registry, State};
use crate::throttle::HttpThrottle;
use crate::throttle::builder::HttpThrottleBuilder;

/// Throttles with unique names that can be listed, changed and switched off while requests pass.
///
/// ```
/// use actix_web::{App, HttpResponse, get, put, web};
/// use traffik_actix::{HttpThrottle, Limits, throttle};
///
/// #[get("/search")]
/// #[throttle(limit = "search")] // the one of this name in the application's `Limits`
/// async fn search() -> &'static str {
///     "results"
/// }
///
/// #[put("/admin/limits/{name}/{rate}")] // who may do that is not shown here
/// async fn set(limits: web::Data<Limits>, path: web::Path<(String, String)>) -> HttpResponse {
///     let (name, rate) = path.into_inner();
///     match limits.update(&name, |throttle| throttle.rate(rate)) {
///         Ok(()) => HttpResponse::NoContent().finish(),
///         Err(error) => HttpResponse::BadRequest().body(error.to_string()), // as it was
///     }
/// }
///
/// # fn main() -> Result<(), traffik_actix::Error> {
/// // Once, outside the `HttpServer::new` closure.
/// let limits = Limits::new();
/// let all = limits.add(HttpThrottle::builder("all").rate("1000/minute"))?;
/// limits.add(HttpThrottle::builder("search").rate("10/second"))?;
///
/// let app = move || App::new().app_data(web::Data::new(limits.clone())).wrap(all.clone()).service(search).service(set);
/// # let _ = app();
/// # Ok(())
/// # }
/// ```
///
/// Cheap to clone; clones are one registry. What [`add`](Limits::add) and [`get`](Limits::get) return is used
/// like any other throttle, in middlewares, by hand and for the messages of WebSockets, and is at any time
/// what the registry says. Throttles that are in no registry pay nothing for this.
///
/// Handlers find it in the application data of the resource, the scope and the `App`, the innermost first, as a
/// `Limits` or a `web::Data` of one. Register all of them in one way: any bare one, however far out, comes before any
/// `web::Data`, since actix does not tell which is further in.
///
/// # Who notices a change
///
/// Every decision that begins after [`update`](Limits::update) has returned. One request, with all rules of
/// its middleware, sees either everything as it was or everything as it is: nothing is locked, and requests
/// that are being decided are not disturbed. A change is known to this process only: other servers need it
/// as well, and until they have it, each applies its own rate to the counts that they share.
///
/// | what is changed | for clients it means |
/// |---|---|
/// | the rate | their counts go on; [what was taken](traffik_core::strategy#when-the-rate-is-changed) under the old rate counts under the new one. Nobody starts afresh, whether limits are raised or lowered |
/// | the cost, `min_wait`, headers, handlers, policies, who asks | the next request; what was charged stays charged |
/// | the strategy, or one of its options such as a burst; `shared`; the scope; who asks, if the identity is another; the backend | other counts: everybody starts afresh, so that around the change up to the old limit and the new one are admitted. Changed back, the old counts go on as far as they have not expired |
/// | `wait_up_to`, `max_waiters` | the next request; who waits already goes on to, under the old rate, and still takes a place |
/// | disabled, or [removed](Limits::remove) | admitted without a count, a header, or a question to any function or backend |
/// | enabled again | counts go on where they were, as far as they have not expired |
///
/// A denial that was announced is not taken back: a client that was told to wait may do so longer than it
/// now would have to. What a request or stream holds a [`Permit`](crate::Permit) for is metered and settled
/// under the rate that is in force then, in the counts in which it was charged; while the throttle is disabled,
/// or removed, it may use more without being charged. A [lease](crate::Lease) that was taken under another rate
/// is spent, or given back, as it is. Who waits already asks under the old rate, as servers do that do not know of
/// the change yet: where a limit was lowered that may give the new one once more. Open WebSockets keep who asks,
/// the scope, the backend, the longest wait, and a rate or cost that a function gave, as these are found out once,
/// with the handshake; all else changes with their next message. A function of rate or cost that is new is asked
/// about the handshake then.
#[derive(Clone)]
pub struct Limits(Arc<Registry>);

/// What is known about a throttle of [`Limits`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limit {
    /// Its name.
    pub name: String,
    /// Its rate, unless a function of the request gives it.
    pub rate: Option<Rate>,
    /// The [id](traffik_core::Strategy::id) of its strategy.
    pub strategy: String,
    /// The strategy's [parameters](traffik_core::Strategy::parameters), as text.
    pub parameters: String,
    /// The cost of a request, unless a function gives it.
    pub cost: Option<u32>,
    /// Whether it decides.
    pub is_enabled: bool,
    /// Whether its backend fails.
    pub outage: OutageInfo,
}

impl Limits {
    /// A registry without throttles.
    pub fn new() -> Limits {
        Limits(Registry::new())
    }

    /// Adds a throttle, and returns it.
    ///
    /// # Errors
    ///
    /// If there is a throttle of this name already, or if it [cannot be built](HttpThrottleBuilder::build).
    pub fn add(&self, throttle: HttpThrottleBuilder) -> Result<HttpThrottle> {
        let (at, recipe) = self.0.change(|state| {
            let recipe = throttle.clone();
            Ok((state.add(&self.0, throttle)?, recipe))
        })?;
        self.handle(at, recipe)
    }

    /// The throttle of this name.
    pub fn get(&self, name: &str) -> Option<HttpThrottle> {
        let state = self.0.state();
        let at = state.find(name)?;
        let recipe = state.get(name)?.recipe().clone();
        // What could be built once, can be again.
        self.handle(at, recipe).ok()
    }

    /// What is known about all throttles, in the order of their names.
    pub fn list(&self) -> Vec<Limit> {
        let state = self.0.state();
        state.entries().into_iter().map(Limit::of).collect()
    }

    /// Changes a throttle: what the function does not set stays as it was.
    ///
    /// ```
    /// # use traffik_actix::{HttpThrottle, Limits};
    /// let limits = Limits::new();
    /// let api = limits.add(HttpThrottle::builder("api").rate("100/minute"))?;
    ///
    /// limits.update("api", |api| api.rate("200/minute").cost(2))?;
    /// assert_eq!(api.rate().unwrap().to_string(), "200/minute");
    ///
    /// let error = limits.update("apj", |api| api.rate("1/s")).unwrap_err();
    /// assert_eq!(error.to_string(), "there is no throttle `apj`, did you mean `api`?");
    /// assert!(limits.update("api", |api| api.rate("many")).is_err()); // and stays as it was
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    ///
    /// The function must not change the registry: it would wait for itself.
    ///
    /// # Errors
    ///
    /// If there is no throttle of this name, or if it cannot be built like that, or under another name; it stays as it was
    /// then.
    pub fn update(
        &self,
        name: &str,
        change: impl FnOnce(HttpThrottleBuilder) -> HttpThrottleBuilder,
    ) -> Result<()> {
        self.0.change(|state| {
            let entry = find_mut(state, name)?;
            let recipe = change(entry.recipe().clone());
            // It may be a fresh one.
            entry.rebuild(recipe.originating(self.0.origin()))
        })
    }

    /// Stops limiting by a throttle: it admits everything and counts nothing.
    ///
    /// # Errors
    ///
    /// If there is no throttle of this name.
    pub fn disable(&self, name: &str) -> Result<()> {
        self.0
            .change(|state| find_mut(state, name)?.set_enabled(false))
    }

    /// Limits by a throttle again.
    ///
    /// # Errors
    ///
    /// If there is no throttle of this name.
    pub fn enable(&self, name: &str) -> Result<()> {
        self.0
            .change(|state| find_mut(state, name)?.set_enabled(true))
    }

    /// Stops limiting by any of them, all at once.
    pub fn disable_all(&self) {
        self.set_all_enabled(false);
    }

    /// Limits by all of them again, all at once.
    pub fn enable_all(&self) {
        self.set_all_enabled(true);
    }

    /// Takes a throttle out: it is listed no more, and its name is free.
    ///
    /// Who still asks it, such as a middleware that has it, or a handler with `#[throttle(limit = "..")]`, is admitted without
    /// a count, as if it were disabled, until one of this name is added again, which it then follows. The counts go
    /// on then where they were, as far as they have not expired. Requests and WebSockets that wait for their turn are
    /// served under the old rate.
    ///
    /// The name is remembered, so that a handler that has it is not taken for one with a slip: names without end, such as
    /// one for each customer, are not for a registry.
    ///
    /// ```
    /// # use traffik_actix::{HttpThrottle, Limits};
    /// let limits = Limits::new();
    /// limits.add(HttpThrottle::builder("api").rate("100/minute"))?;
    ///
    /// limits.remove("api")?;
    /// assert!(limits.get("api").is_none());
    /// assert!(limits.remove("api").is_err());
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no throttle of this name.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.0.change(|state| match state.remove(name) {
            true => Ok(()),
            false => Err(missing(state, name)),
        })
    }

    fn set_all_enabled(&self, are_enabled: bool) {
        let done = self.0.change(|state| {
            state
                .all_mut()
                .try_for_each(|entry| entry.set_enabled(are_enabled))
        });
        // Only what was built once is built again.
        debug_assert!(done.is_ok(), "{done:?}");
    }

    fn handle(&self, at: usize, recipe: HttpThrottleBuilder) -> Result<HttpThrottle> {
        recipe.following(Live::new(Arc::clone(&self.0), at)).build()
    }

    #[cfg(feature = "config")]
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.0
    }

    /// Those of the application that a request is for, found in the order in which a
    /// [`ThrottleBackend`](crate::ThrottleBackend) is.
    ///
    /// # Errors
    ///
    /// If there are none in its data.
    pub(crate) fn of(req: &HttpRequest) -> Result<&Limits> {
        let data = || req.app_data::<web::Data<Limits>>().map(|data| &***data);
        let found = match req.app_data::<Limits>() {
            Some(bare) => {
                if data().is_some_and(|other| !Arc::ptr_eq(&bare.0, &other.0)) {
                    explain_choice();
                }
                Some(bare)
            }
            None => data(),
        };
        found.ok_or_else(|| {
            Error::invalid(
                "the application has no `Limits` to find `limit = ..` of a `#[throttle]` in: add \
                 `.app_data(web::Data::new(limits.clone()))`",
            )
        })
    }

    /// The throttles of these names, as they are now.
    ///
    /// # Errors
    ///
    /// If one is missing.
    pub(crate) fn in_force(&self, names: &[(usize, &str)]) -> Result<SmallVec<[HttpThrottle; 2]>> {
        let state = self.0.state();
        let found = names.iter().map(|(_, name)| match state.get(name) {
            Some(entry) => Ok(entry.in_force().clone()),
            None if state.was_removed(name) => Ok(removed().clone()),
            None => Err(missing(&state, name)),
        });
        found.collect()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::new()
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Limits").field(&self.list()).finish()
    }
}

impl Limit {
    fn of(entry: &Entry) -> Limit {
        let throttle = entry.throttle();
        let (inner, asks) = (throttle.throttle(), throttle.asks());
        Limit {
            name: throttle.name().to_owned(),
            rate: throttle.rate(),
            strategy: inner.strategy().id().to_owned(),
            parameters: inner.strategy().parameters(),
            cost: (!asks.cost).then(|| inner.cost()),
            is_enabled: entry.is_enabled(),
            outage: throttle.outage(),
        }
    }
}

fn find_mut<'a>(state: &'a mut State, name: &str) -> Result<&'a mut Entry> {
    match state.find(name) {
        // Names lead to entries.
        Some(_) => Ok(state.get_mut(name).expect("it was found")),
        None => Err(missing(state, name)),
    }
}

/// Says, once, that others may have been meant.
#[cold]
fn explain_choice() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::warn!(
            "`limit = ..` of a `#[throttle]` is looked for in the `Limits` in the application data, not in the \
             `web::Data` of others that are there as well, whichever is further in: register all of them in one way"
        );
    });
}

#[cold]
fn missing(state: &State, name: &str) -> Error {
    let names: Vec<&str> = state
        .entries()
        .iter()
        .map(|entry| entry.throttle().name())
        .collect();
    let hint = match nearest(name, names.iter().copied()) {
        Some(near) => format!(", did you mean `{near}`?"),
        None if names.is_empty() => "; there is none yet".to_owned(),
        None => format!("; there are {}", names.join(", ")),
    };
    Error::invalid(format!("there is no throttle `{name}`{hint}"))
}
