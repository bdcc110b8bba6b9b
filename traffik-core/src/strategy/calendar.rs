//! Days, weeks, months and years, where they begin and end in a time zone.

use super::zone::{FARTHEST_US, Place};

pub(super) const DAY_US: u64 = 24 * 60 * 60 * 1_000_000;

/// How many days a day is after the first of January 1970, which was a Thursday.
type Day = i64;

/// What a calendar is divided into, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// So many days; one of these stretches begins on this day.
    Days { count: i64, from: Day },
    /// So many months, the first ones from January on. They start on this day, or on the last one of a
    /// month that has less.
    Months { count: i64, start_on: i64 },
}

/// A day of the week.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Weekday {
    /// The first of a week by ISO 8601, and by default.
    #[default]
    Monday,
    /// The second.
    Tuesday,
    /// The third.
    Wednesday,
    /// The fourth.
    Thursday,
    /// The fifth.
    Friday,
    /// The sixth.
    Saturday,
    /// The seventh.
    Sunday,
}

impl Weekday {
    /// One such day: of the week in which 1970 began.
    pub(super) const fn some(self) -> Day {
        self as Day - Weekday::Thursday as Day
    }
}

impl Stretch {
    /// The first day of the stretch that a day is in.
    fn first(self, day: Day) -> Day {
        match self {
            Stretch::Days { count, from } => day - (day - from).rem_euclid(count),
            Stretch::Months { count, start_on } => {
                let month = month_of(day);
                let has_begun = start_of(month, start_on) <= day;
                let month = if has_begun { month } else { month - 1 };
                start_of(month - month.rem_euclid(count), start_on)
            }
        }
    }

    /// The first day of the next stretch, given that of this one.
    fn next(self, first: Day) -> Day {
        match self {
            Stretch::Days { count, .. } => first + count,
            Stretch::Months { count, start_on } => start_of(month_of(first) + count, start_on),
        }
    }
}

/// How many months a month is after January 1970.
type Month = i64;

/// From <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>.
fn month_of(day: Day) -> Month {
    // Years begin in March here, so that the leap day is their last.
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let since_march = (5 * of_year + 2) / 153;
    12 * (era * 400 + year - 1_970) + 2 + since_march
}

/// The first of a month: <https://howardhinnant.github.io/date_algorithms.html#days_from_civil>.
fn first_of(month: Month) -> Day {
    let march = month - 2;
    let (year, since_march) = (1_970 + march.div_euclid(12), march.rem_euclid(12));
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * since_march + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The day of a month with this number, or its last one.
fn start_of(month: Month, start_on: i64) -> Day {
    (first_of(month) + start_on - 1).min(first_of(month + 1) - 1)
}

impl Place {
    /// When the stretches begin that are before the one at this instant, that one, and the two after it:
    /// each where the one before it ends. None begins before the epoch.
    pub(super) fn edges(&self, stretch: Stretch, at_us: u64) -> [u64; 4] {
        let (first, start, end) = self.stretch_at(stretch, at_us);
        let next = stretch.next(stretch.next(first));
        let before = self.midnight(stretch.first(first - 1));
        [before, start, end, self.midnight(next)]
    }

    /// When the stretch at this instant begins and ends.
    pub(super) fn bounds(&self, stretch: Stretch, at_us: u64) -> (u64, u64) {
        let (_, start, end) = self.stretch_at(stretch, at_us);
        (start, end)
    }

    /// The first day of the stretch at this instant, and its bounds: the last one that has begun. Clocks that
    /// are put back over midnight show the day before again, but it is over.
    fn stretch_at(&self, stretch: Stretch, at_us: u64) -> (Day, u64, u64) {
        let mut first = stretch.first(self.day_shown(at_us));
        let mut start = self.midnight(first);
        loop {
            let next = stretch.next(first);
            let end = self.midnight(next);
            if at_us < end {
                return (first, start, end);
            }
            (first, start) = (next, end);
        }
    }

    /// What the calendar shows.
    fn day_shown(&self, at_us: u64) -> Day {
        let local_us = clamped(at_us) + self.offset_us(at_us);
        local_us.div_euclid(DAY_US.cast_signed())
    }

    /// Never further than is allowed, even of a zone that nobody validated.
    fn offset_us(&self, at_us: u64) -> i64 {
        let farthest = FARTHEST_US.cast_signed();
        let offset_us = i64::from(self.offset_seconds(at_us)) * 1_000_000;
        offset_us.clamp(-farthest, farthest)
    }

    /// The first instant at which the calendar shows this day, or a later one if this is skipped.
    fn midnight(&self, day: Day) -> u64 {
        let local_us = day.saturating_mul(DAY_US.cast_signed());
        let mut since = positive(local_us - FARTHEST_US.cast_signed());
        loop {
            // While the offset stays as it is.
            let shown = positive(local_us - self.offset_us(since)).max(since);
            match self.next_change(since) {
                Some(change) if change <= shown => since = change,
                _ => return shown,
            }
        }
    }
}

/// No instant is later: sums of a few such ones, and of years, are within an `i64`.
fn clamped(at_us: u64) -> i64 {
    at_us.min(1 << 61).cast_signed()
}

fn positive(at_us: i64) -> u64 {
    at_us.max(0).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_have_their_days() {
        for (month, day) in [
            (0, 0),
            (1, 31),
            (-1, -31),
            (12, 365),
            (26, 790),       // March 1972, after a leap day
            (362, 11_017),   // March 2000, which had one
            (1_562, 47_541), // March 2100, which has none
        ] {
            assert_eq!(first_of(month), day, "{month}");
        }
        for month in -2_400..12_000 {
            let (first, next) = (first_of(month), first_of(month + 1));
            assert!((28..=31).contains(&(next - first)), "{month}");
            assert_eq!((month_of(first), month_of(next - 1)), (month, month));
        }
    }

    #[test]
    fn a_month_that_has_no_such_day_starts_on_its_last() {
        let day = |month, of_month| first_of(month) + of_month - 1;
        let months = Stretch::Months {
            count: 1,
            start_on: 31,
        };
        // January to May of 1970.
        let starts = [day(0, 31), day(1, 28), day(2, 31), day(3, 30), day(4, 31)];
        for pair in starts.windows(2) {
            assert_eq!(months.next(pair[0]), pair[1]);
            assert_eq!(months.first(pair[1] - 1), pair[0]);
            assert_eq!(months.first(pair[1]), pair[1]);
        }
        // A leap day.
        assert_eq!(months.first(day(26, 1)), day(25, 29));
    }

    #[test]
    fn weeks_start_on_their_day_and_quarters_in_january() {
        for (weekday, before) in [
            (Weekday::Thursday, 0),
            (Weekday::Wednesday, 1),
            (Weekday::Monday, 3),
            (Weekday::Sunday, 4),
            (Weekday::Friday, 6),
        ] {
            let week = Stretch::Days {
                count: 7,
                from: weekday.some(),
            };
            assert_eq!(week.first(0), -before, "{weekday:?}");
            assert_eq!(week.next(-before), 7 - before);
        }
        let quarter = Stretch::Months {
            count: 3,
            start_on: 15,
        };
        assert_eq!(quarter.first(first_of(7)), first_of(6) + 14);
        assert_eq!(quarter.first(first_of(0)), first_of(-3) + 14);
    }

    #[test]
    fn no_instant_is_too_late_or_too_early() {
        let far = Place::at_offset_minutes(-26 * 60);
        let months = Stretch::Months {
            count: 12,
            start_on: 31,
        };
        for at in [0, 1, DAY_US, 1 << 53, 1 << 60] {
            let [before, start, end, next] = far.edges(months, at);
            assert!(
                before <= start && start <= at && at < end && end < next,
                "{at}"
            );
        }
    }
}
