use crate::time::micros;
use std::time::Duration;

use super::clock::WakefulClock;

/// For how long, and how often: of all leases of a backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) length_us: u64,
    pub(super) period_us: u64,
    /// The shortest time after which the store is asked again when it had nothing left.
    pub(super) pause_us: u64,
}

impl Terms {
    /// By how much clocks run faster than others, at most: 0.2 %, ten times what quartz does.
    const DRIFT: u64 = 500;
    const PAUSE_US: u64 = 100_000;
    /// By then the store has answered a question, or been given up on, unless nobody listens to it.
    pub(super) const PATIENCE: Duration = Duration::from_millis(250);
    const EARLY_US: u64 = 60_000;

    pub(super) fn new(length: Duration, period: Duration) -> Terms {
        let period_us = micros(period).clamp(10_000, 60_000_000);
        Terms {
            length_us: micros(length).clamp(2 * period_us, 3_600_000_000),
            period_us,
            pause_us: Self::PAUSE_US.min(period_us),
        }
    }

    /// Until when a lease may be spent that was asked for at an instant, and lasts so long.
    pub(super) fn deadline(&self, sent_us: u64, lasts_us: u64) -> u64 {
        let lasts_us = lasts_us.min(self.length_us);
        let margin_us = lasts_us / Self::DRIFT + 2 * WakefulClock::TOLERANCE_US;
        sent_us.saturating_add(lasts_us.saturating_sub(margin_us))
    }

    /// So long before it ends what is left of a lease goes back.
    pub(super) fn early_us(&self) -> u64 {
        Self::EARLY_US.min(self.length_us / 8)
    }
}
