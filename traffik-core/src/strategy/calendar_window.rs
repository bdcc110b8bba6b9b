use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::calendar::{DAY_US, Stretch, Weekday};
use super::settle::{self, CLOCK_SLACK_US, Settlement};
use super::zone::{IntoZone, Place};
use super::{Details, Hit, Lent, Loan, Lua, Strategy, window};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::time::{Timestamp, micros};

/// Counts hits in windows of the calendar: per day, week, month or year, in a time zone.
///
/// The rate says what a window is. `10000/month` begins anew with each month, whether it has 28 days or
/// 31; `/day` at midnight, though a day may have 23 hours or 25 where clocks change; `/week` on Mondays;
/// `/year` with the year. `3months` are the quarters. Less than a day divides it from midnight on: `/hour`,
/// `/15minutes`, `/6hours`.
///
/// ```
/// use traffik_core::{CalendarWindow, Identity, MemoryBackend, Throttle};
/// use traffik_core::strategy::Weekday;
///
/// // The month of an invoice, which starts on the 15th, in Japan.
/// let billed = CalendarWindow::new().month_starts_on(15).timezone_offset(9);
/// let plan = Throttle::builder("plan")
///     .rate("10000/month")
///     .strategy(billed)
///     .backend(MemoryBackend::new())
///     .build()?;
/// let decision = plan.hit_now(&Identity::of("acme"))?;
/// assert_eq!(decision.remaining(), 9_999);
///
/// let american = CalendarWindow::new().week_starts_on(Weekday::Sunday).timezone_offset(-5);
/// # let _ = american;
/// # Ok::<(), traffik_core::Error>(())
/// ```
///
/// With the feature `time-zone`, `zone("Europe/Berlin")` knows when clocks change. A day whose midnight is
/// skipped begins when it is first shown, one whose midnight comes twice at the first. Less than a day is
/// counted in time that really passes, so a day on which clocks change may end with a shorter window.
///
/// * **Bound**: the limit in each window, hence at most *twice* the limit in any interval as long as the
///   shortest of them: all of one at its end and all of the next at its beginning.
/// * **State**: two words, start of the window and count, kept until the window ends.
/// * **Bursts**: the limit at once.
/// * **Choose it** for quotas as contracts and invoices have them.
#[derive(Clone, Debug)]
pub struct CalendarWindow {
    place: Place,
    week_starts_on: Weekday,
    month_starts_on: u32,
    lately: Lately,
}

impl CalendarWindow {
    /// Weeks from Monday on, months from the first, in UTC.
    pub const fn new() -> CalendarWindow {
        CalendarWindow {
            place: Place::Utc,
            week_starts_on: Weekday::Monday,
            month_starts_on: 1,
            lately: Lately(AtomicU64::new(0)),
        }
    }

    /// Sets the day on which weeks start, for rates by the week.
    pub fn week_starts_on(mut self, day: Weekday) -> CalendarWindow {
        self.week_starts_on = day;
        self
    }

    /// Sets the day of the month on which months start, for rates by the month or year: 1 to 31. A month
    /// that has no such day starts on its last.
    pub fn month_starts_on(mut self, day: u32) -> CalendarWindow {
        self.month_starts_on = day;
        self
    }

    /// Sets how many hours local time is ahead of UTC, negative if behind.
    pub fn timezone_offset(self, hours: i32) -> CalendarWindow {
        self.timezone_offset_minutes(hours.saturating_mul(60))
    }

    /// Sets how many minutes local time is ahead of UTC: 330 in India.
    pub fn timezone_offset_minutes(mut self, minutes: i32) -> CalendarWindow {
        self.place = Place::at_offset_minutes(minutes);
        self
    }

    /// Sets the time zone, or its name (with the feature `time-zone`): `"Europe/Berlin"`.
    pub fn zone(mut self, zone: impl IntoZone) -> CalendarWindow {
        self.place = Place::of(zone);
        self
    }

    /// What the calendar is divided into, and into how long windows that.
    fn divided(&self, rate: &Rate) -> (Stretch, u64) {
        if let Some(months) = rate.months() {
            let start_on = self.month_starts_on.clamp(1, 31).into();
            let count = months.into();
            return (Stretch::Months { count, start_on }, WHOLE);
        }
        let period = rate.period_us();
        if period < DAY_US && DAY_US.is_multiple_of(period) {
            return (Stretch::Days { count: 1, from: 0 }, period);
        }
        // What is no whole number of days is refused; an attempt that brings it is not given more.
        let count = period.div_ceil(DAY_US).max(1).cast_signed();
        let from = match count % 7 {
            0 => self.week_starts_on.some(),
            _ => 0,
        };
        (Stretch::Days { count, from }, WHOLE)
    }

    /// The window at this instant.
    fn window_at(&self, rate: &Rate, at: u64) -> Window {
        let (stretch, length) = self.divided(rate);
        let (from, to) = self.place.bounds(stretch, at);
        let start = at - at.saturating_sub(from) % length;
        Window {
            start,
            end: start.saturating_add(length).min(to),
        }
    }

    fn count(&self, cell: &Cell, hit: &Hit<'_>) -> Counted {
        let now = hit.now.as_micros();
        self.lately.note(now);
        let (remembered, count) = match *cell.words() {
            [start, count] => (start, count),
            _ => (0, 0),
        };
        let mut window = self.window_at(hit.rate, now);
        // See `window::honest`: if the clock stepped back a little, the window that was counted in
        // still counts; if it stepped back further, the next one does.
        let is_ahead = remembered > window.end.max(now.saturating_add(CLOCK_SLACK_US));
        let remembered = if is_ahead { window.end } else { remembered };
        if remembered > now {
            window = self.window_at(hit.rate, remembered);
        }
        let same = remembered >= window.start;
        Counted {
            start: if same { remembered } else { window.start },
            count: if same { count } else { 0 },
            end: window.end,
            is_ahead,
        }
    }

    /// Where windows begin before and after the present, for scripts: these know no time zones.
    fn lua_of(&self, source: &'static str, rate: &Rate, cost: u32) -> Lua {
        let (stretch, length) = self.divided(rate);
        let [before, start, end, next] = self.place.edges(stretch, self.lately.about());
        let limit = rate.limit().into();
        Lua::new(
            source,
            &[cost.into(), limit, length, before, start, end, next],
        )
    }
}

/// Longer than any stretch of the calendar.
const WHOLE: u64 = 1 << 52;

struct Window {
    start: u64,
    end: u64,
}

/// The window in force.
struct Counted {
    start: u64,
    count: u64,
    end: u64,
    /// Whether it is not the one that the cell remembers, since that was too far ahead.
    is_ahead: bool,
}

impl Counted {
    fn left(&self, hit: &Hit<'_>) -> u64 {
        self.end.saturating_sub(hit.now.as_micros())
    }

    fn store(&self, cell: &mut Cell, count: u64) {
        cell.set(&[self.start, count], Timestamp::from_micros(self.end));
    }
}

/// About when hits were decided lately: a guess for scripts, which are written before their server tells
/// the time. What they are told is right for some windows before and after, and they decide nothing where it
/// is not. No decision depends on it.
#[derive(Debug, Default)]
struct Lately(AtomicU64);

impl Lately {
    /// Seldom written, as threads share it.
    fn note(&self, now: u64) {
        const HOUR_US: u64 = 60 * 60 * 1_000_000;
        if self.0.load(Ordering::Relaxed).abs_diff(now) > HOUR_US {
            self.0.store(now, Ordering::Relaxed);
        }
    }

    fn about(&self) -> u64 {
        match self.0.load(Ordering::Relaxed) {
            0 => micros(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default(),
            ),
            at => at,
        }
    }
}

impl Clone for Lately {
    fn clone(&self) -> Lately {
        Lately(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

impl Default for CalendarWindow {
    fn default() -> Self {
        CalendarWindow::new()
    }
}

impl Strategy for CalendarWindow {
    fn id(&self) -> &'static str {
        "calendar_window"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let counted = self.count(cell, hit);
        let (limit, cost) = (u64::from(hit.rate.limit()), u64::from(hit.cost));
        let decision = window::decide(limit, counted.count, cost, counted.left(hit));
        if decision.is_allowed() && cost > 0 {
            counted.store(cell, counted.count + cost);
        }
        decision
    }

    fn grows(&self) -> bool {
        true
    }

    fn ordered(&self) -> bool {
        true
    }

    fn lua(&self, rate: &Rate, cost: u32, _attributes: &Attributes) -> Option<Lua> {
        Some(self.lua_of(LUA, rate, cost))
    }

    /// A refund counts if it is of this window.
    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        let counted = self.count(cell, hit);
        let elapsed = settle::elapsed(counted.start, hit.now);
        let count = settlement.of_count(counted.count, elapsed, MOST);
        let changes = counted.is_ahead || count != counted.count;
        if changes {
            counted.store(cell, count);
        }
        changes
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        let lua = self.lua_of(SETTLE_LUA, rate, 0);
        Some(settlement.words().into_iter().fold(lua, Lua::and))
    }

    fn lends(&self, _rate: &Rate, _cost: u32) -> bool {
        true
    }

    /// What comes back counts if it is of this window, with which all loans end.
    fn lend(&self, cell: &mut Cell, hit: &Hit<'_>, loan: &Loan) -> (Decision, Lent) {
        let counted = self.count(cell, hit);
        let (limit, left) = (u64::from(hit.rate.limit()), counted.left(hit));
        let lending = loan.of_count(counted.start, counted.count, hit.cost, limit, left);
        let Some((count, lent)) = lending else {
            return (self.step(cell, hit), Lent::default());
        };
        if count != counted.count {
            counted.store(cell, count);
        }
        let decision = Decision::allow(limit, lent.free).resets_in(left);
        (decision, lent)
    }

    fn lend_lua(&self, rate: &Rate, cost: u32, loan: &Loan, _: &Attributes) -> Option<Lua> {
        let lua = self.lua_of(LEND_LUA, rate, cost);
        Some(loan.words().into_iter().fold(lua, Lua::and))
    }

    fn validate(&self, rate: &Rate) -> Result<()> {
        if !(1..=31).contains(&self.month_starts_on) {
            return Err(Error::invalid(format!(
                "a month starts on one of its days, from 1 to 31, not {}",
                self.month_starts_on
            )));
        }
        let period = rate.period_us();
        if period < DAY_US && !DAY_US.is_multiple_of(period) {
            return Err(Error::invalid(format!(
                "windows of the calendar that are less than a day divide it, as 15 minutes or 6 hours do: \
                 `{rate}` does not"
            )));
        }
        if rate.months().is_none() && period > DAY_US && !period.is_multiple_of(DAY_US) {
            return Err(Error::invalid(format!(
                "windows of the calendar that are more than a day are whole days, weeks, months or years: \
                 `{rate}` is not"
            )));
        }
        self.place.validate()
    }

    /// Months and years have no length that could be told: [zero](Duration::ZERO).
    fn window(&self, rate: &Rate, _quota: u64) -> Duration {
        match rate.months() {
            Some(_) => Duration::ZERO,
            None => rate.period(),
        }
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let counted = self.count(cell, hit);
        Details::CalendarWindow(CalendarWindowStat {
            window_start: Timestamp::from_micros(counted.start),
            window_end: Timestamp::from_micros(counted.end),
            count: counted.count,
        })
    }
}

/// No window is charged beyond this.
const MOST: u64 = 1 << 52;

pub(super) const LUA: &str = concat!(
    include_str!("calendar_window_count.lua"),
    include_str!("calendar_window.lua")
);

pub(super) const SETTLE_LUA: &str = concat!(
    include_str!("calendar_window_count.lua"),
    "local refund, amount, age = unpack('>I8I8I8', arguments, 57)\n",
    include_str!("settle.lua"),
    include_str!("calendar_window_settle.lua")
);

pub(super) const LEND_LUA: &str = concat!(
    include_str!("calendar_window_count.lua"),
    "local want, back, back_of = unpack('>I8I8I8', arguments, 57)\n",
    include_str!("lend.lua"),
    include_str!("calendar_window_lend.lua")
);

/// What a [`CalendarWindow`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct CalendarWindowStat {
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
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};

    const HOUR: Duration = Duration::from_secs(60 * 60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// What the documentation says.
    fn bound() -> Bound {
        Bound::new(|rate, interval| {
            let shortest = match rate.months() {
                Some(months) => u64::from(months) * 28 * DAY_US,
                None => rate.period_us(),
            };
            let touched = micros(interval).div_ceil(shortest) + 1;
            u128::from(rate.limit()) * u128::from(touched)
        })
    }

    #[test]
    fn is_lawful() {
        Laws::of(&CalendarWindow::new(), bound()).check();
        let elsewhere = CalendarWindow::new()
            .month_starts_on(31)
            .week_starts_on(Weekday::Sunday)
            .timezone_offset_minutes(-210);
        Laws::of(&elsewhere, bound()).check();
    }

    #[test]
    fn a_month_is_as_long_as_the_calendar_says() {
        let strategy = CalendarWindow::new();
        let mut trial = Trial::of(&strategy, "3/month");
        // From the first of 2024, a leap year.
        for days in [31, 29, 31, 30] {
            assert_eq!(trial.admitted_of(9), 3);
            let wait = trial.hit(1).wait();
            assert_eq!(wait, days * DAY);
            trial.advance(wait - Duration::from_micros(1));
            assert_eq!(trial.admitted_of(9), 0);
            trial.advance(Duration::from_micros(1));
        }
    }

    #[test]
    fn a_month_of_an_invoice_starts_in_its_midst() {
        let strategy = CalendarWindow::new().month_starts_on(15).timezone_offset(9);
        let mut trial = Trial::of(&strategy, "3/month");
        assert_eq!(trial.admitted_of(9), 3);
        // It is nine in the morning of the first.
        let wait = trial.hit(1).wait();
        assert_eq!(wait, 14 * DAY - 9 * HOUR);
        trial.advance(wait);
        assert_eq!(trial.hit(3).reset(), 31 * DAY);
    }

    #[test]
    fn a_year_and_a_quarter_start_with_january() {
        for (rate, days) in [("1/year", 366), ("1/3months", 91), ("1/6months", 182)] {
            let strategy = CalendarWindow::new();
            let mut trial = Trial::of(&strategy, rate);
            assert_eq!(trial.hit(1).reset(), days * DAY, "{rate}");
        }
    }

    #[test]
    fn a_week_starts_on_its_day() {
        // The first of 2024 was a Monday.
        for (day, days) in [
            (Weekday::Monday, 7),
            (Weekday::Tuesday, 1),
            (Weekday::Sunday, 6),
        ] {
            let strategy = CalendarWindow::new().week_starts_on(day);
            let mut trial = Trial::of(&strategy, "1/week");
            assert_eq!(trial.hit(1).reset(), days * DAY, "{day:?}");
        }
    }

    /// Of all of them `fixed_window` would make windows of so many seconds since 1970.
    #[test]
    fn a_plan_that_changes_from_days_to_months_keeps_its_count() {
        let strategy = CalendarWindow::new();
        let mut trial = Trial::of(&strategy, "5/day");
        trial.advance(9 * DAY);
        assert_eq!(trial.admitted_of(9), 5);
        trial.rate = Rate::literal("8/month");
        assert_eq!(trial.admitted_of(9), 3);
        assert_eq!(trial.hit(1).wait(), 22 * DAY);
        trial.rate = Rate::literal("9/day");
        assert_eq!(trial.hit(1).remaining(), 0);
        trial.advance(DAY);
        assert_eq!(trial.admitted_of(10), 9);
    }

    #[test]
    fn a_month_that_began_is_not_begun_again_by_a_clock_that_steps_back() {
        let strategy = CalendarWindow::new();
        let mut trial = Trial::of(&strategy, "3/month");
        assert_eq!(trial.admitted_of(9), 3);
        let before = Timestamp::from_micros(trial.now.as_micros() - 5);
        trial.now = before;
        assert_eq!(trial.admitted_of(9), 0);
        assert_eq!(trial.hit(1).wait(), 31 * DAY + Duration::from_micros(5));
        // By more than a month: the next one is taken instead, from what is then the present.
        trial.now = Timestamp::from_micros(before.as_micros() - micros(45 * DAY));
        assert_eq!(
            trial.hit(1).wait(),
            31 * DAY + 14 * DAY + Duration::from_micros(5)
        );
        assert!(trial.settle(Settlement::Charge(0)));
        assert_eq!(
            trial.hit(1).wait(),
            31 * DAY + 14 * DAY + Duration::from_micros(5)
        );
    }

    /// Nobody validates the rates of attempts, nor zones of the user's at all times.
    #[test]
    fn what_is_refused_still_decides() {
        for (strategy, rate) in [
            (CalendarWindow::new().month_starts_on(0), "2/month"),
            (CalendarWindow::new().month_starts_on(u32::MAX), "2/year"),
            (CalendarWindow::new().timezone_offset(99), "2/day"),
            (CalendarWindow::new().timezone_offset(i32::MIN), "2/hour"),
            (CalendarWindow::new(), "2/7hours"),
            (CalendarWindow::new(), "2/36hours"),
        ] {
            let rate = Rate::literal(rate);
            assert!(strategy.validate(&rate).is_err(), "{rate}");
            let valid = CalendarWindow::new();
            let mut trial = Trial::of(&valid, "2/week");
            (trial.strategy, trial.rate) = (&strategy, rate);
            assert_eq!(trial.admitted_of(9), 2, "{rate}");
            let wait = trial.hit(1).wait();
            trial.advance(wait);
            assert_eq!(trial.admitted_of(9), 2, "{rate}");
        }
    }

    #[test]
    fn refuses_what_the_calendar_does_not_have() {
        let refusal = |strategy: CalendarWindow, rate| {
            let refused = strategy.validate(&Rate::literal(rate));
            refused.expect_err("should be refused").to_string()
        };
        assert_eq!(
            refusal(CalendarWindow::new(), "1/7hours"),
            "windows of the calendar that are less than a day divide it, as 15 minutes or 6 hours do: \
             `1/7hours` does not"
        );
        assert_eq!(
            refusal(CalendarWindow::new(), "1/36h"),
            "windows of the calendar that are more than a day are whole days, weeks, months or years: \
             `1/36hours` is not"
        );
        for day in [0, 32] {
            assert_eq!(
                refusal(CalendarWindow::new().month_starts_on(day), "1/month"),
                format!("a month starts on one of its days, from 1 to 31, not {day}")
            );
        }
        assert_eq!(
            refusal(CalendarWindow::new().timezone_offset(27), "1/day"),
            "local time is less than 26 hours ahead of UTC or behind, not 97200 seconds"
        );
        #[cfg(feature = "time-zone")]
        assert_eq!(
            refusal(CalendarWindow::new().zone("Mars"), "1/day"),
            "a time zone must be one of the IANA database, such as `Europe/Berlin`, not `Mars`"
        );
        #[cfg(not(feature = "time-zone"))]
        assert_eq!(
            refusal(CalendarWindow::new().zone("Europe/Berlin"), "1/day"),
            "the time zone `Europe/Berlin` is known by its name with the feature `time-zone` only"
        );
    }
}
