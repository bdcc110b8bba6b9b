//! Cells as bytes, for stores that keep bytes.
//!
//! One byte of version and shape, then expiry and words, and if there is a queue, how many of the
//! pairs that follow have been popped, and the pairs. All numbers have eight bytes, most
//! significant first. Popped pairs are for stores that change a queue in place. Not text: Redis spends a fifth
//! less on a decision when its script can unpack numbers instead of parsing and printing them.

use super::{Cell, Queue};
use crate::time::Timestamp;

/// Changes with the format: cells of other versions decide like fresh ones.
const VERSION: u8 = 0x10;

/// Set if the cell has a queue; below are the bits of the number of words.
const QUEUE: u8 = 0x08;

impl Cell {
    /// The cell as bytes, for [`Cell::decode`].
    ///
    /// ```
    /// use traffik_core::{Cell, Timestamp};
    ///
    /// let mut cell = Cell::fresh();
    /// cell.set(&[1_704_067_200_000_000, 3], Timestamp::from_micros(1_704_067_260_000_000));
    /// assert_eq!(cell.encode().len(), 25);
    /// assert_eq!(Cell::decode(&cell.encode()), cell);
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        let pairs = self.queue().map_or(0, |queue| queue.items().len());
        let mut bytes = Vec::with_capacity(17 + 8 * self.words().len() + 16 * pairs);
        self.encode_with(|piece| bytes.extend_from_slice(piece));
        bytes
    }

    /// The same, piece by piece.
    pub(crate) fn encode_with(&self, mut put: impl FnMut(&[u8])) {
        let (words, queue) = (self.words(), self.queue());
        let pairs = queue.map_or(&[][..], Queue::items);
        // There are six words at most.
        let shape = words.len().to_le_bytes()[0] | if queue.is_some() { QUEUE } else { 0 };
        put(&[VERSION | shape]);
        let expires = self.expires().as_micros().min(Self::WORD_LIMIT - 1);
        let popped = queue.map(|_| &0);
        let words = [&expires].into_iter().chain(words).chain(popped);
        for word in words.chain(pairs.as_flattened()) {
            put(&word.to_be_bytes());
        }
    }

    /// What [`Cell::encode`] made bytes of. Anything else is a fresh cell: a store that was
    /// written to by somebody else, or by another version, forgets a limit, but breaks no request.
    pub fn decode(bytes: &[u8]) -> Cell {
        parse(bytes).unwrap_or_default()
    }
}

fn parse(bytes: &[u8]) -> Option<Cell> {
    let (head, body) = bytes.split_first()?;
    let count = usize::from(head & (QUEUE - 1));
    let (body, []) = body.as_chunks::<8>() else {
        return None;
    };
    if head & !(2 * QUEUE - 1) != VERSION || count > Cell::MAX_WORDS || body.len() <= count {
        return None;
    }
    let (words, queue) = body.split_at(count + 1);
    let mut all = [0; Cell::MAX_WORDS + 1];
    for (slot, bytes) in all.iter_mut().zip(words) {
        *slot = word(*bytes)?;
    }
    let mut cell = Cell::fresh();
    cell.set(&all[1..=count], Timestamp::from_micros(all[0]));
    if head & QUEUE == 0 {
        return queue.is_empty().then_some(cell);
    }
    let (popped, pairs) = queue.split_first()?;
    let (pairs, []) = pairs.as_chunks::<2>() else {
        return None;
    };
    let popped = usize::try_from(word(*popped)?).ok()?;
    let queue = cell.queue_mut();
    for [first, second] in pairs.get(popped..)? {
        queue.push([word(*first)?, word(*second)?]);
    }
    Some(cell)
}

fn word(bytes: [u8; 8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes)).filter(|word| *word < Cell::WORD_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_comes_back() {
        for words in [
            &[][..],
            &[0],
            &[1, 2, 3, 4, 5, 6],
            &[Cell::WORD_LIMIT - 1, 0],
        ] {
            let mut cell = Cell::fresh();
            cell.set(words, Timestamp::from_micros(Cell::WORD_LIMIT - 1));
            assert_eq!(Cell::decode(&cell.encode()), cell);
            cell.queue_mut();
            assert_eq!(Cell::decode(&cell.encode()), cell);
            cell.queue_mut().push([7, 1]);
            cell.queue_mut().push([8, Cell::WORD_LIMIT - 1]);
            assert_eq!(Cell::decode(&cell.encode()), cell);
            cell.queue_mut().pop();
            assert_eq!(Cell::decode(&cell.encode()), cell);
        }
    }

    #[test]
    fn popped_pairs_are_passed_over() {
        let mut cell = Cell::fresh();
        cell.set(&[5], Timestamp::from_micros(9));
        for item in [[1, 2], [3, 4], [5, 6]] {
            cell.queue_mut().push(item);
        }
        let mut bytes = cell.encode();
        bytes[24] = 2;
        cell.queue_mut().pop();
        cell.queue_mut().pop();
        assert_eq!(Cell::decode(&bytes), cell);
        bytes[24] = 4;
        assert!(Cell::decode(&bytes).is_fresh());
    }

    #[test]
    fn whatever_is_no_cell_is_a_fresh_one() {
        let mut cell = Cell::fresh();
        cell.set(&[1, 2], Timestamp::from_micros(9));
        let bytes = cell.encode();
        for cut in 0..bytes.len() {
            assert!(Cell::decode(&bytes[..cut]).is_fresh(), "{cut}");
        }
        for (at, value) in [
            (0, 0x11),
            (0, 0x13),
            (0, 0x17),
            (0, 0x22),
            (1, 0x20),
            (9, 0x20),
        ] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            assert!(Cell::decode(&damaged).is_fresh(), "{at}");
        }
        cell.queue_mut().push([6, 7]);
        let bytes = cell.encode();
        assert!(Cell::decode(&bytes[..bytes.len() - 8]).is_fresh());
        assert!(Cell::decode(b"OK").is_fresh());
    }
}
