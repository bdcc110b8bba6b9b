//! A strategy that tells what it was shown.

use std::cell::Cell as Slot;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use traffik_core::strategy::Lua;
use traffik_core::{
    Attributes, Backend, Batch, BoxFuture, Cell, Decision, Decisions, Details, Hit, KeyHasher,
    Lent, Loan, MemoryBackend, Op, Rate, Result, Settlement, Sharing, Strategy, Timestamp,
};

use super::event::Seen;

/// One hit's own.
#[derive(Debug)]
pub(super) struct Witness {
    strategy: Arc<dyn Strategy>,
    seen: Mutex<Option<Seen>>,
}

impl Witness {
    pub(super) fn of(strategy: &Arc<dyn Strategy>) -> Arc<Witness> {
        Arc::new(Witness {
            strategy: Arc::clone(strategy),
            seen: Mutex::default(),
        })
    }

    /// What the last step was shown: a backend may take several, when others come first.
    pub(super) fn seen(&self) -> Option<Seen> {
        self.seen.lock().unwrap().take()
    }
}

impl Strategy for Witness {
    fn id(&self) -> &'static str {
        self.strategy.id()
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        if !MUTED.get() {
            let seen = Seen {
                now: hit.now,
                cell: cell.clone(),
            };
            *self.seen.lock().unwrap() = Some(seen);
        }
        self.strategy.step(cell, hit)
    }

    fn lua(&self, rate: &Rate, cost: u32, attributes: &Attributes) -> Option<Lua> {
        self.strategy.lua(rate, cost, attributes)
    }

    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        self.strategy.settle(cell, hit, settlement)
    }

    fn settle_lua(
        &self,
        rate: &Rate,
        settlement: Settlement,
        attributes: &Attributes,
    ) -> Option<Lua> {
        self.strategy.settle_lua(rate, settlement, attributes)
    }

    fn lends(&self, rate: &Rate, cost: u32) -> bool {
        self.strategy.lends(rate, cost)
    }

    fn lend(&self, cell: &mut Cell, hit: &Hit<'_>, loan: &Loan) -> (Decision, Lent) {
        self.strategy.lend(cell, hit, loan)
    }

    fn lend_lua(
        &self,
        rate: &Rate,
        cost: u32,
        loan: &Loan,
        attributes: &Attributes,
    ) -> Option<Lua> {
        self.strategy.lend_lua(rate, cost, loan, attributes)
    }

    fn sharing(&self) -> Sharing {
        self.strategy.sharing()
    }

    fn parameters(&self) -> String {
        self.strategy.parameters()
    }

    fn validate(&self, rate: &Rate) -> Result<()> {
        self.strategy.validate(rate)
    }

    fn counts(&self) -> bool {
        self.strategy.counts()
    }

    fn grows(&self) -> bool {
        self.strategy.grows()
    }

    fn ordered(&self) -> bool {
        self.strategy.ordered()
    }

    fn coarsen(&self, cell: &mut Cell) -> bool {
        self.strategy.coarsen(cell)
    }

    fn window(&self, rate: &Rate, quota: u64) -> Duration {
        self.strategy.window(rate, quota)
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        self.strategy.details(cell, hit)
    }
}

thread_local! {
    /// Whether steps are not to be looked at.
    static MUTED: Slot<bool> = const { Slot::new(false) };
}

/// Memory behind a store, where a failover repeats what the store has decided: no witness looks.
#[derive(Debug)]
pub(super) struct Muted(pub(super) MemoryBackend);

fn muted<T>(task: impl FnOnce() -> T) -> T {
    MUTED.set(true);
    let done = task();
    MUTED.set(false);
    done
}

impl Backend for Muted {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        muted(|| self.0.apply(batch))
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        muted(|| self.0.load(op))
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        self.0.reset()
    }

    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        muted(|| self.0.try_apply(batch))
    }

    fn try_step(&self, op: &Op<'_>) -> Option<Result<Decision>> {
        muted(|| self.0.try_step(op))
    }

    fn try_load(&self, op: &Op<'_>) -> Option<Result<(Cell, Timestamp)>> {
        muted(|| self.0.try_load(op))
    }

    fn store_id(&self) -> usize {
        self.0.store_id()
    }

    fn is_local(&self) -> bool {
        self.0.is_local()
    }

    fn key_hasher(&self) -> &KeyHasher {
        self.0.key_hasher()
    }
}
