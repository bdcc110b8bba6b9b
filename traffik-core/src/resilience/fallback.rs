use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::follow::follow;
use super::outage::Outage;
use super::share::Share;
use super::{CircuitBreaker, Guarded, OutageInfo, same_store_as};
use crate::backend::{Backend, Batch, BoxFuture, Op};
use crate::cell::Cell;
use crate::decision::{Decision, Decisions};
use crate::error::{Error, Result};
use crate::time::{Clock, MonotonicClock, Timestamp};

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
/// * [`AdaptiveThrottle`](crate::AdaptiveThrottle) reacts to the load of its own node only. Together
///   they keep its limit, not what it would have lowered that to.
///
/// # Before and after an outage
///
/// A fallback in memory follows the primary: after each of its decisions it has no more left of a
/// limit than the primary said. An outage starts from there, not from full quotas; only requests
/// that were under way when it began may be admitted beyond, and on several nodes what one of them
/// was not told since its own last hit.
///
/// On a single node it knows everything that was admitted. So for one period after an outage it
/// must agree to what the primary admits, which may have missed the hits of the outage, or have
/// come back empty: a limit is kept through an outage, a crash of the store and its recovery. What
/// the primary admits and memory denies has been charged there, which brings it up to date. Denials
/// of less than 50 ms are not insisted upon, since clocks and round trips differ by that. A
/// [reset](Backend::reset) meanwhile must be made through this backend, which resets both.
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
            outage: Arc::new(Outage::with_fallback(Arc::new(MonotonicClock::new()))),
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
        self.outage = Arc::new(Outage::with_fallback(Arc::new(clock)));
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
        Ok(Share::of((self.nodes)()))
    }

    fn degraded(&self, share: Share, decisions: Result<Decisions>) -> Result<Decisions> {
        let mut decisions = decisions?;
        for decision in decisions.iter_mut() {
            *decision = share.of_decision(*decision);
        }
        self.outage.degrade(decisions.len());
        Ok(decisions)
    }

    /// Lets a fallback in memory know what the primary decided, and hears it if an outage was a
    /// short while ago.
    #[inline]
    fn confirm(&self, batch: &Batch<'_>, decisions: Decisions) -> Decisions {
        let outage_ago_us = self.outage.succeed();
        if !self.fallback.is_local() {
            return decisions;
        }
        if let Some(ago_us) = outage_ago_us
            && decisions.is_allowed()
            && self.knows_all_since(ago_us, batch)
        {
            return self.objection(batch).unwrap_or(decisions);
        }
        for (op, decision) in batch.ops().iter().zip(decisions.iter()) {
            follow(&self.fallback, op, decision);
        }
        decisions
    }

    /// Whether memory may know of hits that the primary missed, and of all there were: what other
    /// nodes admitted during an outage is not known here.
    fn knows_all_since(&self, outage_ago_us: u64, batch: &Batch<'_>) -> bool {
        let matters = |op: &Op<'_>| outage_ago_us < op.rate.period_us();
        batch.ops().iter().any(matters) && (self.nodes)() <= 1
    }

    /// Makes the hits that the primary admitted in memory too; what it decides, if that denies.
    #[cold]
    fn objection(&self, batch: &Batch<'_>) -> Option<Decisions> {
        let known = self.fallback.try_apply(batch)?.ok()?;
        if known.iter().all(|decision| decision.wait() <= SLACK) {
            return None;
        }
        self.outage.degrade(known.len());
        Some(known.iter().map(|known| known.into_degraded()).collect())
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

    same_store_as!(primary, fallback);
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
