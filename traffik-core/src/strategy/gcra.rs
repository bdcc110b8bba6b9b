use std::time::Duration;

use super::{Details, Hit, Strategy, schedule};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::rate::Rate;
use crate::span::Span;
use crate::time::{Timestamp, micros};

/// The generic cell rate algorithm: spaces hits evenly, one emission interval (period ÷ limit)
/// apart, and lets them come early by a tolerance.
///
/// By default cost is *post-paid*, as in the original: a hit is admitted as soon as all earlier
/// ones are paid for, whatever its own cost, and the next one waits until this one is. With
/// [`strict`](Gcra::strict) a hit must fit into what is available, so that a cost above the
/// capacity is [never](crate::Verdict::Never) admitted.
///
/// * **Bound**: hits of cost 1 in any interval of length *t*: at most
///   `⌊tolerance ÷ interval⌋ + 1 + rate × t`. Post-paid, the last hit of an interval may cost any amount
///   on top of that.
/// * **State**: two words, the theoretical arrival time; kept until then.
/// * **Choose it** when requests should be spaced, not only counted. With a tolerance of zero,
///   the default, it admits no burst at all.
///
/// <https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm>, ITU-T I.371 annex A.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gcra {
    tolerance_us: u64,
    strict: bool,
}

impl Gcra {
    /// Perfectly smooth: no tolerance, cost post-paid.
    pub const fn new() -> Gcra {
        Gcra {
            tolerance_us: 0,
            strict: false,
        }
    }

    /// Sets how early a hit may come, to the microsecond; at most 366 days.
    pub const fn burst_tolerance(mut self, tolerance: Duration) -> Gcra {
        self.tolerance_us = micros(tolerance);
        self
    }

    /// Counts the cost of a hit before it is admitted, not after.
    pub const fn strict(mut self) -> Gcra {
        self.strict = true;
        self
    }

    fn tolerance(&self) -> Span {
        Span::from_micros(self.tolerance_us)
    }

    fn post_paid(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let denominator = hit.rate.limit();
        let limit = u64::from(denominator);
        let now = Span::from_micros(hit.now.as_micros());
        let horizon = now.plus(self.tolerance(), denominator);
        let tat = schedule::arrival(cell, hit);
        let price = hit.rate.time_for(u64::from(hit.cost));
        let after = tat.plus(price, denominator);

        let available = |tat: Span| match tat <= horizon {
            true => hit.rate.earned_in(horizon.minus(tat, denominator)) + 1,
            false => 0,
        };
        if price >= Span::MAX {
            // Paying for this would take longer than 142 years.
            return Decision::never(limit, available(tat)).resets_in(tat.ceil() - now.micros());
        }
        if tat > horizon && hit.cost > 0 {
            let wait = tat.minus(horizon, denominator).ceil();
            return Decision::deny(limit, 0, wait).resets_in(tat.ceil() - now.micros());
        }
        if hit.cost > 0 {
            schedule::charge(cell, after);
        }
        Decision::allow(limit, available(after)).resets_in(after.ceil() - now.micros())
    }
}

impl Strategy for Gcra {
    fn id(&self) -> &'static str {
        "gcra"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        if self.strict {
            let capacity = self
                .tolerance()
                .plus(hit.rate.time_for(1), hit.rate.limit());
            return schedule::prepaid(cell, hit, u64::from(hit.rate.limit()), capacity);
        }
        self.post_paid(cell, hit)
    }

    fn parameters(&self) -> String {
        format!("tolerance={},strict={}", self.tolerance_us, self.strict)
    }

    fn validate(&self, _rate: &Rate) -> Result<()> {
        if self.tolerance_us > micros(Rate::MAX_PERIOD) {
            return Err(Error::invalid(
                "the burst tolerance of GCRA is at most 366 days",
            ));
        }
        Ok(())
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let tat = schedule::arrival(cell, hit);
        let horizon = Span::from_micros(hit.now.as_micros() + self.tolerance_us);
        Details::Gcra(GcraStat {
            tat: Timestamp::from_micros(tat.ceil()),
            emission_interval: Duration::from_micros(hit.rate.time_for(1).micros()),
            burst_tolerance: Duration::from_micros(self.tolerance_us),
            conformant: tat <= horizon,
        })
    }
}

/// What [`Gcra`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct GcraStat {
    /// The theoretical arrival time, rounded up; the present for a fresh key.
    pub tat: Timestamp,
    /// Period ÷ limit, rounded down to the microsecond.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "emission_interval_us",
            serialize_with = "crate::time::as_micros"
        )
    )]
    pub emission_interval: Duration,
    /// How early a hit may come.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "burst_tolerance_us",
            serialize_with = "crate::time::as_micros"
        )
    )]
    pub burst_tolerance: Duration,
    /// Whether a hit would be admitted now.
    pub conformant: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Verdict;
    use crate::identity::Attributes;
    use crate::testing::laws::{Bound, Laws};

    const TOLERANCES: [Duration; 5] = [
        Duration::ZERO,
        Duration::from_micros(1),
        Duration::from_millis(999),
        Duration::from_secs(61),
        Rate::MAX_PERIOD,
    ];

    /// `⌊(tolerance + interval) ÷ emission interval⌋ + 1`.
    fn bound(tolerance: Duration) -> Bound {
        Bound::new(move |rate, interval| {
            let earned = rate.earned_in(Span::from_micros(micros(tolerance + interval)));
            u128::from(earned) + 1
        })
    }

    #[test]
    fn is_lawful_post_paid() {
        for tolerance in TOLERANCES {
            let gcra = Gcra::new().burst_tolerance(tolerance);
            Laws::of(&gcra, bound(tolerance))
                .post_paid()
                .cases(96)
                .check();
        }
    }

    /// Found by the laws: it was told to wait for the earlier hits, and then that it never passes.
    #[test]
    fn a_cost_nobody_lives_to_pay_is_never_admitted_not_delayed() {
        let rate = Rate::per_minute(1);
        let hit = |cost| Hit {
            now: Timestamp::EPOCH,
            rate: &rate,
            cost,
            attributes: &Attributes::NONE,
        };
        let mut cell = Cell::fresh();
        assert!(Gcra::new().step(&mut cell, &hit(1)).is_allowed());
        let decision = Gcra::new().step(&mut cell, &hit(u32::MAX));
        assert_eq!(decision.verdict(), Verdict::Never);
    }

    #[test]
    fn is_lawful_strict() {
        for tolerance in TOLERANCES {
            let gcra = Gcra::new().burst_tolerance(tolerance).strict();
            Laws::of(&gcra, bound(tolerance)).cases(96).check();
        }
    }
}
