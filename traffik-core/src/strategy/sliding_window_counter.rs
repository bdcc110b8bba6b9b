use super::settle::{self, Settlement};
use super::{Details, Hit, Lua, Strategy, window};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::Result;
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::span::mul_div;
use crate::time::Timestamp;

/// Counts in windows aligned to the epoch, and counts the previous window in part: by how much of
/// it the last period still covers.
///
/// At `e` into a window of length *P* what counts is `current + ⌈previous × (P - e) ÷ P⌉`.
///
/// * **Bound**: at most `limit + rate × t` in any interval of length *t*. All of a window may come
///   at its end, and then the next one admits `limit × e ÷ P` until `e`, since the previous one
///   still counts for the rest; later windows follow the rate in the same way.
/// * **State**: three words, start of the window and two counts, kept until the next window ends.
/// * **Bursts**: the whole limit at once after a quiet period; after a burst at the end of a window
///   it becomes available again steadily.
/// * **Choose it** for limits too large for a [`SlidingWindowLog`](crate::SlidingWindowLog), without
///   the double burst of a [`FixedWindow`](crate::FixedWindow) around an edge.
///
/// <https://blog.cloudflare.com/counting-things-a-lot-of-different-things/>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SlidingWindowCounter;

impl SlidingWindowCounter {
    /// The strategy; it has no parameters.
    pub const fn new() -> SlidingWindowCounter {
        SlidingWindowCounter
    }
}

struct Counts {
    start: u64,
    /// How much later the window began that was written, if the period was another then. It stays
    /// as it is, so that the words of the cell become greater.
    late: u64,
    current: u64,
    previous: u64,
}

impl Counts {
    fn of(cell: &Cell, hit: &Hit<'_>) -> Counts {
        let [start, current, previous] = *cell.words() else {
            return Counts {
                start: window::aligned(hit),
                late: 0,
                current: 0,
                previous: 0,
            };
        };
        let late = start - window::realigned(start, hit);
        match window::in_force(start - late, hit) {
            (start, true) => Counts {
                start,
                late,
                current,
                previous,
            },
            (next, false) => Counts {
                start: next,
                late: 0,
                current: 0,
                previous: if next < (start - late).saturating_add(2 * hit.rate.period_us()) {
                    current
                } else {
                    0
                },
            },
        }
    }

    /// The part of the period that the previous window still covers. All of it if the clock
    /// stepped back to before this window.
    fn rest(&self, hit: &Hit<'_>) -> u64 {
        let elapsed = hit.now.as_micros().saturating_sub(self.start);
        hit.rate.period_us().saturating_sub(elapsed)
    }

    /// How much of the previous window counts, rounded up.
    fn lingering(&self, hit: &Hit<'_>) -> u64 {
        let (whole, part) = mul_div(self.previous, self.rest(hit), hit.rate.period_us());
        whole + u64::from(part > 0)
    }

    /// When nothing counts any more.
    fn clear(&self, hit: &Hit<'_>) -> u64 {
        let period = hit.rate.period_us();
        match (self.current, self.previous) {
            (1.., _) => self.start.saturating_add(2 * period),
            (0, 1..) => self.start.saturating_add(period),
            (0, 0) => hit.now.as_micros(),
        }
    }

    /// Returns when nothing counts any more.
    fn store(&self, cell: &mut Cell, hit: &Hit<'_>) -> u64 {
        let clear = self.clear(hit);
        let words = [self.start + self.late, self.current, self.previous];
        cell.set(&words, Timestamp::from_micros(clear));
        clear
    }

    /// When `room`, the limit without the cost of a hit, holds what then counts.
    fn ready(&self, hit: &Hit<'_>, room: u64) -> u64 {
        let period = hit.rate.period_us();
        let end = self.start.saturating_add(period);
        match room.checked_sub(self.current) {
            Some(room) => end - lasting(room, self.previous, period),
            // Not in this window. In the next, this one is what lingers.
            None => end + period - lasting(room, self.current, period),
        }
    }
}

/// The most of a period that may remain while no more than `room` of `count` lingers.
fn lasting(room: u64, count: u64, period: u64) -> u64 {
    if room >= count {
        return period;
    }
    mul_div(period, room, count).0
}

impl Strategy for SlidingWindowCounter {
    fn id(&self) -> &'static str {
        "sliding_window_counter"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let counts = Counts::of(cell, hit);
        let now = hit.now.as_micros();
        let (limit, cost) = (u64::from(hit.rate.limit()), u64::from(hit.cost));
        let taken = counts.current + counts.lingering(hit);
        let available = limit.saturating_sub(taken);

        if cost > 0 && cost <= available {
            let charged = Counts {
                current: counts.current + cost,
                ..counts
            };
            let clear = charged.store(cell, hit);
            return Decision::allow(limit, available - cost).resets_in(clear.saturating_sub(now));
        }
        let counts = Counts {
            start: window::honest(counts.start, hit),
            ..counts
        };
        let clear = counts.clear(hit);
        if cost == 0 {
            return Decision::allow(limit, available).resets_in(clear.saturating_sub(now));
        }
        let Some(room) = limit.checked_sub(cost) else {
            return Decision::never(limit, available).resets_in(clear.saturating_sub(now));
        };
        let wait = counts.ready(hit, room).saturating_sub(now);
        Decision::deny(limit, available, wait).resets_in(clear.saturating_sub(now))
    }

    fn grows(&self) -> bool {
        true
    }

    fn lua(&self, rate: &Rate, cost: u32, _attributes: &Attributes) -> Option<Lua> {
        let limit = rate.limit().into();
        Some(Lua::new(LUA, &[cost.into(), limit, rate.period_us()]))
    }

    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        let counts = Counts::of(cell, hit);
        let elapsed = settle::elapsed(counts.start, hit.now);
        let start = window::honest(counts.start, hit);
        let settled = Counts {
            start,
            late: if start == counts.start {
                counts.late
            } else {
                0
            },
            current: settlement.of_count(counts.current, elapsed, MOST),
            ..counts
        };
        let changes = (settled.start, settled.current) != (counts.start, counts.current);
        if changes {
            settled.store(cell, hit);
        }
        changes
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        let [is_refund, amount, age] = settlement.words();
        let arguments = [rate.period_us(), is_refund, amount, age];
        Some(Lua::new(SETTLE_LUA, &arguments))
    }

    fn validate(&self, rate: &Rate) -> Result<()> {
        window::has_length(rate)
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let counts = Counts::of(cell, hit);
        let period = hit.rate.period_us();
        Details::SlidingWindowCounter(SlidingWindowCounterStat {
            current_window_id: counts.start / period,
            current_count: counts.current,
            previous_count: counts.previous,
            overlap_ppm: mul_div(1_000_000, counts.rest(hit), period).0,
            weighted_count: counts.current + counts.lingering(hit),
        })
    }
}

/// No count is charged beyond this, so that its product with a period is exact in Lua.
const MOST: u64 = 1 << 40;

pub(super) const LUA: &str = include_str!("sliding_window_counter.lua");

pub(super) const SETTLE_LUA: &str = concat!(
    "local period, refund, amount, age = unpack('>I8I8I8I8', arguments)\n",
    include_str!("settle.lua"),
    include_str!("sliding_window_counter_settle.lua")
);

/// What a [`SlidingWindowCounter`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SlidingWindowCounterStat {
    /// How many periods since the epoch the window begins.
    pub current_window_id: u64,
    /// What was taken in it.
    pub current_count: u64,
    /// What was taken in the one before.
    pub previous_count: u64,
    /// How much of the last period the window before covers, in parts per million.
    pub overlap_ppm: u64,
    /// What counts: of this window all, of the one before its part, rounded up.
    pub weighted_count: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};

    #[test]
    fn is_lawful() {
        let bound = Bound::bucket(|rate| rate.limit().into());
        Laws::of(&SlidingWindowCounter, bound).check();
    }

    /// SPEC 3.8: denied hits were counted, so that a client that retried stayed locked out.
    #[test]
    fn hammering_does_not_lock_out() {
        let mut trial = Trial::of(&SlidingWindowCounter, "10/10s");
        let mut admitted = 0;
        for _ in 0..200 {
            admitted += trial.admitted_of(100);
            trial.advance(Duration::from_millis(100));
        }
        // Ten at once, none until the window ends, and then one after every second.
        assert_eq!(admitted, 19);
    }

    /// SPEC 3.10: the wait came out as 0.92 ms, and at a boundary as none at all, which admitted.
    #[test]
    fn the_wait_is_solved_for_the_time_it_takes() {
        let mut trial = Trial::of(&SlidingWindowCounter, "10/10s");
        assert_eq!(trial.admitted_of(10), 10);
        // This window is full to its end, and one unit of it has lingered away a second later.
        assert_eq!(trial.hit(1).wait(), Duration::from_secs(11));
        trial.advance(Duration::from_secs(10));
        assert_eq!(trial.hit(1).wait(), Duration::from_secs(1));
        assert_eq!(trial.hit(10).wait(), Duration::from_secs(10));
        trial.advance(Duration::from_millis(2_500));
        assert_eq!(trial.admitted_of(10), 2);
        assert_eq!(trial.hit(1).wait(), Duration::from_millis(500));
    }

    /// SPEC 3.11: the previous window was written again to keep it alive, losing late writes.
    #[test]
    fn what_was_counted_is_kept_until_it_lingers_no_more() {
        let mut trial = Trial::of(&SlidingWindowCounter, "10/10s");
        trial.advance(Duration::from_secs(4));
        assert!(trial.hit(1).is_allowed());
        assert_eq!(trial.cell.expires().micros_since(trial.now), 16_000_000);
    }
}
