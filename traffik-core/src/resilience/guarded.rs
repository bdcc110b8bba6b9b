use super::{CircuitBreaker, same_store_as};
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

    async fn guard<T, F>(&self, call: impl FnOnce() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let permit = self.breaker.acquire().ok_or_else(refusal)?;
        let outcome = call().await;
        permit.settle(&outcome);
        outcome
    }

    #[inline]
    fn try_guard<T>(&self, call: impl FnOnce() -> Option<Result<T>>) -> Option<Result<T>> {
        let Some(permit) = self.breaker.acquire() else {
            return Some(Err(refusal()));
        };
        // Had it to wait, nothing was asked yet: the permit goes back unused.
        let outcome = call()?;
        permit.settle(&outcome);
        Some(outcome)
    }
}

#[cold]
fn refusal() -> Error {
    Error::connection("the store was not asked: its circuit breaker is open")
}

impl<B: Backend> Backend for Guarded<B> {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(self.guard(|| self.inner.apply(batch)))
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(self.guard(|| self.inner.load(op)))
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.reset()
    }

    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        self.try_guard(|| self.inner.try_apply(batch))
    }

    fn try_step(&self, op: &Op<'_>) -> Option<Result<Decision>> {
        self.try_guard(|| self.inner.try_step(op))
    }

    fn try_load(&self, op: &Op<'_>) -> Option<Result<(Cell, Timestamp)>> {
        self.try_guard(|| self.inner.try_load(op))
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.close()
    }

    same_store_as!(inner);
}
