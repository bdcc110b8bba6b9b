use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::same_store_as;
use crate::backend::{Backend, Batch, BoxFuture, Op};
use crate::cell::Cell;
use crate::decision::{Decision, Decisions};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::patience::in_time;
use crate::time::Timestamp;

/// A backend that answers within a time, if only that it has no answer. Made by
/// [`BackendExt::deadline`](super::BackendExt::deadline).
///
/// Time in which the thread that asks does not run does not count, and an answer that is there when the
/// time is up is an answer.
///
/// What was given up may have been charged: the store may still execute it. Decisions that need
/// not wait, as those of memory, need no deadline and have none. Resetting and closing may take
/// longer and are not bounded.
///
/// # Panics
///
/// Outside a tokio runtime with a timer, operations that wait panic. Every actix runtime has one.
#[derive(Clone, Debug)]
pub struct Deadline<B> {
    inner: B,
    limit: Duration,
    expired: Arc<AtomicU64>,
}

impl<B: Backend> Deadline<B> {
    /// A good limit for a store in the same data centre, which answers within a millisecond: 50 ms.
    pub const DEFAULT: Duration = Duration::from_millis(50);

    pub(super) fn new(inner: B, limit: Duration) -> Deadline<B> {
        Deadline {
            inner,
            limit,
            expired: Arc::default(),
        }
    }

    /// How many operations were given up.
    pub fn expired_total(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = in_time(self.limit, call).await;
        answer.unwrap_or_else(|| Err(self.expire()))
    }

    #[cold]
    fn expire(&self) -> Error {
        self.expired.fetch_add(1, Ordering::Relaxed);
        Error::timeout(format!("the store did not answer within {:?}", self.limit))
    }
}

impl<B: Backend> Backend for Deadline<B> {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(self.bounded(self.inner.apply(batch)))
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(self.bounded(self.inner.load(op)))
    }

    fn ready<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.bounded(self.inner.ready(key)))
    }

    fn settle<'a>(&'a self, settlement: &'a Op<'a>, degraded: bool) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.bounded(self.inner.settle(settlement, degraded)))
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.reset()
    }

    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        self.inner.try_apply(batch)
    }

    fn try_step(&self, op: &Op<'_>) -> Option<Result<Decision>> {
        self.inner.try_step(op)
    }

    fn try_load(&self, op: &Op<'_>) -> Option<Result<(Cell, Timestamp)>> {
        self.inner.try_load(op)
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::resilience::{BackendExt, BreakerState, CircuitBreaker};
    use crate::{FixedWindow, Identity, MemoryBackend, Throttle};

    /// A store that takes every question and answers none.
    #[derive(Debug)]
    struct BlackHole;

    impl Backend for BlackHole {
        fn apply<'a>(&'a self, _: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
            Box::pin(pending())
        }

        fn load<'a>(&'a self, _: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
            Box::pin(pending())
        }

        fn reset(&self) -> BoxFuture<'_, Result<()>> {
            Box::pin(pending())
        }
    }

    fn throttle(backend: impl Backend) -> Throttle {
        crate::resilience::tests::throttle("9/hour", FixedWindow, backend)
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_costs_one_deadline() {
        let backend = Arc::new(BlackHole.deadline(Deadline::<BlackHole>::DEFAULT));
        let api = throttle(Arc::clone(&backend));
        let ann = Identity::of("ann");
        let start = tokio::time::Instant::now();
        for (n, error) in [api.hit(&ann).await.err(), api.stat(&ann).await.err()]
            .into_iter()
            .enumerate()
        {
            let error = error.unwrap();
            assert!(error.is_timeout() && !error.is_unexecuted());
            assert_eq!(error.to_string(), "the store did not answer within 50ms");
            assert_eq!(backend.expired_total(), 2, "{n}");
        }
        assert_eq!(start.elapsed().as_millis() / 10, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_costs_one_deadline_per_failure_until_the_breaker_opens() {
        let breaker = CircuitBreaker::new();
        let backend = BlackHole
            .deadline(Duration::from_millis(50))
            .failover(MemoryBackend::new(), breaker.clone());
        let api = throttle(backend);
        let ann = Identity::of("ann");
        let start = tokio::time::Instant::now();
        for _ in 0..9 {
            assert!(api.hit(&ann).await.unwrap().is_degraded());
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        // Five failures open it; tokio's timers are exact to the millisecond.
        assert!((250..260).contains(&start.elapsed().as_millis()));
        assert!(api.hit_now(&ann).unwrap().is_denied());
    }
}
