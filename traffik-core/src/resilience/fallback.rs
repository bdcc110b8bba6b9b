use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::outage::Outage;
use super::{CircuitBreaker, Guarded, OutageInfo, same_store_as};
use crate::backend::{Backend, Batch, BoxFuture, Op};
use crate::cell::Cell;
use crate::decision::{Decision, Decisions};
use crate::error::{Error, Result};
use crate::throttle::OnError;
use crate::time::{Clock, Timestamp};

/// A backend with another one, usually [memory](crate::MemoryBackend), that decides what it fails
/// to. Made by [`BackendExt::fallback`](super::BackendExt::fallback) and
/// [`failover`](super::BackendExt::failover).
///
/// Decisions of the fallback are [marked](Decision::is_degraded), counted, and announced by one
/// line in the log when an outage begins and one when it ends.
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
///
/// # What was spent before and is spent during an outage
///
/// A fallback in memory follows the primary: after each of its decisions it has no more left of a
/// limit than the primary said. An outage starts from there, not from full quotas.
///
/// On a single node it knows everything that was admitted. So for one period after an outage it
/// must agree to what the primary admits, which may have missed the hits of the outage, or have
/// come back empty: a limit is kept through an outage, a crash of the store and its recovery. What
/// the primary admits and memory denies has been charged there, which brings it up to date. Denials
/// of less than 50 ms are not insisted upon, since clocks and round trips differ by that.
#[derive(Clone)]
pub struct Fallback<B, F> {
    primary: B,
    fallback: F,
    on: Arc<dyn Fn(&Error) -> bool + Send + Sync>,
    nodes: Arc<dyn Fn() -> u32 + Send + Sync>,
    outage: Arc<Outage>,
}

/// A [`Fallback`] that is asked without further ado while a [`CircuitBreaker`] is open. Made by
/// [`BackendExt::failover`](super::BackendExt::failover).
pub type Failover<B, F> = Fallback<Guarded<B>, F>;

/// By how much a clock and a round trip may differ from the next.
const SLACK: Duration = Duration::from_millis(50);

impl<B: Backend, F: Backend> Fallback<B, F> {
    pub(super) fn new(primary: B, fallback: F) -> Fallback<B, F> {
        Fallback {
            primary,
            fallback,
            on: Arc::new(|error| !error.is_invalid()),
            nodes: Arc::new(|| 1),
            outage: Arc::default(),
        }
    }

    /// Sets after which errors the fallback decides; others are returned. Default: all but
    /// [wrong arguments](Error::is_invalid).
    pub fn on(mut self, matches: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.on = Arc::new(matches);
        self
    }

    /// Sets how many nodes share the limits, for a [fair share](Fallback#fair-share) of each while
    /// they cannot see each other. Default: 1, which is also what zero means.
    pub fn nodes(self, nodes: u32) -> Self {
        self.nodes_by(move || nodes)
    }

    /// The same with a function that is asked for every decision of the fallback, such as for the
    /// number last seen by a service registry. It must not block.
    pub fn nodes_by(mut self, nodes: impl Fn() -> u32 + Send + Sync + 'static) -> Self {
        self.nodes = Arc::new(nodes);
        self
    }

    /// Sets another clock, for tests: it tells how long ago an outage was. Default: a
    /// [`MonotonicClock`](crate::MonotonicClock).
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.outage = Arc::new(Outage::new(Arc::new(clock)));
        self
    }

    /// What it has seen.
    pub fn info(&self) -> OutageInfo {
        self.outage.info()
    }

    /// The backend that decides if it can.
    pub fn primary(&self) -> &B {
        &self.primary
    }

    /// Takes an error for an outage, or returns it.
    fn take_over(&self, error: Error) -> Result<Share> {
        if !(self.on)(&error) {
            return Err(error);
        }
        self.outage.fail(&error);
        Ok(Share {
            nodes: (self.nodes)().max(1),
        })
    }

    fn degraded(&self, share: Share, decisions: Result<Decisions>) -> Result<Decisions> {
        let mut decisions = decisions?;
        for decision in decisions.iter_mut() {
            *decision = share.of_decision(*decision);
        }
        self.outage.degrade(decisions.len());
        Ok(decisions)
    }

    /// Lets the fallback know what the primary decided, and hears it if an outage was a short
    /// while ago.
    #[inline]
    fn confirm(&self, batch: &Batch<'_>, decisions: Decisions) -> Decisions {
        let outage_ago_us = self.outage.succeed();
        if !self.fallback.is_local() {
            return decisions;
        }
        if let Some(ago) = outage_ago_us
            && decisions.is_allowed()
            && batch.ops().iter().any(|op| ago < op.rate.period_us())
            && let Some(denial) = self.objection(batch)
        {
            return denial;
        }
        for (op, decision) in batch.ops().iter().zip(decisions.iter()) {
            self.follow(op, decision);
        }
        decisions
    }

    /// What a single node denies that the primary admitted.
    #[cold]
    fn objection(&self, batch: &Batch<'_>) -> Option<Decisions> {
        if (self.nodes)() > 1 {
            // What other nodes admit is not known here.
            return None;
        }
        let decisions = self.fallback.try_apply(batch)?.ok()?;
        if decisions.iter().all(|decision| decision.wait() <= SLACK) {
            return None;
        }
        self.degraded(Share::WHOLE, Ok(decisions)).ok()
    }

    /// Leaves no more in the fallback's cell than the primary says there is.
    fn follow(&self, op: &Op<'_>, decision: &Decision) {
        let known = self.fallback.try_step(&Op { cost: 0, ..*op });
        if let Some(Ok(known)) = known {
            let spent = known.remaining().saturating_sub(decision.remaining());
            if spent > 0 && !decision.is_degraded() {
                let cost = u32::try_from(spent).unwrap_or(u32::MAX);
                let _ = self.fallback.try_step(&Op { cost, ..*op });
            }
        }
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
        Box::pin(async move {
            match self.primary.apply(batch).await {
                Ok(decisions) => Ok(self.confirm(batch, decisions)),
                Err(error) => {
                    let share = self.take_over(error)?;
                    let ops = share.of_ops(batch);
                    let decided = self.fallback.apply(&Batch::new(&ops)).await;
                    self.degraded(share, decided)
                }
            }
        })
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(async move {
            match self.primary.load(op).await {
                Ok(loaded) => Ok(loaded),
                Err(error) => {
                    let share = self.take_over(error)?;
                    let (cell, now) = self.fallback.load(op).await?;
                    Ok((share.of_cell(op, cell, now), now))
                }
            }
        })
    }

    /// Resets both, even if one cannot be.
    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let primary = self.primary.reset().await;
            self.fallback.reset().await.and(primary)
        })
    }

    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        let error = match self.primary.try_apply(batch)? {
            Ok(decisions) => return Some(Ok(self.confirm(batch, decisions))),
            Err(error) => error,
        };
        Some(match self.take_over(error) {
            Ok(share) => {
                let ops = share.of_ops(batch);
                let decided = self.fallback.try_apply(&Batch::new(&ops))?;
                self.degraded(share, decided)
            }
            Err(error) => Err(error),
        })
    }

    fn try_step(&self, op: &Op<'_>) -> Option<Result<Decision>> {
        let error = match self.primary.try_step(op)? {
            Ok(decision) => {
                let batch = Batch::new(std::slice::from_ref(op));
                return Some(Ok(self.confirm(&batch, decision.into())[0]));
            }
            Err(error) => error,
        };
        Some(match self.take_over(error) {
            Ok(share) => {
                let decided = self.fallback.try_step(&share.of_op(op))?;
                self.outage.degrade(1);
                decided.map(|decision| share.of_decision(decision))
            }
            Err(error) => Err(error),
        })
    }

    fn try_load(&self, op: &Op<'_>) -> Option<Result<(Cell, Timestamp)>> {
        let error = match self.primary.try_load(op)? {
            Ok(loaded) => return Some(Ok(loaded)),
            Err(error) => error,
        };
        Some(match self.take_over(error) {
            Ok(share) => {
                let loaded = self.fallback.try_load(op)?;
                loaded.map(|(cell, now)| (share.of_cell(op, cell, now), now))
            }
            Err(error) => Err(error),
        })
    }

    /// Closes both, even if one cannot be.
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let primary = self.primary.close().await;
            self.fallback.close().await.and(primary)
        })
    }

    same_store_as!(primary);
}

impl<B: fmt::Debug, F: fmt::Debug> fmt::Debug for Fallback<B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("primary", &self.primary)
            .field("fallback", &self.fallback)
            .field("nodes", &(self.nodes)())
            .field("outage", &self.outage)
            .finish_non_exhaustive()
    }
}

/// One of several nodes that each may admit an equal part of a limit.
#[derive(Clone, Copy, Debug)]
struct Share {
    nodes: u32,
}

impl Share {
    const WHOLE: Share = Share { nodes: 1 };

    /// A hit here counts as if every node had admitted one.
    fn of_op<'a>(self, op: &Op<'a>) -> Op<'a> {
        Op {
            cost: op.cost.saturating_mul(self.nodes),
            ..*op
        }
    }

    fn of_ops<'a>(self, batch: &Batch<'a>) -> SmallVec<[Op<'a>; 3]> {
        batch.ops().iter().map(|op| self.of_op(op)).collect()
    }

    fn of_decision(self, decision: Decision) -> Decision {
        decision
            .into_share(self.nodes, OnError::WAIT)
            .into_degraded()
    }

    /// The cell as it would be had the other nodes taken their parts of what remains: so a hit of
    /// any cost finds in it what this node would admit.
    fn of_cell(self, op: &Op<'_>, mut cell: Cell, now: Timestamp) -> Cell {
        if self.nodes == 1 || op.rate.is_unlimited() {
            return cell;
        }
        let whole = op.peek(&mut cell, now).remaining();
        let one = self.of_op(&Op { cost: 1, ..*op });
        // A post-paid hit is admitted before it is paid for, however small the share.
        let least = one.step(&mut cell.clone(), now).is_allowed();
        let own = (whole / u64::from(self.nodes)).max(u64::from(least));
        let cost = u32::try_from(whole - own).unwrap_or(u32::MAX);
        let _ = Op { cost, ..*op }.step(&mut cell, now);
        cell
    }
}
