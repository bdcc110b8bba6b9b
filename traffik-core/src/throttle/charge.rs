//! What hits were charged, and what is put right about it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use smallvec::SmallVec;

use super::{Attempt, Throttle};
use crate::backend::{Backend, BoxFuture, Op};
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::identity::Attributes;
use crate::key::Key;
use crate::rate::Rate;
use crate::resilience::{Backoff, background};
use crate::strategy::{Settlement, Settling, Strategy};
use crate::time::{Timestamp, micros};
use crate::together::together;

/// What an attempt was charged on one throttle.
#[derive(Clone)]
pub(super) struct Charge {
    at: Account,
    estimate: u32,
    /// What was used while nothing was limited.
    free: u32,
    /// The oldest first. All but the last are used up.
    parts: SmallVec<[Part; 2]>,
}

/// Where it was charged.
#[derive(Clone)]
struct Account {
    throttle: Throttle,
    backend: Arc<dyn Backend>,
    key: Key,
    /// What is in force, as far as is known.
    strategy: Arc<dyn Strategy>,
    rate: Rate,
    limits: bool,
    /// Whether the attempt brought its rate though the throttle has one.
    is_own_rate: bool,
    /// How often what is in force had changed when that was found out.
    changes: u64,
    attributes: Attributes,
}

/// What was charged at once.
#[derive(Clone, Copy, Debug)]
struct Part {
    cost: u32,
    rate: Rate,
    /// No later than when it was charged.
    since: Timestamp,
    degraded: bool,
}

/// A settlement that is to be made.
pub(super) struct Due {
    at: Account,
    correction: Correction,
    /// How many answers were lost.
    lost: u32,
}

#[derive(Clone, Copy, Debug)]
enum Correction {
    More(u32),
    Less(Part),
}

/// How long a hit and its settlement may differ in how long they take on their way: the time that the
/// hit took, and this at most, is taken for part of its age.
const TRAVEL: Duration = Duration::from_millis(50);

/// How long to wait before a settlement is made again.
const PAUSES: Backoff = Backoff::exponential(Duration::from_millis(50)).max(Duration::from_secs(5));

/// How often it is made at most: for a minute or so.
const ATTEMPTS: u32 = 20;

/// How often a charge is made at most whose answers are lost: each may have been executed.
const LOST: u32 = 3;

/// How many settlements are made again at a time. Beyond, they are given up.
const REPEATED: usize = 10_000;

impl Charge {
    /// What an attempt is about to be charged, unless nothing limits it.
    pub(super) fn of(
        throttle: &Throttle,
        attempt: &Attempt<'_>,
        backend: Arc<dyn Backend>,
    ) -> Option<Charge> {
        let op = throttle.op(attempt, backend.key_hasher())?;
        let part = Part {
            cost: op.cost,
            rate: op.rate,
            since: backend.now(),
            degraded: false,
        };
        Some(Charge {
            at: Account {
                throttle: throttle.clone(),
                key: op.key,
                strategy: Arc::clone(&throttle.0.strategy),
                rate: op.rate,
                limits: true,
                is_own_rate: attempt.rate.is_some() && !throttle.0.rate.is_unlimited(),
                changes: 0,
                attributes: op.attributes.clone(),
                backend,
            },
            estimate: part.cost,
            free: 0,
            parts: SmallVec::from_iter([part]),
        })
    }

    /// Takes note of the answer.
    pub(super) fn confirm(&mut self, decision: &Decision) {
        let now = self.at.backend.now();
        if let Some(part) = self.parts.last_mut() {
            part.confirm(decision, now);
        }
    }

    /// It is asked for now.
    pub(super) fn begin(&mut self) {
        let now = self.at.backend.now();
        for part in &mut self.parts {
            part.since = now;
        }
    }

    /// How much.
    pub(super) fn cost(&self) -> u32 {
        let costs = self.parts.iter().map(|part| part.cost);
        costs.fold(0, u32::saturating_add)
    }

    /// How much may have been used without asking for more.
    pub(super) fn covered(&self) -> u32 {
        self.cost().saturating_add(self.free)
    }

    /// So much was used by now: what goes beyond is not charged if nothing is limited.
    pub(super) fn use_up(&mut self, used: u32) {
        if used <= self.covered() {
            return;
        }
        self.at.renew();
        if !self.at.limits {
            self.free = used - self.cost();
        }
    }

    /// How often what is in force had changed when it was looked at.
    pub(super) fn changes(&self) -> u64 {
        self.at.changes
    }

    /// How much was charged at first.
    pub(super) fn estimate(&self) -> u32 {
        self.estimate
    }

    pub(super) fn backend(&self) -> &Arc<dyn Backend> {
        &self.at.backend
    }

    /// Whether both are counted in one cell.
    pub(super) fn is_of_same_cell(&self, other: &Charge) -> bool {
        self.at.key == other.at.key && self.is_of_same_store(other)
    }

    pub(super) fn is_of_same_store(&self, other: &Charge) -> bool {
        self.at.backend.store_id() == other.at.backend.store_id()
    }

    /// What two hits on one cell were charged together.
    pub(super) fn merge(&mut self, other: &Charge) {
        let more = other.cost();
        self.estimate = self.estimate.saturating_add(more);
        if let Some(part) = self.parts.last_mut() {
            part.cost = part.cost.saturating_add(more);
        }
    }

    /// A hit at another cost.
    pub(super) fn op(&self, cost: u32) -> Op<'_> {
        self.at.op(cost)
    }

    /// Takes note of what was charged as well, since everything before is used up.
    pub(super) fn extend(&mut self, cost: u32, since: Timestamp, decision: &Decision) {
        let mut part = Part {
            cost,
            rate: self.at.rate,
            since,
            degraded: false,
        };
        part.confirm(decision, self.at.backend.now());
        if let [.., older, newer] = &mut self.parts[..]
            && older.rate == newer.rate
        {
            older.cost = older.cost.saturating_add(newer.cost);
            older.degraded |= newer.degraded;
            self.parts.pop();
        }
        self.parts.push(part);
    }

    /// Takes back what was charged last.
    pub(super) fn shorten(&mut self) -> Option<Due> {
        let last = self.parts.pop()?;
        Some(self.due(Correction::Less(last)))
    }

    /// What is to be settled, if so much was used.
    pub(super) fn dues(&self, used: u32) -> impl Iterator<Item = Due> {
        let mut unused = self.covered().saturating_sub(used);
        let less = self.parts.iter().rev().map(move |part| {
            let cost = part.cost.min(unused);
            unused -= cost;
            Correction::Less(Part { cost, ..*part })
        });
        let more = Correction::More(used.saturating_sub(self.covered()));
        let all = less.chain([more]).filter(|one| !one.is_none());
        all.map(|correction| self.due(correction))
    }

    fn due(&self, correction: Correction) -> Due {
        Due {
            at: self.at.clone(),
            correction,
            lost: 0,
        }
    }
}

impl Account {
    /// Goes on by what is in force now, as far as that decides on the same cell: what has been written under one
    /// rate would begin anew under an earlier one.
    fn renew(&mut self) {
        let Some((changes, terms)) = self.throttle.0.reign.since(self.changes) else {
            return;
        };
        self.changes = changes;
        self.limits = terms.limits;
        if terms.digest != self.throttle.0.digest {
            return;
        }
        self.strategy = terms.strategy;
        if !self.is_own_rate && !terms.rate.is_unlimited() {
            self.rate = terms.rate;
        }
    }

    fn op(&self, cost: u32) -> Op<'_> {
        Op {
            key: self.key,
            strategy: &self.strategy,
            rate: self.rate,
            cost,
            attributes: &self.attributes,
        }
    }
}

impl Part {
    fn confirm(&mut self, decision: &Decision, now: Timestamp) {
        // It was charged before the answer came, and its settlement may take longer on its way.
        let travel = now.micros_since(self.since).min(micros(TRAVEL));
        let since = self.since.as_micros().saturating_sub(travel);
        self.since = Timestamp::from_micros(since);
        self.degraded = decision.is_degraded();
    }

    /// How old it is for a refund by `at`, if that may give anything back. If the rate is another one by now, as
    /// much as would be given back under either: no time that was not taken, and no count that may be forgotten.
    fn age_us(&self, at: &Account) -> Option<u64> {
        let age_us = at.backend.now().micros_since(self.since);
        if self.rate == at.rate {
            return Some(age_us);
        }
        let price = |rate: &Rate| rate.time_for(self.cost.into());
        match at.strategy.takes_time() {
            true => {
                let more = price(&at.rate)
                    .ceil()
                    .saturating_sub(price(&self.rate).micros());
                Some(age_us.saturating_add(more))
            }
            false => (age_us < self.rate.period_us()).then_some(age_us),
        }
    }
}

impl Correction {
    fn is_none(self) -> bool {
        matches!(self, Self::More(0) | Self::Less(Part { cost: 0, .. }))
    }
}

impl Due {
    async fn make(&mut self) -> Result<()> {
        self.at.renew();
        let (settlement, degraded) = match self.correction {
            Correction::More(cost) => (Settlement::Charge(cost), false),
            Correction::Less(part) => {
                let Some(age_us) = part.age_us(&self.at) else {
                    return Ok(());
                };
                let cost = part.cost;
                (Settlement::Refund { cost, age_us }, part.degraded)
            }
        };
        let strategy = Settling::of(&self.at.strategy, settlement);
        let op = Op {
            strategy: &strategy,
            ..self.at.op(1)
        };
        self.at.backend.settle(&op, degraded).await
    }

    async fn make_or_persist(mut self) -> Result<()> {
        let made = self.make().await;
        if let Err(error) = &made {
            match self.may_repeat(error) && background::is_possible() {
                true => self.persist(),
                false => self.give_up(),
            }
        }
        made
    }

    /// Whether it may be made again. A refund that may have been made is not.
    fn may_repeat(&mut self, error: &Error) -> bool {
        let is_over = error.is_invalid() || error.is_closed();
        if !is_over && error.is_unexecuted() {
            return true;
        }
        self.lost += 1;
        matches!(self.correction, Correction::More(_)) && !is_over && self.lost < LOST
    }

    /// Makes it again and again, where there is a runtime for that.
    fn persist(mut self) {
        static REPEATING: AtomicUsize = AtomicUsize::new(0);
        /// However the task ends.
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                REPEATING.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if REPEATING.fetch_add(1, Ordering::Relaxed) >= REPEATED {
            REPEATING.fetch_sub(1, Ordering::Relaxed);
            return self.give_up();
        }
        let leave = Leave;
        background::spawn(async move {
            let _leave = leave;
            for attempt in 1..ATTEMPTS {
                background::pause(PAUSES.wait(attempt)).await;
                match self.make().await {
                    Ok(()) => return,
                    Err(error) if self.may_repeat(&error) => {}
                    Err(_) => break,
                }
            }
            self.give_up();
        });
    }

    #[cold]
    fn give_up(&self) {
        let name = self.at.throttle.name();
        match self.correction {
            Correction::More(_) => log::warn!("throttle `{name}`: a charge was not settled"),
            Correction::Less(_) => log::debug!("throttle `{name}`: a refund was not settled"),
        }
    }
}

/// Makes settlements, all at once: on one store they share a trip. Those that failed and may be made again are,
/// in a task.
async fn make(dues: SmallVec<[Due; 1]>) -> Result<()> {
    let made = together(dues.into_iter().map(|due| Box::pin(due.make_or_persist())));
    made.await.into_iter().collect()
}

/// Begins to make settlements: done, or what has to be waited for.
pub(super) fn begin(
    dues: impl Iterator<Item = Due>,
) -> std::result::Result<Result<()>, BoxFuture<'static, Result<()>>> {
    let dues: SmallVec<[Due; 1]> = dues.collect();
    if dues.is_empty() {
        return Ok(Ok(()));
    }
    let mut making: BoxFuture<'static, _> = Box::pin(make(dues));
    // At once, so that what is asked next on the same connection comes after it.
    match making
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(made) => Ok(made),
        Poll::Pending => Err(making),
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge")
            .field("throttle", &self.at.throttle.name())
            .field("cost", &self.cost())
            .finish_non_exhaustive()
    }
}
