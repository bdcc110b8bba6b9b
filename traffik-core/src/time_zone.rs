//! Time zones of the IANA database.

use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::strategy::Zone;
use crate::time::Timestamp;

/// A time zone by its name in the IANA database, daylight saving time included.
///
/// ```
/// use traffik_core::{IanaZone, TimeOfDay};
///
/// let office_hours = TimeOfDay::new()
///     .windows([(8, 17, 1.0), (17, 8, 3.0)])
///     .zone(IanaZone::named("Europe/Berlin")?);
/// # let _ = office_hours;
/// # Ok::<(), traffik_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct IanaZone(TimeZone);

impl IanaZone {
    /// Looks the name up, in the system's database or, where there is none, in one that is part of
    /// the program.
    ///
    /// # Errors
    ///
    /// If there is no such zone.
    pub fn named(name: &str) -> Result<IanaZone> {
        TimeZone::get(name).map(IanaZone).map_err(|error| {
            let message =
                format!("a time zone must be one of the IANA database, such as `Europe/Berlin`, not `{name}`");
            Error::invalid(message).with_source(error)
        })
    }
}

impl Zone for IanaZone {
    fn offset_seconds(&self, at: Timestamp) -> i32 {
        instant(at).map_or(0, |at| self.0.to_offset(at).seconds())
    }

    fn next_change(&self, after: Timestamp) -> Option<Timestamp> {
        let change = self.0.following(instant(after)?).next()?;
        let micros = u64::try_from(change.timestamp().as_microsecond()).ok()?;
        Some(Timestamp::from_micros(micros))
    }
}

/// `None` after the year 9999.
fn instant(at: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_microsecond(i64::try_from(at.as_micros()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::strategy::{CalendarWindow, Details, Strategy, TimeOfDay, Weekday};
    use crate::testing::laws::{Bound, Laws};
    use crate::time::micros;
    use crate::{Attributes, Cell, Hit, Rate};

    fn berlin() -> TimeOfDay {
        TimeOfDay::new().zone(IanaZone::named("Europe/Berlin").unwrap())
    }

    #[test]
    fn is_lawful_where_clocks_change() {
        const DAY_US: u64 = 24 * 60 * 60 * 1_000_000;
        for (windows, edges) in [
            (vec![(8, 17, 1.0), (17, 8, 3.0)], 2),
            // Two o'clock does not exist once a year, and exists twice once a year.
            (vec![(2, 3, 0.5), (0, 24, 1.0)], 2),
        ] {
            let strategy = berlin().windows(windows);
            let bound = Bound::new(move |rate, interval| {
                let interval = micros(interval);
                // A change of the clock may add an edge.
                let edges = (edges + 1) * (interval / DAY_US + 1);
                let parts = interval.div_ceil(rate.period_us()) + 1 + edges;
                u128::from(rate.limit()) * 3 * u128::from(parts)
            });
            Laws::of(&strategy, bound).cases(64).check();
        }
    }

    /// Found by the laws: the last edge was searched for no further back than 26 hours.
    #[test]
    fn hours_that_a_change_of_the_clocks_skips_are_cut_two_days_apart() {
        let strategy = berlin().windows([(2, 3, 0.5), (0, 24, 1.0)]);
        let rate = Rate::literal("2/7days");
        let hit = |at: &str| Hit {
            now: micros_of(at),
            rate: &rate,
            cost: 1,
            attributes: &Attributes::NONE,
        };
        // On the 31st the clocks go from 2 to 3 at once.
        let (from, to) = ("2024-03-30T02:00:00Z", "2024-04-01T00:00:00Z");
        for at in [from, "2024-03-31T01:00:00Z", "2024-03-31T23:59:00Z"] {
            let mut cell = Cell::fresh();
            assert!(strategy.step(&mut cell, &hit(at)).is_allowed());
            assert_eq!(cell.words()[0], micros_of(from).as_micros(), "{at}");
            assert_eq!(cell.expires(), micros_of(to), "{at}");
        }
    }

    fn micros_of(at: &str) -> Timestamp {
        let at: jiff::Timestamp = at.parse().unwrap();
        Timestamp::from_micros(at.as_microsecond().try_into().unwrap())
    }

    #[test]
    fn an_hour_is_the_hour_on_the_wall() {
        let strategy = berlin().windows([(8, 17, 2.0)]);
        let rate = Rate::per_hour(1);
        let limit = |at: &str| {
            let hit = Hit {
                now: micros_of(at),
                rate: &rate,
                cost: 0,
                attributes: &Attributes::NONE,
            };
            let Details::TimeOfDay(stat) = strategy.details(&Cell::fresh(), &hit) else {
                panic!("it is a time of day");
            };
            let decision = strategy.step(&mut Cell::fresh(), &hit);
            assert_eq!(decision.limit(), stat.effective_limit);
            (stat.effective_limit, decision.reset())
        };
        let minutes = |count: u64| Duration::from_secs(60 * count);
        assert_eq!(limit("2024-01-15T06:30:00Z"), (1, minutes(30)));
        assert_eq!(limit("2024-01-15T07:30:00Z"), (2, minutes(30)));
        assert_eq!(limit("2024-07-15T06:30:00Z"), (2, minutes(30)));
        assert_eq!(limit("2024-07-15T15:30:00Z"), (1, minutes(30)));
    }

    #[test]
    fn calendar_windows_are_lawful_where_clocks_change() {
        const HOUR_US: u64 = 60 * 60 * 1_000_000;
        let strategy = CalendarWindow::new()
            .zone("Europe/Berlin")
            .month_starts_on(31);
        let bound = Bound::new(|rate, interval| {
            let shortest = match (rate.months(), rate.period_us()) {
                (Some(months), _) => u64::from(months) * 28 * 24 * HOUR_US - HOUR_US,
                (None, period) if period >= 24 * HOUR_US => period - HOUR_US,
                // What is left of a day that has 23 or 25 hours.
                (None, mut period) => {
                    let mut left = HOUR_US;
                    while left > 0 {
                        (period, left) = (left, period % left);
                    }
                    period
                }
            };
            let touched = micros(interval).div_ceil(shortest) + 1;
            u128::from(rate.limit()) * u128::from(touched)
        });
        let rates = [
            "3/hour",
            "3/day",
            "3/week",
            "5/month",
            "5/3months",
            "7/year",
        ];
        Laws::of(&strategy, bound)
            .rates(rates.map(Rate::literal))
            .check();
    }

    #[test]
    fn a_day_has_as_many_hours_as_on_the_wall() {
        for (zone, from, to, hours) in [
            (
                "Europe/Berlin",
                "2024-03-31T12:00:00Z",
                "2024-03-31T22:00:00Z",
                23,
            ),
            (
                "Europe/Berlin",
                "2024-10-27T12:00:00Z",
                "2024-10-27T23:00:00Z",
                25,
            ),
            (
                "Europe/Berlin",
                "2024-07-01T12:00:00Z",
                "2024-07-01T22:00:00Z",
                24,
            ),
            // Half an hour.
            (
                "Australia/Lord_Howe",
                "2024-10-06T00:00:00Z",
                "2024-10-06T13:00:00Z",
                23,
            ),
            // Midnight is skipped, and comes twice.
            (
                "America/Santiago",
                "2024-09-08T12:00:00Z",
                "2024-09-09T03:00:00Z",
                23,
            ),
            (
                "America/Havana",
                "2024-11-03T12:00:00Z",
                "2024-11-04T05:00:00Z",
                25,
            ),
            // A whole day is skipped.
            (
                "Pacific/Apia",
                "2011-12-30T09:59:59Z",
                "2011-12-30T10:00:00Z",
                24,
            ),
            (
                "Pacific/Apia",
                "2011-12-30T10:00:00Z",
                "2011-12-31T10:00:00Z",
                24,
            ),
        ] {
            let strategy = CalendarWindow::new().zone(zone);
            let (from, to) = (micros_of(from), micros_of(to));
            let rate = Rate::per_day(1);
            let hit = |now| Hit {
                now,
                rate: &rate,
                cost: 1,
                attributes: &Attributes::NONE,
            };
            let mut cell = Cell::fresh();
            let first = strategy.step(&mut cell, &hit(from));
            assert_eq!(micros(first.reset()), to.micros_since(from), "{zone}");
            let length = cell
                .expires()
                .micros_since(Timestamp::from_micros(cell.words()[0]));
            assert_eq!(length / 3_600_000_000, hours, "{zone}");
            let early = Timestamp::from_micros(to.as_micros() - 1);
            assert!(strategy.step(&mut cell.clone(), &hit(early)).is_denied());
            assert!(strategy.step(&mut cell, &hit(to)).is_allowed(), "{zone}");
        }
    }

    /// What begins last before an instant, by a library that knows calendars: each first day that it could
    /// be, and those around it, since clocks are put back over midnight.
    fn begun(zone: &TimeZone, at: u64, is_first: impl Fn(jiff::civil::Date) -> bool) -> [u64; 2] {
        let at = jiff::Timestamp::from_microsecond(at.cast_signed()).unwrap();
        let shown = at.to_zoned_datetime(zone.clone()).date();
        let start_of = |date: jiff::civil::Date| {
            let noon = date
                .at(12, 0, 0, 0)
                .to_zoned_datetime(zone.clone())
                .unwrap();
            noon.start_of_day().unwrap().timestamp()
        };
        let next = |date: jiff::civil::Date, step: i64| {
            let days = (1..).map(move |days| date + jiff::Span::new().days(step * days));
            days.into_iter().find(|date| is_first(*date)).unwrap()
        };
        let mut first = next(shown + jiff::Span::new().days(3), -1);
        let mut end = start_of(next(first, 1));
        while start_of(first) > at {
            (first, end) = (next(first, -1), start_of(first));
        }
        [start_of(first), end].map(|edge| edge.as_microsecond().max(0).cast_unsigned())
    }

    /// The days of all zones, the odd ones too, and of all times: clocks have been changed at midnight, by
    /// twenty minutes, and by a day.
    #[test]
    fn days_weeks_months_and_years_begin_and_end_as_jiff_says() {
        use proptest::test_runner::{Config, TestRunner};

        let zones: Vec<String> = jiff::tz::db()
            .available()
            .map(|name| name.to_string())
            .collect();
        assert!(zones.len() > 300, "{}", zones.len());
        let zone = proptest::sample::select(zones);
        // From 1970 to 2100, and the times at which clocks change.
        let cases = (
            zone,
            0..4_102_444_800_000_000_u64,
            0..3_u8,
            -1..=1_i64,
            1..=31_u32,
            0..7_usize,
        );
        let config = Config::with_cases(1_000);
        let tried =
            TestRunner::new(config).run(&cases, |(name, at, at_change, off, day, weekday)| {
                let zone = TimeZone::get(&name).unwrap();
                let iana = IanaZone(zone.clone());
                let change = iana.next_change(Timestamp::from_micros(at));
                let at = match change.filter(|_| at_change > 0) {
                    Some(change) if at_change == 1 => change.as_micros().saturating_add_signed(off),
                    // Somewhere in the hour before or after.
                    Some(change) => (change.as_micros() - 3_600_000_000) + at % 7_200_000_000,
                    None => at,
                };
                let weekdays = [
                    (Weekday::Monday, jiff::civil::Weekday::Monday),
                    (Weekday::Tuesday, jiff::civil::Weekday::Tuesday),
                    (Weekday::Wednesday, jiff::civil::Weekday::Wednesday),
                    (Weekday::Thursday, jiff::civil::Weekday::Thursday),
                    (Weekday::Friday, jiff::civil::Weekday::Friday),
                    (Weekday::Saturday, jiff::civil::Weekday::Saturday),
                    (Weekday::Sunday, jiff::civil::Weekday::Sunday),
                ];
                let (ours, theirs) = weekdays[weekday];
                let strategy = CalendarWindow::new()
                    .zone(iana)
                    .week_starts_on(ours)
                    .month_starts_on(day);
                let starts = |date: jiff::civil::Date| {
                    u32::try_from(date.day()).unwrap()
                        == day.min(u32::try_from(date.days_in_month()).unwrap())
                };
                let edges = |rate: Rate| {
                    let mut cell = Cell::fresh();
                    let now = Timestamp::from_micros(at);
                    let hit = Hit {
                        now,
                        rate: &rate,
                        cost: 1,
                        attributes: &Attributes::NONE,
                    };
                    assert!(strategy.step(&mut cell, &hit).is_allowed());
                    [cell.words()[0], cell.expires().as_micros()]
                };
                let why = format!("{name} at {at} from {day} and {ours:?}");
                assert_eq!(
                    edges(Rate::per_day(1)),
                    begun(&zone, at, |_| true),
                    "day: {why}"
                );
                assert_eq!(
                    edges(Rate::literal("1/week")),
                    begun(&zone, at, |date| date.weekday() == theirs),
                    "week: {why}"
                );
                assert_eq!(
                    edges(Rate::per_month(1)),
                    begun(&zone, at, starts),
                    "month: {why}"
                );
                assert_eq!(
                    edges(Rate::per_year(1)),
                    begun(&zone, at, |date| date.month() == 1 && starts(date)),
                    "year: {why}"
                );
                Ok(())
            });
        tried.unwrap();
    }

    #[test]
    fn names_that_nobody_knows_are_refused() {
        let error = IanaZone::named("Europe/Atlantis").unwrap_err();
        assert!(error.is_invalid());
        assert!(error.to_string().contains("not `Europe/Atlantis`"));
    }
}
