//! More than one hit's worth of a limit, taken at once to be spent elsewhere.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Hit, Lua, Strategy, same_strategy_as};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::identity::Attributes;
use crate::rate::Rate;

/// What somebody asks of a cell who will decide hits without asking: to be lent something, and to
/// take back what was not spent of what was lent before.
///
/// What is lent may be spent before it ends, and after that no more. How long that is the one who
/// spends it measures from *before* the question, on a clock that does not step, and less what
/// clocks differ: so no two clocks are compared. What was given back must not be spent, and neither
/// must be given back twice: a question without an answer is not repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Loan {
    /// How much to lend at most.
    pub want: u32,
    /// For how long, in microseconds; at most an hour. What has been lent already goes on as it
    /// began, and what is lent beside it, too: see [`Lent::lasts_us`].
    pub length_us: u64,
    /// How much is given back.
    pub back: u32,
    /// How much of the same has been spent since it was lent.
    pub spent: u32,
    /// The [term](Lent::term) of what is given back; 0 if nothing was lent.
    pub back_of: u64,
}

/// What was lent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lent {
    /// How much: it was taken like a hit of that cost.
    pub amount: u32,
    /// What names it when it is given back; never 0 if something was lent.
    pub term: u64,
    /// How long the cell counts it, in microseconds from when the step was made. It must not be spent
    /// any later, nor after what was [asked for](Loan::length_us).
    pub lasts_us: u64,
    /// Whether the cell still knew of [`Loan::back_of`]. If not, it has ended or was lost, nothing was
    /// taken back, and what is left of it is void.
    pub known: bool,
    /// What could still be lent.
    pub free: u64,
}

impl Loan {
    /// What becomes of a count that began at `start`, if the cost fits into it; given how long it
    /// lasts.
    pub(super) fn of_count(
        &self,
        start: u64,
        count: u64,
        cost: u32,
        limit: u64,
        lasts_us: u64,
    ) -> Option<(u64, Lent)> {
        let term = start.saturating_add(1);
        let known = self.back_of == term && count >= self.back.into();
        let count = match known {
            true => count.saturating_sub(self.back.into()),
            false => count,
        };
        let available = limit.saturating_sub(count);
        let rest = available.checked_sub(cost.into())?;
        let amount = u32::try_from(rest).unwrap_or(u32::MAX).min(self.want);
        let lent = Lent {
            amount,
            term,
            lasts_us,
            known,
            free: rest - u64::from(amount),
        };
        let after = count.saturating_add(cost.into()) + u64::from(amount);
        Some((after, lent))
    }

    fn asks_nothing(&self) -> bool {
        (self.want, self.back, self.spent, self.back_of) == (0, 0, 0, 0)
    }

    /// How much to lend, how much comes back of what: for `lend.lua`.
    pub(super) fn words(self) -> [u64; 3] {
        let back_of = self.back_of.min(Cell::WORD_LIMIT - 1);
        [self.want.into(), self.back.into(), back_of]
    }
}

/// A strategy whose step lends: an operation with it, at a cost of 1, is a hit of some cost, or of
/// none, and a loan, on any backend, in the trips that are made anyway. It is denied if the hit is,
/// and then nothing is lent, nor taken back.
#[cfg_attr(
    not(feature = "testing"),
    allow(dead_code, reason = "the backend that leases")
)]
#[derive(Debug)]
pub(crate) struct Lending {
    strategy: Arc<dyn Strategy>,
    cost: u32,
    loan: Loan,
    lent: Mutex<(Lent, Decision)>,
}

#[cfg_attr(
    not(feature = "tokio"),
    allow(dead_code, reason = "the backend that leases")
)]
impl Lending {
    /// A hit and a loan of cells of `strategy`.
    pub(crate) fn of(strategy: &Arc<dyn Strategy>, cost: u32, loan: Loan) -> Arc<Lending> {
        Arc::new(Lending {
            strategy: Arc::clone(strategy),
            cost,
            loan,
            lent: Mutex::new((Lent::default(), Decision::UNLIMITED)),
        })
    }

    /// What was lent, once a backend has answered: backends may run a step more than once, and the
    /// last one counts. It means nothing if the batch was denied.
    pub(crate) fn lent(&self) -> Lent {
        self.slot().0
    }

    /// What a hit of the same cost is told after this, or of one if this costs nothing; asked if not
    /// all was lent that was wanted.
    pub(crate) fn next(&self) -> Decision {
        self.slot().1
    }

    fn slot(&self) -> MutexGuard<'_, (Lent, Decision)> {
        // It is plain data.
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Strategy for Lending {
    same_strategy_as!(strategy);

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        if hit.cost == 0 {
            return self.strategy.step(cell, hit);
        }
        let hit = Hit {
            cost: self.cost,
            ..*hit
        };
        let (decision, lent) = self.strategy.lend(cell, &hit, &self.loan);
        let next = match decision.is_allowed() && lent.amount < self.loan.want {
            true => {
                let cost = self.cost.max(1);
                self.strategy.step(&mut cell.clone(), &Hit { cost, ..hit })
            }
            false => decision,
        };
        *self.slot() = (lent, next);
        decision
    }

    fn lua(&self, rate: &Rate, _cost: u32, attributes: &Attributes) -> Option<Lua> {
        match self.cost {
            // What asks for nothing is a step.
            1.. if self.loan.asks_nothing() => self.strategy.lua(rate, self.cost, attributes),
            cost => self.strategy.lend_lua(rate, cost, &self.loan, attributes),
        }
    }

    fn is_correction(&self) -> bool {
        true
    }

    fn gives_back(&self) -> bool {
        self.loan.back_of != 0
    }

    /// Cells that lend become less when something comes back, from whomever.
    fn grows(&self) -> bool {
        false
    }
}
