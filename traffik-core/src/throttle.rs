//! Throttles, and how several of them decide together.

mod charge;
mod hits;
mod on_error;
mod permit;
mod quota;
mod reign;
mod shadow;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(feature = "tokio")]
pub(crate) use hits::Entry;
pub use hits::Hits;
pub use on_error::{Failure, OnError, Recover};
pub use permit::{Expected, Flow, OnDrop, Permit};
pub use quota::{NestedQuota, Quota};
pub use reign::Reign;
use reign::Terms;
pub(crate) use shadow::Difference;
use shadow::Shadow;
pub use shadow::ShadowReport;

use crate::backend::{Backend, MemoryBackend, Op};
use crate::decision::{Decision, Stat};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::key::{Key, KeyHasher};
#[cfg(feature = "metrics")]
use crate::metrics::Offender;
use crate::name::{LONGEST_NAME, check_length, excerpt};
use crate::observe::Meters;
use crate::rate::Rate;
use crate::resilience::{Outage, OutageInfo};
use crate::strategy::{FixedWindow, IntoStrategy, Sharing, Strategy};

/// Numbers [`Settings::seats`].
static SEATS: AtomicU64 = AtomicU64::new(0);

/// A limit with a name: rate, strategy, backend, and what to do when the backend fails.
///
/// Cheap to clone; clones share everything. Throttles of one name on one backend share their
/// counts.
///
/// ```
/// use traffik_core::{Attempt, Identity, MemoryBackend, Throttle, TokenBucket};
///
/// # async fn example() -> traffik_core::Result<()> {
/// let exports = Throttle::builder("exports")
///     .rate("100/hour")
///     .strategy(TokenBucket::new().burst(20))
///     .backend(MemoryBackend::new())
///     .build()?;
///
/// let ann = Identity::of("ann");
/// let decision = exports.hit(Attempt::by(&ann).cost(5)).await?;
/// assert_eq!(decision.remaining(), 15);
/// assert_eq!(exports.stat(&ann).await?.remaining, 15); // looking costs nothing
/// # Ok(())
/// # }
/// # let mut future = std::pin::pin!(example());
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// # assert!(matches!(future.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(()))));
/// ```
#[derive(Clone, Debug)]
pub struct Throttle(Arc<Settings>);

#[derive(Debug)]
struct Settings {
    name: String,
    rate: Rate,
    strategy: Arc<dyn Strategy>,
    /// The strategy's, which is asked once since its answer does not change, unless all share.
    sharing: Sharing,
    cost: u32,
    min_wait: Option<Duration>,
    on_error: Option<OnError>,
    backend: Option<Arc<dyn Backend>>,
    /// Of the throttle's own backend: asking it costs as much as hashing an address.
    hasher: KeyHasher,
    digest: u128,
    max_waiters: usize,
    max_waiters_per_client: usize,
    /// Of whom the places to wait are: its own, or those of the throttle that it takes the place of.
    seats: u64,
    /// One with that of the throttle that it takes the place of: whoever still uses that sees the same.
    outage: Arc<Outage>,
    meters: Meters,
    shadow: Shadow,
    reign: Reign,
}

impl Throttle {
    /// A throttle in the making. The name identifies its counts, in logs and in headers.
    pub fn builder(name: impl Into<String>) -> ThrottleBuilder {
        ThrottleBuilder::new(name.into())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The rate, unless an attempt brings its own.
    pub fn rate(&self) -> Rate {
        self.0.rate
    }

    /// The strategy.
    pub fn strategy(&self) -> &dyn Strategy {
        &*self.0.strategy
    }

    /// The cost of a hit, unless an attempt brings its own.
    pub fn cost(&self) -> u32 {
        self.0.cost
    }

    /// The shortest wait of a denial.
    pub fn min_wait(&self) -> Option<Duration> {
        self.0.min_wait
    }

    /// What to do when the backend fails, if this throttle says so itself.
    pub fn on_error(&self) -> Option<&OnError> {
        self.0.on_error.as_ref()
    }

    /// Whether its backend fails, and how many hits its error policy has decided therefore. One line
    /// in the log says when that begins, and one when it ends, or when the throttle is dropped before.
    pub fn outage(&self) -> OutageInfo {
        self.0.outage.info()
    }

    /// Who was denied most often since it was built, the worst first: up to [so
    /// many](ThrottleBuilder::offenders), of whatever many clients. They are known by digests, unless
    /// the throttle was told to [name](ThrottleBuilder::name_offenders) them.
    ///
    /// ```
    /// use traffik_core::{Identity, MemoryBackend, Throttle};
    ///
    /// let api = Throttle::builder("api").rate("1/day").backend(MemoryBackend::new()).build()?;
    /// let ann = Identity::of("ann");
    /// for _ in 0..10 {
    ///     let _ = api.hit_now(&ann)?;
    /// }
    /// let worst = &api.offenders()[0];
    /// assert!(worst.is(&ann) && worst.denials == 9);
    /// # Ok::<(), traffik_core::Error>(())
    /// ```
    #[cfg(feature = "metrics")]
    pub fn offenders(&self) -> Vec<Offender> {
        self.0.meters.worst()
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.0.meters
    }

    /// The backend this throttle was built with.
    pub fn own_backend(&self) -> Option<&Arc<dyn Backend>> {
        self.0.backend.as_ref()
    }

    /// The backend this throttle uses by itself: the one it was built with, or the
    /// [memory of this process](MemoryBackend::global).
    pub fn backend(&self) -> &dyn Backend {
        match &self.0.backend {
            Some(backend) => &**backend,
            None => MemoryBackend::global(),
        }
    }

    /// Decides an attempt, and charges it if it is admitted.
    ///
    /// # Errors
    ///
    /// If the backend fails and [`OnError::Raise`] is in force, or an error handler fails.
    pub async fn hit<'a>(&'a self, attempt: impl Into<Attempt<'a>>) -> Result<Decision> {
        let decisions = Hits::from((self, attempt.into())).decide().await?;
        Ok(decisions[0])
    }

    /// The same, for backends that need not wait.
    ///
    /// # Errors
    ///
    /// If the backend has to wait (only memory need not), and as [`hit`](Throttle::hit).
    pub fn hit_now<'a>(&'a self, attempt: impl Into<Attempt<'a>>) -> Result<Decision> {
        Hits::try_decide_own(self, attempt.into()).unwrap_or_else(|| Err(self.must_wait()))
    }

    /// What would be decided, and why, charging nothing.
    ///
    /// # Errors
    ///
    /// If the backend fails.
    pub async fn stat<'a>(&'a self, attempt: impl Into<Attempt<'a>>) -> Result<Stat> {
        let attempt = attempt.into();
        self.stat_on(self.backend(), &attempt).await
    }

    /// The same on a backend of the caller's choice, for adapters.
    #[doc(hidden)]
    pub async fn stat_on(&self, backend: &dyn Backend, attempt: &Attempt<'_>) -> Result<Stat> {
        let Some(op) = self.op(attempt, backend.key_hasher()) else {
            return Ok(Stat::unlimited());
        };
        let (cell, now) = backend.load(&op).await?;
        let stat = op.stat(&cell, now);
        Ok(match self.0.min_wait {
            Some(min_wait) => stat.with_min_wait(min_wait),
            None => stat,
        })
    }

    /// Whether an attempt would be admitted by a backend that need not wait, for adapters.
    #[doc(hidden)]
    pub fn try_check_on(
        &self,
        backend: &dyn Backend,
        attempt: Attempt<'_>,
    ) -> Option<Result<bool>> {
        let Some(op) = self.op(&attempt, backend.key_hasher()) else {
            return Some(Ok(true));
        };
        let loaded = backend.try_load(&op)?;
        Some(loaded.map(|(mut cell, now)| op.step(&mut cell, now).is_allowed()))
    }

    /// Whether an attempt would be admitted, charging nothing.
    ///
    /// # Errors
    ///
    /// If the backend fails.
    pub async fn check<'a>(&'a self, attempt: impl Into<Attempt<'a>>) -> Result<bool> {
        Ok(self.stat(attempt).await?.verdict == crate::Verdict::Allow)
    }

    fn must_wait(&self) -> Error {
        Error::invalid(format!(
            "the backend of throttle `{}` cannot decide without waiting: use `hit(..).await`",
            self.name()
        ))
    }

    /// Whether two attempts count in one cell, or nothing limits one of them. For adapters.
    #[doc(hidden)]
    pub fn counts_as_one(
        &self,
        backend: &dyn Backend,
        one: &Attempt<'_>,
        other: &Attempt<'_>,
    ) -> bool {
        let hasher = backend.key_hasher();
        match (self.op(one, hasher), self.op(other, hasher)) {
            (Some(one), Some(other)) => one.key == other.key,
            _ => true,
        }
    }

    /// Whether both keep the same counts where they share a backend, for adapters.
    #[doc(hidden)]
    pub fn is_namesake_of(&self, other: &Throttle) -> bool {
        self.0.digest == other.0.digest
    }

    /// How many attempts may wait at a time.
    pub fn max_waiters(&self) -> usize {
        self.0.max_waiters
    }

    /// Whose places to wait these are.
    #[cfg(feature = "tokio")]
    pub(crate) fn seats(&self) -> u64 {
        self.0.seats
    }

    /// How many attempts of one identity may wait at a time.
    pub fn max_waiters_per_client(&self) -> usize {
        self.0.max_waiters_per_client
    }

    /// A denial waits as long as all of this throttle do.
    #[inline]
    pub(crate) fn floor(&self, decision: Decision) -> Decision {
        match self.0.min_wait {
            Some(min_wait) => decision.with_min_wait(min_wait),
            None => decision,
        }
    }

    /// The operation of an attempt, or `None` if nothing limits it.
    #[inline]
    pub(crate) fn op<'a>(&'a self, attempt: &Attempt<'a>, hasher: &KeyHasher) -> Option<Op<'a>> {
        let rate = self.rate_of(attempt)?;
        Some(self.op_at(rate, attempt, hasher))
    }

    /// The rate an attempt is made under, or `None` if nothing limits it.
    #[inline]
    pub(crate) fn rate_of<'r>(&'r self, attempt: &'r Attempt<'_>) -> Option<&'r Rate> {
        let rate = attempt.rate.as_ref().unwrap_or(&self.0.rate);
        (!rate.is_unlimited() && !attempt.identity.is_exempt()).then_some(rate)
    }

    #[inline]
    fn op_at<'a>(&'a self, rate: &Rate, attempt: &Attempt<'a>, hasher: &KeyHasher) -> Op<'a> {
        self.op_by(rate, attempt, hasher, || hasher.identity(attempt.identity))
    }

    /// The same by an identity whose digest may be known.
    #[inline]
    fn op_by<'a>(
        &'a self,
        rate: &Rate,
        attempt: &Attempt<'a>,
        hasher: &KeyHasher,
        who: impl FnOnce() -> u128,
    ) -> Op<'a> {
        Op {
            key: Key {
                throttle: self.0.digest,
                scope: attempt
                    .scope
                    .map_or(0, |scope| hasher.scope(scope.as_bytes())),
                who: match self.0.sharing {
                    Sharing::Identity => who(),
                    Sharing::Everybody => hasher.everybody(),
                },
            },
            strategy: match self.is_shadow() {
                false => &self.0.strategy,
                true => self.0.shadow.strategy(&self.0.strategy),
            },
            rate: *rate,
            cost: attempt.cost.unwrap_or(self.0.cost),
            attributes: attempt.identity.attributes(),
        }
    }
}

/// Clones are equal; two throttles built alike are not.
impl PartialEq for Throttle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Throttle {}

impl std::hash::Hash for Throttle {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// One try to get past a throttle: by whom, at what cost, under which rate, in which scope.
///
/// `&Identity` converts into an attempt at the throttle's own cost and rate.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) cost: Option<u32>,
    pub(crate) rate: Option<Rate>,
    pub(crate) scope: Option<&'a str>,
    max_wait: Option<Duration>,
}

impl<'a> Attempt<'a> {
    /// An attempt by `identity`.
    pub const fn by(identity: &'a Identity) -> Attempt<'a> {
        Attempt {
            identity,
            cost: None,
            rate: None,
            scope: None,
            max_wait: None,
        }
    }

    /// At another cost than the throttle's. A cost of zero is always admitted.
    pub const fn cost(mut self, cost: u32) -> Attempt<'a> {
        self.cost = Some(cost);
        self
    }

    /// Under another rate than the throttle's. The count is the same: a client whose rate changes
    /// keeps what it has taken.
    ///
    /// Unlike the throttle's own rate it is not
    /// [validated](crate::Strategy::validate): where the strategy cannot serve it, such as a burst
    /// that takes longer than 142 years to refill, less is admitted than was asked for.
    pub const fn rate(mut self, rate: Rate) -> Attempt<'a> {
        self.rate = Some(rate);
        self
    }

    /// Rather waiting up to this long than being denied, where [waiting](Hits::until_ready) is
    /// possible.
    pub const fn wait_up_to(mut self, max_wait: Duration) -> Attempt<'a> {
        self.max_wait = Some(max_wait);
        self
    }

    /// With a count of its own for this scope, such as a route.
    pub const fn scope(mut self, scope: &'a str) -> Attempt<'a> {
        self.scope = Some(scope);
        self
    }
}

impl Attempt<'_> {
    /// How long it would rather wait than be denied.
    pub const fn max_wait(&self) -> Option<Duration> {
        self.max_wait
    }
}

impl<'a> From<&'a Identity> for Attempt<'a> {
    fn from(identity: &'a Identity) -> Self {
        Attempt::by(identity)
    }
}

/// A [`Rate`], or a text that should be one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no rate",
    label = "neither a `Rate` nor a text",
    note = "write a text such as `\"100/minute\"`, or `Rate::per_minute(100)`"
)]
pub trait IntoRate {
    /// The rate.
    ///
    /// # Errors
    ///
    /// If the text is not a rate.
    fn into_rate(self) -> Result<Rate>;
}

impl IntoRate for Rate {
    fn into_rate(self) -> Result<Rate> {
        Ok(self)
    }
}

impl IntoRate for &str {
    fn into_rate(self) -> Result<Rate> {
        Rate::parse(self).map_err(|error| Error::invalid(format!("{self:?} is no rate: {error}")))
    }
}

impl IntoRate for String {
    fn into_rate(self) -> Result<Rate> {
        self.as_str().into_rate()
    }
}

/// Settings of a [`Throttle`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ThrottleBuilder {
    name: String,
    rate: Option<Result<Rate>>,
    strategy: Result<Arc<dyn Strategy>>,
    is_shared: bool,
    is_shadow: bool,
    replaces: Option<String>,
    cost: u32,
    min_wait: Option<Duration>,
    on_error: Option<OnError>,
    backend: Option<Arc<dyn Backend>>,
    max_waiters: usize,
    max_waiters_per_client: Option<usize>,
    #[cfg(feature = "metrics")]
    offenders: usize,
    #[cfg(feature = "metrics")]
    names_offenders: bool,
    predecessor: Option<Throttle>,
    reign: Option<Reign>,
}

impl ThrottleBuilder {
    fn new(name: String) -> ThrottleBuilder {
        ThrottleBuilder {
            name,
            rate: None,
            strategy: Ok(Arc::new(FixedWindow)),
            is_shared: false,
            is_shadow: false,
            replaces: None,
            cost: 1,
            min_wait: None,
            on_error: None,
            backend: None,
            max_waiters: 1_000,
            max_waiters_per_client: None,
            #[cfg(feature = "metrics")]
            offenders: 64,
            #[cfg(feature = "metrics")]
            names_offenders: false,
            predecessor: None,
            reign: None,
        }
    }

    /// Sets the rate: a [`Rate`] or its text. Required.
    pub fn rate(mut self, rate: impl IntoRate) -> Self {
        self.rate = Some(rate.into_rate());
        self
    }

    /// Sets the strategy, itself or as the text that [names](crate::strategy::named) it: `"gcra"`,
    /// `"token_bucket,burst=20"`. Default: [`FixedWindow`].
    pub fn strategy(mut self, strategy: impl IntoStrategy) -> Self {
        self.strategy = strategy.into_strategy();
        self
    }

    /// Counts all identities together: the rate is what everybody gets in sum, not each of them.
    /// Default: a count for each identity.
    ///
    /// Identities still tell tiers and priorities, and the [exempt](Identity::EXEMPT) are not counted.
    ///
    /// ```
    /// use traffik_core::{Identity, MemoryBackend, Throttle};
    ///
    /// let all = Throttle::builder("all").rate("2/day").shared().backend(MemoryBackend::new()).build()?;
    /// assert!(all.hit_now(&Identity::of("ann"))?.is_allowed());
    /// assert!(all.hit_now(&Identity::of("ben"))?.is_allowed());
    /// assert!(all.hit_now(&Identity::of("cid"))?.is_denied());
    /// # Ok::<(), traffik_core::Error>(())
    /// ```
    pub fn shared(mut self) -> Self {
        self.is_shared = true;
        self
    }

    /// Only says what it would do, until it is told [otherwise](Throttle::set_shadow): it decides, counts, and
    /// never denies. For a limit that nobody knows yet whom it would hurt.
    ///
    /// What it would have done is in [`Decision::shadowed`], in a [report](Throttle::shadow_report), and in metrics and
    /// events. It is decided in the same batch as the others, in the same trip: it stops none of them, and if one of
    /// them denies the hit it is not charged, as it would not be in earnest. If its store fails, it admits,
    /// whatever its error policy. Hits do not wait for it.
    ///
    /// Let it have a name of its own: of two throttles that share their counts, one in shadow is not asked about hits
    /// that meet both.
    pub fn shadow(mut self) -> Self {
        self.is_shadow = true;
        self
    }

    /// The same for a throttle that is to replace another one, by its name: where nothing but that one denies, it
    /// is charged all the same, and its report tells what would be newly admitted. That takes a trip of its own
    /// then.
    ///
    /// ```
    /// use traffik_core::{Hits, Identity, MemoryBackend, Throttle};
    ///
    /// let backend = MemoryBackend::new();
    /// let old = Throttle::builder("api").rate("2/day").backend(backend.clone()).build()?;
    /// let new = Throttle::builder("api-next").rate("3/day").shadow_of("api").backend(backend).build()?;
    /// let ann = Identity::of("ann");
    /// for _ in 0..5 {
    ///     let _ = Hits::from_iter([(&old, &ann), (&new, &ann)]).try_decide().unwrap()?;
    /// }
    /// let report = new.shadow_report();
    /// assert_eq!((report.admitted, report.newly_admitted, report.denied), (2, 1, 2));
    ///
    /// new.set_shadow(false); // the new one in earnest, and then the old one no more
    /// old.set_shadow(true);
    /// # Ok::<(), traffik_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`build`](ThrottleBuilder::build) fails if it is to replace itself.
    pub fn shadow_of(mut self, replaces: impl Into<String>) -> Self {
        self.replaces = Some(replaces.into());
        self.shadow()
    }

    /// Sets the cost of a hit. Default: 1.
    pub fn cost(mut self, cost: u32) -> Self {
        self.cost = cost;
        self
    }

    /// Sets the shortest wait of a denial; admissions stay as they are. Default: none.
    pub fn min_wait(mut self, min_wait: Duration) -> Self {
        self.min_wait = Some(min_wait);
        self
    }

    /// Sets what to do when the backend fails. Default: what the backend says, else
    /// [`OnError::Throttle`].
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = Some(on_error);
        self
    }

    /// Sets how many attempts may [wait](Attempt::wait_up_to) at a time, over all identities; more
    /// are denied at once. Default: 1,000.
    pub fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.max_waiters = max_waiters;
        self
    }

    /// Sets how many attempts of one identity may wait at a time, so that a client does not take every
    /// place; more are denied at once. Default: a quarter of [`max_waiters`](ThrottleBuilder::max_waiters),
    /// and at least one.
    ///
    /// All who are [anonymous](crate::Identity::ANONYMOUS) are one: raise it where everybody is.
    pub fn max_waiters_per_client(mut self, max_waiters: usize) -> Self {
        self.max_waiters_per_client = Some(max_waiters);
        self
    }

    /// Sets among how many the [most denied](Throttle::offenders) are looked for: whoever was denied more often than
    /// one in so many times is found. A denial looks through all of them, so let it be some dozens; 0 is none.
    /// Default: 64.
    #[cfg(feature = "metrics")]
    pub fn offenders(mut self, at_most: usize) -> Self {
        self.offenders = at_most;
        self
    }

    /// Keeps who the [most denied](Throttle::offenders) are, as it was told, beside their digests: addresses, and whatever
    /// the program knows clients by. That may be personal, and secret if it is an API key. Default: digests only.
    #[cfg(feature = "metrics")]
    pub fn name_offenders(mut self) -> Self {
        self.names_offenders = true;
        self
    }

    /// Sets the backend. Default: the [memory of this process](MemoryBackend::global), or what an
    /// adapter finds in its application.
    pub fn backend(mut self, backend: impl Backend) -> Self {
        self.backend = Some(Arc::new(backend));
        self
    }

    /// Takes the place of another throttle while requests pass: an outage that lasts goes on, and who waits
    /// there takes a place here, too. For adapters.
    #[doc(hidden)]
    pub fn succeeding(mut self, predecessor: &Throttle) -> Self {
        self.predecessor = Some(predecessor.clone());
        self
    }

    /// Takes up what is in force of throttles that are no more: their permits are settled by this one. For adapters.
    #[doc(hidden)]
    pub fn reigning(mut self, reign: &Reign) -> Self {
        self.reign = Some(reign.clone());
        self
    }

    /// The throttle.
    ///
    /// # Errors
    ///
    /// If the name is empty, not printable ASCII or longer than 256 bytes, the rate is missing or malformed, or the
    /// strategy is unknown or cannot serve it.
    pub fn build(self) -> Result<Throttle> {
        let ThrottleBuilder { name, strategy, .. } = self;
        if name.is_empty() || !name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Error::invalid(format!(
                "the name of a throttle must be printable ASCII, such as `api`, not {:?}",
                excerpt(&name)
            )));
        }
        check_length("the name of a throttle", &name, LONGEST_NAME)?;
        if self.replaces.as_ref() == Some(&name) {
            return Err(Error::invalid(format!(
                "throttle `{name}` cannot be the shadow of itself: give it another name than the one \
                 that it is to replace, such as `{name}-next`"
            )));
        }
        let rate = self
            .rate
            .unwrap_or_else(|| {
                Err(Error::invalid(
                    "a rate is missing: add `.rate(\"100/minute\")`",
                ))
            })
            .map_err(|error| error.within(format_args!("throttle `{name}`")))?;
        let strategy = strategy.map_err(|error| error.within(format_args!("throttle `{name}`")))?;
        if !rate.is_unlimited() {
            strategy
                .validate(&rate)
                .map_err(|error| error.within(format_args!("throttle `{name}`")))?;
        }
        let parameters = strategy.parameters();
        let (sharing, digest) = match (self.is_shared, strategy.sharing()) {
            // Not the counts of a namesake whose clients count apart.
            (true, Sharing::Identity) => (
                Sharing::Everybody,
                KeyHasher::throttle(&[&name, strategy.id(), &parameters, "shared"]),
            ),
            (_, sharing) => (
                sharing,
                KeyHasher::throttle(&[&name, strategy.id(), &parameters]),
            ),
        };
        let meters = Meters::new(&name);
        let meters = match &self.predecessor {
            Some(other) => meters.going_on(&other.0.meters),
            None => meters,
        };
        #[cfg(feature = "metrics")]
        let meters = meters.watching(self.offenders, self.names_offenders);
        let hasher = match &self.backend {
            Some(backend) => *backend.key_hasher(),
            None => *KeyHasher::local(),
        };
        Ok(Throttle(Arc::new(Settings {
            meters,
            outage: match &self.predecessor {
                Some(other) => Arc::clone(&other.0.outage),
                None => Arc::new(Outage::of_throttle(&name)),
            },
            seats: match &self.predecessor {
                Some(other) => other.0.seats,
                None => SEATS.fetch_add(1, Ordering::Relaxed),
            },
            shadow: match &self.predecessor {
                Some(other) => other.0.shadow.succeeded_by(self.is_shadow, self.replaces),
                None => Shadow::new(self.is_shadow, self.replaces),
            },
            reign: match (self.reign, &self.predecessor) {
                (Some(reign), _) => reign,
                (None, Some(other)) => other.0.reign.clone(),
                (None, None) => Reign::new(Terms {
                    digest,
                    strategy: Arc::clone(&strategy),
                    rate,
                    limits: true,
                }),
            },
            name,
            rate,
            sharing,
            strategy,
            cost: self.cost,
            min_wait: self.min_wait,
            on_error: self.on_error,
            backend: self.backend,
            hasher,
            digest,
            max_waiters: self.max_waiters,
            max_waiters_per_client: self
                .max_waiters_per_client
                .unwrap_or((self.max_waiters / 4).max(1)),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gcra, ManualClock, TokenBucket};

    fn complaint(builder: ThrottleBuilder) -> String {
        let error = builder.build().expect_err("should be refused");
        assert!(error.is_invalid());
        error.to_string()
    }

    #[test]
    fn refuses_bad_settings_by_name() {
        let api = || Throttle::builder("api");
        assert_eq!(
            complaint(api()),
            "throttle `api`: a rate is missing: add `.rate(\"100/minute\")`"
        );
        assert!(
            complaint(api().rate("100"))
                .starts_with("throttle `api`: \"100\" is no rate: a rate needs")
        );
        assert!(complaint(Throttle::builder("").rate("1/s")).contains("printable ASCII"));
        let long = "n".repeat(257);
        assert!(Throttle::builder(&long[1..]).rate("1/s").build().is_ok());
        let shown = complaint(Throttle::builder(long).rate("1/s"));
        assert!(shown.contains("has at most 256 bytes, not 257") && shown.len() < 128);
        assert!(complaint(Throttle::builder("\u{e9}".repeat(1 << 20)).rate("1/s")).len() < 256);
        assert!(complaint(Throttle::builder("a\r\nb").rate("1/s")).contains("\"a\\r\\nb\""));
        assert!(
            complaint(api().rate("1/s").strategy(TokenBucket::new().burst(0)))
                .contains("at least 1")
        );
        assert!(
            complaint(api().rate("1/366d").strategy(TokenBucket::new().burst(200)))
                .contains("142 years")
        );
        let tolerant = Gcra::new().burst_tolerance(Duration::MAX);
        assert!(complaint(api().rate("1/s").strategy(tolerant)).contains("366 days"));
    }

    /// Issue 9, F 23: the builder took only types, and said so in words of the compiler.
    #[test]
    fn a_strategy_may_be_a_text_and_a_slip_in_it_is_explained() {
        let with = |text: &str| Throttle::builder("api").rate("10/s").strategy(text);
        for (text, typed) in [
            ("gcra", crate::Gcra::new().into_strategy()),
            (
                "token_bucket, burst=20",
                TokenBucket::new().burst(20).into_strategy(),
            ),
        ] {
            let (named, typed) = (with(text).build().unwrap(), typed.unwrap());
            assert_eq!(named.strategy().id(), typed.id());
            assert_eq!(named.strategy().parameters(), typed.parameters());
        }
        for (text, complaint_starts) in [
            (
                "gcar",
                "throttle `api`: \"gcar\" is no strategy, did you mean `gcra`?; there are",
            ),
            (
                "Token_Bucket",
                "throttle `api`: \"Token_Bucket\" is no strategy, did you mean `token_bucket`?",
            ),
            (
                "leaking",
                "throttle `api`: \"leaking\" is no strategy; there are fixed_window,",
            ),
            ("", "throttle `api`: \"\" is no strategy; there are"),
            (
                "token_bucket,brust=5",
                "throttle `api`: strategy token_bucket has no option `brust`, did you mean `burst`?; it has burst",
            ),
            ("token_bucket,burst=0", "throttle `api`: "),
        ] {
            let complaint = complaint(with(text));
            assert!(complaint.starts_with(complaint_starts), "{complaint}");
        }
        assert!(
            with("gcra")
                .strategy(String::from("fixed_window"))
                .build()
                .is_ok()
        );
    }

    /// Issue 9, F 21: one count for all had no name.
    #[test]
    fn a_shared_throttle_counts_everybody_together() {
        let backend = MemoryBackend::new();
        let throttle = |shared: bool| {
            let builder = Throttle::builder("all")
                .rate("2/day")
                .backend(backend.clone());
            match shared {
                true => builder.shared(),
                false => builder,
            }
            .build()
            .unwrap()
        };
        let (shared, each) = (throttle(true), throttle(false));
        let names = ["ann", "ben", "cid"].map(Identity::of);
        let admitted = |throttle: &Throttle| {
            names
                .each_ref()
                .map(|who| throttle.hit_now(who).unwrap().is_allowed())
        };
        assert_eq!(admitted(&shared), [true, true, false]);
        // A namesake that tells clients apart has counts of its own.
        assert_eq!(admitted(&each), [true, true, true]);
        assert!(!shared.is_namesake_of(&each));
        assert!(shared.hit_now(&Identity::EXEMPT).unwrap().is_unlimited());
        let anonymous = Identity::ANONYMOUS;
        assert!(shared.hit_now(&anonymous).unwrap().is_denied());
    }

    /// Who is important is still known, though nobody is told apart.
    #[test]
    fn a_shared_priority_queue_knows_who_is_important() {
        let throttle = Throttle::builder("work")
            .rate("10/day")
            .strategy("priority_queue")
            .shared()
            .backend(MemoryBackend::new())
            .build()
            .unwrap();
        let hit = |who: &Identity| throttle.hit_now(who).unwrap().is_allowed();
        let admitted = (0..10).filter(|at| hit(&Identity::of(at))).count();
        assert_eq!(admitted, 8, "a fifth is kept from ordinary requests");
        assert!(hit(&Identity::of("ann").priority(crate::Priority::Critical)));
    }

    /// Issue: SPEC 3.1. The floor of a wait turned every admission into a denial.
    #[test]
    fn min_wait_is_a_floor_of_denials_only() {
        // Whose clock stands still.
        let backend = MemoryBackend::builder().clock(ManualClock::default());
        let backend = backend.build().unwrap();
        let throttle = Throttle::builder("min_wait")
            .rate("1/100ms")
            .min_wait(Duration::from_secs(5))
            .backend(backend)
            .build()
            .unwrap();
        let ann = Identity::of("ann");
        assert!(throttle.hit_now(&ann).unwrap().is_allowed());
        let stat = || now(throttle.stat(&ann)).unwrap();
        assert_eq!(stat().wait, Duration::from_secs(5));
        let denied = throttle.hit_now(&ann).unwrap();
        assert_eq!(denied.retry_after(), Some(Duration::from_secs(5)));
        assert_eq!(stat().reset, denied.reset());

        // What is admitted does not wait.
        let ben = Identity::of("ben");
        assert_eq!(now(throttle.stat(&ben)).unwrap().wait, Duration::ZERO);
    }

    /// Memory need not wait.
    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(done) => done,
            std::task::Poll::Pending => panic!("memory answers at once"),
        }
    }

    #[test]
    fn nothing_limits_the_exempt_and_the_unlimited() {
        let throttle = |rate| {
            Throttle::builder("free")
                .rate(rate)
                .backend(MemoryBackend::new())
                .build()
                .unwrap()
        };
        let one = throttle("1/day");
        for _ in 0..9 {
            assert!(one.hit_now(&Identity::EXEMPT).unwrap().is_unlimited());
            assert!(
                throttle("0/0")
                    .hit_now(&Identity::of("ann"))
                    .unwrap()
                    .is_unlimited()
            );
        }
        assert!(one.hit_now(&Identity::of("ann")).unwrap().is_allowed());
    }

    #[test]
    fn identities_share_one_cell_if_the_strategy_says_so() {
        let throttle = Throttle::builder("regions")
            .rate("2/day")
            .strategy(crate::GeographicDistribution::new())
            .backend(MemoryBackend::new())
            .build()
            .unwrap();
        let hit = |attempt: Attempt<'_>| throttle.hit_now(attempt).unwrap().is_allowed();
        let (ann, ben) = (Identity::of("ann"), Identity::of("ben"));
        assert!(hit(Attempt::by(&ann)) && hit(Attempt::by(&ben)));
        assert!(!hit(Attempt::by(&ann)) && !hit(Attempt::by(&ben)));
        assert!(hit(Attempt::by(&ann).scope("/other")));
    }

    /// No throttle would be built with this rate, but an attempt may bring it.
    #[test]
    fn a_rate_that_does_not_fit_admits_less_not_more() {
        let slow = Rate::literal("1/366d");
        for strategy in [
            Arc::new(TokenBucket::new().burst(200)) as Arc<dyn Strategy>,
            Arc::new(
                crate::CostBasedTokenBucket::new()
                    .burst(200)
                    .min_refill_rate(0.000_001),
            ),
        ] {
            assert!(strategy.validate(&slow).is_err());
            let throttle = Throttle::builder("slow")
                .rate("1/s")
                .strategy(strategy)
                .backend(MemoryBackend::new())
                .build()
                .unwrap();
            let ann = Identity::of("ann");
            let hit = || throttle.hit_now(Attempt::by(&ann).rate(slow)).unwrap();
            let admitted = (0..300).filter(|_| hit().is_allowed()).count();
            assert!((1..=200).contains(&admitted), "{throttle:?}: {admitted}");
        }
    }

    #[test]
    fn scopes_count_apart_and_rates_share() {
        let throttle = Throttle::builder("scopes")
            .rate("1/day")
            .backend(MemoryBackend::new())
            .build()
            .unwrap();
        let ann = Identity::of("ann");
        let hit = |attempt: Attempt<'_>| throttle.hit_now(attempt).unwrap().is_allowed();
        assert!(hit(Attempt::by(&ann)));
        assert!(!hit(Attempt::by(&ann)));
        assert!(hit(Attempt::by(&ann).scope("/a")));
        assert!(hit(Attempt::by(&ann).scope("/b")));
        assert!(!hit(Attempt::by(&ann).scope("/a")));
        assert!(hit(Attempt::by(&ann).rate(Rate::per_day(2))));
        assert!(!hit(Attempt::by(&ann).rate(Rate::per_day(2))));
    }
}
