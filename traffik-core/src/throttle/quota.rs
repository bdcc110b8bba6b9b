//! Costs that add up before they are charged.

use std::ops::{Deref, DerefMut};

use super::charge::Charge;
use super::permit::settle_later;
use super::{Attempt, Hits, Throttle};
use crate::decision::Decisions;
use crate::error::Result;
use crate::identity::Identity;
use crate::rate::Rate;

/// Collects costs over several calls, on any throttles, and charges all of them at once or none.
///
/// Nothing is charged until it is [applied](Quota::apply): a quota that is dropped has cost nothing. What
/// is added for the same throttle and the same identity is one hit of the sum, and all hits are decided
/// together, as by [`Hits`].
///
/// ```
/// use traffik_core::{Attempt, Identity, MemoryBackend, Quota, Throttle};
///
/// # async fn example() -> traffik_core::Result<()> {
/// let memory = MemoryBackend::new();
/// let rows = Throttle::builder("rows").rate("1000/day").backend(memory.clone()).build()?;
/// let mails = Throttle::builder("mails").rate("2/day").backend(memory).build()?;
/// let ann = Identity::of("ann");
///
/// let mut quota = Quota::new();
/// for batch in [100, 200] {
///     quota.add(&rows, Attempt::by(&ann).cost(batch));
///     quota.add(&mails, &ann);
/// }
/// assert_eq!(quota.queued(), 302);
/// if quota.check().await? {
///     assert!(quota.apply().await?.is_allowed());
/// }
/// assert_eq!(rows.stat(&ann).await?.remaining, 700);
///
/// quota.add(&rows, Attempt::by(&ann).cost(100));
/// quota.add(&mails, &ann);
/// assert!(quota.apply().await?.is_denied()); // no mail is left ..
/// assert_eq!(rows.stat(&ann).await?.remaining, 700); // .. and so no row was taken
/// quota.cancel();
/// # Ok(())
/// # }
/// # let mut future = std::pin::pin!(example());
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// # assert!(matches!(future.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(()))));
/// ```
#[derive(Debug, Default)]
#[must_use = "a quota that is not applied charges nothing"]
pub struct Quota {
    queue: Vec<Entry>,
    applied: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    throttle: Throttle,
    identity: Identity,
    scope: Option<String>,
    rate: Option<Rate>,
    cost: u32,
}

/// A part of a [`Quota`] that joins it when it is [committed](NestedQuota::commit), and is forgotten when it
/// is dropped before. Made by [`Quota::nested`].
#[derive(Debug)]
#[must_use = "a nested quota that is not committed is forgotten"]
pub struct NestedQuota<'a> {
    parent: &'a mut Quota,
    own: Quota,
}

impl Quota {
    /// Nothing yet.
    pub fn new() -> Quota {
        Quota::default()
    }

    /// Adds an attempt, at its cost or the throttle's. How long it would wait is of no account.
    pub fn add<'a>(&mut self, throttle: &Throttle, attempt: impl Into<Attempt<'a>>) {
        let attempt = attempt.into();
        self.join(Entry {
            throttle: throttle.clone(),
            identity: attempt.identity.clone(),
            scope: attempt.scope.map(str::to_owned),
            rate: attempt.rate,
            cost: attempt.cost.unwrap_or(throttle.cost()),
        });
    }

    fn join(&mut self, entry: Entry) {
        match self.queue.iter_mut().find(|one| one.is_like(&entry)) {
            Some(one) => one.cost = one.cost.saturating_add(entry.cost),
            None => self.queue.push(entry),
        }
    }

    /// The sum of what was added and is not charged yet.
    pub fn queued(&self) -> u64 {
        self.queue.iter().map(|entry| u64::from(entry.cost)).sum()
    }

    /// The sum of what was charged.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Whether nothing is to be charged.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether all of it would be admitted now, charging nothing.
    ///
    /// # Errors
    ///
    /// As [`Throttle::hit`].
    pub async fn check(&self) -> Result<bool> {
        Ok(self.hits().preview().await?.is_allowed())
    }

    /// Charges all of it if it is admitted, and begins anew. If it is denied nothing is charged, and it may be
    /// applied again later. One decision for each throttle and identity, in the order in which they came.
    ///
    /// # Errors
    ///
    /// As [`Throttle::hit`].
    pub async fn apply(&mut self) -> Result<Decisions> {
        let decisions = self.hits().decide().await?;
        if decisions.is_allowed() {
            self.applied = self.applied.saturating_add(self.queued());
            self.queue.clear();
        }
        Ok(decisions)
    }

    /// Charges all of it, whether it fits or not, and begins anew: for what was done already. What goes beyond
    /// a limit holds back the hits that follow. Made as a [permit is settled](crate::Permit), without waiting
    /// for the store.
    pub fn charge(&mut self) {
        self.applied = self.applied.saturating_add(self.queued());
        let queue = std::mem::take(&mut self.queue);
        let dues = queue.iter().filter_map(|entry| {
            let backend = entry.throttle.shared_backend();
            let charge = Charge::of(&entry.throttle, &entry.attempt().cost(0), backend)?;
            Some(charge.dues(entry.cost).collect::<Vec<_>>())
        });
        settle_later(dues.collect::<Vec<_>>().into_iter().flatten());
    }

    /// Forgets what was added.
    pub fn cancel(&mut self) {
        self.queue.clear();
    }

    /// A part that may be given up for itself.
    ///
    /// ```
    /// # use traffik_core::{Identity, MemoryBackend, Quota, Throttle};
    /// # let mails = Throttle::builder("mails").rate("2/day").backend(MemoryBackend::new()).build()?;
    /// # let ann = Identity::of("ann");
    /// let mut quota = Quota::new();
    /// let mut part = quota.nested();
    /// part.add(&mails, &ann);
    /// part.commit();
    /// quota.nested().add(&mails, &ann); // dropped
    /// assert_eq!(quota.queued(), 1);
    /// # Ok::<(), traffik_core::Error>(())
    /// ```
    pub fn nested(&mut self) -> NestedQuota<'_> {
        NestedQuota {
            parent: self,
            own: Quota::new(),
        }
    }

    /// Adds everything that another one has queued.
    pub fn merge(&mut self, other: Quota) {
        self.applied = self.applied.saturating_add(other.applied);
        for entry in other.queue {
            self.join(entry);
        }
    }

    fn hits(&self) -> Hits<'_> {
        let attempts = self.queue.iter();
        attempts
            .map(|entry| (&entry.throttle, entry.attempt()))
            .collect()
    }
}

impl Entry {
    fn is_like(&self, other: &Entry) -> bool {
        self.throttle == other.throttle
            && self.identity == other.identity
            && self.scope == other.scope
            && self.rate == other.rate
    }

    fn attempt(&self) -> Attempt<'_> {
        Attempt {
            identity: &self.identity,
            cost: Some(self.cost),
            rate: self.rate,
            scope: self.scope.as_deref(),
            max_wait: None,
        }
    }
}

impl NestedQuota<'_> {
    /// Adds what was added here to what it is a part of.
    pub fn commit(self) {
        self.parent.merge(self.own);
    }
}

impl Deref for NestedQuota<'_> {
    type Target = Quota;

    fn deref(&self) -> &Quota {
        &self.own
    }
}

impl DerefMut for NestedQuota<'_> {
    fn deref_mut(&mut self) -> &mut Quota {
        &mut self.own
    }
}
