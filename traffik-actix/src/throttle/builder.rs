//! How an [`HttpThrottle`] is made.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse};
use traffik_core::strategy::IntoStrategy;
use traffik_core::{
    Decision, Error, Identity, IntoRate, OnError, Rate, Reign, Result, Throttle, ThrottleBuilder,
    headers,
};

use crate::limits::live::Live;
use crate::limits::registry::Origin;
use crate::request::scope::Scope;
use crate::request::source::{IntoValue, Source};
use crate::response::denial::{ByRate, Denial};
use crate::response::failed::{ErrorPolicy, Failed};
use crate::response::handler::DeniedHandler;
use crate::response::headers::{HeaderStyle, Headers, OwnHeaders};
use crate::throttle::admission::Decided;
use crate::throttle::answered::{After, Answered};
use crate::throttle::backend::ThrottleBackend;
use crate::throttle::company::Companies;
use crate::throttle::{HttpThrottle, Settings, policy};

/// Settings of an [`HttpThrottle`].
#[derive(Clone, Debug)]
#[must_use]
pub struct HttpThrottleBuilder {
    inner: ThrottleBuilder,
    backend: Option<ThrottleBackend>,
    backend_by: Option<Source<ThrottleBackend>>,
    identify: Option<Source<Identity>>,
    rate: Option<Source<Rate>>,
    cost: Option<Source<u32>>,
    scope: Scope,
    scope_by: Option<Source<String>>,
    on_error: Option<ErrorPolicy>,
    on_denied: Option<DeniedHandler<ByRate>>,
    headers: Option<Headers>,
    style: Option<HeaderStyle>,
    own_headers: Option<OwnHeaders>,
    max_wait: Option<Duration>,
    after: After,
    shares_counts: bool,
    is_named_after_handler: bool,
    tells_shadow: bool,
    is_disabled: bool,
    origin: Option<Origin>,
    live: Option<Live>,
}

impl HttpThrottleBuilder {
    pub(super) fn new(name: impl Into<String>) -> HttpThrottleBuilder {
        HttpThrottleBuilder {
            inner: Throttle::builder(name),
            backend: None,
            backend_by: None,
            identify: None,
            rate: None,
            cost: None,
            scope: Scope::Throttle,
            scope_by: None,
            on_error: None,
            on_denied: None,
            headers: None,
            style: None,
            own_headers: None,
            max_wait: None,
            after: After::default(),
            shares_counts: false,
            is_named_after_handler: false,
            tells_shadow: false,
            is_disabled: false,
            origin: None,
            live: None,
        }
    }

    /// Sets the rate: a [`Rate`] or its text. Required, unless a function gives it.
    pub fn rate(mut self, rate: impl IntoRate) -> Self {
        self.inner = self.inner.rate(rate);
        self
    }

    /// Sets a function that gives the rate of a request. If it [fails](IntoValue), the request is
    /// answered 400.
    ///
    /// The count is the same whatever the rate: a client whose rate changes keeps what it took. What is held of a
    /// request is settled under the rate that it had: let the function not change its mind about a client with
    /// each request, since a hit or a settlement under a shorter period may begin a window anew.
    pub fn rate_by<F, R>(mut self, rate: F) -> Self
    where
        F: Fn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<Rate>,
    {
        self.rate = Some(Source::sync("rate", rate));
        self
    }

    /// The same with an async function.
    pub fn rate_by_async<F, R>(mut self, rate: F) -> Self
    where
        F: AsyncFn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<Rate>,
    {
        self.rate = Some(Source::awaiting("rate", rate));
        self
    }

    /// Sets the strategy, itself or as the text that [names](traffik_core::strategy::named) it: `"gcra"`,
    /// `"token_bucket,burst=20"`. Default: [`FixedWindow`](traffik_core::FixedWindow).
    pub fn strategy(mut self, strategy: impl IntoStrategy) -> Self {
        self.inner = self.inner.strategy(strategy);
        self
    }

    /// Sets the backend. Default: what is found [in the order that `ThrottleBackend`
    /// describes](ThrottleBackend).
    pub fn backend(mut self, backend: impl Into<ThrottleBackend>) -> Self {
        (self.backend, self.backend_by) = (Some(backend.into()), None);
        self
    }

    /// Sets a function that gives the backend of a request, such as that of a tenant, in the place of any other. What it
    /// counts on several of them is meant to be apart. If it [fails](IntoValue), the request is answered 400, or
    /// what its `actix_web::Error` says.
    ///
    /// A clone of what was made once is what it has to give: nothing is kept from one request to the next. See
    /// [`Tenants`](crate::Tenants), which keep backends, for those that are not known when the program starts.
    pub fn backend_by<F, R>(mut self, backend: F) -> Self
    where
        F: Fn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<ThrottleBackend>,
    {
        (self.backend, self.backend_by) = (None, Some(Source::sync("backend", backend)));
        self
    }

    /// The same with an async function:
    ///
    /// ```
    /// use actix_web::HttpRequest;
    /// use traffik_actix::{HttpThrottle, MemoryBackend, Tenants, ThrottleBackend};
    ///
    /// let tenants = Tenants::new(|_: &str| ThrottleBackend::new(MemoryBackend::new()));
    /// let api = HttpThrottle::builder("api").rate("100/minute").backend_by_async(async move |req: &HttpRequest| {
    ///     tenants.open(req.match_info().get("tenant").unwrap_or_default()).await
    /// });
    /// # let _ = api.build()?;
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    pub fn backend_by_async<F, R>(mut self, backend: F) -> Self
    where
        F: AsyncFn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<ThrottleBackend>,
    {
        (self.backend, self.backend_by) = (None, Some(Source::awaiting("backend", backend)));
        self
    }

    /// Sets the cost of a request. Default: 1. A cost of zero is always admitted.
    pub fn cost(mut self, cost: u32) -> Self {
        self.inner = self.inner.cost(cost);
        self
    }

    /// Sets a function that gives the cost of a request. If it [fails](IntoValue), the request is
    /// answered 400: a client gains nothing by a cost that is none.
    pub fn cost_by<F, R>(mut self, cost: F) -> Self
    where
        F: Fn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<u32>,
    {
        self.cost = Some(Source::sync("cost", cost));
        self
    }

    /// The same with an async function.
    pub fn cost_by_async<F, R>(mut self, cost: F) -> Self
    where
        F: AsyncFn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<u32>,
    {
        self.cost = Some(Source::awaiting("cost", cost));
        self
    }

    /// Sets a function that says what a request has cost, by its response: its status, its
    /// [length](Answered::content_length), or [a value](Answered::extension) that the handler left. Until then
    /// it has cost what [`cost`](HttpThrottleBuilder::cost) says, which is charged when it is admitted; what
    /// it says then is settled, one way or the other.
    ///
    /// A request that is never answered, since its client went away or its handler panicked, has cost that in
    /// advance. Where there is no response to look at, as with [`hit`](HttpThrottle::hit),
    /// [`enforce`](HttpThrottle::enforce) and [`Throttled`](crate::Throttled), the function is not asked: there
    /// is [`reserve`](HttpThrottle::reserve). Headers tell what was left before it was settled.
    ///
    /// It is asked when the head of the response is there. Of a body that is streamed nothing has been sent then:
    /// its cost is what the head says, and what becomes of the stream changes nothing. Where that matters the
    /// handler reserves, and [meters](traffik_core::Permit::meter) what it streams.
    ///
    /// ```
    /// use actix_web::{App, web};
    /// use traffik_actix::{HttpThrottle, MemoryBackend};
    ///
    /// // Ten megabytes a minute, in KiB. The request that exceeds it is served, those after it wait.
    /// let bytes = HttpThrottle::builder("download")
    ///     .rate("10240/minute")
    ///     .cost_after(|answered| {
    ///         let bytes = answered.content_length().unwrap_or(0);
    ///         u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
    ///     })
    ///     .backend(MemoryBackend::new())
    ///     .build()?;
    /// let app = App::new().wrap(bytes).route("/", web::get().to(async || "hello"));
    /// # let _ = app;
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    pub fn cost_after<F>(mut self, cost: F) -> Self
    where
        F: Fn(&Answered<'_>) -> u32 + Send + Sync + 'static,
    {
        self.after.cost = Some(Arc::new(cost));
        self
    }

    /// Sets a function that says, by its response, that a request shall not count: what it was charged is given
    /// back, whatever [`cost_after`](HttpThrottleBuilder::cost_after) says. For limits on *failed* logins, or so
    /// that clients do not pay for errors of the server:
    ///
    /// ```
    /// use traffik_actix::{HttpThrottle, MemoryBackend};
    ///
    /// let failed_logins = HttpThrottle::builder("login")
    ///     .rate("5/minute")
    ///     .refund_if(|answered| answered.status().is_success())
    ///     .backend(MemoryBackend::new())
    ///     .build()?;
    /// # let _ = failed_logins;
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    ///
    /// While it is under way a request counts: so many guesses at once as the limit has left are admitted, not
    /// more. It is for what the middleware or [`#[throttle]`](crate::throttle) admits, as `cost_after`.
    pub fn refund_if<F>(mut self, refund: F) -> Self
    where
        F: Fn(&Answered<'_>) -> bool + Send + Sync + 'static,
    {
        self.after.refund = Some(Arc::new(refund));
        self
    }

    /// Sets who asks. Default: what the backend says, else [`ClientIp::peer`](crate::ClientIp::peer).
    ///
    /// If it [fails](IntoValue), the request is answered 400, or what its `actix_web::Error` says. A
    /// client without credentials is either refused or told apart by its address, never admitted
    /// unlimited:
    ///
    /// ```
    /// use actix_web::HttpRequest;
    /// use actix_web::error::ErrorUnauthorized;
    /// use traffik_actix::{ClientIp, HttpThrottle, Identity};
    /// # fn key(req: &HttpRequest) -> Option<&str> {
    /// #     req.headers().get("x-api-key")?.to_str().ok()
    /// # }
    ///
    /// let strict = HttpThrottle::builder("strict").rate("100/minute").identify(|req: &HttpRequest| {
    ///     key(req).map(Identity::of).ok_or_else(|| ErrorUnauthorized("an API key is missing"))
    /// });
    /// let lenient = HttpThrottle::builder("lenient").rate("100/minute").identify(|req: &HttpRequest| {
    ///     key(req).map_or_else(|| ClientIp::peer().identity(req), Identity::of)
    /// });
    /// # let _ = (strict, lenient);
    /// ```
    pub fn identify<F, R>(mut self, identify: F) -> Self
    where
        F: Fn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<Identity>,
    {
        self.identify = Some(Source::sync("identity", identify));
        self
    }

    /// The same with a function that was registered.
    #[cfg(feature = "config")]
    pub(crate) fn identify_source(mut self, identify: Source<Identity>) -> Self {
        self.identify = Some(identify);
        self
    }

    /// The same with an async function.
    pub fn identify_async<F, R>(mut self, identify: F) -> Self
    where
        F: AsyncFn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<Identity>,
    {
        self.identify = Some(Source::awaiting("identity", identify));
        self
    }

    /// Counts all clients together: the rate is what everybody gets in sum, not each of them. Default: a
    /// count for each [identity](HttpThrottleBuilder::identify).
    ///
    /// It is still asked who it is, since identities tell tiers and priorities, and the
    /// [exempt](Identity::EXEMPT) are not counted.
    pub fn shared(mut self) -> Self {
        self.inner = self.inner.shared();
        self
    }

    /// Only says what it would do, until it is told [otherwise](HttpThrottle::set_shadow): it decides, counts, and never
    /// denies, whether its limit is spent, its store fails, or a function of it cannot make sense of the request. What
    /// it would have done is in a [report](HttpThrottle::shadow_report), in metrics and events, and in a header
    /// [if wanted](HttpThrottleBuilder::shadow_header).
    ///
    /// ```
    /// use traffik_actix::HttpThrottle;
    ///
    /// let strict = HttpThrottle::builder("strict").rate("10/minute").shadow().build()?;
    /// // `.wrap(strict.clone())`, and some days later:
    /// println!("{}", strict.shadow_report()); // of 81244 hits, 17 newly denied, 0 newly admitted
    /// strict.set_shadow(false); // in earnest, with the counts that it has
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    ///
    /// It is decided in one batch with the others of a request: see
    /// [`ThrottleBuilder::shadow`](traffik_core::ThrottleBuilder::shadow).
    pub fn shadow(mut self) -> Self {
        self.inner = self.inner.shadow();
        self
    }

    /// The same for a throttle that is to replace another one of the same requests, by its name: the report then also tells
    /// what would be newly admitted; see [`ThrottleBuilder::shadow_of`](traffik_core::ThrottleBuilder::shadow_of).
    pub fn shadow_of(mut self, replaces: impl Into<String>) -> Self {
        self.inner = self.inner.shadow_of(replaces);
        self
    }

    /// Tells in a header `RateLimit-Shadow` what it would have done while it is in shadow: `"strict";would=deny;t=12`,
    /// with the seconds that it would have said to wait; `would=allow;r=3`, with what would be left. Clients see it.
    /// Default: no header.
    pub fn shadow_header(mut self) -> Self {
        self.tells_shadow = true;
        self
    }

    /// Lets requests wait up to this long rather than denying them, in the order in which they
    /// came. Default: deny at once.
    ///
    /// A request that is dropped frees its place. That a client went away actix-web notices over HTTP/1 only
    /// with [`.h1_allow_half_closed(false)`](actix_web::HttpServer::h1_allow_half_closed): until its wait is
    /// over such a request keeps its place, and is charged in the end. Over HTTP/2 a stream that was reset is
    /// noticed within half a second by the middleware and `#[throttle]`, not by
    /// [`enforce`](HttpThrottle::enforce) and [`hit`](HttpThrottle::hit), which do not see the body. How many
    /// places a client can take is [bounded](HttpThrottleBuilder::max_waiters_per_client).
    pub fn wait_up_to(mut self, max_wait: Duration) -> Self {
        self.max_wait = Some(max_wait);
        self
    }

    /// Sets how many requests may wait at a time, over all clients; more are denied at once.
    /// Default: 1,000.
    pub fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.inner = self.inner.max_waiters(max_waiters);
        self
    }

    /// Sets how many requests of one client may wait at a time, so that nobody takes every place. Default:
    /// a quarter of [`max_waiters`](HttpThrottleBuilder::max_waiters), and at least one.
    ///
    /// All who are [anonymous](Identity::ANONYMOUS) are one client: raise it where everybody is.
    pub fn max_waiters_per_client(mut self, max_waiters: usize) -> Self {
        self.inner = self.inner.max_waiters_per_client(max_waiters);
        self
    }

    /// Sets among how many the [most denied](HttpThrottle::offenders) are looked for; 0 is none. Default: 64.
    #[cfg(feature = "metrics")]
    pub fn offenders(mut self, at_most: usize) -> Self {
        self.inner = self.inner.offenders(at_most);
        self
    }

    /// Keeps who the [most denied](HttpThrottle::offenders) are beside their digests, which may be personal, and secret
    /// if it is an API key. Default: digests only.
    #[cfg(feature = "metrics")]
    pub fn name_offenders(mut self) -> Self {
        self.inner = self.inner.name_offenders();
        self
    }

    /// Sets what shares one count. Default: everything the throttle is on.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Sets a function of the request whose text is part of what shares one count, beside the
    /// [`scope`](HttpThrottleBuilder::scope): each client has a count for each text. If it [fails](IntoValue), the
    /// request is answered 400.
    ///
    /// ```
    /// use actix_web::HttpRequest;
    /// use traffik_actix::HttpThrottle;
    ///
    /// // Ten a minute of each kind, for each client.
    /// let jobs = HttpThrottle::builder("jobs").rate("10/minute").scope_by(|req: &HttpRequest| {
    ///     match req.query_string().contains("kind=export") {
    ///         true => "export",
    ///         false => "other",
    ///     }
    /// });
    /// # let _ = jobs.build()?;
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    ///
    /// The text may be of any content and length: all that is kept of it is a digest, as of identities.
    /// **A client that chooses the text multiplies its quota**, and takes a place in the store for each text. So take
    /// it from what the program knows, as above, or put a limit without such a scope beside it.
    pub fn scope_by<F, R>(mut self, scope: F) -> Self
    where
        F: Fn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<String>,
    {
        self.scope_by = Some(Source::sync("scope", scope));
        self
    }

    /// The same with an async function.
    pub fn scope_by_async<F, R>(mut self, scope: F) -> Self
    where
        F: AsyncFn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<String>,
    {
        self.scope_by = Some(Source::awaiting("scope", scope));
        self
    }

    /// Says that it is meant if another throttle of the same name, strategy and scope has another rate: both
    /// count together, and each admits as long as its own rate allows. Without this that is an error
    /// when the program starts, or a warning with the first request, since one of the limits hardly
    /// ever holds. Within one middleware it remains an error.
    pub fn shares_counts(mut self) -> Self {
        self.shares_counts = true;
        self
    }

    /// Sets the shortest wait of a denial; admissions stay as they are. Default: none.
    pub fn min_wait(mut self, min_wait: Duration) -> Self {
        self.inner = self.inner.min_wait(min_wait);
        self
    }

    /// Sets what to do when the backend fails. Default: what the backend says. See
    /// [`on_error_by`](HttpThrottleBuilder::on_error_by) for a function of your own.
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.inner = self.inner.on_error(on_error.clone());
        self.on_error = Some(ErrorPolicy::Fixed(on_error));
        self
    }

    /// Sets an async function that says what to do then, after a look at the request; see
    /// [`Failed`]. It is asked as well about requests that a function of the throttle
    /// [cannot make sense of](Error::is_unresolved). An error it returns is answered 503, or 400 if it
    /// is unresolved.
    pub fn on_error_by<F>(mut self, handler: F) -> Self
    where
        F: AsyncFn(&Failed<'_>) -> Result<Decision, Error> + Send + Sync + 'static,
    {
        self.on_error = Some(ErrorPolicy::by(handler));
        self
    }

    /// Sets the response to denied requests. Default: what the backend says, else
    /// [the usual](Denial::default_response).
    pub fn on_denied<F>(mut self, handler: F) -> Self
    where
        F: Fn(&Denial<'_>) -> HttpResponse + Send + Sync + 'static,
    {
        self.on_denied = Some(DeniedHandler::<ByRate>::now(handler));
        self
    }

    /// Sets an async function that answers denied requests, such as after a look at what is
    /// [kept](Denial::stat), or at a plan in a database:
    ///
    /// ```
    /// use traffik_actix::{Denial, HttpThrottle, MemoryBackend};
    ///
    /// let api = HttpThrottle::builder("api")
    ///     .rate("100/minute")
    ///     .on_denied_async(async |denial: &Denial<'_>| {
    ///         let detail = match denial.stat().await {
    ///             Ok(stat) => format!("{} of {} are left.", stat.remaining, stat.limit),
    ///             Err(_) => "Come back later.".to_owned(),
    ///         };
    ///         denial.problem().detail(detail).finish()
    ///     })
    ///     .backend(MemoryBackend::new())
    ///     .build()?;
    /// # let _ = api;
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    ///
    /// The request waits for it, and whatever it waits for is at the mercy of whoever is denied: bound it.
    pub fn on_denied_async<F>(mut self, handler: F) -> Self
    where
        F: AsyncFn(&Denial<'_>) -> HttpResponse + Send + Sync + 'static,
    {
        self.on_denied = Some(DeniedHandler::<ByRate>::later(handler));
        self
    }

    /// Sets which responses carry headers. Default: what the backend says, else all.
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = Some(headers);
        self
    }

    /// Sets which headers they carry. Default: what the backend says, else the standard ones.
    pub fn header_style(mut self, style: HeaderStyle) -> Self {
        self.style = Some(style);
        self
    }

    /// Sets a function that writes headers of its own about a decision, where and when the headers of the
    /// [style](HttpThrottleBuilder::header_style) are written, after those. Default: what the backend says, else
    /// none.
    ///
    /// ```
    /// use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
    /// use traffik_actix::{Decided, HeaderStyle, HttpThrottle, MemoryBackend};
    ///
    /// const LEFT: HeaderName = HeaderName::from_static("x-requests-left");
    /// const DOCS: HeaderName = HeaderName::from_static("x-limits-docs");
    ///
    /// let api = HttpThrottle::builder("api")
    ///     .rate("100/minute")
    ///     .header_style(HeaderStyle::None)
    ///     .own_headers(|decided: &Decided, headers: &mut HeaderMap| {
    ///         headers.insert(LEFT, HeaderValue::from(decided.decision.remaining()));
    ///         headers.insert(DOCS, HeaderValue::from_static("https://example.com/limits"));
    ///     })
    ///     .backend(MemoryBackend::new())
    ///     .build()?;
    /// # let _ = api;
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    ///
    /// It is asked once for each throttle that is told of. For headers of denials alone see
    /// [`on_denied`](HttpThrottleBuilder::on_denied).
    pub fn own_headers<F>(mut self, write: F) -> Self
    where
        F: Fn(&Decided, &mut HeaderMap) + Send + Sync + 'static,
    {
        self.own_headers = Some(OwnHeaders::new(write));
        self
    }

    /// For a handler, of whose path the name was made.
    pub(crate) fn of_handler(path: &str) -> HttpThrottleBuilder {
        HttpThrottleBuilder {
            is_named_after_handler: true,
            ..HttpThrottleBuilder::new(path)
        }
    }

    /// One of a registry.
    pub(crate) fn originating(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// A handle on one of a registry.
    pub(crate) fn following(mut self, live: Live) -> Self {
        self.origin = Some(live.origin());
        self.live = Some(live);
        self
    }

    /// Takes the place of another throttle.
    pub(crate) fn succeeding(mut self, predecessor: &HttpThrottle) -> Self {
        self.inner = self.inner.succeeding(predecessor.throttle());
        self
    }

    /// Takes up the permits of throttles that are no more.
    pub(crate) fn reigning(mut self, reign: &Reign) -> Self {
        self.inner = self.inner.reigning(reign);
        self
    }

    /// Admits everything, counts nothing, and asks no function of the request.
    pub(crate) fn disabled(mut self) -> Self {
        self.inner = self.inner.rate(Rate::UNLIMITED);
        self.identify = Some(Source::sync("identity", |_: &HttpRequest| Identity::EXEMPT));
        (self.rate, self.cost, self.max_wait) = (None, None, None);
        self.backend_by = None;
        (self.scope, self.scope_by) = (Scope::Throttle, None);
        self.after = After::default();
        self.is_disabled = true;
        self
    }

    /// The throttle.
    ///
    /// # Errors
    ///
    /// If the name is empty or not printable ASCII, the rate is missing or malformed, or the
    /// strategy is unknown or cannot serve it.
    pub fn build(self) -> Result<HttpThrottle, Error> {
        let inner = match self.rate {
            // Every request brings its own.
            Some(_) => self.inner.rate(Rate::UNLIMITED),
            None => self.inner,
        };
        // So that error handlers, which see the throttle alone, look where it counts.
        let inner = match &self.backend {
            Some(own) => inner.backend(Arc::clone(&own.backend)),
            None => inner,
        };
        let throttle = inner.build()?;
        let usual_quota = policy::usual_quota(&throttle);
        let policy = policy::of(&throttle, &throttle.rate(), usual_quota);
        let asks_only_who = self.rate.is_none()
            && self.cost.is_none()
            && self.scope == Scope::Throttle
            && self.scope_by.is_none()
            && self.backend_by.is_none()
            && self.max_wait.is_none();
        Ok(HttpThrottle(Arc::new(Settings {
            item: headers::beginning(throttle.name()),
            companies: Companies::default(),
            asks_only_who,
            throttle,
            backend: self.backend,
            backend_by: self.backend_by,
            identify: self.identify,
            rate: self.rate,
            cost: self.cost,
            scope: self.scope,
            scope_by: self.scope_by,
            on_error: self.on_error,
            on_denied: self.on_denied,
            headers: self.headers,
            style: self.style,
            own_headers: self.own_headers,
            max_wait: self.max_wait,
            after: self.after,
            usual_quota,
            policy,
            shares_counts: self.shares_counts,
            is_named_after_handler: self.is_named_after_handler,
            tells_shadow: self.tells_shadow,
            is_disabled: self.is_disabled,
            origin: self.origin,
            live: self.live,
            seen_stores: AtomicUsize::new(0),
            seen_at: AtomicUsize::new(0),
        })))
    }
}
