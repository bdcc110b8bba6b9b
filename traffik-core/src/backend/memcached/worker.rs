use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::session::{Session, Shared};
use super::value;
use crate::backend::{Batch, Op};
use crate::cell::Cell;
use crate::decision::{Decision, Decisions};
use crate::error::Result;
use crate::identity::Attributes;
use crate::key::Key;
use crate::rate::Rate;
use crate::strategy::Strategy;
use crate::time::Timestamp;

/// What one thread does: all hits on some keys of a server, one after the other, so that hits of
/// this process on one key never contend.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    server: usize,
    denied: Denied,
}

/// An operation that owns what it needs.
#[derive(Clone, Debug)]
pub(super) struct OwnedOp {
    key: Key,
    strategy: Arc<dyn Strategy>,
    rate: Rate,
    cost: u32,
    attributes: Attributes,
}

/// Keys whose last hit was denied, as far as they are remembered. They are read before they are
/// incremented: most likely there is nothing to increment, and then nothing to take back.
#[derive(Debug)]
struct Denied(Box<[u128; 1024]>);

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, server: usize) -> Worker {
        Worker {
            shared,
            server,
            denied: Denied(Box::new([0; 1024])),
        }
    }

    pub(super) fn apply(&mut self, ops: &[OwnedOp], deadline: Instant) -> Result<Decisions> {
        self.catch_up(deadline)?;
        let shared = Arc::clone(&self.shared);
        let session = shared.session(deadline);
        let ops: SmallVec<[Op<'_>; 3]> = ops.iter().map(OwnedOp::borrow).collect();
        match &*ops {
            [op] if value::is_countable(op) => self.count(&session, op).map(Decisions::from),
            ops => session.apply(&Batch::new(ops)),
        }
    }

    pub(super) fn load(&self, op: &OwnedOp, deadline: Instant) -> Result<(Cell, Timestamp)> {
        self.catch_up(deadline)?;
        self.shared.session(deadline).read(&op.borrow())
    }

    /// What nobody waits for.
    pub(super) fn tidy(&self, timeout: Duration) {
        let (at, server) = (self.server, &self.shared.servers[self.server]);
        let deadline = Instant::now() + timeout;
        let generation = &self.shared.generation;
        generation.look_if_due(at, server, deadline);
        generation.count_evictions_if_due(at, server, deadline);
    }

    fn catch_up(&self, deadline: Instant) -> Result<()> {
        let server = &self.shared.servers[self.server];
        self.shared.generation.ensure(self.server, server, deadline)
    }

    fn count(&mut self, session: &Session<'_>, op: &Op<'_>) -> Result<Decision> {
        let digest = session.digest(&op.key);
        let counted = match self.denied.has(digest) {
            true => None,
            false => session.count(op)?,
        };
        let decision = match counted {
            Some(decision) => decision,
            None => session.apply(&Batch::new(std::slice::from_ref(op)))?[0],
        };
        self.denied.note(digest, decision.is_denied());
        Ok(decision)
    }
}

impl OwnedOp {
    pub(super) fn of(op: &Op<'_>) -> OwnedOp {
        OwnedOp {
            key: op.key,
            strategy: Arc::clone(op.strategy),
            rate: op.rate,
            cost: op.cost,
            attributes: op.attributes.clone(),
        }
    }

    fn borrow(&self) -> Op<'_> {
        Op {
            key: self.key,
            strategy: &self.strategy,
            rate: self.rate,
            cost: self.cost,
            attributes: &self.attributes,
        }
    }
}

impl Denied {
    fn has(&self, digest: u128) -> bool {
        self.0[Self::slot(digest)] == digest
    }

    fn note(&mut self, digest: u128, denied: bool) {
        let slot = &mut self.0[Self::slot(digest)];
        if denied {
            *slot = digest;
        } else if *slot == digest {
            *slot = 0;
        }
    }

    fn slot(digest: u128) -> usize {
        (digest % 1024) as usize
    }
}
