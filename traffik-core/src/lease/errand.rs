//! What is asked of the store.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::watch;

use super::holding::{Answer, Grant, Question};
use super::table::Table;
use crate::backend::{Backend, Batch, Op};
use crate::decision::{Decision, Decisions};
use crate::error::{Error, Result};
use crate::identity::Attributes;
use crate::key::Key;
use crate::rate::Rate;
use crate::strategy::{Lending, Strategy};

/// Hits and loans that are put to the store together. It owns all that it needs, so that it is
/// finished even if nobody waits for it any more: what was lent would be lost otherwise.
#[derive(Debug, Default)]
pub(super) struct Errand {
    parts: SmallVec<[Part; 1]>,
}

/// An operation of one.
#[derive(Debug)]
pub(super) struct Part {
    key: Key,
    strategy: Arc<dyn Strategy>,
    rate: Rate,
    attributes: Attributes,
    cost: u32,
    pending: Option<Pending>,
}

/// A question that awaits its answer. Dropped without one, it is given up.
#[derive(Debug)]
pub(super) struct Pending {
    table: Arc<Table>,
    key: Key,
    number: u64,
    question: Option<Question>,
    lending: Option<Arc<Lending>>,
    /// Those who wait look again when it is dropped.
    tell: watch::Sender<Option<Error>>,
}

impl Errand {
    pub(super) fn add(&mut self, part: Part) {
        self.parts.push(part);
    }

    pub(super) fn of(part: Part) -> Errand {
        let mut errand = Errand::default();
        errand.add(part);
        errand
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.parts.iter().map(|part| part.key)
    }

    pub(super) fn lends(&self) -> bool {
        self.parts.iter().any(|part| part.pending.is_some())
    }

    /// Asks. The decisions are in the order in which the parts were added.
    pub(super) async fn run(self, backend: &dyn Backend) -> Result<Decisions> {
        let Errand { mut parts } = self;
        let mut decided = {
            let ops: SmallVec<[Op<'_>; 3]> = parts.iter().map(Part::op).collect();
            backend.apply(&Batch::new(&ops)).await
        };
        for (at, part) in parts.iter_mut().enumerate() {
            let told = part.pending.take();
            let told = told.and_then(|pending| pending.settle(&decided, at));
            if let (Some(told), Ok(decisions)) = (told, &mut decided) {
                decisions[at] = told;
            }
        }
        decided
    }
}

impl Part {
    /// A hit as it is.
    pub(super) fn strict(op: &Op<'_>) -> Part {
        Part {
            key: op.key,
            strategy: Arc::clone(op.strategy),
            rate: op.rate,
            attributes: op.attributes.clone(),
            cost: op.cost,
            pending: None,
        }
    }

    pub(super) fn lending(
        key: Key,
        strategy: &Arc<dyn Strategy>,
        rate: Rate,
        attributes: Attributes,
        mut pending: Pending,
    ) -> Part {
        let strategy: Arc<dyn Strategy> = pending.lending(strategy);
        Part {
            key,
            strategy,
            rate,
            attributes,
            // What the hit costs the strategy knows.
            cost: 1,
            pending: Some(pending),
        }
    }

    fn op(&self) -> Op<'_> {
        Op {
            key: self.key,
            strategy: &self.strategy,
            rate: self.rate,
            cost: self.cost,
            attributes: &self.attributes,
        }
    }
}

impl Pending {
    pub(super) fn new(
        table: &Arc<Table>,
        key: Key,
        question: Question,
        tell: watch::Sender<Option<Error>>,
    ) -> Pending {
        Pending {
            table: Arc::clone(table),
            key,
            number: question.number,
            question: Some(question),
            lending: None,
            tell,
        }
    }

    fn lending(&mut self, strategy: &Arc<dyn Strategy>) -> Arc<Lending> {
        let (cost, loan) = match &self.question {
            Some(question) => (question.cost, question.loan),
            None => Default::default(),
        };
        let lending = Lending::of(strategy, cost, loan);
        self.lending = Some(Arc::clone(&lending));
        lending
    }

    fn settle(mut self, decided: &Result<Decisions>, at: usize) -> Option<Decision> {
        let (question, lending) = (self.question.take()?, self.lending.as_ref()?);
        let answer = match decided {
            Err(_) => Answer::Lost,
            Ok(decisions) => Self::answer(decisions, decisions[at], lending),
        };
        let told = self.table.answer(&self.key, question, answer);
        if let Err(error) = decided {
            // Nobody is left to wait, or somebody is told.
            self.tell.send_replace(Some(error.clone()));
        }
        told
    }

    fn answer(decisions: &Decisions, decision: Decision, lending: &Lending) -> Answer {
        if decisions.is_allowed() {
            let (lent, next) = (lending.lent(), lending.next());
            return Answer::Admitted(decision, Grant { lent, next });
        }
        match decision.is_denied() {
            true => Answer::Denied(decision),
            false => Answer::Undone,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.question.is_some() {
            self.table.give_up(&self.key, self.number);
        }
    }
}
