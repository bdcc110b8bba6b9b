use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::debts::{Debts, Refunded};
use super::follow::follow;
use super::outage::{Outage, Phase};
use super::proof::Proofs;
use super::share::Share;

use super::{
    Backoff, CircuitBreaker, Guarded, Jitter, OutageInfo, background, noting_waits, same_store_as,
};
use crate::backend::{Backend, Batch, BoxFuture, Op};
use crate::cell::Cell;
use crate::decision::{Decision, Decisions};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::strategy::{Settlement, Settling};
use crate::time::{Clock, MonotonicClock, SystemClock, Timestamp, micros};
use crate::together::together;

/// A backend with another one, usually [memory](crate::MemoryBackend), that decides what it fails
/// to. Made by [`BackendExt::fallback`](super::BackendExt::fallback) and
/// [`failover`](super::BackendExt::failover).
///
/// Decisions of the fallback are [marked](Decision::is_degraded), counted, and announced by one
/// line in the log when an outage begins and one when it ends, or when the last clone is dropped before.
///
/// # Fair share
///
/// A limit that several nodes share through a store would be multiplied by their number if each
/// enforced all of it by itself. Told [how many](Fallback::nodes) they are, a node charges that
/// many times the cost of each hit. That is exact for every strategy, without rounding a rate: of
/// `10/second` on 3 nodes each admits 3 in a window, or one every 300 ms from a bucket, and all
/// together at most what the limit allows in any interval in which one node would.
///
/// * A share below one hit is nothing: with more nodes than the limit (or the burst, or than
///   cost × nodes leaves room for) every hit is denied for a second, until the primary is back.
/// * Post-paid [`Gcra`](crate::Gcra) admits one hit as soon as the ones before are paid for, on each
///   node, so up to `nodes - 1` more at one instant.
/// * A [`PriorityQueue`](crate::PriorityQueue) whose size is below its limit counts hits, not costs: each
///   node has a queue of that size.
/// * [`AdaptiveThrottle`](crate::AdaptiveThrottle) reacts to the load of its own node only. Together
///   they keep its limit, not what it would have lowered that to.
///
/// # Before and after an outage
///
/// A fallback in memory follows the primary: after each of its decisions it has no more left of a
/// limit than the primary said. An outage starts from there, not from full quotas.
///
/// What the fallback admits is owed to the primary, and **charged there** when it decides again,
/// beyond the limit if need be: so far as it still counts then, since windows end and buckets drain
/// meanwhile. Each node charges what it has admitted itself, not the multiple of its share. Hits pay
/// what their keys owe, in trips that are made anyway; in a tokio runtime a task pays the rest, within
/// 50 ms or so. If the answer to a payment is lost it is made again: then less is admitted, never more.
///
/// Until everybody has paid, memory has a say: what it denies is denied without asking the primary,
/// what it admits the primary decides. On a single node, which knows everything that was admitted,
/// that goes on for one period, so that a limit is kept though the store has come back empty. Among
/// several it goes on, in shares, until the others have noticed too: for four times as long as the
/// outage lasted, at most for as long as a breaker waits between two probes. A fallback that is not memory
/// has no say: it decides during outages only.
///
/// So a limit is not given again after an outage, however often there is one. Through an outage that
/// cuts all nodes off there is admitted at most the limit, and
///
/// * the hits that were under way when it began, since memory has not heard of them;
/// * on several nodes, what one was not told since its own last hit on that key: at most its share;
/// * of a [bucket](crate::TokenBucket), what it refills during the outage, as ever.
///
/// A **partial outage**, in which `k` of `n` nodes are cut off and the others are not, cannot be exact
/// without the store: at most limit × (1 + k/n) is admitted, and settled afterwards. So it is with a
/// store that comes and goes, and nodes that miss that it was there.
///
/// What was admitted is charged at the rate at which it was. If a limit is lowered while the store is away for
/// some nodes and not for others, that is a hit under the old rate, which may give the new limit once more.
///
/// Debts are kept for up to 131,072 keys at once, until they would not matter any more. Beyond these,
/// what is admitted is known to memory only. A [reset](Backend::reset) must be made through this
/// backend, which resets both and forgets debts; [closing](Backend::close) tries to pay them first.
pub struct Fallback<B, F> {
    /// Shared with the task that pays debts.
    primary: Arc<B>,
    fallback: Arc<F>,
    on: Arc<dyn Fn(&Error) -> bool + Send + Sync>,
    nodes: Arc<dyn Fn() -> u32 + Send + Sync>,
    outage: Arc<Outage>,
    debts: Arc<Debts>,
    proofs: Arc<Proofs>,
    probed: Duration,
}

/// A [`Fallback`] that is asked without further ado while a [`CircuitBreaker`] is open. Made by
/// [`BackendExt::failover`](super::BackendExt::failover).
pub type Failover<B, F> = Fallback<Guarded<B>, F>;

/// How long the task that pays debts waits before it tries, and tries again.
const PAUSES: Backoff = Backoff::exponential(Duration::from_millis(50))
    .max(Duration::from_secs(1))
    .jitter(Jitter::Equal);

/// A store that has not taken a payment within this does not take it now.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many debts of other keys a hit pays, where there is no task for it.
const ALONG: usize = 8;

impl<B: Backend, F: Backend> Fallback<B, F> {
    pub(super) fn new(primary: B, fallback: F, probed: Duration) -> Fallback<B, F> {
        let outage = Outage::with_fallback(Arc::new(MonotonicClock::new()), micros(probed));
        Fallback {
            primary: Arc::new(primary),
            fallback: Arc::new(fallback),
            on: Arc::new(|error| !error.is_invalid()),
            nodes: Arc::new(|| 1),
            outage: Arc::new(outage),
            debts: Arc::new(Debts::new(Arc::new(SystemClock::new()))),
            proofs: Arc::default(),
            probed,
        }
    }

    /// Sets after which errors the fallback decides; others are returned. Default: all but
    /// [wrong arguments](Error::is_invalid).
    pub fn on(mut self, matches: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.on = Arc::new(matches);
        self
    }

    /// Sets how many nodes share the limits, for a [fair share](Fallback#fair-share) of each while
    /// they cannot see each other. Default: 1, which is also what zero means: with more nodes than
    /// that each admits the whole limit during an outage.
    pub fn nodes(self, nodes: u32) -> Self {
        self.nodes_by(move || nodes)
    }

    /// The same with a function that is asked for every decision of the fallback, such as for the
    /// number last seen by a service registry. It must not block.
    pub fn nodes_by(mut self, nodes: impl Fn() -> u32 + Send + Sync + 'static) -> Self {
        self.nodes = Arc::new(nodes);
        self
    }

    /// Sets another clock, for tests: it tells how long ago an outage was, and what of a debt still
    /// counts. Default: the clocks of this machine.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(clock);
        let outage = Outage::with_fallback(Arc::clone(&clock), micros(self.probed));
        self.outage = Arc::new(outage);
        self.debts = Arc::new(Debts::new(clock));
        self
    }

    /// What it has seen.
    pub fn info(&self) -> OutageInfo {
        OutageInfo {
            owing: self.debts.len(),
            ..self.outage.info()
        }
    }

    /// The backend that decides if it can.
    pub fn primary(&self) -> &B {
        &self.primary
    }

    fn share(&self) -> Share {
        Share::of((self.nodes)())
    }

    /// Takes an error for an outage, or returns it.
    fn take_over(&self, ops: &[Op<'_>], error: Error) -> Result<Share> {
        if !(self.on)(&error) {
            return Err(error);
        }
        self.proofs.fail(&*self.primary, ops);
        self.outage.fail_on(self.shard_of_all(ops), &error);
        Ok(self.share())
    }

    /// Of several shards the first: a batch on more than one is rare.
    #[inline]
    fn shard_of_all(&self, ops: &[Op<'_>]) -> u64 {
        ops.first().map_or(0, |op| self.primary.shard_of(&op.key))
    }

    #[inline]
    fn phase(&self, ops: &[Op<'_>]) -> Phase {
        self.outage.phase_of(self.shard_of_all(ops))
    }

    /// Decides in the place of a primary that has failed to.
    async fn decide_instead(&self, batch: &Batch<'_>, error: Error) -> Result<Decisions> {
        let share = self.take_over(batch.ops(), error)?;
        let before = self.debts.before(&*self.fallback, batch.ops());
        let ops = share.of_ops(batch);
        let decisions = self.fallback.apply(&Batch::new(&ops)).await?;
        Ok(self.degraded(share, batch, &before, decisions))
    }

    /// Takes note of what the fallback decided.
    fn degraded(
        &self,
        share: Share,
        batch: &Batch<'_>,
        before: &[Cell],
        mut decisions: Decisions,
    ) -> Decisions {
        if decisions.is_allowed() {
            self.owe(share, batch.ops(), before, &decisions);
        }
        for decision in decisions.iter_mut() {
            *decision = share.of_decision(*decision);
        }
        self.outage.degrade(decisions.len());
        decisions
    }

    fn owe(&self, share: Share, ops: &[Op<'_>], before: &[Cell], decisions: &Decisions) {
        for ((op, before), decision) in ops.iter().zip(before).zip(decisions.iter()) {
            // What a throttle in shadow would have denied took nothing.
            if !decision.hides_denial() {
                self.debts.add(op, share.of_op(op).cost, before);
            }
        }
        if !self.debts.is_driven() && background::is_possible() && self.debts.drive() {
            let (debts, outage) = (Arc::clone(&self.debts), Arc::clone(&self.outage));
            background::spawn(pay(Arc::downgrade(&self.primary), debts, outage));
        }
    }

    /// Whether memory has a say in what the primary decides, or may not have been told of yet.
    #[inline]
    fn is_wary(&self, ops: &[Op<'_>]) -> bool {
        match self.phase(ops) {
            Phase::Never => false,
            Phase::Lasts => true,
            Phase::Over { ago_us, unnoticed } => self.is_wary_after(ops, ago_us, unnoticed),
        }
    }

    #[cold]
    fn is_wary_after(&self, ops: &[Op<'_>], ago_us: u64, unnoticed: bool) -> bool {
        ops.iter().any(|op| self.debts.has(&op.key))
            || match self.share().is_whole() {
                true => ops.iter().any(|op| ago_us < op.rate.period_us()),
                false => unnoticed,
            }
    }

    /// Whether what a batch owes is paid along with it, and memory asked before the primary. While the
    /// outage lasts it is not: of a share of nothing nobody would ever find out that it is over.
    fn follows_outage(&self, ops: &[Op<'_>]) -> bool {
        match self.phase(ops) {
            Phase::Never | Phase::Lasts => false,
            Phase::Over { ago_us, unnoticed } => self.is_wary_after(ops, ago_us, unnoticed),
        }
    }

    /// Lets a fallback in memory know what the primary decided, and hears it if there is an outage or
    /// was one a short while ago.
    #[inline]
    fn confirm(&self, batch: &Batch<'_>, decisions: Decisions, waited: bool) -> Decisions {
        // What is denied may have been remembered, however dead the store.
        let admitted = decisions.is_allowed();
        let objection = match admitted && self.fallback.is_local() && self.is_wary(batch.ops()) {
            true => self.objection(batch, &decisions),
            false => None,
        };
        if admitted && self.is_proof(batch.ops(), waited) {
            self.outage.succeed_on(self.shard_of_all(batch.ops()));
        }
        if self.fallback.is_local() {
            self.follow(batch, &decisions);
        }
        objection.unwrap_or(decisions)
    }

    /// Whether an admission says that the primary decides again.
    #[inline]
    fn is_proof(&self, ops: &[Op<'_>], waited: bool) -> bool {
        waited || self.proofs.are_in(&*self.primary, ops)
    }

    fn follow(&self, batch: &Batch<'_>, decisions: &Decisions) {
        for (op, decision) in batch.ops().iter().zip(decisions.iter()) {
            follow(&*self.fallback, op, decision);
        }
    }

    /// Makes the hits that the primary admitted in memory too; what both admit.
    #[cold]
    fn objection(&self, batch: &Batch<'_>, decisions: &Decisions) -> Option<Decisions> {
        let share = self.share();
        let known = self.fallback.try_apply(&Batch::new(&share.of_ops(batch)))?;
        let known = known.ok()?;
        Some(match known.is_denied() {
            true => self.refused(share, known),
            false => least(share, &known, decisions),
        })
    }

    fn refused(&self, share: Share, mut known: Decisions) -> Decisions {
        for decision in known.iter_mut() {
            *decision = share.of_decision(*decision);
        }
        self.outage.degrade(known.len());
        known
    }

    /// Asks memory, and then the primary, which is paid at the same time.
    async fn decide_warily(&self, batch: &Batch<'_>) -> Result<Decisions> {
        let share = self.share();
        let before = self.debts.before(&*self.fallback, batch.ops());
        let ops = share.of_ops(batch);
        let known = match self.fallback.is_local() {
            true => self.fallback.try_apply(&Batch::new(&ops)),
            false => None,
        };
        let Some(Ok(known)) = known else {
            return self.decide_unadvised(batch).await;
        };
        if known.is_denied() {
            self.pay_along(batch).await;
            return Ok(self.refused(share, known));
        }
        // What was paid was waited for, too: by that it is there as well.
        let (decided, waited) = noting_waits(self.decide_and_pay(batch)).await;
        match decided {
            Ok(decisions) => {
                let both = match decisions.is_allowed() {
                    true => {
                        if self.is_proof(batch.ops(), waited) {
                            self.outage.succeed_on(self.shard_of_all(batch.ops()));
                        }
                        least(share, &known, &decisions)
                    }
                    false => {
                        give_back(&*self.fallback, &ops, &known);
                        decisions.clone()
                    }
                };
                self.follow(batch, &decisions);
                Ok(both)
            }
            Err(error) => {
                let share = self.take_over(batch.ops(), error)?;
                Ok(self.degraded(share, batch, &before, known))
            }
        }
    }

    /// The same where there is no memory to be asked, or it was closed: another store knows of no hits but
    /// those of outages, and may be away itself.
    async fn decide_unadvised(&self, batch: &Batch<'_>) -> Result<Decisions> {
        let (decided, waited) = noting_waits(self.decide_and_pay(batch)).await;
        match decided {
            Ok(decisions) => Ok(self.confirm(batch, decisions, waited)),
            Err(error) => self.decide_instead(batch, error).await,
        }
    }

    /// What is owed for its keys is paid in the same breath as a batch is decided, in this order where
    /// the store keeps to it. Where memory has admitted the batch nothing depends on that.
    async fn decide_and_pay(&self, batch: &Batch<'_>) -> Result<Decisions> {
        let mut asked = self.payments(batch);
        if asked.is_empty() {
            return self.primary.apply(batch).await;
        }
        asked.push(self.primary.apply(batch));
        // What could not be paid is owed as before.
        let decided = together(asked).await.pop();
        decided.unwrap_or_else(|| unreachable!("the batch was pushed above"))
    }

    /// Pays where there is no task for it, though a hit does not depend on it: if all were denied, by
    /// memory or by the store, nobody would.
    async fn pay_along(&self, batch: &Batch<'_>) {
        if !self.debts.is_driven() {
            let paid = Box::pin(together(self.payments(batch))).await;
            if paid.first().is_some_and(Result::is_ok) {
                self.outage.succeed_on(self.shard_of_all(batch.ops()));
            }
        }
    }

    async fn refund(&self, op: &Op<'_>, refund: Settlement, degraded: bool) -> Result<()> {
        let refunded = match degraded {
            true => self.debts.refund(op, refund, self.share()),
            false => Refunded::Paid,
        };
        let here = || self.settle_here(op, self.share().of_settlement(refund));
        match refunded {
            Refunded::Owed => {
                // It is owed no more: made again, that would be so twice. If the fallback fails, less is
                // admitted there.
                let _ = here().await;
                Ok(())
            }
            Refunded::Unknown => here().await,
            Refunded::Paid => {
                // Which may be two stores, of which either was charged.
                self.primary.settle(op, degraded).await?;
                // What follows the primary is settled as it is. It has less left, if this fails.
                if self.fallback.is_local() {
                    let _ = self.settle_here(op, refund).await;
                }
                Ok(())
            }
        }
    }

    async fn charge(&self, op: &Op<'_>, cost: u32) -> Result<()> {
        let ops = std::slice::from_ref(op);
        let Err(error) = self.primary.settle(op, false).await else {
            if self.fallback.is_local() {
                let _ = self.settle_here(op, Settlement::Charge(cost)).await;
            }
            return Ok(());
        };
        let share = self.take_over(ops, error)?;
        let before = self.debts.before(&*self.fallback, ops);
        let charge = share.of_settlement(Settlement::Charge(cost));
        self.settle_here(op, charge).await?;
        let charged = Decision::UNLIMITED.into();
        self.owe(share, &[Op { cost, ..*op }], &before, &charged);
        Ok(())
    }

    async fn settle_here(&self, op: &Op<'_>, settlement: Settlement) -> Result<()> {
        let strategy = Settling::of(op.strategy, settlement);
        let op = Op {
            strategy: &strategy,
            ..*op
        };
        // Whoever decided it here: if there are several, who owes it knows.
        self.fallback.settle(&op, true).await
    }

    /// Payments of what is owed for the keys of a batch, and where there is no task for them, of some
    /// others.
    fn payments<'a>(&'a self, batch: &Batch<'_>) -> Vec<BoxFuture<'a, Result<Decisions>>> {
        if self.debts.is_empty() {
            return Vec::new();
        }
        let own = batch.ops().iter().flat_map(|op| self.debts.of(&op.key));
        let mut payments: Vec<_> = own.collect();
        if !self.debts.is_driven() {
            payments.extend(self.debts.some(ALONG));
        }
        let paying = payments.into_iter().map(|one| one.make(&*self.primary));
        paying.collect()
    }
}

/// Pays debts until there are none. While the outage lasts it asks whether the store is ready, less and
/// less often: that counts for no breaker, and nobody else may ask.
async fn pay<B: Backend>(store: Weak<B>, debts: Arc<Debts>, outage: Arc<Outage>) {
    /// However the task ends.
    struct Leave<'a>(&'a Debts);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            self.0.leave();
        }
    }
    loop {
        let leave = Leave(&debts);
        let mut attempt = 1;
        while !debts.are_paid() {
            background::pause(PAUSES.wait(attempt)).await;
            let Some(store) = store.upgrade() else { return };
            let paying = async {
                // Hits are paying all that there is, and may fail to.
                let Some(key) = debts.any(attempt) else {
                    return false;
                };
                let shard = store.shard_of(&key);
                let lasts = outage.phase_of(shard) == Phase::Lasts;
                let ready = !lasts || store.ready(&key).await.is_ok();
                if lasts && ready {
                    outage.succeed_on(shard);
                }
                ready && debts.pay(&*store).await
            };
            attempt = match background::within(PATIENCE, paying).await {
                Some(true) => 1,
                _ => attempt.saturating_add(1),
            };
        }
        drop(leave);
        // Whoever came to owe between the two saw this task, and began none.
        if debts.are_paid() || !debts.drive() {
            return;
        }
    }
}

/// What is left if both have decided.
fn least(share: Share, known: &Decisions, decisions: &Decisions) -> Decisions {
    let both = known.iter().zip(decisions.iter());
    both.map(|(known, decision)| {
        let known = share.part_of(*known);
        match known.remaining() < decision.remaining() {
            true => known,
            false => *decision,
        }
    })
    .collect()
}

/// Undoes in memory what the primary has denied.
fn give_back(memory: &dyn Backend, ops: &[Op<'_>], known: &Decisions) {
    for (op, known) in ops.iter().zip(known.iter()) {
        // What a throttle in shadow would have denied took nothing.
        if known.hides_denial() {
            continue;
        }
        let refund = Settlement::Refund {
            cost: op.cost,
            age_us: 0,
        };
        let strategy = Settling::of(op.strategy, refund);
        let op = Op {
            strategy: &strategy,
            cost: 1,
            ..*op
        };
        // Memory that was closed has nothing to give back.
        let _ = memory.try_step(&op);
    }
}

impl<B: Backend, F: Backend> Failover<B, F> {
    /// The breaker.
    pub fn breaker(&self) -> &CircuitBreaker {
        self.primary.breaker()
    }
}

impl<B: Backend, F: Backend> Backend for Fallback<B, F> {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        if self.follows_outage(batch.ops()) {
            return Box::pin(self.decide_warily(batch));
        }
        Box::pin(async move {
            let (decided, waited) = noting_waits(self.primary.apply(batch)).await;
            match decided {
                Ok(decisions) => {
                    let decisions = self.confirm(batch, decisions, waited);
                    if !self.debts.is_empty() {
                        self.pay_along(batch).await;
                    }
                    Ok(decisions)
                }
                Err(error) => self.decide_instead(batch, error).await,
            }
        })
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(async move {
            match self.primary.load(op).await {
                Ok(loaded) => Ok(loaded),
                Err(error) => {
                    let share = self.take_over(std::slice::from_ref(op), error)?;
                    let (cell, now) = self.fallback.load(op).await?;
                    Ok((share.of_cell(op, cell, now), now))
                }
            }
        })
    }

    fn ready<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        self.primary.ready(key)
    }

    /// Where the hit was charged: by the fallback, which still owes it or has paid it meanwhile, or by
    /// the primary. What cannot be charged more there is charged here, and owed.
    fn settle<'a>(&'a self, settlement: &'a Op<'a>, degraded: bool) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match settlement.strategy.settlement() {
                Some(refund @ Settlement::Refund { .. }) => {
                    self.refund(settlement, refund, degraded).await
                }
                Some(Settlement::Charge(cost)) => self.charge(settlement, cost).await,
                None => Err(Error::invalid("an operation that settles nothing")),
            }
        })
    }

    /// Resets both, even if one cannot be.
    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.debts.clear();
            let primary = self.primary.reset().await;
            self.fallback.reset().await.and(primary)
        })
    }

    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        let error = match self.primary.try_apply(batch)? {
            Ok(decisions) => return Some(Ok(self.confirm(batch, decisions, false))),
            Err(error) => error,
        };
        Some(match self.take_over(batch.ops(), error) {
            Ok(share) => {
                let before = self.debts.before(&*self.fallback, batch.ops());
                let decided = self.fallback.try_apply(&Batch::new(&share.of_ops(batch)))?;
                decided.map(|decisions| self.degraded(share, batch, &before, decisions))
            }
            Err(error) => Err(error),
        })
    }

    fn try_step(&self, op: &Op<'_>) -> Option<Result<Decision>> {
        let error = match self.primary.try_step(op)? {
            Ok(decision) => {
                let batch = Batch::new(std::slice::from_ref(op));
                return Some(Ok(self.confirm(&batch, decision.into(), false)[0]));
            }
            Err(error) => error,
        };
        Some(match self.take_over(std::slice::from_ref(op), error) {
            Ok(share) => {
                let ops = std::slice::from_ref(op);
                let before = self.debts.before(&*self.fallback, ops);
                let decided = self.fallback.try_step(&share.of_op(op))?;
                decided.map(|decision| {
                    self.degraded(share, &Batch::new(ops), &before, decision.into())[0]
                })
            }
            Err(error) => Err(error),
        })
    }

    fn try_load(&self, op: &Op<'_>) -> Option<Result<(Cell, Timestamp)>> {
        let error = match self.primary.try_load(op)? {
            Ok(loaded) => return Some(Ok(loaded)),
            Err(error) => error,
        };
        Some(match self.take_over(std::slice::from_ref(op), error) {
            Ok(share) => {
                let loaded = self.fallback.try_load(op)?;
                loaded.map(|(cell, now)| (share.of_cell(op, cell, now), now))
            }
            Err(error) => Err(error),
        })
    }

    /// Pays what is owed if that can be, and closes both, even if one cannot be.
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if !self.debts.is_empty() {
                self.debts.pay(&*self.primary).await;
            }
            let primary = self.primary.close().await;
            self.fallback.close().await.and(primary)
        })
    }

    /// What one of both had lent, the other would not know of.
    fn can_lend(&self) -> bool {
        false
    }

    fn answers(&self, key: &Key) -> Option<u64> {
        self.primary.answers(key)
    }

    /// What is owed, too.
    fn would_forget(&self) -> bool {
        !self.debts.is_empty() || self.primary.would_forget() || self.fallback.would_forget()
    }

    same_store_as!(primary, fallback);
}

impl<B, F> Clone for Fallback<B, F> {
    fn clone(&self) -> Self {
        Fallback {
            primary: Arc::clone(&self.primary),
            fallback: Arc::clone(&self.fallback),
            on: Arc::clone(&self.on),
            nodes: Arc::clone(&self.nodes),
            outage: Arc::clone(&self.outage),
            debts: Arc::clone(&self.debts),
            proofs: Arc::clone(&self.proofs),
            probed: self.probed,
        }
    }
}

impl<B: fmt::Debug, F: fmt::Debug> fmt::Debug for Fallback<B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("primary", &self.primary)
            .field("fallback", &self.fallback)
            .field("nodes", &(self.nodes)())
            .field("outage", &self.outage)
            .field("debts", &self.debts)
            .finish_non_exhaustive()
    }
}
