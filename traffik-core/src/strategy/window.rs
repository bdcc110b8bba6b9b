//! Windows of one period, aligned to the epoch, that counting strategies share.

use super::settle::{self, CLOCK_SLACK_US, Settlement};
use super::{Hit, Lent, Loan, Lua};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::rate::Rate;
use crate::time::Timestamp;

/// Counts up to `limit` in a cell of two words: the start of the window and its count.
// Or else the compiler makes one function for all windows, and calls it from each.
#[inline(always)]
pub(super) fn step(cell: &mut Cell, hit: &Hit<'_>, limit: u64) -> Decision {
    let (start, taken) = count(cell, hit);
    let cost = u64::from(hit.cost);
    let end = start + hit.rate.period_us();
    let left = honest(start, hit) + hit.rate.period_us() - hit.now.as_micros();
    let decision = decide(limit, taken, cost, left);
    if decision.is_allowed() && cost > 0 {
        cell.set(&[start, taken + cost], Timestamp::from_micros(end));
    }
    decision
}

/// [`step`] for Redis.
pub(super) fn lua(rate: &Rate, cost: u32, limit: u64) -> Lua {
    Lua::new(LUA, &[cost.into(), limit, rate.period_us()])
}

pub(super) const LUA: &str = include_str!("window.lua");

/// Settles a cell of [`step`]; a refund counts if it is of this window.
pub(super) fn settle(cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
    let (start, count) = count(cell, hit);
    let elapsed = settle::elapsed(start, hit.now);
    let after = settlement.of_count(count, elapsed, Cell::WORD_LIMIT - 1);
    let honest = honest(start, hit);
    let changes = honest != start || after != count;
    if changes {
        let end = honest.saturating_add(hit.rate.period_us());
        cell.set(&[honest, after], Timestamp::from_micros(end));
    }
    changes
}

/// [`settle`] for Redis.
pub(super) fn settle_lua(rate: &Rate, settlement: Settlement) -> Lua {
    let [is_refund, amount, age] = settlement.words();
    Lua::new(SETTLE_LUA, &[rate.period_us(), is_refund, amount, age])
}

pub(super) const SETTLE_LUA: &str = concat!(
    "local period, refund, amount, age = unpack('>I8I8I8I8', arguments)\n",
    include_str!("settle.lua"),
    include_str!("window_settle.lua")
);

/// [`step`], and lends of what is left. What comes back counts if it is of this window, with which
/// all loans end.
pub(super) fn lend(cell: &mut Cell, hit: &Hit<'_>, loan: &Loan, limit: u64) -> (Decision, Lent) {
    let (start, count) = count(cell, hit);
    let left = honest(start, hit) + hit.rate.period_us() - hit.now.as_micros();
    let Some((after, lent)) = loan.of_count(start, count, hit.cost, limit, left) else {
        return (step(cell, hit, limit), Lent::default());
    };
    if after != count {
        let end = start + hit.rate.period_us();
        cell.set(&[start, after], Timestamp::from_micros(end));
    }
    let decision = Decision::allow(limit, lent.free).resets_in(left);
    (decision, lent)
}

/// [`lend`] for Redis.
pub(super) fn lend_lua(rate: &Rate, cost: u32, loan: &Loan, limit: u64) -> Lua {
    let [want, back, back_of] = loan.words();
    let arguments = [cost.into(), limit, rate.period_us(), want, back, back_of];
    Lua::new(LEND_LUA, &arguments)
}

pub(super) const LEND_LUA: &str = concat!(
    "local cost, limit, period, want, back, back_of = unpack('>I8I8I8I8I8I8', arguments)\n",
    include_str!("lend.lua"),
    include_str!("window_lend.lua")
);

/// The start and count of the window in force.
#[inline]
pub(super) fn count(cell: &Cell, hit: &Hit<'_>) -> (u64, u64) {
    match *cell.words() {
        [start, count] => match in_force(start, hit) {
            (start, true) => (start, count),
            (start, false) => (start, 0),
        },
        _ => (aligned(hit), 0),
    }
}

/// The start of the window in force, and whether it is the `remembered` one.
///
/// A window is in force until it is over. If the clock stepped back it may not even have begun:
/// its count still counts.
#[inline]
pub(super) fn in_force(remembered: u64, hit: &Hit<'_>) -> (u64, bool) {
    if hit.now.as_micros() < remembered.saturating_add(hit.rate.period_us()) {
        (remembered, true)
    } else {
        (aligned(hit), false)
    }
}

/// The start of a remembered window, unless that is further ahead than a clock that steps back a
/// little explains: then of the next one, in which its count goes on to count. So nobody is told to
/// wait for more than two periods, and no more is admitted, as windows still begin a period apart.
#[inline]
pub(super) fn honest(remembered: u64, hit: &Hit<'_>) -> u64 {
    let now = hit.now.as_micros();
    if remembered <= now {
        return remembered;
    }
    ahead(remembered, hit)
}

#[cold]
fn ahead(remembered: u64, hit: &Hit<'_>) -> u64 {
    let period = hit.rate.period_us();
    match remembered - hit.now.as_micros() > period.max(CLOCK_SLACK_US) {
        true => aligned(hit) + period,
        false => remembered,
    }
}

/// The start of the window in which a remembered one began: another if the period was changed. Those
/// who count several windows need all to begin at multiples of the period.
pub(super) fn realigned(remembered: u64, hit: &Hit<'_>) -> u64 {
    remembered - remembered % hit.rate.period_us()
}

/// Whether the first word of a cell is not the start of a window of this period.
pub(super) fn is_unaligned(cell: &Cell, hit: &Hit<'_>) -> bool {
    let start = cell.words().first();
    start.is_some_and(|start| realigned(*start, hit) != *start)
}

/// Refuses a rate by the month or year: windows that are a period long and follow each other from the epoch on
/// would begin at any time of a month.
pub(super) fn has_length(rate: &Rate) -> Result<()> {
    match rate.months() {
        None => Ok(()),
        Some(_) => Err(Error::invalid(format!(
            "`{rate}` has no windows that are all of one length: months and years begin anew with the strategy \
             `calendar_window`; or give a length, such as `{}/30days`",
            rate.limit()
        ))),
    }
}

/// The start of the window at the time of the hit.
#[inline]
pub(super) fn aligned(hit: &Hit<'_>) -> u64 {
    let now = hit.now.as_micros();
    now - now % hit.rate.period_us()
}

/// Decides on a window in which `taken` of `limit` are gone and which ends in `left_us`.
/// Charging it is up to the caller.
#[inline]
pub(super) fn decide(limit: u64, taken: u64, cost: u64, left_us: u64) -> Decision {
    let available = limit.saturating_sub(taken);
    if cost <= available {
        Decision::allow(limit, available - cost).resets_in(left_us)
    } else if cost > limit {
        Decision::never(limit, available).resets_in(left_us)
    } else {
        Decision::deny(limit, available, left_us)
    }
}
