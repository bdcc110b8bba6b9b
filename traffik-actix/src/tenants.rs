//! A backend for each tenant, made when it is needed.

pub(crate) mod by;
mod cache;
mod make;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::error::ErrorServiceUnavailable;
use traffik_core::{Clock, Error, MonotonicClock, Timestamp};

use crate::request::source::{IntoValue, Source};
use crate::response::hit_error::HitError;
use crate::tenants::by::ByTenant;
use crate::tenants::cache::{Cache, Found};
use crate::tenants::make::{AtOnce, Awaiting, Make};
use crate::throttle::backend::ThrottleBackend;

/// A backend for each tenant of a service, by name: made when the first request needs it, kept, and closed when nobody
/// has needed it for a while.
///
/// ```
/// use actix_web::{App, HttpRequest, get, web};
/// use actix_web::error::ErrorNotFound;
/// use traffik_actix::{MemoryBackend, Tenants, ThrottleBackend, throttle};
///
/// #[get("/hello")]
/// #[throttle("3/minute")] // of each tenant
/// async fn hello() -> &'static str {
///     "hello"
/// }
///
/// // Once, outside the `HttpServer::new` closure. A Redis has a namespace, or a server, for each.
/// let tenants = Tenants::new(|name: &str| match name {
///     "north" | "south" => Ok(ThrottleBackend::new(MemoryBackend::new())),
///     _ => Err(ErrorNotFound("nobody is here by this name")),
/// });
/// let name = |req: &HttpRequest| req.match_info().get("tenant").unwrap_or_default().to_owned();
///
/// let app = move || App::new().service(web::scope("/{tenant}").wrap(tenants.by(name)).service(hello));
/// # let _ = app();
/// ```
///
/// [`by`](Tenants::by) is for all limits further in; [`backend_by`](crate::HttpThrottleBuilder::backend_by), with
/// [`open`](Tenants::open), for one throttle. What throttles do by default, who asks and what a denial looks like, may differ
/// between tenants, too.
///
/// Cheap to clone; clones share the backends. To find one takes no connection, and no look at anything but a map.
///
/// **Which tenants there are, the function says**, by failing for others: they are answered 400, or what an
/// `actix_web::Error` says, such as a 404. A name is what a client wrote, as a rule; one of more than
/// 256 bytes is refused. Names are told apart by each byte: where `North` and `north` are one tenant, have the function that
/// says the name say one of them, or a client has a count for each spelling. The function is asked once for a tenant, however many requests wait for it. That it failed is
/// remembered for [a second](Tenants::retry_after).
///
/// **A backend of its own** is what the function has to give, not a clone of one that is used elsewhere: it is
/// [closed](traffik_core::Backend::close) in the end. That is when no request, permit or WebSocket uses it, and none has for
/// [ten minutes](Tenants::idle); a backend that would [forget](traffik_core::Backend::would_forget) counts, such as a memory in
/// which some are alive, stays open until they have expired. So nobody gets a limit twice. What is idle is looked for as
/// requests come, and by [`sweep`](Tenants::sweep).
///
/// **At most [1,000](Tenants::max)** are open. One more takes the place of the one that was not needed for the
/// longest time, if it can be closed; else its requests are answered 503, since the server can do no more.
#[derive(Clone)]
pub struct Tenants {
    settings: Settings,
    cache: Arc<Cache>,
}

#[derive(Clone)]
struct Settings {
    make: Arc<dyn Make>,
    max: usize,
    idle: Duration,
    retry_after: Duration,
    clock: Arc<dyn Clock>,
}

/// Names are what clients write.
const LONGEST_NAME: usize = 256;

impl Tenants {
    /// Tenants whose backends this function makes.
    pub fn new<F, R>(make: F) -> Tenants
    where
        F: Fn(&str) -> R + Send + Sync + 'static,
        R: IntoValue<ThrottleBackend> + 'static,
    {
        Tenants::made_by(Arc::new(AtOnce(make)))
    }

    /// The same with an async function, such as one that looks up in a database where a tenant's Redis is.
    pub fn new_async<F, R>(make: F) -> Tenants
    where
        F: AsyncFn(&str) -> R + Send + Sync + 'static,
        R: IntoValue<ThrottleBackend> + 'static,
    {
        Tenants::made_by(Arc::new(Awaiting(make)))
    }

    fn made_by(make: Arc<dyn Make>) -> Tenants {
        Tenants {
            settings: Settings {
                make,
                max: 1_000,
                idle: Duration::from_secs(600),
                retry_after: Duration::from_secs(1),
                clock: Arc::new(MonotonicClock::new()),
            },
            cache: Arc::default(),
        }
    }

    /// Sets how many are open at most, at least one. Default: 1,000.
    pub fn max(mut self, max: usize) -> Tenants {
        self.settings.max = max;
        self
    }

    /// Sets how long nobody needs a backend before it is closed. Default: ten minutes.
    pub fn idle(mut self, idle: Duration) -> Tenants {
        self.settings.idle = idle;
        self
    }

    /// Sets for how long it is remembered that a tenant's backend could not be made. Default: a second.
    pub fn retry_after(mut self, retry_after: Duration) -> Tenants {
        self.settings.retry_after = retry_after;
        self
    }

    /// Sets the clock that says what is idle. Default: a monotonic one.
    pub fn clock(mut self, clock: impl Clock) -> Tenants {
        self.settings.clock = Arc::new(clock);
        self
    }

    /// Chooses the backend of all limits further in: a middleware that asks this function whose a request is, and puts the
    /// tenant's backend where throttles [look first](ThrottleBackend). If the function [fails](IntoValue), or the backend
    /// cannot be made, the request is answered without going further.
    pub fn by<F, R>(&self, name: F) -> ByTenant
    where
        F: Fn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<String>,
    {
        ByTenant::new(self.clone(), Source::sync("tenant", name))
    }

    /// The same with an async function.
    pub fn by_async<F, R>(&self, name: F) -> ByTenant
    where
        F: AsyncFn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<String>,
    {
        ByTenant::new(self.clone(), Source::awaiting("tenant", name))
    }

    /// The backend of a tenant, which is made if it is not there. Whoever keeps it keeps it open.
    ///
    /// # Errors
    ///
    /// If it cannot be made, if there are too many, or after [`close`](Tenants::close). With `?` in a handler or a function
    /// of a throttle it is answered as described [above](Tenants).
    pub async fn open(&self, name: &str) -> Result<ThrottleBackend, HitError> {
        if name.len() > LONGEST_NAME {
            return Err(unresolved("the name of a tenant has at most 256 bytes").into());
        }
        self.sweep_at_times();
        let seat = match self.cache.look_up(name, self.limits())? {
            Found::Open(backend) => return Ok(backend),
            Found::Failed(error) => return Err(error.into()),
            Found::Full => return Err(self.full().into()),
            Found::Making(seat) => seat,
        };
        let make = async || {
            let made = self.settings.make.make(name).await;
            let placed = self.cache.place(name, made, self.limits());
            placed.map_err(|error| error.unwrap_or_else(|| self.full()))
        };
        Ok(seat.outcome(make).await?)
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes what is idle, and returns how many. Requests do that by the way; this is for a service that may have none
    /// for a long time.
    pub async fn sweep(&self) -> usize {
        let idle = self.cache.idle(self.now(), self.settings.idle);
        let closed = idle.len();
        cache::close_all(idle).await;
        closed
    }

    /// Whether the stores of all open tenants would decide hits now; see
    /// [`ThrottleBackend::ready`]. They are asked one after the other.
    ///
    /// # Errors
    ///
    /// Of those that would not: their names, and why.
    pub async fn ready(&self) -> Result<(), Vec<(String, Error)>> {
        let mut failed = Vec::new();
        for (name, backend) in self.cache.all() {
            if let Err(error) = backend.ready().await {
                failed.push((name, error));
            }
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(failed),
        }
    }

    /// Closes all of them, used or not; after this [`open`](Tenants::open) is an error.
    pub async fn close(&self) {
        cache::close_all(self.cache.shut()).await;
    }

    fn sweep_at_times(&self) {
        let (now, idle) = (self.now(), self.settings.idle);
        if self.cache.is_time(now, idle / 4) {
            cache::close_later(self.cache.idle(now, idle));
        }
    }

    fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }

    fn limits(&self) -> cache::Limits {
        let now = self.now();
        cache::Limits {
            max: self.settings.max.max(1),
            idle: self.settings.idle,
            now,
            retry: now.plus_micros(cache::micros(self.settings.retry_after)),
        }
    }

    #[cold]
    fn full(&self) -> Error {
        let max = self.settings.max;
        if self.cache.is_news_that_it_is_full() {
            log::warn!(
                "there are more than {max} tenants at a time, and further ones are refused: raise `Tenants::max`"
            );
        }
        unresolved_by(ErrorServiceUnavailable("The server is busy.\n"))
    }
}

fn unresolved(why: &'static str) -> Error {
    unresolved_by(why)
}

fn unresolved_by(why: impl fmt::Display + 'static) -> Error {
    let failed: Result<ThrottleBackend, _> = Err(why);
    match IntoValue::<ThrottleBackend>::into_value(failed, "tenant") {
        Err(error) => error,
        Ok(_) => unreachable!("a failure has no value"),
    }
}

impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants")
            .field("open", &self.len())
            .field("max", &self.settings.max)
            .field("idle", &self.settings.idle)
            .finish_non_exhaustive()
    }
}
