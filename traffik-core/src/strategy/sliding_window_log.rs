use super::log::{self, Entry, Log, Manner};
use super::{Details, Hit, Lua, Settlement, Strategy};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::time::Timestamp;

/// Remembers every admitted hit for one period, and admits what fits beside them.
///
/// The step, for those who implement it elsewhere: a hit at `t` counts until `t + period`, that
/// instant excluded. Admit a cost if it and everything that counts are at most the limit; log it
/// at the present, or at the last hit's instant if the clock stepped back. Otherwise wait until so
/// many of the oldest hits have left that it fits.
///
/// * **Bound**: exactly the limit in any interval shorter than the period, wherever it begins:
///   at most `limit × (⌊t ÷ period⌋ + 1)` in one of length *t*.
/// * **State**: one word, and 16 bytes for each microsecond with a hit, within one period. So a
///   key takes up to `16 × limit` bytes. A hit takes constant time on average, whatever the limit.
/// * **Bursts**: the whole limit at once, and then nothing until a period later.
/// * **Choose it** when no interval may ever see more than the limit and limits are small; else a
///   [`SlidingWindowCounter`](crate::SlidingWindowCounter) is nearly as strict at three words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SlidingWindowLog;

impl SlidingWindowLog {
    /// The strategy; it has no parameters.
    pub const fn new() -> SlidingWindowLog {
        SlidingWindowLog
    }
}

impl SlidingWindowLog {
    fn manner(&self) -> Manner {
        Manner {
            most: Cell::WORD_LIMIT - 1,
            tag: 0,
            merged: true,
        }
    }
}

impl Strategy for SlidingWindowLog {
    fn id(&self) -> &'static str {
        "sliding_window_log"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let (now, period) = (hit.now.as_micros(), hit.rate.period_us());
        let (limit, cost) = (u64::from(hit.rate.limit()), u64::from(hit.cost));
        let gone = log::dropped(cell);
        let log = Log::of(cell, gone);
        let left = log.departed(hit);
        let taken = log.sum_from(left);
        let available = limit.saturating_sub(taken);

        if cost == 0 || cost > available {
            let last = log.last_instant().unwrap_or(0);
            let reset = log::honest(&log, last, hit)
                .saturating_add(period)
                .saturating_sub(now);
            if cost == 0 {
                return Decision::allow(limit, available).resets_in(reset);
            }
            if cost > limit {
                return Decision::never(limit, available).resets_in(reset);
            }
            let excess = taken + cost - limit;
            let leaves = log.reaching(log.sum(left) + excess).unwrap_or(last);
            let leaves = log::honest(&log, leaves, hit);
            let wait = leaves.saturating_add(period).saturating_sub(now);
            return Decision::deny(limit, available, wait).resets_in(reset);
        }
        let entry = Entry {
            instant: log.last_instant().unwrap_or(0).max(now),
            amount: cost,
            tag: 0,
        };
        let gone = log::merge(cell, gone, left, &entry);
        let clear = entry.instant.saturating_add(period);
        cell.set(&[gone], Timestamp::from_micros(clear));
        Decision::allow(limit, available - cost).resets_in(clear - now)
    }

    fn lua(&self, rate: &Rate, cost: u32, _attributes: &Attributes) -> Option<Lua> {
        let (limit, unbounded) = (rate.limit().into(), Cell::WORD_LIMIT - 1);
        Some(log::window_lua(rate, cost, limit, unbounded, 0, true))
    }

    fn coarsen(&self, cell: &mut Cell) -> bool {
        log::coarsen(cell)
    }

    /// A refund counts for a period.
    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        log::settle(cell, hit, settlement, self.manner())
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        Some(log::settle_lua(rate, settlement, self.manner()))
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let log = Log::of(cell, log::dropped(cell));
        let left = log.departed(hit);
        let start = hit.now.as_micros().saturating_sub(hit.rate.period_us());
        Details::SlidingWindowLog(SlidingWindowLogStat {
            window_start: Timestamp::from_micros(start),
            entry_count: (log.len() - left) as u64,
            current_cost_sum: log.sum_from(left),
            oldest_entry: log.instant(left).map(Timestamp::from_micros),
        })
    }
}

/// What a [`SlidingWindowLog`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SlidingWindowLogStat {
    /// One period ago: what was admitted until then counts no more.
    pub window_start: Timestamp,
    /// How many entries count; hits of the same microsecond are one.
    pub entry_count: u64,
    /// What they cost.
    pub current_cost_sum: u64,
    /// When the oldest of them was admitted.
    pub oldest_entry: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decision::Verdict;
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};
    use crate::time::micros;

    #[test]
    fn is_lawful() {
        let bound = Bound::new(|rate, interval| {
            u128::from(rate.limit()) * u128::from(micros(interval) / rate.period_us() + 1)
        });
        Laws::of(&SlidingWindowLog, bound).check();
    }

    /// SPEC 3.5: the log lived for whole seconds only; `10/1900ms` admitted 20 in 1.05 s.
    #[test]
    fn the_log_outlives_the_window() {
        let mut trial = Trial::of(&SlidingWindowLog, "10/1900ms");
        assert_eq!(trial.admitted_of(20), 10);
        trial.advance(Duration::from_millis(1_050));
        assert_eq!(trial.admitted_of(20), 0);
        trial.advance(Duration::from_millis(850));
        assert_eq!(trial.admitted_of(20), 10);
    }

    /// SPEC 3.6: it looked for the oldest entry of an empty log.
    #[test]
    fn a_cost_above_the_limit_is_never_admitted_and_no_error() {
        let mut trial = Trial::of(&SlidingWindowLog, "5/s");
        assert_eq!(trial.hit(6).verdict(), Verdict::Never);
        assert_eq!(trial.hit(u32::MAX).verdict(), Verdict::Never);
        assert!(trial.hit(5).is_allowed());
    }

    /// SPEC 3.7: the wait was for the oldest entry, however much had to leave.
    #[test]
    fn the_wait_is_until_enough_has_left() {
        let mut trial = Trial::of(&SlidingWindowLog, "10/10s");
        for pause in [0, 2, 3] {
            trial.advance(Duration::from_secs(pause));
            assert!(trial.hit(3).is_allowed());
        }
        // One is free, three more leave 5 s from now, three more 2 s later.
        assert_eq!(trial.hit(4).wait(), Duration::from_secs(5));
        assert_eq!(trial.hit(5).wait(), Duration::from_secs(7));
    }

    #[test]
    fn a_denied_hit_does_not_prolong_the_window() {
        let mut trial = Trial::of(&SlidingWindowLog, "3/s");
        assert_eq!(trial.admitted_of(1_000), 3);
        trial.advance(Duration::from_secs(1));
        assert_eq!(trial.admitted_of(1_000), 3);
    }

    #[test]
    fn memory_is_what_the_window_holds() {
        let mut trial = Trial::of(&SlidingWindowLog, "100/s");
        for _ in 0..10_000 {
            trial.advance(Duration::from_millis(10));
            assert!(trial.hit(1).is_allowed());
            trial.cell.compact();
        }
        let entries = trial.cell.queue().map_or(0, |queue| queue.items().len());
        assert_eq!(entries, 100);
    }
}
