//! A log of amounts in a cell's queue, with running totals.
//!
//! Each pair is an instant and the total of everything logged up to and including it, modulo 2^50,
//! with two bits below it for a tag. What a stretch of the log adds up to is a difference of two
//! totals, so that looking takes a binary search and a denied hit need not touch, or pay for, what
//! has already left.

use super::Hit;
use super::Lua;
use crate::cell::{Cell, Queue};
use crate::rate::Rate;

/// Totals wrap here, far above any limit.
const WRAP: u64 = 1 << 50;
const TAGS: u64 = 4;

/// The log of a cell as it is.
#[derive(Clone, Copy)]
pub(super) struct Log<'a> {
    items: &'a [[u64; 2]],
    /// The total of what has been dropped from the log.
    gone: u64,
}

impl<'a> Log<'a> {
    pub(super) fn of(cell: &'a Cell, gone: u64) -> Log<'a> {
        Log {
            items: cell.queue().map_or(&[], Queue::items),
            gone,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// How many entries come at or before `instant`.
    pub(super) fn until(&self, instant: u64) -> usize {
        self.items.partition_point(|[at, _]| *at <= instant)
    }

    /// How many of the oldest entries are a period old, and count no more.
    pub(super) fn departed(&self, hit: &Hit<'_>) -> usize {
        let start = hit.now.as_micros().checked_sub(hit.rate.period_us());
        start.map_or(0, |start| self.until(start))
    }

    /// What the first `count` entries add up to.
    pub(super) fn sum(&self, count: usize) -> u64 {
        match count.checked_sub(1).and_then(|last| self.items.get(last)) {
            Some([_, word]) => (word / TAGS + WRAP - self.gone % WRAP) % WRAP,
            None => 0,
        }
    }

    /// What the entries from `first` on add up to.
    pub(super) fn sum_from(&self, first: usize) -> u64 {
        self.sum(self.len()).saturating_sub(self.sum(first))
    }

    /// The instant of the first entry up to which at least `amount` adds up.
    pub(super) fn reaching(&self, amount: u64) -> Option<u64> {
        let (mut low, mut high) = (0, self.items.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.sum(middle + 1) < amount {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.instant(low)
    }

    pub(super) fn instant(&self, at: usize) -> Option<u64> {
        self.items.get(at).map(|[instant, _]| *instant)
    }

    pub(super) fn last_instant(&self) -> Option<u64> {
        self.items.last().map(|[instant, _]| *instant)
    }

    /// The amounts and tags of the entries from `first` on.
    pub(super) fn entries(&self, first: usize) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let log = *self;
        (first..self.len()).map(move |at| {
            let amount = log.sum(at + 1).saturating_sub(log.sum(at));
            (amount, log.items[at][1] % TAGS)
        })
    }
}

/// The total of what has been dropped from a log that is the only state of its cell.
pub(super) fn dropped(cell: &Cell) -> u64 {
    cell.words().first().copied().unwrap_or(0)
}

/// A step for Redis that admits what fits into `limit` beside the hits of the last period, if those
/// are fewer than `most`, and logs it in an entry of its own or `merged` with others.
pub(super) fn window_lua(
    rate: &Rate,
    cost: u32,
    limit: u64,
    most: u64,
    tag: u64,
    merged: bool,
) -> Lua {
    let period = rate.period_us();
    Lua::new(
        WINDOW_LUA,
        &[cost.into(), limit, period, most, tag, merged.into()],
    )
}

pub(super) const WINDOW_LUA: &str = concat!(
    "local count = 1\n",
    include_str!("log.lua"),
    include_str!("log_window.lua")
);

/// An amount to log, at an instant no earlier than the last.
pub(super) struct Entry {
    pub(super) instant: u64,
    pub(super) amount: u64,
    /// Less than four.
    pub(super) tag: u64,
}

/// Drops the first `dropped` entries, then adds one, merged into the last if that has the same
/// instant. Returns the total of what has been dropped.
pub(super) fn merge(cell: &mut Cell, gone: u64, dropped: usize, entry: &Entry) -> u64 {
    let (gone, total) = drop_first(cell, gone, dropped);
    let queue = cell.queue_mut();
    let item = [entry.instant, entry.word(total)];
    match queue.items().last() {
        Some([last, _]) if *last == entry.instant => queue.replace_last(item),
        _ => queue.push(item),
    }
    gone
}

/// The same, but one entry for each amount.
pub(super) fn append(cell: &mut Cell, gone: u64, dropped: usize, entry: &Entry) -> u64 {
    let (gone, total) = drop_first(cell, gone, dropped);
    cell.queue_mut().push([entry.instant, entry.word(total)]);
    gone
}

/// Merges entries of the same stretch of time, until three quarters of them are left or fewer: what
/// was logged earlier counts as logged later, and leaves later. Nothing is done to a short log.
///
/// Stretches are a power of two long and begin at multiples of it, so that what was merged is not
/// merged with the next stretch when time has gone on, and again, and never leaves.
pub(super) fn coarsen(cell: &mut Cell) -> bool {
    let queue = cell.queue_mut();
    let ([[first, _], .., [last, _]], true) = (queue.items(), queue.items().len() > Queue::FEW)
    else {
        return false;
    };
    let most = queue.items().len() as u64 / 4 * 3;
    let stretch = last.saturating_sub(*first).div_ceil(most);
    let shift = stretch.next_power_of_two().trailing_zeros();
    // Totals are running, so that dropping an entry adds it to the next.
    queue.thin(|item, next| next.is_none_or(|next| next[0] >> shift != item[0] >> shift));
    true
}

impl Entry {
    fn word(&self, total: u64) -> u64 {
        (total + self.amount) % WRAP * TAGS + self.tag
    }
}

/// Returns the total of what has been dropped, and of everything. An empty log starts anew at
/// zero, and so is as good as one that never was.
fn drop_first(cell: &mut Cell, gone: u64, dropped: usize) -> (u64, u64) {
    let queue = cell.queue_mut();
    let mut gone = gone % WRAP;
    for _ in 0..dropped {
        if let Some([_, word]) = queue.pop() {
            gone = word / TAGS;
        }
    }
    match queue.items().last() {
        Some([_, word]) => (gone, word / TAGS),
        None => (0, 0),
    }
}
