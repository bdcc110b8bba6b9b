//! Windows of one period, aligned to the epoch, that counting strategies share.

use super::{Hit, Lua};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::rate::Rate;
use crate::time::Timestamp;

/// Counts up to `limit` in a cell of two words: the start of the window and its count.
#[inline]
pub(super) fn step(cell: &mut Cell, hit: &Hit<'_>, limit: u64) -> Decision {
    let (start, taken) = count(cell, hit);
    let cost = u64::from(hit.cost);
    let end = start + hit.rate.period_us();
    let decision = decide(limit, taken, cost, end - hit.now.as_micros());
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
