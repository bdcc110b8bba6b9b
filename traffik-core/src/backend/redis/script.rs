//! The one script that decides batches, and what it is to do with each cell.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use smallvec::SmallVec;

use super::hints::Hint;
use crate::backend::Op;
use crate::cell::Cell;
use crate::strategy::{BESIDE, BESIDE_IN_PLACE, BUILT_IN, IN_PLACE, Lua};
use crate::time::Timestamp;

/// A script that names the command which failed, if one does. It defines `run`, and asks by `call`.
macro_rules! script {
    ($source:expr) => {
        concat!(include_str!("call.lua"), $source, include_str!("tell.lua"))
    };
}

// For the scripts of what is beside it.
#[cfg(any(feature = "store", feature = "tokio"))]
pub(super) use script;

/// A script with the strategies it knows.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) text: String,
    pub(super) sha: String,
    sources: Vec<&'static str>,
}

impl Program {
    /// The kinds of operation that are no strategy's: only to look, and to replace.
    const READ: u8 = 0;
    const SWAP: u8 = 1;
    /// Added to the kind of one that stops no other.
    const LENIENT: u8 = 0x80;
    /// That of the first source.
    const FIRST: usize = 2;

    /// A script of these sources, of which some work in place. Kinds are places in the list, so
    /// that a longer one knows those of a shorter one.
    fn of(sources: Vec<&'static str>) -> Program {
        let is_ours = |source: &&str| {
            is_in_place(source) || BUILT_IN.contains(source) || BESIDE.contains(source)
        };
        let branches = |in_place: bool| -> String {
            let all = sources.iter().enumerate();
            all.filter(|(_, source)| is_in_place(source) == in_place)
                .map(|(place, source)| {
                    let kind = Self::FIRST + place;
                    match is_ours(source) {
                        true => format!("elseif kind == {kind} then\n{}", lean(source)),
                        false => format!("elseif kind == {kind} then\n{source}\n"),
                    }
                })
                .collect()
        };
        let text = lean(script!(include_str!("decide.lua")))
            .replacen("--{in place}\n", &branches(true), 1)
            .replacen("--{strategies}\n", &branches(false), 1);
        let sha = redis::Script::new(&text).get_hash().to_owned();
        Program { text, sha, sources }
    }

    /// A script that decides no batches.
    #[cfg(feature = "tokio")]
    pub(super) fn alone(source: &str) -> Program {
        let text = lean(source);
        let sha = redis::Script::new(&text).get_hash().to_owned();
        Program {
            text,
            sha,
            sources: Vec::new(),
        }
    }

    /// The script that everybody needs.
    fn common() -> &'static Arc<Program> {
        static COMMON: LazyLock<Arc<Program>> = LazyLock::new(|| {
            let sources = IN_PLACE.into_iter().chain(BUILT_IN);
            Arc::new(Program::of(sources.collect()))
        });
        &COMMON
    }

    /// The script of all that this crate does.
    fn whole() -> &'static Arc<Program> {
        static WHOLE: LazyLock<Arc<Program>> = LazyLock::new(|| {
            let steps = IN_PLACE.into_iter().chain(BUILT_IN);
            let sources = steps.chain(BESIDE_IN_PLACE).chain(BESIDE);
            Arc::new(Program::of(sources.collect()))
        });
        &WHOLE
    }

    /// The same and others.
    fn with(custom: Vec<&'static str>) -> Program {
        let mut sources = Self::whole().sources.clone();
        sources.extend(custom);
        Program::of(sources)
    }

    /// Whether it has nothing of the user's in it, so that it cannot fail halfway.
    pub(super) fn is_common(self: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, Self::common()) || Arc::ptr_eq(self, Self::whole())
    }

    /// Which of two can do what both can, if one of them can.
    pub(super) fn wider<'a>(self: &'a Arc<Self>, other: &'a Arc<Self>) -> Option<&'a Arc<Self>> {
        match () {
            () if Arc::ptr_eq(self, other) => Some(self),
            () if self.is_common() && other.is_common() => Some(Self::whole()),
            () => None,
        }
    }

    fn kind(&self, lua: &Lua) -> Option<u8> {
        let same = |source: &&str| {
            // Nearly always it is the very same text.
            std::ptr::eq(*source, lua.source()) || *source == lua.source()
        };
        let place = self.sources.iter().position(same)?;
        let kind = u8::try_from(Self::FIRST + place).ok()?;
        (kind < Self::LENIENT).then_some(kind)
    }

    fn serves(&self, steps: &[Step<'_>]) -> bool {
        steps.iter().all(|step| match step {
            Step::Lua(lua) => self.kind(lua).is_some(),
            Step::Read | Step::Swap { .. } => true,
        })
    }
}

/// A script of ours without comments and indentation, a quarter of it: it travels to every Redis that
/// does not know it.
fn lean(source: &str) -> String {
    let lines = source.lines().map(str::trim);
    let is_code =
        |line: &&str| !line.is_empty() && (!line.starts_with("--") || line.starts_with("--{"));
    lines
        .filter(is_code)
        .flat_map(|line| [line, "\n"])
        .collect()
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
        if Program::whole().serves(steps) {
            return Arc::clone(Program::whole());
        }
        let mut custom = self.custom.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = custom.iter().find(|program| program.serves(steps)) {
            return Arc::clone(program);
        }
        let mut sources = Vec::new();
        for step in steps {
            if let Step::Lua(lua) = step
                && Program::whole().kind(lua).is_none()
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

/// Whether a source works on cells where they are, of which Redis then returns excerpts.
fn is_in_place(source: &str) -> bool {
    IN_PLACE.contains(&source) || BESIDE_IN_PLACE.contains(&source)
}

/// What the script is to do with one cell.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// Nothing.
    Read,
    /// What a strategy says.
    Lua(Lua),
    /// Replace it, if it is still what it was; or only see whether it is.
    Swap {
        before: &'a [u8],
        after: Option<Cell>,
    },
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

    /// What becomes of a cell that was decided upon elsewhere, at a time that is over.
    ///
    /// The step is not made again: the cell may have been charged and have expired since, and at that
    /// time its absence would be a fresh quota. Of a log Redis returned an excerpt, which nothing can be
    /// compared with; it lives on for as long as any of its hits matters.
    pub(super) fn unless_changed(op: &Op<'_>, before: &'a [u8], after: Cell) -> Step<'a> {
        match Step::of(op) {
            Some(read) if op.rate.is_unlimited() => read,
            Some(Step::Lua(lua)) if is_in_place(lua.source()) => Step::Lua(lua),
            _ => Step::Swap {
                before,
                after: (op.cost > 0).then_some(after),
            },
        }
    }
}

pub(super) type Steps<'a> = SmallVec<[Step<'a>; 3]>;

impl Step<'_> {
    /// Tells a script what to do, together with what is known about the cell: see `decide.lua`.
    pub(super) fn encode(&self, program: &Program, hint: Option<&Hint>, to: &mut Vec<u8>) {
        let kind = match self {
            Step::Read => Program::READ,
            Step::Lua(lua) => {
                for word in lua.arguments() {
                    to.extend_from_slice(&word.to_be_bytes());
                }
                let kind = program
                    .kind(lua)
                    .expect("`Programs::serving` chose a program with this source");
                match lua.is_lenient() {
                    true => kind | Program::LENIENT,
                    false => kind,
                }
            }
            Step::Swap { before, after } => {
                let expires = after.as_ref().map_or(Timestamp::EPOCH, Cell::expires);
                let expires = expires.as_micros().min(Cell::WORD_LIMIT - 1);
                to.extend_from_slice(&expires.to_be_bytes());
                to.extend_from_slice(&(before.len() as u64).to_be_bytes());
                to.extend_from_slice(before);
                if let Some(after) = after {
                    after.encode_with(|piece| to.extend_from_slice(piece));
                }
                Program::SWAP
            }
        };
        let hint = hint.map_or(&[][..], Hint::as_bytes);
        to.extend_from_slice(hint);
        // A hint has no queue, and so at most 65 bytes.
        to.extend_from_slice(&[hint.len().to_le_bytes()[0], kind]);
    }
}

/// Has the script compare a cell with what is known about it, even if there is one.
pub(super) fn doubt(arguments: &mut [u8]) {
    if let [.., hint, _] = arguments {
        *hint |= 0x80;
    }
}
