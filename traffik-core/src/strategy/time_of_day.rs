use std::borrow::Cow;

use super::ratio::Ratio;
use super::settle::{self, Settlement};
use super::zone::{IntoZone, Place};
use super::{Details, Hit, Lent, Loan, Lua, Strategy, window};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::time::Timestamp;

/// Counts in windows whose limit depends on the local time of day.
///
/// By default the limit is doubled from midnight to 8, and one and a half times as large from 17
/// to midnight, all in UTC. Hours may begin and end at any minute and run over midnight; where none
/// applies the limit is the rate's. The first that applies counts.
///
/// A window of the rate is **cut** where the hours change: each part counts for itself, up to its
/// own limit. So nothing taken at night counts against the day.
///
/// ```
/// use traffik_core::TimeOfDay;
///
/// // In India, half the limit in business hours and ten times as much over night.
/// let strategy = TimeOfDay::new()
///     .windows([(9, 18, 0.5), (22, 6, 10.0)])
///     .timezone_offset_minutes(5 * 60 + 30);
/// # let _ = strategy;
/// ```
///
/// * **Bound**: in each part `⌊limit × multiplier⌋`. An interval of length *t* touches at most
///   `⌈t ÷ period⌉ + 1` windows of the rate, and is cut once more at each of the *e* edges of a day:
///   at most `largest limit × (⌈t ÷ period⌉ + 1 + e × (⌊t ÷ day⌋ + 1))`.
/// * **State**: two words, start of the part and count, kept until it ends.
/// * **Bursts**: the limit of the part at once.
/// * **Choose it** when capacity is cheap at night, or reserved for people in the daytime.
#[derive(Clone, Debug)]
pub struct TimeOfDay {
    hours: Cow<'static, [Hours]>,
    place: Place,
}

/// From one minute of the day, included, to another, excluded; over midnight if that is earlier.
#[derive(Clone, Copy, Debug)]
struct Hours {
    from: u32,
    to: u32,
    multiplier: Ratio,
}

static DEFAULT_HOURS: [Hours; 3] = [
    Hours::new(0, 8 * 60, 2.0),
    Hours::new(8 * 60, 17 * 60, 1.0),
    Hours::new(17 * 60, 24 * 60, 1.5),
];

const MINUTE_US: u64 = 60 * 1_000_000;
const HOUR_US: u64 = 60 * MINUTE_US;
const DAY_US: u64 = 24 * HOUR_US;
const MINUTES_PER_DAY: u32 = 24 * 60;

/// What lies between two edges is shorter than this, unless there are none: clocks that are put
/// forward may skip some hours, so that these are two days apart, and whole days have been skipped
/// where the date line moved.
const LONGEST_PART_US: u64 = 3 * DAY_US;

impl Hours {
    const fn new(from: u32, to: u32, multiplier: f64) -> Hours {
        Hours {
            from,
            to,
            multiplier: Ratio::new(multiplier),
        }
    }

    fn contains(&self, minute: u32) -> bool {
        if self.from < self.to {
            self.from <= minute && minute < self.to
        } else {
            self.from <= minute || minute < self.to
        }
    }

    fn edges(&self) -> [u64; 2] {
        [self.from, self.to].map(|minute| u64::from(minute) * MINUTE_US % DAY_US)
    }
}

impl TimeOfDay {
    /// The three parts of the day above, in UTC.
    pub const fn new() -> TimeOfDay {
        TimeOfDay {
            hours: Cow::Borrowed(&DEFAULT_HOURS),
            place: Place::Utc,
        }
    }

    /// Replaces the hours: from, to, and what to multiply the limit by. `(22, 6, 2.0)` runs over
    /// midnight, `(17, 24, 2.0)` up to it.
    pub fn windows(self, windows: impl IntoIterator<Item = (u32, u32, f64)>) -> TimeOfDay {
        let hours = windows.into_iter();
        self.windows_by_minute(hours.map(|(from, to, multiplier)| {
            (from.saturating_mul(60), to.saturating_mul(60), multiplier)
        }))
    }

    /// Replaces the hours by others that are given in minutes since midnight.
    pub fn windows_by_minute(
        mut self,
        windows: impl IntoIterator<Item = (u32, u32, f64)>,
    ) -> TimeOfDay {
        self.hours = windows
            .into_iter()
            .map(|(from, to, multiplier)| Hours::new(from, to, multiplier))
            .collect();
        self
    }

    /// Sets how many hours local time is ahead of UTC, negative if behind.
    pub fn timezone_offset(self, hours: i32) -> TimeOfDay {
        self.timezone_offset_minutes(hours.saturating_mul(60))
    }

    /// Sets how many minutes local time is ahead of UTC: 330 in India.
    pub fn timezone_offset_minutes(mut self, minutes: i32) -> TimeOfDay {
        self.place = Place::at_offset_minutes(minutes);
        self
    }

    /// Sets the time zone, or its name (with the feature `time-zone`): `"Europe/Berlin"`.
    pub fn zone(mut self, zone: impl IntoZone) -> TimeOfDay {
        self.place = Place::of(zone);
        self
    }

    /// The local time of the day, in µs.
    fn local(&self, at_us: u64) -> u64 {
        let offset_us = i64::from(self.place.offset_seconds(at_us)) * 1_000_000;
        let day = DAY_US.cast_signed();
        // Both are less than a day, so that the sum is.
        let of_day = (at_us % DAY_US).cast_signed() + offset_us % day;
        of_day.rem_euclid(day).cast_unsigned()
    }

    /// Which hours apply.
    fn hours_at(&self, at_us: u64) -> Option<usize> {
        let minute = u32::try_from(self.local(at_us) / MINUTE_US).unwrap_or(0);
        self.hours.iter().position(|hours| hours.contains(minute))
    }

    fn multiplier_at(&self, at_us: u64) -> Ratio {
        let hours = self.hours_at(at_us);
        hours.map_or(Ratio::ONE, |index| self.hours[index].multiplier)
    }

    /// The next instant at which other hours apply, if there is one.
    fn next_edge(&self, after_us: u64) -> Option<u64> {
        let before = self.hours_at(after_us);
        let mut at = after_us;
        while at < after_us.saturating_add(LONGEST_PART_US) {
            at = self.next_candidate(at);
            if self.hours_at(at) != before {
                return Some(at);
            }
        }
        None
    }

    /// The next instant at which some hours begin or end, or the clocks change.
    fn next_candidate(&self, after_us: u64) -> u64 {
        let local = self.local(after_us);
        let ahead = self
            .hours
            .iter()
            .flat_map(Hours::edges)
            .map(|edge| match edge > local {
                true => edge - local,
                false => edge + DAY_US - local,
            })
            .min();
        let edge = after_us.saturating_add(ahead.unwrap_or(DAY_US));
        let change = self.place.next_change(after_us);
        change.map_or(edge, |change| edge.min(change))
    }

    fn part(&self, cell: &Cell, hit: &Hit<'_>) -> Part {
        let now = hit.now.as_micros();
        let (remembered, count) = match *cell.words() {
            [start, count] => (window::honest(start, hit), count),
            _ => (0, 0),
        };
        // If the clock stepped back, the part that was counted in still counts.
        let at = now.max(remembered);
        let period = hit.rate.period_us();
        let aligned = at - at % period;
        let mut start = aligned;
        let mut from = aligned.max(at.saturating_sub(LONGEST_PART_US));
        let mut edge = self.next_edge(from);
        while let Some(passed) = edge.filter(|edge| *edge <= at) {
            start = passed;
            from = passed;
            edge = self.next_edge(from);
        }
        let same = remembered >= start;
        Part {
            start: if same { remembered } else { start },
            count: if same { count } else { 0 },
            at,
            window_end: aligned.saturating_add(period),
            edge,
        }
    }

    /// When a cost next fits into a part that nothing was taken from, if it ever does.
    fn ready(&self, part: &Part, limit: u64, cost: u64) -> Option<u64> {
        let fits = |at: u64| self.multiplier_at(at).of(limit) >= cost;
        if fits(part.at) && part.edge.is_none_or(|edge| part.window_end < edge) {
            return Some(part.window_end);
        }
        // What applies in no part of these days does not apply at all.
        let last = part.at.saturating_add(2 * LONGEST_PART_US);
        let mut edge = part.edge;
        while let Some(at) = edge.filter(|edge| *edge <= last) {
            if fits(at) {
                return Some(at);
            }
            edge = self.next_edge(at);
        }
        None
    }
}

/// A part of a window of the rate, in which the same hours apply.
struct Part {
    start: u64,
    count: u64,
    /// The present, or the start of the part if that is later.
    at: u64,
    window_end: u64,
    edge: Option<u64>,
}

impl Part {
    fn end(&self) -> u64 {
        self.edge
            .map_or(self.window_end, |edge| edge.min(self.window_end))
    }
}

impl Default for TimeOfDay {
    fn default() -> Self {
        TimeOfDay::new()
    }
}

impl Strategy for TimeOfDay {
    fn id(&self) -> &'static str {
        "time_of_day"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let part = self.part(cell, hit);
        let (now, cost) = (hit.now.as_micros(), u64::from(hit.cost));
        let limit = u64::from(hit.rate.limit());
        let capacity = self.multiplier_at(part.at).of(limit);
        let available = capacity.saturating_sub(part.count);
        let left = part.end().saturating_sub(now);

        if cost <= available {
            if cost > 0 {
                let words = [part.start, part.count + cost];
                cell.set(&words, Timestamp::from_micros(part.end()));
            }
            return Decision::allow(capacity, available - cost).resets_in(left);
        }
        match self.ready(&part, limit, cost) {
            Some(ready) => {
                let wait = ready.saturating_sub(now);
                Decision::deny(capacity, available, wait).resets_in(left)
            }
            None => Decision::never(capacity, available).resets_in(left),
        }
    }

    /// None if the offset changes: Redis knows no time zones.
    fn grows(&self) -> bool {
        true
    }

    fn lua(&self, rate: &Rate, cost: u32, _attributes: &Attributes) -> Option<Lua> {
        if self.place.next_change(0).is_some() {
            return None;
        }
        let limit = u64::from(rate.limit());
        // The local time at the epoch's midnight is the offset, as one that is not negative.
        let offset = self.local(0);
        let fixed = [
            cost.into(),
            limit,
            rate.period_us(),
            offset,
            self.hours.len() as u64,
        ];
        let hours = self.hours.iter().flat_map(|hours| {
            [
                hours.from.into(),
                hours.to.into(),
                hours.multiplier.of(limit),
            ]
        });
        Some(Lua::new(
            LUA,
            &fixed.into_iter().chain(hours).collect::<Vec<_>>(),
        ))
    }

    /// A refund counts if it is of this part.
    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        let part = self.part(cell, hit);
        let elapsed = settle::elapsed(part.start, hit.now);
        let count = settlement.of_count(part.count, elapsed, MOST);
        let is_ahead = match *cell.words() {
            [start, _] => window::honest(start, hit) != start,
            _ => false,
        };
        let changes = is_ahead || count != part.count;
        if changes {
            let end = Timestamp::from_micros(part.end());
            cell.set(&[part.start, count], end);
        }
        changes
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        let [is_refund, amount, age] = settlement.words();
        let mut lua = self.lua(rate, 0, &Attributes::NONE)?.of(SETTLE_LUA);
        for argument in [is_refund, amount, age] {
            lua = lua.and(argument);
        }
        Some(lua)
    }

    fn lends(&self, _rate: &Rate, _cost: u32) -> bool {
        true
    }

    /// What comes back counts if it is of this part, with which all loans end.
    fn lend(&self, cell: &mut Cell, hit: &Hit<'_>, loan: &Loan) -> (Decision, Lent) {
        let part = self.part(cell, hit);
        let capacity = self.multiplier_at(part.at).of(hit.rate.limit().into());
        let left = part.end().saturating_sub(hit.now.as_micros());
        let lending = loan.of_count(part.start, part.count, hit.cost, capacity, left);
        let Some((count, lent)) = lending else {
            return (self.step(cell, hit), Lent::default());
        };
        if count != part.count {
            let end = Timestamp::from_micros(part.end());
            cell.set(&[part.start, count], end);
        }
        let decision = Decision::allow(capacity, lent.free).resets_in(left);
        (decision, lent)
    }

    fn lend_lua(&self, rate: &Rate, cost: u32, loan: &Loan, _: &Attributes) -> Option<Lua> {
        let mut lua = self.lua(rate, cost, &Attributes::NONE)?.of(LEND_LUA);
        for word in loan.words() {
            lua = lua.and(word);
        }
        Some(lua)
    }

    fn validate(&self, rate: &Rate) -> Result<()> {
        window::has_length(rate)?;
        if self.hours.is_empty() {
            return Err(Error::invalid("the hours of a time of day are missing"));
        }
        for hours in &*self.hours {
            let Hours { from, to, .. } = *hours;
            if from >= MINUTES_PER_DAY || !(1..=MINUTES_PER_DAY).contains(&to) || from == to {
                return Err(Error::invalid(format!(
                    "hours begin at minute 0 to 1439 of the day and end at another, from 1 to \
                     1440, not {from} to {to}"
                )));
            }
            hours
                .multiplier
                .validate("the multiplier of some hours", 0.000_001, 1e6)?;
        }
        self.place.validate()
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let part = self.part(cell, hit);
        let multiplier = self.multiplier_at(part.at);
        Details::TimeOfDay(TimeOfDayStat {
            hour_of_day: self.local(part.at) / HOUR_US,
            time_multiplier_ppm: multiplier.ppm(),
            effective_limit: multiplier.of(hit.rate.limit().into()),
            current_count: part.count,
            window_id: part.at / hit.rate.period_us(),
            window_start: Timestamp::from_micros(part.start),
            window_end: Timestamp::from_micros(part.end()),
        })
    }
}

/// No part is charged beyond this.
const MOST: u64 = 1 << 52;

pub(super) const LUA: &str = concat!(
    include_str!("time_of_day_part.lua"),
    include_str!("time_of_day.lua")
);

pub(super) const SETTLE_LUA: &str = concat!(
    include_str!("time_of_day_part.lua"),
    "local refund, amount, age = unpack('>I8I8I8', arguments, 41 + 24 * count)\n",
    include_str!("settle.lua"),
    include_str!("time_of_day_settle.lua")
);

pub(super) const LEND_LUA: &str = concat!(
    include_str!("time_of_day_part.lua"),
    "local want, back, back_of = unpack('>I8I8I8', arguments, 41 + 24 * count)\n",
    include_str!("lend.lua"),
    include_str!("time_of_day_lend.lua")
);

/// What a [`TimeOfDay`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TimeOfDayStat {
    /// The local hour, 0 to 23.
    pub hour_of_day: u64,
    /// What the limit is multiplied by at this hour, in parts per million.
    pub time_multiplier_ppm: u64,
    /// The rate's limit times that, rounded down.
    pub effective_limit: u64,
    /// What was taken in this part of the window.
    pub current_count: u64,
    /// How many periods since the epoch the window of the rate begins.
    pub window_id: u64,
    /// When this part of it began.
    pub window_start: Timestamp,
    /// When it ends.
    pub window_end: Timestamp,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decision::Verdict;
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};
    use crate::time::micros;

    /// What the documentation says, for the largest of the multipliers and the edges of a day.
    fn bound(multiplier: u64, edges: u64) -> Bound {
        Bound::new(move |rate, interval| {
            let interval = micros(interval);
            let windows = interval.div_ceil(rate.period_us()) + 1;
            let parts = windows + edges * (interval / DAY_US + 1);
            u128::from(rate.limit()) * u128::from(multiplier) * u128::from(parts)
        })
    }

    #[test]
    fn is_lawful() {
        Laws::of(&TimeOfDay::new(), bound(2, 3)).check();
    }

    #[test]
    fn is_lawful_at_any_hours() {
        let india = TimeOfDay::new()
            .windows_by_minute([(22 * 60 + 15, 6 * 60, 3.0), (12 * 60, 12 * 60 + 1, 0.1)])
            .timezone_offset_minutes(330);
        Laws::of(&india, bound(3, 4)).check();
        let whole_day = TimeOfDay::new()
            .windows([(0, 24, 2.0)])
            .timezone_offset(-12);
        Laws::of(&whole_day, bound(2, 0)).check();
        let overlapping = TimeOfDay::new().windows([(8, 17, 0.5), (0, 12, 4.0)]);
        Laws::of(&overlapping, bound(4, 4)).check();
    }

    const HOUR: Duration = Duration::from_secs(60 * 60);

    /// SPEC 3.23: an hour that began in mid-window set a new limit for the old count.
    #[test]
    fn a_window_is_cut_where_the_hours_change() {
        let strategy = TimeOfDay::new();
        let mut trial = Trial::of(&strategy, "10/day");
        assert_eq!(trial.admitted_of(99), 20);
        assert_eq!(trial.hit(1).wait(), 8 * HOUR);
        trial.advance(8 * HOUR);
        assert_eq!(trial.admitted_of(99), 10);
        // No part of the day before the next midnight holds more than 15.
        assert_eq!(trial.hit(15).wait(), 9 * HOUR);
        assert_eq!(trial.hit(20).wait(), 16 * HOUR);
        assert_eq!(trial.hit(21).verdict(), Verdict::Never);
    }

    /// SPEC 3.23: there were no hours over midnight.
    #[test]
    fn hours_run_over_midnight_uncut() {
        let strategy = TimeOfDay::new().windows([(22, 6, 5.0)]);
        let mut trial = Trial::of(&strategy, "1/7days");
        assert_eq!(trial.hit(0).limit(), 5);
        trial.advance(6 * HOUR - Duration::from_micros(1));
        assert_eq!(trial.hit(0).limit(), 5);
        trial.advance(Duration::from_micros(1));
        assert_eq!(trial.hit(0).limit(), 1);
        trial.advance(16 * HOUR);
        assert_eq!(trial.admitted_of(9), 5);
        trial.advance(3 * HOUR);
        assert_eq!(trial.admitted_of(9), 0);
    }

    /// SPEC 3.23: offsets were whole hours.
    #[test]
    fn local_time_may_be_half_an_hour_off() {
        let strategy = TimeOfDay::new()
            .windows([(8, 17, 2.0)])
            .timezone_offset_minutes(330);
        let mut trial = Trial::of(&strategy, "1/minute");
        trial.advance(2 * HOUR + HOUR / 2 - Duration::from_micros(1));
        assert_eq!(trial.hit(0).limit(), 1);
        trial.advance(Duration::from_micros(1));
        assert_eq!(trial.hit(0).limit(), 2);
    }

    #[test]
    fn refuses_hours_that_make_no_sense() {
        let rate = Rate::per_second(1);
        for windows in [
            vec![],
            vec![(24, 8, 1.0)],
            vec![(0, 25, 1.0)],
            vec![(8, 8, 1.0)],
            vec![(8, 0, 1.0)],
            vec![(8, 9, 0.0)],
            vec![(u32::MAX, 9, 1.0)],
        ] {
            assert!(TimeOfDay::new().windows(windows).validate(&rate).is_err());
        }
        assert!(
            TimeOfDay::new()
                .timezone_offset(27)
                .validate(&rate)
                .is_err()
        );
        assert!(
            TimeOfDay::new()
                .timezone_offset(i32::MAX)
                .validate(&rate)
                .is_err()
        );
    }
}
