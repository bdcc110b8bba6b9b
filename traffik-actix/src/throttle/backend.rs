//! A backend with the handlers of those throttles that have none of their own.

use std::sync::{Arc, LazyLock, Once, OnceLock};

use actix_web::http::header::HeaderMap;
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
#[cfg(feature = "memcached")]
use traffik_core::MemcachedBackend;
#[cfg(feature = "redis")]
use traffik_core::RedisBackend;
use traffik_core::{
    Backend, BackendExt, Clock, Decision, Error, Identity, MemoryBackend, OnError, SystemClock,
    Timestamp,
};

use crate::request::client_ip::ClientIp;
use crate::request::source::{IntoValue, Source};
use crate::response::denial::{ByRate, Denial};
use crate::response::failed::{ErrorPolicy, Failed};
use crate::response::handler::DeniedHandler;
use crate::response::headers::{HeaderStyle, Headers, OwnHeaders};
use crate::throttle::admission::Decided;
#[cfg(feature = "ws")]
use crate::ws::{Excess, ExcessHandler, OnExcess};

/// A backend, and what throttles on it do unless they say otherwise: who asks, what a denial looks
/// like, what happens when the backend fails.
///
/// Build it once, outside the `HttpServer::new` closure, and register a clone per worker:
///
/// ```
/// use actix_web::{App, web};
/// use traffik_actix::{ClientIp, Identity, MemoryBackend, OnError, ThrottleBackend};
///
/// let backend = ThrottleBackend::new(MemoryBackend::new())
///     .identify(|req: &actix_web::HttpRequest| match req.headers().get("x-api-key") {
///         Some(key) => Identity::of(format_args!("key:{key:?}")),
///         None => ClientIp::peer().identity(req),
///     })
///     .on_error(OnError::Allow);
///
/// let app = move || App::new().app_data(web::Data::new(backend.clone()));
/// # let _ = app();
/// ```
///
/// A throttle without a backend of its own, or a [function](crate::HttpThrottleBuilder::backend_by) that gives it, looks for one, for each request, in this order:
///
/// 1. `req.extensions()`, where a middleware that is further out, such as [`Tenants::by`](crate::Tenants::by), may have
///    put a `ThrottleBackend`. Nobody can ask whether they are borrowed: whoever hits such a throttle by hand, and has an
///    `extensions_mut()` over it, panics as with any other use of them;
/// 2. the backend of the [`ThrottleMiddleware`](crate::ThrottleMiddleware) or `WsThrottle` that it is in;
/// 3. the application data of the resource, the scope and the `App`, the innermost first, as a
///    `ThrottleBackend` or a `web::Data` of one. Register all of them in one way: any bare one, however far out,
///    comes before any `web::Data`, since actix does not tell which is further in. A middleware sees what is
///    registered where it is wrapped, or further out: a warning tells of a backend further in, which it cannot see;
/// 4. the [memory of the process](ThrottleBackend::global).
#[derive(Clone, Debug)]
pub struct ThrottleBackend {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) identify: Source<Identity>,
    pub(crate) on_denied: Option<DeniedHandler<ByRate>>,
    pub(crate) on_error: ErrorPolicy,
    #[cfg(feature = "ws")]
    pub(crate) on_excess: Option<ExcessHandler>,
    pub(crate) headers: Headers,
    pub(crate) style: HeaderStyle,
    pub(crate) own_headers: Option<OwnHeaders>,
    clock: Option<Arc<dyn Clock>>,
    /// Whether `identify` was said.
    pub(crate) identifies: bool,
    pub(crate) is_separate: bool,
}

impl ThrottleBackend {
    /// A backend with the default handlers: clients are told apart by the address of their socket
    /// ([`ClientIp::peer`]), denials are [as usual](crate::Denial::default_response), failures
    /// deny for a second, and every response carries `RateLimit` headers.
    pub fn new(backend: impl Backend) -> ThrottleBackend {
        let client_ip = ClientIp::peer();
        ThrottleBackend {
            backend: Arc::new(backend),
            identify: Source::sync("identity", move |req: &HttpRequest| client_ip.identity(req)),
            on_denied: None,
            on_error: ErrorPolicy::Fixed(OnError::Throttle),
            #[cfg(feature = "ws")]
            on_excess: None,
            headers: Headers::Always,
            style: HeaderStyle::Standard,
            own_headers: None,
            clock: None,
            identifies: false,
            is_separate: false,
        }
    }

    /// Says that what throttles count here is meant to be apart from what they count on other backends, as
    /// with a backend for each tenant: no warning that the limit is multiplied.
    ///
    /// A backend in the extensions of a request is separate anyway.
    pub fn separate(mut self) -> Self {
        self.is_separate = true;
        self
    }

    /// The memory of this process, for throttles that find no other backend.
    pub fn global() -> &'static ThrottleBackend {
        static GLOBAL: OnceLock<ThrottleBackend> = OnceLock::new();
        GLOBAL.get_or_init(|| ThrottleBackend::new(MemoryBackend::global().clone()))
    }

    /// The backend itself.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Whether hits would be decided now, for health checks: see [`BackendExt::health`]. Of a failover its primary is
    /// asked; what stands in for it decides meanwhile, so it is no reason to take a server out of service.
    ///
    /// ```
    /// use actix_web::{HttpResponse, get, web};
    /// use traffik_actix::ThrottleBackend;
    ///
    /// #[get("/health")]
    /// async fn health(backend: web::Data<ThrottleBackend>) -> HttpResponse {
    ///     match backend.ready().await {
    ///         Ok(()) => HttpResponse::Ok().body("limits: as usual"),
    ///         Err(error) => HttpResponse::Ok().body(format!("limits: {error}")), // it serves nevertheless
    ///     }
    /// }
    /// # let _ = actix_web::App::new().service(health);
    /// ```
    ///
    /// # Errors
    ///
    /// Why one of its servers would not decide.
    pub async fn ready(&self) -> Result<(), Error> {
        self.backend.health().await
    }

    /// Sets who asks. If it [fails](IntoValue), the request is answered 400.
    pub fn identify<F, R>(mut self, identify: F) -> Self
    where
        F: Fn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<Identity>,
    {
        self.identify = Source::sync("identity", identify);
        self.identifies = true;
        self
    }

    /// Sets who asks, by an async function such as a look-up of a session.
    pub fn identify_async<F, R>(mut self, identify: F) -> Self
    where
        F: AsyncFn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<Identity>,
    {
        self.identify = Source::awaiting("identity", identify);
        self.identifies = true;
        self
    }

    /// Sets the response to denied requests.
    pub fn on_denied<F>(mut self, handler: F) -> Self
    where
        F: Fn(&Denial<'_>) -> HttpResponse + Send + Sync + 'static,
    {
        self.on_denied = Some(DeniedHandler::<ByRate>::now(handler));
        self
    }

    /// Sets an async function that answers denied requests, such as after a look at what is
    /// [kept](Denial::stat), or at a plan in a database; see
    /// [`on_denied_async`](crate::HttpThrottleBuilder::on_denied_async).
    pub fn on_denied_async<F>(mut self, handler: F) -> Self
    where
        F: AsyncFn(&Denial<'_>) -> HttpResponse + Send + Sync + 'static,
    {
        self.on_denied = Some(DeniedHandler::<ByRate>::later(handler));
        self
    }

    /// Sets what to do when the backend fails. See [`on_error_by`](ThrottleBackend::on_error_by) for
    /// a function of your own.
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = ErrorPolicy::Fixed(on_error);
        self
    }

    /// Sets an async function that says what to do then, after a look at the request; see
    /// [`Failed`]. It is asked as well about requests that a function of a throttle
    /// [cannot make sense of](Error::is_unresolved). An error it returns is answered 503, or 400 if it
    /// is unresolved.
    pub fn on_error_by<F>(mut self, handler: F) -> Self
    where
        F: AsyncFn(&Failed<'_>) -> Result<Decision, Error> + Send + Sync + 'static,
    {
        self.on_error = ErrorPolicy::by(handler);
        self
    }

    /// Sets what to do about WebSocket messages beyond their limits, where the [`WsThrottle`](crate::WsThrottle)
    /// says nothing. Default: [`OnExcess::Notify`].
    #[cfg(feature = "ws")]
    pub fn on_excess(mut self, on_excess: OnExcess) -> Self {
        self.on_excess = Some(ExcessHandler::Fixed(on_excess));
        self
    }

    /// Sets an async function that decides what to do about them, and may answer by itself; see
    /// [`WsThrottle::on_excess_by`](crate::WsThrottle::on_excess_by).
    #[cfg(feature = "ws")]
    pub fn on_excess_by<F>(mut self, on_excess: F) -> Self
    where
        F: AsyncFn(&Excess<'_>) -> OnExcess + Send + Sync + 'static,
    {
        self.on_excess = Some(ExcessHandler::new(on_excess));
        self
    }

    /// Sets which responses carry headers.
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Sets which headers they carry.
    pub fn header_style(mut self, style: HeaderStyle) -> Self {
        self.style = style;
        self
    }

    /// Sets a function that writes headers of its own about a decision; see
    /// [`own_headers`](crate::HttpThrottleBuilder::own_headers).
    pub fn own_headers<F>(mut self, write: F) -> Self
    where
        F: Fn(&Decided, &mut HeaderMap) + Send + Sync + 'static,
    {
        self.own_headers = Some(OwnHeaders::new(write));
        self
    }

    /// Sets the clock by which headers tell instants, as in [`HeaderStyle::XRateLimitEpoch`]. Nothing is decided
    /// by it. Default: that of the system.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// The time, if a style tells instants.
    #[inline]
    pub(crate) fn time_for(&self, style: HeaderStyle) -> Timestamp {
        match style.tells_time() {
            true => self.time(),
            false => Timestamp::EPOCH,
        }
    }

    #[cold]
    fn time(&self) -> Timestamp {
        static OF_THE_SYSTEM: LazyLock<SystemClock> = LazyLock::new(SystemClock::new);
        match &self.clock {
            Some(clock) => clock.now(),
            None => OF_THE_SYSTEM.now(),
        }
    }

    /// The backend in the application data of a request. [`Limits`](crate::Limits) are found in the same order.
    pub(crate) fn of(req: &HttpRequest) -> Option<&ThrottleBackend> {
        req.app_data::<ThrottleBackend>().or_else(|| {
            req.app_data::<web::Data<ThrottleBackend>>()
                .map(|data| &***data)
        })
    }

    /// Where throttles count that have no backend of their own.
    #[inline]
    pub(crate) fn around<'a>(
        req: &'a HttpRequest,
        outer: Option<&'a ThrottleBackend>,
    ) -> &'a ThrottleBackend {
        outer
            .or_else(|| ThrottleBackend::of(req))
            .unwrap_or_else(|| ThrottleBackend::global())
    }

    /// The backend in the extensions of a request: somebody chose it for this very request.
    pub(crate) fn chosen_for(req: &HttpRequest) -> Option<ThrottleBackend> {
        let extensions = req.extensions();
        let chosen = extensions.get::<ThrottleBackend>().or_else(|| {
            let data = extensions.get::<web::Data<ThrottleBackend>>();
            data.map(|data| &***data)
        });
        chosen.map(|chosen| chosen.clone().separate())
    }

    /// Called when a throttle was found to count here.
    #[cold]
    pub(crate) fn explain_choice(&self, throttle: &str, req: &HttpRequest) {
        let is_here = |other: &ThrottleBackend| Arc::ptr_eq(&self.backend, &other.backend);
        let bare = req.app_data::<ThrottleBackend>();
        let data = req.app_data::<web::Data<ThrottleBackend>>();
        if bare.is_some_and(|bare| std::ptr::eq(bare, self))
            && data.is_some_and(|data| !is_here(data))
        {
            log::warn!(
                "throttle `{throttle}` counts in the `ThrottleBackend` in the application data, not in the \
                 `web::Data` of another one that is there as well, whichever is further in: register all of them \
                 in one way"
            );
        }
    }

    /// Called when a throttle found no backend, and this one has to do.
    #[cold]
    pub(crate) fn explain_global(throttle: &str, req: &HttpRequest) {
        static ONCE: Once = Once::new();
        if let Some(unseen) = bare_backend(req) {
            ONCE.call_once(|| {
                log::warn!(
                    "throttle `{throttle}` counts in the memory of this process: the application \
                     data has a `{unseen}`, but what throttles look for is \
                     `web::Data::new(ThrottleBackend::new(backend))`"
                );
            });
        }
    }
}

/// The type of a backend in the application data that is no [`ThrottleBackend`]. That compiles, and
/// would be ignored in silence.
fn bare_backend(req: &HttpRequest) -> Option<&'static str> {
    macro_rules! look_for {
        ($($backend:ty),*) => {$(
            if req.app_data::<web::Data<$backend>>().is_some() {
                return Some(concat!("Data<", stringify!($backend), ">"));
            }
            if req.app_data::<$backend>().is_some() {
                return Some(stringify!($backend));
            }
        )*};
    }
    look_for!(
        MemoryBackend,
        Arc<MemoryBackend>,
        Arc<dyn Backend>,
        Arc<ThrottleBackend>
    );
    #[cfg(feature = "redis")]
    look_for!(RedisBackend, Arc<RedisBackend>);
    #[cfg(feature = "memcached")]
    look_for!(MemcachedBackend, Arc<MemcachedBackend>);
    None
}

impl<B: Backend> From<B> for ThrottleBackend {
    fn from(backend: B) -> Self {
        ThrottleBackend::new(backend)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_bare_backend_is_found_in_the_data() {
        let memory = MemoryBackend::new();
        let with = |req: TestRequest| bare_backend(&req.to_http_request());
        let shared: Arc<dyn Backend> = Arc::new(memory.clone());
        let arc = TestRequest::default().app_data(web::Data::new(shared));
        assert_eq!(with(arc), Some("Data<Arc<dyn Backend>>"));
        let plain = TestRequest::default().app_data(memory.clone());
        assert_eq!(with(plain), Some("MemoryBackend"));
        let right = ThrottleBackend::new(memory);
        let right = TestRequest::default().app_data(web::Data::new(right));
        assert_eq!(with(right), None);
    }
}
