//! How much is allowed per how long.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::span::Span;

/// A limit per period, such as `100/minute`.
///
/// A `Rate` is valid once it exists: its limit is between 1 and [`Rate::MAX_LIMIT`], its period
/// between one millisecond and [`Rate::MAX_PERIOD`] in whole milliseconds, or it is
/// [`Rate::UNLIMITED`].
///
/// # Text form
///
/// `<limit>/<unit>`, `<limit>/<count><unit>` or the same with `per` in place of the slash; spaces
/// and case do not matter. Units: `ms`, `s`, `m`, `h`, `d`, `w` and the usual longer names
/// (`sec`, `seconds`, `mins`, `hours`, `days`, `weeks`, ...). `0/0` is unlimited.
///
/// A `month` or a `year` is none of these lengths. [`CalendarWindow`](crate::CalendarWindow) takes them from
/// the calendar. For buckets and logs they are as long as the Gregorian calendar's are on average: 365.2425
/// days, and a twelfth of that. Strategies whose windows are a period long refuse them.
///
/// ```
/// use std::time::Duration;
/// use traffik_core::Rate;
///
/// let rate: Rate = "20 per 2 mins".parse()?;
/// assert_eq!(rate.limit(), 20);
/// assert_eq!(rate.period(), Duration::from_secs(120));
/// assert_eq!(rate.to_string(), "20/2minutes");
///
/// const LOGIN: Rate = Rate::literal("5/minute"); // a mistake here does not compile
/// # assert_eq!(LOGIN.limit(), 5);
/// # Ok::<(), traffik_core::RateError>(())
/// ```
///
/// Equality compares limit and period: `60/minute` and `1/second` differ, though they are the
/// [same rate](Rate::same_rate).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    limit: u32,
    /// `period_us % limit`: with the quotient below, the exact emission interval.
    interval_rem: u32,
    interval_us: u64,
    period_us: u64,
}

impl Rate {
    /// No limit at all; written `0/0`.
    pub const UNLIMITED: Rate = Rate {
        limit: 0,
        interval_rem: 0,
        interval_us: 0,
        period_us: 0,
    };

    /// The largest limit: a thousand million.
    pub const MAX_LIMIT: u32 = 1_000_000_000;

    /// The longest period: 366 days.
    pub const MAX_PERIOD: Duration = Duration::from_secs(366 * 24 * 60 * 60);

    /// A limit per period. `Rate::new(0, Duration::ZERO)` is unlimited.
    ///
    /// # Errors
    ///
    /// If the limit or the period is out of range, or the period is not a whole number of
    /// milliseconds.
    pub const fn new(limit: u32, period: Duration) -> Result<Rate, RateError> {
        if period.as_secs() > Self::MAX_PERIOD.as_secs() {
            return Err(RateError::PeriodTooLong);
        }
        if !period.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(RateError::PeriodNotWholeMillis);
        }
        Self::from_millis(
            limit as u64,
            period.as_secs() * 1_000 + period.subsec_millis() as u64,
        )
    }

    /// `limit` per second.
    ///
    /// # Panics
    ///
    /// If the limit is zero or above [`Rate::MAX_LIMIT`]; in a `const` that is a compile error.
    pub const fn per_second(limit: u32) -> Rate {
        Self::expect(Self::from_millis(limit as u64, SECOND))
    }

    /// `limit` per minute.
    ///
    /// # Panics
    ///
    /// If the limit is zero or above [`Rate::MAX_LIMIT`]; in a `const` that is a compile error.
    pub const fn per_minute(limit: u32) -> Rate {
        Self::expect(Self::from_millis(limit as u64, MINUTE))
    }

    /// `limit` per hour.
    ///
    /// # Panics
    ///
    /// If the limit is zero or above [`Rate::MAX_LIMIT`]; in a `const` that is a compile error.
    pub const fn per_hour(limit: u32) -> Rate {
        Self::expect(Self::from_millis(limit as u64, HOUR))
    }

    /// `limit` per day of 24 hours.
    ///
    /// # Panics
    ///
    /// If the limit is zero or above [`Rate::MAX_LIMIT`]; in a `const` that is a compile error.
    pub const fn per_day(limit: u32) -> Rate {
        Self::expect(Self::from_millis(limit as u64, DAY))
    }

    /// `limit` per [month](Rate#text-form).
    ///
    /// # Panics
    ///
    /// If the limit is zero or above [`Rate::MAX_LIMIT`]; in a `const` that is a compile error.
    pub const fn per_month(limit: u32) -> Rate {
        Self::expect(Self::from_millis(limit as u64, MONTH))
    }

    /// `limit` per [year](Rate#text-form).
    ///
    /// # Panics
    ///
    /// If the limit is zero or above [`Rate::MAX_LIMIT`]; in a `const` that is a compile error.
    pub const fn per_year(limit: u32) -> Rate {
        Self::expect(Self::from_millis(limit as u64, YEAR))
    }

    /// Parses the [text form](Rate#text-form).
    ///
    /// # Errors
    ///
    /// A [`RateError`] that says what is wrong and what would be right.
    pub const fn parse(text: &str) -> Result<Rate, RateError> {
        parse(text.as_bytes())
    }

    /// Parses a literal, for constants.
    ///
    /// # Panics
    ///
    /// If the text is not a rate; in a `const` that is a compile error.
    pub const fn literal(text: &str) -> Rate {
        Self::expect(Self::parse(text))
    }

    /// Parses what may stand after the slash: `minute`, `30s`, `2 hours`.
    ///
    /// # Errors
    ///
    /// A [`RateError`] that says what is wrong and what would be right.
    pub const fn parse_period(text: &str) -> Result<Duration, RateError> {
        match period_ms(text.as_bytes().trim_ascii()) {
            Ok(ms) if ms > Self::MAX_PERIOD.as_secs() * 1_000 => Err(RateError::PeriodTooLong),
            Ok(ms) => Ok(Duration::from_millis(ms)),
            Err(error) => Err(error),
        }
    }

    const fn expect(rate: Result<Rate, RateError>) -> Rate {
        match rate {
            Ok(rate) => rate,
            Err(error) => panic!("{}", error.message()),
        }
    }

    const fn from_millis(limit: u64, period_ms: u64) -> Result<Rate, RateError> {
        match (limit, period_ms) {
            (0, 0) => return Ok(Self::UNLIMITED),
            (0, _) => return Err(RateError::LimitZero),
            (_, 0) => return Err(RateError::PeriodZero),
            _ => {}
        }
        if limit > Self::MAX_LIMIT as u64 {
            return Err(RateError::LimitTooLarge);
        }
        if period_ms > Self::MAX_PERIOD.as_secs() * 1_000 {
            return Err(RateError::PeriodTooLong);
        }
        let period_us = period_ms * 1_000;
        #[expect(clippy::cast_possible_truncation, reason = "both are at most 10^9")]
        Ok(Rate {
            limit: limit as u32,
            interval_rem: (period_us % limit) as u32,
            interval_us: period_us / limit,
            period_us,
        })
    }

    /// How much is allowed in one period; 0 if unlimited.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// The period; zero if unlimited.
    pub const fn period(&self) -> Duration {
        Duration::from_micros(self.period_us)
    }

    /// The period in microseconds; zero if unlimited.
    pub const fn period_us(&self) -> u64 {
        self.period_us
    }

    /// How many months the period is, if it is one of months or years: 12 for a year.
    pub const fn months(&self) -> Option<u32> {
        let months = self.period_us / (MONTH * 1_000);
        match months {
            1.. if self.period_us.is_multiple_of(MONTH * 1_000) => Some(months as u32),
            _ => None,
        }
    }

    /// Whether this is [`Rate::UNLIMITED`].
    pub const fn is_unlimited(&self) -> bool {
        self.limit == 0
    }

    /// Whether the period is shorter than a second.
    pub const fn is_subsecond(&self) -> bool {
        !self.is_unlimited() && self.period_us < SECOND * 1_000
    }

    /// Limit per second; infinite if unlimited. For display: decisions never use floats.
    pub fn rps(&self) -> f64 {
        self.per(SECOND)
    }

    /// Limit per minute; infinite if unlimited.
    pub fn rpm(&self) -> f64 {
        self.per(MINUTE)
    }

    /// Limit per hour; infinite if unlimited.
    pub fn rph(&self) -> f64 {
        self.per(HOUR)
    }

    /// Limit per day of 24 hours; infinite if unlimited.
    pub fn rpd(&self) -> f64 {
        self.per(DAY)
    }

    fn per(&self, unit_ms: u64) -> f64 {
        if self.is_unlimited() {
            return f64::INFINITY;
        }
        f64::from(self.limit) * (unit_ms * 1_000) as f64 / self.period_us as f64
    }

    /// Whether both allow the same amount per second in the long run: `60/minute` and `1/second`.
    pub const fn same_rate(&self, other: &Rate) -> bool {
        self.limit as u128 * other.period_us as u128 == other.limit as u128 * self.period_us as u128
            && self.is_unlimited() == other.is_unlimited()
    }

    /// The exact time in which this rate earns `cost`: `cost * period / limit`, saturating at
    /// [`Span::MAX`]. Zero if unlimited.
    #[inline]
    pub fn time_for(&self, cost: u64) -> Span {
        if cost == 1 {
            return Span::new(self.interval_us, self.interval_rem);
        }
        if self.is_unlimited() {
            return Span::ZERO;
        }
        let limit = u128::from(self.limit);
        let scaled = u128::from(cost) * u128::from(self.period_us);
        Span::saturating(scaled / limit, scaled % limit)
    }

    /// How much this rate earns in `span`, in whole units, rounded down; 0 if unlimited.
    #[inline]
    pub fn earned_in(&self, span: Span) -> u64 {
        let scaled =
            u128::from(span.micros()) * u128::from(self.limit) + u128::from(span.fraction());
        match u64::try_from(scaled) {
            // One instruction, where a division of 128 bits is a call.
            Ok(scaled) => scaled.checked_div(self.period_us).unwrap_or(0),
            // At most 2^52 * 2^30 / 1000, so it may exceed a u64 only for spans no rate produces.
            Err(_) => u64::try_from(scaled / u128::from(self.period_us)).unwrap_or(u64::MAX),
        }
    }
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
/// A twelfth of the 146,097 days that 400 years of the Gregorian calendar have: no whole number of days, so
/// that no period of days is taken for one of months.
const MONTH: u64 = 146_097 * DAY / (400 * 12);
const YEAR: u64 = 12 * MONTH;

const UNITS: [(&[&str], u64); 8] = [
    (&["ms", "millisecond", "milliseconds", "msec", "msecs"], 1),
    (&["s", "sec", "secs", "second", "seconds"], SECOND),
    (&["m", "min", "mins", "minute", "minutes"], MINUTE),
    (&["h", "hr", "hrs", "hour", "hours"], HOUR),
    (&["d", "day", "days"], DAY),
    (&["w", "week", "weeks", "wk", "wks"], WEEK),
    (&["month", "months"], MONTH),
    (&["year", "years"], YEAR),
];

/// Why a text or a pair of numbers is not a [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateError {
    /// Nothing but spaces.
    Empty,
    /// There is no `/` or `per`.
    NoSeparator,
    /// The part before the separator is not a whole number.
    BadLimit,
    /// The part after the separator is not a unit with an optional count before it.
    BadPeriod,
    /// The unit is not known.
    UnknownUnit,
    /// A limit of zero with a period.
    LimitZero,
    /// The limit exceeds [`Rate::MAX_LIMIT`].
    LimitTooLarge,
    /// A period of zero with a limit.
    PeriodZero,
    /// The period exceeds [`Rate::MAX_PERIOD`].
    PeriodTooLong,
    /// The period has a part finer than a millisecond.
    PeriodNotWholeMillis,
}

impl RateError {
    /// The same text as `Display`, for constants.
    pub const fn message(&self) -> &'static str {
        match self {
            Self::Empty => "a rate is missing: write for example `100/minute`",
            Self::NoSeparator => {
                "a rate needs a limit and a period with `/` or `per` between them: \
                 for example `100/minute` or `10 per 30s`"
            }
            Self::BadLimit => {
                "the limit of a rate must be a whole number such as the 100 in `100/minute`"
            }
            Self::BadPeriod => {
                "the period of a rate must be a unit with an optional count before it: \
                 for example `minute`, `30s` or `2 hours`"
            }
            Self::UnknownUnit => {
                "the unit of a rate must be one of ms, s, m, h, d, w \
                 (or millisecond, second, minute, hour, day, week, month, year and their plurals)"
            }
            Self::LimitZero => "a limit of 0 admits nothing: for no limit write `0/0`",
            Self::LimitTooLarge => "the limit of a rate is at most 1000000000",
            Self::PeriodZero => "the period of a rate is at least 1ms: for no limit write `0/0`",
            Self::PeriodTooLong => "the period of a rate is at most 366 days",
            Self::PeriodNotWholeMillis => {
                "the period of a rate must be a whole number of milliseconds"
            }
        }
    }
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for RateError {}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Rate, RateError> {
        Rate::parse(text)
    }
}

impl TryFrom<&str> for Rate {
    type Error = RateError;

    fn try_from(text: &str) -> Result<Rate, RateError> {
        Rate::parse(text)
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Rate, RateError> {
        Rate::parse(&text)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.period_us / 1_000;
        let (unit, name) = match ms {
            0 => return f.write_str("0/0"),
            _ if ms.is_multiple_of(YEAR) => (YEAR, "year"),
            _ if ms.is_multiple_of(MONTH) => (MONTH, "month"),
            _ if ms.is_multiple_of(DAY) => (DAY, "day"),
            _ if ms.is_multiple_of(HOUR) => (HOUR, "hour"),
            _ if ms.is_multiple_of(MINUTE) => (MINUTE, "minute"),
            _ if ms.is_multiple_of(SECOND) => (SECOND, "second"),
            _ => return write!(f, "{}/{ms}ms", self.limit),
        };
        match ms / unit {
            1 => write!(f, "{}/{name}", self.limit),
            count => write!(f, "{}/{count}{name}s", self.limit),
        }
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rate({self})")
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Rate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Rate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Rate, D::Error> {
        let text = String::deserialize(deserializer)?;
        Rate::parse(&text).map_err(serde::de::Error::custom)
    }
}

const fn parse(text: &[u8]) -> Result<Rate, RateError> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(RateError::Empty);
    }
    let Some((at, width)) = find_separator(text) else {
        return Err(RateError::NoSeparator);
    };
    let (head, rest) = text.split_at(at);
    let (_, tail) = rest.split_at(width);

    let limit = match number(head.trim_ascii()) {
        Ok(limit) => limit,
        Err(NumberError::Malformed) => return Err(RateError::BadLimit),
        Err(NumberError::Overflow) => return Err(RateError::LimitTooLarge),
    };
    let tail = tail.trim_ascii();
    if limit == 0 && tail.len() == 1 && tail[0] == b'0' {
        return Ok(Rate::UNLIMITED);
    }
    match period_ms(tail) {
        Ok(period_ms) => Rate::from_millis(limit, period_ms),
        Err(error) => Err(error),
    }
}

/// Position and width of the first `/` or `per`.
const fn find_separator(text: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'/' {
            return Some((at, 1));
        }
        let (_, rest) = text.split_at(at);
        if rest.len() >= 3 && rest.split_at(3).0.eq_ignore_ascii_case(b"per") {
            return Some((at, 3));
        }
        at += 1;
    }
    None
}

enum NumberError {
    Malformed,
    Overflow,
}

/// Digits, with `_` between digits and a leading `+` as in the original's `int()`.
const fn number(text: &[u8]) -> Result<u64, NumberError> {
    let mut at = match text {
        [b'+', _, ..] => 1,
        _ => 0,
    };
    let mut value: u64 = 0;
    let mut after_digit = false;
    while at < text.len() {
        match text[at] {
            digit @ b'0'..=b'9' => {
                value = match value.checked_mul(10) {
                    Some(value) => value,
                    None => return Err(NumberError::Overflow),
                };
                value = match value.checked_add((digit - b'0') as u64) {
                    Some(value) => value,
                    None => return Err(NumberError::Overflow),
                };
                after_digit = true;
            }
            b'_' if after_digit => after_digit = false,
            _ => return Err(NumberError::Malformed),
        }
        at += 1;
    }
    if after_digit {
        Ok(value)
    } else {
        Err(NumberError::Malformed)
    }
}

const fn period_ms(text: &[u8]) -> Result<u64, RateError> {
    let mut digits = 0;
    while digits < text.len() && text[digits].is_ascii_digit() {
        digits += 1;
    }
    let (count, unit) = text.split_at(digits);
    let count = if count.is_empty() {
        1
    } else {
        match number(count) {
            Ok(0) => return Err(RateError::PeriodZero),
            Ok(count) => count,
            Err(_) => return Err(RateError::PeriodTooLong),
        }
    };
    let unit = unit.trim_ascii();
    let mut at = 0;
    while at < unit.len() {
        if !unit[at].is_ascii_alphabetic() {
            return Err(RateError::BadPeriod);
        }
        at += 1;
    }
    if unit.is_empty() {
        return Err(RateError::BadPeriod);
    }
    let Some(unit_ms) = unit_ms(unit) else {
        return Err(RateError::UnknownUnit);
    };
    match count.checked_mul(unit_ms) {
        Some(ms) => Ok(ms),
        None => Err(RateError::PeriodTooLong),
    }
}

const fn unit_ms(name: &[u8]) -> Option<u64> {
    let mut unit = 0;
    while unit < UNITS.len() {
        let (names, ms) = UNITS[unit];
        let mut at = 0;
        while at < names.len() {
            if name.eq_ignore_ascii_case(names[at].as_bytes()) {
                return Some(ms);
            }
            at += 1;
        }
        unit += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (u32, u64) {
        let rate = Rate::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        (rate.limit(), rate.period_us() / 1_000)
    }

    #[test]
    fn reads_every_form_of_the_original() {
        for (text, limit, ms) in [
            ("5/s", 5, SECOND),
            ("5/S", 5, SECOND),
            ("5/M", 5, MINUTE),
            ("5/MS", 5, 1),
            ("5 / m", 5, MINUTE),
            ("  10  /  5s  ", 10, 5 * SECOND),
            ("10/30 seconds", 10, 30 * SECOND),
            ("5 per minute", 5, MINUTE),
            ("5 PER Minute", 5, MINUTE),
            ("5per10s", 5, 10 * SECOND),
            ("5persec", 5, SECOND),
            ("5perm", 5, MINUTE),
            ("2 persecond", 2, SECOND),
            ("5/01s", 5, SECOND),
            ("100/30days", 100, 30 * DAY),
            ("1000000/100000s", 1_000_000, 100_000 * SECOND),
            ("+5/s", 5, SECOND),
            ("1_000/s", 1_000, SECOND),
            ("1000/500ms", 1_000, 500),
        ] {
            assert_eq!(of(text), (limit, ms), "{text:?}");
        }
    }

    #[test]
    fn reads_what_the_original_promised_and_rejected() {
        assert!(Rate::literal("0/0").is_unlimited());
        assert!(Rate::literal(" 0 per 0 ").is_unlimited());
        assert_eq!(of("20 per 2 mins"), (20, 2 * MINUTE));
        assert_eq!(of("7/week"), (7, WEEK));
        assert_eq!(of("7/2 weeks"), (7, 2 * WEEK));
        assert_eq!(of("3/hrs"), (3, HOUR));
        assert_eq!(of("3/10secs"), (3, 10 * SECOND));
    }

    #[test]
    fn refuses_everything_else_and_says_why() {
        use RateError as E;
        for (text, error) in [
            ("", E::Empty),
            ("   ", E::Empty),
            ("5s", E::NoSeparator),
            ("100", E::NoSeparator),
            ("abc/s", E::BadLimit),
            ("-5/s", E::BadLimit),
            ("5.5/s", E::BadLimit),
            ("1e3/s", E::BadLimit),
            ("/s", E::BadLimit),
            ("+/s", E::BadLimit),
            ("_5/s", E::BadLimit),
            ("5_/s", E::BadLimit),
            ("5__0/s", E::BadLimit),
            ("٥/s", E::BadLimit),
            ("5/", E::BadPeriod),
            ("5/5", E::BadPeriod),
            ("5/5.5s", E::BadPeriod),
            ("5/-5s", E::BadPeriod),
            ("5/5s@", E::BadPeriod),
            ("5/m/", E::BadPeriod),
            ("5/10/s", E::BadPeriod),
            ("5/per s", E::BadPeriod),
            ("5/1 0s", E::BadPeriod),
            ("5/x", E::UnknownUnit),
            ("5/fortnight", E::UnknownUnit),
            ("5/0s", E::PeriodZero),
            ("0/s", E::LimitZero),
            ("1000000001/s", E::LimitTooLarge),
            ("99999999999999999999/s", E::LimitTooLarge),
            ("1/367d", E::PeriodTooLong),
            ("1/99999999999999999999s", E::PeriodTooLong),
            ("1/18446744073709551615w", E::PeriodTooLong),
        ] {
            assert_eq!(Rate::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(
            Rate::new(1, Duration::from_micros(1_500)),
            Err(E::PeriodNotWholeMillis)
        );
        assert_eq!(Rate::new(1, Duration::MAX), Err(E::PeriodTooLong));
    }

    #[test]
    fn displays_so_that_it_parses_back() {
        for text in [
            "100/minute",
            "20/2minutes",
            "5/1500ms",
            "1/366days",
            "0/0",
            "9/7days",
            "10000/month",
            "5/3months",
            "1/year",
        ] {
            assert_eq!(Rate::literal(text).to_string(), text);
        }
        assert_eq!(Rate::literal("1/w").to_string(), "1/7days");
    }

    #[test]
    fn months_are_no_length() {
        for (text, months) in [
            ("5/month", Some(1)),
            ("5 per 3 Months", Some(3)),
            ("5/12months", Some(12)),
            ("5/year", Some(12)),
            ("5/2629746s", Some(1)),
            ("5/30days", None),
            ("5/31d", None),
            ("5/366d", None),
            ("5/s", None),
            ("0/0", None),
        ] {
            assert_eq!(Rate::literal(text).months(), months, "{text}");
        }
        assert_eq!(Rate::per_month(5), Rate::literal("5/month"));
        assert_eq!(Rate::per_year(5), Rate::literal("5/12 months"));
        assert_eq!(Rate::parse("1/2years"), Err(RateError::PeriodTooLong));
    }

    #[test]
    fn equality_is_by_fields_and_sameness_by_speed() {
        let (minute, second) = (Rate::per_minute(60), Rate::per_second(1));
        assert_ne!(minute, second);
        assert!(minute.same_rate(&second));
        assert!(!Rate::UNLIMITED.same_rate(&second));
        assert!(Rate::UNLIMITED.same_rate(&Rate::UNLIMITED));
        assert_eq!(minute.rps(), 1.0);
        assert_eq!(second.rpd(), 86_400.0);
        assert_eq!(Rate::UNLIMITED.rpm(), f64::INFINITY);
        assert!(Rate::literal("1/999ms").is_subsecond());
        assert!(!second.is_subsecond() && !Rate::UNLIMITED.is_subsecond());
    }

    #[test]
    fn time_and_earnings_are_exact_inverses_at_the_extremes() {
        for text in [
            "1000000000/1ms",
            "999999999/366d",
            "1/366d",
            "1/1ms",
            "7/1s",
            "3/day",
        ] {
            let rate = Rate::literal(text);
            for cost in [1, 2, 3, u64::from(rate.limit())] {
                let span = rate.time_for(cost);
                if span < Span::MAX {
                    assert_eq!(rate.earned_in(span), cost, "{text} {cost}");
                }
            }
            assert_eq!(
                rate.time_for(u64::from(rate.limit())),
                Span::from_micros(rate.period_us())
            );
        }
        assert_eq!(Rate::literal("1/366d").time_for(u64::MAX), Span::MAX);
    }
}
