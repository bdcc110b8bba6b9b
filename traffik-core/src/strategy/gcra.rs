use std::time::Duration;

use super::{Details, Hit, Lent, Loan, Lua, Settlement, Strategy, schedule};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::identity::Attributes;
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
/// Post-paid, one hit of great cost is admitted like any other and then locks its client out: after
/// one of cost 1,000,000 at `10/minute` the next has to wait for 69 days. Where clients choose the
/// cost, as by the size of what they ask for, be strict.
///
/// What can be available at most, its [limit](crate::Decision::limit), is the capacity
/// `⌊tolerance ÷ interval⌋ + 1`: 1 without a tolerance, whatever the rate.
///
/// * **Bound**: hits of cost 1 in any interval of length *t*: at most
///   `⌊(tolerance + t) ÷ interval⌋ + 1`. Post-paid, the last hit of an interval may cost any amount
///   on top of that.
/// * **State**: two words, the theoretical arrival time; kept until then.
/// * **Bursts**: the capacity at once.
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

    /// What fits into the tolerance, and one, as the time in which the rate earns it.
    fn capacity(&self, rate: &Rate) -> Span {
        self.tolerance().plus(rate.time_for(1), rate.limit())
    }

    /// The same in hits.
    #[inline]
    fn limit(&self, rate: &Rate) -> u64 {
        match self.tolerance_us {
            // Spares the common case a division.
            0 => 1,
            _ => hits_within(self.tolerance(), rate),
        }
    }

    fn post_paid(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let tat = schedule::arrival(cell, hit);
        let price = hit.rate.time_for(u64::from(hit.cost));
        if hit.cost == 0 || tat.ceil() > self.horizon(hit) || price >= Span::MAX {
            return self.uncharged(cell, hit);
        }
        let after = tat.plus(price, hit.rate.limit());
        if hit.cost == 1 {
            // Comes within the tolerance, and takes one interval: the capacity at most.
            schedule::charge(cell, hit, after);
        } else {
            self.charge_more(cell, hit, after);
        }
        Decision::allow(self.limit(hit.rate), self.available(after, hit))
            .resets_in(after.ceil() - hit.now.as_micros())
    }

    #[inline(never)]
    fn charge_more(&self, cell: &mut Cell, hit: &Hit<'_>, tat: Span) {
        schedule::charge_any(cell, hit, tat, self.capacity(hit.rate));
    }

    /// What is answered to a hit that costs nothing, comes too early, or could never be paid for.
    #[inline(never)]
    fn uncharged(&self, cell: &Cell, hit: &Hit<'_>) -> Decision {
        let (tat, _) = schedule::owed(cell, hit, self.capacity(hit.rate));
        let limit = self.limit(hit.rate);
        let available = self.available(tat, hit);
        let decision = if hit.cost == 0 {
            Decision::allow(limit, available)
        } else if hit.rate.time_for(u64::from(hit.cost)) >= Span::MAX {
            // Paying for this would take longer than 142 years.
            Decision::never(limit, available)
        } else {
            Decision::deny(limit, available, tat.ceil() - self.horizon(hit))
        };
        decision.resets_in(tat.ceil() - hit.now.as_micros())
    }

    /// The latest arrival time at which a hit is admitted now.
    fn horizon(&self, hit: &Hit<'_>) -> u64 {
        hit.now.as_micros().saturating_add(self.tolerance_us)
    }

    /// How many hits of cost 1 are admitted now.
    #[inline]
    fn available(&self, tat: Span, hit: &Hit<'_>) -> u64 {
        let horizon = Span::from_micros(self.horizon(hit));
        match horizon.checked_minus(tat, hit.rate.limit()) {
            Some(early) => hits_within(early, hit.rate),
            None => 0,
        }
    }
}

/// How many hits of cost 1 fall due within a span, both of its ends included; saturating below
/// `u64::MAX`, which as a limit would say that there is none.
#[inline]
fn hits_within(span: Span, rate: &Rate) -> u64 {
    rate.earned_in(span).min(u64::MAX - 2) + 1
}

impl Strategy for Gcra {
    fn id(&self) -> &'static str {
        "gcra"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        if self.strict {
            return schedule::prepaid(cell, hit, self.limit(hit.rate), self.capacity(hit.rate));
        }
        if schedule::is_lent(cell) {
            return schedule::step_lent(cell, hit, self.capacity(hit.rate), |cell, hit| {
                self.post_paid(cell, hit)
            });
        }
        self.post_paid(cell, hit)
    }

    fn grows(&self) -> bool {
        true
    }

    fn ordered(&self) -> bool {
        true
    }

    fn call_in(&self, cell: &mut Cell) {
        schedule::call_in(cell);
    }

    fn takes_time(&self) -> bool {
        true
    }

    fn lua(&self, rate: &Rate, cost: u32, _attributes: &Attributes) -> Option<Lua> {
        Some(match self.strict {
            true => schedule::prepaid_lua(rate, cost, self.capacity(rate)),
            false => schedule::lua(LUA, rate, cost, self.capacity(rate)).and(self.tolerance_us),
        })
    }

    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        schedule::settle(cell, hit, settlement, self.capacity(hit.rate))
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        let capacity = self.capacity(rate);
        Some(schedule::settle_lua(rate, settlement, capacity))
    }

    /// Post-paid, of hits of cost 1 alone: whoever has so many spends them one by one.
    fn lends(&self, _rate: &Rate, cost: u32) -> bool {
        self.strict || cost == 1
    }

    fn lend(&self, cell: &mut Cell, hit: &Hit<'_>, loan: &Loan) -> (Decision, Lent) {
        let capacity = self.capacity(hit.rate);
        if self.strict {
            return schedule::prepaid_lend(cell, hit, loan, self.limit(hit.rate), capacity);
        }
        schedule::lend(cell, hit, loan, capacity, |cell, hit| {
            self.post_paid(cell, hit)
        })
    }

    fn lend_lua(&self, rate: &Rate, cost: u32, loan: &Loan, _: &Attributes) -> Option<Lua> {
        let capacity = self.capacity(rate);
        if self.strict {
            return Some(schedule::prepaid_lend_lua(rate, cost, loan, capacity));
        }
        let need = match cost {
            0 => Span::ZERO,
            // What could never be paid for needs more than there ever is.
            _ if rate.time_for(cost.into()) >= Span::MAX => Span::from_micros(Cell::WORD_LIMIT - 1),
            _ => rate.time_for(1),
        };
        Some(schedule::lend_lua(rate, cost, loan, capacity, need))
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

    fn window(&self, rate: &Rate, quota: u64) -> Duration {
        Duration::from_micros(rate.time_for(quota).ceil())
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let (tat, _) = schedule::arrival_and_end(cell, hit, self.capacity(hit.rate));
        let horizon = Span::from_micros(hit.now.as_micros() + self.tolerance_us);
        Details::Gcra(GcraStat {
            tat: Timestamp::from_micros(tat.ceil()),
            emission_interval: Duration::from_micros(hit.rate.time_for(1).micros()),
            burst_tolerance: Duration::from_micros(self.tolerance_us),
            conformant: tat <= horizon,
        })
    }
}

pub(super) const LUA: &str = concat!(
    schedule::arguments!(hit),
    "local tat, part = words(2)\nlocal lends = false\n",
    include_str!("schedule_out.lua"),
    include_str!("schedule.lua"),
    include_str!("gcra.lua"),
    include_str!("schedule_take.lua"),
);

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
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};

    const TOLERANCES: [Duration; 5] = [
        Duration::ZERO,
        Duration::from_micros(1),
        Duration::from_millis(999),
        Duration::from_secs(61),
        Rate::MAX_PERIOD,
    ];

    /// What the documentation says: `⌊(tolerance + t) ÷ interval⌋ + 1`.
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

    /// Found by the laws: what fits into 366 days at 10^12 per second is more than a word.
    #[test]
    fn a_long_tolerance_at_a_high_rate_does_not_overflow() {
        let gcra = Gcra::new().burst_tolerance(Rate::MAX_PERIOD);
        for gcra in [gcra, gcra.strict()] {
            let decision = Trial::of(&gcra, "1000000000/1ms").hit(1);
            assert_eq!(decision.remaining(), u64::MAX - 1);
            assert!(!decision.is_unlimited());
        }
    }

    /// It was the rate's limit: 10, of which 36,000 remained.
    #[test]
    fn its_limit_is_what_can_be_available_not_what_the_rate_says() {
        let hour = Gcra::new().burst_tolerance(Duration::from_secs(60 * 60));
        for gcra in [hour, hour.strict()] {
            let decision = Trial::of(&gcra, "10/s").hit(1);
            assert_eq!((decision.limit(), decision.remaining()), (36_001, 36_000));
        }
        assert_eq!(Trial::of(&Gcra::new(), "10/s").hit(1).limit(), 1);
    }

    /// What the documentation says of hits that cost much.
    #[test]
    fn a_great_cost_locks_its_client_out_unless_strict() {
        let gcra = Gcra::new();
        let mut trial = Trial::of(&gcra, "10/minute");
        assert!(trial.hit(1_000_000).is_allowed());
        assert_eq!(trial.hit(1).wait().as_secs() / (24 * 60 * 60), 69);
        let strict = gcra.strict();
        assert_eq!(
            Trial::of(&strict, "10/minute").hit(1_000_000).verdict(),
            Verdict::Never
        );
    }

    /// Found by the laws: it was told to wait for the earlier hits, and then that it never passes.
    #[test]
    fn a_cost_nobody_lives_to_pay_is_never_admitted_not_delayed() {
        let gcra = Gcra::new();
        let mut trial = Trial::of(&gcra, "1/minute");
        assert!(trial.hit(1).is_allowed());
        assert_eq!(trial.hit(u32::MAX).verdict(), Verdict::Never);
    }

    /// SPEC 3.14 and 6.2: any cost passes a fresh key, unless strict; the wait was too long by the
    /// tolerance.
    #[test]
    fn cost_is_paid_afterwards_and_the_wait_is_exact() {
        let gcra = Gcra::new().burst_tolerance(Duration::from_millis(500));
        let mut trial = Trial::of(&gcra, "10/s");
        assert!(trial.hit(6).is_allowed());
        assert_eq!(trial.hit(1).wait(), Duration::from_millis(100));

        let strict = gcra.strict();
        let mut trial = Trial::of(&strict, "10/s");
        assert_eq!(trial.hit(7).verdict(), Verdict::Never);
        assert!(trial.hit(6).is_allowed());
    }

    /// SPEC 3.15: nothing remained of a key that nobody had hit.
    #[test]
    fn a_fresh_key_has_something_left() {
        assert_eq!(Trial::of(&Gcra::new(), "10/s").hit(0).remaining(), 1);
    }

    /// SPEC 3.16: the state was gone after two periods, and with it what had to be paid for.
    #[test]
    fn a_debt_outlives_the_period() {
        let gcra = Gcra::new();
        let mut trial = Trial::of(&gcra, "10/s");
        assert!(trial.hit(100).is_allowed());
        assert_eq!(trial.cell.expires().micros_since(trial.now), 10_000_000);
    }

    #[test]
    fn is_lawful_strict() {
        for tolerance in TOLERANCES {
            let gcra = Gcra::new().burst_tolerance(tolerance).strict();
            Laws::of(&gcra, bound(tolerance)).cases(96).check();
        }
    }
}
