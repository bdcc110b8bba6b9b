use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use traffik_core::{Error, Result, Store};

/// A store as a user would write it: a map that several backends share, as if it were far away.
#[derive(Debug, Default)]
pub(crate) struct MapStore {
    state: Mutex<State>,
    /// How long each command takes; at least the others get a turn.
    latency: Duration,
}

#[derive(Debug, Default)]
struct State {
    values: HashMap<String, (Vec<u8>, Option<Instant>)>,
    locks: HashMap<String, (String, Instant)>,
    commands: u64,
    broken: Option<&'static str>,
}

impl MapStore {
    pub(crate) fn slow(latency: Duration) -> MapStore {
        MapStore {
            latency,
            ..MapStore::default()
        }
    }

    pub(crate) fn commands(&self) -> u64 {
        self.state.lock().unwrap().commands
    }

    pub(crate) fn put_everywhere(&self, bytes: &[u8]) {
        for (value, _) in self.state.lock().unwrap().values.values_mut() {
            *value = bytes.to_vec();
        }
    }

    pub(crate) fn held(&self) -> usize {
        let now = Instant::now();
        let state = self.state.lock().unwrap();
        state
            .locks
            .values()
            .filter(|(_, until)| *until > now)
            .count()
    }

    /// From now on a command fails, or none.
    pub(crate) fn break_down(&self, command: impl Into<Option<&'static str>>) {
        self.state.lock().unwrap().broken = command.into();
    }

    async fn state(&self, command: &str) -> Result<MutexGuard<'_, State>> {
        match self.latency.is_zero() {
            true => tokio::task::yield_now().await,
            false => sleep(self.latency).await,
        }
        let mut state = self.state.lock().unwrap();
        state.commands += 1;
        let now = Instant::now();
        state
            .values
            .retain(|_, (_, until)| until.is_none_or(|until| until > now));
        match state.broken == Some(command) {
            true => Err(Error::interrupted("the store is broken")),
            false => Ok(state),
        }
    }
}

impl Store for MapStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let state = self.state("get").await?;
        Ok(state.values.get(key).map(|(value, _)| value.clone()))
    }

    async fn set(&self, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<()> {
        let mut state = self.state("set").await?;
        let (old, until) = state.values.entry(key.into()).or_default();
        *old = value.to_vec();
        *until = ttl.map(|ttl| Instant::now() + ttl).or(*until);
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        Ok(self.state("delete").await?.values.remove(key).is_some())
    }

    async fn lock(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool> {
        let mut state = self.state("lock").await?;
        let now = Instant::now();
        if state.locks.get(name).is_some_and(|(_, until)| *until > now) {
            return Ok(false);
        }
        state.locks.insert(name.into(), (owner.into(), now + ttl));
        Ok(true)
    }

    async fn unlock(&self, name: &str, owner: &str) -> Result<()> {
        let mut state = self.state("unlock").await?;
        if state
            .locks
            .get(name)
            .is_some_and(|(holder, _)| holder == owner)
        {
            state.locks.remove(name);
        }
        Ok(())
    }

    async fn reset(&self) -> Result<()> {
        self.state("reset").await?.values.clear();
        Ok(())
    }
}
