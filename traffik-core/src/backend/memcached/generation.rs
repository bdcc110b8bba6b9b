//! Which of all namespaces of the same name is in force: a reset starts the next.
//!
//! Nothing in memcached lists keys or deletes by prefix, and `flush_all` would delete what belongs
//! to others. So the number of the generation is part of every key: a reset makes all older cells
//! unreachable, and they expire by themselves.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::server::Server;
use crate::error::Result;
use crate::key::KeyHasher;
use crate::time::{Timestamp, micros};

/// The highest generation that this process has seen on any server. It never falls.
#[derive(Debug)]
pub(super) struct Generation {
    namespace: String,
    current: AtomicU64,
    /// The key under which each server keeps the number.
    name: String,
    sightings: Box<[Sighting]>,
    origin: Instant,
    lost: AtomicU64,
}

/// What is known of one server.
#[derive(Debug, Default)]
struct Sighting {
    /// Whether the number has been seen there.
    seen: AtomicBool,
    /// Microseconds since the origin.
    looked_at: AtomicU64,
    /// How many items it had evicted, and when we asked.
    evicted: Mutex<Option<(u64, Instant)>>,
}

/// How often a busy process looks for resets by others, after it has answered somebody.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An idle process looks before it decides if it has not for this long.
const STALE_AFTER: Duration = Duration::from_secs(2);

impl Generation {
    pub(super) fn new(namespace: String, servers: usize) -> Generation {
        let digest = KeyHasher::throttle(&["memcached generation", &namespace]);
        Generation {
            namespace,
            current: AtomicU64::new(0),
            name: format!("tfkg:{digest:032x}"),
            sightings: (0..servers).map(|_| Sighting::default()).collect(),
            origin: Instant::now(),
            lost: AtomicU64::new(0),
        }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What keeps keys of this generation apart from all others.
    pub(super) fn prefix(&self) -> u128 {
        let current = self.current.load(Ordering::Acquire);
        KeyHasher::throttle(&["memcached", &self.namespace, &current.to_string()])
    }

    /// How often a server had forgotten the number, and so everything, and how many items were
    /// evicted. The number itself never is: it is read too often.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Makes sure that the number is known and not too old.
    pub(super) fn ensure(&self, at: usize, server: &Server, deadline: Instant) -> Result<()> {
        if !self.sightings[at].seen.load(Ordering::Acquire) {
            self.look(at, server, deadline)?;
            self.count_evictions_if_due(at, server, deadline);
            return Ok(());
        }
        if self.claim(at, STALE_AFTER) {
            // What was known is still a good answer.
            let _ = self.look(at, server, deadline);
        }
        Ok(())
    }

    /// Looks for a reset by another process, if it is time.
    pub(super) fn look_if_due(&self, at: usize, server: &Server, deadline: Instant) {
        if self.claim(at, LOOK_EVERY) {
            let _ = self.look(at, server, deadline);
        }
    }

    /// Counts what a server has evicted, if it is time.
    pub(super) fn count_evictions_if_due(&self, at: usize, server: &Server, deadline: Instant) {
        // Whoever asks holds it, so that counts come in their order.
        let Ok(mut evicted) = self.sightings[at].evicted.try_lock() else {
            return;
        };
        let now = Instant::now();
        let before = *evicted;
        if before.is_some_and(|(_, asked)| now - asked < LOOK_EVERY) {
            return;
        }
        if let Ok(Some(count)) = server.evictions(deadline) {
            if let Some((before, _)) = before {
                // One that has restarted counts from zero.
                let lost = count.checked_sub(before).unwrap_or(count);
                self.lost.fetch_add(lost, Ordering::Relaxed);
            }
            *evicted = Some((count, now));
        }
    }

    /// Starts the next generation in this process.
    pub(super) fn advance(&self, now: Timestamp) {
        let next = |current: u64| Some(now.as_micros().max(current + 1));
        let _ = self
            .current
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// Lets other processes find the present generation on a server.
    pub(super) fn tell(&self, at: usize, server: &Server, deadline: Instant) -> Result<()> {
        let current = self.current.load(Ordering::Acquire);
        server.set(&self.name, &current.to_string(), deadline)?;
        self.sightings[at].seen.store(true, Ordering::Release);
        Ok(())
    }

    fn look(&self, at: usize, server: &Server, deadline: Instant) -> Result<()> {
        let item = server.get(&self.name, deadline)?;
        let current = self.current.load(Ordering::Acquire);
        let stored = item
            .as_ref()
            .and_then(|item| std::str::from_utf8(&item.value).ok()?.parse::<u64>().ok());
        match stored {
            Some(stored) if stored >= current => {
                self.current.fetch_max(stored, Ordering::AcqRel);
            }
            Some(_) => self.tell(at, server, deadline)?,
            None if item.is_some() => self.tell(at, server, deadline)?,
            None => {
                if self.sightings[at].seen.load(Ordering::Acquire) {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
                // Not `set`: another process may know a later one.
                server.add(&self.name, current.to_string().as_bytes(), 0, deadline)?;
            }
        }
        self.sightings[at].seen.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the last look is that long ago, and this caller is the one to look again.
    fn claim(&self, at: usize, age: Duration) -> bool {
        let now = micros(self.origin.elapsed());
        let looked_at = &self.sightings[at].looked_at;
        let last = looked_at.load(Ordering::Relaxed);
        now.saturating_sub(last) >= micros(age)
            && looked_at
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}
