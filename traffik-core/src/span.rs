//! Exact durations that need not be a whole number of microseconds.

/// A length of time: whole microseconds and a fraction of one, in units of `1/limit` of the rate
/// it was computed from.
///
/// `100/minute` emits every 600,000 µs, but `7/second` every 142,857 1/7 µs. Keeping the quotient
/// and the remainder apart makes sums of such intervals exact for every limit and period, with
/// integers that fit Lua's doubles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    micros: u64,
    fraction: u32,
}

impl Span {
    /// No time.
    pub const ZERO: Span = Span::from_micros(0);

    /// The longest span, 2^52 µs or 142 years: sums of two, and of one with any timestamp of this
    /// century, stay below 2^53.
    pub const MAX: Span = Span::from_micros(1 << 52);

    /// A whole number of microseconds.
    pub const fn from_micros(micros: u64) -> Span {
        Span {
            micros,
            fraction: 0,
        }
    }

    /// Whole microseconds and a fraction of `fraction / limit`, which must be below one.
    pub const fn new(micros: u64, fraction: u32) -> Span {
        Span { micros, fraction }
    }

    pub(crate) fn saturating(micros: u128, fraction: u128) -> Span {
        match (u64::try_from(micros), u32::try_from(fraction)) {
            (Ok(micros), Ok(fraction)) => Span { micros, fraction }.min(Span::MAX),
            _ => Span::MAX,
        }
    }

    /// The whole microseconds.
    pub const fn micros(self) -> u64 {
        self.micros
    }

    /// The numerator of the fraction.
    pub const fn fraction(self) -> u32 {
        self.fraction
    }

    /// Microseconds, rounded up.
    pub const fn ceil(self) -> u64 {
        self.micros + (self.fraction > 0) as u64
    }

    /// The sum of two spans whose fractions are both of `limit`.
    pub const fn plus(self, other: Span, limit: u32) -> Span {
        let fraction = self.fraction as u64 + other.fraction as u64;
        let carry = fraction >= limit as u64;
        #[expect(clippy::cast_possible_truncation, reason = "below the limit, a u32")]
        Span {
            micros: self.micros.saturating_add(other.micros) + carry as u64,
            fraction: (fraction - if carry { limit as u64 } else { 0 }) as u32,
        }
    }

    /// `self - other`, or zero if that would be negative; both fractions are of `limit`.
    #[inline]
    pub const fn minus(self, other: Span, limit: u32) -> Span {
        match self.checked_minus(other, limit) {
            Some(difference) => difference,
            None => Span::ZERO,
        }
    }

    /// `self - other`, unless that would be negative; both fractions are of `limit`. Cheaper than
    /// to compare and then subtract.
    #[inline]
    pub const fn checked_minus(self, other: Span, limit: u32) -> Option<Span> {
        let (fraction, borrow) = self.fraction.overflowing_sub(other.fraction);
        let subtrahend = other.micros.saturating_add(borrow as u64);
        match self.micros.checked_sub(subtrahend) {
            Some(micros) => Some(Span {
                micros,
                fraction: if borrow {
                    fraction.wrapping_add(limit)
                } else {
                    fraction
                },
            }),
            None => None,
        }
    }
}

/// `a × b ÷ c` as quotient and remainder, exactly, for `a` below 2^49, `b` at most `c`, and `c`
/// below 2^45, as every period in microseconds is.
///
/// In Lua the product would not fit a double. There it is long division in base 128, the most
/// significant digit of `a` first, and `fmod`, because the quotient of two doubles may round up:
///
/// ```lua
/// local function mul_div(a, b, c)
///   local q, r = 0, 0
///   for place = 6, 0, -1 do
///     local digit = math.floor(a / 128 ^ place) % 128
///     local v = r * 128 + digit * b -- below 2^53
///     r = math.fmod(v, c)
///     q = q * 128 + (v - r) / c
///   end
///   return q, r
/// end
/// ```
pub(crate) const fn mul_div(a: u64, b: u64, c: u64) -> (u64, u64) {
    let product = a as u128 * b as u128;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most a, since b is at most c; and less than c"
    )]
    let parts = ((product / c as u128) as u64, (product % c as u128) as u64);
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy};

    use super::*;

    /// The Lua above, in the doubles of Lua.
    #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
    fn in_doubles(a: u64, b: u64, c: u64) -> (u64, u64) {
        let (a, b, c) = (a as f64, b as f64, c as f64);
        let (mut q, mut r) = (0.0, 0.0);
        for place in (0..7).rev() {
            let digit = (a / 128_f64.powi(place)).floor() % 128.0;
            let v = r * 128.0 + digit * b;
            r = v % c;
            q = q * 128.0 + (v - r) / c;
        }
        (q as u64, r as u64)
    }

    proptest::proptest! {
        #[test]
        fn doubles_multiply_and_divide_exactly(
            a in 0..1_u64 << 49,
            (b, c) in (1..1_u64 << 45).prop_flat_map(|c| (0..=c, Just(c))),
        ) {
            assert_eq!(mul_div(a, b, c), in_doubles(a, b, c));
            assert_eq!(mul_div(a, c, c), (a, 0));
        }
    }
}
