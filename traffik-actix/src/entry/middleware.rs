//! Limits around an application, a scope or a resource.

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready as unwrap_ready};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use futures_util::future::LocalBoxFuture;
use pin_project_lite::pin_project;
use smallvec::{SmallVec, smallvec};

use crate::entry::rule::{IntoRule, Rule};
#[cfg(feature = "config")]
use crate::limits::lists::Listed;
use crate::limits::registry::Registry;
use crate::request::body;
use crate::response::cors::is_preflight;
use crate::response::reply::{Reply, denied};
use crate::throttle::HttpThrottle;
use crate::throttle::admission::{self, Outcome, Receipt, Undecided};
use crate::throttle::answered::Dues;
use crate::throttle::backend::ThrottleBackend;

/// Limits everything it is wrapped around.
///
/// All rules that match a request are decided together: the request passes, and is charged, if
/// all of them admit it. Otherwise it is answered without reaching what is inside, and nothing is charged.
/// Errors and denials are responses, so `Logger`, `Cors` and `ErrorHandlers` registered *after* this (which
/// is outside) see them.
///
/// **Bodies of denied requests** are not looked at. Those that announce up to 16 KiB (`Content-Length`) are
/// read and thrown away, for half a second at most, so that a denied login does not cost its client the
/// connection. Otherwise actix-web closes an HTTP/1 connection after the answer; over HTTP/2 a client may
/// see its large upload reset before it reads the 429. To `Expect: 100-continue` actix-web answers before any
/// middleware is asked, so that it saves a denied client nothing.
///
/// ```no_run
/// use actix_web::{App, HttpServer, web};
/// use traffik_actix::{HttpThrottle, MemoryBackend, Rule, ThrottleMiddleware};
///
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Once, outside the closure: the closure runs once per worker.
/// let limits = ThrottleMiddleware::new(HttpThrottle::builder("all").rate("1000/minute").build()?)
///     .rule(Rule::new(HttpThrottle::builder("login").rate("5/minute").build()?).path("/login(/|$)")?)
///     .backend(MemoryBackend::new());
///
/// HttpServer::new(move || {
///     App::new()
///         .wrap(limits.clone())
///         .route("/login", web::post().to(async || "welcome"))
/// })
/// .bind(("127.0.0.1", 8080))?
/// .run()
/// .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ThrottleMiddleware(Arc<Limits>);

#[derive(Clone, Debug, Default)]
struct Limits {
    rules: Vec<Rule>,
    backend: Option<ThrottleBackend>,
    /// Rules that change, which come before these.
    #[cfg(feature = "config")]
    listed: Option<Listed>,
    /// Of which throttles are that may change.
    registries: Vec<Arc<Registry>>,
    /// Whether a rule settles by the response.
    settles: bool,
    skips_preflights: bool,
    /// That a backend further in is not seen was said.
    explained: Arc<AtomicBool>,
}

/// The backend in the data around a middleware, if there is one.
#[derive(Debug)]
pub(crate) struct Around {
    /// Its address, 0 if there is none: this is moved with every request.
    found: usize,
    limits: Arc<Limits>,
}

impl Around {
    /// Says so, once, if a backend further in was not seen, since actix adds it on the way.
    #[inline]
    fn look_back<B>(&self, response: &ServiceResponse<B>) {
        let inside = ThrottleBackend::of(response.request()).map_or(0, address);
        if inside != 0 && inside != self.found {
            self.limits.explain_unseen(response.request());
        }
    }
}

fn address(backend: &ThrottleBackend) -> usize {
    Arc::as_ptr(&backend.backend).addr()
}

impl ThrottleMiddleware {
    /// Applies a throttle or a rule.
    ///
    /// # Panics
    ///
    /// As [`rule`](ThrottleMiddleware::rule), for the throttles of a rule that has several.
    pub fn new(rule: impl IntoRule) -> ThrottleMiddleware {
        let mut limits = Limits::default();
        limits.push(rule.into_rule());
        ThrottleMiddleware(Arc::new(limits))
    }

    /// Applies the rules of a list, whatever they are at the time.
    #[cfg(feature = "config")]
    pub(crate) fn listed(listed: Listed) -> ThrottleMiddleware {
        let registries = vec![Arc::clone(&listed.registry)];
        ThrottleMiddleware(Arc::new(Limits {
            listed: Some(listed),
            registries,
            ..Limits::default()
        }))
    }

    /// Applies another throttle or rule as well.
    ///
    /// # Panics
    ///
    /// If another throttle of this middleware has the same name, strategy and scope, so that both share
    /// their counts, but another rate: one of the limits would not hold.
    pub fn rule(mut self, rule: impl IntoRule) -> ThrottleMiddleware {
        Arc::make_mut(&mut self.0).push(rule.into_rule());
        self
    }

    /// Sets the backend of throttles that have none of their own.
    pub fn backend(mut self, backend: impl Into<ThrottleBackend>) -> ThrottleMiddleware {
        Arc::make_mut(&mut self.0).backend = Some(backend.into());
        self
    }
}

impl ThrottleMiddleware {
    /// Lets preflights pass, and charges nothing for them: `OPTIONS` with `Origin` and
    /// `Access-Control-Request-Method`, by which browsers ask whether they may send a request. Default: they are
    /// limited as all others.
    ///
    /// It is for limits that are *outside* of the CORS middleware. Where that is outside, as is best, it has answered
    /// preflights before they are limited, and denials get its headers as well.
    ///
    /// Anybody can send such a request. So say it only where a middleware further in answers all of them, and no
    /// handler of `OPTIONS` does: such a handler would be unlimited.
    ///
    /// ```
    /// use traffik_actix::{HttpThrottle, MemoryBackend, ThrottleMiddleware};
    ///
    /// let api = HttpThrottle::builder("api").rate("100/minute").backend(MemoryBackend::new()).build()?;
    /// let limits = ThrottleMiddleware::new(api).skip_preflights();
    /// # let _ = limits;
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    pub fn skip_preflights(mut self) -> ThrottleMiddleware {
        Arc::make_mut(&mut self.0).skips_preflights = true;
        self
    }
}

impl From<HttpThrottle> for ThrottleMiddleware {
    fn from(throttle: HttpThrottle) -> Self {
        ThrottleMiddleware::new(throttle)
    }
}

impl Limits {
    fn push(&mut self, rule: Rule) {
        rule.apart().for_each(|rule| self.push_one(rule));
    }

    fn push_one(&mut self, rule: Rule) {
        for other in &self.now().rules {
            rule.throttle.must_agree_with(&other.throttle);
        }
        if let Some(registry) = rule.throttle.registry()
            && !self.registries.iter().any(|one| Arc::ptr_eq(one, registry))
        {
            self.registries.push(Arc::clone(registry));
        }
        self.settles |= rule.throttle.after().is_anything();
        self.rules.push(rule);
    }

    /// Grows whenever one of the throttles changes.
    fn changes(&self) -> u64 {
        let changes = self.registries.iter().map(|registry| registry.changes());
        changes.fold(0, u64::wrapping_add)
    }

    /// The same with the throttles as they are now, all of them at once.
    fn now(&self) -> Limits {
        let states: Vec<_> = self.registries.iter().map(|one| one.state()).collect();
        let now = |rule: &Rule| {
            let registry = rule.throttle.registry();
            let mut all = self.registries.iter().zip(&states);
            let state = all.find(|(one, _)| registry.is_some_and(|of| Arc::ptr_eq(one, of)));
            match state {
                Some((_, state)) => rule.with(rule.throttle.in_state(state)),
                None => rule.clone(),
            }
        };
        #[cfg(not(feature = "config"))]
        let listed: Vec<Rule> = Vec::new();
        #[cfg(feature = "config")]
        let listed = self.listed.as_ref().map_or_else(Vec::new, |listed| {
            let mut all = self.registries.iter().zip(&states);
            let state = all.find(|(one, _)| Arc::ptr_eq(one, &listed.registry));
            state.map_or_else(Vec::new, |(_, state)| listed.in_state(state))
        });
        let rules: Vec<Rule> = listed
            .into_iter()
            .chain(self.rules.iter().map(now))
            .collect();
        Limits {
            settles: rules.iter().any(|rule| rule.throttle.after().is_anything()),
            rules,
            ..self.clone()
        }
    }

    #[inline]
    fn admit_now(&self, req: &ServiceRequest) -> std::result::Result<Outcome, Waiting> {
        // Mostly there is one, for all.
        match &*self.rules {
            [rule] if rule.is_for_all() && !self.skips_preflights && !self.settles => {
                let outer = self.backend.as_ref();
                let decided = admission::admit_one_now(&rule.throttle, req.request(), outer);
                decided.map_err(|undecided| Waiting {
                    rules: Some(smallvec![0]),
                    undecided,
                })
            }
            _ => self.admit_matching_now(req),
        }
    }

    fn admit_matching_now(&self, req: &ServiceRequest) -> std::result::Result<Outcome, Waiting> {
        if self.skips_preflights && is_preflight(req.request()) {
            return Ok(Outcome::Admitted(Receipt::default()));
        }
        let req = req.request();
        // Before any predicate is asked, so that none is asked again.
        if self.settles || self.rules.iter().any(|rule| rule.has_to_wait(req)) {
            return Err(Waiting::UNMATCHED);
        }
        let outer = self.backend.as_ref();
        let mut matching = SmallVec::<[&HttpThrottle; 4]>::new();
        let mut matches = true;
        for rule in &self.rules {
            if !rule.follows() {
                matches = rule.is_for_all() || rule.matches_now(req).ok_or(Waiting::UNMATCHED)?;
            }
            if matches {
                matching.push(&rule.throttle);
            }
        }
        match admission::admit_now(&matching, req, outer) {
            Ok(outcome) => Ok(outcome),
            Err(undecided) => Err(Waiting {
                rules: Some(self.places_of(&matching)),
                undecided,
            }),
        }
    }

    /// Which rules they are of.
    fn places_of(&self, throttles: &[&HttpThrottle]) -> SmallVec<[usize; 4]> {
        let rules = self.rules.iter().enumerate();
        let is_of = |rule: &Rule| {
            throttles
                .iter()
                .any(|one| std::ptr::eq(*one, &rule.throttle))
        };
        rules
            .filter(|(_, rule)| is_of(rule))
            .map(|(at, _)| at)
            .collect()
    }

    fn may_wait(&self) -> bool {
        self.rules.iter().any(|rule| rule.throttle.waits())
    }

    /// What rules without a backend of their own find around this middleware, if there are such rules.
    #[inline]
    fn look_around(self: &Arc<Self>, req: &ServiceRequest) -> Option<Around> {
        let is_own = |rule: &Rule| rule.throttle.knows_its_backend();
        if self.backend.is_some() || self.rules.iter().all(is_own) {
            return None;
        }
        Some(Around {
            found: ThrottleBackend::of(req.request()).map_or(0, address),
            limits: Arc::clone(self),
        })
    }

    #[cold]
    fn explain_unseen(&self, req: &HttpRequest) {
        let is_silent = ThrottleBackend::chosen_for(req).is_some()
            || self.explained.swap(true, Ordering::Relaxed);
        if is_silent {
            return;
        }
        let rules = self.rules.iter().map(|rule| &rule.throttle);
        let names: Vec<_> = rules
            .filter(|throttle| !throttle.knows_its_backend())
            .map(|throttle| format!("`{}`", throttle.name()))
            .collect();
        log::warn!(
            "throttle {} does not count in the `ThrottleBackend` in the data of the resource or scope at `{}`, \
             which is further in than its middleware: wrap that resource or scope itself, or give \
             the middleware the backend with `.backend(..)`",
            names.join(", "),
            req.match_pattern().unwrap_or_default(),
        );
    }

    async fn admit_later(&self, req: &ServiceRequest, waiting: Waiting) -> (Outcome, Dues) {
        let req = req.request();
        let mut matching = SmallVec::<[&HttpThrottle; 4]>::new();
        match waiting.rules {
            Some(rules) => matching.extend(rules.iter().map(|at| &self.rules[*at].throttle)),
            None => {
                let mut matches = true;
                for rule in &self.rules {
                    if !rule.follows() {
                        matches = rule.matches(req).await;
                    }
                    if matches {
                        matching.push(&rule.throttle);
                    }
                }
            }
        }
        let outer = self.backend.as_ref();
        admission::admit_later(&matching, req, outer, waiting.undecided).await
    }
}

/// A request that has to wait, and what is known about it.
struct Waiting {
    /// The rules that match, unless that has to be waited for.
    rules: Option<SmallVec<[usize; 4]>>,
    undecided: Undecided,
}

impl Waiting {
    /// Nothing is known.
    const UNMATCHED: Waiting = Waiting {
        rules: None,
        undecided: Undecided::UNASKED,
    };
}

impl<S, B> Transform<S, ServiceRequest> for ThrottleMiddleware
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Transform = ThrottleService<S>;
    type InitError = ();
    type Future = Ready<std::result::Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        let limits = Followed::new(Arc::clone(&self.0));
        for rule in &limits.latest().rules {
            if let Err(quarrel) = rule.throttle.starts(self.0.backend.as_ref()) {
                log::error!("{quarrel}");
                return ready(Err(()));
            }
        }
        ready(Ok(ThrottleService {
            service: Rc::new(service),
            limits,
        }))
    }
}

/// A throttle is a middleware of itself alone: `.wrap(throttle.clone())`.
impl<S, B> Transform<S, ServiceRequest> for HttpThrottle
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Transform = ThrottleService<S>;
    type InitError = ();
    type Future = Ready<std::result::Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ThrottleMiddleware::new(self.clone()).new_transform(service)
    }
}

/// What [`ThrottleMiddleware`] makes of the service it wraps.
#[derive(Debug)]
pub struct ThrottleService<S> {
    service: Rc<S>,
    limits: Followed,
}

/// Limits of which some may change. A request meets them as they are when it comes, whole.
#[derive(Debug)]
struct Followed {
    limits: Arc<Limits>,
    /// What they are, as of so many changes; nothing if they do not change.
    latest: Option<RefCell<(u64, Arc<Limits>)>>,
}

impl Followed {
    fn new(limits: Arc<Limits>) -> Followed {
        let latest = (!limits.registries.is_empty())
            .then(|| RefCell::new((limits.changes(), Arc::new(limits.now()))));
        Followed { limits, latest }
    }

    #[inline]
    fn latest(&self) -> Cow<'_, Arc<Limits>> {
        match &self.latest {
            None => Cow::Borrowed(&self.limits),
            Some(latest) => Cow::Owned(self.catch_up(&mut latest.borrow_mut())),
        }
    }

    fn catch_up(&self, (seen, latest): &mut (u64, Arc<Limits>)) -> Arc<Limits> {
        let changes = self.limits.changes();
        if *seen != changes {
            (*seen, *latest) = (changes, Arc::new(self.limits.now()));
        }
        Arc::clone(latest)
    }
}

impl<S, B> Service<ServiceRequest> for ThrottleService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Future = ThrottleFuture<S, B>;

    actix_web::dev::forward_ready!(service);

    #[inline]
    fn call(&self, req: ServiceRequest) -> Self::Future {
        let limits = self.limits.latest();
        match limits.admit_now(&req) {
            Ok(Outcome::Admitted(receipt)) => ThrottleFuture::Admitted {
                around: limits.look_around(&req),
                response: self.service.call(req),
                receipt,
            },
            Ok(Outcome::Denied(reply)) => {
                let (req, payload) = req.into_parts();
                match reply {
                    Reply::Now(response) if !body::is_small(req.headers(), &payload) => {
                        ThrottleFuture::Denied {
                            denied: Some((req, response)),
                        }
                    }
                    reply => ThrottleFuture::Waiting {
                        response: Box::pin(async move { Ok(reply.send(req, payload).await) }),
                    },
                }
            }
            Err(waiting) => ThrottleFuture::Waiting {
                response: Box::pin(wait(
                    Arc::clone(&limits),
                    Rc::clone(&self.service),
                    req,
                    waiting,
                )),
            },
        }
    }
}

async fn wait<S, B>(
    limits: Arc<Limits>,
    service: Rc<S>,
    mut req: ServiceRequest,
    waiting: Waiting,
) -> actix_web::Result<ServiceResponse<EitherBody<B>>>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    let mut payload = req.take_payload();
    let outcome = match limits.may_wait() {
        // Boxed, since it is rare and would enlarge the future of every request.
        true => {
            let decided = Box::pin(limits.admit_later(&req, waiting));
            Box::pin(body::unless_gone(req.version(), &mut payload, decided)).await
        }
        false => Some(limits.admit_later(&req, waiting).await),
    };
    match outcome {
        Some((Outcome::Admitted(mut receipt), dues)) => {
            req.set_payload(payload);
            let around = limits.look_around(&req);
            let mut response = service.call(req).await;
            dues.settle_by(&mut response);
            stamp(&mut response, &mut receipt, around);
            response.map(ServiceResponse::map_into_left_body)
        }
        Some((Outcome::Denied(reply), _)) => {
            let (req, _) = req.into_parts();
            Ok(Box::pin(reply.send(req, payload)).await)
        }
        None => Ok(denied(req.into_parts().0, admission::gone())),
    }
}

/// Stamps the response, or the response that an error is going to be.
#[inline]
fn stamp<B>(
    response: &mut actix_web::Result<ServiceResponse<B>>,
    receipt: &mut Receipt,
    around: Option<Around>,
) {
    match response {
        Ok(response) => {
            if !receipt.is_empty() {
                std::mem::take(receipt).stamp(response.headers_mut());
            }
            if let Some(around) = around {
                around.look_back(response);
            }
        }
        Err(error) => {
            if !receipt.is_empty() {
                let receipt = std::mem::take(receipt);
                error.add_response_mapper(move |mut response| {
                    receipt.clone().stamp(response.headers_mut());
                    response
                });
            }
        }
    }
}

pin_project! {
    /// The response of a [`ThrottleService`]. Nothing is boxed unless something has to be waited
    /// for before the request may pass.
    #[project = State]
    #[allow(missing_docs, missing_debug_implementations)]
    pub enum ThrottleFuture<S, B>
    where
        S: Service<ServiceRequest>,
    {
        Admitted { #[pin] response: S::Future, receipt: Receipt, around: Option<Around> },
        Denied { denied: Option<(HttpRequest, Box<HttpResponse>)> },
        Waiting { response: LocalBoxFuture<'static, actix_web::Result<ServiceResponse<EitherBody<B>>>> },
    }
}

impl<S, B> Future for ThrottleFuture<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    type Output = actix_web::Result<ServiceResponse<EitherBody<B>>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            State::Admitted {
                response,
                receipt,
                around,
            } => {
                let mut response = unwrap_ready!(response.poll(cx));
                stamp(&mut response, receipt, around.take());
                Poll::Ready(response.map(|response| {
                    let (req, response) = response.into_parts();
                    ServiceResponse::new(req, response.map_into_left_body())
                }))
            }
            State::Denied { denied: all } => match all.take() {
                Some((req, response)) => Poll::Ready(Ok(denied(req, *response))),
                None => panic!("`ThrottleFuture` was polled after it was ready"),
            },
            State::Waiting { response } => response.as_mut().poll(cx),
        }
    }
}
