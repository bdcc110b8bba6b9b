//! The theoretical arrival time (TAT) that buckets and GCRA share.
//!
//! A bucket that refills at the rate and a schedule that falls due at the rate are the same thing
//! seen from two sides: the bucket is full again at the TAT. One instant is the whole state, and it
//! is exact because the part below a microsecond is kept as a fraction (see [`Span`]).
//! <https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm>

//!
//! A cell that owes more than its capacity, since it was charged beyond its limit or post-paid, has
//! that written into the bits of its second word that no fraction needs (see [`Beyond`]). All others
//! owe their capacity at most: an arrival time further ahead was written under another rate, or
//! before the clock stepped back.
//!
//! A cell of which something is [out](out) on lease has four words more.

mod out;

use super::settle::{CLOCK_SLACK_US, Settlement};
use super::{Hit, Lent, Loan, Lua};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::rate::Rate;
use crate::span::Span;
use crate::time::Timestamp;

/// What the scripts begin with: the arguments of [`lua`], and of [`settlement_lua`].
macro_rules! arguments {
    (hit) => {
        "local limit, price, price_part, capacity, capacity_part, period = \
         unpack('>I8I8I8I8I8I8', arguments)\n"
    };
    (settlement) => {
        "local limit, capacity, capacity_part, refund, price, price_part, period = \
         unpack('>I8I8I8I8I8I8I8', arguments)\n"
    };
}

pub(super) use arguments;

/// When everything taken so far is paid for: in the past for a fresh cell, so `now` at least. Not
/// for a cell of which something is out on lease.
pub(super) fn arrival(cell: &Cell, hit: &Hit<'_>) -> Span {
    let now = hit.now.as_micros();
    match *cell.words() {
        [micros, fraction, ..] if micros >= now => {
            Span::new(micros, self::fraction(fraction, hit.rate))
        }
        _ => Span::from_micros(now),
    }
}

/// Keeps an arrival time that is the capacity ahead at most.
#[inline]
pub(super) fn charge(cell: &mut Cell, hit: &Hit<'_>, tat: Span) {
    let word = u64::from(tat.fraction()) | kept(cell, hit, tat);
    let expires = Timestamp::from_micros(tat.ceil());
    cell.set(&[tat.micros(), word], expires);
}

/// Within a microsecond the upper bits stay, so that the words become greater with every charge.
#[inline]
fn kept(cell: &Cell, hit: &Hit<'_>, tat: Span) -> u64 {
    match *cell.words() {
        [micros, word, ..] if micros == tat.micros() => {
            let is_expired = micros == hit.now.as_micros() && word & FRACTION == 0;
            if is_expired { 0 } else { word & !FRACTION }
        }
        _ => 0,
    }
}

/// The same if it may be beyond the capacity.
#[inline]
pub(super) fn charge_any(cell: &mut Cell, hit: &Hit<'_>, tat: Span, capacity: Span) {
    let horizon = Span::from_micros(hit.now.as_micros()).plus(capacity, hit.rate.limit());
    if tat <= horizon {
        return charge(cell, hit, tat);
    }
    let owed = Span::from_micros(tat.ceil() - hit.now.as_micros());
    let upper = Beyond::new(owed, hit, capacity).0.max(kept(cell, hit, tat));
    let word = u64::from(tat.fraction()) | upper;
    let expires = Timestamp::from_micros(tat.ceil());
    cell.set(&[tat.micros(), word], expires);
}

/// Of the second word, what is a fraction: no limit has more bits.
const FRACTION: u64 = (1 << 30) - 1;

/// The upper bits of the second word of a cell that owes more than its capacity: that it does, which
/// rate and capacity those are, and how much it owes at most, as a power of two.
#[derive(Clone, Copy)]
struct Beyond(u64);

impl Beyond {
    const MARK: u64 = 1 << 52;

    fn new(owed: Span, hit: &Hit<'_>, capacity: Span) -> Beyond {
        let bits = owed.ceil().next_power_of_two().trailing_zeros();
        Beyond(Self::MARK | Self::rate(hit, capacity) << 36 | u64::from(bits) << 30)
    }

    /// What a rate is told by, in 16 bits.
    fn rate(hit: &Hit<'_>, capacity: Span) -> u64 {
        (u64::from(hit.rate.limit()) * 31 + capacity.micros()) % 65_521
    }

    /// How much a cell can owe that was written under this rate.
    fn most(self, hit: &Hit<'_>, capacity: Span) -> Option<Span> {
        let same = self.0 & Self::MARK != 0 && self.0 >> 36 & 0xffff == Self::rate(hit, capacity);
        same.then(|| Span::from_micros(1 << (self.0 >> 30 & 63)))
    }
}

/// The fraction in the second word of a cell, which under another rate may have been greater.
pub(super) fn fraction(word: u64, rate: &Rate) -> u32 {
    let fraction = (word & FRACTION).min(u64::from(rate.limit() - 1));
    // At most as much as a u32 less one.
    u32::try_from(fraction).unwrap_or(u32::MAX)
}

/// The second word of a cell that owes so much.
pub(super) fn word(owed: Span, hit: &Hit<'_>, capacity: Span) -> u64 {
    let upper = match owed > capacity {
        true => Beyond::new(owed, hit, capacity).0,
        false => 0,
    };
    upper | u64::from(owed.fraction())
}

/// The most that a cell with this second word can honestly owe.
pub(super) fn most_owed(word: u64, hit: &Hit<'_>, capacity: Span) -> Span {
    let most = Beyond(word).most(hit, capacity).unwrap_or(capacity);
    most.max(capacity)
}

/// The arrival time as far as it can honestly be ahead, and whether the stored one is further.
#[inline]
pub(super) fn owed(cell: &Cell, hit: &Hit<'_>, capacity: Span) -> (Span, bool) {
    let tat = arrival(cell, hit);
    let now = hit.now.as_micros();
    let is_ahead = |owed: Span| tat.micros() > now + owed.micros() + CLOCK_SLACK_US;
    if !is_ahead(capacity) {
        return (tat, false);
    }
    let word = cell.words().get(1).copied().unwrap_or(0);
    let owed = most_owed(word, hit, capacity);
    match is_ahead(owed) {
        true => (Span::from_micros(now).plus(owed, hit.rate.limit()), true),
        false => (tat, false),
    }
}

/// Settles a bucket that holds `capacity`.
pub(super) fn settle(
    cell: &mut Cell,
    hit: &Hit<'_>,
    settlement: Settlement,
    capacity: Span,
) -> bool {
    if is_lent(cell) {
        return out::settle(cell, hit, settlement, capacity);
    }
    let now = Span::from_micros(hit.now.as_micros());
    settle_to(cell, hit, settlement, capacity, now, false)
}

/// The same down to `floor`, and in any case if `is_late`.
fn settle_to(
    cell: &mut Cell,
    hit: &Hit<'_>,
    settlement: Settlement,
    capacity: Span,
    floor: Span,
    is_late: bool,
) -> bool {
    let denominator = hit.rate.limit();
    let now = Span::from_micros(hit.now.as_micros());
    let (tat, is_ahead) = owed(cell, hit, capacity);
    let (is_refund, price) = price_of(hit.rate, settlement);
    let after = match is_refund {
        true => tat.minus(price, denominator).max(floor),
        false => tat
            .plus(price, denominator)
            .min(now.plus(Span::MAX, denominator)),
    };
    let changes = is_late || is_ahead || after != tat;
    if changes {
        charge_any(cell, hit, after, capacity);
    }
    changes
}

/// What to take, or to give back: of a refund what cannot have drained since.
pub(super) fn price_of(rate: &Rate, settlement: Settlement) -> (bool, Span) {
    match settlement {
        Settlement::Charge(cost) => (false, rate.time_for(cost.into())),
        Settlement::Refund { cost, age_us } => {
            let price = rate.time_for(cost.into());
            let drained = Span::from_micros(age_us);
            (true, price.minus(drained, rate.limit()))
        }
    }
}

/// [`settle`] for Redis.
pub(super) fn settle_lua(rate: &Rate, settlement: Settlement, capacity: Span) -> Lua {
    settlement_lua(SETTLE_LUA, rate, settlement, capacity)
}

/// A script that goes on with `schedule_settle.lua`, after `tat` and `word`.
pub(super) fn settlement_lua(
    source: &'static str,
    rate: &Rate,
    settlement: Settlement,
    capacity: Span,
) -> Lua {
    let (is_refund, price) = price_of(rate, settlement);
    let part = |span: Span| u64::from(span.fraction());
    Lua::new(
        source,
        &[
            rate.limit().into(),
            capacity.micros(),
            part(capacity),
            is_refund.into(),
            price.micros(),
            part(price),
            rate.period_us(),
        ],
    )
}

pub(super) const SETTLE_LUA: &str = concat!(
    arguments!(settlement),
    "local tat, part = words(2)\nlocal lends = false\n",
    include_str!("schedule_out.lua"),
    "local word = part\n",
    include_str!("schedule_settle.lua"),
    "local changes = after ~= nil\nword = after_word\n",
    include_str!("schedule_take.lua"),
);

/// Whether something is out on lease.
#[inline]
pub(super) fn is_lent(cell: &Cell) -> bool {
    cell.words().len() == 6
}

/// Makes of a cell of which something is out one that drains when that one is over.
pub(super) fn call_in(cell: &mut Cell) {
    if is_lent(cell) {
        let over = cell.expires();
        cell.set(&[over.as_micros(), 0], over);
    }
}

/// The arrival time, and when the cell is as good as a fresh one if nobody does anything.
pub(super) fn arrival_and_end(cell: &Cell, hit: &Hit<'_>, capacity: Span) -> (Span, Timestamp) {
    let opened = out::Opened::of(cell, hit, capacity);
    let over = opened.over(hit, capacity);
    (opened.arrival(hit), Timestamp::from_micros(over))
}

pub(super) use out::{lend, step as step_lent};

/// Admits what fits into a bucket that holds `capacity`, given both in units and as the time in
/// which the rate earns it.
// Or else the compiler makes one function for all buckets, and calls it with seven arguments.
#[inline(always)]
pub(super) fn prepaid(cell: &mut Cell, hit: &Hit<'_>, limit: u64, capacity: Span) -> Decision {
    if is_lent(cell) {
        return prepaid_lent(cell, hit, limit, capacity);
    }
    prepaid_plain(cell, hit, limit, capacity)
}

#[cold]
#[inline(never)]
fn prepaid_lent(cell: &mut Cell, hit: &Hit<'_>, limit: u64, capacity: Span) -> Decision {
    out::step(cell, hit, capacity, |cell, hit| {
        prepaid_plain(cell, hit, limit, capacity)
    })
}

/// [`prepaid`], and lends of what is left.
pub(super) fn prepaid_lend(
    cell: &mut Cell,
    hit: &Hit<'_>,
    loan: &Loan,
    limit: u64,
    capacity: Span,
) -> (Decision, Lent) {
    out::lend(cell, hit, loan, capacity, |cell, hit| {
        prepaid_plain(cell, hit, limit, capacity)
    })
}

#[inline(always)]
fn prepaid_plain(cell: &mut Cell, hit: &Hit<'_>, limit: u64, capacity: Span) -> Decision {
    let denominator = hit.rate.limit();
    let now = Span::from_micros(hit.now.as_micros());
    let horizon = now.plus(capacity, denominator);
    let tat = arrival(cell, hit);
    let price = hit.rate.time_for(u64::from(hit.cost));
    let after = tat.plus(price, denominator);
    match horizon.checked_minus(after, denominator) {
        Some(left) if hit.cost > 0 => {
            charge(cell, hit, after);
            let remaining = hit.rate.earned_in(left).min(limit);
            Decision::allow(limit, remaining).resets_in(after.ceil() - now.micros())
        }
        _ => uncharged(cell, hit, limit, capacity),
    }
}

/// What is answered to a hit that costs nothing, or does not fit.
#[inline(never)]
fn uncharged(cell: &Cell, hit: &Hit<'_>, limit: u64, capacity: Span) -> Decision {
    let (tat, _) = owed(cell, hit, capacity);
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
            rate.period_us(),
        ],
    )
}

pub(super) const PREPAID_LUA: &str = concat!(
    arguments!(hit),
    "local tat, part = words(2)\nlocal lends = false\n",
    include_str!("schedule_out.lua"),
    include_str!("schedule.lua"),
    include_str!("prepaid.lua"),
    include_str!("schedule_take.lua"),
);

/// [`prepaid_lend`] for Redis.
pub(super) fn prepaid_lend_lua(rate: &Rate, cost: u32, loan: &Loan, capacity: Span) -> Lua {
    lend_lua(rate, cost, loan, capacity, rate.time_for(cost.into()))
}

/// [`lend`] for Redis, of hits that are admitted if what they `need` fits.
pub(super) fn lend_lua(rate: &Rate, cost: u32, loan: &Loan, capacity: Span, need: Span) -> Lua {
    let [want, back, back_of] = loan.words();
    let more = [
        need.micros(),
        need.fraction().into(),
        want,
        loan.length_us.clamp(1, out::LONGEST_US),
        back,
        back_of,
        loan.spent.into(),
    ];
    let lua = lua(LEND_LUA, rate, cost, capacity);
    more.into_iter().fold(lua, Lua::and)
}

pub(super) const LEND_LUA: &str = concat!(
    arguments!(hit),
    "local need, need_part, want, asked, back, back_of, spent = unpack('>I8I8I8I8I8I8I8', arguments, 49)\n",
    "local tat, part = words(2)\nlocal lends = true\n",
    include_str!("schedule_out.lua"),
    include_str!("schedule_beyond.lua"),
    include_str!("schedule_back.lua"),
    include_str!("schedule.lua"),
    include_str!("schedule_lend.lua"),
    include_str!("schedule_take.lua"),
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
