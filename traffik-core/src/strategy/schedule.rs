//! The theoretical arrival time (TAT) that buckets and GCRA share.
//!
//! A bucket that refills at the rate and a schedule that falls due at the rate are the same thing
//! seen from two sides: the bucket is full again at the TAT. One instant is the whole state, and it
//! is exact because the part below a microsecond is kept as a fraction (see [`Span`]).
//! <https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm>

use super::{Hit, Lua};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::rate::Rate;
use crate::span::Span;
use crate::time::Timestamp;

/// When everything taken so far is paid for: in the past for a fresh cell, so `now` at least.
pub(super) fn arrival(cell: &Cell, hit: &Hit<'_>) -> Span {
    let now = hit.now.as_micros();
    match *cell.words() {
        [micros, fraction, ..] if micros >= now => {
            // The rate may have changed since: a fraction is below one in any case.
            let fraction = fraction.min(u64::from(hit.rate.limit() - 1));
            #[expect(clippy::cast_possible_truncation, reason = "below the limit, a u32")]
            Span::new(micros, fraction as u32)
        }
        _ => Span::from_micros(now),
    }
}

pub(super) fn charge(cell: &mut Cell, tat: Span) {
    cell.set(
        &[tat.micros(), u64::from(tat.fraction())],
        Timestamp::from_micros(tat.ceil()),
    );
}

/// Admits what fits into a bucket that holds `capacity`, given both in units and as the time in
/// which the rate earns it.
// Or else the compiler makes one function for all buckets, and calls it with seven arguments.
#[inline(always)]
pub(super) fn prepaid(cell: &mut Cell, hit: &Hit<'_>, limit: u64, capacity: Span) -> Decision {
    let denominator = hit.rate.limit();
    let now = Span::from_micros(hit.now.as_micros());
    let horizon = now.plus(capacity, denominator);
    let tat = arrival(cell, hit);
    let price = hit.rate.time_for(u64::from(hit.cost));
    let after = tat.plus(price, denominator);
    match horizon.checked_minus(after, denominator) {
        Some(left) if hit.cost > 0 => {
            charge(cell, after);
            let remaining = hit.rate.earned_in(left).min(limit);
            Decision::allow(limit, remaining).resets_in(after.ceil() - now.micros())
        }
        _ => uncharged(tat, hit, limit, capacity),
    }
}

/// What is answered to a hit that costs nothing, or does not fit.
#[inline(never)]
fn uncharged(tat: Span, hit: &Hit<'_>, limit: u64, capacity: Span) -> Decision {
    let denominator = hit.rate.limit();
    let now = Span::from_micros(hit.now.as_micros());
    let horizon = now.plus(capacity, denominator);
    let price = hit.rate.time_for(u64::from(hit.cost));
    let left = horizon.minus(tat, denominator);
    let remaining = hit.rate.earned_in(left).min(limit);
    let decision = if hit.cost == 0 {
        Decision::allow(limit, remaining)
    } else if price > capacity {
        Decision::never(limit, remaining)
    } else {
        let after = tat.plus(price, denominator);
        Decision::deny(limit, remaining, after.minus(horizon, denominator).ceil())
    };
    decision.resets_in(tat.ceil() - now.micros())
}

/// # Errors
///
/// If a bucket of this capacity holds nothing, or could not refill within [`Span::MAX`].
pub(super) fn validate(what: &str, capacity: u64, rate: &Rate) -> Result<()> {
    if capacity == 0 {
        return Err(Error::invalid(format!("{what} is at least 1")));
    }
    if rate.time_for(capacity) >= Span::MAX {
        return Err(Error::invalid(format!(
            "{what}, {capacity}, would take more than 142 years to refill at {rate}"
        )));
    }
    Ok(())
}

/// [`prepaid`] for Redis.
pub(super) fn prepaid_lua(rate: &Rate, cost: u32, capacity: Span) -> Lua {
    lua(PREPAID_LUA, rate, cost, capacity)
}

/// A script that goes on with `schedule.lua`, after `tat` and `part`.
pub(super) fn lua(source: &'static str, rate: &Rate, cost: u32, capacity: Span) -> Lua {
    let price = rate.time_for(u64::from(cost));
    let part = |span: Span| u64::from(span.fraction());
    Lua::new(
        source,
        &[
            u64::from(rate.limit()),
            price.micros(),
            part(price),
            capacity.micros(),
            part(capacity),
        ],
    )
}

pub(super) const PREPAID_LUA: &str = concat!(
    "local tat, part = words(2)\n",
    include_str!("schedule.lua"),
    include_str!("prepaid.lua")
);

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use governor::clock::{Clock, FakeRelativeClock};
    use governor::{Quota, RateLimiter};
    use proptest::prelude::*;

    use super::*;
    use crate::decision::Verdict;
    use crate::identity::Attributes;
    use crate::strategy::{Gcra, Strategy as _, TokenBucket};

    /// governor's intervals are whole nanoseconds; where ours are whole microseconds, both must
    /// decide alike, to the microsecond of the wait.
    fn agrees_with_governor(interval_us: u32, burst: u32, hits: &[(u32, u32)]) {
        // `period = interval × 1000` is a whole number of milliseconds.
        let period = Duration::from_millis(u64::from(interval_us));
        let rate = Rate::new(1_000, period).unwrap();
        let interval = Duration::from_micros(interval_us.into());

        let clock = FakeRelativeClock::default();
        let quota = Quota::with_period(interval)
            .unwrap()
            .allow_burst(NonZeroU32::new(burst).unwrap());
        let governor = RateLimiter::direct_with_clock(quota, clock.clone());
        let bucket = TokenBucket::new().burst(burst);
        let gcra = Gcra::new().burst_tolerance(interval * (burst - 1));
        let strict = gcra.strict();
        let (mut full, mut cell, mut smooth) = (Cell::fresh(), Cell::fresh(), Cell::fresh());

        let mut now = Timestamp::from_micros(1_704_067_200_000_000);
        for &(pause, cost) in hits {
            clock.advance(Duration::from_micros(pause.into()));
            now = now.plus_micros(pause.into());
            let hit = Hit {
                now,
                rate: &rate,
                cost,
                attributes: &Attributes::NONE,
            };
            let expected = match governor.check_n(NonZeroU32::new(cost).unwrap()) {
                Ok(Ok(())) => (Verdict::Allow, Duration::ZERO),
                Ok(Err(denied)) => (Verdict::Deny, denied.wait_time_from(clock.now())),
                Err(_) => (Verdict::Never, Duration::ZERO),
            };
            let mut decisions = vec![bucket.step(&mut full, &hit), strict.step(&mut cell, &hit)];
            if hits.iter().all(|(_, cost)| *cost == 1) {
                decisions.push(gcra.step(&mut smooth, &hit));
            }
            for decision in decisions {
                assert_eq!((decision.verdict(), decision.wait()), expected);
            }
        }
    }

    proptest! {
        #[test]
        fn buckets_and_gcra_agree_with_governor(
            interval_us in 1..100_000_u32,
            burst in 1..30_u32,
            hits in prop::collection::vec((0..200_000_u32, 1..6_u32), 1..60),
        ) {
            agrees_with_governor(interval_us, burst, &hits);
            let ones: Vec<_> = hits.iter().map(|(pause, _)| (pause / 4, 1)).collect();
            agrees_with_governor(interval_us, burst, &ones);
        }
    }
}
