//! Where newcomers are counted while a table is full: cells that they share.
//!
//! Where cells are [ordered](crate::Strategy::ordered), a newcomer has two cells, in different rows,
//! and the one that is less used up decides. Both become at least what it becomes. So each cell has
//! seen at least what each of its owners took: nobody is admitted more than alone, and a newcomer is
//! denied only if it shares both cells with too many. That is a count-min sketch with conservative
//! update, <https://doi.org/10.1016/j.jalgor.2003.12.001>, <https://doi.org/10.1145/859716.859719>.
//!
//! Two rows: with more of them, of the same size together, newcomers are denied more often after
//! many clients that come once, and hardly less often after few that use up all they may.

use std::collections::HashMap;

use crate::backend::Op;
use crate::cell::Cell;
use crate::key::{Key, halves};
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct Overflow {
    /// By throttle and period: cells of different periods have nothing to do with each other.
    sketches: HashMap<(u128, u64), Sketch>,
    /// How many cells a sketch has at most.
    most: usize,
    budget: usize,
    /// Bytes of all cells, and of what they allocated.
    bytes: usize,
    /// What is not promised to a sketch.
    left: usize,
}

#[derive(Debug)]
struct Sketch {
    cells: Box<[Cell]>,
    ordered: bool,
    /// When all of its cells are worth nothing.
    expires: Timestamp,
    /// What it was promised.
    share: usize,
}

/// However small a table is, newcomers of a throttle share as many cells as this.
const FEWEST: usize = 64;

impl Overflow {
    /// For a table of so many keys, in so many bytes.
    pub(super) fn new(keys: usize, budget: usize) -> Overflow {
        Overflow {
            sketches: HashMap::new(),
            most: FEWEST.max(keys / 2),
            budget,
            bytes: 0,
            left: budget,
        }
    }

    /// What a newcomer starts from: a copy of its cell that is used up least.
    pub(super) fn read(&self, op: &Op<'_>) -> Cell {
        if self.sketches.is_empty() {
            return Cell::fresh();
        }
        let sketch = self.sketches.get(&name(op));
        sketch.map_or_else(Cell::fresh, |sketch| sketch.least(&op.key).clone())
    }

    /// Whether two newcomers have the same cell, so that what was read for one must know of the
    /// other. Ordered cells need not: they become the greater of what both became.
    pub(super) fn shares(&self, one: &Op<'_>, other: &Op<'_>) -> bool {
        let sketch = self
            .sketches
            .get(&name(one))
            .filter(|_| name(one) == name(other));
        sketch.is_some_and(|sketch| {
            !sketch.ordered && sketch.places(&one.key) == sketch.places(&other.key)
        })
    }

    pub(super) fn is_unused(&self) -> bool {
        self.sketches.is_empty()
    }

    /// Charges a hit that was admitted, and made `after` of what was read.
    pub(super) fn charge(&mut self, op: &Op<'_>, after: &Cell) {
        let sketch = self.sketches.entry(name(op)).or_insert_with(|| {
            let sketch = Sketch::new(op, self.left / 2, self.most);
            self.left -= sketch.share;
            self.bytes += size_of_val(&*sketch.cells);
            sketch
        });
        let room = self.budget.saturating_sub(self.bytes);
        sketch.expires = sketch.expires.max(after.expires());
        let (before, bytes) = match sketch.ordered {
            true if after.words().len() > 2 => {
                let mut after = after.clone();
                op.strategy.call_in(&mut after);
                sketch.cover(&op.key, &after)
            }
            true => sketch.cover(&op.key, after),
            false => sketch.replace(op, after, room),
        };
        self.bytes = self.bytes + bytes - before;
    }

    /// Forgets the cells of newcomers to a throttle once all are worth nothing.
    pub(super) fn retire(&mut self, op: &Op<'_>, now: Timestamp) {
        if self.sketches.is_empty() {
            return;
        }
        let name = name(op);
        if self
            .sketches
            .get(&name)
            .is_some_and(|sketch| sketch.expires <= now)
            && let Some(sketch) = self.sketches.remove(&name)
        {
            self.forget(&sketch);
        }
    }

    /// Drops every expired cell; returns how many.
    pub(super) fn purge(&mut self, now: Timestamp) -> usize {
        let mut dropped = 0;
        let mut sketches = std::mem::take(&mut self.sketches);
        sketches.retain(|_, sketch| {
            let (cells, bytes) = sketch.purge(now);
            dropped += cells;
            self.bytes -= bytes;
            let alive = sketch.expires > now;
            if !alive {
                self.forget(sketch);
            }
            alive
        });
        self.sketches = sketches;
        dropped
    }

    fn forget(&mut self, sketch: &Sketch) {
        self.left += sketch.share;
        self.bytes -= size_of_val(&*sketch.cells);
        self.bytes -= sketch.cells.iter().map(Cell::counted).sum::<usize>();
    }
}

fn name(op: &Op<'_>) -> (u128, u64) {
    (op.key.throttle, op.rate.period_us())
}

impl Sketch {
    fn new(op: &Op<'_>, share: usize, most: usize) -> Sketch {
        let ordered = op.strategy.ordered();
        let each = match ordered {
            true => size_of::<Cell>(),
            false => size_of::<Cell>() + Cell::LEAST_WITH_QUEUE,
        };
        // Two at least, a row each, even if there is no room for them.
        let cells = (share / each).clamp(2, most);
        Sketch {
            cells: std::iter::repeat_with(Cell::fresh).take(cells).collect(),
            ordered,
            expires: Timestamp::EPOCH,
            share: share.min(cells * each),
        }
    }

    /// The cells of a key: one in each half if they are ordered, else one.
    fn places(&self, key: &Key) -> [usize; 2] {
        // What places a key in a table is above what chooses it. Multiplied it places anew.
        let (high, _) = halves(key.digest());
        let len = self.cells.len();
        if !self.ordered {
            return [scale(high, len); 2];
        }
        let row = len / 2;
        let second = high.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
        let second = second.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        [scale(high, row), row + scale(second, row)]
    }

    fn least(&self, key: &Key) -> &Cell {
        let [one, other] = self.places(key).map(|at| &self.cells[at]);
        // What has expired is less than what has not, too.
        if one.words() <= other.words() {
            one
        } else {
            other
        }
    }

    /// Makes both cells of a key at least `after`; returns bytes before and afterwards.
    fn cover(&mut self, key: &Key, after: &Cell) -> (usize, usize) {
        let mut bytes = (0, 0);
        for at in self.places(key) {
            let cell = &mut self.cells[at];
            if cell.words() < after.words() {
                bytes.0 += cell.uncount();
                cell.clone_from(after);
                cell.uncount();
                bytes.1 += cell.recount();
            }
        }
        bytes
    }

    /// Makes the only cell of a key `after`; returns bytes before and afterwards.
    fn replace(&mut self, op: &Op<'_>, after: &Cell, room: usize) -> (usize, usize) {
        let [at, _] = self.places(&op.key);
        let before = std::mem::replace(&mut self.cells[at], after.clone()).uncount();
        let cell = &mut self.cells[at];
        cell.uncount();
        cell.compact();
        if cell.allocated() > before + room {
            op.strategy.coarsen(cell);
        }
        (before, cell.recount())
    }

    /// Empties expired cells; returns how many, and their bytes.
    fn purge(&mut self, now: Timestamp) -> (usize, usize) {
        let expired = self
            .cells
            .iter_mut()
            .filter(|cell| !cell.is_fresh() && cell.is_expired(now));
        expired.fold((0, 0), |(cells, bytes), cell| {
            (cells + 1, bytes + std::mem::take(cell).uncount())
        })
    }
}

/// A number below `len`, by the upper half of `word`.
fn scale(word: u64, len: usize) -> usize {
    (((word >> 32) * len as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    use crate::backend::memory::table::{Limits, Table};
    use crate::identity::Attributes;
    use crate::rate::Rate;
    use crate::strategy::{self, Strategy};

    impl Overflow {
        pub(in super::super) fn bytes(&self) -> usize {
            self.bytes
        }

        pub(in super::super) fn assert_counted(&self) {
            let cells = self.sketches.values().flat_map(|sketch| &*sketch.cells);
            let bytes = cells.map(|cell| size_of::<Cell>() + cell.allocated());
            assert_eq!(self.bytes, bytes.sum::<usize>());
        }
    }

    fn op(strategy: &Arc<dyn Strategy>, rate: Rate, who: u64, cost: u32) -> Op<'_> {
        let spread = u128::from(who + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        Op {
            key: Key {
                throttle: 1,
                scope: 0,
                who: spread,
            },
            strategy,
            rate,
            cost,
            attributes: &Attributes::NONE,
        }
    }

    fn random(state: &mut u64) -> u64 {
        *state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        *state >> 33
    }

    fn all() -> impl Iterator<Item = (Arc<dyn Strategy>, Rate)> {
        let rates = ["5/s", "7/3s", "100/500ms"];
        strategy::NAMES.iter().flat_map(move |name| {
            rates.map(|rate| (strategy::named(name).unwrap(), rate.parse().unwrap()))
        })
    }

    #[test]
    fn of_two_ordered_cells_the_greater_stands_for_both() {
        let mut seen = 0;
        for (strategy, rate) in all().filter(|(strategy, _)| strategy.ordered()) {
            let (mut state, mut now) = (11, Timestamp::from_micros(1_000_000));
            let mut pair = [Cell::fresh(), Cell::fresh()];
            for _ in 0..10_000 {
                now = now.plus_micros(random(&mut state) % 400_000);
                pair.sort_by(|one, other| one.words().cmp(other.words()));
                let hit = op(&strategy, rate, 0, (random(&mut state) % 4) as u32);
                let [less, greater] = &mut pair;
                let lower = hit.step(less, now);
                if random(&mut state).is_multiple_of(3) {
                    continue;
                }
                let (before, mut less) = (less.clone(), less.clone());
                if before.words() > greater.words() {
                    continue;
                }
                let upper = hit.step(greater, now);
                let lower = match upper.is_allowed() {
                    true => hit.step(&mut less, now),
                    false => lower,
                };
                assert!(
                    lower.is_allowed() || upper.is_denied(),
                    "{strategy:?} {rate}"
                );
                assert!(less.words() <= greater.words(), "{strategy:?} {rate}");
                seen += u32::from(upper.is_allowed());
            }
        }
        assert!(seen > 5_000, "{seen}");
    }

    #[test]
    fn newcomers_to_a_full_table_are_admitted_no_more_than_alone() {
        for (strategy, rate) in all() {
            let names = [
                "adaptive_throttle",
                "quota_with_rollover",
                "cost_based_token_bucket",
            ];
            if names.contains(&strategy.id()) {
                // What others leave, or what they cost, changes their limits.
                continue;
            }
            let mut table = Table::new(Limits {
                keys: 10,
                bytes: 64 << 10,
            });
            let mut alone = vec![Cell::fresh(); 500];
            let (mut state, mut now, mut admitted) = (3, Timestamp::from_micros(1_000_000), 0);
            for _ in 0..10_000 {
                now = now.plus_micros(random(&mut state) % 3_000);
                let skewed = random(&mut state) % 500 * (random(&mut state) % 500) / 500;
                let hit = op(&strategy, rate, skewed, 1 + (random(&mut state) % 2) as u32);
                if table.step(&hit, now).is_allowed() {
                    let allowed = hit.step(&mut alone[skewed as usize], now).is_allowed();
                    assert!(allowed, "{strategy:?} {rate}");
                    admitted += 1;
                }
            }
            assert!(admitted > 0 && table.overflowed() > 0, "{strategy:?}");
            table.assert_counted();
        }
    }

    /// 0 of 1,000 were, after 10,240 hits of invented clients.
    #[test]
    fn honest_newcomers_were_denied_after_a_flood() {
        let strategy = strategy::named("token_bucket").unwrap();
        let rate = "5/hour".parse().unwrap();
        let now = Timestamp::from_micros(1);
        for (invented, each, least) in [
            (10_000, 1, 999),
            (20_000, 1, 980),
            (500, 9, 990),
            (2_000, 9, 900),
        ] {
            let mut table = Table::new(Limits {
                keys: 20_000,
                bytes: 8 << 20,
            });
            for who in 0..20_000 {
                let _ = table.step(&op(&strategy, rate, who, 1), now);
            }
            for who in 20_000..20_000 + invented {
                for _ in 0..each {
                    let _ = table.step(&op(&strategy, rate, who, 1), now);
                }
            }
            let honest =
                (500_000..501_000).map(|who| table.step(&op(&strategy, rate, who, 1), now));
            let admitted = honest.filter(|decision| decision.is_allowed()).count();
            assert!(admitted >= least, "{admitted} after {invented} × {each}");
        }
    }

    #[test]
    fn cells_are_forgotten_once_all_are_expired() {
        let strategy = strategy::named("fixed_window").unwrap();
        let rate = "5/s".parse().unwrap();
        let mut overflow = Overflow::new(100, 1 << 20);
        let mut cell = Cell::fresh();
        cell.set(&[0, 3], Timestamp::from_micros(1_000_000));
        let hit = op(&strategy, rate, 1, 1);
        overflow.charge(&hit, &cell);
        assert_eq!(overflow.read(&hit), cell);
        overflow.retire(&hit, Timestamp::from_micros(999_999));
        assert_eq!(overflow.read(&hit), cell);
        overflow.retire(&hit, Timestamp::from_micros(1_000_000));
        assert!(overflow.read(&hit).is_fresh());
        assert_eq!((overflow.bytes, overflow.left), (0, 1 << 20));
    }
}
