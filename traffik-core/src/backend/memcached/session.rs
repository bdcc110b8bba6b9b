//! The commands of one hit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::generation::Generation;
use super::server::{Counted, Item, Server};
use super::tracked::Tracked;
use super::value;
use crate::backend::cas::Attempts;
use crate::backend::{Batch, Op, realigning};
use crate::cell::Cell;
use crate::decision::{Decision, Decisions};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::time::{Clock, Timestamp};

/// What the threads of a backend share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) servers: Box<[Server]>,
    pub(super) generation: Generation,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tracked: Option<Tracked>,
    /// Charges that could not be taken back.
    pub(super) unreturned: AtomicU64,
}

/// One hit's view of the servers.
#[derive(Debug)]
pub(super) struct Session<'a> {
    shared: &'a Shared,
    prefix: u128,
    deadline: Instant,
}

/// Seconds for which a fresh cell is kept, to be compared with and replaced.
const FRESH_S: u32 = 10;

const HALF: &str = "a part of a batch is charged in memcached, and could not be restored";

impl Shared {
    /// Which server keeps a key. All keys of one identity live on one, so that a batch is read with one
    /// command and served by one thread.
    pub(super) fn server_of(&self, key: &Key) -> usize {
        if self.servers.len() == 1 {
            return 0;
        }
        #[expect(clippy::cast_possible_truncation, reason = "half of a digest will do")]
        let digest = key.who as u64;
        let claims = self.servers.iter().map(|server| server.claim(digest));
        // There always is a server.
        claims
            .enumerate()
            .max_by_key(|(_, claim)| *claim)
            .map_or(0, |(at, _)| at)
    }

    pub(super) fn session(&self, deadline: Instant) -> Session<'_> {
        Session {
            shared: self,
            prefix: self.generation.prefix(),
            deadline,
        }
    }
}

/// The name of a cell: always 37 characters, none of them chosen by a client.
pub(super) fn name_of(digest: u128) -> String {
    format!("tfk1:{digest:032x}")
}

impl Session<'_> {
    pub(super) fn digest(&self, key: &Key) -> u128 {
        key.digest() ^ self.prefix
    }

    /// Applies a batch with one command to read and one for each cell to write.
    pub(super) fn apply(&self, batch: &Batch<'_>) -> Result<Decisions> {
        let mut is_half = false;
        let applied = self.apply_all(batch, &mut is_half);
        applied.map_err(|error| match is_half {
            true => error.after_a_part(HALF),
            false => error,
        })
    }

    /// Tells whether a part of it stays charged, whatever becomes of the rest.
    fn apply_all(&self, batch: &Batch<'_>, is_half: &mut bool) -> Result<Decisions> {
        let charges = batch.ops().iter().any(|op| op.cost > 0);
        let mut attempts = Attempts::default();
        loop {
            let items = self.load(batch)?;
            let ops = batch.ops().iter();
            let mut cells: SmallVec<[Cell; 3]> = ops
                .zip(&items)
                .map(|(op, item)| cell_of(op, item.as_ref()))
                .collect();
            let now = self.shared.clock.now();
            let decisions = batch.decide(&mut cells, now);
            if decisions.is_denied() {
                self.realign(batch, &cells, &decisions, now);
            }
            if decisions.is_denied()
                || !charges
                || self.write_all(batch, &cells, &items, is_half)?
            {
                return Ok(decisions);
            }
            self.sleep(attempts.again()?)?;
        }
    }

    /// What fails the next denial tries again.
    fn realign(&self, batch: &Batch<'_>, cells: &[Cell], decisions: &Decisions, now: Timestamp) {
        for (op, strategy) in realigning(batch, cells, decisions, now) {
            let op = Op {
                strategy: &strategy,
                cost: 1,
                ..*op
            };
            if self.apply(&Batch::new(std::slice::from_ref(&op))).is_err() {
                break;
            }
        }
    }

    pub(super) fn read(&self, op: &Op<'_>) -> Result<(Cell, Timestamp)> {
        let item = self
            .server(&op.key)
            .get(&self.name(&op.key), self.deadline)?;
        Ok((cell_of(op, item.as_ref()), self.shared.clock.now()))
    }

    /// Counts first and asks the strategy afterwards whether it would have: one command in the
    /// steady state. `None` if the counter is not of the kind or the window that this needs;
    /// [`Session::apply`] puts that in order.
    pub(super) fn count(&self, op: &Op<'_>) -> Result<Option<Decision>> {
        let (server, name) = (self.server(&op.key), self.name(&op.key));
        // Before the increment: else a window may end in between, which counted it for others, and the
        // hit would be charged to the next one as well.
        let now = self.shared.clock.now();
        let mut counted = server.increment(&name, self.deadline)?;
        if counted == Counted::Missing && self.start(op, &name)? {
            counted = server.increment(&name, self.deadline)?;
        }
        let Counted::To(counter) = counted else {
            return Ok(None);
        };
        let after = value::of_counter(op, counter);
        let Some(before) = value::without_one(&after) else {
            return Ok(None);
        };
        if value::counter(&after).is_none() {
            // Too close to the end of what fits: from here on it is a cell like any other.
            self.return_one(op, &name, &before);
            return Ok(None);
        }
        let mut cell = before.clone();
        let decision = op.step(&mut cell, now);
        if decision.is_denied() {
            self.return_one(op, &name, &before);
            let (batch, decisions) = (Batch::new(std::slice::from_ref(op)), decision.into());
            self.realign(&batch, &[before], &decisions, now);
            return Ok(Some(decision));
        }
        // Else the window is over: the increment went to one that counts no more.
        Ok((cell == after).then_some(decision))
    }

    /// Makes the counter to increment, unless somebody else just did.
    fn start(&self, op: &Op<'_>, name: &str) -> Result<bool> {
        let now = self.shared.clock.now();
        let mut first = Cell::fresh();
        let _ = op.step(&mut first, now);
        let Some(zero) = value::without_one(&first).as_ref().and_then(value::counter) else {
            return Ok(false);
        };
        let exptime = value::exptime(first.expires(), now);
        self.server(&op.key)
            .add(name, zero.to_string().as_bytes(), exptime, self.deadline)?;
        self.track(op, &first, now);
        Ok(true)
    }

    /// Takes back the increment of a denied hit. By comparison, not by `decr`: that might hit a
    /// window which somebody has begun in the meantime, and let in one too many.
    fn return_one(&self, op: &Op<'_>, name: &str, full: &Cell) {
        let mut attempts = Attempts::default();
        let mut again = || self.sleep(attempts.again()?);
        loop {
            match self.try_return_one(op, name, full) {
                Ok(true) => return,
                Ok(false) if again().is_ok() => {}
                Ok(false) | Err(_) => break,
            }
        }
        // The window is full in any case: whoever is denied because of this would be anyway,
        // unless they ask under a higher limit.
        self.shared.unreturned.fetch_add(1, Ordering::Relaxed);
    }

    fn try_return_one(&self, op: &Op<'_>, name: &str, full: &Cell) -> Result<bool> {
        let server = self.server(&op.key);
        let Some(item) = server.get(name, self.deadline)? else {
            return Ok(true);
        };
        let cell = value::decode(op, &item.value);
        let is_same_window = cell.words().first() == full.words().first();
        let Some(less) = value::without_one(&cell).filter(|_| is_same_window) else {
            return Ok(true);
        };
        self.replace(op, name, &less, &item, true)
    }

    /// What is stored for each operation, read with one command per server.
    fn load(&self, batch: &Batch<'_>) -> Result<SmallVec<[Option<Item>; 3]>> {
        let mut all: SmallVec<[Option<Item>; 3]> = batch.ops().iter().map(|_| None).collect();
        for (at, server) in self.shared.servers.iter().enumerate() {
            let (places, names): (SmallVec<[usize; 3]>, SmallVec<[String; 3]>) = batch
                .ops()
                .iter()
                .enumerate()
                .filter(|(_, op)| self.shared.server_of(&op.key) == at)
                .map(|(place, op)| (place, self.name(&op.key)))
                .unzip();
            let items = match &*names {
                [] => continue,
                [name] => SmallVec::from_iter([server.get(name, self.deadline)?]),
                names => server.get_all(names, self.deadline)?,
            };
            for (place, item) in places.into_iter().zip(items) {
                all[place] = item;
            }
        }
        Ok(all)
    }

    /// Stores all cells that were charged, or none: `false` if one of them changed since it was read.
    ///
    /// Memcached changes one cell at a time. If a later one turns out to have changed, the earlier
    /// ones are restored; in between others see them charged, so that somebody may be denied, but
    /// nobody admitted, who would not have been.
    fn write_all(
        &self,
        batch: &Batch<'_>,
        cells: &[Cell],
        items: &[Option<Item>],
        is_half: &mut bool,
    ) -> Result<bool> {
        let ops = batch.ops();
        let mut order: SmallVec<[usize; 3]> =
            (0..ops.len()).filter(|at| ops[*at].cost > 0).collect();
        // The same for everybody, so that rivals meet at the first cell, where nothing is charged.
        order.sort_unstable_by_key(|at| self.digest(&ops[*at].key));
        for (done, at) in order.iter().copied().enumerate() {
            let written = self.write(&ops[at], &cells[at], items[at].as_ref());
            if !matches!(written, Ok(true)) {
                let mut is_restored = true;
                for at in order[..done].iter().copied() {
                    is_restored &= self.restore(&ops[at], &cells[at], items[at].as_ref());
                }
                *is_half |= !is_restored;
                // Tried again, the part is charged once more: too much at worst, but for what gives back,
                // which would be given twice.
                let gives_back = ops.iter().any(|op| op.strategy.is_correction());
                return match written {
                    Ok(_) if gives_back && !is_restored => Err(Error::interrupted(HALF)),
                    written => written,
                };
            }
        }
        Ok(true)
    }

    /// Stores a cell unless it changed since it was read.
    fn write(&self, op: &Op<'_>, cell: &Cell, seen: Option<&Item>) -> Result<bool> {
        let (server, name) = (self.server(&op.key), self.name(&op.key));
        let once = op.strategy.gives_back();
        if let Some(item) = seen {
            return self.replace(op, &name, cell, item, once);
        }
        // `add` does not tell who won, so that a first cell is made in two steps.
        let fresh = Cell::fresh().encode();
        server.add(&name, &fresh, FRESH_S, self.deadline)?;
        match server.get(&name, self.deadline)? {
            Some(item) if item.value == fresh => self.replace(op, &name, cell, &item, once),
            _ => Ok(false),
        }
    }

    fn replace(
        &self,
        op: &Op<'_>,
        name: &str,
        cell: &Cell,
        item: &Item,
        once: bool,
    ) -> Result<bool> {
        let now = self.shared.clock.now();
        let exptime = match cell.is_fresh() {
            true => FRESH_S,
            false => value::exptime(cell.expires(), now),
        };
        let value = value::encode(op, cell);
        self.track(op, cell, now);
        self.server(&op.key)
            .replace(name, &value, exptime, item.unique, once, self.deadline)
    }

    /// Makes a cell what it was, unless somebody has built upon it. Returns whether it did.
    fn restore(&self, op: &Op<'_>, written: &Cell, before: Option<&Item>) -> bool {
        let name = self.name(&op.key);
        let restored = match self.server(&op.key).get(&name, self.deadline) {
            // No two states of a cell have the same value, unless nothing was charged in between.
            Ok(Some(item)) if item.value == value::encode(op, written) => {
                self.replace(op, &name, &cell_of(op, before), &item, false)
            }
            Ok(None) => Ok(true),
            Ok(Some(_)) => Ok(false),
            Err(error) => Err(error),
        };
        let is_restored = matches!(restored, Ok(true));
        if !is_restored {
            self.shared.unreturned.fetch_add(1, Ordering::Relaxed);
        }
        is_restored
    }

    fn track(&self, op: &Op<'_>, cell: &Cell, now: Timestamp) {
        if let Some(tracked) = &self.shared.tracked {
            let server = self.shared.server_of(&op.key);
            tracked.insert(self.digest(&op.key), server, cell.expires(), now);
        }
    }

    fn server(&self, key: &Key) -> &Server {
        &self.shared.servers[self.shared.server_of(key)]
    }

    fn name(&self, key: &Key) -> String {
        name_of(self.digest(key))
    }

    fn sleep(&self, time: Duration) -> Result<()> {
        if time >= self.deadline.saturating_duration_since(Instant::now()) {
            return Err(Error::contended(
                "others changed the same cell again and again",
            ));
        }
        thread::sleep(time);
        Ok(())
    }
}

fn cell_of(op: &Op<'_>, item: Option<&Item>) -> Cell {
    item.map_or_else(Cell::fresh, |item| value::decode(op, &item.value))
}
