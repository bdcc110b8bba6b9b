use super::ratio::Ratio;
use super::settle::{self, Settlement};
use super::{Details, Hit, Lent, Loan, Lua, Strategy, window};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::Result;
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::time::Timestamp;

/// A quota per period, part of whose unused rest rolls over into the next one.
///
/// What rolls over is `rollover_percentage` of what was left of the limit, at most `max_rollover`.
/// A period in which a known client did nothing counts as wholly unused. Clients are known for two
/// idle periods: who stays away longer starts anew, as everybody does, with the limit alone.
///
/// * **Bound**: the limit times the periods that an interval touches, and once the largest
///   rollover *R*: `limit × (⌈t ÷ period⌉ + 1) + R`. A period takes more than the limit only by what
///   the one before left, so that of any run of periods only the first can bring more than their
///   limits. *R* is `max_rollover` or, unless cumulative, `⌊limit × rollover_percentage⌋` if less.
/// * **State**: three words, start of the period, used and rolled over; kept for two more periods.
/// * **Bursts**: limit and rollover at once.
/// * **Choose it** for plans by the day or month, whose customers dislike losing what they paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuotaWithRollover {
    percentage: Ratio,
    max_rollover: u32,
    cumulative: bool,
}

impl QuotaWithRollover {
    /// Half of what is left rolls over, 500 at most.
    pub const fn new() -> QuotaWithRollover {
        QuotaWithRollover {
            percentage: Ratio::new(0.5),
            max_rollover: 500,
            cumulative: false,
        }
    }

    /// Sets which part of the rest rolls over, from 0 to 1. It is kept in millionths.
    pub const fn rollover_percentage(mut self, part: f64) -> QuotaWithRollover {
        self.percentage = Ratio::new(part);
        self
    }

    /// Sets how much rolls over at most.
    pub const fn max_rollover(mut self, max_rollover: u32) -> QuotaWithRollover {
        self.max_rollover = max_rollover;
        self
    }

    /// Lets what has rolled over and is still unused roll over again, by the same part.
    pub const fn cumulative(mut self) -> QuotaWithRollover {
        self.cumulative = true;
        self
    }

    /// What a period leaves to the next.
    fn rollover(&self, limit: u64, period: &Period) -> u64 {
        let quota = match self.cumulative {
            true => limit + period.rollover,
            false => limit,
        };
        let rest = quota.saturating_sub(period.used);
        self.percentage.of(rest).min(self.max_rollover.into())
    }

    /// What rolls over at most, whatever the limit was before.
    fn most(&self, limit: u64) -> u64 {
        let most = u64::from(self.max_rollover);
        match self.cumulative {
            true => most,
            false => most.min(self.percentage.of(limit)),
        }
    }

    /// The period of the hit, and those in which the cell will still be remembered.
    fn periods(&self, cell: &Cell, hit: &Hit<'_>) -> (Period, [Option<Period>; KNOWN]) {
        let limit = u64::from(hit.rate.limit());
        let length = hit.rate.period_us();
        let next = |period: &Period| Period {
            start: period.start.saturating_add(length),
            used: 0,
            rollover: self.rollover(limit, period),
        };
        let unknown = Period {
            start: window::aligned(hit),
            used: 0,
            rollover: 0,
        };
        let [start, used, rollover] = *cell.words() else {
            return (unknown, [None; KNOWN]);
        };
        let first = Period {
            start,
            used,
            rollover: rollover.min(self.most(limit)),
        };
        let second = next(&first);
        let third = next(&second);
        match hit.now.as_micros().saturating_sub(start) / length {
            0 => (first, [Some(second), Some(third)]),
            1 => (second, [Some(third), None]),
            2 => (third, [None; KNOWN]),
            _ => (unknown, [None; KNOWN]),
        }
    }
}

/// For how many idle periods a client is known.
const KNOWN: usize = 2;

#[derive(Clone, Copy)]
struct Period {
    start: u64,
    used: u64,
    rollover: u64,
}

impl Period {
    /// For `length` and those in which the client is known.
    fn store(self, cell: &mut Cell, length: u64) {
        let forgotten = self.start.saturating_add((1 + KNOWN as u64) * length);
        let words = [self.start, self.used, self.rollover];
        cell.set(&words, Timestamp::from_micros(forgotten));
    }
}

impl Default for QuotaWithRollover {
    fn default() -> Self {
        QuotaWithRollover::new()
    }
}

impl Strategy for QuotaWithRollover {
    fn id(&self) -> &'static str {
        "quota_with_rollover"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let (period, later) = self.periods(cell, hit);
        let (now, length) = (hit.now.as_micros(), hit.rate.period_us());
        let (limit, cost) = (u64::from(hit.rate.limit()), u64::from(hit.cost));
        let quota = limit.saturating_add(period.rollover);
        let end = period.start.saturating_add(length);
        // How far the period will be brought back, if it should not be so far ahead.
        let ahead = period.start - window::honest(period.start, hit);
        let left = end.saturating_sub(ahead).saturating_sub(now);

        let available = quota.saturating_sub(period.used);
        if cost <= available {
            if cost > 0 {
                let used = period.used + cost;
                Period { used, ..period }.store(cell, length);
            }
            return Decision::allow(quota, available - cost).resets_in(left);
        }
        let fits = |later: &Period| cost <= limit.saturating_add(later.rollover);
        let ready = match later.iter().flatten().find(|later| fits(later)) {
            Some(later) => later.start,
            // Even a period without rollover holds it.
            None if cost <= limit => end,
            None => return Decision::never(quota, available).resets_in(left),
        };
        let wait = ready.saturating_sub(ahead).saturating_sub(now);
        Decision::deny(quota, available, wait).resets_in(left)
    }

    fn grows(&self) -> bool {
        true
    }

    fn lua(&self, rate: &Rate, cost: u32, _attributes: &Attributes) -> Option<Lua> {
        let arguments = [
            cost.into(),
            rate.limit().into(),
            rate.period_us(),
            self.percentage.ppm(),
            self.max_rollover.into(),
            self.cumulative.into(),
        ];
        Some(Lua::new(LUA, &arguments))
    }

    /// A refund counts if it is of this period.
    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        let (period, _) = self.periods(cell, hit);
        let elapsed = settle::elapsed(period.start, hit.now);
        let settled = Period {
            start: window::honest(period.start, hit),
            used: settlement.of_count(period.used, elapsed, MOST),
            ..period
        };
        let changes = (settled.start, settled.used) != (period.start, period.used);
        if changes {
            settled.store(cell, hit.rate.period_us());
        }
        changes
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        let [is_refund, amount, age] = settlement.words();
        let arguments = [
            rate.limit().into(),
            rate.period_us(),
            self.percentage.ppm(),
            self.max_rollover.into(),
            self.cumulative.into(),
            is_refund,
            amount,
            age,
        ];
        Some(Lua::new(SETTLE_LUA, &arguments))
    }

    fn lends(&self, _rate: &Rate, _cost: u32) -> bool {
        true
    }

    /// What comes back counts if it is of this period, with which all loans end.
    fn lend(&self, cell: &mut Cell, hit: &Hit<'_>, loan: &Loan) -> (Decision, Lent) {
        let (period, _) = self.periods(cell, hit);
        let length = hit.rate.period_us();
        let quota = u64::from(hit.rate.limit()).saturating_add(period.rollover);
        let end = window::honest(period.start, hit).saturating_add(length);
        let left = end.saturating_sub(hit.now.as_micros());
        let lending = loan.of_count(period.start, period.used, hit.cost, quota, left);
        let Some((used, lent)) = lending else {
            return (self.step(cell, hit), Lent::default());
        };
        if used != period.used {
            Period { used, ..period }.store(cell, length);
        }
        let decision = Decision::allow(quota, lent.free).resets_in(left);
        (decision, lent)
    }

    fn lend_lua(&self, rate: &Rate, cost: u32, loan: &Loan, _: &Attributes) -> Option<Lua> {
        let mut lua = self.lua(rate, cost, &Attributes::NONE)?.of(LEND_LUA);
        for word in loan.words() {
            lua = lua.and(word);
        }
        Some(lua)
    }

    fn validate(&self, rate: &Rate) -> Result<()> {
        window::has_length(rate)?;
        self.percentage
            .validate("the rollover percentage", 0.0, 1.0)
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let (period, _) = self.periods(cell, hit);
        let limit = u64::from(hit.rate.limit());
        Details::QuotaWithRollover(QuotaWithRolloverStat {
            base_limit: limit,
            rollover_amount: period.rollover,
            effective_limit: limit.saturating_add(period.rollover),
            used: period.used,
            period_id: period.start / hit.rate.period_us(),
            period_start: Timestamp::from_micros(period.start),
        })
    }
}

/// No period is charged beyond this.
const MOST: u64 = 1 << 50;

pub(super) const LUA: &str = concat!(
    "local cost, limit, length, ppm, most, cumulative = unpack('>I8I8I8I8I8I8', arguments)\n",
    include_str!("quota_period.lua"),
    include_str!("quota_with_rollover.lua")
);

pub(super) const SETTLE_LUA: &str = concat!(
    "local limit, length, ppm, most, cumulative, refund, amount, age =\n",
    "    unpack('>I8I8I8I8I8I8I8I8', arguments)\n",
    include_str!("quota_period.lua"),
    include_str!("settle.lua"),
    include_str!("quota_with_rollover_settle.lua")
);

pub(super) const LEND_LUA: &str = concat!(
    "local cost, limit, length, ppm, most, cumulative, want, back, back_of =\n",
    "    unpack('>I8I8I8I8I8I8I8I8I8', arguments)\n",
    include_str!("quota_period.lua"),
    include_str!("lend.lua"),
    include_str!("quota_with_rollover_lend.lua")
);

/// What a [`QuotaWithRollover`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct QuotaWithRolloverStat {
    /// The rate's limit.
    pub base_limit: u64,
    /// What rolled over into this period.
    pub rollover_amount: u64,
    /// The sum of the two.
    pub effective_limit: u64,
    /// What was taken in this period.
    pub used: u64,
    /// How many periods since the epoch this one begins.
    pub period_id: u64,
    /// When it began.
    pub period_start: Timestamp,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decision::Verdict;
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};
    use crate::time::micros;

    /// What the documentation says, with the largest rollover.
    fn bound(rollover: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Bound {
        Bound::new(move |rate, interval| {
            let limit = u64::from(rate.limit());
            let touched = micros(interval).div_ceil(rate.period_us()) + 1;
            u128::from(limit) * u128::from(touched) + u128::from(rollover(limit))
        })
    }

    #[test]
    fn is_lawful() {
        let quota = QuotaWithRollover::new();
        Laws::of(&quota, bound(|limit| (limit / 2).min(500))).check();
    }

    #[test]
    fn is_lawful_with_any_part() {
        for (part, max) in [(0.0, 5), (1.0, u32::MAX), (0.3, 0), (1.0, 3)] {
            let quota = QuotaWithRollover::new()
                .rollover_percentage(part)
                .max_rollover(max);
            let most = move |limit| Ratio::new(part).of(limit).min(max.into());
            Laws::of(&quota, bound(most)).cases(64).check();
            Laws::of(&quota.cumulative(), bound(move |_| max.into()))
                .cases(64)
                .check();
        }
    }

    /// SPEC 3.22: a period without any use left nothing, one with a single use almost all.
    #[test]
    fn an_idle_period_is_wholly_unused() {
        let quota = QuotaWithRollover::new();
        let mut trial = Trial::of(&quota, "100/day");
        assert_eq!(trial.hit(0).limit(), 100);
        assert!(trial.hit(1).is_allowed());
        trial.advance(Duration::from_secs(24 * 60 * 60));
        assert_eq!(trial.hit(0).limit(), 149);
        trial.advance(Duration::from_secs(24 * 60 * 60));
        assert_eq!(trial.hit(0).limit(), 150);
        // Who stays away is forgotten, and does not come back to more than newcomers get.
        trial.advance(Duration::from_secs(24 * 60 * 60));
        assert_eq!(trial.hit(0).limit(), 100);
    }

    /// SPEC 3.22: what had rolled over was lost to the period after.
    #[test]
    fn rollover_accumulates_if_asked_to() {
        for (quota, limit) in [
            (QuotaWithRollover::new(), 150),
            (QuotaWithRollover::new().cumulative(), 174),
        ] {
            let mut trial = Trial::of(&quota, "100/day");
            assert!(trial.hit(1).is_allowed());
            trial.advance(Duration::from_secs(2 * 24 * 60 * 60));
            assert_eq!(trial.hit(0).limit(), limit);
        }
    }

    #[test]
    fn waits_for_the_period_whose_rollover_makes_room() {
        let quota = QuotaWithRollover::new();
        let mut trial = Trial::of(&quota, "100/day");
        assert_eq!(trial.hit(140).verdict(), Verdict::Never);
        assert!(trial.hit(40).is_allowed());
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(trial.hit(130).wait(), day);
        assert_eq!(trial.hit(131).wait(), 2 * day);
        assert_eq!(trial.hit(151).verdict(), Verdict::Never);
    }

    #[test]
    fn refuses_more_than_all() {
        let quota = QuotaWithRollover::new().rollover_percentage(1.01);
        let error = quota.validate(&Rate::per_day(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the rollover percentage must be a number from 0 to 1, not 1.01"
        );
    }
}
