//! A log of amounts in a cell's queue, with running totals.
//!
//! Each pair is an instant and the total of everything logged up to and including it, modulo 2^50,
//! with two bits below it for a tag. What a stretch of the log adds up to is a difference of two
//! totals, so that looking takes a binary search and a denied hit need not touch, or pay for, what
//! has already left.

use super::settle::{CLOCK_SLACK_US, Settlement};
use super::{Hit, Lua};
use crate::cell::{Cell, Queue};
use crate::rate::Rate;
use crate::time::Timestamp;

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

/// How a log keeps hits.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// How many entries count at most.
    pub(super) most: u64,
    /// Of an amount that is charged, less than four.
    pub(super) tag: u64,
    /// Whether hits of the same instant are one entry.
    pub(super) merged: bool,
}

/// The instant at which an entry was logged as far as it can honestly be: once the log is further
/// ahead than a clock explains, at the latest now.
pub(super) fn honest(log: &Log<'_>, instant: u64, hit: &Hit<'_>) -> u64 {
    match is_ahead(log, hit) {
        true => instant.min(hit.now.as_micros()),
        false => instant,
    }
}

fn is_ahead(log: &Log<'_>, hit: &Hit<'_>) -> bool {
    let latest = hit.now.as_micros().saturating_add(CLOCK_SLACK_US);
    log.last_instant().is_some_and(|last| last > latest)
}

/// Settles a log of the hits of the last period that is the only state of its cell.
///
/// What is given back is taken from the oldest hits that count, since these leave first: so it is
/// never worth more than if it were taken from the very hit.
pub(super) fn settle(
    cell: &mut Cell,
    hit: &Hit<'_>,
    settlement: Settlement,
    manner: Manner,
) -> bool {
    let period = hit.rate.period_us();
    let log = Log::of(cell, dropped(cell));
    let left = log.departed(hit);
    let taken = log.sum_from(left);
    let is_ahead = is_ahead(&log, hit);
    let charged = match settlement {
        Settlement::Charge(cost) => u64::from(cost).min((WRAP / 2).saturating_sub(taken)),
        Settlement::Refund { .. } => 0,
    };
    let returned = match settlement {
        Settlement::Refund { cost, age_us } if age_us < period => u64::from(cost).min(taken),
        _ => 0,
    };
    if !is_ahead && charged == 0 && returned == 0 {
        return false;
    }
    let mut gone = dropped(cell);
    if is_ahead {
        gone = rewrite(cell, gone, left, |at, total, _| {
            (at.min(hit.now.as_micros()), total)
        });
    }
    let left = if is_ahead { 0 } else { left };
    if charged > 0 {
        gone = add(cell, gone, left, hit, charged, manner);
    } else if returned > 0 {
        gone = give_back(cell, gone, left, returned, manner);
    }
    let expires = match cell.queue().and_then(|queue| queue.items().last()) {
        Some([last, _]) => last.saturating_add(period),
        None => hit.now.as_micros(),
    };
    cell.set(&[gone], Timestamp::from_micros(expires));
    true
}

fn add(cell: &mut Cell, gone: u64, left: usize, hit: &Hit<'_>, amount: u64, manner: Manner) -> u64 {
    let log = Log::of(cell, gone);
    let entry = Entry {
        instant: log.last_instant().unwrap_or(0).max(hit.now.as_micros()),
        amount,
        tag: manner.tag,
    };
    // If there are as many as there may be, the last one is of both.
    if (log.len() - left) as u64 >= manner.most {
        let (gone, total) = drop_first(cell, gone, left);
        let item = [entry.instant, entry.word(total)];
        cell.queue_mut().replace_last(item);
        return gone;
    }
    match manner.merged {
        true => merge(cell, gone, left, &entry),
        false => append(cell, gone, left, &entry),
    }
}

fn give_back(cell: &mut Cell, gone: u64, left: usize, amount: u64, manner: Manner) -> u64 {
    let log = Log::of(cell, gone);
    let until = log.sum(left) + amount;
    let after = (gone % WRAP + until) % WRAP;
    if manner.merged {
        let mut spent = left;
        while spent < log.len() && log.sum(spent + 1) <= until {
            spent += 1;
        }
        drop_first(cell, gone, spent);
    } else {
        // Each entry is a hit, of which one is undone: if it was not the oldest, what is left of
        // that counts with the next.
        let undone = usize::from(log.len() - left > 1 || log.sum(left + 1) <= until);
        rewrite(cell, gone, left + undone, |at, _, sum| {
            (at, (gone % WRAP + sum.max(until)) % WRAP)
        });
    }
    match cell.queue().is_some_and(|queue| !queue.items().is_empty()) {
        true => after,
        false => 0,
    }
}

/// Drops the first `dropped` entries, and replaces instant and total of the others, given also what
/// they add up to. Returns the total of what has been dropped.
fn rewrite(
    cell: &mut Cell,
    gone: u64,
    dropped: usize,
    entry: impl Fn(u64, u64, u64) -> (u64, u64),
) -> u64 {
    let log = Log::of(cell, gone);
    let items: Vec<[u64; 2]> = (dropped..log.len())
        .map(|at| {
            let [instant, word] = log.items[at];
            let (instant, total) = entry(instant, word / TAGS, log.sum(at + 1));
            [instant, total * TAGS + word % TAGS]
        })
        .collect();
    let (gone, _) = drop_first(cell, gone, dropped);
    let queue = cell.queue_mut();
    while queue.pop().is_some() {}
    for item in items {
        queue.push(item);
    }
    gone
}

/// [`settle`] for Redis.
pub(super) fn settle_lua(rate: &Rate, settlement: Settlement, manner: Manner) -> Lua {
    let [is_refund, amount, age] = settlement.words();
    let Manner { most, tag, merged } = manner;
    let (period, merged) = (rate.period_us(), merged.into());
    Lua::new(
        SETTLE_LUA,
        &[period, most, tag, merged, is_refund, amount, age],
    )
}

pub(super) const SETTLE_LUA: &str = concat!(
    "local count = 1\n",
    include_str!("log.lua"),
    include_str!("log_settle.lua")
);

/// An amount to log, at an instant that should be no earlier than the last.
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
    let last = queue.items().last().map_or(0, |[last, _]| *last);
    let item = [entry.instant.max(last), entry.word(total)];
    match queue.items().last() {
        Some([last, _]) if *last >= entry.instant => queue.replace_last(item),
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
