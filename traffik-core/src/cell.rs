//! The state of one key: a few words, and for some strategies a queue.

mod codec;

use std::fmt;

use crate::time::Timestamp;

/// What a strategy remembers about one key.
///
/// A cell is up to [six](Cell::MAX_WORDS) unsigned words whose meaning only its strategy knows, an optional
/// [`Queue`], and the instant from which it is worth nothing. **Absent equals fresh**: a cell that
/// has expired decides exactly like one that never existed, so backends may drop it at any time
/// after that.
///
/// Every word must stay below 2^53 ([`Cell::WORD_LIMIT`]), so that Lua's doubles hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    words: Words,
    queue: Option<Box<Queue>>,
    expires: Timestamp,
}

/// Not a `SmallVec`: its copies through `memcpy` took a third of a decision.
#[derive(Clone, Copy, Default)]
struct Words {
    len: usize,
    /// Anything from `len` on.
    all: [u64; Cell::MAX_WORDS],
}

impl std::ops::Deref for Words {
    type Target = [u64];

    #[inline]
    fn deref(&self) -> &[u64] {
        &self.all[..self.len]
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl PartialEq for Words {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Words {}

impl Cell {
    /// A cell has at most this many words; more belong into its queue.
    pub const MAX_WORDS: usize = 6;

    /// Words are smaller than this: 2^53.
    pub const WORD_LIMIT: u64 = 1 << 53;

    /// A cell that nobody has written yet.
    pub fn fresh() -> Cell {
        Cell::default()
    }

    /// Whether nobody has written this cell.
    pub fn is_fresh(&self) -> bool {
        self.words.len == 0 && self.queue.is_none()
    }

    /// The words; none if the cell is fresh.
    #[inline]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Replaces the words and sets when the cell becomes as good as fresh. Allocates nothing.
    ///
    /// # Panics
    ///
    /// If there are more than [`Cell::MAX_WORDS`].
    #[inline]
    pub fn set(&mut self, words: &[u64], expires: Timestamp) {
        debug_assert!(words.iter().all(|word| *word < Self::WORD_LIMIT));
        self.words.all[..words.len()].copy_from_slice(words);
        self.words.len = words.len();
        self.expires = expires;
    }

    /// From this instant on the cell decides like a fresh one.
    #[inline]
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Whether the cell is worth nothing at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires <= now
    }

    /// The queue, if the strategy keeps one.
    pub fn queue(&self) -> Option<&Queue> {
        self.queue.as_deref()
    }

    /// The queue, made on first use.
    pub fn queue_mut(&mut self) -> &mut Queue {
        self.queue.get_or_insert_default()
    }

    /// Remembers the present state, to [rewind](Cell::rewind) to. Costs no copy of the queue.
    pub fn mark(&self) -> Mark {
        Mark {
            words: self.words,
            expires: self.expires,
            queue: self.queue.as_ref().map(|queue| QueueMark {
                head: queue.head,
                len: queue.items.len(),
                last: queue.items.last().copied(),
            }),
        }
    }

    /// Undoes every change since `mark`. The cell must not have been [compacted](Cell::compact)
    /// since.
    pub fn rewind(&mut self, mark: Mark) {
        self.words = mark.words;
        self.expires = mark.expires;
        match (mark.queue, &mut self.queue) {
            (Some(mark), Some(queue)) => {
                queue.head = mark.head;
                queue.items.truncate(mark.len);
                if let (Some(last), Some(before)) = (queue.items.last_mut(), mark.last) {
                    *last = before;
                }
            }
            _ => self.queue = None,
        }
    }

    /// Frees the space of what was popped from the queue; backends call it when they keep a cell.
    pub fn compact(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.compact();
        }
    }
}

/// A state of a [`Cell`] to return to.
#[derive(Debug)]
pub struct Mark {
    words: Words,
    expires: Timestamp,
    queue: Option<QueueMark>,
}

#[derive(Debug)]
struct QueueMark {
    head: usize,
    len: usize,
    last: Option<[u64; 2]>,
}

/// Pairs of words, oldest first: what a sliding log remembers. Pushing and popping take constant
/// time on average.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    items: Vec<[u64; 2]>,
    /// Items before this one have been popped.
    head: usize,
}

impl Queue {
    /// The pairs, oldest first.
    pub fn items(&self) -> &[[u64; 2]] {
        &self.items[self.head..]
    }

    /// Adds the newest pair.
    pub fn push(&mut self, item: [u64; 2]) {
        self.items.push(item);
    }

    /// Changes the newest pair, or adds it if there is none.
    pub fn replace_last(&mut self, item: [u64; 2]) {
        if self.head == self.items.len() {
            self.items.push(item);
        } else if let Some(last) = self.items.last_mut() {
            *last = item;
        }
    }

    /// Removes and returns the oldest pair.
    pub fn pop(&mut self) -> Option<[u64; 2]> {
        let item = self.items().first().copied()?;
        self.head += 1;
        Some(item)
    }

    fn compact(&mut self) {
        if self.head > self.items.len() / 2 {
            self.items.drain(..self.head);
            self.head = 0;
        }
        if self.items.len() < self.items.capacity() / 4 {
            self.items.shrink_to(self.items.len() * 2);
        }
    }
}

impl PartialEq for Queue {
    fn eq(&self, other: &Self) -> bool {
        self.items() == other.items()
    }
}

impl Eq for Queue {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewinding_undoes_words_and_queue() {
        let mut cell = Cell::fresh();
        let fresh = cell.mark();
        cell.set(&[1, 2], Timestamp::from_micros(9));
        cell.queue_mut().push([1, 1]);
        cell.queue_mut().push([2, 1]);
        let before = cell.clone();

        let mark = cell.mark();
        cell.set(&[7], Timestamp::from_micros(11));
        assert_eq!(cell.queue_mut().pop(), Some([1, 1]));
        cell.queue_mut().replace_last([2, 5]);
        cell.queue_mut().push([3, 1]);
        cell.rewind(mark);
        assert_eq!(cell, before);

        cell.rewind(fresh);
        assert!(cell.is_fresh());
    }

    #[test]
    fn a_queue_keeps_memory_in_proportion_to_what_is_in_it() {
        let mut cell = Cell::fresh();
        for n in 0..10_000 {
            cell.queue_mut().push([n, 1]);
        }
        while cell.queue_mut().pop().is_some() {
            cell.compact();
        }
        assert!(cell.queue_mut().items.capacity() < 8);
    }
}
