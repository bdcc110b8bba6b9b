//! Denials that are answered without asking Redis.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use smallvec::SmallVec;

use crate::backend::{Batch, Op};
use crate::cell::Cell;
use crate::decision::Decisions;
use crate::identity::Attributes;
use crate::key::Key;
use crate::rate::Rate;
use crate::sweep::Sweep;
use crate::time::{Timestamp, micros};

/// Remembers batches that were denied, for as long as they certainly would be again.
///
/// Other people's hits only make a denial last longer, so it holds until its wait is over, unless
/// a hit under another rate rewrites the cell, or a reset forgets it. Of those, the ones made
/// through this backend are seen; the ones of other processes are noticed after
/// [`Denials::LONGEST`].
pub(super) struct Denials {
    shards: Box<[Mutex<Shard>]>,
    /// How many hits each of so many groups of keys has had that may have changed a cell. A denial
    /// is good while those of its keys are what they were before it was asked for.
    changes: Box<[AtomicU32]>,
    max_per_shard: usize,
}

#[derive(Default)]
struct Shard {
    denials: HashMap<Key, Denial>,
    /// For those that are over, by the stopwatch.
    sweep: Sweep,
}

/// A batch that was denied; found by the key of its first operation.
struct Denial {
    parts: SmallVec<[Part; 3]>,
    cells: SmallVec<[Cell; 3]>,
    changes: SmallVec<[u32; 3]>,
    /// The server's time when it denied.
    now: Timestamp,
    /// Our stopwatch before it was asked, and after it had answered: the server's clock was at `now`
    /// no earlier than the one, and no later than the other.
    asked_us: u64,
    answered_us: u64,
    /// How long the denial certainly holds, from when it was asked.
    hold_us: u64,
}

/// An operation, as far as decisions depend on it.
struct Part {
    key: Key,
    rate: Rate,
    cost: u32,
    attributes: Attributes,
}

/// A batch that Redis is being asked about. Unless it turns out to be [denied](Ticket::denied),
/// even if nobody waits for the answer any more, its keys count as changed.
pub(super) struct Ticket<'a> {
    denials: &'a Denials,
    batch: &'a Batch<'a>,
    changes: SmallVec<[u32; 3]>,
    asked_us: u64,
    settled: bool,
}

impl Denials {
    /// After this long Redis is asked again, whatever the wait.
    const LONGEST: Duration = Duration::from_secs(1);

    /// How often at most a shard is looked through for room: that takes longer than many hits.
    const SWEEP_US: u64 = 100_000;

    const SHARDS: usize = 16;

    /// So many that at a hundred thousand admissions a second a group changes about once in it.
    const GROUPS: usize = 1 << 16;

    /// Remembers up to `max` batches; none if it is zero.
    pub(super) fn new(max: usize) -> Denials {
        let (shards, groups) = match max {
            0 => (0, 0),
            _ => (Self::SHARDS, Self::GROUPS),
        };
        Denials {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            changes: (0..groups).map(|_| AtomicU32::new(0)).collect(),
            max_per_shard: max.div_ceil(Self::SHARDS),
        }
    }

    /// What Redis would decide, if it is certain to deny. `stopwatch` is in µs.
    ///
    /// When exactly Redis read its clock is not known, only that it did between question and answer.
    /// So what is told is that the denial began with the answer, and the wait is too short in no
    /// case. It is too long by less than the answer took, and Redis is asked again when there may be
    /// less left than that.
    pub(super) fn answer(
        &self,
        batch: &Batch<'_>,
        stopwatch: impl Fn() -> u64,
    ) -> Option<Decisions> {
        if batch.ops().iter().any(|op| op.strategy.is_correction()) {
            return None;
        }
        let first = batch.ops().first()?.key;
        let mut shard = self.shard_of(&first)?;
        let denial = shard.denials.get(&first)?;
        // None if an injected clock has stepped back.
        let us = stopwatch();
        if us.checked_sub(denial.asked_us)? >= denial.hold_us {
            shard.denials.remove(&first);
            return None;
        }
        let elapsed_us = us.saturating_sub(denial.answered_us);
        if !denial.is_of(batch) || denial.changes != self.changes_of(batch.ops()) {
            return None;
        }
        let (mut cells, now) = (denial.cells.clone(), denial.now.plus_micros(elapsed_us));
        drop(shard);
        Some(batch.decide(&mut cells, now)).filter(Decisions::is_denied)
    }

    /// To be drawn before Redis is asked; `None` if nothing is to be remembered.
    pub(super) fn ticket<'a>(
        &'a self,
        batch: &'a Batch<'a>,
        stopwatch: impl Fn() -> u64,
    ) -> Option<Ticket<'a>> {
        (!self.shards.is_empty()).then(|| Ticket {
            denials: self,
            batch,
            changes: self.changes_of(batch.ops()),
            asked_us: stopwatch(),
            settled: false,
        })
    }

    /// Forgets everything, and what is being asked right now.
    pub(super) fn clear(&self) {
        for group in &self.changes {
            group.fetch_add(1, Ordering::AcqRel);
        }
        for shard in &self.shards {
            lock(shard).denials.clear();
        }
    }

    /// The cells of these keys may have changed.
    pub(super) fn changed<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) {
        if !self.changes.is_empty() {
            for key in keys {
                self.group_of(key).fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    fn changes_of(&self, ops: &[Op<'_>]) -> SmallVec<[u32; 3]> {
        let changes = |op: &Op<'_>| self.group_of(&op.key).load(Ordering::Acquire);
        ops.iter().map(changes).collect()
    }

    fn group_of(&self, key: &Key) -> &AtomicU32 {
        let [.., a, b] = key.digest().to_le_bytes();
        &self.changes[usize::from(u16::from_le_bytes([a, b])) % Self::GROUPS]
    }

    fn shard_of(&self, key: &Key) -> Option<MutexGuard<'_, Shard>> {
        let [place, ..] = key.digest().to_le_bytes();
        self.shards.get(usize::from(place) % Self::SHARDS).map(lock)
    }
}

impl Ticket<'_> {
    /// Redis denied the batch at `now`, when its cells were these, and has answered.
    pub(super) fn denied(
        mut self,
        decisions: &Decisions,
        cells: impl IntoIterator<Item = Cell>,
        now: Timestamp,
        answered_us: u64,
    ) {
        self.settled = true;
        let cells: SmallVec<[Cell; 3]> = cells.into_iter().collect();
        // Of a long log Redis returns an excerpt, which decides alike now, but later perhaps not
        // what is left beside a hit that does not fit. If that hit costs one, nothing is.
        let excerpts = cells.iter().any(|cell| cell.queue().is_some());
        if excerpts && !matches!(self.batch.ops(), [op] if op.cost == 1) {
            return;
        }
        let hold = decisions.retry_after().unwrap_or(Denials::LONGEST);
        let denial = Denial {
            parts: self.batch.ops().iter().map(Part::of).collect(),
            cells,
            changes: std::mem::take(&mut self.changes),
            now,
            asked_us: self.asked_us,
            answered_us,
            hold_us: micros(hold.min(Denials::LONGEST)),
        };
        let key = denial.parts[0].key;
        if let Some(mut shard) = self.denials.shard_of(&key) {
            shard.insert(key, denial, self.denials.max_per_shard);
        }
    }
}

impl Shard {
    fn insert(&mut self, key: Key, denial: Denial, most: usize) {
        let now_us = denial.answered_us;
        if let Some(known) = self.denials.get_mut(&key) {
            *known = denial;
            return;
        }
        if self.denials.len() >= most && self.sweep.is_due(now_us, Denials::SWEEP_US) {
            let is_good = |one: &Denial| one.asked_us.saturating_add(one.hold_us) > now_us;
            self.denials.retain(|_, one| is_good(one));
        }
        if self.denials.len() < most {
            self.denials.insert(key, denial);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.denials
                .changed(self.batch.ops().iter().map(|op| &op.key));
        }
    }
}

impl Denial {
    fn is_of(&self, batch: &Batch<'_>) -> bool {
        let same = |(part, op): (&Part, &Op<'_>)| {
            (part.key, part.rate, part.cost) == (op.key, op.rate, op.cost)
                && part.attributes == *op.attributes
        };
        self.parts.len() == batch.ops().len() && self.parts.iter().zip(batch.ops()).all(same)
    }
}

impl Part {
    fn of(op: &Op<'_>) -> Part {
        Part {
            key: op.key,
            rate: op.rate,
            cost: op.cost,
            attributes: op.attributes.clone(),
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // A map is consistent between calls.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Denials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denials").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each denial of somebody else looked through all that there were.
    #[test]
    fn denials_that_all_hold_were_looked_through_by_each_hit() {
        let denial = |asked_us| Denial {
            parts: SmallVec::new(),
            cells: SmallVec::new(),
            changes: SmallVec::new(),
            now: Timestamp::EPOCH,
            asked_us,
            answered_us: asked_us,
            hold_us: 1_000_000,
        };
        let key = |who| Key {
            throttle: 1,
            scope: 0,
            who,
        };
        let (start, sweep) = (5_000_000, Denials::SWEEP_US);
        let mut shard = Shard::default();
        for who in 0..500 {
            shard.insert(key(who), denial(start), 100);
            shard.insert(key(500 + who), denial(start + sweep - 1), 100);
        }
        assert_eq!((shard.denials.len(), shard.sweep.last_us), (100, start));
        // Who is known needs no room.
        shard.insert(key(7), denial(start + 1_000_000), 100);
        assert_eq!(shard.sweep.last_us, start);
        shard.insert(key(2_000), denial(start + 1_500_000), 100);
        assert_eq!(shard.denials.len(), 2);
    }
}
