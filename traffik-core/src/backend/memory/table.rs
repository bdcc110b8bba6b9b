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
    /// Cells that do not fit a slot.
    spilled: Vec<Cell>,
    vacancies: Vec<usize>,
    /// Where the next insertion looks for expired slots to drop.
    hand: usize,
    /// Shared cells of newcomers, by throttle, while the table is full.
    overflow: HashMap<(u128, u8), Cell>,
    overflowed: u64,
}

/// A key and its cell. All words are plain integers, so that a slot is 40 bytes.
///
/// The two words are kept apart: side by side the compiler copies them from a cell as one, which
/// has to wait until both of the strategy's writes have left the store buffer, for 4 ns.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Slot {
    key: u128Parts,
    first: u64,
    /// Expiry in the upper bits, kind in the lower two. Zero if vacant.
    tag: u64,
    second: u64,
}

/// A `u128` without its alignment of 16, which would waste 8 bytes per slot.
#[allow(non_camel_case_types, reason = "it is a u128")]
type u128Parts = [u64; 2];

/// Slots examined for expiry with every insertion into a table that is three quarters full. Between
/// there and its next growth half of the table is examined, so that a table grows only if most of
/// it is alive. An emptier one keeps what has expired: its owner often comes back, and then the
/// slot is there.
const SWEPT_PER_INSERT: usize = 4;

/// How many cells newcomers share, per throttle, while the table is full.
const OVERFLOW_CELLS: u8 = 64;

const VACANT: u64 = 0;
const ONE_WORD: u64 = 1;
const TWO_WORDS: u64 = 2;
const SPILLED: u64 = 3;

impl Slot {
    fn kind(&self) -> u64 {
        self.tag & 3
    }

    fn is_vacant(&self) -> bool {
        self.kind() == VACANT
    }

    fn expires(&self) -> Timestamp {
        Timestamp::from_micros(self.tag >> 2)
    }

    #[inline]
    fn copy_to(&self, cell: &mut Cell) {
        match self.kind() {
            ONE_WORD => cell.set(&[self.first], self.expires()),
            _ => cell.set(&[self.first, self.second], self.expires()),
        }
    }

    /// Keeps a cell if it fits.
    #[inline]
    fn keep(&mut self, cell: &Cell) -> bool {
        let expires = cell.expires().as_micros() << 2;
        match *cell.words() {
            _ if cell.queue().is_some() => false,
            [word] => {
                self.first = word;
                self.tag = expires | ONE_WORD;
                true
            }
            [first, second] => {
                self.first = first;
                self.second = second;
                self.tag = expires | TWO_WORDS;
                true
            }
            _ => false,
        }
    }
}

/// Where the cell of a key is, if anywhere. Good until the table changes.
pub(super) type Place = Option<usize>;

impl Table {
    pub(super) fn new(max: usize) -> Table {
        Table {
            slots: Box::default(),
            len: 0,
            max,
            spilled: Vec::new(),
            vacancies: Vec::new(),
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

    /// Decides a hit on its cell, and keeps what became of the cell if the hit is charged.
    #[inline]
    pub(super) fn step(&mut self, op: &Op<'_>, now: Timestamp) -> Decision {
        let mut cell = Cell::fresh();
        let place = self.find(&op.key);
        // Most cells are in their slot, which is then looked up once for reading and writing.
        if let Some(at) = place
            && let slot = &mut self.slots[at]
            && slot.kind() != SPILLED
        {
            slot.copy_to(&mut cell);
            let decision = op.step(&mut cell, now);
            if decision.is_allowed() && op.cost > 0 && !slot.keep(&cell) {
                self.spill(at, &mut cell);
            }
            return decision;
        }
        self.lift(place, &op.key, &mut cell);
        let decision = op.step(&mut cell, now);
        if decision.is_allowed() && op.cost > 0 {
            self.put(place, &op.key, &mut cell, now);
        } else {
            self.put_back(place, &mut cell);
        }
        decision
    }

    /// Moves the cell of `key` into `cell`. It must come back through [`Table::put`] or
    /// [`Table::put_back`] before the lock is released.
    pub(super) fn take(&mut self, key: &Key, cell: &mut Cell) -> Place {
        let place = self.find(key);
        self.lift(place, key, cell);
        place
    }

    fn lift(&mut self, place: Place, key: &Key, cell: &mut Cell) {
        match place.map(|at| &self.slots[at]) {
            Some(slot) if slot.kind() == SPILLED => {
                *cell = std::mem::take(&mut self.spilled[index(slot.first)]);
            }
            Some(slot) => slot.copy_to(cell),
            None => self.start(key, cell),
        }
    }

    /// Keeps what a cell has become.
    #[inline]
    pub(super) fn put(&mut self, place: Place, key: &Key, cell: &mut Cell, now: Timestamp) {
        match place {
            Some(at) => self.store(at, cell),
            None => self.insert(key, cell, now),
        }
    }

    /// Returns an unchanged cell.
    #[inline]
    pub(super) fn put_back(&mut self, place: Place, cell: &mut Cell) {
        if let Some(slot) = place.map(|at| &self.slots[at])
            && slot.kind() == SPILLED
        {
            self.spilled[index(slot.first)] = std::mem::take(cell);
        }
    }

    /// A copy of the cell.
    pub(super) fn read(&self, key: &Key) -> Cell {
        let mut cell = Cell::fresh();
        match self.find(key).map(|at| &self.slots[at]) {
            Some(slot) if slot.kind() == SPILLED => {
                cell.clone_from(&self.spilled[index(slot.first)]);
            }
            Some(slot) => slot.copy_to(&mut cell),
            None => self.start(key, &mut cell),
        }
        cell
    }

    /// Where the cell of a key is.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Place {
        self.probe(parts(key)).ok()
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
        if self.len == self.vacancies.len() {
            self.spilled = Vec::new();
            self.vacancies = Vec::new();
        }
        before - self.len - self.overflow.len()
    }

    /// The slot of a key, or the vacant one where it would go. There always is one.
    #[inline]
    fn probe(&self, key: u128Parts) -> Result<usize, usize> {
        if self.slots.is_empty() {
            return Err(0);
        }
        let mut at = self.home(key);
        loop {
            let slot = &self.slots[at];
            if slot.key == key && !slot.is_vacant() {
                return Ok(at);
            }
            if slot.is_vacant() {
                return Err(at);
            }
            at = self.after(at);
        }
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

    fn store(&mut self, at: usize, cell: &mut Cell) {
        let slot = &mut self.slots[at];
        if slot.kind() == SPILLED || !slot.keep(cell) {
            self.spill(at, cell);
        }
    }

    fn spill(&mut self, at: usize, cell: &mut Cell) {
        cell.compact();
        let slot = &mut self.slots[at];
        let home = match slot.kind() {
            SPILLED => index(slot.first),
            _ => self.vacancies.pop().unwrap_or_else(|| {
                self.spilled.push(Cell::fresh());
                self.spilled.len() - 1
            }),
        };
        slot.tag = cell.expires().as_micros() << 2 | SPILLED;
        slot.first = home as u64;
        self.spilled[home] = std::mem::take(cell);
    }

    /// What a key that is not in the table starts from: nothing, unless it may have been served
    /// by an overflow cell, whose charges then follow it.
    #[inline]
    fn start(&self, key: &Key, cell: &mut Cell) {
        if !self.overflow.is_empty()
            && let Some(shared) = self.overflow.get(&overflow_of(key))
        {
            cell.clone_from(shared);
        }
    }

    fn insert(&mut self, key: &Key, cell: &mut Cell, now: Timestamp) {
        if self.len > self.slots.len() / 4 * 3 {
            self.sweep(SWEPT_PER_INSERT, now);
        }
        if self.len >= self.max && !self.make_room(now) {
            self.overflowed += 1;
            self.overflow.insert(overflow_of(key), std::mem::take(cell));
            return;
        }
        // Full at seven eighths: probes stay short, and with growth by a quarter a slot costs
        // between 46 and 57 bytes.
        if self.len >= self.slots.len() / 8 * 7 {
            self.resize(capacity_for(self.len + 1));
        }
        let key = parts(key);
        let (Ok(at) | Err(at)) = self.probe(key);
        self.slots[at] = Slot {
            key,
            tag: ONE_WORD,
            ..Slot::default()
        };
        self.len += 1;
        self.store(at, cell);
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
        if slot.is_vacant() || slot.expires() > now {
            *next = at + 1;
        } else {
            // What moves into the gap is looked at next.
            self.remove(at);
            *next = at;
        }
    }

    /// Removes an entry and closes the gap, so that no tombstones are needed.
    fn remove(&mut self, mut gap: usize) {
        if self.slots[gap].kind() == SPILLED {
            let home = index(self.slots[gap].first);
            self.spilled[home] = Cell::fresh();
            self.vacancies.push(home);
        }
        self.len -= 1;
        let mut at = gap;
        loop {
            at = self.after(at);
            let slot = self.slots[at];
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
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap] = Slot::default();
    }

    fn resize(&mut self, capacity: usize) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); capacity].into());
        for slot in old.into_iter().filter(|slot| !slot.is_vacant()) {
            let (Ok(at) | Err(at)) = self.probe(slot.key);
            self.slots[at] = slot;
        }
        self.hand = 0;
    }
}

/// A quarter more than `len` needs, or double while small.
fn capacity_for(len: usize) -> usize {
    match len {
        0 => 0,
        1..1_000 => (len * 2).next_power_of_two().max(16),
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
    [(digest >> 64) as u64, digest as u64]
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
        let spilled = table
            .slots
            .iter()
            .filter(|slot| slot.kind() == SPILLED)
            .count();
        assert_eq!(table.spilled.len() - table.vacancies.len(), spilled);
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
            put(&mut table, now % 8, &cell(&[now], now + 1), at);
            assert_eq!(table.len(), (now + 1).min(8) as usize);
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
            if len >= capacity / 8 * 7 {
                capacity = capacity_for(len + 1);
            }
            worst = worst.max((capacity * size_of::<Slot>()) as f64 / len as f64);
        }
        assert_eq!(size_of::<Slot>(), 40);
        assert!(worst < 58.0, "{worst}");
    }

    fn put(table: &mut Table, n: u64, new: &Cell, now: Timestamp) {
        let mut cell = Cell::fresh();
        let place = table.take(&key(n), &mut cell);
        table.put(place, &key(n), &mut new.clone(), now);
    }
}
