use std::time::Duration;

use super::{Details, Hit, Lent, Loan, Lua, Settlement, Strategy, schedule};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::Result;
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::time::Timestamp;

/// A [`TokenBucket`](crate::TokenBucket) that may be overdrawn: a hit passes as long as the tokens
/// do not fall below `-max_debt`, and the debt is paid back at the rate.
///
/// A bucket of `burst` tokens with credit for `max_debt` more admits exactly what a bucket of
/// `burst + max_debt` admits; what differs is how it is told.
///
/// * **Bound**: in any interval of length *t* at most `burst + max_debt + rate × t`.
/// * **State**: two words, the instant at which all is paid back and the bucket full; kept until
///   then.
/// * **Bursts**: `burst + max_debt` at once.
/// * **Choose it** when an occasional overdraft should pass and be paid for, and statistics should
///   tell debt from savings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenBucketWithDebt {
    burst: Option<u32>,
    max_debt: u32,
}

impl TokenBucketWithDebt {
    /// A bucket that holds as much as the rate's limit, without credit.
    pub const fn new() -> TokenBucketWithDebt {
        TokenBucketWithDebt {
            burst: None,
            max_debt: 0,
        }
    }

    /// Sets how many tokens the bucket holds, at least 1. Default: the rate's limit.
    pub const fn burst(mut self, burst: u32) -> TokenBucketWithDebt {
        self.burst = Some(burst);
        self
    }

    /// Sets how many tokens may be owed. Default: 0.
    pub const fn max_debt(mut self, max_debt: u32) -> TokenBucketWithDebt {
        self.max_debt = max_debt;
        self
    }

    fn burst_at(&self, rate: &Rate) -> u64 {
        u64::from(self.burst.unwrap_or(rate.limit()))
    }

    fn capacity(&self, rate: &Rate) -> u64 {
        self.burst_at(rate) + u64::from(self.max_debt)
    }
}

impl Strategy for TokenBucketWithDebt {
    fn id(&self) -> &'static str {
        "token_bucket_with_debt"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let capacity = self.capacity(hit.rate);
        schedule::prepaid(cell, hit, capacity, hit.rate.time_for(capacity))
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
        let capacity = rate.time_for(self.capacity(rate));
        Some(schedule::prepaid_lua(rate, cost, capacity))
    }

    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        let capacity = hit.rate.time_for(self.capacity(hit.rate));
        schedule::settle(cell, hit, settlement, capacity)
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        let capacity = rate.time_for(self.capacity(rate));
        Some(schedule::settle_lua(rate, settlement, capacity))
    }

    fn lends(&self, _rate: &Rate, _cost: u32) -> bool {
        true
    }

    fn lend(&self, cell: &mut Cell, hit: &Hit<'_>, loan: &Loan) -> (Decision, Lent) {
        let limit = self.capacity(hit.rate);
        schedule::prepaid_lend(cell, hit, loan, limit, hit.rate.time_for(limit))
    }

    fn lend_lua(&self, rate: &Rate, cost: u32, loan: &Loan, _: &Attributes) -> Option<Lua> {
        let capacity = rate.time_for(self.capacity(rate));
        Some(schedule::prepaid_lend_lua(rate, cost, loan, capacity))
    }

    fn parameters(&self) -> String {
        let debt = self.max_debt;
        match self.burst {
            Some(burst) => format!("burst={burst},max_debt={debt}"),
            None => format!("max_debt={debt}"),
        }
    }

    fn validate(&self, rate: &Rate) -> Result<()> {
        let burst = self.burst_at(rate);
        schedule::validate("the burst of a token bucket", burst, rate)?;
        let capacity = self.capacity(rate);
        schedule::validate("the burst and debt of a token bucket", capacity, rate)
    }

    fn window(&self, rate: &Rate, quota: u64) -> Duration {
        Duration::from_micros(rate.time_for(quota).ceil())
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let peek = Hit { cost: 0, ..*hit };
        let available = self.step(&mut cell.clone(), &peek).remaining();
        let max_debt = u64::from(self.max_debt);
        let capacity = hit.rate.time_for(self.capacity(hit.rate));
        Details::TokenBucketWithDebt(TokenBucketWithDebtStat {
            tokens: available.saturating_sub(max_debt),
            capacity: self.burst_at(hit.rate),
            refill: *hit.rate,
            full_at: schedule::arrival_and_end(cell, hit, capacity).1,
            max_debt,
            current_debt: max_debt.saturating_sub(available),
        })
    }
}

/// What a [`TokenBucketWithDebt`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TokenBucketWithDebtStat {
    /// Whole tokens in the bucket.
    pub tokens: u64,
    /// How many it holds.
    pub capacity: u64,
    /// How fast it refills.
    pub refill: Rate,
    /// When it is full again; the present if it is.
    pub full_at: Timestamp,
    /// How many may be owed.
    pub max_debt: u64,
    /// How many are owed, rounded up.
    pub current_debt: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};

    #[test]
    fn is_lawful() {
        let bucket = TokenBucketWithDebt::new();
        Laws::of(&bucket, Bound::bucket(|rate| rate.limit().into())).check();
    }

    #[test]
    fn is_lawful_with_any_burst_and_debt() {
        for (burst, debt) in [(1, 1), (5, 3), (1, u32::MAX), (u32::MAX, u32::MAX)] {
            let bucket = TokenBucketWithDebt::new().burst(burst).max_debt(debt);
            let capacity = u64::from(burst) + u64::from(debt);
            Laws::of(&bucket, Bound::bucket(move |_| capacity))
                .cases(64)
                .check();
        }
    }

    /// SPEC 3.12, for debt: it was forgiven after two periods.
    #[test]
    fn a_debt_is_not_forgiven_by_being_forgotten() {
        let bucket = TokenBucketWithDebt::new().burst(10).max_debt(100);
        let mut trial = Trial::of(&bucket, "10/s");
        assert!(trial.hit(110).is_allowed());
        trial.advance(Duration::from_millis(2_100));
        let Details::TokenBucketWithDebt(stat) = trial.details() else {
            panic!("it is a token bucket with debt");
        };
        assert_eq!((stat.tokens, stat.current_debt), (0, 79));
        assert_eq!(trial.admitted_of(100), 21);
        assert_eq!(trial.cell.expires().micros_since(trial.now), 11_000_000);
    }
}
