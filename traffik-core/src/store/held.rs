use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::{Instant, sleep};

use super::Store;
use crate::error::{Error, Result};
use crate::lock::{Terms, validity};

/// Locks that are held, and released in the end.
#[derive(Debug)]
pub(crate) struct Held<'a, S: Store + ?Sized> {
    store: &'a S,
    orphans: Option<&'a Orphans>,
    grip: Grip,
}

/// Locks whose holders were dropped before they could release them. A drop cannot wait, but
/// whoever next uses the store can.
#[derive(Debug, Default)]
pub(crate) struct Orphans(Mutex<Vec<Orphan>>);

#[derive(Debug)]
struct Orphan {
    name: String,
    owner: String,
}

/// Which locks an owner has, and until when.
#[derive(Debug)]
pub(crate) struct Grip {
    owner: String,
    /// Those that may be held, as far as anybody knows.
    names: SmallVec<[String; 1]>,
    /// When the first of them ends.
    until: Option<Instant>,
}

/// Between attempts to take a lock, as in the original.
const LONGEST_PAUSE_MS: u64 = 50;

impl<'a, S: Store + ?Sized> Held<'a, S> {
    /// Takes locks, in the order given: the same for everybody, or two could wait for each other.
    pub(crate) async fn acquire(
        store: &'a S,
        orphans: Option<&'a Orphans>,
        names: impl IntoIterator<Item = String>,
        terms: Terms,
    ) -> Result<Held<'a, S>> {
        let grip = Grip::new();
        let mut held = Held {
            store,
            orphans,
            grip,
        };
        if let Err(error) = held.grip.take(store, orphans, names, terms).await {
            // What failed may have been taken. Orphans are released later, by others.
            if orphans.is_none() {
                held.grip.release(store).await;
            }
            return Err(error);
        }
        Ok(held)
    }

    /// Whether the locks are still held, as far as our clock can tell.
    pub(crate) fn check(&self) -> Result<()> {
        match self.grip.remaining().is_zero() {
            false => Ok(()),
            // Not contention: the store was too slow.
            true => Err(Error::timeout(
                "a lock expired before the decision could be stored",
            )),
        }
    }

    /// Releases the locks. If the store fails, they expire.
    pub(crate) async fn release(mut self) {
        self.grip.release(self.store).await;
    }
}

impl<S: Store + ?Sized> Drop for Held<'_, S> {
    fn drop(&mut self) {
        if let Some(orphans) = self.orphans {
            let Grip { owner, names, .. } = &mut self.grip;
            let left = names.drain(..).map(|name| Orphan {
                name,
                owner: owner.clone(),
            });
            orphans.lock().extend(left);
        }
    }
}

impl Grip {
    /// Of a new owner, who holds nothing.
    pub(crate) fn new() -> Grip {
        Grip {
            owner: new_owner(),
            names: SmallVec::new(),
            until: None,
        }
    }

    /// Takes locks one after the other, or none of them.
    pub(crate) async fn take<S: Store + ?Sized>(
        &mut self,
        store: &S,
        orphans: Option<&Orphans>,
        names: impl IntoIterator<Item = String>,
        terms: Terms,
    ) -> Result<()> {
        let start = Instant::now();
        for name in names {
            let mut tries = 0;
            // Before it is tried: if this future is dropped meanwhile, nobody learns the answer.
            self.names.push(name.clone());
            loop {
                let asked = Instant::now();
                if store.lock(&name, &self.owner, terms.ttl).await? {
                    let until = asked + validity(terms.ttl);
                    self.until = Some(self.until.map_or(until, |first| first.min(until)));
                    break;
                }
                let waited = start.elapsed();
                if waited >= terms.patience {
                    self.names.pop();
                    self.release(store).await;
                    return Err(Error::contended("somebody else held the lock of a key"));
                }
                if let Some(orphans) = orphans {
                    orphans.release(store).await;
                }
                sleep(pause(tries).min(terms.patience - waited)).await;
                tries += 1;
            }
        }
        Ok(())
    }

    /// How long all of them are certainly held, as far as our clock can tell.
    pub(crate) fn remaining(&self) -> Duration {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        self.until.map_or(Duration::ZERO, left)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Releases the locks. If the store fails, they expire.
    pub(crate) async fn release<S: Store + ?Sized>(&mut self, store: &S) {
        while let Some(name) = self.names.last() {
            let released = store.unlock(name, &self.owner).await;
            // Only now: if this future is dropped before, it is an orphan.
            self.names.pop();
            let _ = released;
        }
    }
}

impl Orphans {
    /// Releases what dropped futures have left.
    pub(crate) async fn release<S: Store + ?Sized>(&self, store: &S) {
        loop {
            let Some(Orphan { name, owner }) = self.lock().pop() else {
                return;
            };
            // If this fails or is dropped, the lock expires.
            let _ = store.unlock(&name, &owner).await;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Orphan>> {
        // Nothing under this lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that nobody else has: a random one for the process, and a number.
fn new_owner() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let process = PROCESS.get_or_init(|| RandomState::new().hash_one(std::process::id()));
    format!("{process:016x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Twice as long with every try, and random, so that those who wait do not come together.
fn pause(tries: u32) -> Duration {
    let longest_us = (1_000 << tries.min(6)).min(LONGEST_PAUSE_MS * 1_000);
    Duration::from_micros(longest_us / 2 + RandomState::new().hash_one(tries) % (longest_us / 2))
}
