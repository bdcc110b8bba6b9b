//! Batches of several operations.

use smallvec::SmallVec;
use tokio::runtime::Handle;

use super::Leased;
use super::errand::{Errand, Part};
use super::holding::Lots;
use super::table::{Answered, Asked, Count, Way};
use crate::backend::{Backend, Batch, Op};
use crate::decision::{Decision, Decisions};
use crate::error::Result;

/// What has been found out about a batch without asking the store.
enum Plan {
    Decided(Decisions),
    Wait(Answered),
    /// The store has to decide what is not held.
    Ask(Held),
    /// The same, and nothing is worth a lease.
    Strict(Held),
}

/// What is held of each operation; `None` where it is not.
type Held = SmallVec<[Option<Aside>; 3]>;

/// What a hit costs, taken out of what is held: spent, unless it is put back.
#[derive(Debug)]
struct Aside {
    lots: Lots,
    /// What the hit is told if it is admitted.
    decision: Decision,
}

impl<B: Backend> Leased<B> {
    /// All or none: what is held is set aside, the store is asked for the rest, and if that is denied
    /// it is put back.
    pub(super) async fn decide_many(&self, batch: &Batch<'_>) -> Result<Decisions> {
        let (mut count, mut waits) = (Count::Any, true);
        let held = loop {
            match self.plan(batch, count, waits) {
                Plan::Decided(decisions) => return Ok(decisions),
                Plan::Wait(answered) => waits = super::wait_for(answered).await?,
                Plan::Ask(held) | Plan::Strict(held) => break held,
            }
            count = Count::Never;
        };
        let mut decided: SmallVec<[Option<Decision>; 3]> =
            SmallVec::from_elem(None, batch.ops().len());
        let mut aside = SetAside {
            leased: self,
            batch,
            held,
        };
        loop {
            let open: SmallVec<[usize; 3]> = (0..aside.held.len())
                .filter(|at| aside.held[*at].is_none() && decided[*at].is_none())
                .collect();
            let decisions = self.ask_for(batch, &open).await?;
            for (at, decision) in open.iter().zip(decisions.iter()) {
                decided[*at] = Some(*decision);
            }
            if decisions.is_denied() {
                let held = aside.put_back();
                return Ok(self.all(batch, &held, &decided, true));
            }
            if !aside.let_go() {
                let held = aside.spend();
                return Ok(self.all(batch, &held, &decided, false));
            }
            // What ended while the rest was asked for, the store decides as well.
        }
    }

    /// The same without asking.
    pub(super) fn try_many(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        match self.plan(batch, Count::Decided, true) {
            Plan::Decided(decisions) => Some(Ok(decisions)),
            Plan::Wait(_) => None,
            Plan::Ask(held) => {
                self.put_back(batch, &held);
                None
            }
            Plan::Strict(held) => {
                self.put_back(batch, &held);
                match held.iter().all(Option::is_none) {
                    true => self.0.backend.try_apply(batch),
                    false => None,
                }
            }
        }
    }

    fn plan(&self, batch: &Batch<'_>, count: Count, waits: bool) -> Plan {
        let mut held = Held::new();
        let mut denied: SmallVec<[Option<Decision>; 3]> = SmallVec::new();
        let (mut awaited, mut is_hot) = (None, false);
        for op in batch.ops() {
            let mut lots = Lots::new();
            let (mut aside, mut denial) = (None, None);
            match self.look(op, count, &mut lots) {
                Way::Decided(decision) if decision.is_denied() => denial = Some(decision),
                Way::Decided(decision) => aside = Some(decision),
                Way::Low(decision) => {
                    aside = Some(decision);
                    self.renew(op);
                }
                Way::Wait(answered) if waits => awaited = Some(answered),
                Way::Ask => is_hot = true,
                Way::Wait(_) | Way::Strict => {}
            }
            held.push(aside.map(|decision| Aside { lots, decision }));
            denied.push(denial);
        }
        if let Some(answered) = awaited {
            self.put_back(batch, &held);
            return Plan::Wait(answered);
        }
        let mut known = held.iter().zip(&denied);
        if !known.all(|(held, denied)| held.is_some() || denied.is_some()) {
            return match is_hot {
                true => Plan::Ask(held),
                false => Plan::Strict(held),
            };
        }
        let is_denied = denied.iter().any(Option::is_some);
        match is_denied {
            true => self.put_back(batch, &held),
            false => self.spend(batch, &held),
        }
        Plan::Decided(self.all(batch, &held, &denied, is_denied))
    }

    /// A hit that costs nothing is told what is known.
    fn look(&self, op: &Op<'_>, count: Count, aside: &mut Lots) -> Way {
        if self.is_lendable(op) {
            return self.0.table.find(op, count, Some(aside));
        }
        let known = (op.cost == 0).then(|| self.0.table.peek(op)).flatten();
        known.map_or(Way::Strict, Way::Decided)
    }

    /// Puts some operations of a batch to the store, and asks for leases where that is worthwhile.
    async fn ask_for(&self, batch: &Batch<'_>, open: &[usize]) -> Result<Decisions> {
        let rest = open.iter().map(|at| batch.ops()[*at]);
        let rest: SmallVec<[Op<'_>; 3]> = rest.collect();
        let batch = Batch::new(&rest);
        let Ok(runtime) = Handle::try_current() else {
            return self.0.ask(&batch).await;
        };
        if batch.is_scattered() {
            // Of a node that fails only its own keys would be told, and what is asked of another is executed
            // whatever this one says: questions go beside.
            for op in &rest {
                if let Asked::Part(part) = self.0.table.ask_if_hot(op, 0) {
                    drop(self.spawn(&runtime, Errand::of(*part)));
                }
            }
            return self.0.ask(&batch).await;
        }
        let mut errand = Errand::default();
        for op in &rest {
            errand.add(match self.0.table.ask_if_hot(op, op.cost) {
                Asked::Part(part) => *part,
                // Somebody else asks for more; this hit goes beside.
                Asked::Already(_) | Asked::Not => Part::strict(op),
            });
        }
        match errand.lends() {
            true => self.run(&runtime, errand).await,
            false => self.0.ask(&batch).await,
        }
    }

    /// The decisions on all operations; where nothing was charged, what would have been told.
    fn all(
        &self,
        batch: &Batch<'_>,
        held: &[Option<Aside>],
        decided: &[Option<Decision>],
        is_denied: bool,
    ) -> Decisions {
        let decisions = batch.ops().iter().zip(held).zip(decided);
        decisions
            .map(|((op, held), decided)| {
                let held = held.as_ref().map(|aside| aside.decision);
                let peeked = is_denied.then(|| self.0.table.peek(op)).flatten();
                // One of both is known of every operation.
                decided.or(peeked).or(held).unwrap_or(Decision::UNLIMITED)
            })
            .collect()
    }

    fn put_back(&self, batch: &Batch<'_>, held: &Held) {
        for (op, aside) in batch.ops().iter().zip(held) {
            if let Some(aside) = aside {
                self.0.table.put_back(&op.key, &aside.lots);
            }
        }
    }

    fn spend(&self, batch: &Batch<'_>, held: &Held) {
        for (op, aside) in batch.ops().iter().zip(held) {
            if let Some(aside) = aside {
                self.0.table.spend(&op.key, &aside.lots);
            }
        }
    }
}

/// What is set aside of a batch: put back unless it is spent, also if the one who asked goes away.
struct SetAside<'a, B: Backend> {
    leased: &'a Leased<B>,
    batch: &'a Batch<'a>,
    held: Held,
}

impl<B: Backend> SetAside<'_, B> {
    fn spend(mut self) -> Held {
        let held = std::mem::take(&mut self.held);
        self.leased.spend(self.batch, &held);
        held
    }

    fn put_back(mut self) -> Held {
        let held = std::mem::take(&mut self.held);
        self.leased.put_back(self.batch, &held);
        held
    }

    /// Puts back what has ended since. Returns whether there was any.
    fn let_go(&mut self) -> bool {
        let table = &self.leased.0.table;
        let now_us = table.now_us();
        let mut any = false;
        for (op, held) in self.batch.ops().iter().zip(&mut self.held) {
            let ended = |aside: &mut Aside| aside.lots.iter().any(|lot| lot.until_us <= now_us);
            if let Some(aside) = held.take_if(ended) {
                table.put_back(&op.key, &aside.lots);
                any = true;
            }
        }
        any
    }
}

impl<B: Backend> Drop for SetAside<'_, B> {
    fn drop(&mut self) {
        self.leased.put_back(self.batch, &self.held);
    }
}
