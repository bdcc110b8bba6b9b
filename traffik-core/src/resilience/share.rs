use smallvec::SmallVec;

use crate::backend::{Batch, Op};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::strategy::Settlement;
use crate::throttle::OnError;
use crate::time::Timestamp;

/// One of several nodes that each may admit an equal part of a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    nodes: u32,
}

impl Share {
    /// The share of one of so many; zero is taken for one.
    pub(super) fn of(nodes: u32) -> Share {
        Share {
            nodes: nodes.max(1),
        }
    }

    /// A hit here counts as if every node had admitted one.
    pub(super) fn of_op<'a>(self, op: &Op<'a>) -> Op<'a> {
        Op {
            cost: op.cost.saturating_mul(self.nodes),
            ..*op
        }
    }

    /// A settlement of such a hit.
    pub(super) fn of_settlement(self, settlement: Settlement) -> Settlement {
        let whole = |cost: u32| cost.saturating_mul(self.nodes);
        match settlement {
            Settlement::Charge(cost) => Settlement::Charge(whole(cost)),
            Settlement::Refund { cost, age_us } => Settlement::Refund {
                cost: whole(cost),
                age_us,
            },
        }
    }

    pub(super) fn of_ops<'a>(self, batch: &Batch<'a>) -> SmallVec<[Op<'a>; 3]> {
        batch.ops().iter().map(|op| self.of_op(op)).collect()
    }

    /// Whether there is nobody to share with.
    pub(super) fn is_whole(self) -> bool {
        self.nodes == 1
    }

    pub(super) fn of_decision(self, decision: Decision) -> Decision {
        self.part_of(decision).into_degraded()
    }

    /// The same of a decision in which the store has a say as well.
    pub(super) fn part_of(self, decision: Decision) -> Decision {
        decision.into_share(self.nodes, OnError::WAIT)
    }

    /// The cell as it would be had the other nodes taken their parts of what remains: so a hit of
    /// any cost finds in it what this node would admit.
    pub(super) fn of_cell(self, op: &Op<'_>, mut cell: Cell, now: Timestamp) -> Cell {
        if self.nodes == 1 || op.rate.is_unlimited() {
            return cell;
        }
        let whole = op.peek(&mut cell, now).remaining();
        let one = self.of_op(&Op { cost: 1, ..*op });
        // A post-paid hit is admitted before it is paid for, however small the share.
        let least = one.step(&mut cell.clone(), now).is_allowed();
        let own = (whole / u64::from(self.nodes)).max(u64::from(least));
        let cost = u32::try_from(whole - own).unwrap_or(u32::MAX);
        let _ = Op { cost, ..*op }.step(&mut cell, now);
        cell
    }
}
