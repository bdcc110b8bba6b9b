//! Looks for an order of what happened, one hit after the other, in which the model would have
//! decided the same, and in which nothing comes before what was over when it began.
//!
//! After Wing and Gong, [Testing and verifying concurrent
//! objects](https://doi.org/10.1006/jpdc.1993.1015), with Lowe's memory of where nothing was found:
//! a depth-first search over what may come next, for each set of cells that were hit together. Where the store tells its time, the order is that of
//! its times, and only what it decided at the same microsecond is permuted. The model decides at the
//! time that the backend decided at, which a [witness](super::witness) tells.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use traffik_core::{Cell, Decision, Timestamp};

use super::event::{Event, Hit, Seen, is_same};
use super::explain::Explain;
use super::kept;
use super::world::World;

/// What the backend promises.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terms {
    /// Whether it decides in the order of the times it tells.
    pub(super) by_store_time: bool,
    /// Whether cells may become what they once were: the store was lost.
    pub(super) forgets: bool,
    /// Whether its clock steps back: then bounds are about the latest that it ever showed.
    pub(super) steps_back: bool,
    /// Whether some strategies are counted before they are asked: who is at the edge of a window sees
    /// increments of those for whom it is over. Only their bound is promised.
    pub(super) counts_first: bool,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// Decisions that have their place in the order.
    pub(super) checked: u64,
    /// Hits without an answer that must have been charged.
    pub(super) charged: u64,
    pub(super) lost: u64,
    /// How often a cell became what it once was.
    pub(super) forgotten: u64,
    /// Sets of cells for which no order was found, but hits without an answer may explain it: nobody knows
    /// when these were charged, and not all times can be tried.
    pub(super) unexplained: u64,
    /// Sets of cells whose history has no order.
    pub(super) violations: Vec<String>,
    /// Of which none was found within the bounds of the search.
    pub(super) undecided: u64,
}

/// Checks a history, up to the first set of cells that has no order.
pub(super) fn check(world: &World, events: &[Event], terms: Terms) -> Findings {
    let mut findings = Findings::default();
    for events in connected(world, events) {
        if !findings.violations.is_empty() {
            break;
        }
        let counts = |hit: &Hit| world.limits[hit.cell].strategy.counts();
        if terms.counts_first && events.iter().any(|event| event.hits.iter().any(counts)) {
            continue;
        }
        // Only what has no order without it was forgotten.
        let strict = Terms {
            forgets: false,
            ..terms
        };
        let mut search = Search::new(world, events.clone(), strict);
        let mut found = search.run();
        if terms.forgets && found != Found::Order {
            search = Search::new(world, events.clone(), terms);
            found = search.run();
        }
        if found != Found::Order {
            kept::keep(&events, terms);
        }
        findings.checked += search.deepest as u64;
        findings.charged += search.charged() as u64;
        findings.lost += search.lost.len() as u64;
        findings.forgotten += search.frames.iter().map(|frame| frame.forgot).sum::<u64>();
        match found {
            Found::Order => {}
            _ if !search.lost.is_empty() => {
                findings.unexplained += 1;
                if std::env::var_os("TRAFFIK_HISTORY_STORIES").is_some() {
                    eprintln!("unexplained: {}", search.story());
                }
            }
            Found::None => findings.violations.push(search.story()),
            Found::Undecided => {
                findings.undecided += 1;
                findings
                    .violations
                    .push(format!("undecided: {}", search.story()));
            }
        }
    }
    findings
}

/// The events of cells that were never hit together, apart.
fn connected<'a>(world: &World, events: &'a [Event]) -> Vec<Vec<&'a Event>> {
    let mut root: Vec<usize> = (0..world.limits.len()).collect();
    fn find(root: &mut [usize], mut of: usize) -> usize {
        while root[of] != of {
            root[of] = root[root[of]];
            of = root[of];
        }
        of
    }
    for event in events {
        let first = find(&mut root, event.hits[0].cell);
        for hit in &event.hits[1..] {
            let other = find(&mut root, hit.cell);
            root[other] = first;
        }
    }
    let mut parts: BTreeMap<usize, Vec<&Event>> = BTreeMap::new();
    for event in events {
        let part = find(&mut root, event.hits[0].cell);
        parts.entry(part).or_default().push(event);
    }
    parts.into_values().collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Order,
    None,
    Undecided,
}

/// So many hits before one that cannot be explained something extraordinary is looked for.
const NEAR: usize = 24;

type Tries = std::cell::Cell<u64>;

/// A few seconds of a busy machine. Without hits whose answer was lost there are none.
const MOST_TRIES: u64 = 100_000;

struct Search<'a> {
    world: &'a World,
    terms: Terms,
    /// Which were answered, by the time of the store, or by when they were asked.
    events: Vec<&'a Event>,
    /// Which may or may not have happened.
    lost: Vec<&'a Event>,
    /// Times that cells were seen with, and at which none of those that were answered was decided.
    orphans: BTreeSet<Timestamp>,
    cells: BTreeMap<usize, Cell>,
    done: Vec<bool>,
    lost_done: Vec<bool>,
    /// All before it are done.
    first: usize,
    frames: Vec<Frame>,
    dead: HashSet<(u64, u64)>,
    /// Of what is done.
    done_hash: u64,
    /// What cells have been, the latest last.
    past: HashMap<usize, Vec<Cell>>,
    steps: u64,
    /// How many cells were made of lost hits to explain one that was seen.
    tries: Tries,
    deepest: usize,
    /// Where nothing came next, and what the cells were.
    stuck: Option<(Vec<usize>, BTreeMap<usize, Cell>)>,
}

/// What may be extraordinary about the next.
#[derive(Clone, Copy, Debug)]
struct Odd {
    /// Whether cells were forgotten.
    forgot: bool,
    /// So many hits at most were charged whose answer was lost.
    lost: usize,
}

impl Odd {
    const fn new(forgot: bool, lost: usize) -> Odd {
        Odd { forgot, lost }
    }

    /// What takes the least to explain first: to try many hits that were lost takes longer than all else.
    const ALL: [Odd; 5] = [
        Odd::new(false, 1),
        Odd::new(true, 0),
        Odd::new(true, 1),
        Odd::new(false, usize::MAX),
        Odd::new(true, usize::MAX),
    ];
}

/// Something that may come next.
#[derive(Clone, Debug)]
struct Move {
    event: usize,
    /// Those without an answer that come before.
    lost: Vec<usize>,
    /// The cells that change.
    after: Vec<(usize, Cell)>,
    forgot: u64,
    /// Whether the cell is what the witness saw.
    is_seen: bool,
}

struct Frame {
    others: Vec<Move>,
    /// Whether what is extraordinary was not tried, since something ordinary might come next.
    may_be_odd: bool,
    event: usize,
    lost: Vec<usize>,
    before: Vec<(usize, Cell)>,
    first_before: usize,
    forgot: u64,
    latest_asked_before: u64,
    latest_now_before: Timestamp,
    /// The latest that anything done was asked, and decided.
    latest_asked: u64,
    latest_now: Timestamp,
}

impl<'a> Search<'a> {
    fn new(world: &'a World, all: Vec<&'a Event>, mut terms: Terms) -> Search<'a> {
        let (mut events, mut lost) = (Vec::new(), Vec::new());
        let mut cells = BTreeMap::new();
        for event in all {
            for hit in &event.hits {
                cells.insert(hit.cell, Cell::fresh());
            }
            match event.told().is_empty() {
                false => events.push(event),
                true if event.is_lost() => lost.push(event),
                true => {}
            }
        }
        let orphans = match lost.is_empty() {
            true => BTreeSet::new(),
            false => orphans(&events),
        };
        // A strategy without a script is decided here, and written later.
        terms.by_store_time &= cells.keys().all(|cell| world.has_script(*cell));
        events.sort_by_key(|event| match terms.by_store_time {
            true => (event.time().as_micros(), event.asked_ns),
            false => (0, event.asked_ns),
        });
        Search {
            world,
            terms,
            done: vec![false; events.len()],
            lost_done: vec![false; lost.len()],
            events,
            lost,
            orphans,
            cells,
            first: 0,
            frames: Vec::new(),
            dead: HashSet::new(),
            done_hash: 0,
            past: HashMap::new(),
            steps: 0,
            tries: Tries::default(),
            deepest: 0,
            stuck: None,
        }
    }

    fn charged(&self) -> usize {
        self.lost_done.iter().filter(|done| **done).count()
    }

    fn run(&mut self) -> Found {
        let most_steps = 1_000_000 + 100 * self.events.len() as u64;
        while self.frames.len() < self.events.len() {
            self.steps += 1;
            if self.steps > most_steps || self.tries.get() > MOST_TRIES {
                self.deepest = self.deepest.max(self.frames.len());
                if self.stuck.is_none() {
                    self.stuck = Some((self.candidates(), self.cells.clone()));
                }
                return Found::Undecided;
            }
            let mut moves = match self.dead.contains(&self.place()) {
                true => Vec::new(),
                false => self.moves(),
            };
            if let Some(next) = moves.pop() {
                let may_be_odd = self.may_be_odd(&next);
                self.go(next, moves, may_be_odd);
                continue;
            }
            if self.stuck.is_none() || self.frames.len() > self.deepest {
                self.stuck = Some((self.candidates(), self.cells.clone()));
            }
            self.deepest = self.deepest.max(self.frames.len());
            let place = self.place();
            self.dead.insert(place);
            if !self.go_back() {
                return Found::None;
            }
        }
        self.deepest = self.frames.len();
        Found::Order
    }

    /// What is done, and what came of it.
    fn place(&self) -> (u64, u64) {
        let mut hasher = DefaultHasher::new();
        for cell in self.cells.values() {
            cell.encode().hash(&mut hasher);
        }
        (self.done_hash, hasher.finish())
    }

    fn latest_asked(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.latest_asked)
    }

    fn latest_now(&self) -> Timestamp {
        let last = self.frames.last();
        last.map_or(Timestamp::EPOCH, |frame| frame.latest_now)
    }

    /// What may be next, but for what the model says.
    fn candidates(&self) -> Vec<usize> {
        let mut candidates = Vec::new();
        let mut first_answer = u64::MAX;
        let now = self.events[self.first].time();
        for at in (self.first..self.events.len()).filter(|at| !self.done[*at]) {
            let event = self.events[at];
            // Those of a time of the store come first. Otherwise they are in the order of their questions.
            let is_later = match self.terms.by_store_time {
                true => event.time() > now,
                false => event.asked_ns > first_answer,
            };
            if is_later {
                break;
            }
            first_answer = first_answer.min(event.answered_ns);
            candidates.push(at);
        }
        let latest = self.latest_asked();
        candidates.retain(|at| {
            let event = self.events[*at];
            event.asked_ns <= first_answer && event.answered_ns >= latest
        });
        candidates
    }

    /// What may be next; the likeliest last.
    fn moves(&self) -> Vec<Move> {
        let candidates = self.candidates();
        let mut moves: Vec<Move> = Vec::new();
        for at in &candidates {
            if let Some(one) = self.plain(*at) {
                // Whatever changes nothing may as well be now: nothing else can depend on it.
                let changes = one
                    .after
                    .iter()
                    .any(|(cell, after)| self.cells[cell] != *after);
                if !changes {
                    return vec![one];
                }
                moves.push(one);
            }
        }
        if moves.is_empty() {
            return self.odd_moves();
        }
        self.sort(&mut moves);
        moves
    }

    /// What may be next if hits were charged whose answer was lost, or cells were forgotten.
    fn odd_moves(&self) -> Vec<Move> {
        let candidates = self.candidates();
        let forgets = self.terms.forgets;
        for odd in Odd::ALL.iter().filter(|odd| forgets || !odd.forgot) {
            let candidates = candidates.iter();
            let moves = candidates.flat_map(|at| self.extraordinary(*at, odd));
            let mut moves: Vec<Move> = moves.collect();
            if !moves.is_empty() {
                self.sort(&mut moves);
                return moves;
            }
        }
        Vec::new()
    }

    fn sort(&self, moves: &mut [Move]) {
        moves.sort_by_key(|one| {
            let event = self.events[one.event];
            (
                one.is_seen,
                std::cmp::Reverse((event.time(), event.asked_ns)),
            )
        });
    }

    /// Whether something extraordinary may have come before a move instead: what several hits were decided on at once may
    /// look right for one of them that came later.
    fn may_be_odd(&self, next: &Move) -> bool {
        let is_odd = next.forgot > 0 || !next.lost.is_empty();
        let changes = |(cell, after): &(usize, Cell)| self.cells[cell] != *after;
        let is_possible = self.terms.forgets || !self.lost.is_empty();
        is_possible && !is_odd && next.after.iter().any(changes)
    }

    /// The event as it is, if the model decides so.
    fn plain(&self, at: usize) -> Option<Move> {
        let event = self.events[at];
        let mut cells = self.cells_of(event);
        let is_seen = event.told().iter().zip(&cells).all(|(told, cell)| {
            let seen = told.seen.as_ref();
            seen.is_some_and(|seen| shows(cell, seen))
        });
        if !self.decides(event, &mut cells) {
            // Absent equals fresh, and a clock may have stepped back since.
            cells = self.cells_of(event);
            let latest = self.latest_now();
            for cell in &mut cells {
                if cell.is_expired(latest) {
                    *cell = Cell::fresh();
                }
            }
            if !self.decides(event, &mut cells) {
                return None;
            }
        }
        Some(self.to(at, cells, is_seen))
    }

    fn to(&self, event: usize, cells: Vec<Cell>, is_seen: bool) -> Move {
        let hits = self.events[event].hits.iter().map(|hit| hit.cell);
        Move {
            event,
            lost: Vec::new(),
            after: hits.zip(cells).collect(),
            forgot: 0,
            is_seen,
        }
    }

    fn cells_of(&self, event: &Event) -> Vec<Cell> {
        let cells = event.hits.iter().map(|hit| self.cells[&hit.cell].clone());
        cells.collect()
    }

    /// Whether the model answers the same.
    fn decides(&self, event: &Event, cells: &mut [Cell]) -> bool {
        let decisions = self.world.decide(&event.hits, cells, event.time());
        let told = event.told().iter().map(|told| &told.decision);
        decisions
            .iter()
            .zip(told)
            .all(|(model, told)| is_same(model, told))
    }

    /// What is only possible if hits were charged whose answer was lost, or cells were forgotten.
    fn extraordinary(&self, at: usize, odd: &Odd) -> Vec<Move> {
        let event = self.events[at];
        let seen: Vec<&Seen> = event
            .told()
            .iter()
            .filter_map(|told| told.seen.as_ref())
            .collect();
        if seen.len() != event.hits.len() {
            return Vec::new();
        }
        if odd.lost == 0 {
            return self.forgetting(at, &seen).into_iter().collect();
        }
        let mut cells = self.cells.clone();
        if odd.forgot {
            let hits = event.hits.iter().zip(&seen);
            let others = hits.filter(|(hit, seen)| !shows(&self.cells[&hit.cell], seen));
            cells.extend(others.map(|(hit, _)| (hit.cell, Cell::fresh())));
            // Else nothing of it was forgotten, and that was tried.
            if cells == self.cells {
                return Vec::new();
            }
        }
        self.after_lost(at, &seen, &cells, odd)
    }

    /// The event on what cells are once hits were charged whose answer was lost.
    fn after_lost(
        &self,
        at: usize,
        seen: &[&Seen],
        cells: &BTreeMap<usize, Cell>,
        odd: &Odd,
    ) -> Vec<Move> {
        let event = self.events[at];
        let explain = Explain {
            world: self.world,
            event,
            seen,
            lost: &self.lost,
            done: &self.lost_done,
            since: self.latest_now(),
            orphans: &self.orphans,
            tries: &self.tries,
        };
        let ways = explain.by_lost(cells, odd.lost).into_iter();
        let moves = ways.filter_map(|(lost, mut after)| {
            let cell = |hit: &Hit| after[&hit.cell].clone();
            let mut of_event: Vec<Cell> = event.hits.iter().map(cell).collect();
            if !self.decides(event, &mut of_event) {
                return None;
            }
            after.extend(event.hits.iter().map(|hit| hit.cell).zip(of_event));
            Some(Move {
                event: at,
                lost,
                after: after.into_iter().collect(),
                forgot: odd.forgot.into(),
                is_seen: true,
            })
        });
        moves.collect()
    }

    /// The event on cells of which some are not what they were: each that it hits and that is not what was seen is fresh, or
    /// what it once was, or of a queue, of which only an excerpt is seen, as it is.
    fn forgetting(&self, at: usize, seen: &[&Seen]) -> Option<Move> {
        let event = self.events[at];
        let now = self.cells_of(event);
        let is_other = |place: &usize| !shows(&now[*place], seen[*place]);
        let others: Vec<usize> = (0..now.len()).filter(is_other).collect();
        let past = |place: usize| self.past.get(&event.hits[place].cell).into_iter().flatten();
        let (mut fresh, mut known) = (now.clone(), now.clone());
        for place in &others {
            fresh[*place] = Cell::fresh();
            // One is restored from what a process remembers, and another is not.
            let was = past(*place).rfind(|was| **was == seen[*place].cell);
            known[*place] = was.cloned().unwrap_or_default();
        }
        // Of long logs a witness is shown an excerpt, so that all that the cell has been is tried.
        let once = others.iter().flat_map(|place| {
            past(*place).rev().map(|was| {
                let mut cells = known.clone();
                cells[*place] = was.clone();
                cells
            })
        });
        // Of a queue an excerpt is seen: it may be what it was beside cells that are lost, or restored.
        let mut some = vec![now.clone()];
        for place in &others {
            for at in 0..some.len() {
                let mut kinds = vec![&fresh[*place]];
                kinds.extend((known[*place] != fresh[*place]).then_some(&known[*place]));
                for cell in kinds {
                    let mut cells = some[at].clone();
                    cells[*place] = cell.clone();
                    some.push(cells);
                }
            }
        }
        let all = [fresh, known.clone()];
        for mut cells in all.into_iter().chain(some).chain(once) {
            if self.decides(event, &mut cells) {
                return Some(Move {
                    forgot: 1,
                    ..self.to(at, cells, true)
                });
            }
        }
        None
    }

    fn go(&mut self, next: Move, others: Vec<Move>, may_be_odd: bool) {
        let event = self.events[next.event];
        let mut before = Vec::new();
        for (cell, after) in next.after {
            if self.terms.forgets {
                self.past.entry(cell).or_default().push(after.clone());
            }
            let old = self.cells.insert(cell, after);
            before.push((cell, old.expect("a cell of this search")));
        }
        self.mark(next.event, &next.lost, true);
        let (asked, now) = (self.latest_asked(), self.latest_now());
        self.frames.push(Frame {
            others,
            may_be_odd,
            event: next.event,
            lost: next.lost,
            before,
            first_before: self.first,
            forgot: next.forgot,
            latest_asked_before: asked,
            latest_now_before: now,
            latest_asked: asked.max(event.asked_ns),
            latest_now: now.max(event.time()),
        });
        while self.done.get(self.first) == Some(&true) {
            self.first += 1;
        }
    }

    /// To the last choice that was not the only one, and another way. Whether there is one.
    fn go_back(&mut self) -> bool {
        while let Some(mut frame) = self.frames.pop() {
            self.mark(frame.event, &frame.lost, false);
            self.cells.extend(frame.before);
            self.first = frame.first_before;
            debug_assert_eq!(self.latest_asked(), frame.latest_asked_before);
            debug_assert_eq!(self.latest_now(), frame.latest_now_before);
            // Only near where it was stuck: everything might have been otherwise.
            let is_near = self.frames.len() + NEAR >= self.deepest;
            if frame.others.is_empty() && std::mem::take(&mut frame.may_be_odd) && is_near {
                frame.others = self.odd_moves();
            }
            match frame.others.pop() {
                Some(next) => {
                    self.go(next, frame.others, frame.may_be_odd);
                    return true;
                }
                None => {
                    let place = self.place();
                    self.dead.insert(place);
                }
            }
        }
        false
    }

    fn mark(&mut self, event: usize, lost: &[usize], done: bool) {
        self.done[event] = done;
        self.done_hash ^= scattered(event);
        for at in lost {
            self.lost_done[*at] = done;
            self.done_hash ^= scattered(self.events.len() + at);
        }
    }

    /// What happened around the time where it was stuck, for longer than anything should take.
    fn around(&self) -> impl Iterator<Item = &Event> {
        const AROUND_NS: u64 = 40_000_000;
        let stuck = self.stuck.iter().flat_map(|(candidates, _)| candidates);
        let time = stuck
            .map(|at| self.events[*at].asked_ns)
            .min()
            .unwrap_or_default();
        let all = self.events.iter().chain(&self.lost).copied();
        all.filter(move |event| event.asked_ns.abs_diff(time) < AROUND_NS)
    }

    /// What cannot be explained, for whoever looks for the mistake.
    fn story(&self) -> String {
        let (candidates, cells) = self.stuck.as_ref().expect("it was stuck");
        let limits: Vec<String> = cells
            .keys()
            .map(|cell| {
                let limit = &self.world.limits[*cell];
                format!("{cell}: {:?} at {}", limit.strategy, limit.rate)
            })
            .collect();
        let mut story = format!(
            "no order beyond {} of {} events, {} more are lost, of {limits:?}\n  the cells are {cells:?}",
            self.deepest,
            self.events.len(),
            self.lost.len(),
        );
        for event in self.around() {
            story += &format!("\n  {event:?}");
        }
        for at in candidates {
            let event = self.events[*at];
            let mut of_event: Vec<Cell> = event
                .hits
                .iter()
                .map(|hit| cells[&hit.cell].clone())
                .collect();
            let model: Vec<Decision> = self
                .world
                .decide(&event.hits, &mut of_event, event.time())
                .to_vec();
            story += &format!("\n  {event:?}\n    but the model says {model:?}");
        }
        story
    }
}

/// Times that cells were seen with, and at which nothing of this was decided: they are of hits whose answer was lost.
fn orphans(events: &[&Event]) -> BTreeSet<Timestamp> {
    let known: HashSet<u64> = events
        .iter()
        .map(|event| event.time().as_micros())
        .collect();
    let told = events.iter().flat_map(|event| event.told());
    let cells = told.filter_map(|told| Some(&told.seen.as_ref()?.cell));
    let words = cells.flat_map(|cell| {
        let queue = cell.queue().map_or(&[][..], |queue| queue.items());
        cell.words().iter().chain(queue.iter().flatten()).copied()
    });
    // What is no time is too early or too late for any hit.
    let orphans = words.filter(|word| !known.contains(word));
    orphans.map(Timestamp::from_micros).collect()
}

/// Whether a witness may have been shown this cell.
fn shows(cell: &Cell, seen: &Seen) -> bool {
    let fresh = |cell: &Cell| cell.is_fresh() || cell.is_expired(seen.now);
    *cell == seen.cell || fresh(cell) && fresh(&seen.cell)
}

fn scattered(at: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    at.hash(&mut hasher);
    hasher.finish()
}
