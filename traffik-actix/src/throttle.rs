//! A throttle that knows requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_web::http::header::HeaderValue;
use actix_web::{HttpRequest, HttpResponse};
use smallvec::SmallVec;
use traffik_core::{
    Attempt, Attributes, Backend, Cell, Decision, Error, Hit, Identity, IntoRate, OnError,
    OutageInfo, Rate, Result, Stat, Throttle, ThrottleBuilder, Timestamp, headers,
    strategy::IntoStrategy,
};

use crate::ask::{self, Ask};
use crate::backend::ThrottleBackend;
use crate::by::By;
use crate::denial::{Denial, DeniedHandler};
use crate::duplicates::{self, Noted};
use crate::failed::{ErrorPolicy, Failed};
use crate::headers::{HeaderStyle, Headers, text};
use crate::hit_error::HitError;
use crate::scope::Scope;
use crate::source::{IntoValue, Source};

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
    identify: Option<Source<Identity>>,
    rate: Option<Source<Rate>>,
    cost: Option<Source<u32>>,
    scope: Scope,
    on_error: Option<ErrorPolicy>,
    on_denied: Option<DeniedHandler>,
    headers: Option<Headers>,
    style: Option<HeaderStyle>,
    max_wait: Option<Duration>,
    /// What most decisions under the throttle's own rate say that the limit is.
    usual_quota: u64,
    /// `RateLimit-Policy` of these.
    policy: HeaderValue,
    quoted_name: Box<str>,
    /// There are no functions of rate and cost, no scope, and no wait.
    asks_only_who: bool,
    shares_counts: bool,
    /// What decided last, as a sum of its stores, to notice when there are [several](SEVERAL_STORES).
    seen_stores: AtomicUsize,
    /// Where it was found.
    seen_at: AtomicUsize,
}

/// A throttle that may be gone.
pub(crate) struct WeakThrottle(Weak<Settings>);

impl WeakThrottle {
    pub(crate) fn is_used(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub(crate) fn upgrade(&self) -> Option<HttpThrottle> {
        self.0.upgrade().map(HttpThrottle)
    }
}

impl Settings {
    fn rate_in_words(&self) -> String {
        match self.rate {
            Some(_) => "that of a function".to_owned(),
            None => self.throttle.rate().to_string(),
        }
    }
}

/// No memory: that throttles of a name have several was said, and is not looked into any more.
const SEVERAL_STORES: usize = usize::MAX;

impl HttpThrottle {
    /// A throttle in the making. The name identifies its counts, in logs and in headers.
    pub fn builder(name: impl Into<String>) -> HttpThrottleBuilder {
        HttpThrottleBuilder {
            inner: Throttle::builder(name),
            backend: None,
            identify: None,
            rate: None,
            cost: None,
            scope: Scope::Throttle,
            on_error: None,
            on_denied: None,
            headers: None,
            style: None,
            max_wait: None,
            shares_counts: false,
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.throttle.name()
    }

    /// The rate, unless a function of the request gives it.
    pub fn rate(&self) -> Option<Rate> {
        self.0.rate.is_none().then(|| self.0.throttle.rate())
    }

    /// Whether its backend fails, and how many hits its error policy has decided therefore. One line
    /// in the log says when that begins, and one when it ends.
    pub fn outage(&self) -> OutageInfo {
        self.0.throttle.outage()
    }

    /// A hit, or a look, by somebody who is known, without a request: by a job, or by a login whose
    /// account is known only now. It counts where the throttle's requests count; see [`By`].
    pub fn by<'a>(&'a self, identity: &'a Identity) -> By<'a> {
        By::new(self, identity)
    }

    /// The throttle without its functions of the request, which does not know where requests count.
    pub(crate) fn throttle(&self) -> &Throttle {
        &self.0.throttle
    }

    pub(crate) fn own_backend(&self) -> Option<&ThrottleBackend> {
        self.0.backend.as_ref()
    }

    /// The backend in the extensions of a request, if this throttle has none.
    #[inline]
    pub(crate) fn chosen_for(&self, req: &HttpRequest) -> Option<ThrottleBackend> {
        match self.0.backend {
            Some(_) => None,
            None => ThrottleBackend::chosen_for(req),
        }
    }

    pub(crate) fn scope(&self) -> Scope {
        self.0.scope
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
        }
    }

    pub(crate) fn is(&self, other: &HttpThrottle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn downgrade(&self) -> WeakThrottle {
        WeakThrottle(Arc::downgrade(&self.0))
    }

    /// Decides a request, and charges it if it is admitted. What a denial means is up to you.
    ///
    /// # Errors
    ///
    /// If the backend fails and the policy is to [raise](OnError::Raise), or if a function of the
    /// throttle cannot make sense of the request: see [`is_unresolved`](Error::is_unresolved). An
    /// error handler may answer both otherwise. With `?` in a handler the first is a 503, the second
    /// a 400.
    pub async fn hit(&self, req: &HttpRequest) -> Result<Decision, HitError> {
        self.ask().decide(req).await
    }

    /// The same at another cost.
    ///
    /// # Errors
    ///
    /// As [`hit`](HttpThrottle::hit).
    pub async fn hit_at(&self, req: &HttpRequest, cost: u32) -> Result<Decision, HitError> {
        self.ask().cost(cost).decide(req).await
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
        self.ask().by(identity).decide(req).await
    }

    /// Admits a request, or fails with the response it should be answered: for `?` in a handler.
    ///
    /// That response carries the throttle's headers. The handler's own does not, since it does not exist
    /// yet: for headers on every response use [`#[throttle]`](crate::throttle) or a middleware.
    ///
    /// # Errors
    ///
    /// The denial as an error that is rendered as the throttle's response, or the failure:
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

    /// A question to this throttle, for [`enforce_all`](HttpThrottle::enforce_all).
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
        let chosen = self.chosen_for(req);
        let backend = self.backend_for(req, chosen.as_ref());
        let resolved = self.resolve(req, backend, &self.ask()).await?;
        let attempt = resolved.attempt();
        Ok(self.0.throttle.stat_on(&*backend.backend, &attempt).await?)
    }

    /// Whether a request would be admitted, charging nothing.
    ///
    /// # Errors
    ///
    /// As [`stat`](HttpThrottle::stat).
    pub async fn check(&self, req: &HttpRequest) -> Result<bool, HitError> {
        Ok(self.stat(req).await?.verdict == traffik_core::Verdict::Allow)
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
            .or(outer)
            .or_else(|| ThrottleBackend::of(req))
            .unwrap_or_else(|| ThrottleBackend::global());
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
        let Some(backend) = self.0.backend.as_ref().or(outer) else {
            return Ok(());
        };
        let quarrel = self.note(backend).and_then(|noted| noted.quarrel);
        quarrel.map_or(Ok(()), Err)
    }

    /// Says so, once, if throttles of this name count in several memories, or in one by mistake, or share
    /// their counts at different rates.
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
        if backend.is_separate || seen == SEVERAL_STORES || seen == stores(&*backend.backend) {
            return;
        }
        if let Some(noted) = self.note(backend)
            && let Some(quarrel) = noted.quarrel.filter(|_| noted.is_news)
        {
            log::warn!("{quarrel}");
        }
        if let Some(req) = req
            && std::ptr::eq(backend, ThrottleBackend::global())
        {
            ThrottleBackend::explain_global(self.name(), req);
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
            scope: self.0.scope.of(req),
            max_wait: self.0.max_wait,
        })
    }

    /// Who asks, unless that has to be waited for.
    #[inline]
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

    pub(crate) fn answer(&self, backend: &ThrottleBackend, denial: &Denial<'_>) -> HttpResponse {
        match self.0.on_denied.as_ref().or(backend.on_denied.as_ref()) {
            Some(handler) => handler.answer(denial),
            None => denial.default_response(),
        }
    }

    pub(crate) fn headers(&self, backend: &ThrottleBackend) -> (Headers, HeaderStyle) {
        (
            self.0.headers.unwrap_or(backend.headers),
            self.0.style.unwrap_or(backend.style),
        )
    }

    pub(crate) fn on_error<'a>(&'a self, backend: &'a ThrottleBackend) -> &'a ErrorPolicy {
        self.0.on_error.as_ref().unwrap_or(&backend.on_error)
    }

    /// That two throttles that may meet one request share a count, but not its rate: they would be one
    /// hit of both costs, under the rate of the first, and the other limit would not hold.
    ///
    /// # Panics
    ///
    /// If so.
    pub(crate) fn must_agree_with(&self, other: &HttpThrottle) {
        let (one, two) = (&self.0, &other.0);
        let elsewhere = match (&one.backend, &two.backend) {
            (Some(one), Some(two)) => one.backend.store_id() != two.backend.store_id(),
            _ => false,
        };
        let same_rate =
            one.rate.is_none() && two.rate.is_none() && one.throttle.rate() == two.throttle.rate();
        assert!(
            !self.shares_counts_with(other) || elsewhere || same_rate,
            "{}",
            self.disagreement(other),
        );
    }

    /// Why two throttles cannot be meant that share their counts on a store but meet different requests, if
    /// their rates differ and neither says that it is meant. Two functions may well be the same.
    pub(crate) fn quarrel_with(&self, other: &HttpThrottle) -> Option<String> {
        let (one, two) = (&self.0, &other.0);
        let is_meant = one.shares_counts || two.shares_counts;
        let differ =
            one.rate.is_some() != two.rate.is_some() || one.throttle.rate() != two.throttle.rate();
        (differ && !is_meant && self.shares_counts_with(other)).then(|| {
            format!(
                "{}, or say `.shares_counts()` if it is meant",
                self.disagreement(other)
            )
        })
    }

    /// Whether both keep the same counts where they share a backend.
    fn shares_counts_with(&self, other: &HttpThrottle) -> bool {
        let (one, two) = (&self.0, &other.0);
        one.throttle != two.throttle
            && one.throttle.is_namesake_of(&two.throttle)
            && one.scope == two.scope
    }

    fn disagreement(&self, other: &HttpThrottle) -> String {
        format!(
            "two throttles are named `{}` and share their counts, but not their rates ({} and {}), so \
             that one limit would not hold: give them different names",
            self.name(),
            self.0.rate_in_words(),
            other.0.rate_in_words(),
        )
    }

    /// `RateLimit-Policy` for a decision with this limit.
    pub(crate) fn policy(&self, rate: &Rate, quota: u64) -> HeaderValue {
        match self.has_usual_policy(rate, quota) {
            true => self.0.policy.clone(),
            false => policy(&self.0.throttle, rate, quota),
        }
    }

    #[inline]
    pub(crate) fn has_usual_policy(&self, rate: &Rate, quota: u64) -> bool {
        quota == self.0.usual_quota && *rate == self.0.throttle.rate()
    }

    pub(crate) fn usual_policy(&self) -> &HeaderValue {
        &self.0.policy
    }

    /// The name as items of header fields begin with it.
    pub(crate) fn quoted_name(&self) -> &str {
        &self.0.quoted_name
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
}

/// Equal for backends that count in the same stores, those for emergencies included.
fn stores(backend: &dyn Backend) -> usize {
    let mut sum = backend.store_id();
    backend.local_stores(&mut |store| sum = sum.rotate_left(7).wrapping_add(store));
    sum
}

fn policy(throttle: &Throttle, rate: &Rate, quota: u64) -> HeaderValue {
    let mut value = String::new();
    let window = throttle.strategy().window(rate, quota);
    headers::push_policy(&mut value, throttle.name(), quota, window);
    text(value)
}

/// The limit that a client is told of whom nothing is known.
fn usual_quota(throttle: &Throttle) -> u64 {
    let rate = throttle.rate();
    if rate.is_unlimited() {
        return 0;
    }
    let anybody = Hit {
        now: Timestamp::EPOCH,
        rate: &rate,
        cost: 0,
        attributes: &Attributes::NONE,
    };
    let decision = throttle.strategy().step(&mut Cell::fresh(), &anybody);
    decision.limit()
}

/// What a throttle needs to know about a request.
#[derive(Debug)]
pub(crate) struct Resolved {
    identity: Identity,
    cost: Option<u32>,
    pub(crate) rate: Option<Rate>,
    pub(crate) scope: Option<String>,
    max_wait: Option<Duration>,
}

impl Resolved {
    /// What there is if only this is asked.
    pub(crate) fn only(identity: Identity) -> Resolved {
        Resolved {
            identity,
            cost: None,
            rate: None,
            scope: None,
            max_wait: None,
        }
    }

    /// Whether a denial is not the last word.
    #[cfg(feature = "ws")]
    pub(crate) fn waits(&self) -> bool {
        self.max_wait.is_some()
    }

    #[inline]
    pub(crate) fn attempt(&self) -> Attempt<'_> {
        let mut attempt = Attempt::by(&self.identity);
        if let Some(cost) = self.cost {
            attempt = attempt.cost(cost);
        }
        if let Some(rate) = self.rate {
            attempt = attempt.rate(rate);
        }
        if let Some(scope) = &self.scope {
            attempt = attempt.scope(scope);
        }
        if let Some(max_wait) = self.max_wait {
            attempt = attempt.wait_up_to(max_wait);
        }
        attempt
    }
}

/// Settings of an [`HttpThrottle`].
#[derive(Debug)]
#[must_use]
pub struct HttpThrottleBuilder {
    inner: ThrottleBuilder,
    backend: Option<ThrottleBackend>,
    identify: Option<Source<Identity>>,
    rate: Option<Source<Rate>>,
    cost: Option<Source<u32>>,
    scope: Scope,
    on_error: Option<ErrorPolicy>,
    on_denied: Option<DeniedHandler>,
    headers: Option<Headers>,
    style: Option<HeaderStyle>,
    max_wait: Option<Duration>,
    shares_counts: bool,
}

impl HttpThrottleBuilder {
    /// Sets the rate: a [`Rate`] or its text. Required, unless a function gives it.
    pub fn rate(mut self, rate: impl IntoRate) -> Self {
        self.inner = self.inner.rate(rate);
        self
    }

    /// Sets a function that gives the rate of a request. If it [fails](IntoValue), the request is
    /// answered 400.
    ///
    /// The count is the same whatever the rate: a client whose rate changes keeps what it took.
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
        self.backend = Some(backend.into());
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

    /// Sets what shares one count. Default: everything the throttle is on.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
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
        self.on_denied = Some(DeniedHandler::new(handler));
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
        let usual_quota = usual_quota(&throttle);
        let policy = policy(&throttle, &throttle.rate(), usual_quota);
        let asks_only_who = self.rate.is_none()
            && self.cost.is_none()
            && self.scope == Scope::Throttle
            && self.max_wait.is_none();
        Ok(HttpThrottle(Arc::new(Settings {
            quoted_name: headers::quoted(throttle.name()),
            asks_only_who,
            throttle,
            backend: self.backend,
            identify: self.identify,
            rate: self.rate,
            cost: self.cost,
            scope: self.scope,
            on_error: self.on_error,
            on_denied: self.on_denied,
            headers: self.headers,
            style: self.style,
            max_wait: self.max_wait,
            usual_quota,
            policy,
            shares_counts: self.shares_counts,
            seen_stores: AtomicUsize::new(0),
            seen_at: AtomicUsize::new(0),
        })))
    }
}
