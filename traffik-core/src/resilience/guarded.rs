use std::future::poll_fn;
use std::pin::pin;

use super::{CircuitBreaker, Permit, same_store_as};
use crate::backend::{Backend, Batch, BoxFuture, Op};
use crate::cell::Cell;
use crate::decision::{Decision, Decisions};
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// A backend that is not asked while its [`CircuitBreaker`] is open. Made by
/// [`BackendExt::guarded`](super::BackendExt::guarded).
#[derive(Clone, Debug)]
pub struct Guarded<B> {
    inner: B,
    breaker: CircuitBreaker,
}

impl<B: Backend> Guarded<B> {
    pub(super) fn new(inner: B, breaker: CircuitBreaker) -> Guarded<B> {
        Guarded { inner, breaker }
    }

    /// The breaker.
    pub fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }

    #[inline]
    fn acquire(&self) -> Result<Permit<'_>> {
        self.breaker.acquire().ok_or_else(refusal)
    }

    /// What has to be waited for was not asked yet: then the permit goes back unused.
    #[inline]
    fn try_guard<T>(
        &self,
        call: impl FnOnce() -> Option<Result<T>>,
        proves: impl FnOnce(&T) -> bool,
    ) -> Option<Result<T>> {
        let permit = match self.acquire() {
            Ok(permit) => permit,
            Err(refusal) => return Some(Err(refusal)),
        };
        let outcome = call()?;
        settle(permit, &outcome, proves);
        Some(outcome)
    }

    /// Whether decisions prove that the store answers. A denial that did not have to be waited for
    /// may come from what its backend remembers, however dead the store.
    #[inline]
    fn proves(&self, decisions: &[Decision], waited: bool) -> bool {
        waited || self.inner.is_local() || decisions.iter().all(Decision::is_allowed)
    }
}

#[inline]
fn settle<T>(permit: Permit<'_>, outcome: &Result<T>, proves: impl FnOnce(&T) -> bool) {
    match outcome {
        Ok(answer) if !proves(answer) => drop(permit),
        outcome => permit.settle(outcome),
    }
}

/// What a future returns, and whether that had to be waited for.
async fn noting_waits<T>(future: impl Future<Output = T>) -> (T, bool) {
    let mut future = pin!(future);
    let mut waited = false;
    let output = poll_fn(|context| {
        let poll = future.as_mut().poll(context);
        waited |= poll.is_pending();
        poll
    });
    (output.await, waited)
}

#[cold]
fn refusal() -> Error {
    Error::connection("the store was not asked: its circuit breaker is open")
}

impl<B: Backend> Backend for Guarded<B> {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(async move {
            let permit = self.acquire()?;
            let (outcome, waited) = noting_waits(self.inner.apply(batch)).await;
            settle(permit, &outcome, |decisions| self.proves(decisions, waited));
            outcome
        })
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(async move {
            let permit = self.acquire()?;
            let outcome = self.inner.load(op).await;
            permit.settle(&outcome);
            outcome
        })
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.reset()
    }

    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        let ask = || self.inner.try_apply(batch);
        self.try_guard(ask, |decisions| self.proves(decisions, false))
    }

    fn try_step(&self, op: &Op<'_>) -> Option<Result<Decision>> {
        let ask = || self.inner.try_step(op);
        self.try_guard(ask, |decision| self.proves(&[*decision], false))
    }

    fn try_load(&self, op: &Op<'_>) -> Option<Result<(Cell, Timestamp)>> {
        self.try_guard(|| self.inner.try_load(op), |_| true)
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.close()
    }

    same_store_as!(inner);
}
