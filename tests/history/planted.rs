//! The checker is checked: a backend with a mistake that it makes now and then is found out.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use traffik_core::{
    Attributes, Backend, Batch, BoxFuture, Cell, Clock, Decision, Decisions, Error, ManualClock,
    Op, Result, SlidingWindowLog, Strategy, Timestamp,
};

use super::check::{Findings, Terms, check};
use super::event::{Event, Hit, Outcome, Seen, Told};
use super::record::{ALL, Plan, STAY, record};
use super::world::{GROUP, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// One hit more than there is room for.
    AdmitsOneMore,
    /// One less.
    DeniesOneTooMany,
    /// What was written meanwhile is overwritten.
    LosesAnUpdate,
    ChargesTwice,
    ChargesWhatItDenies,
    /// The hits of a denied batch that would have been admitted alone.
    ChargesHalfABatch,
    /// A batch of which one hit is not admitted.
    AdmitsHalfABatch,
    ChargesWhatItSaysItDidNot,
    ChargesTheWrongCost,
    ForgetsWhoAsks,
    ForgetsACell,
    /// Decides on what a cell was a while ago, and writes nothing.
    ReadsAnOldCell,
    TellsTooMuch,
    TellsTooShortAWait,
    TellsTooLongAReset,
    /// Decides in another order than it tells.
    TellsAnEarlierTime,
    /// Restores a cell as after a loss, but not quite what it was.
    InventsACell,
}

const MISTAKES: [Mistake; 17] = [
    Mistake::AdmitsOneMore,
    Mistake::DeniesOneTooMany,
    Mistake::LosesAnUpdate,
    Mistake::ChargesTwice,
    Mistake::ChargesWhatItDenies,
    Mistake::ChargesHalfABatch,
    Mistake::AdmitsHalfABatch,
    Mistake::ChargesWhatItSaysItDidNot,
    Mistake::ChargesTheWrongCost,
    Mistake::ForgetsWhoAsks,
    Mistake::ForgetsACell,
    Mistake::ReadsAnOldCell,
    Mistake::TellsTooMuch,
    Mistake::TellsTooShortAWait,
    Mistake::TellsTooLongAReset,
    Mistake::TellsAnEarlierTime,
    Mistake::InventsACell,
];

/// A map behind a mutex, which is right but for its mistake.
#[derive(Debug)]
struct Mistaken {
    mistake: Mistake,
    /// As fast as hits come, whatever the machine is busy with.
    clock: ManualClock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cells: HashMap<String, Cell>,
    /// What was stored, oldest first.
    old: HashMap<String, VecDeque<Cell>>,
    decisions: u64,
    chances: u64,
}

/// It makes the mistake at every so many-th chance.
const RARELY: u64 = 23;

/// So many states ago a cell was old.
const OLD: usize = 5;

impl Mistaken {
    fn new(mistake: Mistake) -> Mistaken {
        Mistaken {
            mistake,
            clock: ManualClock::default(),
            state: Mutex::default(),
        }
    }

    fn decide(&self, batch: &Batch<'_>) -> Result<Decisions> {
        let mut state = self.state.lock().unwrap();
        self.clock.advance_micros(state.decisions % 3 * 150);
        state.decisions += 1;
        let mut now = self.clock.now();
        if self.makes(Mistake::TellsAnEarlierTime, &mut state) {
            now = Timestamp::from_micros(now.as_micros() - 20_000);
        }
        let names: Vec<String> = batch.ops().iter().map(|op| op.key.text()).collect();
        let cell = |name: &String| state.cells.get(name).cloned().unwrap_or_default();
        let before: Vec<Cell> = names.iter().map(cell).collect();
        let mut cells = before.clone();
        let mut writes = true;
        if let Some(old) = state
            .old
            .get(&names[0])
            .and_then(|old| old.front())
            .cloned()
            && !old.is_expired(now)
            && self.makes(Mistake::ReadsAnOldCell, &mut state)
        {
            cells[0] = old;
            writes = false;
        }
        let ops = match self.makes(Mistake::ForgetsWhoAsks, &mut state) {
            true => batch
                .ops()
                .iter()
                .map(|op| Op {
                    attributes: &Attributes::NONE,
                    ..*op
                })
                .collect(),
            false => batch.ops().to_vec(),
        };
        let mut decisions = Batch::new(&ops).decide(&mut cells, now);
        let verdict = self.spoil(batch, now, &mut state, &mut cells, &before, &mut decisions);
        if writes {
            for (name, cell) in names.into_iter().zip(cells) {
                let old = state.old.entry(name.clone()).or_default();
                old.push_back(cell.clone());
                if old.len() > OLD {
                    old.pop_front();
                }
                state.cells.insert(name, cell);
            }
        }
        verdict.map(|()| decisions)
    }

    fn spoil(
        &self,
        batch: &Batch<'_>,
        now: Timestamp,
        state: &mut State,
        cells: &mut [Cell],
        before: &[Cell],
        decisions: &mut Decisions,
    ) -> Result<()> {
        let ops = batch.ops();
        let (admitted, several, first) = (decisions.is_allowed(), ops.len() > 1, decisions[0]);
        let charged = admitted && cells[0] != before[0];
        let mut makes = |mistake, chance: bool| chance && self.makes(mistake, state);
        if makes(Mistake::AdmitsOneMore, !admitted) {
            for decision in &mut **decisions {
                *decision = Decision::allow(decision.limit(), decision.remaining())
                    .resets_in(reset(decision));
            }
        }
        if makes(Mistake::DeniesOneTooMany, charged) {
            cells.clone_from_slice(before);
            decisions[0] =
                Decision::deny(first.limit(), first.remaining(), 1).resets_in(reset(&first));
        }
        if makes(Mistake::LosesAnUpdate, charged) {
            cells.clone_from_slice(before);
        }
        if makes(Mistake::ChargesTwice, charged) {
            let _ = ops[0].step(&mut cells[0], now);
        }
        if makes(
            Mistake::ChargesWhatItDenies,
            !several && first.is_denied() && first.remaining() > 0,
        ) {
            let _ = Op { cost: 1, ..ops[0] }.step(&mut cells[0], now);
        }
        if makes(
            Mistake::ChargesHalfABatch,
            several && !admitted && first.is_allowed(),
        ) {
            let _ = ops[0].step(&mut cells[0], now);
        }
        if makes(Mistake::AdmitsHalfABatch, several && charged) {
            cells[0] = before[0].clone();
        }
        if makes(Mistake::ChargesTheWrongCost, charged && ops[0].cost > 1) {
            cells[0] = before[0].clone();
            let _ = Op { cost: 1, ..ops[0] }.step(&mut cells[0], now);
        }
        if makes(
            Mistake::ForgetsACell,
            !admitted && !cells[0].is_expired(now),
        ) {
            cells[0] = Cell::fresh();
        }
        if makes(
            Mistake::InventsACell,
            !admitted && cells[0].words().len() == 2,
        ) {
            let words = cells[0].words();
            let invented = [words[0], words[1] ^ 1];
            let expires = cells[0].expires();
            cells[0].set(&invented, expires);
        }
        let spoilt = &mut decisions[0];
        let wait = u64::try_from(first.wait().as_micros()).unwrap();
        if makes(Mistake::TellsTooMuch, admitted) {
            *spoilt =
                Decision::allow(first.limit(), first.remaining() + 1).resets_in(reset(&first));
        }
        if makes(Mistake::TellsTooShortAWait, wait > 0) {
            *spoilt =
                Decision::deny(first.limit(), first.remaining(), wait - 1).resets_in(reset(&first));
        }
        if makes(Mistake::TellsTooLongAReset, true) {
            *spoilt = spoilt.resets_in(reset(&first) + 1);
        }
        match makes(Mistake::ChargesWhatItSaysItDidNot, charged) {
            true => Err(Error::contended("it was charged all the same")),
            false => Ok(()),
        }
    }

    fn makes(&self, mistake: Mistake, state: &mut State) -> bool {
        if mistake != self.mistake {
            return false;
        }
        state.chances += 1;
        state.chances.is_multiple_of(RARELY)
    }
}

fn reset(decision: &Decision) -> u64 {
    u64::try_from(decision.reset().as_micros()).unwrap()
}

impl Backend for Mistaken {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(async {
            // Let others come in between, as they do on the way to a server and back.
            tokio::task::yield_now().await;
            let decided = self.decide(batch);
            tokio::task::yield_now().await;
            decided
        })
    }

    fn load<'a>(&'a self, _: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        unreachable!("histories do not look")
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        unreachable!("histories do not reset")
    }
}

async fn history_of(mistake: Mistake, terms: Terms) -> Findings {
    history_by(7, mistake, terms).await
}

async fn history_by(seed: u64, mistake: Mistake, terms: Terms) -> Findings {
    let world = Arc::new(World::new());
    let plan = Plan {
        clients: 6,
        // Each comes by every group of cells.
        events: 1_000,
        batches: true,
        askers: true,
        seed,
        stay: STAY,
        rest: Duration::ZERO,
        groups: ALL,
    };
    let backend = Arc::new(Mistaken::new(mistake));
    let never = Arc::new(AtomicBool::new(false));
    let events = record(backend, Arc::clone(&world), plan, never, None).await;
    check(&world, &events, terms)
}

#[tokio::test]
async fn every_planted_mistake_is_found_and_nothing_else() {
    for by_store_time in [true, false] {
        let terms = Terms {
            by_store_time,
            ..Terms::default()
        };
        let right = history_of(Mistake::None, terms).await;
        assert_eq!(right.violations, [""; 0]);
        assert_eq!(right.checked, 6_000);
        for mistake in MISTAKES {
            // Without a time of the store, one that runs backwards breaks no promise.
            if mistake == Mistake::TellsAnEarlierTime && !by_store_time {
                continue;
            }
            let wrong = history_of(mistake, terms).await;
            assert!(!wrong.violations.is_empty(), "{mistake:?} is not noticed");
        }
    }
}

/// A hit on a cell that had been forgotten looked right on what the cell was before as well, so nothing else was tried, and what
/// came after it had no order.
#[tokio::test]
async fn a_hit_that_looks_right_on_a_forgotten_cell_was_taken_for_the_next() {
    let terms = Terms {
        by_store_time: true,
        forgets: true,
        ..Terms::default()
    };
    // Of 190 seeds the only one.
    let forgot = history_by(193, Mistake::ForgetsACell, terms).await;
    assert_eq!(forgot.violations, [""; 0]);
    assert!(forgot.forgotten > 0);
}

/// A window was evicted and restored by a process that remembered it a hit ago, between two logs that were spared: of logs a
/// witness is shown an excerpt, so they were taken for lost as well, and no order was found.
#[test]
fn a_window_restored_beside_logs_that_were_spared_has_an_order() {
    let world = World::of(|strategy| strategy.id() == SlidingWindowLog.id());
    let hits: Vec<Hit> = (0..GROUP)
        .map(|cell| Hit {
            cell,
            cost: 1,
            asker: 0,
        })
        .collect();
    let mut cells = vec![Cell::fresh(); GROUP];
    let mut window = Vec::new();
    let mut events = Vec::new();
    for at in 1..=5 {
        window.push(cells[2].clone());
        if at == 4 {
            cells[2] = window[2].clone();
        }
        let ms = 1_000 + at;
        let now = Timestamp::from_micros(ms * 1_000);
        let seen: Vec<Cell> = cells.iter().map(excerpt).collect();
        let decisions = world.decide(&hits, &mut cells, now);
        let told = seen
            .into_iter()
            .zip(&*decisions)
            .map(|(cell, decision)| Told {
                decision: *decision,
                seen: Some(Seen { now, cell }),
            });
        events.push(Event {
            asked_ns: ms * 1_000_000 - 1,
            answered_ns: ms * 1_000_000 + 1,
            hits: hits.clone(),
            outcome: Outcome::Told(told.collect()),
            is_local: false,
        });
    }
    let mut terms = Terms {
        by_store_time: true,
        ..Terms::default()
    };
    assert_eq!(check(&world, &events, terms).violations.len(), 1);
    terms.forgets = true;
    let found = check(&world, &events, terms);
    assert_eq!(found.violations, [""; 0]);
    assert_eq!((found.checked, found.forgotten), (5, 1));
}

/// Of a log, its last entry.
fn excerpt(cell: &Cell) -> Cell {
    let Some(last) = cell.queue().and_then(|queue| queue.items().last()) else {
        return cell.clone();
    };
    let mut excerpt = Cell::fresh();
    excerpt.set(cell.words(), Timestamp::EPOCH);
    excerpt.queue_mut().push(*last);
    excerpt
}

/// What a store forgets is what it once knew: else a loss would excuse everything.
///
/// On one thread, where hits overlap as well, but each time in the same way: on two it was up to how busy the machine was.
#[tokio::test]
async fn a_loss_excuses_nothing_else() {
    let terms = Terms {
        by_store_time: true,
        forgets: true,
        ..Terms::default()
    };
    let forgot = history_of(Mistake::ForgetsACell, terms).await;
    assert_eq!(forgot.violations, [""; 0]);
    assert!(forgot.forgotten > 0);
    let right = history_of(Mistake::None, terms).await;
    assert_eq!((right.violations.len(), right.forgotten), (0, 0));
    for mistake in [
        Mistake::AdmitsOneMore,
        Mistake::ChargesTwice,
        Mistake::TellsTooMuch,
        Mistake::InventsACell,
    ] {
        let wrong = history_of(mistake, terms).await;
        assert!(!wrong.violations.is_empty(), "{mistake:?} is excused");
    }
}
