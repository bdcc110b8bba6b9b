use crate::error::{Error, Result};

/// A factor or a share that somebody wrote as a float, kept as whole parts per million.
///
/// Converted once, rounded to the nearest; every decision after that is in integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ratio(u64);

impl Ratio {
    pub(super) const ONE: Ratio = Ratio(PARTS);

    /// What is no number from zero to a million becomes a ratio that [`validate`](Ratio::validate)
    /// refuses, since a constant cannot return an error.
    pub(super) const fn new(value: f64) -> Ratio {
        if !(value >= 0.0 && value <= 1e6) {
            return Ratio(u64::MAX);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 10^12"
        )]
        Ratio((value * PARTS as f64 + 0.5) as u64)
    }

    /// So many millionths of `amount`, rounded down.
    pub(super) const fn of_ppm(ppm: u64, amount: u64) -> u64 {
        Ratio(ppm).of(amount)
    }

    /// Parts per million.
    pub(super) const fn ppm(self) -> u64 {
        self.0
    }

    /// This part of `amount`, rounded down: a word if `amount` is a limit.
    pub(super) const fn of(self, amount: u64) -> u64 {
        let part = amount as u128 * self.0 as u128 / PARTS as u128;
        #[expect(clippy::cast_possible_truncation, reason = "just compared")]
        if part > u64::MAX as u128 {
            u64::MAX
        } else {
            part as u64
        }
    }

    /// # Errors
    ///
    /// If it is not between `least` and `most`; the message says what `what` must be.
    pub(super) fn validate(self, what: &str, least: f64, most: f64) -> Result<()> {
        if Ratio::new(least) <= self && self <= Ratio::new(most) {
            return Ok(());
        }
        let found = match self.0 {
            u64::MAX => "something else".into(),
            _ => self.to_string(),
        };
        Err(Error::invalid(format!(
            "{what} must be a number from {least} to {most}, not {found}"
        )))
    }
}

const PARTS: u64 = 1_000_000;

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:06}", self.0 / PARTS, self.0 % PARTS);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_what_they_get() {
        for (value, amount, part) in [
            (0.29, 100, 29), // 28.999999999999996 in floats
            (1.1, 100, 110), // 110.00000000000001
            (1.0 / 3.0, 3_000_000, 999_999),
            (0.0, 7, 0),
            (2.5, 3, 7),
            (1e6, 1_000_000_000, 1_000_000_000_000_000),
        ] {
            assert_eq!(Ratio::new(value).of(amount), part, "{value} × {amount}");
        }
        assert_eq!(Ratio::new(1.5).to_string(), "1.5");
        assert_eq!(Ratio::new(10.0).to_string(), "10");
    }

    #[test]
    fn what_is_no_ratio_is_refused() {
        for value in [f64::NAN, f64::INFINITY, -0.1, 1e7] {
            let refused = Ratio::new(value).validate("x", 0.0, 1e6);
            let text = refused.expect_err("not a ratio").to_string();
            assert_eq!(
                text,
                "x must be a number from 0 to 1000000, not something else"
            );
        }
        let refused = Ratio::new(1.5).validate("a share", 0.0, 1.0);
        let text = refused.expect_err("above one").to_string();
        assert_eq!(text, "a share must be a number from 0 to 1, not 1.5");
    }
}
