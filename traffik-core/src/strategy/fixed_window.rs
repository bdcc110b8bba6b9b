use super::{Details, Hit, Strategy};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::time::Timestamp;

/// Counts hits in windows aligned to the epoch: `100/minute` starts anew with every minute of the
/// clock.
///
/// * **Bound**: at most the limit in each window, hence at most *twice* the limit in any period: all
///   of one window at its end and all of the next at its beginning. An interval of one period
///   touches two windows, so never more.
/// * **State**: two words, start of the window and count, kept until the window ends.
/// * **Choose it** when quotas should read as people say them ("per minute") and twice the limit
///   around an edge does no harm. It is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FixedWindow;

impl FixedWindow {
    /// The strategy; it has no parameters.
    pub const fn new() -> FixedWindow {
        FixedWindow
    }

    /// Start and count of the window in force.
    fn window(cell: &Cell, hit: &Hit<'_>) -> (u64, u64) {
        let (now, period) = (hit.now.as_micros(), hit.rate.period_us());
        match *cell.words() {
            // Not over yet. If the clock stepped back it may not even have begun: it still counts.
            [start, count] if now < start.saturating_add(period) => (start, count),
            _ => (now - now % period, 0),
        }
    }
}

impl Strategy for FixedWindow {
    fn id(&self) -> &'static str {
        "fixed_window"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let (start, count) = Self::window(cell, hit);
        let limit = u64::from(hit.rate.limit());
        let cost = u64::from(hit.cost);
        let end = start + hit.rate.period_us();
        let left = end - hit.now.as_micros();

        let available = limit.saturating_sub(count);
        if cost <= available {
            if cost > 0 {
                cell.set(&[start, count + cost], Timestamp::from_micros(end));
            }
            Decision::allow(limit, available - cost).resets_in(left)
        } else if cost == 0 {
            Decision::allow(limit, 0).resets_in(left)
        } else if cost > limit {
            Decision::never(limit, available).resets_in(left)
        } else {
            Decision::deny(limit, available, left)
        }
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let (start, count) = Self::window(cell, hit);
        Details::FixedWindow(FixedWindowStat {
            window_start: Timestamp::from_micros(start),
            window_end: Timestamp::from_micros(start + hit.rate.period_us()),
            count,
        })
    }
}

/// What a [`FixedWindow`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct FixedWindowStat {
    /// When the window began.
    pub window_start: Timestamp,
    /// When the next one begins.
    pub window_end: Timestamp,
    /// What was taken in it.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::laws::{Bound, Laws};

    #[test]
    fn is_lawful() {
        Laws::of(&FixedWindow, Bound::windows(|rate| rate.limit().into())).check();
    }
}
