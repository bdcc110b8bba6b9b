//! The state of one key: a few words, and for some strategies a queue.

mod codec;

use std::fmt;
use std::num::NonZeroU64;

use crate::time::Timestamp;

/// What a strategy remembers about one key.
///
/// A cell is up to [six](Cell::MAX_WORDS) unsigned words whose meaning only its strategy knows, an optional
/// [`Queue`], and the instant from which it is worth nothing. **Absent equals fresh**: a cell that
/// has expired decides exactly like one that never existed, so backends may drop it at any time
/// after that.
///
/// Every word must stay below 2^53 ([`Cell::WORD_LIMIT`]), so that Lua's doubles hold it.
#[derive(Clone, Default)]
pub struct Cell(Shape);

/// One or two words take 24 bytes in place, so that a table of them is dense and a step works on
/// the table itself. Whatever is larger is one allocation per key.
#[derive(Clone)]
enum Shape {
    Small {
        words: [u64; 2],
        tag: Tag,
    },
    /// `None` is fresh.
    Large(Option<Box<Large>>),
}

const _: () = assert!(size_of::<Cell>() == 24);

#[derive(Clone, Debug, Default)]
struct Large {
    words: Words,
    queue: Option<Queue>,
    expires: Timestamp,
    /// What [`Cell::recount`] said last.
    counted: usize,
}

/// What allocators use for themselves.
const PER_ALLOCATION: usize = 8;

impl Cell {
    /// A cell has at most this many words; more belong into its queue.
    pub const MAX_WORDS: usize = 6;

    /// Words are smaller than this: 2^53.
    pub const WORD_LIMIT: u64 = 1 << 53;

    /// A cell that nobody has written yet.
    pub fn fresh() -> Cell {
        Cell::FRESH
    }

    pub(crate) const FRESH: Cell = Cell(Shape::Large(None));

    /// Whether nobody has written this cell.
    pub fn is_fresh(&self) -> bool {
        self.words().is_empty() && self.queue().is_none()
    }

    /// The words; none if the cell is fresh.
    #[inline]
    pub fn words(&self) -> &[u64] {
        match &self.0 {
            Shape::Small { words, tag } => match tag.len() {
                0 => &[],
                1 => &words[..1],
                _ => words,
            },
            Shape::Large(None) => &[],
            Shape::Large(Some(large)) => large.words.as_slice(),
        }
    }

    /// Replaces the words and sets when the cell becomes as good as fresh. Allocates nothing but
    /// when the words become more than two.
    ///
    /// # Panics
    ///
    /// If there are more than [`Cell::MAX_WORDS`].
    #[inline]
    pub fn set(&mut self, words: &[u64], expires: Timestamp) {
        debug_assert!(words.iter().all(|word| *word < Self::WORD_LIMIT));
        let small = match *words {
            [first, second] => [first, second],
            [word] => [word, 0],
            [] => [0, 0],
            _ => return self.large().set(words, expires),
        };
        match &mut self.0 {
            Shape::Large(Some(large)) => large.set(words, expires),
            shape => {
                *shape = Shape::Small {
                    words: small,
                    tag: Tag::new(words.len(), expires),
                }
            }
        }
    }

    /// From this instant on the cell decides like a fresh one.
    #[inline]
    pub fn expires(&self) -> Timestamp {
        match &self.0 {
            Shape::Small { tag, .. } => tag.expires(),
            Shape::Large(None) => Timestamp::EPOCH,
            Shape::Large(Some(large)) => large.expires,
        }
    }

    /// Whether the cell is worth nothing at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires() <= now
    }

    /// The queue, if the strategy keeps one.
    pub fn queue(&self) -> Option<&Queue> {
        match &self.0 {
            Shape::Large(Some(large)) => large.queue.as_ref(),
            Shape::Small { .. } | Shape::Large(None) => None,
        }
    }

    /// The queue, made on first use.
    pub fn queue_mut(&mut self) -> &mut Queue {
        self.large().queue.get_or_insert_default()
    }

    /// Remembers the present state, to [rewind](Cell::rewind) to. Costs no copy of the queue.
    pub fn mark(&self) -> Mark {
        Mark {
            words: Words::from(self.words()),
            expires: self.expires(),
            queue: self.queue().map(|queue| QueueMark {
                head: queue.head,
                len: queue.items.len(),
                last: queue.items.last().copied(),
            }),
        }
    }

    /// Undoes every change since `mark`. The cell must not have been [compacted](Cell::compact)
    /// since.
    pub fn rewind(&mut self, mark: Mark) {
        self.set(mark.words.as_slice(), mark.expires);
        let Shape::Large(Some(large)) = &mut self.0 else {
            return;
        };
        match (mark.queue, &mut large.queue) {
            (Some(mark), Some(queue)) => {
                queue.head = mark.head;
                queue.items.truncate(mark.len);
                if let (Some(last), Some(before)) = (queue.items.last_mut(), mark.last) {
                    *last = before;
                }
            }
            _ => large.queue = None,
        }
    }

    /// Frees the space of what was popped from the queue; backends call it when they keep a cell.
    #[inline]
    pub fn compact(&mut self) {
        if let Shape::Large(Some(large)) = &mut self.0
            && let Some(queue) = &mut large.queue
        {
            queue.compact();
        }
    }

    /// Frees the space that its queue has ready for more.
    pub(crate) fn tighten(&mut self) {
        if let Shape::Large(Some(large)) = &mut self.0
            && let Some(queue) = &mut large.queue
        {
            queue.items.drain(..queue.head);
            queue.head = 0;
            queue.items.shrink_to(Queue::FEW);
        }
    }

    /// Whether something is allocated for this cell.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        matches!(self.0, Shape::Large(Some(_)))
    }

    /// How many bytes are allocated for this cell, a queue counted as if it had a few entries at
    /// least.
    pub(crate) fn recount(&mut self) -> usize {
        let now = self.allocated();
        if let Shape::Large(Some(large)) = &mut self.0 {
            large.counted = now;
        }
        now
    }

    /// How many bytes were counted last. A cell that was replaced since, as a strategy may, does not know.
    #[inline]
    pub(crate) fn counted(&self) -> usize {
        match &self.0 {
            Shape::Large(Some(large)) => large.counted,
            Shape::Large(None) | Shape::Small { .. } => 0,
        }
    }

    /// How many were counted; none are from now on.
    pub(crate) fn uncount(&mut self) -> usize {
        match &mut self.0 {
            Shape::Large(Some(large)) => std::mem::take(&mut large.counted),
            Shape::Large(None) | Shape::Small { .. } => 0,
        }
    }

    /// How many bytes [`recount`](Cell::recount) would find.
    pub(crate) fn allocated(&self) -> usize {
        let Shape::Large(Some(large)) = &self.0 else {
            return 0;
        };
        let queue = large.queue.as_ref().map_or(0, Queue::allocated);
        size_of::<Large>() + PER_ALLOCATION + queue
    }

    /// What the least cell with a queue counts.
    pub(crate) const LEAST_WITH_QUEUE: usize =
        size_of::<Large>() + PER_ALLOCATION + Queue::LEAST_ALLOCATED;

    /// The same cell, in the shape that has room for everything.
    fn large(&mut self) -> &mut Large {
        if let Shape::Small { words, tag } = &self.0 {
            self.0 = Shape::Large(Some(Box::new(Large {
                words: Words::from(&words[..tag.len()]),
                expires: tag.expires(),
                ..Large::default()
            })));
        }
        match &mut self.0 {
            Shape::Large(large) => large.get_or_insert_default(),
            Shape::Small { .. } => unreachable!("it was made large above"),
        }
    }
}

/// Whatever the shape.
impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        self.words() == other.words()
            && self.queue() == other.queue()
            && self.expires() == other.expires()
    }
}

impl Eq for Cell {}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell")
            .field("words", &self.words())
            .field("queue", &self.queue())
            .field("expires", &self.expires())
            .finish()
    }
}

impl Default for Shape {
    fn default() -> Self {
        Shape::Large(None)
    }
}

impl Large {
    fn set(&mut self, words: &[u64], expires: Timestamp) {
        self.words = Words::from(words);
        self.expires = expires;
    }
}

/// Expiry and number of words of a small cell in one word, which is never zero: there the compiler
/// finds room to tell the shapes apart.
#[derive(Clone, Copy)]
struct Tag(NonZeroU64);

impl Tag {
    #[inline]
    fn new(len: usize, expires: Timestamp) -> Tag {
        // Three bits of the instant are lost, which mean nothing in the next 73,000 years; what
        // was saturated remains later than that.
        Tag(NonZeroU64::MIN | (expires.as_micros() << 3) | (len as u64) << 1)
    }

    #[inline]
    fn len(self) -> usize {
        (self.0.get() >> 1) as usize & 3
    }

    #[inline]
    fn expires(self) -> Timestamp {
        Timestamp::from_micros(self.0.get() >> 3)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Words {
    len: usize,
    /// Zero from `len` on.
    all: [u64; Cell::MAX_WORDS],
}

impl Words {
    fn as_slice(&self) -> &[u64] {
        &self.all[..self.len]
    }
}

impl From<&[u64]> for Words {
    fn from(words: &[u64]) -> Self {
        let mut all = [0; Cell::MAX_WORDS];
        all[..words.len()].copy_from_slice(words);
        Words {
            len: words.len(),
            all,
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

    /// Keeps the pairs for which `keep` is true, given one and the one after it, and frees the space
    /// of the others.
    pub(crate) fn thin(&mut self, mut keep: impl FnMut([u64; 2], Option<[u64; 2]>) -> bool) {
        self.items.drain(..self.head);
        self.head = 0;
        let mut kept = 0;
        for at in 0..self.items.len() {
            let item = self.items[at];
            if keep(item, self.items.get(at + 1).copied()) {
                self.items[kept] = item;
                kept += 1;
            }
        }
        self.items.truncate(kept);
        self.items
            .shrink_to(kept.next_power_of_two().max(Self::FEW));
    }

    /// With so many entries a queue is as small as it becomes.
    pub(crate) const FEW: usize = 8;

    const LEAST_ALLOCATED: usize = Self::FEW * size_of::<[u64; 2]>() + PER_ALLOCATION;

    fn allocated(&self) -> usize {
        let entries = self.items.capacity().max(Self::FEW);
        entries * size_of::<[u64; 2]>() + PER_ALLOCATION
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
