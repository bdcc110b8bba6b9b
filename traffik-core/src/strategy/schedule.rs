//! The theoretical arrival time (TAT) that buckets and GCRA share.
//!
//! A bucket that refills at the rate and a schedule that falls due at the rate are the same thing
//! seen from two sides: the bucket is full again at the TAT. One instant is the whole state, and it
//! is exact because the part below a microsecond is kept as a fraction (see [`Span`]).
//! <https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm>

use super::Hit;
use crate::cell::Cell;
use crate::decision::Decision;
use crate::span::Span;
use crate::time::Timestamp;

/// When everything taken so far is paid for: in the past for a fresh cell, so `now` at least.
pub(super) fn arrival(cell: &Cell, hit: &Hit<'_>) -> Span {
    let now = Span::from_micros(hit.now.as_micros());
    match *cell.words() {
        [micros, fraction] => {
            // The rate may have changed since: a fraction is below one in any case.
            let fraction = u32::try_from(fraction).unwrap_or(u32::MAX);
            Span::new(micros, fraction.min(hit.rate.limit() - 1)).max(now)
        }
        _ => now,
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
pub(super) fn prepaid(cell: &mut Cell, hit: &Hit<'_>, limit: u64, capacity: Span) -> Decision {
    let denominator = hit.rate.limit();
    let now = Span::from_micros(hit.now.as_micros());
    let horizon = now.plus(capacity, denominator);
    let tat = arrival(cell, hit);
    let price = hit.rate.time_for(u64::from(hit.cost));
    let after = tat.plus(price, denominator);

    if after <= horizon || hit.cost == 0 {
        if hit.cost > 0 {
            charge(cell, after);
        }
        let remaining = hit.rate.earned_in(horizon.minus(after, denominator));
        return Decision::allow(limit, remaining).resets_in(after.ceil() - now.micros());
    }
    let remaining = hit.rate.earned_in(horizon.minus(tat, denominator));
    let reset = tat.ceil() - now.micros();
    if price > capacity {
        return Decision::never(limit, remaining).resets_in(reset);
    }
    let wait = after.minus(horizon, denominator).ceil();
    Decision::deny(limit, remaining, wait).resets_in(reset)
}
