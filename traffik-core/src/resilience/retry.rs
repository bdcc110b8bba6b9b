use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Backoff, same_store_as};
use crate::backend::{Backend, Batch, BoxFuture, Op};
use crate::cell::Cell;
use crate::decision::{Decision, Decisions};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::time::Timestamp;

/// How often to ask again, after which errors, and how long to wait in between.
///
/// By default three attempts are made, a few milliseconds apart, and only after errors that
/// [certainly charged nothing](Error::is_unexecuted) and may pass: lost connections, contention,
/// overload. Asking again after a timeout could charge twice.
///
/// Whatever it is told, it makes no refund of a [permit](crate::Permit) again whose answer was lost, nor
/// asks again what gave back a part of a [lease](crate::Lease): that would be given twice.
///
/// ```
/// use std::time::Duration;
/// use traffik_core::{Backoff, Jitter, Retry};
///
/// let retry = Retry::new()
///     .attempts(4)
///     .backoff(Backoff::constant(Duration::from_millis(2)).jitter(Jitter::Equal))
///     .on(|error| error.is_connection() || error.is_timeout());
/// # let _ = retry;
/// ```
#[derive(Clone)]
pub struct Retry {
    attempts: u32,
    backoff: Backoff,
    on: Arc<dyn Fn(&Error) -> bool + Send + Sync>,
}

impl Retry {
    /// Three attempts with the [default backoff](Backoff::default).
    pub fn new() -> Retry {
        Retry {
            attempts: 3,
            backoff: Backoff::default(),
            on: Arc::new(|error| {
                error.is_unexecuted() && !error.is_invalid() && !error.is_closed()
            }),
        }
    }

    /// Sets how many attempts are made at most, the first included. Default: 3. There is always
    /// one.
    pub fn attempts(mut self, attempts: u32) -> Retry {
        self.attempts = attempts;
        self
    }

    /// Sets how long to wait in between.
    pub fn backoff(mut self, backoff: Backoff) -> Retry {
        self.backoff = backoff;
        self
    }

    /// Sets after which errors to ask again. What a timeout interrupted may have been charged, and
    /// is charged again.
    pub fn on(mut self, matches: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Retry {
        self.on = Arc::new(matches);
        self
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("attempts", &self.attempts)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}

/// A backend that is asked again after some errors. Made by
/// [`BackendExt::retry`](super::BackendExt::retry).
///
/// # Panics
///
/// Outside a tokio runtime with a timer, waiting for another attempt panics.
#[derive(Clone, Debug)]
pub struct Retrying<B> {
    inner: B,
    retry: Retry,
    retried: Arc<AtomicU64>,
}

impl<B: Backend> Retrying<B> {
    pub(super) fn new(inner: B, retry: Retry) -> Retrying<B> {
        Retrying {
            inner,
            retry,
            retried: Arc::default(),
        }
    }

    /// How often it asked again.
    pub fn retried_total(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    async fn persist<T, F>(&self, gives_back: bool, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut attempt = 1;
        loop {
            match call().await {
                Err(error)
                    if attempt < self.retry.attempts && self.may_repeat(gives_back, &error) => {}
                outcome => return outcome,
            }
            tokio::time::sleep(self.retry.backoff.wait(attempt)).await;
            self.retried.fetch_add(1, Ordering::Relaxed);
            attempt += 1;
        }
    }

    /// What fails at once and may be asked again has to wait first, so it is for the caller to ask
    /// in earnest.
    fn unless_retried<T>(&self, gives_back: bool, outcome: Option<Result<T>>) -> Option<Result<T>> {
        match outcome {
            Some(Err(error)) if self.retry.attempts > 1 && self.may_repeat(gives_back, &error) => {
                None
            }
            outcome => outcome,
        }
    }

    /// Whether to ask again, whatever it is that may give something back.
    fn may_repeat(&self, gives_back: bool, error: &Error) -> bool {
        (self.retry.on)(error) && (!gives_back || error.is_unexecuted())
    }
}

impl<B: Backend> Backend for Retrying<B> {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(self.persist(batch.gives_back(), || self.inner.apply(batch)))
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(self.persist(false, || self.inner.load(op)))
    }

    fn ready<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        self.inner.ready(key)
    }

    fn settle<'a>(&'a self, settlement: &'a Op<'a>, degraded: bool) -> BoxFuture<'a, Result<()>> {
        let gives_back = settlement.strategy.gives_back();
        Box::pin(self.persist(gives_back, move || self.inner.settle(settlement, degraded)))
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.persist(false, || self.inner.reset()))
    }

    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        self.unless_retried(batch.gives_back(), self.inner.try_apply(batch))
    }

    fn try_step(&self, op: &Op<'_>) -> Option<Result<Decision>> {
        self.unless_retried(op.strategy.gives_back(), self.inner.try_step(op))
    }

    fn try_load(&self, op: &Op<'_>) -> Option<Result<(Cell, Timestamp)>> {
        self.unless_retried(false, self.inner.try_load(op))
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
    use std::time::Duration;

    use super::*;
    use crate::resilience::tests::Store;
    use crate::resilience::{BackendExt, Jitter};
    use crate::{FixedWindow, Identity, ManualClock, Throttle};

    fn throttle(backend: impl Backend) -> Throttle {
        crate::resilience::tests::throttle("9/hour", FixedWindow, backend)
    }

    fn store(error: fn() -> Error) -> Store {
        Store::new(&ManualClock::default()).failing_with(error)
    }

    fn every_10_ms() -> Retry {
        let backoff = Backoff::constant(Duration::from_millis(10));
        Retry::new().backoff(backoff.jitter(Jitter::None))
    }

    #[tokio::test(start_paused = true)]
    async fn asks_again_until_it_succeeds_or_has_asked_often_enough() {
        let store = store(|| Error::connection("refused"));
        let retrying = store.clone().retry(every_10_ms());
        let api = throttle(retrying.clone());
        let ann = Identity::of("ann");
        let start = tokio::time::Instant::now();
        assert!(api.hit(&ann).await.unwrap_err().is_connection());
        assert_eq!((store.calls(), retrying.retried_total()), (3, 2));
        assert!((20..25).contains(&start.elapsed().as_millis()));

        let recovery = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            store.fail(false);
        };
        let (decision, ()) = tokio::join!(api.hit(&ann), recovery);
        assert_eq!(decision.unwrap().remaining(), 8);
        assert_eq!(store.calls(), 5);
    }

    /// What timed out may have been charged.
    #[tokio::test(start_paused = true)]
    async fn asks_again_only_what_was_certainly_not_executed() {
        let cases: [(fn() -> Error, u64); 6] = [
            (|| Error::connection("refused"), 3),
            (|| Error::contended("busy"), 3),
            (|| Error::overloaded("full"), 3),
            (|| Error::timeout("too late"), 1),
            (|| Error::closed("closed"), 1),
            (|| Error::invalid("wrong"), 1),
        ];
        for (error, calls) in cases {
            let store = store(error);
            let api = throttle(store.clone().retry(Retry::new()));
            assert!(api.hit(&Identity::of("ann")).await.is_err());
            assert_eq!(store.calls(), calls, "{}", error());
        }
        let store = store(|| Error::timeout("too late"));
        let api = throttle(store.clone().retry(every_10_ms().on(Error::is_timeout)));
        assert!(api.hit(&Identity::of("ann")).await.is_err());
        assert_eq!(store.calls(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_bounds_all_attempts_together() {
        let store = store(|| Error::connection("refused"));
        let retry = every_10_ms().attempts(u32::MAX);
        let api = throttle(store.retry(retry).deadline(Duration::from_millis(50)));
        let start = tokio::time::Instant::now();
        let error = api.hit(&Identity::of("ann")).await.unwrap_err();
        assert!(error.is_timeout());
        assert!((50..55).contains(&start.elapsed().as_millis()));
    }
}
