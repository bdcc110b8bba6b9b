//! Cells as this process last saw them, by which Redis is healed when it has lost them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use smallvec::SmallVec;

use super::answer::Answer;
use crate::backend::{Batch, Op};
use crate::cell::Cell;
use crate::key::Key;
use crate::time::Timestamp;

/// Remembers the newest cell of each key. It travels with the next hit, and takes effect only if
/// the key is absent though it should not have expired: then Redis has lost it. Or if the key is
/// older than what was seen in an earlier era: since a connection was lost, another server may
/// answer, which had not heard of it; or somebody who remembers less has healed it first.
///
/// A hint tells when it was seen, on the clock that decides, so that those from before the last
/// reset, by whichever process, can be told and are ignored.
pub(super) struct Hints {
    shards: Box<[Mutex<Shard>]>,
    max_per_half: usize,
    losses: AtomicU64,
    /// Whether some of what can be lent comes back.
    returns: AtomicBool,
}

/// When the recent ones become too many, they become the earlier ones, which are forgotten.
#[derive(Default)]
struct Shard {
    recent: HashMap<Key, Hint>,
    earlier: HashMap<Key, Hint>,
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Hint {
    /// As it is sent.
    bytes: SmallVec<[u8; 48]>,
    /// Of the [links](super::link::Links) when it was seen.
    pub(super) era: u64,
    /// Whether some of what can be lent comes back.
    returns: bool,
}

impl Hints {
    const SHARDS: usize = 16;

    /// Remembers up to `max` cells; none if it is zero.
    pub(super) fn new(max: usize) -> Hints {
        let shards = match max {
            0 => 0,
            _ => Self::SHARDS,
        };
        Hints {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            max_per_half: max.div_ceil(2 * Self::SHARDS),
            losses: AtomicU64::new(0),
            returns: AtomicBool::new(false),
        }
    }

    /// What is known about each cell of a batch; empty if nothing is about any.
    pub(super) fn of(&self, batch: &Batch<'_>) -> SmallVec<[Option<Hint>; 3]> {
        let known = batch
            .ops()
            .iter()
            .map(|op| self.shard_of(&op.key)?.get(&op.key).cloned());
        let known: SmallVec<[Option<Hint>; 3]> = known.collect();
        match known.iter().all(Option::is_none) {
            true => SmallVec::new(),
            false => known,
        }
    }

    /// The cells of an answer have become these by its batch. Returns whether one is older than
    /// what was seen of it in this very era, so that a new one should begin.
    pub(super) fn saw(&self, batch: &Batch<'_>, answer: &Answer, cells: &[Cell]) -> bool {
        let (mut is_older, returns) = (false, self.returns.load(Ordering::Relaxed));
        for (at, (op, cell)) in batch.ops().iter().zip(cells).enumerate() {
            let Some(mut shard) = self.shard_of(&op.key) else {
                break;
            };
            // Of a queue only an excerpt is known.
            if cell.is_fresh() || cell.is_expired(answer.now) || cell.queue().is_some() {
                shard.remove(&op.key, answer.now);
                continue;
            }
            let hint = Hint::new(cell, answer.now, answer.era, returns);
            // Where there was no cell, Redis knew better than to restore it: see reset.rs.
            let doubted = !answer.cells[at].is_empty() && hint.grows(op);
            let known = shard.get(&op.key);
            let past = known.filter(|known| doubted && known.is_past(&hint));
            match past.map(|known| known.is_honest(op, answer.now)) {
                Some(true) => is_older = true,
                // What was settled may be less than it was, and so may what was further ahead than
                // it should have been.
                Some(false) => shard.replace(op.key, hint, self.max_per_half),
                None if op.strategy.is_correction() => {
                    shard.replace(op.key, hint, self.max_per_half);
                }
                None => shard.insert(op.key, hint, self.max_per_half),
            }
        }
        is_older
    }

    pub(super) fn expect_returns(&self) {
        self.returns.store(true, Ordering::Relaxed);
    }

    /// Forgets everything but what was lost.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            *lock(shard) = Shard::default();
        }
    }

    pub(super) fn count_losses(&self, losses: u64) {
        self.losses.fetch_add(losses, Ordering::Relaxed);
        crate::observe::state_losses(losses);
    }

    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    fn shard_of(&self, key: &Key) -> Option<MutexGuard<'_, Shard>> {
        let [place, ..] = key.digest().to_le_bytes();
        self.shards.get(usize::from(place) % Self::SHARDS).map(lock)
    }
}

impl Shard {
    fn get(&self, key: &Key) -> Option<&Hint> {
        self.recent.get(key).or_else(|| self.earlier.get(key))
    }

    /// Unless it knows a newer one.
    fn insert(&mut self, key: Key, hint: Hint, max_per_half: usize) {
        if let Some(known) = self.recent.get_mut(&key) {
            if known.seen() <= hint.seen() {
                *known = hint;
            }
        } else if !self.knows_better(&key, hint.seen()) {
            if self.recent.len() >= max_per_half {
                self.earlier = std::mem::take(&mut self.recent);
            }
            self.recent.insert(key, hint);
        }
    }

    /// Whatever it knows.
    fn replace(&mut self, key: Key, hint: Hint, max_per_half: usize) {
        self.recent.remove(&key);
        self.earlier.remove(&key);
        self.insert(key, hint, max_per_half);
    }

    /// Unless it knows a newer one than was seen now.
    fn remove(&mut self, key: &Key, now: Timestamp) {
        if !self.knows_better(key, now) {
            self.recent.remove(key);
            self.earlier.remove(key);
        }
    }

    fn knows_better(&self, key: &Key, than: Timestamp) -> bool {
        self.get(key).is_some_and(|hint| hint.seen() > than)
    }
}

impl Clone for Hint {
    fn clone(&self) -> Hint {
        Hint {
            // A `SmallVec` is cloned byte by byte.
            bytes: SmallVec::from_slice(&self.bytes),
            ..*self
        }
    }
}

impl Hint {
    /// Bytes before the words: eight, and what [`Cell::encode_with`] begins with.
    const SEEN_AND_EXPIRY: usize = 8 + 1 + 8;

    const LONGEST: usize = Self::SEEN_AND_EXPIRY + 8 * Cell::MAX_WORDS;

    fn new(cell: &Cell, seen: Timestamp, era: u64, returns: bool) -> Hint {
        // It has no queue, and six words at most.
        let (mut bytes, mut length) = ([0; Self::LONGEST], 8);
        bytes[..8].copy_from_slice(&seen.as_micros().to_be_bytes());
        cell.encode_with(|piece| {
            bytes[length..][..piece.len()].copy_from_slice(piece);
            length += piece.len();
        });
        Hint {
            bytes: SmallVec::from_slice(&bytes[..length]),
            era,
            returns,
        }
    }

    /// Whether the cell becomes greater with every hit. Where something is lent, some of it comes back:
    /// who does not lease knows that only of cells that tell of what is out.
    pub(super) fn grows(&self, op: &Op<'_>) -> bool {
        let words = (self.bytes.len() - Self::SEEN_AND_EXPIRY) / 8;
        let returns = self.returns || words == Cell::MAX_WORDS;
        op.strategy.grows() && !(returns && op.strategy.lends(&op.rate, 1))
    }

    fn seen(&self) -> Timestamp {
        let seen = self
            .bytes
            .first_chunk()
            .expect("`Hint::new` begins with eight bytes");
        Timestamp::from_micros(u64::from_be_bytes(*seen))
    }

    /// Whether the cell still counts, and is no further ahead than it should be, given the time and
    /// rate of a hit.
    fn is_honest(&self, op: &Op<'_>, now: Timestamp) -> bool {
        let mut cell = Cell::decode(&self.bytes[8..]);
        !cell.is_expired(now) && !op.realign(&mut cell, now)
    }

    /// Whether it was seen earlier, by the same server as far as we know, and is yet further on.
    fn is_past(&self, later: &Hint) -> bool {
        self.era == later.era
            && self.seen() < later.seen()
            && self.bytes.len() == later.bytes.len()
            && self.words() > later.words()
    }

    /// The words of the cell; as many have the same length, and the order of their bytes is theirs.
    fn words(&self) -> &[u8] {
        &self.bytes[Self::SEEN_AND_EXPIRY..]
    }

    /// When it was seen, in eight bytes, and the cell.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // The maps are consistent between calls.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hints")
            .field("losses", &self.losses())
            .finish_non_exhaustive()
    }
}
