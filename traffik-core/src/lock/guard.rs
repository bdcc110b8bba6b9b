use std::fmt;
use std::time::Duration;

use tokio::runtime::Handle;

use super::LockConfig;
use crate::error::{Error, Result};
use crate::store::{Grip, Store};

/// A lock of a [`Store`] that is held, for purposes of your own; dropping it releases it.
///
/// It always ends: when it is released, when it is dropped, else when its
/// [time](LockConfig::ttl) is over, whatever became of its holder. A holder that may take longer
/// asks how much of it [remains](Lock::remaining) before it does what only one may do. Between that
/// question and the deed it can still be held up, so a lock keeps others from doing the same work
/// twice; it cannot keep a late holder from harming what the next one has written. Only the thing
/// that is written can, by refusing an older
/// [fencing token](https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html),
/// and there is none here.
///
/// ```no_run
/// use std::time::Duration;
/// use traffik_core::{Lock, LockConfig, RedisBackend};
///
/// # async fn example() -> traffik_core::Result<()> {
/// let store = RedisBackend::at("redis://127.0.0.1")?.store();
/// let minute = LockConfig::new().ttl(Duration::from_secs(60));
/// let lock = Lock::acquire(&store, "nightly-report", minute.blocking(false)).await?;
/// // .. write the report: nobody else does ..
/// lock.release().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a lock is released when it is dropped"]
pub struct Lock<S: Store + Clone> {
    store: S,
    grip: Grip,
    /// Where a dropped lock is released: a drop cannot wait.
    runtime: Handle,
}

impl<S: Store + Clone> Lock<S> {
    /// Takes a lock, waiting for it as the configuration says, with random pauses of up to 50 ms.
    ///
    /// Names are printable ASCII of at most 100 bytes. If this future is dropped, the lock is
    /// released as if it were held.
    ///
    /// # Errors
    ///
    /// [`Error::is_contended`] if somebody else has the lock all the while, and what the store
    /// says if it fails. [`Error::is_invalid`] if the name is none, if it would be held for no more
    /// than 2 ms, if an environment variable about [locks](crate::lock) is malformed, or outside of
    /// a tokio runtime.
    pub async fn acquire(store: &S, name: &str, config: LockConfig) -> Result<Lock<S>> {
        let legal = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if !(1..=100).contains(&name.len()) || !name.bytes().all(legal) {
            return Err(Error::invalid(
                "the name of a lock is 1 to 100 bytes of printable ASCII, such as `nightly-report`",
            ));
        }
        let runtime = Handle::try_current().map_err(|error| {
            Error::invalid("a lock needs a tokio runtime, such as actix's").with_source(error)
        })?;
        let terms = config.terms()?;
        let mut lock = Lock {
            store: store.clone(),
            grip: Grip::new(),
            runtime,
        };
        lock.grip.take(store, None, [name.into()], terms).await?;
        Ok(lock)
    }

    /// How long the lock is certainly still held, as far as the clock of this process can tell: its
    /// time since it was asked for, less [an allowance](crate::lock) for clocks that run
    /// differently. Zero means that somebody else may have it.
    pub fn remaining(&self) -> Duration {
        self.grip.remaining()
    }

    /// Releases the lock, and returns when the store has done so. If the store fails, the lock
    /// ends when its time is over.
    pub async fn release(mut self) {
        // Borrowed, not moved out: if this future is dropped, the rest is released like any lock.
        let Lock { store, grip, .. } = &mut self;
        grip.release(store).await;
    }
}

impl<S: Store + Clone> Drop for Lock<S> {
    fn drop(&mut self) {
        if self.grip.is_empty() {
            return;
        }
        let store = self.store.clone();
        let mut grip = std::mem::replace(&mut self.grip, Grip::new());
        // Of a runtime that has ended, nothing comes: then the lock ends when its time is over.
        self.runtime
            .spawn(async move { grip.release(&store).await });
    }
}

impl<S: Store + Clone> fmt::Debug for Lock<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("store", &self.store)
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}
