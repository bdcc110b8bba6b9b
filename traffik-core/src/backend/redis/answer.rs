//! What the script answers.

use smallvec::SmallVec;

use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// What became of one batch.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) now: Timestamp,
    pub(super) outcome: Outcome,
    /// The cells as they were before, encoded.
    pub(super) cells: SmallVec<[Bytes; 3]>,
    /// Of the [links](super::link::Links) when this was asked.
    pub(super) era: u64,
}

/// Times are below this, 2^52 µs, in 2112: cells hold instants that are up to as much later
/// ([`Span::MAX`](crate::span::Span::MAX)), and what no word of a cell holds would be forgotten.
const LATEST: u64 = Cell::WORD_LIMIT / 2;

/// A cell of two words has 25 bytes.
type Bytes = SmallVec<[u8; 32]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Admitted,
    Denied,
    /// A cell to swap was no longer what it had been; or a step was asked about a time that it was told
    /// nothing about.
    Raced,
}

/// What became of all batches of a command.
#[derive(Debug)]
pub(super) struct Answers {
    now: Timestamp,
    /// How many cells Redis had lost.
    pub(super) losses: u64,
    era: u64,
    reply: Vec<u8>,
    /// How much of it has been read.
    read: usize,
}

impl Answers {
    /// A reply to what was asked in this era.
    pub(super) fn parse(reply: Vec<u8>, era: u64) -> Result<Answers> {
        let mut answers = Answers {
            now: Timestamp::EPOCH,
            losses: 0,
            era,
            reply,
            read: 0,
        };
        let head = answers.take().zip(answers.take()).ok_or_else(nonsense)?;
        let (now, losses) = head;
        let now = Some(u64::from_be_bytes(now)).filter(|now| *now < LATEST);
        answers.now = Timestamp::from_micros(now.ok_or_else(nonsense)?);
        answers.losses = u64::from_be_bytes(losses);
        Ok(answers)
    }

    /// The buffer of the reply.
    pub(super) fn into_reply(self) -> Vec<u8> {
        self.reply
    }

    /// What became of the next batch, which is of so many operations.
    pub(super) fn next(&mut self, operations: usize) -> Result<Answer> {
        self.try_next(operations).ok_or_else(nonsense)
    }

    fn try_next(&mut self, operations: usize) -> Option<Answer> {
        let outcome = match self.take()? {
            [0] => Outcome::Denied,
            [1] => Outcome::Admitted,
            [2] => Outcome::Raced,
            _ => return None,
        };
        let mut cells = SmallVec::new();
        for _ in 0..operations {
            cells.push(self.cell()?);
        }
        Some(Answer {
            now: self.now,
            outcome,
            cells,
            era: self.era,
        })
    }

    fn cell(&mut self) -> Option<Bytes> {
        let length = usize::try_from(u32::from_be_bytes(self.take()?)).ok()?;
        let cell = self.reply.get(self.read..)?.get(..length)?;
        self.read += length;
        Some(Bytes::from_slice(cell))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.reply.get(self.read..)?.first_chunk()?;
        self.read += N;
        Some(*bytes)
    }
}

impl Answer {
    pub(super) fn decoded(&self) -> SmallVec<[Cell; 3]> {
        self.cells.iter().map(|bytes| Cell::decode(bytes)).collect()
    }
}

/// The times and cells of batches of so many operations, from the bytes of a reply.
#[cfg(feature = "testing")]
pub(crate) fn read_wire(wire: &[u8], batches: &[usize]) -> Result<Vec<(Timestamp, Vec<Cell>)>> {
    use redis::{Value, parse_redis_value};

    use super::resp;

    let of_the_client = parse_redis_value(wire).and_then(Value::extract_error);
    let ours = resp::length(wire).ok().flatten();
    let ours = ours.and_then(|length| resp::text(&wire[..length]));
    if let Some(text) = ours {
        assert_eq!(of_the_client, Ok(Value::BulkString(text.to_vec())));
    }
    let Value::BulkString(reply) = of_the_client.map_err(|error| nonsense().with_source(error))?
    else {
        return Err(nonsense());
    };
    let mut answers = Answers::parse(reply, 0)?;
    let read = batches.iter().map(|operations| {
        let answer = answers.next(*operations)?;
        Ok((answer.now, answer.decoded().into_vec()))
    });
    read.collect()
}

pub(super) fn nonsense() -> Error {
    Error::other("redis answered a decision with something else")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by `fuzz/`: words of 2^53 and more are stored, and read as a fresh cell.
    #[test]
    fn a_time_that_leaves_no_room_for_a_wait_is_no_answer() {
        let of = |now: u64| {
            let reply = [now.to_be_bytes(), [0; 8]].concat();
            Answers::parse(reply, 0)
        };
        assert!(of(LATEST - 1).is_ok());
        for now in [LATEST, Cell::WORD_LIMIT, u64::MAX] {
            let error = of(now).unwrap_err().to_string();
            assert_eq!(error, "redis answered a decision with something else");
        }
    }
}
