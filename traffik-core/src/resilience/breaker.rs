//! When to leave a failing store alone.

mod builder;
mod shards;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub use builder::CircuitBreakerBuilder;
use builder::Settings;

use crate::error::{Error, Result};
use crate::observe;
use crate::time::{Timestamp, micros};

/// Decides whether a store that has been failing is asked at all.
///
/// * **Closed**, at first: every call passes. [`failure_threshold`] failures in a row open it; a
///   success forgets the failures before it.
/// * **Open**: no call passes, so a dead store costs nobody a timeout.
/// * **Half open**, after a [wait](CircuitBreakerBuilder::recovery) of 100 ms at first, and twice as
///   long each time, up to 5 s: one call at a time passes, as a probe. [`success_threshold`]
///   successes in a row close the breaker, a failure opens it again. A probe that is dropped
///   unfinished proves nothing and makes room for the next.
///
/// In a tokio runtime the probe is no client's hit, but one that asks the backend whether it is
/// [ready](crate::Backend::ready), in a task of its own; clients are spared until it has succeeded.
/// Elsewhere the call of a client is the probe.
///
/// A store whose keys are on several [shards](crate::Backend::shard_of), such as a Redis Cluster, has a
/// breaker per shard, all with these settings: one node that is dead does not take the keys of the
/// others away. This is then the sum of them: open if any is.
///
/// Only calls of the store itself count. What a fallback achieves meanwhile says nothing about the
/// store, nor does a denial that a backend remembers and gives at once. Calls that were sent before
/// the state last changed do not count either.
///
/// Clones share the state: keep one to [look at](CircuitBreaker::info), or to
/// [force](CircuitBreaker::force_open) the breaker open for maintenance. Every change of state is
/// one line in the log and one call of the [hook](CircuitBreakerBuilder::on_transition).
///
/// ```
/// use std::time::Duration;
/// use traffik_core::{BackendExt, CircuitBreaker, MemoryBackend};
/// # let redis = MemoryBackend::new();
///
/// let breaker = CircuitBreaker::builder()
///     .name("redis")
///     .failure_threshold(3)
///     .recovery_timeout(Duration::from_millis(500))
///     .build()?;
/// let backend = redis.failover(MemoryBackend::new(), breaker.clone());
/// assert!(!breaker.state().is_open());
/// # let _ = backend;
/// # Ok::<(), traffik_core::Error>(())
/// ```
///
/// [`failure_threshold`]: CircuitBreakerBuilder::failure_threshold
/// [`success_threshold`]: CircuitBreakerBuilder::success_threshold
#[derive(Clone)]
pub struct CircuitBreaker(Arc<Inner>);

struct Inner {
    settings: Arc<Settings>,
    /// Of the settings; of a shard it says which.
    name: String,
    /// State and generation in one word, so that a permit knows whether the state has changed
    /// since. Written under the lock, read without.
    phase: AtomicU64,
    /// Failures in a row while closed.
    failures: AtomicU32,
    /// While open: when a probe may pass, in µs of the clock.
    probe_at: AtomicU64,
    trial: Mutex<Trial>,
    opened: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    /// Whether there are any shards.
    is_sharded: AtomicBool,
    shards: RwLock<Vec<(u64, CircuitBreaker)>>,
}

/// What only changes of state and half-open calls touch.
#[derive(Debug)]
struct Trial {
    probing: bool,
    successes: u32,
    since: Timestamp,
    /// How often it opened since it was closed.
    openings: u32,
}

/// From which state to which.
type Change = (BreakerState, BreakerState);

/// Whether a [`CircuitBreaker`] lets calls pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum BreakerState {
    /// All calls pass.
    Closed,
    /// None does.
    Open,
    /// One at a time does, as a probe.
    HalfOpen,
}

/// What a [`CircuitBreaker`] has seen, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BreakerInfo {
    /// The present state. An open breaker turns half open when the first call asks after
    /// its recovery timeout.
    pub state: BreakerState,
    /// How long it has been in this state, in µs.
    pub state_age_us: u64,
    /// Failures in a row, while closed.
    pub failures: u32,
    /// Probes in a row that succeeded, while half open.
    pub successes: u32,
    /// How often it opened.
    pub opened_total: u64,
    /// How many calls failed.
    pub failed_total: u64,
    /// How many calls were not let pass.
    pub refused_total: u64,
}

/// A change of state, for the [hook](CircuitBreakerBuilder::on_transition).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Transition<'a> {
    /// The name of the breaker.
    pub breaker: &'a str,
    /// The state before.
    pub from: BreakerState,
    /// The state after.
    pub to: BreakerState,
    /// The failure that opened the breaker, if one did.
    pub cause: Option<&'a Error>,
}

impl CircuitBreaker {
    /// A breaker that opens after 5 failures in a row, probes after 100 ms, then less and less often,
    /// and closes after 2 successes.
    pub fn new() -> CircuitBreaker {
        Self::from_settings(Arc::new(Settings::default()), None)
    }

    /// A breaker with other settings.
    pub fn builder() -> CircuitBreakerBuilder {
        CircuitBreakerBuilder::default()
    }

    fn from_settings(settings: Arc<Settings>, shard: Option<u64>) -> CircuitBreaker {
        let since = settings.clock.now();
        let name = match shard {
            None => settings.name.clone(),
            Some(shard) => format!("{}, shard {shard:x}", settings.name),
        };
        observe::breaker_is(&name, None, Some(BreakerState::Closed));
        CircuitBreaker(Arc::new(Inner {
            settings,
            name,
            phase: AtomicU64::new(BreakerState::Closed as u64),
            failures: AtomicU32::new(0),
            probe_at: AtomicU64::new(0),
            trial: Mutex::new(Trial {
                probing: false,
                successes: 0,
                since,
                openings: 0,
            }),
            opened: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            is_sharded: AtomicBool::new(false),
            shards: RwLock::default(),
        }))
    }

    /// The name given at construction.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The present state; of several shards the worst.
    pub fn state(&self) -> BreakerState {
        let own = self.own_state();
        match self.0.is_sharded.load(Ordering::Acquire) {
            false => own,
            true => self.worst_state(own),
        }
    }

    fn own_state(&self) -> BreakerState {
        BreakerState::of(self.phase())
    }

    /// What it has seen, on all shards together.
    pub fn info(&self) -> BreakerInfo {
        let own = self.own_info();
        match self.0.is_sharded.load(Ordering::Acquire) {
            false => own,
            true => self.sum_of_infos(own),
        }
    }

    fn own_info(&self) -> BreakerInfo {
        let trial = self.lock();
        BreakerInfo {
            state: self.own_state(),
            state_age_us: self.0.settings.clock.now().micros_since(trial.since),
            failures: self.0.failures.load(Ordering::Relaxed),
            successes: trial.successes,
            opened_total: self.0.opened.load(Ordering::Relaxed),
            failed_total: self.0.failed.load(Ordering::Relaxed),
            refused_total: self.0.refused.load(Ordering::Relaxed),
        }
    }

    /// Opens it until [`force_close`](CircuitBreaker::force_close): no probe passes meanwhile.
    pub fn force_open(&self) {
        // Itself first: a shard that is found meanwhile is forced then, or found among the others.
        let change = self.open_for_good();
        self.announce(change, None);
        self.of_each_shard(CircuitBreaker::force_open);
    }

    fn open_for_good(&self) -> Option<Change> {
        let mut trial = self.lock();
        let change = self.change(&mut trial, BreakerState::Open);
        self.0.probe_at.store(u64::MAX, Ordering::Relaxed);
        change
    }

    /// Asked under the lock.
    fn is_forced(&self) -> bool {
        self.own_state().is_open() && self.0.probe_at.load(Ordering::Relaxed) == u64::MAX
    }

    /// Closes it, all failures forgotten.
    pub fn force_close(&self) {
        let mut trial = self.lock();
        let change = self.change(&mut trial, BreakerState::Closed);
        drop(trial);
        self.announce(change, None);
        self.of_each_shard(CircuitBreaker::force_close);
    }

    /// Leave to make one call; `None` if it must not be made.
    pub fn acquire(&self) -> Option<Permit<'_>> {
        let phase = self.phase();
        let phase = match BreakerState::of(phase) {
            BreakerState::Closed => Some(phase),
            // The common case of an outage takes no lock.
            BreakerState::Open if !self.is_probe_due() => None,
            BreakerState::Open | BreakerState::HalfOpen => self.probe(),
        };
        if phase.is_none() {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
        }
        phase.map(|phase| Permit {
            breaker: self,
            phase,
        })
    }

    /// A call was not let pass, since a probe is made in its stead.
    pub(super) fn refuse(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The longest time between two probes.
    pub(super) fn longest_wait(&self) -> std::time::Duration {
        self.0.settings.recovery.longest()
    }

    fn is_probe_due(&self) -> bool {
        self.0.settings.clock.now().as_micros() >= self.0.probe_at.load(Ordering::Relaxed)
    }

    #[cold]
    fn probe(&self) -> Option<u64> {
        let mut trial = self.lock();
        let (free, change) = match self.own_state() {
            BreakerState::Closed => return Some(self.phase()),
            BreakerState::HalfOpen => (!trial.probing, None),
            BreakerState::Open if self.is_probe_due() => {
                (true, self.change(&mut trial, BreakerState::HalfOpen))
            }
            BreakerState::Open => (false, None),
        };
        trial.probing = true;
        let phase = self.phase();
        drop(trial);
        self.announce(change, None);
        free.then_some(phase)
    }

    #[cold]
    fn fail(&self, phase: u64, cause: &Error) {
        self.0.failed.fetch_add(1, Ordering::Relaxed);
        let mut trial = self.lock();
        if self.phase() != phase {
            return;
        }
        let opens = match BreakerState::of(phase) {
            BreakerState::Closed => {
                let failures = self.0.failures.fetch_add(1, Ordering::Relaxed) + 1;
                failures >= self.0.settings.failure_threshold
            }
            // One failed probe is enough.
            BreakerState::HalfOpen | BreakerState::Open => true,
        };
        if opens {
            let change = self.change(&mut trial, BreakerState::Open);
            drop(trial);
            self.announce(change, Some(cause));
        }
    }

    fn succeed(&self, phase: u64) {
        if BreakerState::of(phase) == BreakerState::Closed {
            // A load is cheaper than a store, and this is what nearly every call does.
            if self.0.failures.load(Ordering::Relaxed) != 0 && self.phase() == phase {
                self.0.failures.store(0, Ordering::Relaxed);
            }
            return;
        }
        let mut trial = self.lock();
        if self.phase() != phase {
            return;
        }
        trial.probing = false;
        trial.successes += 1;
        if trial.successes >= self.0.settings.success_threshold {
            let change = self.change(&mut trial, BreakerState::Closed);
            drop(trial);
            self.announce(change, None);
        }
    }

    fn abandon(&self, phase: u64) {
        if BreakerState::of(phase) == BreakerState::HalfOpen {
            let mut trial = self.lock();
            if self.phase() == phase {
                trial.probing = false;
            }
        }
    }

    fn phase(&self) -> u64 {
        self.0.phase.load(Ordering::Acquire)
    }

    /// Enters a state, forgetting what led to the one before; tells from where, unless it is there
    /// already.
    fn change(&self, trial: &mut Trial, to: BreakerState) -> Option<Change> {
        let (inner, from) = (&*self.0, self.own_state());
        let now = inner.settings.clock.now();
        if to == BreakerState::Open {
            trial.openings = trial.openings.saturating_add(1);
            let wait = inner.settings.recovery.wait(trial.openings);
            let probe_at = now.plus_micros(micros(wait));
            inner
                .probe_at
                .store(probe_at.as_micros(), Ordering::Relaxed);
        }
        inner.failures.store(0, Ordering::Relaxed);
        if to == from {
            return None;
        }
        *trial = Trial {
            probing: false,
            successes: 0,
            since: now,
            openings: match to {
                BreakerState::Closed => 0,
                BreakerState::Open | BreakerState::HalfOpen => trial.openings,
            },
        };
        if to == BreakerState::Open {
            inner.opened.fetch_add(1, Ordering::Relaxed);
        }
        self.begin(to);
        Some((from, to))
    }

    /// Calls that were sent before do not count any more.
    fn begin(&self, state: BreakerState) {
        let generation = (self.phase() >> BreakerState::BITS) + 1;
        let phase = generation << BreakerState::BITS | state as u64;
        self.0.phase.store(phase, Ordering::Release);
    }

    /// Called without the lock: the hook may ask the breaker.
    fn announce(&self, change: Option<Change>, cause: Option<&Error>) {
        let Some((from, to)) = change else { return };
        let name = self.name();
        observe::breaker_is(name, Some(from), Some(to));
        observe::breaker_changed(name, from, to, cause);
        if let Some(hook) = &self.0.settings.hook {
            hook(&Transition {
                breaker: name,
                from,
                to,
                cause,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Trial> {
        // No user code runs under the lock but the clock; the state is consistent at every step.
        self.0.trial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = BreakerState::of(*self.phase.get_mut());
        observe::breaker_is(&self.name, Some(state), None);
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("name", &self.name())
            .field("info", &self.info())
            .finish_non_exhaustive()
    }
}

/// Leave to make one call, whose outcome must be told. Dropped without, it proves nothing.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once lets a probe go to waste"]
pub struct Permit<'a> {
    breaker: &'a CircuitBreaker,
    phase: u64,
}

impl Permit<'_> {
    /// Whether it is for a probe.
    pub(super) fn is_probe(&self) -> bool {
        BreakerState::of(self.phase) == BreakerState::HalfOpen
    }

    /// The same, to be used by a task.
    pub(super) fn detach(self) -> Probe {
        let (breaker, phase) = (self.breaker.clone(), self.phase);
        std::mem::forget(self);
        Probe {
            breaker,
            phase: Some(phase),
        }
    }

    /// The store answered.
    pub fn succeed(self) {
        self.breaker.succeed(self.phase);
        // Its place is free already, and may be another's by now.
        std::mem::forget(self);
    }

    /// The store did not answer, or was in no state to.
    pub fn fail(self, cause: &Error) {
        self.breaker.fail(self.phase, cause);
        std::mem::forget(self);
    }

    /// Tells the outcome of a call. Contention is a success, since somebody else's write went
    /// through; a wrong argument or a closed backend says nothing about the store.
    pub fn settle<T>(self, outcome: &Result<T>) {
        match outcome {
            Ok(_) => self.succeed(),
            Err(error) if error.is_contended() => self.succeed(),
            Err(error) if error.is_invalid() || error.is_closed() => drop(self),
            Err(error) => self.fail(error),
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.breaker.abandon(self.phase);
    }
}

/// Leave to make one probe, at any time; dropped unused, it makes room for the next.
#[derive(Debug)]
pub(super) struct Probe {
    breaker: CircuitBreaker,
    /// `None` once it has been used.
    phase: Option<u64>,
}

impl Probe {
    pub(super) fn is_of(&self, breaker: &CircuitBreaker) -> bool {
        Arc::ptr_eq(&self.breaker.0, &breaker.0)
    }

    /// Tells how it went, and whether another one is wanted at once.
    pub(super) fn settle(mut self, outcome: &Result<()>) -> Option<Probe> {
        let breaker = self.breaker.clone();
        let permit = self.phase.take().map(|phase| Permit {
            breaker: &breaker,
            phase,
        });
        permit?.settle(outcome);
        match outcome.is_ok() && breaker.own_state() == BreakerState::HalfOpen {
            true => breaker.acquire().map(Permit::detach),
            false => None,
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(phase) = self.phase {
            self.breaker.abandon(phase);
        }
    }
}

impl BreakerState {
    const BITS: u32 = 2;

    /// Whether no call passes.
    pub const fn is_open(self) -> bool {
        matches!(self, BreakerState::Open)
    }

    const fn of(phase: u64) -> BreakerState {
        match phase & 3 {
            0 => BreakerState::Closed,
            1 => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        }
    }

    pub(crate) const fn badness(self) -> u8 {
        match self {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half open",
        })
    }
}

#[cfg(test)]
mod tests;
