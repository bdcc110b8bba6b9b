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
    use crate::strategy::{Details, Strategy, TimeOfDay};
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
    fn names_that_nobody_knows_are_refused() {
        let error = IanaZone::named("Europe/Atlantis").unwrap_err();
        assert!(error.is_invalid());
        assert!(error.to_string().contains("not `Europe/Atlantis`"));
    }
}
