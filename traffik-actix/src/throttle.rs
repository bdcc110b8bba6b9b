//! A throttle that knows requests.

pub(crate) mod admission;
mod agreement;
pub(crate) mod answered;
pub(crate) mod ask;
pub(crate) mod backend;
pub(crate) mod builder;
pub(crate) mod by;
pub(crate) mod company;
mod duplicates;
pub(crate) mod places;
mod policy;
pub(crate) mod resolved;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderValue;
use smallvec::SmallVec;
use traffik_core::{
    Backend, Decision, Decisions, Error, Identity, OutageInfo, Permit, Rate, Result, ShadowReport,
    Stat, Throttle,
};

use crate::limits::live::{Current, Live};
use crate::limits::registry::{Origin, Registry, State};
use crate::request::scope::{self, Scope};
use crate::request::source::Source;
use crate::response::denial::ByRate;
use crate::response::failed::ErrorPolicy;
use crate::response::handler::DeniedHandler;
use crate::response::headers::{HeaderStyle, Headers, OwnHeaders, Telling};
use crate::response::hit_error::HitError;
use crate::throttle::answered::After;
use crate::throttle::ask::Ask;
use crate::throttle::backend::ThrottleBackend;
use crate::throttle::builder::HttpThrottleBuilder;
use crate::throttle::by::By;
use crate::throttle::company::{Companies, Company};
use crate::throttle::duplicates::Noted;
use crate::throttle::resolved::Resolved;

/// A [`Throttle`] with functions of the request: who asks, at what cost, under which rate.
///
/// Cheap to clone; clones share everything. Put it around an application, a scope or a resource with
/// `.wrap(throttle.clone())`, with others into a [`ThrottleMiddleware`], on a handler with
/// [`#[throttle]`](crate::throttle), or ask it yourself:
///
/// ```
/// use actix_web::{HttpRequest, HttpResponse, web};
/// use traffik_actix::HttpThrottle;
///
/// async fn upload(req: HttpRequest, uploads: web::Data<HttpThrottle>, body: web::Bytes)
/// -> actix_web::Result<HttpResponse> {
///     let megabytes = u32::try_from(body.len() >> 20).unwrap_or(u32::MAX);
///     uploads.enforce_at(&req, megabytes.max(1)).await?; // a 429 if that is too much
///     Ok(HttpResponse::Created().finish())
/// }
/// # let _ = upload;
/// ```
///
/// [`ThrottleMiddleware`]: crate::ThrottleMiddleware
#[derive(Clone, Debug)]
pub struct HttpThrottle(Arc<Settings>);

#[derive(Debug)]
struct Settings {
    throttle: Throttle,
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
    /// What most decisions under the throttle's own rate say that the limit is.
    usual_quota: u64,
    /// `RateLimit-Policy` of these.
    policy: HeaderValue,
    /// What items of `RateLimit` begin with.
    item: Box<str>,
    companies: Companies,
    /// There are no functions of rate and cost, no scope, and no wait.
    asks_only_who: bool,
    shares_counts: bool,
    /// Nobody gave it its name: it was made of the handler's path.
    is_named_after_handler: bool,
    tells_shadow: bool,
    is_disabled: bool,
    /// Where it is from, if from a registry.
    origin: Option<Origin>,
    /// Where it is found as it is now, if this is but a handle.
    live: Option<Live>,
    /// What decided last, as a sum of its stores, to notice when there are [several](SEVERAL_STORES).
    seen_stores: AtomicUsize,
    /// Where it was found.
    seen_at: AtomicUsize,
}

/// A throttle that may be gone. Until this is, no other one takes its place in memory.
#[derive(Debug)]
pub(crate) struct WeakThrottle(Weak<Settings>);

impl WeakThrottle {
    pub(crate) fn is_used(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub(crate) fn is(&self, throttle: &HttpThrottle) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&throttle.0))
    }

    pub(crate) fn upgrade(&self) -> Option<HttpThrottle> {
        self.0.upgrade().map(HttpThrottle)
    }
}

/// No memory: that throttles of a name have several was said, and is not looked into any more.
const SEVERAL_STORES: usize = usize::MAX;

impl HttpThrottle {
    /// A throttle in the making. The name identifies its counts, in logs and in headers.
    pub fn builder(name: impl Into<String>) -> HttpThrottleBuilder {
        HttpThrottleBuilder::new(name)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.throttle.name()
    }

    /// The rate, unless a function of the request gives it. That of one of [`Limits`](crate::Limits) is the
    /// rate it has now, and unlimited while it is disabled.
    pub fn rate(&self) -> Option<Rate> {
        let now = self.current();
        now.0.rate.is_none().then(|| now.0.throttle.rate())
    }

    /// Whether its backend fails, and how many hits its error policy has decided therefore. One line
    /// in the log says when that begins, and one when it ends, or when the throttle is dropped before.
    pub fn outage(&self) -> OutageInfo {
        self.current().0.throttle.outage()
    }

    /// Who was denied most often since it was built, the worst first; see
    /// [`Throttle::offenders`](traffik_core::Throttle::offenders).
    #[cfg(feature = "metrics")]
    pub fn offenders(&self) -> Vec<traffik_core::metrics::Offender> {
        self.current().throttle().offenders()
    }

    /// Whether it only says what it would do; see [`shadow`](HttpThrottleBuilder::shadow).
    pub fn is_shadow(&self) -> bool {
        self.current().throttle().is_shadow()
    }

    /// From the next request on: denies what is beyond the limit, with the counts that it has; or, with `true`, only
    /// says what it would do. At once, in all clones and workers, without a lock; what is
    /// [`updated`](crate::Limits::update) afterwards stays so, unless it is built otherwise.
    pub fn set_shadow(&self, is_shadow: bool) {
        self.current().throttle().set_shadow(is_shadow);
    }

    /// What it would have done while it was in shadow.
    pub fn shadow_report(&self) -> ShadowReport {
        self.current().throttle().shadow_report()
    }

    /// Whether a header tells what it would have done.
    pub(crate) fn tells_shadow(&self) -> bool {
        self.0.tells_shadow
    }

    /// A hit, or a look, by somebody who is known, without a request: by a job, or by a login whose
    /// account is known only now. It counts where the throttle's requests count; see [`By`].
    pub fn by<'a>(&'a self, identity: &'a Identity) -> By<'a> {
        By::new(self, identity)
    }

    /// The throttle as it is now: itself, unless it is one of a registry. Everything below asks this one.
    #[inline]
    pub(crate) fn current(&self) -> Current<'_> {
        match &self.0.live {
            None => Current::Fixed(self),
            Some(live) => Current::Live(live.current(self.name())),
        }
    }

    /// The throttle as it is in a state of its registry.
    pub(crate) fn in_state(&self, state: &State) -> HttpThrottle {
        match &self.0.live {
            None => self.clone(),
            Some(live) => live.in_state(self.name(), state),
        }
    }

    /// The registry of which this is a handle.
    #[inline]
    pub(crate) fn registry(&self) -> Option<&Arc<Registry>> {
        self.0.live.as_ref().map(|live| &live.registry)
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.0.is_disabled
    }

    /// The throttle without its functions of the request, which does not know where requests count.
    pub(crate) fn throttle(&self) -> &Throttle {
        &self.0.throttle
    }

    pub(crate) fn own_backend(&self) -> Option<&ThrottleBackend> {
        self.0.backend.as_ref()
    }

    /// The function that says where requests count.
    pub(crate) fn backend_by(&self) -> Option<&Source<ThrottleBackend>> {
        self.0.backend_by.as_ref()
    }

    /// Whether it looks for no backend around it.
    pub(crate) fn knows_its_backend(&self) -> bool {
        self.0.backend.is_some() || self.0.backend_by.is_some()
    }

    /// What that function says about a request.
    pub(crate) async fn backend_of(
        &self,
        source: &Source<ThrottleBackend>,
        req: &HttpRequest,
    ) -> Result<ThrottleBackend> {
        let found = source.get(req).await;
        found
            .map(ThrottleBackend::separate)
            .map_err(|error| self.unresolved(error))
    }

    /// The backend in the extensions of a request, if this throttle has none.
    #[inline]
    pub(crate) fn chosen_for(&self, req: &HttpRequest) -> Option<ThrottleBackend> {
        match self.knows_its_backend() {
            true => None,
            false => ThrottleBackend::chosen_for(req),
        }
    }

    pub(crate) fn scope(&self) -> Scope {
        self.0.scope
    }

    /// Whether requests count apart by where they are, or by what a function says.
    pub(crate) fn has_scopes(&self) -> bool {
        self.0.scope != Scope::Throttle || self.0.scope_by.is_some()
    }

    pub(crate) fn max_wait(&self) -> Option<Duration> {
        self.0.max_wait
    }

    /// Whether a function of the request says who asks, under which rate, or at what cost.
    pub(crate) fn asks(&self) -> Asks {
        Asks {
            identity: self.0.identify.is_some(),
            rate: self.0.rate.is_some(),
            cost: self.0.cost.is_some(),
            scope: self.0.scope_by.is_some(),
        }
    }

    pub(crate) fn is(&self, other: &HttpThrottle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether both are one: the same, or handles of the same in a registry.
    #[cfg(feature = "ws")]
    pub(crate) fn stands_for(&self, other: &HttpThrottle) -> bool {
        let are_of_one = match (self.registry(), other.registry()) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two) && self.name() == other.name(),
            _ => false,
        };
        are_of_one || self.is(other)
    }

    pub(crate) fn downgrade(&self) -> WeakThrottle {
        WeakThrottle(Arc::downgrade(&self.0))
    }

    /// Decides a request, and charges it if it is admitted. What a denial means is up to you.
    ///
    /// # Errors
    ///
    /// If the backend fails and the policy is to [raise](traffik_core::OnError::Raise), or if a function of the
    /// throttle cannot make sense of the request: see [`is_unresolved`](Error::is_unresolved). An
    /// error handler may answer both otherwise. With `?` in a handler the first is a 503, the second
    /// a 400.
    pub async fn hit(&self, req: &HttpRequest) -> Result<Decision, HitError> {
        self.ask().hit(req).await
    }

    /// The same at another cost.
    ///
    /// # Errors
    ///
    /// As [`hit`](HttpThrottle::hit).
    pub async fn hit_at(&self, req: &HttpRequest, cost: u32) -> Result<Decision, HitError> {
        self.ask().cost(cost).hit(req).await
    }

    /// The same by somebody who is known to the handler, such as the account that a body names. The
    /// throttle's own function is not asked who it is.
    ///
    /// # Errors
    ///
    /// As [`hit`](HttpThrottle::hit).
    pub async fn hit_as(
        &self,
        req: &HttpRequest,
        identity: impl Into<Identity>,
    ) -> Result<Decision, HitError> {
        self.ask().by(identity).hit(req).await
    }

    /// Admits a request, or fails with the response it should be answered: for `?` in a handler.
    ///
    /// That response carries the throttle's headers. The handler's own does not, since it does not exist
    /// yet: for headers on every response put [`ThrottleHeaders`](crate::ThrottleHeaders) around, or use
    /// [`#[throttle]`](crate::throttle) or a middleware.
    ///
    /// # Errors
    ///
    /// The denial as an error that is rendered as the throttle's response: a
    /// [`ThrottledError`](crate::ThrottledError), by which it may be caught. Or the failure:
    /// [`Unresolved`](crate::Unresolved) if the request makes no sense to a function of the throttle, and
    /// [`Unavailable`](crate::Unavailable) if the backend failed and the policy is to raise.
    pub async fn enforce(&self, req: &HttpRequest) -> actix_web::Result<()> {
        ask::enforce(req, &[self.ask()]).await
    }

    /// The same at another cost.
    ///
    /// # Errors
    ///
    /// As [`enforce`](HttpThrottle::enforce).
    pub async fn enforce_at(&self, req: &HttpRequest, cost: u32) -> actix_web::Result<()> {
        ask::enforce(req, &[self.ask().cost(cost)]).await
    }

    /// The same by somebody who is known to the handler, as [`hit_as`](HttpThrottle::hit_as).
    ///
    /// # Errors
    ///
    /// As [`enforce`](HttpThrottle::enforce).
    pub async fn enforce_as(
        &self,
        req: &HttpRequest,
        identity: impl Into<Identity>,
    ) -> actix_web::Result<()> {
        ask::enforce(req, &[self.ask().by(identity)]).await
    }

    /// The same for several throttles, as one decision: all of them admit the request and are charged,
    /// or nothing is, and the response says what each decided.
    ///
    /// # Errors
    ///
    /// As [`enforce`](HttpThrottle::enforce).
    pub async fn enforce_all<'a>(
        req: &HttpRequest,
        asks: impl IntoIterator<Item = impl Into<Ask<'a>>>,
    ) -> actix_web::Result<()> {
        let asks: SmallVec<[Ask<'a>; 3]> = asks.into_iter().map(Into::into).collect();
        ask::enforce(req, &asks).await
    }

    /// Admits a request whose cost is an estimate, or fails with the response it should be answered: a
    /// [permit](Permit) to be settled when the cost is known. For what a handler finds out as it works:
    ///
    /// ```
    /// use actix_web::{HttpRequest, web};
    /// use traffik_actix::HttpThrottle;
    /// # async fn complete(prompt: String) -> (String, u32) { (prompt, 42) }
    ///
    /// async fn chat(req: HttpRequest, tokens: web::Data<HttpThrottle>, prompt: String)
    /// -> actix_web::Result<String> {
    ///     let permit = tokens.reserve(&req, 500).await?; // a 429 if that is too much
    ///     let (answer, used) = complete(prompt).await;
    ///     permit.settle_later(used); // the rest is given back
    ///     Ok(answer)
    /// }
    /// # let _ = chat;
    /// ```
    ///
    /// A client that goes away drops the handler, and with it the permit: that has cost the estimate. For
    /// answers that are streamed see [`Permit::meter`].
    ///
    /// # Errors
    ///
    /// As [`enforce`](HttpThrottle::enforce).
    pub async fn reserve(&self, req: &HttpRequest, estimate: u32) -> actix_web::Result<Permit> {
        self.ask().cost(estimate).reserve(req).await
    }

    /// The same for several throttles, as one decision, and one permit that settles them alike: such as tokens
    /// by the minute and by the month.
    ///
    /// # Errors
    ///
    /// As [`enforce`](HttpThrottle::enforce).
    pub async fn reserve_all<'a>(
        req: &HttpRequest,
        asks: impl IntoIterator<Item = impl Into<Ask<'a>>>,
    ) -> actix_web::Result<Permit> {
        let asks: SmallVec<[Ask<'a>; 3]> = asks.into_iter().map(Into::into).collect();
        ask::reserve(req, &asks).await
    }

    /// Decides several throttles, leaving it to you what a denial means: all of them admit the request and are
    /// charged, or nothing is. The decisions are in the order of the questions.
    ///
    /// # Errors
    ///
    /// As [`hit`](HttpThrottle::hit).
    pub async fn hit_all<'a>(
        req: &HttpRequest,
        asks: impl IntoIterator<Item = impl Into<Ask<'a>>>,
    ) -> Result<Decisions, HitError> {
        let asks: SmallVec<[Ask<'a>; 3]> = asks.into_iter().map(Into::into).collect();
        ask::hit(req, &asks).await
    }

    /// A question to this throttle: by whom, at what cost, in which scope; by itself, or for
    /// [`enforce_all`](HttpThrottle::enforce_all).
    pub fn ask(&self) -> Ask<'_> {
        Ask::of(self)
    }

    /// What would be decided, and why, charging nothing.
    ///
    /// # Errors
    ///
    /// If the backend fails, or if a function of the throttle cannot make sense of the request: see
    /// [`is_unresolved`](Error::is_unresolved).
    pub async fn stat(&self, req: &HttpRequest) -> Result<Stat, HitError> {
        self.ask().stat(req).await
    }

    /// Whether a request would be admitted, charging nothing.
    ///
    /// # Errors
    ///
    /// As [`stat`](HttpThrottle::stat).
    pub async fn check(&self, req: &HttpRequest) -> Result<bool, HitError> {
        self.ask().check(req).await
    }

    /// How it settles what it has charged.
    pub(crate) fn after(&self) -> &After {
        &self.0.after
    }

    /// Whether requests may wait for their turn.
    pub(crate) fn waits(&self) -> bool {
        self.0.max_wait.is_some()
    }

    /// Its own backend, else the one of a middleware, else of the application, else of the process.
    #[inline]
    pub(crate) fn backend_for<'a>(
        &'a self,
        req: &'a HttpRequest,
        outer: Option<&'a ThrottleBackend>,
    ) -> &'a ThrottleBackend {
        let backend = self
            .0
            .backend
            .as_ref()
            .unwrap_or_else(|| ThrottleBackend::around(req, outer));
        self.notice(backend, Some(req));
        backend
    }

    /// Notes where this throttle is going to count, as far as that is known before the first request.
    ///
    /// # Errors
    ///
    /// If another throttle shares its counts there, but not its rate: one of the limits would not hold.
    pub(crate) fn starts(
        &self,
        outer: Option<&ThrottleBackend>,
    ) -> std::result::Result<(), String> {
        let now = self.current();
        let outer = outer.filter(|_| now.0.backend_by.is_none());
        let Some(backend) = now.0.backend.as_ref().or(outer) else {
            return Ok(());
        };
        let quarrel = now.note(backend).and_then(|noted| noted.quarrel);
        quarrel.map_or(Ok(()), Err)
    }

    /// Says so, once, if throttles of this name count in several memories, or in one by mistake, or share
    /// their counts at different rates or without being told to.
    #[inline]
    pub(crate) fn notice(&self, backend: &ThrottleBackend, req: Option<&HttpRequest>) {
        let at = Arc::as_ptr(&backend.backend).addr();
        if self.0.seen_at.load(Ordering::Relaxed) != at {
            self.look_at(backend, req);
        }
    }

    /// Every worker may have a backend of its own around the same stores: only then is this often called.
    #[cold]
    fn look_at(&self, backend: &ThrottleBackend, req: Option<&HttpRequest>) {
        let seen = self.0.seen_stores.load(Ordering::Relaxed);
        // What is disabled counts nowhere; and all that were removed are one.
        let is_over = self.is_disabled() || seen == SEVERAL_STORES;
        if backend.is_separate || is_over || seen == stores(&*backend.backend) {
            return;
        }
        if let Some(noted) = self.note(backend)
            && let Some(quarrel) = noted.quarrel.filter(|_| noted.is_news)
        {
            log::warn!("{quarrel}");
        }
        let Some(req) = req else { return };
        match std::ptr::eq(backend, ThrottleBackend::global()) {
            true => ThrottleBackend::explain_global(self.name(), req),
            false => backend.explain_choice(self.name(), req),
        }
    }

    fn note(&self, backend: &ThrottleBackend) -> Option<Noted> {
        if backend.is_separate {
            return None;
        }
        let noted = duplicates::note(self, &backend.backend);
        let before = self.0.seen_stores.load(Ordering::Relaxed);
        let now = stores(&*backend.backend);
        let stores = match noted.are_several || (before != 0 && before != now) {
            true => SEVERAL_STORES,
            false => now,
        };
        self.0.seen_stores.store(stores, Ordering::Relaxed);
        let at = Arc::as_ptr(&backend.backend).addr();
        self.0.seen_at.store(at, Ordering::Relaxed);
        Some(noted)
    }

    /// Whether a function of this throttle has to be waited for. None is asked.
    #[inline]
    pub(crate) fn has_to_wait(&self, backend: &ThrottleBackend) -> bool {
        let settings = &self.0;
        self.identify(backend).is_async()
            || settings.scope_by.as_ref().is_some_and(Source::is_async)
            || settings.cost.as_ref().is_some_and(Source::is_async)
            || settings.rate.as_ref().is_some_and(Source::is_async)
    }

    /// Everything about a request that this throttle needs, unless it has to be waited for. Who asks may be
    /// known.
    #[inline]
    pub(crate) fn resolve_now(
        &self,
        req: &HttpRequest,
        backend: &ThrottleBackend,
        known: Option<&Resolved>,
    ) -> Option<Result<Resolved>> {
        let identity = match known {
            Some(known) => known.identity.clone(),
            None => match self.who_now(req, backend)? {
                Ok(identity) => identity,
                Err(error) => return Some(Err(error)),
            },
        };
        let mut resolved = Resolved {
            identity,
            cost: None,
            rate: None,
            scope: self.0.scope.of(req),
            max_wait: self.0.max_wait,
        };
        if let Some(source) = &self.0.scope_by {
            match source.now(req)? {
                Ok(said) => resolved.scope = scope::join(resolved.scope, Some(&said)),
                Err(error) => return Some(Err(self.unresolved(error))),
            }
        }
        if let Some(source) = &self.0.cost {
            match source.now(req)? {
                Ok(cost) => resolved.cost = Some(cost),
                Err(error) => return Some(Err(self.unresolved(error))),
            }
        }
        if let Some(source) = &self.0.rate {
            match source.now(req)?.and_then(|rate| self.check_rate(rate)) {
                Ok(rate) => resolved.rate = Some(rate),
                Err(error) => return Some(Err(self.unresolved(error))),
            }
        }
        Some(Ok(resolved))
    }

    pub(crate) async fn resolve(
        &self,
        req: &HttpRequest,
        backend: &ThrottleBackend,
        ask: &Ask<'_>,
    ) -> Result<Resolved> {
        let resolved = self.find_out(req, backend, ask).await;
        resolved.map_err(|error| self.unresolved(error))
    }

    async fn find_out(
        &self,
        req: &HttpRequest,
        backend: &ThrottleBackend,
        ask: &Ask<'_>,
    ) -> Result<Resolved> {
        Ok(Resolved {
            identity: match &ask.identity {
                Some(identity) => identity.clone(),
                None => self.identify(backend).get(req).await?,
            },
            cost: match (ask.cost, &self.0.cost) {
                (None, Some(source)) => Some(source.get(req).await?),
                (cost, _) => cost,
            },
            rate: match &self.0.rate {
                Some(source) => Some(self.check_rate(source.get(req).await?)?),
                None => None,
            },
            scope: scope::join(
                self.0.scope.of(req),
                match (&ask.scope, &self.0.scope_by) {
                    (None, Some(source)) => Some(source.get(req).await?.into()),
                    (said, _) => said.clone(),
                }
                .as_deref(),
            ),
            max_wait: self.0.max_wait,
        })
    }

    /// Who asks, unless that has to be waited for.
    // Or else what it gives is written twice.
    #[inline(always)]
    pub(crate) fn who_now(
        &self,
        req: &HttpRequest,
        backend: &ThrottleBackend,
    ) -> Option<Result<Identity>> {
        let mut who = self.identify(backend).now(req)?;
        if let Err(error) = &mut who {
            *error = self.unresolved(error.clone());
        }
        Some(who)
    }

    pub(crate) fn identify<'a>(&'a self, backend: &'a ThrottleBackend) -> &'a Source<Identity> {
        self.0.identify.as_ref().unwrap_or(&backend.identify)
    }

    /// A rate that a function gave: whether it suits the strategy could not be checked earlier.
    pub(crate) fn check_rate(&self, rate: Rate) -> Result<Rate> {
        if !rate.is_unlimited()
            && let Err(error) = self.0.throttle.strategy().validate(&rate)
        {
            let message = "the strategy cannot serve the rate that the rate function gave";
            return Err(Error::unresolved(message).with_source(error));
        }
        Ok(rate)
    }

    /// Says whose function failed. Clients can bring it about at will, so it is no warning.
    #[cold]
    fn unresolved(&self, error: Error) -> Error {
        let error = error.within(format_args!("throttle `{}`", self.name()));
        if let Some(cause) = std::error::Error::source(&error) {
            log::debug!("{error}: {:?}", cause.to_string());
        }
        error
    }

    pub(crate) fn on_denied<'a>(
        &'a self,
        backend: &'a ThrottleBackend,
    ) -> Option<&'a DeniedHandler<ByRate>> {
        self.0.on_denied.as_ref().or(backend.on_denied.as_ref())
    }

    #[inline]
    pub(crate) fn telling<'a>(&'a self, backend: &'a ThrottleBackend) -> Telling<'a> {
        Telling {
            headers: self.headers(backend),
            style: self.0.style.unwrap_or(backend.style),
            own: self.0.own_headers.as_ref().or(backend.own_headers.as_ref()),
        }
    }

    #[inline]
    pub(crate) fn headers(&self, backend: &ThrottleBackend) -> Headers {
        self.0.headers.unwrap_or(backend.headers)
    }

    pub(crate) fn on_error<'a>(&'a self, backend: &'a ThrottleBackend) -> &'a ErrorPolicy {
        self.0.on_error.as_ref().unwrap_or(&backend.on_error)
    }

    /// `RateLimit-Policy` for a decision with this limit.
    pub(crate) fn policy(&self, rate: &Rate, quota: u64) -> HeaderValue {
        match self.has_usual_policy(rate, quota) {
            true => self.0.policy.clone(),
            false => policy::of(&self.0.throttle, rate, quota),
        }
    }

    #[inline]
    pub(crate) fn has_usual_policy(&self, rate: &Rate, quota: u64) -> bool {
        quota == self.0.usual_quota && *rate == self.0.throttle.rate()
    }

    #[inline]
    pub(crate) fn usual_quota(&self) -> u64 {
        self.0.usual_quota
    }

    pub(crate) fn usual_policy(&self) -> &HeaderValue {
        &self.0.policy
    }

    /// What items of `RateLimit` begin with.
    pub(crate) fn item(&self) -> &str {
        &self.0.item
    }

    /// What is known of throttles that meet the same request, unless the first of them meets too many.
    #[inline]
    pub(crate) fn company<'t>(all: &[&'t HttpThrottle]) -> Option<&'t Arc<Company>> {
        all.first()?.0.companies.of(all)
    }

    /// Whether nothing is asked about a request but who asks, as the backend says, which is not this throttle's
    /// own, and everybody is limited.
    fn is_plain(&self) -> bool {
        let settings = &self.0;
        settings.asks_only_who
            && settings.backend.is_none()
            && settings.identify.is_none()
            && !settings.throttle.rate().is_unlimited()
    }

    /// Whether nothing is asked about a request but who asks.
    #[inline]
    pub(crate) fn asks_only_who(&self) -> bool {
        self.0.asks_only_who
    }
}

/// What a throttle asks functions about.
pub(crate) struct Asks {
    pub(crate) identity: bool,
    pub(crate) rate: bool,
    pub(crate) cost: bool,
    pub(crate) scope: bool,
}

/// Equal for backends that count in the same stores, those for emergencies included.
fn stores(backend: &dyn Backend) -> usize {
    let mut sum = backend.store_id();
    backend.local_stores(&mut |store| sum = sum.rotate_left(7).wrapping_add(store));
    sum
}
