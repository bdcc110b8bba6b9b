use std::time::Duration;

use super::{Details, Hit, Lent, Loan, Lua, Settlement, Strategy, schedule};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::Result;
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::span::Span;
use crate::time::Timestamp;

/// A bucket of tokens that starts full and refills steadily at the rate; a hit takes its cost.
///
/// * **Bound**: in any interval of length *t* at most `burst + rate × t`: what was in the bucket
///   and what flowed in. With the default burst that is twice the limit in a period.
/// * **State**: two words, the instant at which the bucket is full again; kept until then.
/// * **Bursts**: the burst at once.
/// * **Choose it** to let clients save up for a burst while the long-run rate is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenBucket {
    burst: Option<u32>,
}

impl TokenBucket {
    /// A bucket that holds as much as the rate's limit.
    pub const fn new() -> TokenBucket {
        TokenBucket { burst: None }
    }

    /// Sets how many tokens the bucket holds, at least 1.
    pub const fn burst(mut self, burst: u32) -> TokenBucket {
        self.burst = Some(burst);
        self
    }

    fn capacity(&self, rate: &Rate) -> u64 {
        u64::from(self.burst.unwrap_or(rate.limit()))
    }

    /// How long an empty bucket takes to fill.
    fn time_to_fill(&self, rate: &Rate) -> Span {
        match self.burst {
            // The time in which a rate earns its own limit is its period; no division needed.
            None => Span::from_micros(rate.period_us()),
            Some(burst) => rate.time_for(u64::from(burst)),
        }
    }
}

impl Strategy for TokenBucket {
    fn id(&self) -> &'static str {
        "token_bucket"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let capacity = self.capacity(hit.rate);
        schedule::prepaid(cell, hit, capacity, self.time_to_fill(hit.rate))
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
        Some(schedule::prepaid_lua(rate, cost, self.time_to_fill(rate)))
    }

    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        schedule::settle(cell, hit, settlement, self.time_to_fill(hit.rate))
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        Some(schedule::settle_lua(
            rate,
            settlement,
            self.time_to_fill(rate),
        ))
    }

    fn lends(&self, _rate: &Rate, _cost: u32) -> bool {
        true
    }

    fn lend(&self, cell: &mut Cell, hit: &Hit<'_>, loan: &Loan) -> (Decision, Lent) {
        let (limit, capacity) = (self.capacity(hit.rate), self.time_to_fill(hit.rate));
        schedule::prepaid_lend(cell, hit, loan, limit, capacity)
    }

    fn lend_lua(&self, rate: &Rate, cost: u32, loan: &Loan, _: &Attributes) -> Option<Lua> {
        let capacity = self.time_to_fill(rate);
        Some(schedule::prepaid_lend_lua(rate, cost, loan, capacity))
    }

    fn parameters(&self) -> String {
        self.burst
            .map(|burst| format!("burst={burst}"))
            .unwrap_or_default()
    }

    fn validate(&self, rate: &Rate) -> Result<()> {
        match self.burst {
            Some(burst) => schedule::validate("the burst of a token bucket", burst.into(), rate),
            None => Ok(()),
        }
    }

    fn window(&self, rate: &Rate, quota: u64) -> Duration {
        Duration::from_micros(rate.time_for(quota).ceil())
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let capacity = self.capacity(hit.rate);
        let peek = Hit { cost: 0, ..*hit };
        Details::TokenBucket(TokenBucketStat {
            tokens: self.step(&mut cell.clone(), &peek).remaining(),
            capacity,
            refill: *hit.rate,
            full_at: schedule::arrival_and_end(cell, hit, self.time_to_fill(hit.rate)).1,
        })
    }
}

/// What a [`TokenBucket`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TokenBucketStat {
    /// Whole tokens in the bucket.
    pub tokens: u64,
    /// How many it holds.
    pub capacity: u64,
    /// How fast it refills.
    pub refill: Rate,
    /// When it is full again; the present if it is.
    pub full_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};

    #[test]
    fn is_lawful() {
        let bound = Bound::bucket(|rate| rate.limit().into());
        Laws::of(&TokenBucket::new(), bound).check();
    }

    #[test]
    fn is_lawful_with_any_burst() {
        for burst in [1, 2, 7, 1_000, Rate::MAX_LIMIT, u32::MAX] {
            let bucket = TokenBucket::new().burst(burst);
            Laws::of(&bucket, Bound::bucket(move |_| burst.into()))
                .cases(64)
                .check();
        }
    }

    /// SPEC 3.12: the state was gone after two periods, and a large bucket full again.
    #[test]
    fn a_large_bucket_does_not_refill_by_being_forgotten() {
        let bucket = TokenBucket::new().burst(1_000);
        let mut trial = Trial::of(&bucket, "10/s");
        assert_eq!(trial.admitted_of(2_000), 1_000);
        trial.advance(Duration::from_millis(2_100));
        assert_eq!(trial.admitted_of(2_000), 21);
        assert_eq!(trial.cell.expires().micros_since(trial.now), 100_000_000);
    }
}
