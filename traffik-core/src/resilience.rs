//! When the store fails: what to do instead, and for how long.
//!
//! Each part is a [`Backend`] around a [`Backend`], so they compose, and every strategy works under
//! them. From the inside out:
//!
//! | wrapper | what it does | when |
//! |---|---|---|
//! | `deadline` (feature `tokio`) | gives up waiting | the store hangs |
//! | `retry` (feature `tokio`) | asks again what was certainly not executed | a connection was lost |
//! | [`guarded`](BackendExt::guarded) | does not even ask | it has been failing |
//! | [`fallback`](BackendExt::fallback) | asks another backend, usually memory | all of that failed |
//!
//! [`failover`](BackendExt::failover) is the last two. What is still an error then is for the
//! throttle's [`OnError`](crate::OnError).
//!
//! Put a deadline *inside* a breaker: one around it would cut calls off before the breaker learns
//! that they failed. Give all throttles on one store the same wrapped backend: the hits of a request
//! on one store are one batch, which goes through the wrappers of its first throttle.

pub(crate) mod background;
mod backoff;
mod breaker;
#[cfg(feature = "tokio")]
mod deadline;
mod debts;
mod fallback;
mod follow;
mod guarded;
mod outage;
mod proof;
#[cfg(feature = "tokio")]
mod retry;
mod share;

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

pub use backoff::{Backoff, Jitter};
pub use breaker::{
    BreakerInfo, BreakerState, CircuitBreaker, CircuitBreakerBuilder, Permit, Transition,
};
#[cfg(feature = "tokio")]
pub use deadline::Deadline;
pub use fallback::{Failover, Fallback};
pub use guarded::Guarded;
pub(crate) use outage::Outage;
pub use outage::OutageInfo;
#[cfg(feature = "tokio")]
pub use retry::{Retry, Retrying};

use smallvec::SmallVec;

use crate::backend::Backend;
use crate::error::Result;
use crate::key::Key;

/// Wraps a backend against failures; see the [module](crate::resilience).
///
/// ```
/// # #[cfg(feature = "tokio")] {
/// use std::time::Duration;
/// use traffik_core::{BackendExt, CircuitBreaker, MemoryBackend, Retry, Throttle};
/// # let redis = MemoryBackend::new();
///
/// let backend = redis
///     .retry(Retry::new().attempts(2))
///     .deadline(Duration::from_millis(50))
///     .failover(MemoryBackend::new(), CircuitBreaker::new())
///     .nodes(4);
/// let throttle = Throttle::builder("api").rate("1000/minute").backend(backend).build()?;
/// # let _ = throttle;
/// # }
/// # Ok::<(), traffik_core::Error>(())
/// ```
pub trait BackendExt: Backend + Sized {
    /// Gives every operation at most this long; then it is a
    /// [timeout](crate::Error::is_timeout).
    ///
    /// For a store nearby, 50 ms is [ample](Deadline::DEFAULT).
    #[cfg(feature = "tokio")]
    fn deadline(self, limit: Duration) -> Deadline<Self> {
        Deadline::new(self, limit)
    }

    /// Asks again when nothing was executed. The time for all attempts and the waits between them
    /// is bounded by a [`deadline`](BackendExt::deadline) around it.
    #[cfg(feature = "tokio")]
    fn retry(self, retry: Retry) -> Retrying<Self> {
        Retrying::new(self, retry)
    }

    /// Decides hits on hot keys in memory, exactly: see [`Leased`](crate::Leased).
    ///
    /// Deadlines, retries and breakers belong inside, a fallback outside.
    #[cfg(feature = "tokio")]
    fn lease(self, lease: crate::Lease) -> crate::Leased<Self> {
        crate::Leased::new(self, lease)
    }

    /// Does not ask while the breaker is open: operations fail at once then, as if the store could
    /// not be [reached](crate::Error::is_connection).
    fn guarded(self, breaker: CircuitBreaker) -> Guarded<Self> {
        Guarded::new(self, breaker)
    }

    /// Whether hits would be decided now, by every server that there is: an error if one would not. For health
    /// checks; no hit needs it. It takes a trip or two to each server, and at most as long as a hit.
    ///
    /// Of several servers (a cluster, a list of memcacheds) one after the other is asked. Asked is the store itself:
    /// whether a breaker is open does not matter, and what stands in for a store that fails does not count. So a
    /// failover that is not healthy still decides; do not take a server that says so out of service.
    ///
    /// ```
    /// use traffik_core::{BackendExt, MemoryBackend};
    ///
    /// # async fn example() {
    /// let memory = MemoryBackend::new();
    /// assert!(memory.health().await.is_ok());
    /// # }
    /// ```
    fn health(&self) -> impl Future<Output = Result<()>> + Send {
        async {
            let mut asked = SmallVec::<[u64; 8]>::new();
            for key in (0..PROBES).map(Key::probe) {
                let shard = self.shard_of(&key);
                if !asked.contains(&shard) {
                    asked.push(shard);
                    self.ready(&key).await?;
                }
            }
            Ok(())
        }
    }

    /// Lets another backend decide what this one fails to.
    fn fallback<F: Backend>(self, fallback: F) -> Fallback<Self, F> {
        Fallback::new(self, fallback, PROBED)
    }

    /// Lets another backend decide what this one fails to, and whatever comes while the breaker is
    /// open.
    fn failover<F: Backend>(self, fallback: F, breaker: CircuitBreaker) -> Failover<Self, F> {
        let probed = breaker.longest_wait().saturating_add(ANSWERED);
        Fallback::new(self.guarded(breaker), fallback, probed)
    }
}

impl<B: Backend> BackendExt for B {}

/// Among how many keys one is looked for that each server has: of a hundred servers that share them evenly, one is
/// missed with a probability of 10^-7. To look at them all takes a millisecond at most.
const PROBES: u64 = 2_048;

/// Where no breaker says how long nodes leave a failing store alone: they do not, but may have no hits.
const PROBED: Duration = Duration::from_secs(5);

/// How long a probe may take, and a payment after it.
const ANSWERED: Duration = Duration::from_millis(250);

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

/// A wrapper is the store it wraps: hits on both are one batch, on the same cells, under the same
/// keys.
macro_rules! same_store_as {
    ($inner:ident $(, $other:ident)?) => {
        fn now(&self) -> crate::time::Timestamp {
            self.$inner.now()
        }

        fn store_id(&self) -> usize {
            self.$inner.store_id()
        }

        fn is_local(&self) -> bool {
            self.$inner.is_local()
        }

        fn local_stores(&self, found: &mut dyn FnMut(usize)) {
            self.$inner.local_stores(found);
            $(self.$other.local_stores(found);)?
        }

        #[inline]
        fn shard_of(&self, key: &crate::key::Key) -> u64 {
            self.$inner.shard_of(key)
        }

        #[inline]
        fn key_hasher(&self) -> &crate::key::KeyHasher {
            self.$inner.key_hasher()
        }
    };
}
use same_store_as;

#[cfg(test)]
mod tests;
