use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::{Clock, MonotonicClock, Timestamp, micros};

/// Time that never steps back, and goes on while the machine sleeps.
///
/// Counters and the clocks behind `Instant` may stop then (on Linux they do), the wall clock does
/// not; but that may be set. So the counter is read, and when the wall clock has gone further than
/// it, this clock has, too. Set forward, it runs ahead: leases end too early, once. Set back,
/// nothing happens.
///
/// The wall clock is read once a millisecond at most: it takes ten times as long as the counter. Before
/// a machine sleeps its processes are stopped, then its devices, and afterwards the other way round:
/// the counter runs on for longer than that meanwhile.
#[derive(Debug)]
pub(super) struct WakefulClock {
    counter: MonotonicClock,
    /// The counter when the wall clock was read last.
    compared_us: AtomicU64,
    compare_every_us: u64,
    /// By how much the wall clock is ahead of the counter, as far as that is explained.
    ahead_us: AtomicU64,
    /// What the counter missed.
    missed_us: AtomicU64,
    adjusting: Mutex<()>,
    wall: fn() -> u64,
}

impl WakefulClock {
    /// Clocks differ by this much without anybody having slept. A lease is shorter by as much.
    pub(super) const TOLERANCE_US: u64 = 1_000;

    pub(super) fn new() -> WakefulClock {
        let wall = || {
            micros(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default(),
            )
        };
        Self::with(wall, Self::TOLERANCE_US)
    }

    fn with(wall: fn() -> u64, compare_every_us: u64) -> WakefulClock {
        let counter = MonotonicClock::new();
        let counted = counter.now().as_micros();
        let ahead_us = wall().wrapping_sub(counted);
        WakefulClock {
            counter,
            compared_us: AtomicU64::new(counted),
            compare_every_us,
            ahead_us: AtomicU64::new(ahead_us),
            missed_us: AtomicU64::new(0),
            adjusting: Mutex::new(()),
            wall,
        }
    }

    /// The counter, and by how much the wall clock is ahead of it: read again if the thread may have
    /// been interrupted in between.
    fn read(&self) -> (u64, u64) {
        let mut counted = self.counter.now().as_micros();
        for _ in 0..3 {
            let wall = (self.wall)();
            let after = self.counter.now().as_micros();
            if after.saturating_sub(counted) < Self::TOLERANCE_US / 2 {
                return (after, wall.wrapping_sub(after));
            }
            counted = after;
        }
        (counted, (self.wall)().wrapping_sub(counted))
    }

    /// Looks whether the wall clock has gone further. Returns the counter.
    #[inline(never)]
    fn compare(&self) -> u64 {
        let (mut counted, ahead_us) = self.read();
        let explained = self.ahead_us.load(Ordering::Acquire);
        let unexplained = ahead_us.wrapping_sub(explained);
        let differs = unexplained.wrapping_add(Self::TOLERANCE_US);
        if differs > 2 * Self::TOLERANCE_US {
            self.adjust();
            counted = self.counter.now().as_micros();
        }
        // Whoever sees this sees what was missed until then.
        self.compared_us.store(counted, Ordering::Release);
        counted
    }

    #[cold]
    fn adjust(&self) {
        let _adjusting = self
            .adjusting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (_, ahead_us) = self.read();
        let slept_us = ahead_us.wrapping_sub(self.ahead_us.load(Ordering::Relaxed));
        // What looks like more than half of all there is went back.
        if slept_us <= u64::MAX / 2 {
            self.missed_us.fetch_add(slept_us, Ordering::Relaxed);
        }
        // Who sees this sees what was missed.
        self.ahead_us.store(ahead_us, Ordering::Release);
    }
}

impl Clock for WakefulClock {
    #[inline]
    fn now(&self) -> Timestamp {
        let mut counted = self.counter.now().as_micros();
        // It may have begun anew.
        let since_us = counted.abs_diff(self.compared_us.load(Ordering::Acquire));
        if since_us >= self.compare_every_us {
            counted = self.compare();
        }
        Timestamp::from_micros(counted + self.missed_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static WALL: AtomicU64 = AtomicU64::new(1_704_067_200_000_000);

    /// The wall clock here stands still but where it is set: what a counter sees of a machine that
    /// sleeps is that the wall clock jumps. How far is known but for the tolerance: a thread may be
    /// interrupted between its readings of the two.
    #[test]
    fn goes_on_while_the_machine_sleeps_and_never_back() {
        let real = || {
            static SINCE: std::sync::LazyLock<std::time::Instant> =
                std::sync::LazyLock::new(std::time::Instant::now);
            WALL.load(Ordering::Relaxed) + micros(SINCE.elapsed())
        };
        let clock = WakefulClock::with(real, 0);
        let before = clock.now();
        WALL.fetch_add(3_600_000_000, Ordering::Relaxed);
        let slept = clock.now();
        assert!(slept.micros_since(before) >= 3_600_000_000 - WakefulClock::TOLERANCE_US);
        WALL.fetch_sub(7_200_000_000, Ordering::Relaxed);
        let set_back = clock.now();
        assert!(set_back >= slept);
        assert!(
            set_back.micros_since(slept) < 60_000_000,
            "a busy machine, not a step"
        );
        WALL.fetch_add(5_000_000, Ordering::Relaxed);
        assert!(clock.now().micros_since(set_back) >= 5_000_000 - WakefulClock::TOLERANCE_US);
    }

    /// Without any other load: the wall clock alone jumps, and the counter runs on.
    #[test]
    fn a_sleep_is_seen_within_a_millisecond() {
        static JUMPED: AtomicU64 = AtomicU64::new(0);
        let clock = WakefulClock::with(
            || {
                static SINCE: std::sync::LazyLock<std::time::Instant> =
                    std::sync::LazyLock::new(std::time::Instant::now);
                JUMPED.load(Ordering::Relaxed) + micros(SINCE.elapsed())
            },
            WakefulClock::TOLERANCE_US,
        );
        JUMPED.store(3_600_000_000, Ordering::Relaxed);
        let begun = std::time::Instant::now();
        let start = clock.counter.now();
        while clock.counter.now().micros_since(start) < WakefulClock::TOLERANCE_US {
            assert!(begun.elapsed().as_secs() < 60, "the counter stands still");
        }
        assert!(clock.now().as_micros() >= 3_600_000_000 - WakefulClock::TOLERANCE_US);
    }
}
