//! Strategies that only say what they would do.

use std::sync::Arc;

use super::{Hit, Lua, Settlement, Strategy, same_strategy_as};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::identity::Attributes;
use crate::rate::Rate;

/// A strategy that never denies: where the one it wraps would, nothing is charged, and the decision says so. So
/// it can be in one batch with others, in the same trip: it stops nobody, and if another denies, what it charged
/// is undone like everything else.
#[derive(Debug)]
pub(crate) struct Shadowing {
    strategy: Arc<dyn Strategy>,
}

impl Shadowing {
    pub(crate) fn of(strategy: &Arc<dyn Strategy>) -> Arc<dyn Strategy> {
        Arc::new(Shadowing {
            strategy: Arc::clone(strategy),
        })
    }
}

impl Strategy for Shadowing {
    same_strategy_as!(strategy);

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let decision = self.strategy.step(cell, hit);
        if decision.is_denied() {
            // Backends do so after denials, and see none.
            self.strategy.settle(cell, hit, Settlement::Charge(0));
        }
        decision.into_shadow()
    }

    fn lua(&self, rate: &Rate, cost: u32, attributes: &Attributes) -> Option<Lua> {
        Some(self.strategy.lua(rate, cost, attributes)?.lenient())
    }

    /// No denial of it may be remembered, and none counts on being admitted.
    fn is_correction(&self) -> bool {
        true
    }

    fn grows(&self) -> bool {
        self.strategy.grows()
    }
}
