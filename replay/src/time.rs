//! Times as logs have them.

/// An instant in microseconds since 1970, and whether that is finer than a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) micros: u64,
    pub(crate) is_fine: bool,
}

/// In the year 2255: no later time is one of a log, and strategies count no further.
const LAST: u64 = 9_000_000_000_000_000;

/// `10/Oct/2000:13:55:36 -0700`.
pub(crate) fn common(text: &[u8]) -> Option<At> {
    let [d1, d2, b'/', m1, m2, m3, b'/', rest @ ..] = text else {
        return None;
    };
    let month = match &[*m1, *m2, *m3] {
        b"Jan" => 1,
        b"Feb" => 2,
        b"Mar" => 3,
        b"Apr" => 4,
        b"May" => 5,
        b"Jun" => 6,
        b"Jul" => 7,
        b"Aug" => 8,
        b"Sep" => 9,
        b"Oct" => 10,
        b"Nov" => 11,
        b"Dec" => 12,
        _ => return None,
    };
    let (year, b":", rest) = split(rest, 4, 1)? else {
        return None;
    };
    let (clock, rest) = clock(rest)?;
    let rest = rest.strip_prefix(b" ")?;
    let day = days(number(year)?, month, number(&[*d1, *d2])?)?;
    at(day, clock, 0, offset(rest)?, false)
}

/// `2000-10-10T13:55:36.123Z`, with a `T` or a space, and `Z` or an offset.
pub(crate) fn iso(text: &[u8]) -> Option<At> {
    let (year, b"-", rest) = split(text, 4, 1)? else {
        return None;
    };
    let (month, b"-", rest) = split(rest, 2, 1)? else {
        return None;
    };
    let (day, b"T" | b"t" | b" ", rest) = split(rest, 2, 1)? else {
        return None;
    };
    let (clock, rest) = clock(rest)?;
    let (micros, is_fine, rest) = fraction(rest)?;
    let day = days(number(year)?, number(month)?, number(day)?)?;
    at(day, clock, micros, offset(rest)?, is_fine)
}

/// Seconds since 1970, with or without a fraction, or milliseconds.
pub(crate) fn epoch(seconds: f64) -> Option<At> {
    // 1e11 s are in the year 5138, 1e11 ms in 1973.
    let micros = if seconds < 1e11 {
        seconds * 1e6
    } else {
        seconds * 1e3
    };
    if !(0.0..LAST as f64).contains(&micros) {
        return None;
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is within the range"
    )]
    let micros = micros.round() as u64;
    Some(At {
        micros,
        is_fine: !micros.is_multiple_of(1_000_000),
    })
}

fn split(text: &[u8], at: usize, more: usize) -> Option<(&[u8], &[u8], &[u8])> {
    let (head, rest) = text.split_at_checked(at)?;
    let (middle, rest) = rest.split_at_checked(more)?;
    Some((head, middle, rest))
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + u64::from(digit - b'0'))
    })
}

/// `13:55:36` as seconds of the day. A leap second is the one before it.
fn clock(text: &[u8]) -> Option<(u64, &[u8])> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = text else {
        return None;
    };
    let (hour, minute, second) = (
        number(&[*h1, *h2])?,
        number(&[*m1, *m2])?,
        number(&[*s1, *s2])?,
    );
    let is_time = hour < 24 && minute < 60 && second <= 60;
    is_time.then_some((hour * 3_600 + minute * 60 + second.min(59), rest))
}

fn fraction(text: &[u8]) -> Option<(u64, bool, &[u8])> {
    let Some(digits) = text.strip_prefix(b".").or_else(|| text.strip_prefix(b",")) else {
        return Some((0, false, text));
    };
    let end = digits
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    let mut micros = 0;
    for at in 0..6 {
        micros = micros * 10 + digits.get(at).map_or(0, |digit| u64::from(digit - b'0'));
    }
    (end > 0).then_some((micros, true, rest))
}

/// Seconds that a local time is ahead: `Z`, `+02:00`, `-0700`, or nothing.
fn offset(text: &[u8]) -> Option<i64> {
    let (sign, rest): (i64, _) = match text {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest {
        [a, b, b':', c, d] | [a, b, c, d] => (number(&[*a, *b])?, number(&[*c, *d])?),
        [a, b] => (number(&[*a, *b])?, 0),
        _ => return None,
    };
    Some(sign * i64::try_from(hours * 3_600 + minutes * 60).ok()?)
}

/// Days since 1970 of a date in the Gregorian calendar
/// (<https://howardhinnant.github.io/date_algorithms.html#days_from_civil>).
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    (era * 146_097 + day).checked_sub(719_468)
}

fn at(day: u64, second: u64, micros: u64, ahead: i64, is_fine: bool) -> Option<At> {
    let seconds = i64::try_from(day * 86_400 + second)
        .ok()?
        .checked_sub(ahead)?;
    let micros = u64::try_from(seconds).ok()?.checked_mul(1_000_000)? + micros;
    if micros >= LAST {
        return None;
    }
    Some(At { micros, is_fine })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_logs_write_them() {
        let second = |seconds: u64| {
            Some(At {
                micros: seconds * 1_000_000,
                is_fine: false,
            })
        };
        assert_eq!(common(b"10/Oct/2000:13:55:36 -0700"), second(971_211_336));
        assert_eq!(common(b"29/Feb/2024:00:00:00 +0530"), second(1_709_145_000));
        assert_eq!(iso(b"2000-10-10T20:55:36Z"), second(971_211_336));
        assert_eq!(iso(b"2000-10-10 13:55:36-07:00"), second(971_211_336));
        let fine = Some(At {
            micros: 971_211_336_123_400,
            is_fine: true,
        });
        assert_eq!(iso(b"2000-10-10T20:55:36.1234Z"), fine);
        assert_eq!(epoch(971_211_336.123_4), fine);
        assert_eq!(epoch(971_211_336_123.4), fine);
        assert_eq!(epoch(971_211_336.0), second(971_211_336));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "10/Okt/2000:13:55:36 -0700",
            "10/Oct/2000:24:00:00 +0000",
            "10/Oct/2000",
        ] {
            assert_eq!(common(text.as_bytes()), None, "{text}");
        }
        for text in [
            "",
            "2000-13-10T20:55:36Z",
            "2000-10-10",
            "2000-10-10T20:55:36.Z",
            "1969-10-10T20:55:36Z",
            "9999-10-10T20:55:36Z",
        ] {
            assert_eq!(iso(text.as_bytes()), None, "{text}");
        }
        for number in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(epoch(number), None, "{number}");
        }
    }
}
