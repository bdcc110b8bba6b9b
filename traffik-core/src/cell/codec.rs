//! Cells as text, for stores that keep bytes.
//!
//! `1;expiry;words;pairs` in decimal, where `1` is the version, words and the numbers of the pairs
//! are separated by spaces, and the last part is missing unless the strategy keeps a queue. A text
//! that Lua splits with `%d+`, that a person can read in a console, and that every store holds.

use std::fmt::Write;

use super::{Cell, Queue};
use crate::time::Timestamp;

/// Changes with the format: cells of other versions decide like fresh ones.
const VERSION: &str = "1";

impl Cell {
    /// The cell as printable ASCII, for [`Cell::decode`].
    ///
    /// ```
    /// use traffik_core::{Cell, Timestamp};
    ///
    /// let mut cell = Cell::fresh();
    /// cell.set(&[1_704_067_200_000_000, 3], Timestamp::from_micros(1_704_067_260_000_000));
    /// assert_eq!(cell.encode(), "1;1704067260000000;1704067200000000 3");
    /// assert_eq!(Cell::decode(cell.encode().as_bytes()), cell);
    /// ```
    pub fn encode(&self) -> String {
        let pairs = self.queue().map_or(&[][..], Queue::items);
        let mut text = String::with_capacity(56 + 40 * pairs.len());
        let _ = write!(text, "{VERSION};{};", self.expires.as_micros());
        append(&mut text, self.words());
        if self.queue.is_some() {
            text.push(';');
            append(&mut text, pairs.as_flattened());
        }
        text
    }

    /// What [`Cell::encode`] made a text of. Anything else is a fresh cell: a store that was written
    /// to by somebody else, or by another version, forgets a limit, but breaks no request.
    pub fn decode(text: &[u8]) -> Cell {
        parse(text).unwrap_or_default()
    }
}

fn append(text: &mut String, words: &[u64]) {
    for (at, word) in words.iter().enumerate() {
        let _ = match at {
            0 => write!(text, "{word}"),
            _ => write!(text, " {word}"),
        };
    }
}

fn parse(text: &[u8]) -> Option<Cell> {
    let mut parts = std::str::from_utf8(text).ok()?.split(';');
    if parts.next()? != VERSION {
        return None;
    }
    let expires = Timestamp::from_micros(word(parts.next()?)?);
    let words = words(parts.next()?)?;
    let pairs = match parts.next() {
        Some(part) => Some(self::words(part)?),
        None => None,
    };
    if words.len() > Cell::MAX_WORDS || parts.next().is_some() {
        return None;
    }
    let mut cell = Cell::fresh();
    cell.set(&words, expires);
    if let Some(pairs) = pairs {
        let (pairs, []) = pairs.as_chunks::<2>() else {
            return None;
        };
        let queue = cell.queue_mut();
        pairs.iter().for_each(|pair| queue.push(*pair));
    }
    Some(cell)
}

fn words(part: &str) -> Option<Vec<u64>> {
    match part {
        "" => Some(Vec::new()),
        _ => part.split(' ').map(word).collect(),
    }
}

fn word(text: &str) -> Option<u64> {
    // `parse` takes a sign; we never write one.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|word| *word < Cell::WORD_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells() -> Vec<Cell> {
        let mut all = vec![Cell::fresh()];
        for words in [
            &[][..],
            &[0],
            &[1, 2, 3, 4, 5, 6],
            &[Cell::WORD_LIMIT - 1, 0],
        ] {
            let mut cell = Cell::fresh();
            cell.set(words, Timestamp::from_micros(Cell::WORD_LIMIT - 1));
            all.push(cell.clone());
            cell.queue_mut();
            all.push(cell.clone());
            cell.queue_mut().push([7, 1]);
            cell.queue_mut().push([8, Cell::WORD_LIMIT - 1]);
            all.push(cell.clone());
            cell.queue_mut().pop();
            all.push(cell);
        }
        all
    }

    #[test]
    fn every_cell_comes_back() {
        for cell in cells() {
            let text = cell.encode();
            assert!(
                text.bytes().all(|byte| matches!(byte, b' '..=b'~')),
                "{text}"
            );
            assert_eq!(Cell::decode(text.as_bytes()), cell, "{text}");
        }
    }

    #[test]
    fn whatever_is_no_cell_is_a_fresh_one() {
        for text in [
            "",
            "5",
            "1",
            "1;",
            "1;5",
            "2;5;1",
            "1;;1",
            "1;5;-1",
            "1;5;+1",
            "1;5;1  2",
            "1;5;1 2 3 4 5 6 7",
            "1;5;9007199254740992",
            "1;5;99999999999999999999999",
            "1;5;1;1 2 3",
            "1;5;1;1 2;",
            "1;5;x",
            "1;5;\u{661}",
            "{\"tat\": 5}",
        ] {
            assert_eq!(Cell::decode(text.as_bytes()), Cell::fresh(), "{text}");
        }
        assert_eq!(Cell::decode(&[0xff, b';']), Cell::fresh());
    }
}
