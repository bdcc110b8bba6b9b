//! What the script answers.

use redis::Value;
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
    /// A cell to swap was no longer what it had been.
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
    pub(super) fn parse(reply: Value, era: u64) -> Result<Answers> {
        let Value::BulkString(reply) = reply else {
            return Err(nonsense());
        };
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
        let cells: Option<_> = (0..operations).map(|_| self.cell()).collect();
        Some(Answer {
            now: self.now,
            outcome,
            cells: cells?,
            era: self.era,
        })
    }

    fn cell(&mut self) -> Option<Bytes> {
        let length = usize::try_from(u32::from_be_bytes(self.take()?)).ok()?;
        let cell = self.reply.get(self.read..)?.get(..length)?;
        self.read += length;
        Some(cell.into())
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
    let reply = redis::parse_redis_value(wire).and_then(Value::extract_error);
    let reply = reply.map_err(|error| nonsense().with_source(error))?;
    let mut answers = Answers::parse(reply, 0)?;
    let read = batches.iter().map(|operations| {
        let answer = answers.next(*operations)?;
        Ok((answer.now, answer.decoded().into_vec()))
    });
    read.collect()
}

fn nonsense() -> Error {
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
            Answers::parse(Value::BulkString(reply), 0)
        };
        assert!(of(LATEST - 1).is_ok());
        for now in [LATEST, Cell::WORD_LIMIT, u64::MAX] {
            let error = of(now).unwrap_err().to_string();
            assert_eq!(error, "redis answered a decision with something else");
        }
    }
}
