use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::breaker::Probe;
use super::proof::Proofs;
use super::{CircuitBreaker, Permit, background, noting_waits, same_store_as};
use crate::backend::{Backend, Batch, BoxFuture, Op};
use crate::cell::Cell;
use crate::decision::{Decision, Decisions};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::time::Timestamp;

/// A backend that is not asked while its [`CircuitBreaker`] is open. Made by
/// [`BackendExt::guarded`](super::BackendExt::guarded).
///
/// Keys on different [shards](Backend::shard_of) have breakers of their own.
pub struct Guarded<B> {
    /// Shared with probes.
    inner: Arc<B>,
    breaker: CircuitBreaker,
    proofs: Arc<Proofs>,
}

/// Of each shard that is asked. There is hardly ever more than one.
type Breakers<'a> = SmallVec<[Cow<'a, CircuitBreaker>; 1]>;
type Permits<'a> = SmallVec<[Permit<'a>; 1]>;

/// A store that has not said within this whether it is ready is not.
const PATIENCE: Duration = Duration::from_secs(5);

impl<B: Backend> Guarded<B> {
    pub(super) fn new(inner: B, breaker: CircuitBreaker) -> Guarded<B> {
        Guarded {
            inner: Arc::new(inner),
            breaker,
            proofs: Arc::default(),
        }
    }

    /// The breaker.
    pub fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }

    #[inline]
    fn breakers(&self, ops: &[Op<'_>]) -> Breakers<'_> {
        let mut shards = SmallVec::<[u64; 2]>::new();
        for op in ops {
            let shard = self.inner.shard_of(&op.key);
            if !shards.contains(&shard) {
                shards.push(shard);
            }
        }
        let breakers = shards.iter().map(|shard| self.breaker.of_shard(*shard));
        breakers.collect()
    }

    #[inline]
    fn acquire<'a>(&self, breakers: &'a Breakers<'_>, ops: &[Op<'_>]) -> Result<Permits<'a>> {
        let mut permits = Permits::new();
        for breaker in breakers {
            let permit = breaker.acquire().ok_or_else(refusal)?;
            if permit.is_probe() && background::is_possible() {
                breaker.refuse();
                self.probe(permit.detach(), ops);
                return Err(refusal());
            }
            permits.push(permit);
        }
        Ok(permits)
    }

    /// Asks in a task whether the store is ready, so that no client has to wait to find out.
    #[cold]
    fn probe(&self, first: Probe, ops: &[Op<'_>]) {
        let of_shard = |op: &&Op<'_>| {
            let breaker = self.breaker.of_shard(self.inner.shard_of(&op.key));
            first.is_of(&breaker)
        };
        let Some(key) = ops.iter().find(of_shard).map(|op| op.key) else {
            return;
        };
        let store = Arc::clone(&self.inner);
        background::spawn(async move {
            let mut next = Some(first);
            while let Some(probe) = next {
                let late = || Err(Error::timeout("the store did not say whether it is ready"));
                let ready = background::within(PATIENCE, store.ready(&key)).await;
                next = probe.settle(&ready.unwrap_or_else(late));
            }
        });
    }

    /// What has to be waited for was not asked yet: then the permits go back unused.
    #[inline]
    fn try_guard<T>(
        &self,
        ops: &[Op<'_>],
        call: impl FnOnce() -> Option<Result<T>>,
        proves: impl FnOnce(&T) -> bool,
    ) -> Option<Result<T>> {
        let breakers = self.breakers(ops);
        let permits = match self.acquire(&breakers, ops) {
            Ok(permits) => permits,
            Err(refusal) => return Some(Err(refusal)),
        };
        let outcome = call()?;
        self.tell(ops, permits, &outcome, proves);
        Some(outcome)
    }

    /// Whether decisions prove that the store answers. A denial that did not have to be waited for
    /// may come from what its backend remembers, however dead the store; an admission, from what the
    /// store lent before.
    #[inline]
    fn proves(&self, ops: &[Op<'_>], decisions: &[Decision], waited: bool) -> bool {
        waited
            || self.inner.is_local()
            || decisions.iter().all(Decision::is_allowed) && self.proofs.are_in(&*self.inner, ops)
    }

    #[inline]
    fn tell<T>(
        &self,
        ops: &[Op<'_>],
        permits: Permits<'_>,
        outcome: &Result<T>,
        proves: impl FnOnce(&T) -> bool,
    ) {
        match outcome {
            Ok(answer) if !proves(answer) => return,
            Ok(_) => {}
            Err(_) => self.proofs.fail(&*self.inner, ops),
        }
        // Which of several shards has failed the error does not say; of those that have not, others'
        // calls succeed.
        for permit in permits {
            permit.settle(outcome);
        }
    }
}

#[cold]
fn refusal() -> Error {
    Error::connection("the store was not asked: its circuit breaker is open")
}

impl<B: Backend> Backend for Guarded<B> {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(async move {
            let breakers = self.breakers(batch.ops());
            let permits = self.acquire(&breakers, batch.ops())?;
            let (outcome, waited) = noting_waits(self.inner.apply(batch)).await;
            self.tell(batch.ops(), permits, &outcome, |decisions| {
                self.proves(batch.ops(), decisions, waited)
            });
            outcome
        })
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(async move {
            let ops = std::slice::from_ref(op);
            let breakers = self.breakers(ops);
            let permits = self.acquire(&breakers, ops)?;
            let outcome = self.inner.load(op).await;
            self.tell(ops, permits, &outcome, |_| true);
            outcome
        })
    }

    /// Asks the backend, whatever its breaker says.
    fn ready<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        self.inner.ready(key)
    }

    fn settle<'a>(&'a self, settlement: &'a Op<'a>, degraded: bool) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let ops = std::slice::from_ref(settlement);
            let breakers = self.breakers(ops);
            let permits = self.acquire(&breakers, ops)?;
            let outcome = self.inner.settle(settlement, degraded).await;
            self.tell(ops, permits, &outcome, |()| true);
            outcome
        })
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.reset()
    }

    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        let ask = || self.inner.try_apply(batch);
        self.try_guard(batch.ops(), ask, |decisions| {
            self.proves(batch.ops(), decisions, false)
        })
    }

    fn try_step(&self, op: &Op<'_>) -> Option<Result<Decision>> {
        let ask = || self.inner.try_step(op);
        let ops = std::slice::from_ref(op);
        self.try_guard(ops, ask, |decision| self.proves(ops, &[*decision], false))
    }

    fn try_load(&self, op: &Op<'_>) -> Option<Result<(Cell, Timestamp)>> {
        let ask = || self.inner.try_load(op);
        self.try_guard(std::slice::from_ref(op), ask, |_| true)
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.close()
    }

    fn can_lend(&self) -> bool {
        self.inner.can_lend()
    }

    fn expect_returns(&self) {
        self.inner.expect_returns();
    }

    fn answers(&self, key: &Key) -> Option<u64> {
        self.inner.answers(key)
    }

    fn would_forget(&self) -> bool {
        self.inner.would_forget()
    }

    same_store_as!(inner);
}

impl<B> Clone for Guarded<B> {
    fn clone(&self) -> Self {
        Guarded {
            inner: Arc::clone(&self.inner),
            breaker: self.breaker.clone(),
            proofs: Arc::clone(&self.proofs),
        }
    }
}

impl<B: fmt::Debug> fmt::Debug for Guarded<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("inner", &self.inner)
            .field("breaker", &self.breaker)
            .finish()
    }
}
