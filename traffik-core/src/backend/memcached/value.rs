//! What is stored: a counter that `incr` understands, if the strategy counts, else a cell as bytes.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::backend::Op;
use crate::cell::Cell;
use crate::time::Timestamp;

/// A counter is the first word of its cell in milliseconds (42 bits, until 2109), then the second
/// (22 bits). So one `incr` both counts and tells in which window it did, and a value that is not
/// of the present window is recognised instead of being trusted.
const COUNT_BITS: u32 = 22;

/// Counts stay below half of what fits, so that hits that find the window full and take their
/// increment back can never carry into the start of the window.
const COUNT_LIMIT: u64 = 1 << (COUNT_BITS - 1);

const MS: u64 = 1_000;

/// Whether hits of this operation can be counted by `incr`. A cost above one cannot: it could be
/// denied while a smaller one fits, and while its increment stands it would deny that too.
pub(super) fn is_countable(op: &Op<'_>) -> bool {
    op.cost == 1 && has_counter(op) && !op.strategy.is_correction()
}

fn has_counter(op: &Op<'_>) -> bool {
    op.strategy.counts() && u64::from(op.rate.limit()) < COUNT_LIMIT
}

/// The cell as it is stored.
pub(super) fn encode(op: &Op<'_>, cell: &Cell) -> Vec<u8> {
    match counter(cell) {
        Some(counter) if has_counter(op) => counter.to_string().into_bytes(),
        _ => cell.encode(),
    }
}

/// The cell that was stored; a fresh one if it is not one of ours.
pub(super) fn decode(op: &Op<'_>, value: &[u8]) -> Cell {
    match std::str::from_utf8(value).map(|text| text.trim_end().parse()) {
        Ok(Ok(counter)) if op.strategy.counts() => of_counter(op, counter),
        _ => Cell::decode(value),
    }
}

/// The counter of a cell, if it has the form of one.
pub(super) fn counter(cell: &Cell) -> Option<u64> {
    match *cell.words() {
        [start, count]
            if start.is_multiple_of(MS)
                && (start / MS) >> (u64::BITS - COUNT_BITS) == 0
                && count < COUNT_LIMIT
                && cell.queue().is_none() =>
        {
            Some(((start / MS) << COUNT_BITS) | count)
        }
        _ => None,
    }
}

/// The cell of a counter.
pub(super) fn of_counter(op: &Op<'_>, counter: u64) -> Cell {
    let start = Timestamp::from_micros((counter >> COUNT_BITS) * MS);
    let count = counter & ((1 << COUNT_BITS) - 1);
    let mut cell = Cell::fresh();
    cell.set(
        &[start.as_micros(), count],
        start.plus_micros(op.rate.period_us()),
    );
    cell
}

/// The cell of a value, as it is stored again, and how long that is kept.
#[cfg(feature = "testing")]
pub(crate) fn read_value(op: &Op<'_>, value: &[u8], now: Timestamp) -> (Cell, Vec<u8>, u32) {
    let cell = decode(op, value);
    let _ = without_one(&cell);
    let kept = exptime(cell.expires(), now);
    let stored = encode(op, &cell);
    (cell, stored, kept)
}

/// The cell before the last hit of cost 1, if there was one.
pub(super) fn without_one(cell: &Cell) -> Option<Cell> {
    let [start, count] = *cell.words() else {
        return None;
    };
    let mut before = Cell::fresh();
    before.set(&[start, count.checked_sub(1)?], cell.expires());
    Some(before)
}

/// Seconds that a cell outlives its use. Memcached counts whole seconds of a clock that ticks once a
/// second, so that a key set for one second may live for a few milliseconds; and whoever decides by
/// a clock that is behind the writer's must still find the cell.
const SLACK_S: u64 = 60;

/// Above this an expiry is an instant, not a duration.
/// <https://github.com/memcached/memcached/blob/master/doc/protocol.txt>, "Expiration times".
const MAX_RELATIVE_S: u64 = 60 * 60 * 24 * 30;

/// Instants beyond this are negative to memcached, and long past.
const MAX_INSTANT: u64 = i32::MAX as u64;

/// Only eviction drops the cell.
const NEVER: u32 = 0;

/// When memcached should drop a cell, in its own terms.
pub(super) fn exptime(expires: Timestamp, now: Timestamp) -> u32 {
    let seconds = expires.micros_since(now).div_ceil(1_000_000) + SLACK_S;
    let exptime = match seconds {
        ..=MAX_RELATIVE_S => seconds,
        // The server's clock is the system's, whatever the backend's may be.
        _ => {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH);
            unix.unwrap_or_default().as_secs() + seconds
        }
    };
    match u32::try_from(exptime) {
        Ok(exptime) if u64::from(exptime) <= MAX_INSTANT => exptime,
        _ => NEVER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Attributes;
    use crate::key::Key;
    use crate::strategy::{FixedWindow, Gcra, Strategy};
    use std::sync::Arc;

    fn with_op(strategy: impl Strategy, rate: &str, test: impl FnOnce(&Op<'_>)) {
        let strategy: Arc<dyn Strategy> = Arc::new(strategy);
        let key = Key {
            throttle: 1,
            scope: 0,
            who: 2,
        };
        test(&Op {
            key,
            strategy: &strategy,
            rate: rate.parse().unwrap(),
            cost: 1,
            attributes: &Attributes::NONE,
        });
    }

    fn cell(words: &[u64], expires: u64) -> Cell {
        let mut cell = Cell::fresh();
        cell.set(words, Timestamp::from_micros(expires));
        cell
    }

    #[test]
    fn windows_are_counters_and_come_back() {
        with_op(FixedWindow, "5/minute", |op| {
            let minute = 1_704_067_200_000_000;
            let window = cell(&[minute, 3], minute + 60_000_000);
            let value = encode(op, &window);
            let digits = (((minute / 1_000) << 22) | 3).to_string();
            assert_eq!(value, digits.as_bytes());
            assert_eq!(decode(op, &value), window);
            // `decr` pads what became shorter.
            assert_eq!(decode(op, format!("{digits}  ").as_bytes()), window);
        });
    }

    #[test]
    fn what_does_not_fit_a_counter_is_a_cell() {
        with_op(FixedWindow, "5/minute", |op| {
            for words in [
                &[1_000_500, 3][..],
                &[1_000, COUNT_LIMIT],
                &[(1 << 42) * 1_000, 1],
                &[1_000],
            ] {
                let odd = cell(words, 9_000_000);
                assert_eq!(encode(op, &odd), odd.encode());
                assert_eq!(decode(op, &odd.encode()), odd);
            }
        });
        with_op(FixedWindow, "3000000/minute", |op| {
            assert!(!is_countable(op));
            let window = cell(&[60_000_000, 3], 120_000_000);
            assert_eq!(encode(op, &window), window.encode());
        });
        with_op(Gcra::new(), "5/minute", |op| {
            assert!(!is_countable(op));
            assert_eq!(decode(op, b"123456789"), Cell::fresh());
        });
    }

    /// Issue: SPEC 3.24. "2/31days" never throttled, since its expiry was an instant in 1970.
    #[test]
    fn an_expiry_beyond_thirty_days_is_an_instant() {
        let now = Timestamp::from_micros(1_704_067_200_000_000);
        let after = |seconds: u64| exptime(now.plus_micros(seconds * 1_000_000), now);
        assert_eq!(after(0), 60);
        assert_eq!(exptime(now.plus_micros(1), now), 61);
        assert_eq!(after(MAX_RELATIVE_S - SLACK_S), 2_592_000);
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!(u64::from(after(MAX_RELATIVE_S)) > unix + MAX_RELATIVE_S);
        assert_eq!(after(70 * 365 * 86_400), NEVER);
        assert_eq!(exptime(Timestamp::from_micros(u64::MAX), now), NEVER);
    }
}
