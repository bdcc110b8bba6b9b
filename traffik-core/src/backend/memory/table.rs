//! One shard: an open-addressing table of fixed 40-byte slots.
//!
//! `hashbrown` doubles, so that at an unlucky count half of its memory is air (86 bytes per key at
//! a million). This table grows by a quarter, drops expired entries before it grows, and keeps a
//! slot within one or two cache lines: one miss per decision at a million keys.

use std::collections::HashMap;

use crate::backend::Op;
use crate::cell::Cell;
use crate::decision::Decision;
use crate::key::Key;
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct Table {
    slots: Box<[Slot]>,
    len: usize,
    max: usize,
    /// Where the next insertion looks for expired slots to drop.
    hand: usize,
    /// Shared cells of newcomers, by throttle, while the table is full.
    overflow: HashMap<(u128, u8), Cell>,
    overflowed: u64,
}

/// A key and its cell.
#[derive(Debug, Default)]
struct Slot {
    key: u128Parts,
    cell: Cell,
}

/// A `u128` without its alignment of 16, which would waste 8 bytes per slot. Zero if vacant.
#[allow(non_camel_case_types, reason = "it is a u128")]
type u128Parts = [u64; 2];

const VACANT: u128Parts = [0, 0];

/// Slots examined for expiry with every insertion into a table that is almost full, by an eighth of
/// its slots: before it grows half of it is examined, so that a table grows only if most of it is
/// alive. An emptier one keeps what has expired: its owner often comes back, and then the slot is
/// there.
const SWEPT_PER_INSERT: usize = 4;

/// How many cells newcomers share, per throttle, while the table is full.
const OVERFLOW_CELLS: u8 = 64;

impl Slot {
    #[inline]
    fn is_vacant(&self) -> bool {
        self.key == VACANT
    }
}

impl Table {
    pub(super) fn new(max: usize) -> Table {
        Table {
            slots: Box::default(),
            len: 0,
            max,
            hand: 0,
            overflow: HashMap::new(),
            overflowed: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed
    }

    pub(super) fn clear(&mut self) {
        *self = Table {
            overflowed: self.overflowed,
            ..Table::new(self.max)
        };
    }

    /// Decides a hit on its cell, where it is, and keeps what became of it.
    #[inline]
    pub(super) fn step(&mut self, op: &Op<'_>, now: Timestamp) -> Decision {
        match self.find(&op.key) {
            Some(cell) => {
                let decision = op.step(cell, now);
                cell.compact();
                decision
            }
            None => self.step_newcomer(op, now),
        }
    }

    #[inline(never)]
    fn step_newcomer(&mut self, op: &Op<'_>, now: Timestamp) -> Decision {
        let mut cell = self.read(&op.key);
        let decision = op.step(&mut cell, now);
        if decision.is_allowed() && op.cost > 0 {
            self.insert(&op.key, cell, now);
        }
        decision
    }

    /// Moves the cell of a key out of the table. It must [come back](Table::put_back) before the
    /// lock is released.
    pub(super) fn take(&mut self, key: &Key) -> Cell {
        match self.find(key) {
            Some(cell) => std::mem::take(cell),
            None => self.read(key),
        }
    }

    /// Returns a cell to its place, if it has one.
    pub(super) fn put_back(&mut self, key: &Key, cell: &mut Cell) {
        if let Some(place) = self.find(key) {
            *place = std::mem::take(cell);
            place.compact();
        }
    }

    /// A copy of the cell. What a key that is not in the table starts from is nothing, unless it
    /// may have been served by an overflow cell, whose charges then follow it.
    pub(super) fn read(&self, key: &Key) -> Cell {
        let cell = match self.probe(parts(key)) {
            Ok(at) => Some(&self.slots[at].cell),
            Err(_) => self.overflow.get(&overflow_of(key)),
        };
        cell.cloned().unwrap_or_default()
    }

    #[inline]
    fn find(&mut self, key: &Key) -> Option<&mut Cell> {
        let at = self.probe(parts(key)).ok()?;
        Some(&mut self.slots[at].cell)
    }

    /// Drops every expired cell; returns how many.
    pub(super) fn purge(&mut self, now: Timestamp) -> usize {
        let before = self.len + self.overflow.len();
        let mut at = 0;
        while at < self.slots.len() {
            self.drop_expired(at, now, &mut at);
        }
        self.overflow.retain(|_, cell| !cell.is_expired(now));
        if self.len < self.slots.len() / 4 {
            self.resize(capacity_for(self.len));
        }
        before - self.len - self.overflow.len()
    }

    /// The slot of a key, or the vacant one where it would go, which there always is but in a table
    /// without slots.
    #[inline]
    fn probe(&self, key: u128Parts) -> Result<usize, usize> {
        let mut at = self.home(key);
        while let Some(slot) = self.slots.get(at) {
            if slot.key == key {
                return Ok(at);
            }
            if slot.is_vacant() {
                break;
            }
            at = self.after(at);
        }
        Err(at)
    }

    /// Where a key would like to be. Multiplication instead of a mask, since the capacity is no
    /// power of two: <https://lemire.me/blog/2016/06/27/a-fast-alternative-to-the-modulo-reduction/>
    #[inline]
    fn home(&self, key: u128Parts) -> usize {
        index(((key[0] >> 32) * self.slots.len() as u64) >> 32)
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() {
            0
        } else {
            at + 1
        }
    }

    /// Keeps the cell of a newcomer. Whoever is in the table already is left alone.
    pub(super) fn insert(&mut self, key: &Key, cell: Cell, now: Timestamp) {
        if self.find(key).is_some() {
            return;
        }
        let (slots, room) = (self.slots.len(), room_in(self.slots.len()));
        if self.len > room - slots / 8 {
            self.sweep(SWEPT_PER_INSERT, now);
        }
        if self.len >= self.max && !self.make_room(now) {
            self.overflowed += 1;
            self.overflow.insert(overflow_of(key), cell);
            return;
        }
        if self.len >= room {
            self.resize(capacity_for(self.len + 1));
        }
        let key = parts(key);
        let (Ok(at) | Err(at)) = self.probe(key);
        self.slots[at] = Slot { key, cell };
        self.len += 1;
    }

    /// Called with a full table: drops what is expired, unless it recently found nothing.
    #[cold]
    fn make_room(&mut self, now: Timestamp) -> bool {
        // A full pass for every newcomer of a flood would be quadratic: the hand, which moves with
        // every attempt, is enough to find whatever expires.
        self.sweep(32, now);
        self.len < self.max
    }

    /// Moves the hand over some slots and drops those that are expired.
    fn sweep(&mut self, slots: usize, now: Timestamp) {
        for _ in 0..slots {
            let mut hand = if self.hand < self.slots.len() {
                self.hand
            } else {
                0
            };
            self.drop_expired(hand, now, &mut hand);
            self.hand = hand;
        }
    }

    /// Drops the entry at `at` if it is expired; `next` becomes where to go on.
    fn drop_expired(&mut self, at: usize, now: Timestamp, next: &mut usize) {
        let slot = &self.slots[at];
        if slot.is_vacant() || !slot.cell.is_expired(now) {
            *next = at + 1;
        } else {
            // What moves into the gap is looked at next.
            self.remove(at);
            *next = at;
        }
    }

    /// Removes an entry and closes the gap, so that no tombstones are needed.
    fn remove(&mut self, mut gap: usize) {
        self.slots[gap] = Slot::default();
        self.len -= 1;
        let mut at = gap;
        loop {
            at = self.after(at);
            let slot = &self.slots[at];
            if slot.is_vacant() {
                break;
            }
            let home = self.home(slot.key);
            // It may move back to the gap unless its home lies between the two.
            let stays = if gap <= at {
                gap < home && home <= at
            } else {
                gap < home || home <= at
            };
            if !stays {
                self.slots.swap(gap, at);
                gap = at;
            }
        }
    }

    fn resize(&mut self, capacity: usize) {
        let vacant = std::iter::repeat_with(Slot::default).take(capacity);
        let old = std::mem::replace(&mut self.slots, vacant.collect());
        for slot in old.into_iter().filter(|slot| !slot.is_vacant()) {
            let (Ok(at) | Err(at)) = self.probe(slot.key);
            self.slots[at] = slot;
        }
        self.hand = 0;
    }
}

/// With fewer slots, 20 kB of them, a table is small.
const MANY_SLOTS: usize = 512;

/// How many keys fill so many slots. While small half of them, so that most keys are where they
/// are looked for first. Then seven eighths: probes are still short, and with growth by a quarter
/// a key costs between 46 and 57 bytes.
fn room_in(slots: usize) -> usize {
    match slots {
        0..MANY_SLOTS => slots / 2,
        _ => slots / 8 * 7,
    }
}

/// A quarter more than `len` needs, or double while small.
fn capacity_for(len: usize) -> usize {
    match len {
        0 => 0,
        _ if len < MANY_SLOTS / 2 => (len * 2 + 1).next_power_of_two().max(16),
        _ => (len / 7 * 8) / 4 * 5 + 8,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "halves of a u128, on purpose"
)]
#[inline]
fn parts(key: &Key) -> u128Parts {
    let digest = key.digest();
    // Never zero, by a bit that neither the shard nor the place in it depends on.
    [(digest >> 64) as u64 | 1 << 31, digest as u64]
}

#[expect(clippy::cast_possible_truncation, reason = "less than 64")]
fn overflow_of(key: &Key) -> (u128, u8) {
    (key.throttle, (parts(key)[0] >> 32) as u8 % OVERFLOW_CELLS)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "indices of this process's memory"
)]
#[inline]
const fn index(word: u64) -> usize {
    word as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn key(n: u64) -> Key {
        // Spread like a digest, but the same in every run.
        let spread = u128::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        Key {
            throttle: 0,
            scope: 0,
            who: spread,
        }
    }

    fn cell(words: &[u64], expires: u64) -> Cell {
        let mut cell = Cell::fresh();
        cell.set(words, Timestamp::from_micros(expires));
        cell
    }

    #[test]
    fn behaves_like_a_map_through_growth_and_expiry() {
        let mut table = Table::new(5_000);
        let mut model: HashMap<u64, Cell> = HashMap::new();
        let mut random = 7_u64;
        for now in 0..60_000 {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let n = (random >> 33) % 3_000;
            let words = &[n, now, n ^ now][..(random >> 20) as usize % 3 + 1];
            let at = Timestamp::from_micros(now);
            if (random >> 13).is_multiple_of(3) {
                let expected = model.get(&n).filter(|cell| !cell.is_expired(at)).cloned();
                let found = table.read(&key(n));
                if !found.is_expired(at) {
                    assert_eq!(Some(found), expected, "{n} at {now}");
                } else {
                    assert_eq!(expected, None, "{n} at {now}");
                }
            } else {
                let new = cell(words, now + (random >> 40) % 9_000);
                put(&mut table, n, &new, at);
                model.insert(n, new);
            }
        }
        let end = Timestamp::from_micros(60_000);
        table.purge(end);
        model.retain(|_, cell| !cell.is_expired(end));
        assert_eq!(table.len(), model.len());
        for (n, expected) in model {
            assert_eq!(table.read(&key(n)), expected);
        }
    }

    #[test]
    fn a_flood_never_evicts_a_live_cell_and_is_limited_as_a_few() {
        let mut table = Table::new(100);
        let now = Timestamp::from_micros(10);
        for n in 0..100 {
            put(&mut table, n, &cell(&[n], 1_000), now);
        }
        for n in 100..20_000 {
            put(&mut table, n, &cell(&[n], 1_000), now);
        }
        assert_eq!(table.len(), 100);
        assert_eq!(table.overflow.len(), usize::from(OVERFLOW_CELLS));
        assert_eq!(table.overflowed(), 19_900);
        for n in 0..100 {
            assert_eq!(table.read(&key(n)), cell(&[n], 1_000));
        }
        // A newcomer sees what other newcomers were charged, and takes it along.
        assert!(!table.read(&key(500_000)).is_fresh());
        table.purge(Timestamp::from_micros(1_000));
        assert!(table.read(&key(500_000)).is_fresh());
        assert_eq!((table.len(), table.slots.len()), (0, 0));
    }

    #[test]
    fn a_table_with_room_keeps_the_slots_of_those_who_come_back() {
        let mut table = Table::new(1_000);
        for now in 0..1_000 {
            let at = Timestamp::from_micros(now);
            put(&mut table, now % 6, &cell(&[now], now + 1), at);
            assert_eq!(table.len(), (now + 1).min(6) as usize);
        }
    }

    #[test]
    fn a_stream_of_keys_that_expire_at_once_does_not_grow_the_table() {
        let mut table = Table::new(1_000_000);
        for now in 0..100_000 {
            put(
                &mut table,
                now,
                &cell(&[now], now + 1),
                Timestamp::from_micros(now),
            );
        }
        assert_eq!(table.slots.len(), 16);
    }

    #[test]
    fn a_million_keys_take_at_most_58_bytes_each() {
        let mut worst = 0.0_f64;
        let mut capacity = 0;
        for len in 1_000..1_000_000_usize {
            if len >= room_in(capacity) {
                capacity = capacity_for(len + 1);
            }
            worst = worst.max((capacity * size_of::<Slot>()) as f64 / len as f64);
        }
        assert_eq!(size_of::<Slot>(), 40);
        assert!(worst < 58.0, "{worst}");
    }

    fn put(table: &mut Table, n: u64, new: &Cell, now: Timestamp) {
        match table.find(&key(n)) {
            Some(cell) => *cell = new.clone(),
            None => table.insert(&key(n), new.clone(), now),
        }
    }
}
