//! The storage that people bring along.

mod held;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use held::{Grip, Held, Orphans};

use crate::error::{Error, Result};
use crate::lock::LockConfig;

/// A store of keys and values with locks: a database table, another cache, a file.
///
/// [`Locked`](crate::Locked) makes a [`Backend`](crate::Backend) of it, on which every strategy runs.
/// Write plain `async fn`s. Six methods are required; the others do with those, and are there to be
/// replaced where the store can do better.
///
/// * Keys are printable ASCII, at most 100 bytes, and hold nothing that a client chose. So are names of
///   locks, of at most 105 bytes: that of a key is `lock:` and the key. Values are any bytes.
/// * A time to live is exact to the millisecond, or longer: a key that dies early forgives a debt.
///   `None` keeps the one that the key has; a new key then lives until it is deleted.
/// * Nothing but [`lock`](Store::lock) and [`unlock`](Store::unlock) need be atomic.
/// * The methods provided for counting and for [`expire`](Store::expire) hold the lock of their key
///   meanwhile, as [the process](crate::lock) says. Whether they succeed or fail, they release it;
///   if their future is dropped, it ends when its time is over.
///
/// `examples/custom-store` is a whole one, on SQLite.
pub trait Store: Debug + Send + Sync + 'static {
    /// The value of a key that has not expired.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>>> + Send;

    /// Sets a value.
    fn set(
        &self,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Forgets a key; whether there was one.
    fn delete(&self, key: &str) -> impl Future<Output = Result<bool>> + Send;

    /// Tries once, without waiting, to take a lock for `owner`. It must be atomic, across all
    /// processes that share the store: of several who try, one succeeds. After `ttl` the lock is
    /// free again, whatever became of its owner.
    fn lock(
        &self,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Releases a lock if `owner` still holds it, in one atomic step: it may have expired and be
    /// somebody else's by now.
    fn unlock(&self, name: &str, owner: &str) -> impl Future<Output = Result<()>> + Send;

    /// Forgets every key, but nothing that belongs to others. Locks may stay.
    fn reset(&self) -> impl Future<Output = Result<()>> + Send;

    /// Adds to a number in decimal, 0 if there is none, and returns the sum. Atomic.
    fn increment(&self, key: &str, amount: u64) -> impl Future<Output = Result<i64>> + Send {
        change(self, key, i128::from(amount), None)
    }

    /// Subtracts from a number in decimal, 0 if there is none, and returns the difference. Atomic.
    fn decrement(&self, key: &str, amount: u64) -> impl Future<Output = Result<i64>> + Send {
        change(self, key, -i128::from(amount), None)
    }

    /// Adds like [`increment`](Store::increment); a number that was not there before lives for
    /// `ttl`. Atomic.
    fn increment_with_ttl(
        &self,
        key: &str,
        amount: u64,
        ttl: Duration,
    ) -> impl Future<Output = Result<i64>> + Send {
        change(self, key, i128::from(amount), Some(ttl))
    }

    /// Sets how long a key lives from now on; whether there is one.
    fn expire(&self, key: &str, ttl: Duration) -> impl Future<Output = Result<bool>> + Send {
        async move {
            let held = hold(self, key).await?;
            let expires = set_ttl(self, &held, key, ttl).await;
            held.release().await;
            expires
        }
    }

    /// The values of several keys, in their order.
    fn multi_get(
        &self,
        keys: &[&str],
    ) -> impl Future<Output = Result<Vec<Option<Vec<u8>>>>> + Send {
        async move {
            let mut values = Vec::with_capacity(keys.len());
            for key in keys {
                values.push(self.get(key).await?);
            }
            Ok(values)
        }
    }

    /// Sets several values, if possible all or none.
    fn multi_set(&self, entries: &[Entry<'_>]) -> impl Future<Output = Result<()>> + Send {
        async move {
            for Entry { key, value, ttl } in entries {
                self.set(key, value, *ttl).await?;
            }
            Ok(())
        }
    }

    /// Releases what the store holds.
    fn close(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }
}

/// A value to [set](Store::multi_set).
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its key.
    pub key: &'a str,
    /// The value.
    pub value: &'a [u8],
    /// How long it lives, or `None` to keep the time that the key has.
    pub ttl: Option<Duration>,
}

/// So that processes, or backends of one process, may share a store.
impl<S: Store> Store for Arc<S> {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        (**self).get(key).await
    }

    async fn set(&self, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<()> {
        (**self).set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        (**self).delete(key).await
    }

    async fn lock(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool> {
        (**self).lock(name, owner, ttl).await
    }

    async fn unlock(&self, name: &str, owner: &str) -> Result<()> {
        (**self).unlock(name, owner).await
    }

    async fn reset(&self) -> Result<()> {
        (**self).reset().await
    }

    async fn increment(&self, key: &str, amount: u64) -> Result<i64> {
        (**self).increment(key, amount).await
    }

    async fn decrement(&self, key: &str, amount: u64) -> Result<i64> {
        (**self).decrement(key, amount).await
    }

    async fn increment_with_ttl(&self, key: &str, amount: u64, ttl: Duration) -> Result<i64> {
        (**self).increment_with_ttl(key, amount, ttl).await
    }

    async fn expire(&self, key: &str, ttl: Duration) -> Result<bool> {
        (**self).expire(key, ttl).await
    }

    async fn multi_get(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
        (**self).multi_get(keys).await
    }

    async fn multi_set(&self, entries: &[Entry<'_>]) -> Result<()> {
        (**self).multi_set(entries).await
    }

    async fn close(&self) -> Result<()> {
        (**self).close().await
    }
}

/// Changes a number under its lock.
async fn change<S: Store + ?Sized>(
    store: &S,
    key: &str,
    by: i128,
    ttl_if_new: Option<Duration>,
) -> Result<i64> {
    let held = hold(store, key).await?;
    let sum = add(store, &held, key, by, ttl_if_new).await;
    held.release().await;
    sum
}

async fn add<S: Store + ?Sized>(
    store: &S,
    held: &Held<'_, S>,
    key: &str,
    by: i128,
    ttl_if_new: Option<Duration>,
) -> Result<i64> {
    let old = store.get(key).await?;
    let number = match &old {
        None => 0,
        Some(value) => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .ok_or_else(|| Error::other("a value to count with is not a number"))?,
    };
    let sum = i64::try_from(i128::from(number) + by)
        .map_err(|error| Error::other("a counter is out of range").with_source(error))?;
    held.check()?;
    let ttl = ttl_if_new.filter(|_| old.is_none());
    store.set(key, sum.to_string().as_bytes(), ttl).await?;
    Ok(sum)
}

async fn set_ttl<S: Store + ?Sized>(
    store: &S,
    held: &Held<'_, S>,
    key: &str,
    ttl: Duration,
) -> Result<bool> {
    let Some(value) = store.get(key).await? else {
        return Ok(false);
    };
    held.check()?;
    store.set(key, &value, Some(ttl)).await?;
    Ok(true)
}

async fn hold<'a, S: Store + ?Sized>(store: &'a S, key: &str) -> Result<Held<'a, S>> {
    let name = format!("lock:{key}");
    Held::acquire(store, None, [name], LockConfig::new().terms()?).await
}
