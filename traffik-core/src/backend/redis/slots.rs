//! Batches that no single node of a cluster can decide.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Inner;
use super::link::Link;
use crate::backend::{Batch, Op};
use crate::decision::{Decision, Decisions};
use crate::error::Result;

/// The operations of a batch whose keys are in one slot, and their places in the batch.
type Group<'a> = (SmallVec<[usize; 3]>, SmallVec<[Op<'a>; 3]>);

const HALF: &str = "a batch was charged in some slots of the redis cluster only";

impl Inner {
    /// Asks each slot first and charges them one after the other if all would admit. So a denial
    /// charges nothing, unless another hit takes the last of a limit in between.
    pub(super) async fn decide_by_slot(
        self: &Arc<Self>,
        link: &Arc<Link>,
        batch: &Batch<'_>,
    ) -> Result<Decisions> {
        let groups = groups(batch);
        let mut all: Decisions = batch.ops().iter().map(|_| Decision::UNLIMITED).collect();
        let mut denied = false;
        for (places, ops) in &groups {
            let part = Batch::new(ops);
            let (decisions, unchanged) = self.preview(link, &part).await?;
            denied |= decisions.is_denied();
            // What is not charged in the end has what it had before.
            for (at, place) in places.iter().enumerate() {
                all[*place] = match decisions[at].is_denied() {
                    true => decisions[at],
                    false => unchanged[at],
                };
            }
        }
        if denied {
            return Ok(all);
        }
        let mut charged = false;
        for (places, ops) in &groups {
            let decided = self.ask_to_decide(link, &Batch::new(ops)).await;
            let (decisions, _) = decided.map_err(|error| match charged {
                true => error.after_a_part(HALF),
                false => error,
            })?;
            charged = true;
            for (place, decision) in places.iter().zip(decisions.iter()) {
                all[*place] = *decision;
            }
            if decisions.is_denied() {
                break;
            }
        }
        Ok(all)
    }

    /// What would be decided, and what each cell says without a hit.
    async fn preview(
        self: &Arc<Self>,
        link: &Arc<Link>,
        batch: &Batch<'_>,
    ) -> Result<(Decisions, SmallVec<[Decision; 3]>)> {
        let ops = batch.ops();
        let seen = self.look(link, batch)?.await?;
        let mut cells = seen.decoded();
        let unchanged = ops
            .iter()
            .zip(&mut cells)
            .map(|(op, cell)| op.peek(cell, seen.now));
        let unchanged = unchanged.collect();
        Ok((batch.decide(&mut cells, seen.now), unchanged))
    }
}

fn groups<'a>(batch: &Batch<'a>) -> SmallVec<[Group<'a>; 2]> {
    let mut groups = SmallVec::<[Group<'a>; 2]>::new();
    for (place, op) in batch.ops().iter().enumerate() {
        let group = groups
            .iter()
            .position(|(_, ops)| ops[0].key.who == op.key.who);
        let group = group.unwrap_or_else(|| {
            groups.push(Default::default());
            groups.len() - 1
        });
        groups[group].0.push(place);
        groups[group].1.push(*op);
    }
    groups
}
