//! Instants, and the clocks that tell them.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::key::halves;

/// An instant: microseconds since the Unix epoch.
///
/// Microseconds, because they stay below 2^53 for centuries and so pass through Lua's doubles
/// unharmed; nanoseconds do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// The instant `micros` microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Timestamp {
        Timestamp(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Milliseconds since the epoch, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// Microseconds from `earlier` to `self`; zero if `earlier` is not earlier.
    pub const fn micros_since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The instant `micros` later, saturating.
    pub const fn plus_micros(self, micros: u64) -> Timestamp {
        Timestamp(self.0.saturating_add(micros))
    }

    fn of(time: SystemTime) -> Timestamp {
        // A clock set before 1970 reads as 1970.
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(micros(since_epoch))
    }
}

/// The microseconds of a duration, rounded down, saturating.
pub(crate) const fn micros(duration: Duration) -> u64 {
    let micros = duration.as_micros();
    #[expect(clippy::cast_possible_truncation, reason = "just compared")]
    if micros > u64::MAX as u128 {
        u64::MAX
    } else {
        micros as u64
    }
}

/// Durations in JSON are microseconds, as everywhere here.
#[cfg(feature = "serde")]
pub(crate) fn as_micros<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(micros(*duration))
}

/// Tells the time.
///
/// A clock may step back: every strategy tolerates it, and none admits more because of it.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// Time since this clock was made: it is never set, never steps back, and means nothing outside
/// this process. For intervals, such as how long to leave a failing store alone.
///
/// Asking the system costs 24 ns, half of a whole decision in memory; the processor's counter
/// costs 10 ns (see `benches`). Where it is unreliable, [`quanta`] itself asks the system.
#[derive(Debug)]
pub struct MonotonicClock {
    counter: quanta::Clock,
    /// The counter's reading at construction.
    origin: u64,
    /// Microseconds per tick of the counter, in units of 2^-64: one multiplication instead of
    /// three.
    micros_per_tick: u64,
}

impl MonotonicClock {
    /// A clock that begins at the epoch.
    pub fn new() -> MonotonicClock {
        let counter = quanta::Clock::new();
        let origin = counter.raw();
        MonotonicClock {
            origin,
            micros_per_tick: micros_per_tick(&counter),
            counter,
        }
    }

    #[inline]
    fn elapsed(&self) -> u64 {
        // Counters of different cores may disagree a little: saturate.
        let ticks = self.counter.raw().saturating_sub(self.origin);
        let (elapsed, _) = halves(u128::from(ticks) * u128::from(self.micros_per_tick));
        elapsed
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.elapsed())
    }
}

/// Wall-clock time: a [`MonotonicClock`] that is set by the system's once a second.
#[derive(Debug)]
pub struct SystemClock {
    counter: MonotonicClock,
    /// Wall time in µs at the counter's origin, as of the last synchronisation.
    wall_at_origin: AtomicU64,
    /// µs since the origin at which the next synchronisation is due.
    next_sync: AtomicU64,
}

const SYNC_EVERY_US: u64 = 1_000_000;

impl SystemClock {
    /// A clock set to the system's.
    pub fn new() -> SystemClock {
        SystemClock {
            counter: MonotonicClock::new(),
            wall_at_origin: AtomicU64::new(Timestamp::of(SystemTime::now()).0),
            next_sync: AtomicU64::new(SYNC_EVERY_US),
        }
    }

    #[cold]
    fn synchronise(&self, elapsed: u64, due: u64) {
        // One thread synchronises; the others go on with the last setting.
        let next = elapsed.saturating_add(SYNC_EVERY_US);
        let claimed =
            self.next_sync
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_ok() {
            let wall = Timestamp::of(SystemTime::now()).0;
            self.wall_at_origin
                .store(wall.saturating_sub(elapsed), Ordering::Relaxed);
        }
    }
}

/// Measured over 2^40 ticks, minutes, so that what nanoseconds round off does not matter.
fn micros_per_tick(counter: &quanta::Clock) -> u64 {
    let nanos = counter.delta_as_nanos(0, 1 << 40);
    let scaled = (u128::from(nanos) << (64 - 40)) / 1_000;
    // A counter that ticks once in a microsecond or less often is none that quanta would choose.
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Timestamp {
        let elapsed = self.counter.elapsed();
        let due = self.next_sync.load(Ordering::Relaxed);
        if elapsed >= due {
            self.synchronise(elapsed, due);
        }
        Timestamp(self.wall_at_origin.load(Ordering::Relaxed) + elapsed)
    }
}

/// A clock that moves only when told to, for tests. Clones show the same time.
///
/// ```
/// use std::time::Duration;
/// use traffik_core::{Clock, ManualClock};
///
/// let clock = ManualClock::default();
/// let start = clock.now();
/// clock.advance(Duration::from_millis(1500));
/// assert_eq!(clock.now().micros_since(start), 1_500_000);
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that shows `start`.
    pub fn at(start: Timestamp) -> ManualClock {
        ManualClock(Arc::new(AtomicU64::new(start.0)))
    }

    /// Moves the time forward.
    pub fn advance(&self, by: Duration) {
        self.advance_micros(micros(by));
    }

    /// Moves the time forward by microseconds.
    pub fn advance_micros(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Sets the time, forward or back.
    pub fn set(&self, to: Timestamp) {
        self.0.store(to.0, Ordering::Relaxed);
    }
}

impl Default for ManualClock {
    /// The first instant of 2024, at which every window up to a day begins.
    fn default() -> Self {
        Self::at(Timestamp(1_704_067_200_000_000))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clock_agrees_with_the_system() {
        let clock = SystemClock::new();
        let (before, now, after) = (SystemTime::now(), clock.now(), SystemTime::now());
        // The two clocks are read one after the other: allow a scheduling hiccup, not an error.
        assert!(now.0 + 100_000 >= Timestamp::of(before).0);
        assert!(now.0 <= Timestamp::of(after).0 + 100_000);
    }

    #[test]
    fn synchronising_corrects_a_wrong_setting() {
        let clock = SystemClock::new();
        clock.wall_at_origin.store(5, Ordering::Relaxed);
        clock.next_sync.store(0, Ordering::Relaxed);
        let now = clock.now();
        assert!(now.micros_since(Timestamp::EPOCH) > 1_600_000_000_000_000);
        assert!(clock.next_sync.load(Ordering::Relaxed) >= SYNC_EVERY_US);
    }
}
