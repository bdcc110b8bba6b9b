//! Whether hits whose answer was lost, but which were charged, explain what a witness saw.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use traffik_core::{Cell, Timestamp};

use super::event::{Event, Hit, Seen, is_same};
use super::world::{DEAREST, World};

pub(super) struct Explain<'a> {
    pub(super) world: &'a World,
    /// What came next, and what it saw.
    pub(super) event: &'a Event,
    pub(super) seen: &'a [&'a Seen],
    pub(super) lost: &'a [&'a Event],
    pub(super) done: &'a [bool],
    /// Nothing is decided earlier, but for clocks that differ.
    pub(super) since: Timestamp,
    /// Times that cells were seen with, and at which nothing was decided that was answered.
    pub(super) orphans: &'a BTreeSet<Timestamp>,
    /// How much was tried, in all.
    pub(super) tries: &'a std::cell::Cell<u64>,
}

type Cells = BTreeMap<usize, Cell>;

/// So many cells are tried at most.
const MOST: usize = 20_000;

/// So many ways are told of at most: when it was decided, what is not seen yet may depend on.
const WAYS: usize = 32;

impl Explain<'_> {
    /// Some of the lost, in their order, and what the cells then are: for those of the event, what was
    /// seen, or what the same is decided on. Nobody knows when the lost were decided, but the cells that were seen were made of those
    /// times: all that they may have been made of are tried.
    ///
    /// One lost hit in all ways that there are; several, which take much longer to try, in the first way that is found.
    pub(super) fn by_lost(&self, cells: &Cells, most: usize) -> Vec<(Vec<usize>, Cells)> {
        let available: Vec<usize> = (0..self.lost.len())
            .filter(|at| !self.done[*at] && self.lost[*at].asked_ns <= self.event.answered_ns)
            .filter(|at| {
                self.lost[*at]
                    .hits
                    .iter()
                    .all(|hit| cells.contains_key(&hit.cell))
            })
            .collect();
        let mut ways: Vec<(Vec<usize>, Cells)> = Vec::new();
        let mut tried = HashSet::new();
        let mut paths = vec![(Vec::new(), cells.clone())];
        // Depth first, and of equal hits only the first: which of them it was makes no difference.
        while let Some((path, cells)) = paths.pop() {
            if !path.is_empty() && self.is_seen(&cells) {
                ways.push((path, cells));
                match most {
                    1 if ways.len() < WAYS => continue,
                    _ => break,
                }
            }
            if path.len() == most {
                continue;
            }
            let mut kinds: BTreeSet<Vec<(usize, u32, usize)>> = BTreeSet::new();
            for at in available.iter().filter(|at| !path.contains(*at)) {
                let hits = &self.lost[*at].hits;
                let kind = hits
                    .iter()
                    .map(|hit| (hit.cell, hit.cost, hit.asker))
                    .collect();
                if !kinds.insert(kind) {
                    continue;
                }
                for now in self.times(self.lost[*at], &cells) {
                    self.tries.set(self.tries.get() + 1);
                    let Some(after) = self.charged(hits, &cells, now) else {
                        continue;
                    };
                    let known: Vec<u8> = after.values().flat_map(Cell::encode).collect();
                    if tried.len() < MOST && tried.insert(known) {
                        paths.push(([&path[..], &[*at]].concat(), after));
                    }
                }
            }
        }
        ways
    }

    fn is_seen(&self, cells: &Cells) -> bool {
        let mut hits = self.event.hits.iter().zip(self.seen);
        if hits.all(|(hit, seen)| cells[&hit.cell] == seen.cell) {
            return true;
        }
        let cell = |hit: &Hit| cells[&hit.cell].clone();
        let mut of_event: Vec<Cell> = self.event.hits.iter().map(cell).collect();
        let decisions = self
            .world
            .decide(&self.event.hits, &mut of_event, self.event.time());
        let told = self.event.told().iter().map(|told| &told.decision);
        decisions
            .iter()
            .zip(told)
            .all(|(model, told)| is_same(model, told))
    }

    fn charged(&self, hits: &[Hit], cells: &Cells, now: Timestamp) -> Option<Cells> {
        let mut charged: Vec<Cell> = hits.iter().map(|hit| cells[&hit.cell].clone()).collect();
        let decisions = self.world.decide(hits, &mut charged, now);
        let mut after = cells.clone();
        after.extend(hits.iter().map(|hit| hit.cell).zip(charged));
        (decisions.is_allowed() && after != *cells).then_some(after)
    }

    /// When a lost hit may have been decided, the likeliest last.
    fn times(&self, lost: &Event, cells: &Cells) -> Vec<Timestamp> {
        let asked = lost.asked_ns / 1_000;
        let mut times = vec![asked, self.seen[0].now.as_micros(), self.since.as_micros()];
        for (hit, seen) in self.event.hits.iter().zip(self.seen) {
            let limit = &self.world.limits[hit.cell];
            let period = limit.rate.period_us();
            for cell in [&seen.cell, &cells[&hit.cell]] {
                let expires = cell.expires().as_micros();
                let queue = cell.queue().map_or(&[][..], |queue| queue.items());
                let words = cell.words().iter().copied();
                let all = words.chain(queue.iter().flatten().copied());
                for word in all.chain([expires]) {
                    times.extend([word, word.saturating_mul(1_000)]);
                    for cost in 1..=DEAREST {
                        let price = limit.rate.time_for(cost.into());
                        times.push(word.saturating_sub(price.micros()));
                        times.push(word.saturating_sub(price.ceil()));
                    }
                    for periods in 1..=3 {
                        times.push(word.saturating_sub(periods * period));
                    }
                }
            }
        }
        // The store's clock and ours are read one after the other.
        let earliest = Timestamp::from_micros(asked.saturating_sub(10_000));
        let latest = Timestamp::from_micros(self.event.answered_ns / 1_000 + 10_000);
        let times: BTreeSet<Timestamp> = times.into_iter().map(Timestamp::from_micros).collect();
        let mut possible: Vec<Timestamp> = times.range(earliest..=latest).copied().collect();
        possible.extend(self.orphans.range(earliest..=latest));
        possible
    }
}
