use std::time::Duration;

use super::ratio::Ratio;
use super::settle::{CLOCK_SLACK_US, Settlement};
use super::{Details, Hit, Lua, Strategy, schedule};
use crate::cell::{Cell, Queue};
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::span::Span;
use crate::time::Timestamp;

/// A token bucket that refills the more slowly the more expensive the recent hits were.
///
/// It refills at the rate divided by the average cost of the last `cost_window` admitted hits, but
/// not below `min_refill_rate` of the rate. A bucket that has filled up forgets them.
///
/// * **Bound**: in any interval of length *t* at most `burst + rate × t`, since it never refills
///   faster than at the rate; with hits of average cost *c* the long-run rate is a *c*-th of that.
/// * **State**: five words and 16 bytes for each of the last `cost_window` hits, kept until the
///   bucket is full.
/// * **Bursts**: the burst at once.
/// * **Choose it** when expensive hits should slow a client down more than they cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CostBasedTokenBucket {
    burst: Option<u32>,
    cost_window: u32,
    min_refill: Ratio,
}

impl CostBasedTokenBucket {
    /// The longest history of costs.
    pub const MAX_COST_WINDOW: u32 = 10_000;

    /// A bucket that holds the rate's limit, averages the last 100 costs, and refills at half the
    /// rate at least.
    pub const fn new() -> CostBasedTokenBucket {
        CostBasedTokenBucket {
            burst: None,
            cost_window: 100,
            min_refill: Ratio::new(0.5),
        }
    }

    /// Sets how many tokens the bucket holds, at least 1. Default: the rate's limit.
    pub const fn burst(mut self, burst: u32) -> CostBasedTokenBucket {
        self.burst = Some(burst);
        self
    }

    /// Sets over how many hits costs are averaged, from 1 to
    /// [`MAX_COST_WINDOW`](CostBasedTokenBucket::MAX_COST_WINDOW).
    pub const fn cost_window(mut self, hits: u32) -> CostBasedTokenBucket {
        self.cost_window = hits;
        self
    }

    /// Sets below which part of the rate, above 0 and up to 1, the refill never falls.
    pub const fn min_refill_rate(mut self, part: f64) -> CostBasedTokenBucket {
        self.min_refill = Ratio::new(part);
        self
    }

    fn capacity(&self, rate: &Rate) -> u64 {
        u64::from(self.burst.unwrap_or(rate.limit()))
    }

    fn pace(&self, hits: u64, total_cost: u64) -> Pace {
        let average = match total_cost {
            0 => PARTS,
            _ => hits.saturating_mul(PARTS) / total_cost,
        };
        Pace(average.clamp(self.slowest(), PARTS))
    }

    /// In [`PARTS`]. What `validate` refuses, because it is more than the whole, is the whole.
    fn slowest(&self) -> u64 {
        self.min_refill.ppm().clamp(1, PARTS)
    }

    fn state(&self, cell: &Cell, hit: &Hit<'_>) -> State {
        let now = hit.now.as_micros();
        let [since, micros, fraction, carry, total_cost] = *cell.words() else {
            return State::full(now);
        };
        let denominator = hit.rate.limit();
        let missing = Span::new(micros, schedule::fraction(fraction, hit.rate));
        let hits = cell.queue().map_or(0, |queue| queue.items().len() as u64);
        if hits == 0 || total_cost / hits > u64::from(u32::MAX) {
            // Nobody wrote this: each charge leaves a cost behind.
            return State::full(now);
        }
        let pace = self.pace(hits, total_cost);
        let (regained, carry) = pace.regained(now.saturating_sub(since), carry);
        let missing = missing.minus(Span::from_micros(regained), denominator);
        if missing == Span::ZERO {
            return State::full(now);
        }
        State {
            since: since.max(now),
            missing,
            carry,
            total_cost,
            hits,
        }
    }

    /// The state as far as it can honestly be ahead, and whether it is further.
    fn honest(&self, cell: &Cell, hit: &Hit<'_>) -> (State, bool) {
        let mut state = self.state(cell, hit);
        let now = hit.now.as_micros();
        let capacity = hit.rate.time_for(self.capacity(hit.rate));
        let word = cell.words().get(2).copied().unwrap_or(0);
        let most = schedule::most_owed(word, hit, capacity);
        let owes_more = state.missing.micros() > most.micros() + CLOCK_SLACK_US;
        if owes_more {
            state.missing = most;
        }
        let is_later = state.since > now.saturating_add(CLOCK_SLACK_US);
        if is_later {
            state.since = now;
        }
        (state, owes_more || is_later)
    }

    /// When the bucket is full, as a word.
    fn full_at(&self, state: &State) -> u64 {
        let pace = self.pace(state.hits, state.total_cost);
        let wait = match state.missing {
            Span::ZERO => 0,
            missing => pace.time_for(missing.ceil(), state.carry),
        };
        state.since.saturating_add(wait).min(Cell::WORD_LIMIT - 1)
    }

    fn remaining(&self, rate: &Rate, missing: Span) -> u64 {
        let capacity = rate.time_for(self.capacity(rate));
        rate.earned_in(capacity.minus(missing, rate.limit()))
    }

    /// Remembers the cost of an admitted hit, and forgets the oldest if there are too many.
    fn remember(&self, cell: &mut Cell, state: &State, cost: u64) -> (u64, u64) {
        let queue = cell.queue_mut();
        let mut total_cost = state.total_cost;
        if state.hits == 0 {
            while queue.pop().is_some() {}
        }
        while queue.items().len() >= self.cost_window as usize {
            let Some([oldest, _]) = queue.pop() else {
                break; // a window of none, which nobody validated
            };
            total_cost = total_cost.saturating_sub(oldest);
        }
        queue.push([cost, 0]);
        (queue.items().len() as u64, total_cost.saturating_add(cost))
    }
}

const PARTS: u64 = 1_000_000;

/// How fast the bucket refills, in millionths of the rate: from 1 to a million.
#[derive(Clone, Copy)]
struct Pace(u64);

impl Pace {
    /// What is regained in a time, in whole µs at the full rate, and the millionths left over, of
    /// which `carry` were there before.
    fn regained(self, elapsed_us: u64, carry: u64) -> (u64, u64) {
        // In two parts, so that no product exceeds a word.
        let (seconds, rest) = (elapsed_us / PARTS, elapsed_us % PARTS);
        let rest = rest * self.0 + carry.min(PARTS - 1);
        (seconds * self.0 + rest / PARTS, rest % PARTS)
    }

    /// The shortest time in which so many µs at the full rate are regained; saturating, since
    /// rates that [`validate`](Strategy::validate) refuses may need longer than a word holds.
    fn time_for(self, us: u64, carry: u64) -> u64 {
        let (whole, rest) = ((us / self.0).saturating_mul(PARTS), us % self.0);
        let wanted = rest * PARTS;
        match wanted.checked_sub(carry) {
            Some(wanted) => whole.saturating_add(wanted.div_ceil(self.0)),
            None => whole - (carry - wanted) / self.0,
        }
    }
}

struct State {
    since: u64,
    /// What the bucket lacks, as the time in which the full rate earns it.
    missing: Span,
    /// What has been regained beyond whole µs, in millionths.
    carry: u64,
    total_cost: u64,
    hits: u64,
}

impl State {
    fn full(now: u64) -> State {
        State {
            since: now,
            missing: Span::ZERO,
            carry: 0,
            total_cost: 0,
            hits: 0,
        }
    }
}

impl Default for CostBasedTokenBucket {
    fn default() -> Self {
        CostBasedTokenBucket::new()
    }
}

impl Strategy for CostBasedTokenBucket {
    fn id(&self) -> &'static str {
        "cost_based_token_bucket"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let (now, rate, cost) = (hit.now.as_micros(), hit.rate, u64::from(hit.cost));
        let denominator = rate.limit();
        let limit = self.capacity(rate);
        let capacity = rate.time_for(limit);
        let price = rate.time_for(cost);
        let state = self.state(cell, hit);
        let missing = state.missing.plus(price, denominator);

        if cost > 0 && missing <= capacity {
            let (hits, total_cost) = self.remember(cell, &state, cost);
            let pace = self.pace(hits, total_cost);
            let full = state
                .since
                .saturating_add(pace.time_for(missing.ceil(), state.carry));
            let words = [
                state.since,
                missing.micros(),
                missing.fraction().into(),
                state.carry,
                total_cost,
            ];
            cell.set(&words, Timestamp::from_micros(full));
            return Decision::allow(limit, self.remaining(rate, missing)).resets_in(full - now);
        }
        let (state, _) = self.honest(cell, hit);
        let missing = state.missing.plus(price, denominator);
        let pace = self.pace(state.hits, state.total_cost);
        let ahead = state.since - now;
        let after = |span: Span| ahead.saturating_add(pace.time_for(span.ceil(), state.carry));
        let reset = match state.missing {
            Span::ZERO => 0,
            missing => after(missing),
        };
        let remaining = self.remaining(rate, state.missing);
        if cost == 0 {
            return Decision::allow(limit, remaining).resets_in(reset);
        }
        if price > capacity {
            return Decision::never(limit, remaining).resets_in(reset);
        }
        let excess = missing.minus(capacity, denominator);
        Decision::deny(limit, remaining, after(excess)).resets_in(reset)
    }

    fn takes_time(&self) -> bool {
        true
    }

    fn lua(&self, rate: &Rate, cost: u32, _attributes: &Attributes) -> Option<Lua> {
        let capacity = rate.time_for(self.capacity(rate));
        let price = rate.time_for(cost.into());
        let arguments = [
            rate.limit().into(),
            price.micros(),
            price.fraction().into(),
            capacity.micros(),
            capacity.fraction().into(),
            self.cost_window.into(),
            self.slowest(),
            cost.into(),
        ];
        Some(Lua::new(LUA, &arguments))
    }

    /// What was refunded was still expensive: it slows the refill as before.
    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        let (mut state, is_ahead) = self.honest(cell, hit);
        let denominator = hit.rate.limit();
        let capacity = hit.rate.time_for(self.capacity(hit.rate));
        let (is_refund, price) = schedule::price_of(hit.rate, settlement);
        let missing = match is_refund {
            true => state.missing.minus(price, denominator),
            false => state.missing.plus(price, denominator).min(Span::MAX),
        };
        if !is_ahead && missing == state.missing {
            return false;
        }
        state.missing = missing;
        if let Settlement::Charge(cost @ 1..) = settlement {
            let (hits, total_cost) = self.remember(cell, &state, cost.into());
            (state.hits, state.total_cost) = (hits, total_cost);
        }
        let words = [
            state.since,
            missing.micros(),
            schedule::word(missing, hit, capacity),
            state.carry,
            state.total_cost,
        ];
        cell.set(&words, Timestamp::from_micros(self.full_at(&state)));
        true
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        let capacity = rate.time_for(self.capacity(rate));
        let (is_refund, price) = schedule::price_of(rate, settlement);
        let cost = match settlement {
            Settlement::Charge(cost) => cost,
            Settlement::Refund { .. } => 0,
        };
        let arguments = [
            rate.limit().into(),
            price.micros(),
            price.fraction().into(),
            capacity.micros(),
            capacity.fraction().into(),
            self.cost_window.into(),
            self.slowest(),
            cost.into(),
            is_refund.into(),
        ];
        Some(Lua::new(SETTLE_LUA, &arguments))
    }

    fn parameters(&self) -> String {
        self.burst
            .map(|burst| format!("burst={burst}"))
            .unwrap_or_default()
    }

    fn validate(&self, rate: &Rate) -> Result<()> {
        let capacity = self.capacity(rate);
        schedule::validate("the burst of a token bucket", capacity, rate)?;
        self.min_refill
            .validate("the minimum refill rate", 0.000_001, 1.0)?;
        if !(1..=Self::MAX_COST_WINDOW).contains(&self.cost_window) {
            return Err(Error::invalid(format!(
                "the cost window is from 1 to {} hits, not {}",
                Self::MAX_COST_WINDOW,
                self.cost_window
            )));
        }
        let slowest = Pace(self.min_refill.ppm());
        let full = rate.time_for(capacity).ceil();
        if full / slowest.0 >= Span::MAX.micros() / PARTS {
            return Err(Error::invalid(format!(
                "a bucket of {capacity} would take more than 142 years to refill at {} of {rate}",
                self.min_refill
            )));
        }
        Ok(())
    }

    fn window(&self, rate: &Rate, quota: u64) -> Duration {
        Duration::from_micros(rate.time_for(quota).ceil())
    }

    /// Forgets the older half of the costs. That changes the pace, which is never faster than the
    /// rate.
    fn coarsen(&self, cell: &mut Cell) -> bool {
        let expires = cell.expires();
        let queue = cell.queue_mut();
        if queue.items().len() <= Queue::FEW {
            return false;
        }
        let half = queue.items().len() / 2;
        let forgotten = queue.items()[..half]
            .iter()
            .map(|[cost, _]| *cost)
            .sum::<u64>();
        let mut at = 0;
        queue.thin(|_, _| {
            at += 1;
            at > half
        });
        if let [since, micros, fraction, carry, total] = *cell.words() {
            let total = total.saturating_sub(forgotten);
            cell.set(&[since, micros, fraction, carry, total], expires);
        }
        true
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let state = self.state(cell, hit);
        let pace = self.pace(state.hits, state.total_cost);
        let full = match state.missing {
            Span::ZERO => state.since,
            missing => state
                .since
                .saturating_add(pace.time_for(missing.ceil(), state.carry)),
        };
        Details::CostBasedTokenBucket(CostBasedTokenBucketStat {
            tokens: self.remaining(hit.rate, state.missing),
            capacity: self.capacity(hit.rate),
            average_cost_ppm: match state.hits {
                0 => PARTS,
                hits => state.total_cost.saturating_mul(PARTS) / hits,
            },
            cost_history_size: state.hits,
            base_refill: *hit.rate,
            effective_refill_ppm: pace.0,
            full_at: Timestamp::from_micros(full),
        })
    }
}

pub(super) const LUA: &str = concat!(
    include_str!("cost_based_state.lua"),
    include_str!("cost_based.lua")
);

pub(super) const SETTLE_LUA: &str = concat!(
    include_str!("cost_based_state.lua"),
    include_str!("cost_based_settle.lua")
);

/// What a [`CostBasedTokenBucket`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct CostBasedTokenBucketStat {
    /// Whole tokens in the bucket.
    pub tokens: u64,
    /// How many it holds.
    pub capacity: u64,
    /// The average cost of the remembered hits, in millionths; a million if there are none.
    pub average_cost_ppm: u64,
    /// How many are remembered.
    pub cost_history_size: u64,
    /// How fast it would refill at an average cost of 1.
    pub base_refill: Rate,
    /// How fast it does, in millionths of that.
    pub effective_refill_ppm: u64,
    /// When it is full again; the present if it is.
    pub full_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::proptest;

    use super::*;
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};

    #[test]
    fn is_lawful() {
        let bucket = CostBasedTokenBucket::new();
        Laws::of(&bucket, Bound::bucket(|rate| rate.limit().into())).check();
    }

    #[test]
    fn is_lawful_with_other_parameters() {
        for (burst, window, refill) in [(7, 1, 0.3), (1_000, 3, 0.000_001), (50, 10_000, 1.0)] {
            let bucket = CostBasedTokenBucket::new()
                .burst(burst)
                .cost_window(window)
                .min_refill_rate(refill);
            Laws::of(&bucket, Bound::bucket(move |_| burst.into()))
                .cases(128)
                .check();
        }
    }

    fn stat(trial: &Trial<'_>) -> CostBasedTokenBucketStat {
        let Details::CostBasedTokenBucket(stat) = trial.details() else {
            panic!("it is a cost-based token bucket");
        };
        stat
    }

    #[test]
    fn expensive_hits_slow_the_refill() {
        let bucket = CostBasedTokenBucket::new().burst(100).min_refill_rate(0.1);
        let mut trial = Trial::of(&bucket, "10/s");
        assert!(trial.hit(4).is_allowed());
        assert_eq!(stat(&trial).effective_refill_ppm, 250_000);
        assert!(trial.hit(96).is_allowed());
        // 50 on average, but not slower than a tenth of the rate: one token a second.
        assert_eq!(stat(&trial).average_cost_ppm, 50_000_000);
        assert_eq!(trial.hit(2).wait(), Duration::from_secs(2));
        trial.advance(Duration::from_secs(100));
        assert_eq!(stat(&trial).cost_history_size, 0);
        assert_eq!(stat(&trial).tokens, 100);
    }

    #[test]
    fn only_the_last_costs_count() {
        let bucket = CostBasedTokenBucket::new().burst(100).cost_window(2);
        let mut trial = Trial::of(&bucket, "10/s");
        for cost in [50, 3, 1] {
            assert!(trial.hit(cost).is_allowed());
        }
        assert_eq!(stat(&trial).average_cost_ppm, 2_000_000);
        assert_eq!(stat(&trial).cost_history_size, 2);
    }

    #[test]
    fn a_history_of_no_length_that_nobody_validated_was_waited_for() {
        let valid = CostBasedTokenBucket::new();
        let bucket = valid.cost_window(0);
        let mut trial = Trial {
            strategy: &bucket,
            ..Trial::of(&valid, "10/s")
        };
        for _ in 0..2 {
            assert!(trial.hit(1).is_allowed());
        }
        assert_eq!(stat(&trial).cost_history_size, 1);
    }

    #[test]
    fn refuses_what_never_refills() {
        let rate = Rate::literal("1/366d");
        let error = |bucket: CostBasedTokenBucket| bucket.validate(&rate).unwrap_err().to_string();
        let slow = CostBasedTokenBucket::new().min_refill_rate(0.001);
        assert!(error(slow).contains("at 0.001 of 1/366days"));
        assert!(error(CostBasedTokenBucket::new().cost_window(0)).contains("from 1 to 10000"));
        assert!(error(CostBasedTokenBucket::new().min_refill_rate(0.0)).contains("refill rate"));
        assert!(error(CostBasedTokenBucket::new().burst(0)).contains("at least 1"));
    }

    proptest! {
        #[test]
        fn paces_are_exact_inverses(
            ppm in 1..=PARTS,
            us in 1..1_u64 << 32,
            carry in 0..PARTS,
        ) {
            let pace = Pace(ppm);
            let time = pace.time_for(us, carry);
            assert!(pace.regained(time, carry).0 >= us);
            assert!(time == 0 || pace.regained(time - 1, carry).0 < us);
            // In one go or in two, the same is regained.
            let (half, rest) = pace.regained(time / 2, carry);
            let (other, _) = pace.regained(time - time / 2, rest);
            assert_eq!(half + other, pace.regained(time, carry).0);
        }
    }
}
