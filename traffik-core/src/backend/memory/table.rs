//! One shard: an open-addressing table of fixed 40-byte slots.
//!
//! `hashbrown` doubles, so that at an unlucky count half of its memory is air (86 bytes per key at
//! a million). This table grows by a quarter, drops expired entries before it grows, and keeps a
//! slot within one or two cache lines: one miss per decision at a million keys.

use super::overflow::Overflow;
use crate::backend::Op;
use crate::cell::Cell;
use crate::decision::Decision;
use crate::key::Key;
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct Table {
    slots: Box<[Slot]>,
    len: usize,
    limits: Limits,
    /// Bytes that cells have allocated.
    heap: usize,
    /// The group of slots where the next insertion looks for expired ones to drop.
    hand: usize,
    /// How many groups there are between it and the next one.
    stride: usize,
    /// Who came while the table was full.
    overflow: Overflow,
    overflowed: u64,
}

/// How much a table holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) keys: usize,
    pub(super) bytes: usize,
}

impl Limits {
    /// The part of the bytes that newcomers to a full table share.
    fn overflow(self) -> usize {
        self.bytes / 8
    }

    fn table(self) -> usize {
        self.bytes - self.overflow()
    }
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

/// Slots that are examined for expiry together.
///
/// The next group is [far away](stride). Were it the next in the table, the slots behind the hand
/// would be those of the living, and the further a slot is ahead of it, the longer its neighbours
/// have been there: where most entries expire, more keys would have their home before the hand than
/// there are slots, and probes would pass thousands of them.
const GROUP: usize = 4;

/// Groups examined with every insertion into a table that is almost full, by an eighth of its
/// slots: before it grows half of it is examined, so that a table grows only if most of it is
/// alive. An emptier one keeps what has expired: its owner often comes back, and then the slot is
/// there.
const GROUPS_PER_INSERT: usize = 1;

/// Groups examined for somebody for whom there is no room. A full pass for every newcomer of a
/// flood would be quadratic: the hand, which moves with every attempt, is enough to find whatever
/// expires.
const GROUPS_FOR_ROOM: usize = 8;

impl Slot {
    #[inline]
    fn is_vacant(&self) -> bool {
        self.key == VACANT
    }
}

impl Table {
    pub(super) fn new(limits: Limits) -> Table {
        Table {
            slots: Box::default(),
            len: 0,
            limits,
            heap: 0,
            hand: 0,
            stride: 0,
            overflow: Overflow::new(limits.keys, limits.overflow()),
            overflowed: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no cell at all.
    pub(super) fn is_unused(&self) -> bool {
        self.len == 0 && self.overflow.is_unused()
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed
    }

    pub(super) fn clear(&mut self) {
        *self = Table {
            overflowed: self.overflowed,
            ..Table::new(self.limits)
        };
    }

    /// Decides a hit on its cell, where it is, and keeps what became of it.
    #[inline]
    pub(super) fn step(&mut self, op: &Op<'_>, now: Timestamp) -> Decision {
        match self.find(&op.key) {
            Some(cell) if cell.is_large() => {
                // Before the step, which may put another cell in its place.
                let before = cell.counted();
                let decision = decide(op, cell, now);
                let after = weigh(cell);
                self.account((before, after), op, now);
                decision
            }
            Some(cell) => {
                let decision = decide(op, cell, now);
                if cell.is_large() {
                    let after = weigh(cell);
                    self.account((0, after), op, now);
                }
                decision
            }
            None => self.step_newcomer(op, now),
        }
    }

    #[inline(never)]
    fn step_newcomer(&mut self, op: &Op<'_>, now: Timestamp) -> Decision {
        let mut cell = self.overflow.read(op);
        let decision = op.step(&mut cell, now);
        if decision.is_allowed() && op.cost > 0 {
            self.insert(op, cell, now);
        }
        decision
    }

    /// The place of a cell that is in the table and allocates nothing.
    #[inline]
    pub(super) fn small(&self, op: &Op<'_>) -> Option<usize> {
        let at = self.probe(parts(&op.key)).ok()?;
        (!self.slots[at].cell.is_large()).then_some(at)
    }

    /// The cell at its [place](Table::small), as long as nothing was put in or removed.
    #[inline]
    pub(super) fn cell(&mut self, at: usize) -> &mut Cell {
        &mut self.slots[at].cell
    }

    /// Counts the bytes of a cell that was [small](Table::small); whether it has any now.
    pub(super) fn weigh(&mut self, op: &Op<'_>) -> bool {
        let after = self.find(&op.key).map_or(0, weigh);
        self.heap += after;
        after > 0
    }

    /// Moves the cell of a key out of the table, and tells its bytes. It must
    /// [come back](Table::put_back) before the lock is released.
    pub(super) fn take(&mut self, op: &Op<'_>) -> (Cell, usize) {
        match self.find(&op.key) {
            Some(cell) => {
                let cell = std::mem::take(cell);
                let bytes = cell.counted();
                self.heap -= bytes;
                (cell, bytes)
            }
            None => (self.overflow.read(op), 0),
        }
    }

    /// Whether nobody has met a full table.
    pub(super) fn has_no_overflow(&self) -> bool {
        self.overflow.is_unused()
    }

    /// Whether two newcomers have one cell, of which each [took](Table::take) a copy.
    pub(super) fn shares(&self, one: &Op<'_>, other: &Op<'_>) -> bool {
        let is_new = |op: &Op<'_>| self.probe(parts(&op.key)).is_err();
        self.overflow.shares(one, other) && is_new(one) && is_new(other)
    }

    /// Returns a cell to its place, if it has one; whether it has more bytes than when it was taken. Then
    /// it is to be [restrained](Table::restrain) once all are there that were taken: those that are not
    /// look expired.
    pub(super) fn put_back(&mut self, op: &Op<'_>, cell: &mut Cell, before: usize) -> bool {
        let Some(place) = self.find(&op.key) else {
            return false;
        };
        *place = std::mem::take(cell);
        let after = weigh(place);
        self.heap += after;
        after > before
    }

    /// Called for a cell that has grown: if there is no room for that, its log becomes coarser. If it was
    /// not charged, and only has more space ready, it is as it was, without that.
    #[inline]
    pub(super) fn restrain(&mut self, op: &Op<'_>, charged: bool, now: Timestamp) {
        if !self.has_room(self.slots.len(), 0) {
            match charged {
                true => self.economize(op, now),
                false => self.remake(op, |cell| {
                    cell.tighten();
                    true
                }),
            }
        }
    }

    /// A copy of the cell. What a key that is not in the table starts from is nothing, unless it
    /// may have been served by an overflow cell, whose charges then follow it.
    pub(super) fn read(&self, op: &Op<'_>) -> Cell {
        match self.probe(parts(&op.key)) {
            Ok(at) => self.slots[at].cell.clone(),
            Err(_) => self.overflow.read(op),
        }
    }

    #[inline]
    fn find(&mut self, key: &Key) -> Option<&mut Cell> {
        let at = self.probe(parts(key)).ok()?;
        Some(&mut self.slots[at].cell)
    }

    /// Counts the bytes of a cell that was changed. If there is no room for more of them, its log
    /// becomes coarser.
    #[inline]
    fn account(&mut self, (before, after): (usize, usize), op: &Op<'_>, now: Timestamp) {
        self.heap = self.heap + after - before;
        if after > before {
            self.restrain(op, true, now);
        }
    }

    #[cold]
    fn economize(&mut self, op: &Op<'_>, now: Timestamp) {
        self.sweep(GROUPS_FOR_ROOM, now);
        if self.has_room(self.slots.len(), 0) {
            return;
        }
        self.remake(op, |cell| op.strategy.coarsen(cell));
    }

    /// Makes a cell smaller, if it can be.
    #[cold]
    fn remake(&mut self, op: &Op<'_>, smaller: impl FnOnce(&mut Cell) -> bool) {
        let Some(cell) = self.find(&op.key) else {
            return;
        };
        let before = cell.counted();
        if smaller(cell) {
            let after = weigh(cell);
            self.heap = self.heap + after - before;
        }
    }

    /// Drops every expired cell; returns how many.
    pub(super) fn purge(&mut self, now: Timestamp) -> usize {
        let before = self.len;
        for at in 0..self.slots.len() {
            self.drop_expired(at, now);
        }
        if self.len < self.slots.len() / 4 {
            self.resize(capacity_for(self.len));
        }
        before - self.len + self.overflow.purge(now)
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
    pub(super) fn insert(&mut self, op: &Op<'_>, mut cell: Cell, now: Timestamp) {
        if cell.is_fresh() || self.find(&op.key).is_some() {
            return;
        }
        let (slots, room) = (self.slots.len(), room_in(self.slots.len()));
        if self.len > room - slots / 8 || self.heap > self.limits.table() / 2 {
            self.sweep(GROUPS_PER_INSERT, now);
        }
        cell.uncount();
        cell.compact();
        if !self.admits(&cell) && !self.make_room(&cell, now) {
            self.overflowed += 1;
            self.overflow.charge(op, &cell);
            return;
        }
        self.overflow.retire(op, now);
        self.resize(self.slots_for_one_more());
        self.place(parts(&op.key), cell);
    }

    fn place(&mut self, key: u128Parts, mut cell: Cell) {
        self.heap += cell.recount();
        let (Ok(at) | Err(at)) = self.probe(key);
        self.slots[at] = Slot { key, cell };
        self.len += 1;
    }

    /// Whether there is room for one more cell.
    fn admits(&self, cell: &Cell) -> bool {
        self.len < self.limits.keys && self.has_room(self.slots_for_one_more(), cell.allocated())
    }

    fn slots_for_one_more(&self) -> usize {
        match self.slots.len() {
            slots if self.len < room_in(slots) => slots,
            _ => capacity_for(self.len + 1),
        }
    }

    /// Whether so many slots and further bytes are within the limit.
    fn has_room(&self, slots: usize, bytes: usize) -> bool {
        slots * size_of::<Slot>() + self.heap + bytes <= self.limits.table()
    }

    /// Called with a full table: drops what is expired.
    #[cold]
    fn make_room(&mut self, cell: &Cell, now: Timestamp) -> bool {
        self.sweep(GROUPS_FOR_ROOM, now);
        self.admits(cell)
    }

    /// Drops what is expired from so many groups.
    fn sweep(&mut self, groups: usize, now: Timestamp) {
        let all = self.slots.len().div_ceil(GROUP);
        for _ in 0..groups.min(all) {
            let first = self.hand * GROUP;
            for at in first..(first + GROUP).min(self.slots.len()) {
                self.drop_expired(at, now);
            }
            self.hand = (self.hand + self.stride) % all;
        }
    }

    /// Drops the entry at `at` if it is expired, and what moves into the gap likewise.
    fn drop_expired(&mut self, at: usize, now: Timestamp) {
        while !self.slots[at].is_vacant() && self.slots[at].cell.is_expired(now) {
            self.remove(at);
        }
    }

    /// Removes an entry and closes the gap, so that no tombstones are needed.
    fn remove(&mut self, mut gap: usize) {
        self.heap -= self.slots[gap].cell.counted();
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
        if capacity == self.slots.len() {
            return;
        }
        let vacant = std::iter::repeat_with(Slot::default).take(capacity);
        let old = std::mem::replace(&mut self.slots, vacant.collect());
        for slot in old.into_iter().filter(|slot| !slot.is_vacant()) {
            let (Ok(at) | Err(at)) = self.probe(slot.key);
            self.slots[at] = slot;
        }
        self.hand = 0;
        self.stride = stride(capacity.div_ceil(GROUP));
    }
}

#[inline]
fn decide(op: &Op<'_>, cell: &mut Cell, now: Timestamp) -> Decision {
    let decision = op.step(cell, now);
    if decision.is_denied() {
        op.realign(cell, now);
    }
    decision
}

/// Frees what a cell does not need, and counts its bytes.
#[inline]
fn weigh(cell: &mut Cell) -> usize {
    cell.compact();
    cell.recount()
}

/// How to go through so many groups such that every one is reached, and those next to each other at
/// times that are spread evenly over a round: by about the golden ratio,
/// <https://en.wikipedia.org/wiki/Three-gap_theorem>.
fn stride(groups: usize) -> usize {
    let golden = groups * 618 / 1_000;
    (1..=golden)
        .rev()
        .find(|stride| gcd(*stride, groups) == 1)
        .unwrap_or(1)
}

fn gcd(one: usize, other: usize) -> usize {
    match other {
        0 => one,
        _ => gcd(other, one % other),
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
    use std::sync::Arc;

    use crate::identity::Attributes;
    use crate::rate::Rate;
    use crate::strategy::{FixedWindow, LeakyBucketWithQueue, SlidingWindowLog, Strategy};

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

    /// Hits of somebody.
    struct Hits(Arc<dyn Strategy>, Rate);

    impl Hits {
        fn of(strategy: impl Strategy, rate: &str) -> Hits {
            Hits(Arc::new(strategy), rate.parse().unwrap())
        }

        fn by(&self, n: u64) -> Op<'_> {
            Op {
                key: key(n),
                strategy: &self.0,
                rate: self.1,
                cost: 1,
                attributes: &Attributes::NONE,
            }
        }
    }

    fn any() -> Hits {
        Hits::of(FixedWindow, "5/s")
    }

    /// As many keys, in as many bytes as they like.
    fn table(keys: usize) -> Table {
        let bytes = usize::MAX / 4;
        Table::new(Limits { keys, bytes })
    }

    #[test]
    fn behaves_like_a_map_through_growth_and_expiry() {
        let mut table = table(5_000);
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
                let found = table.read(&any().by(n));
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
        table.assert_counted();
        let end = Timestamp::from_micros(60_000);
        table.purge(end);
        model.retain(|_, cell| !cell.is_expired(end));
        assert_eq!(table.len(), model.len());
        for (n, expected) in model {
            assert_eq!(table.read(&any().by(n)), expected);
        }
        table.assert_counted();
    }

    #[test]
    fn a_flood_never_evicts_a_live_cell_and_is_limited_as_a_few() {
        let mut table = table(100);
        let now = Timestamp::from_micros(10);
        for n in 0..100 {
            put(&mut table, n, &cell(&[n], 1_000), now);
        }
        for n in 100..20_000 {
            put(&mut table, n, &cell(&[n], 1_000), now);
        }
        assert_eq!(table.len(), 100);
        assert_eq!(table.overflowed(), 19_900);
        for n in 0..100 {
            assert_eq!(table.read(&any().by(n)), cell(&[n], 1_000));
        }
        // A newcomer sees what other newcomers were charged, and takes it along.
        assert!(!table.read(&any().by(500_000)).is_fresh());
        table.purge(Timestamp::from_micros(1_000));
        assert!(table.read(&any().by(500_000)).is_fresh());
        assert_eq!((table.len(), table.slots.len()), (0, 0));
    }

    #[test]
    fn a_table_with_room_keeps_the_slots_of_those_who_come_back() {
        let mut table = table(1_000);
        for now in 0..1_000 {
            let at = Timestamp::from_micros(now);
            put(&mut table, now % 6, &cell(&[now], now + 1), at);
            assert_eq!(table.len(), (now + 1).min(6) as usize);
        }
    }

    #[test]
    fn a_stream_of_keys_that_expire_at_once_does_not_grow_the_table() {
        let mut table = table(1_000_000);
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

    /// The sweep once went from slot to slot, and left the living behind it: the mean distance was
    /// in the thousands.
    #[test]
    fn keys_that_come_and_go_in_order_stay_near_their_homes() {
        for (alive, of, max) in [
            (1, 100_000, 1_000_000),
            (1_000, 100_000, 1_000_000),
            (20_000, 200_000, 1_000_000),
            (40_000, 300_000, 1_000_000),
            // Full, now and then.
            (20_000, 200_000, 20_000),
        ] {
            let mut table = table(max);
            // So that there is room for slots that nobody needs at the end.
            for n in 0..30_000 {
                put(&mut table, n, &cell(&[n], n + 30_000), Timestamp::EPOCH);
            }
            let mut worst = (0.0_f64, 0);
            for now in 30_000..30_000 + of {
                let new = cell(&[now], now + alive);
                put(&mut table, now, &new, Timestamp::from_micros(now));
                if now % 20_000 == 0 {
                    let (mean, most) = table.distances();
                    worst = (worst.0.max(mean), worst.1.max(most));
                }
            }
            // With random places 4 on average, at seven eighths.
            assert!(worst.0 < 8.0, "{alive} of {of}: {worst:?}");
            assert!(worst.1 < 600, "{alive} of {of}: {worst:?}");
        }
    }

    #[test]
    fn every_group_is_reached_by_the_hand() {
        for groups in [1, 2, 3, 4, 5, 6, 7, 64, 100, 1_236, 19_541] {
            let stride = stride(groups);
            let mut reached = vec![false; groups];
            let mut hand = 0;
            for _ in 0..groups {
                reached[hand] = true;
                hand = (hand + stride) % groups;
            }
            assert!(reached.into_iter().all(|one| one), "{groups}");
        }
    }

    /// 1,000 keys of a log of 1000/hour took 88 MB, among 3,000,000.
    #[test]
    fn max_keys_did_not_bound_the_bytes_of_logs() {
        for strategy in [
            Arc::new(SlidingWindowLog) as Arc<dyn Strategy>,
            Arc::new(LeakyBucketWithQueue),
            Arc::new(crate::strategy::CostBasedTokenBucket::new().cost_window(1_000)),
        ] {
            let hits = Hits(strategy, "1000/hour".parse().unwrap());
            let bytes = 256 << 10;
            let mut table = Table::new(Limits { keys: 1_000, bytes });
            let mut admitted = [0; 3_000];
            let mut now = Timestamp::from_micros(1);
            for round in 0..60 {
                for (n, admitted) in (0..).zip(&mut admitted) {
                    now = now.plus_micros(1);
                    let admits = table.step(&hits.by(n), now).is_allowed();
                    *admitted += u32::from(admits);
                }
                let used = table.used();
                assert!(
                    used <= bytes,
                    "{used} bytes in round {round} of {hits:?}",
                    hits = hits.0
                );
            }
            table.assert_counted();
            // Whoever has a cell of its own does not notice.
            assert!(table.len() > 400, "{}", table.len());
            let known = admitted.iter().filter(|admitted| **admitted == 60).count();
            assert!(known >= table.len(), "{known} of {}", table.len());
        }
    }

    /// Makes a new cell for each hit: a large one, a small one, or none.
    #[derive(Debug)]
    struct Anew;

    impl Strategy for Anew {
        fn id(&self) -> &'static str {
            "anew"
        }

        fn step(&self, cell: &mut Cell, hit: &crate::Hit<'_>) -> Decision {
            if hit.cost > 0 {
                let words: Vec<u64> = (0..hit.now.as_micros() % 6).collect();
                *cell = Cell::fresh();
                cell.set(&words, hit.now.plus_micros(9));
            }
            Decision::allow(9, 9)
        }
    }

    /// What had been counted of the old one was never taken off: one client filled the table.
    #[test]
    fn a_strategy_that_puts_another_cell_in_place_filled_the_table() {
        let hits = Hits::of(Anew, "5/s");
        let mut table = table(10);
        for n in 0..200 {
            let _ = table.step(&hits.by(n * n % 7), Timestamp::from_micros(n / 5));
            table.assert_counted();
        }
    }

    #[test]
    fn a_coarser_log_admits_no_more_than_a_fine_one() {
        let hits = Hits::of(SlidingWindowLog, "100/s");
        for (bytes, percent) in [(4_096, 60), (12_000, 90), (usize::MAX, 100)] {
            let mut table = Table::new(Limits { keys: 10, bytes });
            let (mut alone, mut fine) = (Cell::fresh(), Cell::fresh());
            let (mut admitted, mut possible) = (0, 0);
            for n in 0..20_000 {
                // Three of ten are denied.
                let now = Timestamp::from_micros(n * 7_000 + n * n % 1_000);
                for other in 1..9 {
                    let _ = table.step(&hits.by(other), now);
                }
                for _ in 0..n * 7 % 3 {
                    let hit = hits.by(0);
                    possible += u32::from(hit.step(&mut fine, now).is_allowed());
                    if table.step(&hit, now).is_allowed() {
                        let allowed = hit.step(&mut alone, now).is_allowed();
                        assert!(allowed, "hit {n} of {bytes} bytes is beyond the limit");
                        admitted += 1;
                    }
                }
            }
            assert!(
                admitted * 100 >= possible * percent,
                "{admitted} of {possible} in {bytes} bytes"
            );
        }
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
        let any = any();
        let op = any.by(n);
        match table.find(&op.key) {
            Some(_) => {
                let (_, before) = table.take(&op);
                if table.put_back(&op, &mut new.clone(), before) {
                    table.restrain(&op, true, now);
                }
            }
            None => table.insert(&op, new.clone(), now),
        }
    }

    impl Table {
        /// The mean and the greatest number of slots that are passed to find a key.
        fn distances(&self) -> (f64, usize) {
            let occupied = self
                .slots
                .iter()
                .enumerate()
                .filter(|(_, slot)| !slot.is_vacant());
            let passed = occupied.map(|(at, slot)| {
                let home = self.home(slot.key);
                (at + self.slots.len() - home) % self.slots.len()
            });
            let (sum, most) = passed.fold((0, 0), |(sum, most), passed| {
                (sum + passed, passed.max(most))
            });
            (sum as f64 / self.len.max(1) as f64, most)
        }

        fn used(&self) -> usize {
            self.slots.len() * size_of::<Slot>() + self.heap + self.overflow.bytes()
        }

        pub(in super::super) fn assert_counted(&self) {
            let cells = self.slots.iter().map(|slot| slot.cell.allocated());
            assert_eq!(self.heap, cells.sum::<usize>());
            self.overflow.assert_counted();
        }
    }
}
