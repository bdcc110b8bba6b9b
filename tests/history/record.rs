//! Clients that hit a backend at once, and write down what they are told.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use traffik_core::{Backend, Batch, Decisions, Key, Op, Result, Strategy};

use super::event::{Event, Hit, Outcome, Told};
use super::witness::Witness;
use super::world::{DEAREST, GROUP, World};
use crate::support::Random;

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) clients: usize,
    /// Each client ends after so many, or when it is told to.
    pub(super) events: u64,
    /// Whether some hit several cells together.
    pub(super) batches: bool,
    /// Whether different askers ask.
    pub(super) askers: bool,
    pub(super) seed: u64,
    /// All clients turn to the same few cells for so many hits.
    pub(super) stay: u64,
    /// How long a client rests after each.
    pub(super) rest: Duration,
    /// Which groups of cells are hit: the first, and how many, of those that there are.
    pub(super) groups: (usize, usize),
}

pub(super) const ALL: (usize, usize) = (0, usize::MAX);

/// So long that cells are used up.
pub(super) const STAY: u64 = 40;

/// Where events are written while they happen, so that they are known though the process is killed.
pub(super) type Journal = Arc<File>;

pub(super) async fn record(
    backend: Arc<dyn Backend>,
    world: Arc<World>,
    plan: Plan,
    stop: Arc<AtomicBool>,
    journal: Option<Journal>,
) -> Vec<Event> {
    let keys = Arc::new(world.keys_of(&*backend));
    let mut clients = JoinSet::new();
    for client in 0..plan.clients {
        let client = Client {
            backend: Arc::clone(&backend),
            world: Arc::clone(&world),
            keys: Arc::clone(&keys),
            random: Random::new(plan.seed << 16 | client as u64),
            plan,
            journal: journal.clone(),
        };
        clients.spawn(client.run(Arc::clone(&stop)));
    }
    clients.join_all().await.into_iter().flatten().collect()
}

struct Client {
    backend: Arc<dyn Backend>,
    world: Arc<World>,
    keys: Arc<Vec<Key>>,
    random: Random,
    plan: Plan,
    journal: Option<Journal>,
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Vec<Event> {
        let mut events = Vec::new();
        for number in 0..self.plan.events {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let hits = self.choose(number);
            events.push(self.hit(hits).await);
            match self.plan.rest.is_zero() {
                // Else memory, which never waits, would be hit by one after the other.
                true => tokio::task::yield_now().await,
                false => tokio::time::sleep(self.plan.rest).await,
            }
        }
        events
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random.below(end as u64)).expect("below a usize")
    }

    fn choose(&mut self, number: u64) -> Vec<Hit> {
        let stays = usize::try_from(number / self.plan.stay).expect("few");
        // In a while all cells had their turn, whatever their number: it is less than this prime. With 7, of
        // 21 groups three were asked.
        let (first, groups) = self.plan.groups;
        let group = first + stays * 101 % groups.min(self.world.groups() - first);
        let together = match self.plan.batches && self.random.below(3) == 0 {
            true => 2 + self.below(2),
            false => 1,
        };
        let first = self.below(GROUP);
        let asker = match self.plan.askers {
            true => self.below(self.world.askers.len()),
            false => 0,
        };
        (0..together)
            .map(|at| Hit {
                cell: group * GROUP + (first + at) % GROUP,
                cost: self.cost(),
                asker,
            })
            .collect()
    }

    fn cost(&mut self) -> u32 {
        match self.below(16) {
            0 => 0,
            1 => 2,
            2..4 => DEAREST,
            _ => 1,
        }
    }

    async fn hit(&self, hits: Vec<Hit>) -> Event {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let limit = |hit: &Hit| &self.world.limits[hit.cell];
        let witnesses: Vec<_> = hits
            .iter()
            .map(|hit| Witness::of(&limit(hit).strategy))
            .collect();
        let mut event = Event {
            asked_ns: now_ns(),
            answered_ns: u64::MAX,
            hits,
            outcome: Outcome::Lost,
            is_local: false,
        };
        self.write(|| event.question(id));
        let (decided, is_local) = self.decide(&event.hits, &witnesses).await;
        event.is_local = is_local;
        event.outcome = match decided {
            Ok(decisions) => Outcome::Told(told(&decisions, &witnesses)),
            Err(error) if error.is_unexecuted() => Outcome::Unexecuted,
            Err(_) => Outcome::Lost,
        };
        if !event.is_lost() {
            event.answered_ns = now_ns();
        }
        self.write(|| event.answer(id));
        event
    }

    /// The answer, and whether it came without a question to a store.
    async fn decide(&self, hits: &[Hit], witnesses: &[Arc<Witness>]) -> (Result<Decisions>, bool) {
        let strategies: Vec<Arc<dyn Strategy>> = witnesses
            .iter()
            .map(|witness| Arc::clone(witness) as Arc<dyn Strategy>)
            .collect();
        let ops: Vec<Op<'_>> = hits
            .iter()
            .zip(&strategies)
            .map(|(hit, strategy)| Op {
                key: self.keys[hit.cell],
                strategy,
                rate: self.world.limits[hit.cell].rate,
                cost: hit.cost,
                attributes: &self.world.askers[hit.asker],
            })
            .collect();
        let batch = Batch::new(&ops);
        match self.backend.try_apply(&batch) {
            Some(decided) => (decided, true),
            None => (self.backend.apply(&batch).await, false),
        }
    }

    fn write(&self, line: impl FnOnce() -> String) {
        if let Some(journal) = &self.journal {
            // One line is one write, so that lines do not mix.
            (&**journal).write_all(line().as_bytes()).expect("a line");
        }
    }
}

fn told(decisions: &Decisions, witnesses: &[Arc<Witness>]) -> Vec<Told> {
    let both = decisions.iter().zip(witnesses);
    let told = both.map(|(decision, witness)| Told {
        decision: *decision,
        seen: witness.seen(),
    });
    told.collect()
}

/// The same for every process of this machine.
pub(super) fn now_ns() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since_epoch.expect("after 1970").as_nanos()).expect("before 2554")
}
