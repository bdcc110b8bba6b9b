//! What `metrics` is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

#[cfg(feature = "tokio")]
use ::metrics::Gauge;
use ::metrics::{Counter, Histogram, counter, gauge, histogram};

use super::Outcome;
use super::offenders::{Offender, Sketch, Watch};
use crate::decision::Decision;
use crate::identity::Identity;
#[cfg(feature = "tokio")]
use crate::lease::LeaseInfo;
use crate::metrics as names;
use crate::resilience::BreakerState;
use crate::throttle::Difference;

/// The numbers of one throttle.
#[derive(Debug)]
pub(crate) struct Meters {
    name: String,
    /// Asked for when it first decides, since the recorder may not be there when it is built.
    handles: OnceLock<Handles>,
    /// One with that of the throttle that it takes the place of.
    offenders: Arc<Mutex<Sketch>>,
    watch: Watch,
}

#[derive(Debug)]
struct Handles {
    admitted: Counter,
    denied: Counter,
    never: Counter,
    withheld: Counter,
    failed: Counter,
    near_limit: Counter,
    by_fallback: Counter,
    by_policy: Counter,
    shadow: [Counter; 5],
    seconds: Histogram,
    #[cfg(feature = "tokio")]
    waiting: Gauge,
}

impl Meters {
    pub(crate) fn new(name: &str) -> Meters {
        Meters {
            name: name.to_owned(),
            handles: OnceLock::new(),
            offenders: Arc::default(),
            watch: Watch::default(),
        }
    }

    /// Counts on where another one is, whose place it takes.
    pub(crate) fn going_on(self, other: &Meters) -> Meters {
        Meters {
            offenders: Arc::clone(&other.offenders),
            ..self
        }
    }

    pub(super) fn decided(&self, outcome: Outcome, decision: &Decision, who: &Identity) {
        let handles = self.handles();
        handles.of(outcome).increment(1);
        if outcome == Outcome::Admitted && decision.remaining() <= decision.limit() / 10 {
            handles.near_limit.increment(1);
        }
        match (decision.is_unchecked(), decision.is_degraded()) {
            (true, _) => handles.by_policy.increment(1),
            (false, true) => handles.by_fallback.increment(1),
            (false, false) => {}
        }
        // Whoever could not be checked did nothing.
        if matches!(outcome, Outcome::Denied | Outcome::Never) && !decision.is_unchecked() {
            self.offenders().note(who);
        }
    }

    pub(super) fn failed(&self) {
        self.handles().failed.increment(1);
    }

    pub(super) fn shadowed(&self, difference: Difference) {
        self.handles().shadow[difference as usize].increment(1);
    }

    /// A decision outside of this process was made, or failed.
    pub(crate) fn took(&self, since: &Stopwatch) {
        self.handles().seconds.record(since.0.elapsed());
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn waits(&self) {
        self.handles().waiting.increment(1);
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn waits_no_more(&self) {
        self.handles().waiting.decrement(1);
    }

    pub(crate) fn worst(&self) -> Vec<Offender> {
        self.offenders().worst()
    }

    pub(crate) fn watching(self, at_most: usize, is_named: bool) -> Meters {
        static BUILT: AtomicU64 = AtomicU64::new(1);
        Meters {
            watch: Watch {
                at_most,
                is_named,
                built: BUILT.fetch_add(1, Ordering::Relaxed),
            },
            ..self
        }
    }

    fn offenders(&self) -> MutexGuard<'_, Sketch> {
        // Consistent between statements.
        let mut sketch = self
            .offenders
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Not when it is built: an update that is refused in the end would have changed what is in force.
        sketch.watch(self.watch);
        sketch
    }

    fn handles(&self) -> &Handles {
        self.handles
            .get_or_init(|| Handles::of_throttle(&self.name))
    }
}

impl Handles {
    fn of_throttle(name: &str) -> Handles {
        let name = || name.to_owned();
        let decisions = |outcome: Outcome| {
            let outcome = outcome.name();
            counter!(names::DECISIONS, "throttle" => name(), "outcome" => outcome)
        };
        let degraded =
            |by: &'static str| counter!(names::DEGRADED, "throttle" => name(), "by" => by);
        Handles {
            admitted: decisions(Outcome::Admitted),
            denied: decisions(Outcome::Denied),
            never: decisions(Outcome::Never),
            withheld: decisions(Outcome::Withheld),
            failed: decisions(Outcome::Failed),
            near_limit: counter!(names::NEAR_LIMIT, "throttle" => name()),
            by_fallback: degraded("fallback"),
            by_policy: degraded("policy"),
            shadow: Difference::ALL.map(|difference| {
                let outcome = difference.name();
                counter!(names::SHADOW, "throttle" => name(), "outcome" => outcome)
            }),
            seconds: histogram!(names::SECONDS, "throttle" => name()),
            #[cfg(feature = "tokio")]
            waiting: gauge!(names::WAITING, "throttle" => name()),
        }
    }

    fn of(&self, outcome: Outcome) -> &Counter {
        match outcome {
            Outcome::Admitted => &self.admitted,
            Outcome::Denied => &self.denied,
            Outcome::Never => &self.never,
            Outcome::Withheld => &self.withheld,
            Outcome::Failed => &self.failed,
        }
    }
}

/// Since when something has taken its time.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }
}

/// How many breakers of a name are in each state, by how bad it is. What threads tell in another order than that in
/// which it happened may be below zero in between.
static BREAKERS: Mutex<BTreeMap<String, [i64; 3]>> = Mutex::new(BTreeMap::new());

/// A breaker was made, changed its state, or is gone. Of several of one name the worst is told.
pub(crate) fn breaker_is(name: &str, from: Option<BreakerState>, to: Option<BreakerState>) {
    // Until it is told, so that the last who tells knows of all.
    let mut breakers = BREAKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut states = breakers.remove(name).unwrap_or_default();
    for (state, change) in [(from, -1), (to, 1)] {
        if let Some(state) = state {
            states[usize::from(state.badness())] += change;
        }
    }
    let worst = (0..3_u8).rfind(|badness| states[usize::from(*badness)] > 0);
    gauge!(names::BREAKER, "breaker" => name.to_owned()).set(worst.unwrap_or(0));
    if states != [0; 3] {
        breakers.insert(name.to_owned(), states);
    }
    drop(breakers);
    if let (Some(_), Some(to)) = (from, to) {
        let to = match to {
            BreakerState::Closed => "closed",
            BreakerState::HalfOpen => "half_open",
            BreakerState::Open => "open",
        };
        counter!(names::TRANSITIONS, "breaker" => name.to_owned(), "to" => to).increment(1);
    }
}

/// One more backend fails, or one less.
pub(crate) fn outages(of: &'static str, change: i8) {
    gauge!(names::OUTAGES, "of" => of).increment(f64::from(change));
}

#[cfg(feature = "redis")]
pub(crate) fn state_losses(losses: u64) {
    if losses > 0 {
        counter!(names::LOSSES).increment(losses);
    }
}

/// What was told of leases already; all that lend are told of as one.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub(crate) struct LeaseMeters(Mutex<LeaseInfo>);

#[cfg(feature = "tokio")]
impl LeaseMeters {
    pub(crate) fn new() -> LeaseMeters {
        LeaseMeters(Mutex::default())
    }

    pub(crate) fn tell(&self, info: impl FnOnce() -> LeaseInfo) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let info = info();
        for (name, now, before) in [
            (names::LEASE_LOCAL, info.local, told.local),
            (names::LEASE_TRIPS, info.trips, told.trips),
            (names::LEASE_LENT, info.lent, told.lent),
            (names::LEASE_RETURNED, info.returned, told.returned),
            (names::LEASE_STRANDED, info.stranded, told.stranded),
            (names::LEASE_VOID, info.void, told.void),
        ] {
            counter!(name).increment(now.saturating_sub(before));
        }
        gauge!(names::LEASE_HELD).increment(held(&info) - held(&told));
        *told = info;
    }
}

/// What was held then ends by itself.
#[cfg(feature = "tokio")]
impl Drop for LeaseMeters {
    fn drop(&mut self) {
        let told = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if told.held > 0 {
            gauge!(names::LEASE_HELD).decrement(held(told));
        }
    }
}

#[cfg(feature = "tokio")]
fn held(info: &LeaseInfo) -> f64 {
    u32::try_from(info.held).unwrap_or(u32::MAX).into()
}
