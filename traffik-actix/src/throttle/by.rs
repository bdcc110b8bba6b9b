use std::sync::Arc;

use actix_web::http::Method;
use traffik_core::{
    Attempt, Decision, Error, Hits, Identity, OnError, Permit, Rate, Result, Stat, Verdict,
};

use crate::request::scope::{self, Scope};
use crate::response::failed::ErrorPolicy;
use crate::throttle::HttpThrottle;
use crate::throttle::backend::ThrottleBackend;

/// A hit, or a look, by somebody who is known, without a request. Made by [`HttpThrottle::by`].
///
/// ```
/// use traffik_actix::{HttpThrottle, Identity, MemoryBackend};
///
/// # async fn example() -> Result<(), traffik_actix::Error> {
/// let exports = HttpThrottle::builder("exports").rate("10/day").backend(MemoryBackend::new()).build()?;
/// let ann = Identity::of("user:ann");
/// if exports.by(&ann).cost(3).hit().await?.is_allowed() {
///     // run the job
/// }
/// # Ok(())
/// # }
/// # actix_web::rt::System::new().block_on(example()).unwrap();
/// ```
///
/// What requests of this identity took is taken here, and the other way round. Whatever the throttle would
/// ask a request has to be said, or hitting is an [error](Error::is_invalid): nothing counts elsewhere in
/// silence. That is
///
/// * the backend, [`on`](By::on) which it counts, unless the throttle was built with one;
/// * the [`rate`](By::rate) or the [`cost`](By::cost), if a function gives them;
/// * the route or path it is [`at`](By::at), unless its [`Scope`] is the whole throttle;
/// * the [`scope`](By::scope), if a function gives it.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct By<'a> {
    throttle: &'a HttpThrottle,
    identity: &'a Identity,
    backend: Option<&'a ThrottleBackend>,
    cost: Option<u32>,
    rate: Option<Rate>,
    place: Option<(&'a Method, &'a str)>,
    scope: Option<&'a str>,
}

impl<'a> By<'a> {
    pub(crate) fn new(throttle: &'a HttpThrottle, identity: &'a Identity) -> By<'a> {
        By {
            throttle,
            identity,
            backend: None,
            cost: None,
            rate: None,
            place: None,
            scope: None,
        }
    }

    /// At another cost than the throttle's.
    pub fn cost(mut self, cost: u32) -> By<'a> {
        self.cost = Some(cost);
        self
    }

    /// Under another rate than the throttle's. The count is the same.
    pub fn rate(mut self, rate: Rate) -> By<'a> {
        self.rate = Some(rate);
        self
    }

    /// On the backend where the throttle's requests count, such as the one in the application data, or
    /// [`ThrottleBackend::global`]. A throttle with a backend of its own stays there.
    pub fn on(mut self, backend: &'a ThrottleBackend) -> By<'a> {
        self.backend = Some(backend);
        self
    }

    /// As requests with this method for a route pattern such as `/items/{id}`, or for a path, are counted:
    /// whichever the throttle's [`Scope`] is.
    pub fn at(mut self, method: &'a Method, place: &'a str) -> By<'a> {
        self.place = Some((method, place));
        self
    }

    /// In a scope: as requests are counted for which [`scope_by`](crate::HttpThrottleBuilder::scope_by), or
    /// [`Ask::scope`](crate::Ask::scope), says this text.
    pub fn scope(mut self, scope: &'a str) -> By<'a> {
        self.scope = Some(scope);
        self
    }

    /// Decides, and charges what is admitted. A throttle that lets requests
    /// [wait](crate::HttpThrottleBuilder::wait_up_to) waits here, too.
    ///
    /// # Errors
    ///
    /// If something has to be said, see above; if the backend fails and the policy is to
    /// [raise](OnError::Raise), or a function that wants to see the request.
    pub async fn hit(self) -> Result<Decision> {
        let now = self.throttle.current();
        match now.is_disabled() {
            true => Ok(Decision::UNLIMITED),
            false => self.of(&now).hit_telling(&mut || {}).await,
        }
    }

    /// The same, which says whenever it asks.
    async fn hit_telling(self, asks: &mut (dyn FnMut() + Send)) -> Result<Decision> {
        let (backend, scope) = (self.backend()?, self.whole_scope()?);
        let attempt = self.attempt(scope.as_deref())?;
        let policy = match self.throttle.on_error(backend) {
            ErrorPolicy::Fixed(policy) => policy,
            ErrorPolicy::By(_) => &OnError::Raise,
        };
        let mut hits = Hits::default();
        hits.push_on(self.throttle.throttle(), attempt, &*backend.backend, policy);
        Ok(hits.until_ready_telling(asks).await?[0])
    }

    /// The same where the [`cost`](By::cost) is an estimate: a [permit](Permit) to be settled when it is known,
    /// or the denial.
    ///
    /// # Errors
    ///
    /// As [`hit`](By::hit).
    pub async fn reserve(self) -> Result<std::result::Result<Permit, Decision>> {
        let now = self.throttle.current();
        if now.is_disabled() {
            let nothing = Permit::expecting([]).confirm(Decision::UNLIMITED.into());
            return Ok(nothing.ok_or(Decision::UNLIMITED));
        }
        self.of(&now).reserve_fixed().await
    }

    async fn reserve_fixed(self) -> Result<std::result::Result<Permit, Decision>> {
        let (backend, scope) = (self.backend()?, self.whole_scope()?);
        let attempt = self.attempt(scope.as_deref())?;
        let store = Arc::clone(&backend.backend);
        let mut expected = Permit::expecting([(self.throttle.throttle(), attempt, store)]);
        let decision = self.hit_telling(&mut || expected.begin()).await?;
        Ok(expected.confirm(decision.into()).ok_or(decision))
    }

    /// What would be decided, and why, charging nothing.
    ///
    /// # Errors
    ///
    /// If something has to be said, see above; if the backend fails.
    pub async fn stat(self) -> Result<Stat> {
        let now = self.throttle.current();
        match now.is_disabled() {
            true => now.throttle().stat(&Identity::EXEMPT).await,
            false => self.of(&now).stat_fixed().await,
        }
    }

    async fn stat_fixed(self) -> Result<Stat> {
        let (backend, scope) = (self.backend()?, self.whole_scope()?);
        let attempt = self.attempt(scope.as_deref())?;
        let throttle = self.throttle.throttle();
        throttle.stat_on(&*backend.backend, &attempt).await
    }

    /// Whether a hit would be admitted, charging nothing.
    ///
    /// # Errors
    ///
    /// As [`stat`](By::stat).
    pub async fn check(self) -> Result<bool> {
        Ok(self.stat().await?.verdict == Verdict::Allow)
    }

    /// The same of a throttle as it is now.
    fn of<'n>(self, throttle: &'n HttpThrottle) -> By<'n>
    where
        'a: 'n,
    {
        By { throttle, ..self }
    }

    fn backend(&self) -> Result<&'a ThrottleBackend> {
        let backend = self.throttle.own_backend().or(self.backend).ok_or_else(|| {
            self.unsaid(
                "where its requests count: build it with `.backend(..)`, or say `.on(&backend)` (the memory \
                 of this process is `ThrottleBackend::global()`)",
            )
        })?;
        self.throttle.notice(backend, None);
        Ok(backend)
    }

    fn whole_scope(&self) -> Result<Option<String>> {
        let scope = self.throttle.scope();
        let place = match (scope, self.place) {
            (Scope::Throttle, _) => None,
            (_, Some((method, place))) => scope.at(method, place),
            _ => {
                return Err(self.unsaid(
                    "which of its routes or paths is meant: say `.at(&Method::GET, \"/items\")`",
                ));
            }
        };
        match (self.scope, self.throttle.asks().scope) {
            (None, true) => Err(self.unsaid("the scope: say `.scope(..)`")),
            (said, _) => Ok(scope::join(place, said)),
        }
    }

    fn attempt<'s>(&self, scope: Option<&'s str>) -> Result<Attempt<'s>>
    where
        'a: 's,
    {
        let asks = self.throttle.asks();
        let mut attempt = Attempt::by(self.identity);
        match (self.rate, asks.rate) {
            (Some(rate), _) => attempt = attempt.rate(self.throttle.check_rate(rate)?),
            (None, true) => return Err(self.unsaid("the rate: say `.rate(..)`")),
            (None, false) => {}
        }
        match (self.cost, asks.cost) {
            (Some(cost), _) => attempt = attempt.cost(cost),
            (None, true) => return Err(self.unsaid("the cost: say `.cost(..)`")),
            (None, false) => {}
        }
        if let Some(scope) = scope {
            attempt = attempt.scope(scope);
        }
        if let Some(max_wait) = self.throttle.max_wait() {
            attempt = attempt.wait_up_to(max_wait);
        }
        Ok(attempt)
    }

    fn unsaid(&self, what: &str) -> Error {
        let name = self.throttle.name();
        Error::invalid(format!(
            "throttle `{name}` was hit without a request, which would tell it {what}"
        ))
    }
}
