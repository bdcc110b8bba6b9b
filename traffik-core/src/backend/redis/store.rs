//! Keys, values and locks in the same Redis, for purposes of the user's own.

use std::time::Duration;

use redis::{Cmd, FromRedisValue};

use super::link::Lost;
use super::redlock::Redlock;
use super::script::script;
use super::{RedisBackend, reset};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::store::{Entry, Store};

/// The keys and values, and the locks, of a [`RedisBackend`]'s namespace. They are apart from its
/// cells: neither resets the other. Needs the features `redis` and `store`.
///
/// Every operation is one atomic command, exact to the millisecond, within the backend's deadline;
/// on a cluster those on several keys are one for each. Keeping a key's time to live needs Redis 6.
///
/// A [`Lock`](crate::Lock) is a key with an owner and a time to live on this server, and lost with
/// it: a replica that takes over may not know of it. [`redlock`](RedisStore::redlock) asks several.
///
/// ```no_run
/// use std::time::Duration;
/// use traffik_core::{RedisBackend, Store};
///
/// # async fn example() -> traffik_core::Result<()> {
/// let store = RedisBackend::at("redis://127.0.0.1")?.store();
/// let visits = store.increment_with_ttl("visits", 1, Duration::from_secs(3_600)).await?;
/// # let _ = visits;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RedisStore {
    backend: RedisBackend,
    /// Who grants locks, if not this server.
    redlock: Option<Redlock>,
}

impl RedisBackend {
    /// Keys, values and locks of your own in this Redis.
    pub fn store(&self) -> RedisStore {
        RedisStore {
            backend: self.clone(),
            redlock: None,
        }
    }
}

impl RedisStore {
    /// What keys begin with. A cell's key goes on with a brace.
    fn prefix(&self) -> String {
        format!("{}:kv:", self.backend.namespace())
    }

    fn key(&self, key: &str) -> String {
        self.prefix() + key
    }

    fn lock_key(&self, name: &str) -> String {
        format!("{}:lock:{name}", self.backend.namespace())
    }

    pub(super) fn locked_by(self, redlock: Redlock) -> RedisStore {
        RedisStore {
            redlock: Some(redlock),
            ..self
        }
    }

    /// Whether both are the same server, as far as we know.
    pub(super) fn is(&self, other: &RedisStore) -> bool {
        self.backend.store_id() == other.backend.store_id()
    }

    /// Tries once to take a lock on this server.
    pub(super) async fn lock_here(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool> {
        let mut lock = redis::cmd("SET");
        lock.arg(self.lock_key(name)).arg(owner).arg("NX");
        let taken: Option<String> = self.ask(lock.arg("PX").arg(millis(ttl))).await?;
        Ok(taken.is_some())
    }

    /// Releases a lock on this server.
    pub(super) async fn unlock_here(&self, name: &str, owner: &str) -> Result<()> {
        const UNLOCK: &str = script!(
            "local function run() \
             if call('GET', KEYS[1]) == ARGV[1] then call('DEL', KEYS[1]) end end "
        );
        let mut unlock = redis::cmd("EVAL");
        unlock
            .arg(UNLOCK)
            .arg(1)
            .arg(self.lock_key(name))
            .arg(owner);
        self.ask(&unlock).await
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        let inner = &self.backend.0;
        inner.check_open()?;
        let link = inner.links.of_this_thread()?;
        let mut patience = None;
        let reply = match link.ask(link.line().await?, command, &mut patience).await {
            Err(Lost::Unexecuted(_)) => {
                let line = link.line().await?;
                link.ask(line, command, &mut patience).await
            }
            reply => reply,
        };
        redis::from_redis_value(reply?).map_err(|error| {
            Error::other("redis answered with something else than expected").with_source(error)
        })
    }

    fn is_sharded(&self) -> bool {
        self.backend.0.links.connect().has_slots()
    }

    fn set_command(&self, key: &str, value: &[u8], ttl: Option<Duration>) -> Cmd {
        let mut set = redis::cmd("SET");
        set.arg(self.key(key)).arg(value);
        match ttl {
            Some(ttl) => set.arg("PX").arg(millis(ttl)),
            None => set.arg("KEEPTTL"),
        };
        set
    }
}

/// Rounded up: a key that dies early forgives a debt. Redis takes no zero.
fn millis(ttl: Duration) -> u64 {
    let millis = ttl.as_nanos().div_ceil(1_000_000).max(1);
    // A hundred million years; Redis adds the present to it.
    u64::try_from(millis).unwrap_or(u64::MAX).min(1 << 61)
}

fn amount(amount: u64) -> Result<i64> {
    i64::try_from(amount)
        .map_err(|_| Error::invalid("redis adds and subtracts at most 9223372036854775807"))
}

impl Store for RedisStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.ask(redis::cmd("GET").arg(self.key(key))).await
    }

    async fn set(&self, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<()> {
        self.ask(&self.set_command(key, value, ttl)).await
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        self.ask(redis::cmd("UNLINK").arg(self.key(key))).await
    }

    async fn lock(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool> {
        match &self.redlock {
            None => self.lock_here(name, owner, ttl).await,
            Some(redlock) => redlock.lock(name, owner, ttl).await,
        }
    }

    async fn unlock(&self, name: &str, owner: &str) -> Result<()> {
        match &self.redlock {
            None => self.unlock_here(name, owner).await,
            Some(redlock) => redlock.unlock(name, owner).await,
        }
    }

    async fn reset(&self) -> Result<()> {
        self.backend.0.check_open()?;
        let prefix = self.prefix();
        let ours = |key: &[u8]| key.starts_with(prefix.as_bytes());
        reset::unlink_all(self.backend.0.links.connect(), &format!("{prefix}*"), ours).await
    }

    async fn increment(&self, key: &str, by: u64) -> Result<i64> {
        let by = amount(by)?;
        self.ask(redis::cmd("INCRBY").arg(self.key(key)).arg(by))
            .await
    }

    async fn decrement(&self, key: &str, by: u64) -> Result<i64> {
        let by = amount(by)?;
        self.ask(redis::cmd("DECRBY").arg(self.key(key)).arg(by))
            .await
    }

    async fn increment_with_ttl(&self, key: &str, by: u64, ttl: Duration) -> Result<i64> {
        // A new one has its end from the beginning: between two commands it could stay without.
        const INCREMENT: &str = script!(
            "local function run() \
             if call('EXISTS', KEYS[1]) == 1 then return call('INCRBY', KEYS[1], ARGV[1]) end \
             call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
             return tonumber(ARGV[1]) end "
        );
        let mut increment = redis::cmd("EVAL");
        increment.arg(INCREMENT).arg(1).arg(self.key(key));
        self.ask(increment.arg(amount(by)?).arg(millis(ttl))).await
    }

    async fn expire(&self, key: &str, ttl: Duration) -> Result<bool> {
        self.ask(redis::cmd("PEXPIRE").arg(self.key(key)).arg(millis(ttl)))
            .await
    }

    async fn multi_get(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
        if keys.is_empty() || self.is_sharded() {
            let mut values = Vec::with_capacity(keys.len());
            for key in keys {
                values.push(self.get(key).await?);
            }
            return Ok(values);
        }
        let mut get = redis::cmd("MGET");
        for key in keys {
            get.arg(self.key(key));
        }
        self.ask(&get).await
    }

    async fn multi_set(&self, entries: &[Entry<'_>]) -> Result<()> {
        const SET: &str = script!(
            "local function run() for i = 1, #KEYS do local ttl = ARGV[2 * i] \
             if ttl == '' then call('SET', KEYS[i], ARGV[2 * i - 1], 'KEEPTTL') \
             else call('SET', KEYS[i], ARGV[2 * i - 1], 'PX', ttl) end end end "
        );
        if self.is_sharded() {
            for Entry { key, value, ttl } in entries {
                self.set(key, value, *ttl).await?;
            }
            return Ok(());
        }
        let mut set = redis::cmd("EVAL");
        set.arg(SET).arg(entries.len());
        for entry in entries {
            set.arg(self.key(entry.key));
        }
        for entry in entries {
            set.arg(entry.value);
            match entry.ttl {
                Some(ttl) => set.arg(millis(ttl)),
                None => set.arg(""),
            };
        }
        self.ask(&set).await
    }
}
