//! The one script that decides batches, and what is sent to and comes back from it.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use redis::{Cmd, Value};
use smallvec::SmallVec;

use super::hints::Hint;
use super::reset;
use crate::backend::{Batch, Op};
use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::strategy::{BUILT_IN, IN_PLACE, Lua};
use crate::time::Timestamp;

/// A script with the strategies it knows.
#[derive(Debug)]
pub(super) struct Program {
    text: String,
    sha: String,
    sources: Vec<&'static str>,
}

impl Program {
    /// A script for the strategies of this crate, and others.
    fn with(custom: impl IntoIterator<Item = &'static str>) -> Program {
        let mut sources = IN_PLACE.to_vec();
        sources.extend(BUILT_IN);
        sources.extend(custom);
        let branches = |kinds: std::ops::Range<usize>| -> String {
            kinds
                .map(|kind| format!("elseif kind == '{kind}' then\n{}\n", sources[kind]))
                .collect()
        };
        let text = include_str!("decide.lua")
            .replacen("--{in place}\n", &branches(0..IN_PLACE.len()), 1)
            .replacen(
                "--{strategies}\n",
                &branches(IN_PLACE.len()..sources.len()),
                1,
            );
        let sha = redis::Script::new(&text).get_hash().to_owned();
        Program { text, sha, sources }
    }

    /// The script that everybody needs.
    fn common() -> &'static Arc<Program> {
        static COMMON: LazyLock<Arc<Program>> = LazyLock::new(|| Arc::new(Program::with([])));
        &COMMON
    }

    fn kind(&self, lua: &Lua) -> Option<usize> {
        self.sources
            .iter()
            .position(|source| *source == lua.source())
    }

    fn serves(&self, steps: &[Step<'_>]) -> bool {
        steps.iter().all(|step| match step {
            Step::Lua(lua) => self.kind(lua).is_some(),
            Step::Read | Step::Swap { .. } => true,
        })
    }
}

/// The scripts in use: one, unless there are strategies of the user's with scripts of their own.
#[derive(Debug, Default)]
pub(super) struct Programs {
    custom: Mutex<Vec<Arc<Program>>>,
}

impl Programs {
    pub(super) fn serving(&self, steps: &[Step<'_>]) -> Arc<Program> {
        if Program::common().serves(steps) {
            return Arc::clone(Program::common());
        }
        let mut custom = self.custom.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = custom.iter().find(|program| program.serves(steps)) {
            return Arc::clone(program);
        }
        let mut sources = Vec::new();
        for step in steps {
            if let Step::Lua(lua) = step
                && Program::common().kind(lua).is_none()
                && !sources.contains(&lua.source())
            {
                sources.push(lua.source());
            }
        }
        let program = Arc::new(Program::with(sources));
        custom.push(Arc::clone(&program));
        program
    }
}

/// What the script is to do with one cell.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// Nothing.
    Read,
    /// What a strategy says.
    Lua(Lua),
    /// Replace it, if it is still what it was.
    Swap { before: &'a [u8], after: Cell },
}

impl<'a> Step<'a> {
    /// The step of an operation; `None` if its strategy has no script.
    pub(super) fn of(op: &Op<'_>) -> Option<Step<'a>> {
        if op.cost == 0 || op.rate.is_unlimited() {
            return Some(Step::Read);
        }
        let lua = op.strategy.lua(&op.rate, op.cost, op.attributes)?;
        Some(Step::Lua(lua))
    }
}

pub(super) type Steps<'a> = SmallVec<[Step<'a>; 3]>;

/// Everything the script is given.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) namespace: &'a str,
    pub(super) batch: &'a Batch<'a>,
    pub(super) steps: &'a [Step<'a>],
    /// What is known about each cell; empty if nothing is about any.
    pub(super) hints: &'a [Option<Hint>],
    /// `None` to ask the server.
    pub(super) now: Option<Timestamp>,
    /// How long cells outlive their use, or `None` to leave them as they are.
    pub(super) slack_ms: Option<u64>,
}

impl Question<'_> {
    /// The command that names the script by its digest.
    pub(super) fn by_sha(&self, program: &Program) -> Cmd {
        self.command("EVALSHA", &program.sha, program)
    }

    /// The command that brings the script along, for servers that do not know it yet.
    pub(super) fn by_text(&self, program: &Program) -> Cmd {
        self.command("EVAL", &program.text, program)
    }

    fn command(&self, name: &str, script: &str, program: &Program) -> Cmd {
        let count = self.steps.len();
        let mut command = Cmd::with_capacity(6 + 4 * count, 192 + script.len() + 256 * count);
        let hinted = !self.hints.is_empty();
        command
            .arg(name)
            .arg(script)
            .arg(count + usize::from(hinted));
        for op in self.batch.ops() {
            command.arg(key_of(self.namespace, op));
        }
        if hinted {
            command.arg(reset::mark(self.namespace));
        }
        match self.now {
            Some(now) => command.arg(now.as_micros()),
            None => command.arg(""),
        };
        match self.slack_ms {
            Some(slack) => command.arg(slack),
            None => command.arg(""),
        };
        for (at, step) in self.steps.iter().enumerate() {
            let packed: SmallVec<[u8; 48]>;
            match step {
                Step::Read => command.arg("read").arg(""),
                Step::Lua(lua) => {
                    packed = pack(lua.arguments());
                    let kind = program.kind(lua);
                    command
                        .arg(kind.expect("`Programs::serving` chose a program with this source"))
                        .arg(&*packed)
                }
                Step::Swap { before, after } => {
                    let expires = after.expires().as_micros().min(Cell::WORD_LIMIT - 1);
                    let mut swap = pack(&[expires, before.len() as u64]);
                    swap.extend_from_slice(before);
                    swap.extend_from_slice(&after.encode());
                    packed = swap;
                    command.arg("swap").arg(&*packed)
                }
            };
            match self.hints.get(at) {
                Some(Some(hint)) => command.arg(hint.as_bytes()),
                _ => command.arg(""),
            };
        }
        command
    }
}

/// The name of a cell in Redis.
fn key_of(namespace: &str, op: &Op<'_>) -> String {
    use std::fmt::Write;
    let mut key = String::with_capacity(namespace.len() + 83);
    // Writing to a string cannot fail.
    let _ = write!(key, "{namespace}:{}", op.key);
    key
}

fn pack(words: &[u64]) -> SmallVec<[u8; 48]> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// What the script answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) now: Timestamp,
    pub(super) outcome: Outcome,
    /// The cells as they were before, encoded.
    pub(super) cells: SmallVec<[Vec<u8>; 3]>,
    /// How many of them Redis had lost.
    pub(super) losses: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Admitted,
    Denied,
    /// A cell to swap was no longer what it had been.
    Raced,
}

impl Answer {
    pub(super) fn parse(value: Value, count: usize) -> Result<Answer> {
        Self::try_parse(value, count)
            .filter(|answer| answer.cells.len() == count)
            .ok_or_else(|| Error::other("redis answered a decision with something else"))
    }

    fn try_parse(value: Value, count: usize) -> Option<Answer> {
        let Value::Array(items) = value else {
            return None;
        };
        let mut items = items.into_iter();
        let (Some(Value::Int(now)), Some(Value::Int(verdict))) = (items.next(), items.next())
        else {
            return None;
        };
        let outcome = match verdict {
            1 => Outcome::Admitted,
            0 => Outcome::Denied,
            -1 => Outcome::Raced,
            _ => return None,
        };
        let cell = |item| match item {
            Value::BulkString(bytes) => Some(bytes),
            _ => None,
        };
        let cells = items
            .by_ref()
            .take(count)
            .map(cell)
            .collect::<Option<_>>()?;
        let losses = match items.next() {
            None => 0,
            Some(Value::Int(losses)) => u64::try_from(losses).ok()?,
            Some(_) => return None,
        };
        Some(Answer {
            now: Timestamp::from_micros(u64::try_from(now).ok()?),
            outcome,
            cells,
            losses,
        })
    }

    pub(super) fn decoded(&self) -> SmallVec<[Cell; 3]> {
        self.cells.iter().map(|bytes| Cell::decode(bytes)).collect()
    }
}
