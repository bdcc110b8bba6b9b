//! Corrections of what a cell was charged.

use std::sync::Arc;

use super::{Hit, Lua, Strategy, same_strategy_as};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::time::Timestamp;

/// A correction of what a cell was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// Takes so much, whether it fits or not: for hits that were admitted elsewhere. What is taken
    /// beyond the limit holds back the hits that follow, as far as the strategy remembers: a bucket
    /// until it has drained, a window until it ends.
    ///
    /// `Charge(0)` takes nothing, but brings an instant back that is further ahead than any can
    /// honestly be: the clock stepped back, or the rate was changed. Backends do so after a denial.
    Charge(u32),
    /// Gives back what a hit was charged and did not use, as far as it cannot have drained since.
    Refund {
        /// How much.
        cost: u32,
        /// How long ago the hit was charged, in microseconds, rounded up: who says more gets less
        /// back.
        age_us: u64,
    },
}

/// By how much clocks differ of threads that overtake each other, and a little more: an instant that
/// is ahead by less is nobody's mistake.
pub(super) const CLOCK_SLACK_US: u64 = 1_000_000;

impl Settlement {
    /// What becomes of a count that began so long ago, and reaches `most` at most.
    pub(super) fn of_count(self, count: u64, elapsed_us: u64, most: u64) -> u64 {
        match self {
            Settlement::Charge(cost) => count.max(count.saturating_add(cost.into()).min(most)),
            Settlement::Refund { cost, age_us } if age_us <= elapsed_us => {
                count.saturating_sub(cost.into())
            }
            Settlement::Refund { .. } => count,
        }
    }

    /// Whether it is a refund, how much of what, and the age: for `settle.lua`.
    pub(super) fn words(self) -> [u64; 3] {
        match self {
            Settlement::Charge(cost) => [0, cost.into(), 0],
            Settlement::Refund { cost, age_us } => {
                [1, cost.into(), age_us.min(Cell::WORD_LIMIT - 1)]
            }
        }
    }
}

/// What a strategy does that knows of no settlements: it takes what fits, and returns nothing.
pub(super) fn by_steps<S: Strategy + ?Sized>(
    strategy: &S,
    cell: &mut Cell,
    hit: &Hit<'_>,
    settlement: Settlement,
) -> bool {
    let Settlement::Charge(cost @ 1..) = settlement else {
        return false;
    };
    let available = strategy.step(cell, &Hit { cost: 0, ..*hit }).remaining();
    let cost = cost.min(u32::try_from(available).unwrap_or(u32::MAX));
    cost > 0 && strategy.step(cell, &Hit { cost, ..*hit }).is_allowed()
}

/// A strategy whose step settles: an operation with it, at a cost of 1, is a settlement on any
/// backend, in the trips that are made anyway. It is always admitted, and tells what is left.
#[derive(Debug)]
pub(crate) struct Settling {
    strategy: Arc<dyn Strategy>,
    settlement: Settlement,
}

impl Settling {
    /// A settlement of cells of `strategy`.
    pub(crate) fn of(strategy: &Arc<dyn Strategy>, settlement: Settlement) -> Arc<dyn Strategy> {
        Arc::new(Settling {
            strategy: Arc::clone(strategy),
            settlement,
        })
    }
}

impl Strategy for Settling {
    same_strategy_as!(strategy);

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        if hit.cost > 0 {
            self.strategy.settle(cell, hit, self.settlement);
        }
        self.strategy.step(cell, &Hit { cost: 0, ..*hit })
    }

    fn lua(&self, rate: &Rate, _cost: u32, attributes: &Attributes) -> Option<Lua> {
        self.strategy.settle_lua(rate, self.settlement, attributes)
    }

    fn is_correction(&self) -> bool {
        true
    }

    fn gives_back(&self) -> bool {
        matches!(self.settlement, Settlement::Refund { .. })
    }

    fn settlement(&self) -> Option<Settlement> {
        Some(self.settlement)
    }

    /// Only a charge makes a cell greater.
    fn grows(&self) -> bool {
        matches!(self.settlement, Settlement::Charge(1..)) && self.strategy.grows()
    }
}

/// How long ago an instant was; zero if it is yet to come.
pub(super) fn elapsed(since_us: u64, now: Timestamp) -> u64 {
    now.as_micros().saturating_sub(since_us)
}
