//! Costs that are known afterwards.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::charge::{self, Charge, Due};
use super::{Attempt, Throttle};
use crate::backend::{Backend, Batch, Op};
use crate::decision::{Decision, Decisions};
use crate::error::{Error, Result};
use crate::resilience::background;
use crate::time::{Timestamp, micros};

/// What a hit was charged before its cost was known, to be settled when it is.
///
/// Made by [`Throttle::reserve`]: the estimate is charged like any hit, or denied. Then one of
///
/// * [`settle`](Permit::settle), at what it came to, [`refund`](Permit::refund), which is that at nothing, or
///   [`finish`](Permit::finish), at what was [metered](Permit::meter): what is left of the estimate is given
///   back, what goes beyond it is charged, whether it fits or not, and holds back the hits that follow;
/// * nothing: a permit that is **dropped** has cost its estimate, or what was metered if that is more. Nobody
///   gains by going away while the work is done. [`on_drop`](Permit::on_drop) says otherwise.
///
/// ```
/// use traffik_core::{Attempt, Identity, MemoryBackend, Throttle};
///
/// # async fn example() -> traffik_core::Result<()> {
/// let tokens = Throttle::builder("tokens").rate("1000/minute").backend(MemoryBackend::new()).build()?;
/// let ann = Identity::of("ann");
///
/// let Ok(permit) = tokens.reserve(Attempt::by(&ann).cost(400)).await? else {
///     return Ok(()); // denied: the decision says until when
/// };
/// // .. the work, which came to less ..
/// permit.settle(150).await?;
/// assert_eq!(tokens.stat(&ann).await?.remaining, 850);
/// # Ok(())
/// # }
/// # let mut future = std::pin::pin!(example());
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// # assert!(matches!(future.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(()))));
/// ```
///
/// # How it is settled
///
/// Once, where the hit was charged, by one more operation on its count: in memory at once, on a store one
/// round trip later, shared with whatever is asked at the same time. If that fails,
///
/// * a **refund** is made again, in a task of the tokio runtime, if it was certainly not executed. If its
///   answer was lost it is not, since it would be given twice;
/// * a **charge** is made again as well if its answer was lost, twice at most: then less is admitted, never
///   more. Behind a [`Failover`](crate::Failover) it does not fail, but is owed to the store.
///
/// A window gives back until it ends. A bucket that drains gives back what cannot have drained meanwhile: of
/// a permit that was held for longer than its estimate takes to come back, nothing. Where the work takes
/// long, count in windows.
///
/// If an adapter changes the limit meanwhile, it is metered and settled under the rate that is in force then; what
/// was charged under another one gives back as much as it would under either. A [rate that the attempt
/// brought](Attempt::rate) stays. If others bring other rates for the same count, its settlement is, as any
/// hit is, a [change](crate::strategy#when-the-rate-is-changed) of the rate.
#[derive(Debug)]
#[must_use = "a permit that is dropped has cost its estimate"]
pub struct Permit {
    charges: SmallVec<[Charge; 1]>,
    decisions: Decisions,
    used: u32,
    ahead: u32,
    /// When it is worthwhile to ask for more again, in the time of the first backend.
    paused_until: Timestamp,
    /// How long that was when it was told, in microseconds.
    pause_us: u64,
    /// What was in force [then](Permit::changes).
    paused_by: u64,
    on_drop: OnDrop,
}

/// What a [`Permit`] has cost that is dropped without being settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDrop {
    /// The estimate, or what was metered if that is more. The default.
    #[default]
    Estimate,
    /// What was metered. The rest of the estimate is given back, though the client may have gone away: only
    /// for work that stops then, and is metered as it is done.
    Metered,
}

/// Whether to go on, after [metering](Permit::meter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// Go on.
    Go,
    /// The limit is reached: it has room for what was metered after this time. What is done meanwhile is
    /// charged nevertheless.
    Pause(Duration),
    /// More was metered than the limit can ever have room for.
    Stop,
}

impl Throttle {
    /// Charges an attempt whose cost is an estimate: a permit to be [settled](Permit) when it is known, or
    /// the denial.
    ///
    /// What nothing limits, or an [error policy](crate::OnError) admitted, has nothing to settle.
    ///
    /// # Errors
    ///
    /// As [`hit`](Throttle::hit).
    pub async fn reserve<'a>(
        &'a self,
        attempt: impl Into<Attempt<'a>>,
    ) -> Result<std::result::Result<Permit, Decision>> {
        let attempt = attempt.into();
        let permit = Permit::expecting([(self, attempt, self.shared_backend())]);
        let decisions = super::Hits::from((self, attempt)).decide().await?;
        let denied = decisions[0];
        Ok(permit.confirm(decisions).ok_or(denied))
    }

    /// The backend it uses by itself, to keep.
    pub(super) fn shared_backend(&self) -> Arc<dyn Backend> {
        match self.own_backend() {
            Some(own) => Arc::clone(own),
            None => Arc::new(crate::MemoryBackend::global().clone()),
        }
    }
}

impl Permit {
    /// What these attempts are about to be charged, for adapters: made before they are decided.
    #[doc(hidden)]
    pub fn expecting<'a>(
        hits: impl IntoIterator<Item = (&'a Throttle, Attempt<'a>, Arc<dyn Backend>)>,
    ) -> Expected {
        let charges = hits
            .into_iter()
            .map(|(throttle, attempt, backend)| Charge::of(throttle, &attempt, backend));
        Expected(charges.collect())
    }

    /// What was decided about each throttle.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// How much is charged by now, of the throttle that charged least; zero if nothing limits it.
    pub fn charged(&self) -> u32 {
        let costs = self.charges.iter().map(Charge::cost);
        costs.min().unwrap_or(0)
    }

    /// How much was metered.
    pub fn metered(&self) -> u32 {
        self.used
    }

    /// Sets what it has cost if it is dropped. Default: the estimate.
    pub fn on_drop(mut self, on_drop: OnDrop) -> Permit {
        self.on_drop = on_drop;
        self
    }

    /// Sets how much more than needed is charged when what is [metered](Permit::meter) goes beyond the
    /// estimate, so that not every unit is a hit. Default: as much as the estimate.
    pub fn ahead(mut self, units: u32) -> Permit {
        self.ahead = units;
        self
    }

    /// Settles at what it has cost, on every throttle that it was charged on.
    ///
    /// Once begun it is made, also if the future is dropped, in a task of the tokio runtime.
    ///
    /// # Errors
    ///
    /// If the store did not take it at once. [What can be](Permit#how-it-is-settled) is made again
    /// nevertheless: the error is for logs.
    pub async fn settle(mut self, actual: u32) -> Result<()> {
        match charge::begin(self.dues(|_| actual)) {
            Ok(made) => made,
            Err(making) => background::to_its_end(making)
                .await
                .unwrap_or_else(|| Err(Error::other("the runtime ended before a settlement"))),
        }
    }

    /// The same without waiting for the store. Outside of a tokio runtime a store that has to be waited for
    /// hears nothing of it.
    pub fn settle_later(mut self, actual: u32) {
        settle_later(self.dues(|_| actual));
    }

    /// Settles at nothing: the hit shall not count.
    ///
    /// # Errors
    ///
    /// As [`settle`](Permit::settle).
    pub async fn refund(self) -> Result<()> {
        self.settle(0).await
    }

    /// Settles at what was metered.
    ///
    /// # Errors
    ///
    /// As [`settle`](Permit::settle).
    pub async fn finish(self) -> Result<()> {
        let used = self.used;
        self.settle(used).await
    }

    /// Takes note of units as they are used, such as tokens or bytes, and says whether there may be more.
    ///
    /// Up to the estimate that is an addition. Beyond, more is charged as any hit, some of it
    /// [ahead](Permit::ahead); if that is denied, it says how long to pause. Who pauses, and asks again with
    /// `meter(0)`, never exceeds the limit by more than one call's units.
    ///
    /// ```
    /// use traffik_core::{Attempt, Flow, Identity, MemoryBackend, Throttle};
    ///
    /// # async fn example() -> traffik_core::Result<()> {
    /// let tokens = Throttle::builder("tokens").rate("100/minute").backend(MemoryBackend::new()).build()?;
    /// let ann = Identity::of("ann");
    /// let mut permit = tokens.reserve(Attempt::by(&ann).cost(50)).await?.expect("a fresh limit");
    /// let mut answer = 0;
    /// while permit.meter(10).await? == Flow::Go {
    ///     answer += 10;
    /// }
    /// assert_eq!(answer, 100); // the next ten have to wait for the next minute
    /// permit.settle(answer).await?;
    /// # Ok(())
    /// # }
    /// # let mut future = std::pin::pin!(example());
    /// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    /// # assert!(matches!(future.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(()))));
    /// ```
    ///
    /// # Errors
    ///
    /// If the backend fails. What was metered is known nevertheless. If its answer was lost, or this future is
    /// dropped, what was asked for may have been charged, and will be again: less is admitted, never more.
    pub async fn meter(&mut self, units: u32) -> Result<Flow> {
        self.used = self.used.saturating_add(units);
        let used = self.used;
        self.charges.iter_mut().for_each(|one| one.use_up(used));
        let Some(first) = self.charges.first() else {
            return Ok(Flow::Go);
        };
        if self.charges.iter().all(|one| one.covered() >= used) {
            return Ok(Flow::Go);
        }
        let left = match self.changes() == self.paused_by {
            true => self.paused_until.micros_since(first.backend().now()),
            false => 0,
        };
        // More than was told is left if the clock has stepped back: nobody knows for how long now.
        match (1..=self.pause_us).contains(&left) {
            true => Ok(Flow::Pause(Duration::from_micros(left))),
            false => Box::pin(self.extend()).await,
        }
    }

    /// Charges what was used beyond, and some more if there is.
    async fn extend(&mut self) -> Result<Flow> {
        let ahead = self.ahead;
        let mut decisions = self.take(ahead).await?;
        if decisions.is_denied() && ahead > 0 {
            decisions = self.take(0).await?;
        }
        if decisions.is_allowed() {
            return Ok(Flow::Go);
        }
        let Some(wait) = decisions.retry_after() else {
            return Ok(Flow::Stop);
        };
        if let Some(first) = self.charges.first() {
            self.pause_us = micros(wait);
            self.paused_until = first.backend().now().plus_micros(self.pause_us);
            self.paused_by = self.changes();
        }
        Ok(Flow::Pause(wait))
    }

    /// Grows whenever it goes on by something else than before.
    fn changes(&self) -> u64 {
        self.charges.iter().map(Charge::changes).sum()
    }

    /// Charges what was used beyond, and so much more, on all throttles or none.
    async fn take(&mut self, ahead: u32) -> Result<Decisions> {
        let mut all = Decisions::default();
        let mut taken: SmallVec<[usize; 1]> = SmallVec::new();
        let needs: SmallVec<[u32; 1]> = self.needs(ahead);
        for at in 0..self.charges.len() {
            if taken.contains(&at) || needs[at] == 0 {
                continue;
            }
            let group: SmallVec<[usize; 1]> = (at..self.charges.len())
                .filter(|other| self.charges[at].is_of_same_store(&self.charges[*other]))
                .filter(|other| needs[*other] > 0)
                .collect();
            let since = self.charges[at].backend().now();
            let ops: SmallVec<[Op<'_>; 1]> = group
                .iter()
                .map(|one| self.charges[*one].op(needs[*one]))
                .collect();
            let asked = self.charges[at].backend().apply(&Batch::new(&ops)).await;
            drop(ops);
            let admitted = asked.as_ref().is_ok_and(Decisions::is_allowed);
            if !admitted {
                let dues = taken.iter().filter_map(|one| self.charges[*one].shorten());
                settle_later(dues.collect::<Vec<_>>().into_iter());
                return asked;
            }
            for (one, decision) in group.iter().zip(asked?.iter()) {
                self.charges[*one].extend(needs[*one], since, decision);
                all = all.iter().chain([decision]).copied().collect();
            }
            taken.extend(group);
        }
        Ok(all)
    }

    fn needs(&self, ahead: u32) -> SmallVec<[u32; 1]> {
        let charges = self.charges.iter();
        let excess = charges.map(|charge| self.used.saturating_sub(charge.covered()));
        excess
            .map(|excess| match excess {
                0 => 0,
                excess => excess.saturating_add(ahead),
            })
            .collect()
    }

    /// What is to be settled, which is nothing afterwards.
    fn dues(&mut self, actual: impl Fn(&Charge) -> u32) -> std::vec::IntoIter<Due> {
        let charges = std::mem::take(&mut self.charges);
        let dues = charges
            .iter()
            .flat_map(|charge| charge.dues(actual(charge)));
        dues.collect::<Vec<_>>().into_iter()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.charges.is_empty() {
            return;
        }
        let (used, on_drop) = (self.used, self.on_drop);
        settle_later(self.dues(|charge| match on_drop {
            OnDrop::Estimate => used.max(charge.estimate()),
            OnDrop::Metered => used,
        }));
    }
}

pub(super) fn settle_later(dues: impl Iterator<Item = Due>) {
    if let Err(making) = charge::begin(dues) {
        background::spawn(async {
            // What failed was said, or is made again.
            let _ = making.await;
        });
    }
}

/// What attempts are about to be charged.
#[doc(hidden)]
#[derive(Debug)]
pub struct Expected(SmallVec<[Option<Charge>; 1]>);

impl Expected {
    /// They are asked for now, not earlier.
    pub fn begin(&mut self) {
        for charge in self.0.iter_mut().flatten() {
            charge.begin();
        }
    }

    /// The permit, if all were admitted, by decisions in the same order.
    pub fn confirm(self, decisions: Decisions) -> Option<Permit> {
        if decisions.is_denied() {
            return None;
        }
        let mut charges = SmallVec::<[Charge; 1]>::new();
        for (charge, decision) in self.0.into_iter().zip(decisions.iter()) {
            // What an error policy admitted was charged nowhere, nor what a shadow would have denied, or was not
            // asked about, since another throttle has its count.
            let is_charged =
                !decision.is_unchecked() && !decision.hides_denial() && !decision.is_unlimited();
            let Some(mut charge) = charge.filter(|_| is_charged) else {
                continue;
            };
            charge.confirm(decision);
            match charges.iter_mut().find(|one| one.is_of_same_cell(&charge)) {
                Some(one) => one.merge(&charge),
                None => charges.push(charge),
            }
        }
        let mut permit = Permit {
            charges,
            decisions,
            used: 0,
            ahead: 0,
            paused_until: Timestamp::EPOCH,
            pause_us: 0,
            paused_by: 0,
            on_drop: OnDrop::Estimate,
        };
        permit.ahead = permit.charged();
        Some(permit)
    }
}

impl Flow {
    /// Whether to go on.
    pub const fn is_go(self) -> bool {
        matches!(self, Flow::Go)
    }
}

#[cfg(test)]
mod tests;
