//! One cell and a clock, for tests that tell a story. As in a store, what has expired is gone.

use std::time::Duration;

use super::{Details, Hit, Settlement, Strategy};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::time::{Timestamp, micros};

pub(super) struct Trial<'a> {
    pub(super) strategy: &'a dyn Strategy,
    pub(super) rate: Rate,
    pub(super) cell: Cell,
    pub(super) now: Timestamp,
    pub(super) who: Attributes,
}

impl<'a> Trial<'a> {
    /// Begins at the first instant of 2024.
    pub(super) fn of(strategy: &'a dyn Strategy, rate: &'static str) -> Trial<'a> {
        let rate = Rate::literal(rate);
        strategy
            .validate(&rate)
            .expect("the rate suits the strategy");
        Trial {
            strategy,
            rate,
            cell: Cell::fresh(),
            now: Timestamp::from_micros(1_704_067_200_000_000),
            who: Attributes::NONE,
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now = self.now.plus_micros(micros(by));
        if self.cell.is_expired(self.now) {
            self.cell = Cell::fresh();
        }
    }

    pub(super) fn hit(&mut self, cost: u32) -> Decision {
        let mut cell = std::mem::take(&mut self.cell);
        let decision = self.strategy.step(&mut cell, &self.hit_of(cost));
        self.cell = cell;
        decision
    }

    pub(super) fn settle(&mut self, settlement: Settlement) -> bool {
        let mut cell = std::mem::take(&mut self.cell);
        let changed = self.strategy.settle(&mut cell, &self.hit_of(1), settlement);
        self.cell = cell;
        changed
    }

    /// How many of so many hits of cost 1 pass.
    pub(super) fn admitted_of(&mut self, hits: usize) -> usize {
        (0..hits).filter(|_| self.hit(1).is_allowed()).count()
    }

    pub(super) fn details(&self) -> Details {
        self.strategy.details(&self.cell, &self.hit_of(1))
    }

    fn hit_of(&self, cost: u32) -> Hit<'_> {
        Hit {
            now: self.now,
            rate: &self.rate,
            cost,
            attributes: &self.who,
        }
    }
}
