use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use tokio::sync::watch;

use super::demand::Demand;
use super::errand::{Part, Pending};
use super::holding::{Answer, Found, Holding, Limit, Lots, Question, Tally};
use super::sightings::Sightings;
use super::terms::Terms;
use crate::backend::Op;
use crate::decision::Decision;
use crate::error::Error;
use crate::identity::Attributes;
use crate::key::Key;
use crate::rate::Rate;
use crate::strategy::{Loan, Strategy};
use crate::sweep::Sweep;
use crate::time::Clock;

/// What this node knows of keys, as many as there is room for.
pub(super) struct Table {
    shards: Box<[Shard]>,
    /// The shards in which keys are hot, as bits: written under the lock of the shard.
    hot: AtomicU64,
    max_per_shard: usize,
    /// Of keys that are not known.
    sightings: Sightings,
    terms: Terms,
    clock: Arc<dyn Clock>,
    /// Nothing is asked for any more.
    closed: AtomicBool,
}

/// On cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Shard(Mutex<Keys>);

#[derive(Default)]
struct Keys {
    /// By digest.
    entries: HashMap<u128, Entry>,
    /// Those that are hot.
    hot: Vec<u128>,
    /// How many have become hot.
    met: u32,
    tally: Tally,
    /// For those that are not asked for any more.
    sweep: Sweep,
}

#[derive(Default)]
struct Entry {
    demand: Demand,
    seen_us: u64,
    hot: Option<Box<Hot>>,
}

/// A key that is worth leases.
struct Hot {
    key: Key,
    strategy: Arc<dyn Strategy>,
    rate: Rate,
    attributes: Attributes,
    holding: Holding,
    answered: Option<Answered>,
}

/// Closed when the question at hand is answered, with its error if there was one.
pub(super) type Answered = watch::Receiver<Option<Error>>;

/// Which hits are part of the demand: one that is looked up twice counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// One that is decided.
    Decided,
    /// Any.
    Any,
    /// None: it was counted before.
    Never,
}

/// How a hit is decided.
#[derive(Debug)]
pub(super) enum Way {
    Decided(Decision),
    /// The store had better be asked for those to come.
    Low(Decision),
    /// When the store has answered, look again.
    Wait(Answered),
    /// By asking the store for more than this hit.
    Ask,
    /// By the store, as if there were no leases.
    Strict,
}

/// Whether a question was begun.
#[derive(Debug)]
pub(super) enum Asked {
    Part(Box<Part>),
    /// There is one that awaits its answer.
    Already(Answered),
    /// The key is known with other terms, or not at all.
    Not,
}

impl Table {
    const SHARDS: usize = u64::BITS as usize;

    pub(super) fn new(max_keys: usize, terms: Terms, clock: Arc<dyn Clock>) -> Table {
        Table {
            shards: (0..Self::SHARDS).map(|_| Shard::default()).collect(),
            hot: AtomicU64::new(0),
            max_per_shard: max_keys.div_ceil(Self::SHARDS),
            sightings: Sightings::new(max_keys, terms.period_us),
            terms,
            clock,
            closed: AtomicBool::new(false),
        }
    }

    /// Begins no question after this. Those that were begun [`give_back`](Table::give_back) finds, since
    /// it takes the locks under which that is seen.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn now_us(&self) -> u64 {
        self.clock.now().as_micros()
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// How a hit on a cell that can be lent is decided; in most cases, the decision.
    #[inline]
    pub(super) fn find(&self, op: &Op<'_>, count: Count, aside: Option<&mut Lots>) -> Way {
        let mut keys = self.keys_of(&op.key);
        let Keys { entries, tally, .. } = &mut *keys;
        let Some(entry) = entries.get_mut(&op.key.digest()) else {
            if count == Count::Any {
                self.see(&mut keys, op);
            }
            return Way::Strict;
        };
        // With the lock held, so that as little time passes as can be before what is spent is used.
        let now_us = self.now_us();
        entry.seen_us = now_us;
        if count == Count::Any {
            entry.demand.add(now_us, op.cost);
        }
        let Some(hot) = entry.hot.as_deref_mut() else {
            return self.warm(&entry.demand, now_us, op, None);
        };
        if !hot.is_of(op) {
            return match hot.holding.is_idle(now_us, &self.terms) {
                true => self.warm(&entry.demand, now_us, op, None),
                false => Way::Strict,
            };
        }
        let found = hot
            .holding
            .decide(now_us, op.cost, &op.rate, &self.terms, tally, aside);
        if count == Count::Decided && !matches!(found, Found::Nothing) {
            entry.demand.add(now_us, op.cost);
        }
        match (found, &hot.answered) {
            (Found::Decided(decision), _) => Way::Decided(decision),
            (Found::Low(decision), _) => Way::Low(decision),
            (Found::Nothing, Some(answered)) if hot.holding.is_asking() => {
                match hot.holding.is_overdue(now_us) {
                    true => Way::Strict,
                    false => Way::Wait(answered.clone()),
                }
            }
            (Found::Nothing, _) => self.warm(&entry.demand, now_us, op, Some(&hot.holding)),
        }
    }

    /// Whether a key is hot: whether what it is asked for within a period is worth a lease.
    fn warm(&self, demand: &Demand, now_us: u64, op: &Op<'_>, holding: Option<&Holding>) -> Way {
        let least = Holding::LEAST.saturating_mul(op.cost.into());
        let period_us = match holding {
            Some(holding) if !holding.is_worth(op.cost, &self.terms) => return Way::Strict,
            Some(holding) => holding.period_us(&op.rate, &self.terms),
            None => self.terms.period_us,
        };
        match demand.over(now_us, period_us) >= least {
            true => Way::Ask,
            false => Way::Strict,
        }
    }

    /// A hit on a key that is not known. Most are seen once in a while, and leave nothing behind.
    #[inline]
    fn see(&self, keys: &mut Keys, op: &Op<'_>) {
        let now_us = self.now_us();
        let seen = self.sightings.see(op.key.digest(), now_us);
        if seen >= Sightings::FEW {
            self.meet(keys, op, seen, now_us);
        }
    }

    #[cold]
    fn meet(&self, keys: &mut Keys, op: &Op<'_>, seen: u32, now_us: u64) {
        if keys.entries.len() >= self.max_per_shard {
            if !keys.sweep.is_due(now_us, self.terms.period_us) {
                return;
            }
            let forgotten_us = 4 * self.terms.period_us;
            keys.entries.retain(|_, entry| {
                entry.hot.is_some() || now_us.abs_diff(entry.seen_us) < forgotten_us
            });
            if keys.entries.len() >= self.max_per_shard {
                return;
            }
        }
        let mut entry = Entry {
            seen_us: now_us,
            ..Entry::default()
        };
        entry.demand.add(now_us, op.cost.saturating_mul(seen));
        keys.entries.insert(op.key.digest(), entry);
    }

    /// What is held of a key for a hit that costs nothing.
    pub(super) fn peek(&self, op: &Op<'_>) -> Option<Decision> {
        let mut keys = self.keys_of(&op.key);
        let now_us = self.now_us();
        let hot = keys.entries.get_mut(&op.key.digest())?.hot.as_deref()?;
        hot.is_of(op).then(|| hot.holding.peek(now_us)).flatten()
    }

    /// What could be given back of a key, for looking.
    pub(super) fn returnable(&self, op: &Op<'_>) -> Option<Loan> {
        let keys = self.keys_of(&op.key);
        let hot = keys.entries.get(&op.key.digest())?.hot.as_deref()?;
        hot.is_of(op).then(|| hot.holding.returnable()).flatten()
    }

    /// What was set aside is not needed.
    pub(super) fn put_back(&self, key: &Key, lots: &Lots) {
        let mut keys = self.keys_of(key);
        let Some(entry) = keys.entries.get_mut(&key.digest()) else {
            return;
        };
        if let Some(hot) = entry.hot.as_deref_mut() {
            for lot in lots {
                entry.demand.take_off(lot.left.into());
                hot.holding.put_back(*lot);
            }
        }
    }

    /// What was set aside is spent.
    pub(super) fn spend(&self, key: &Key, lots: &Lots) {
        let mut keys = self.keys_of(key);
        if let Some(hot) = keys.hot(key) {
            for lot in lots {
                hot.holding.note(*lot);
            }
        }
    }

    /// Begins a question for a hit of some cost, or none, and for those to come.
    pub(super) fn ask(self: &Arc<Self>, op: &Op<'_>, cost: u32) -> Asked {
        let mut keys = self.keys_of(&op.key);
        let now_us = self.now_us();
        self.begin(&mut keys, op, cost, now_us)
    }

    /// The same for a hit that costs something, or for those to come after it, if its key is hot.
    pub(super) fn ask_if_hot(self: &Arc<Self>, op: &Op<'_>, cost: u32) -> Asked {
        let mut keys = self.keys_of(&op.key);
        let now_us = self.now_us();
        let is_hot = |entry: &Entry| {
            let holding = entry.hot.as_deref().map(|hot| &hot.holding);
            // Without the hit it is not worth a trip to be told the same again.
            let is_denied = |holding: &Holding| {
                let denied = holding.deny(now_us, op.cost, &op.rate, &self.terms);
                denied.is_some()
            };
            if cost == 0 && holding.is_some_and(is_denied) {
                return false;
            }
            matches!(self.warm(&entry.demand, now_us, op, holding), Way::Ask)
        };
        let lendable = op.cost > 0 && op.strategy.lends(&op.rate, op.cost);
        match keys.entries.get(&op.key.digest()) {
            Some(entry) if lendable && is_hot(entry) => self.begin(&mut keys, op, cost, now_us),
            _ => Asked::Not,
        }
    }

    fn begin(self: &Arc<Self>, keys: &mut Keys, op: &Op<'_>, cost: u32, now_us: u64) -> Asked {
        if self.is_closed() {
            return Asked::Not;
        }
        let digest = op.key.digest();
        let Keys {
            entries, hot, met, ..
        } = keys;
        let Some(entry) = entries.get_mut(&digest) else {
            return Asked::Not;
        };
        let is_other = |hot: &Hot| !hot.is_of(op);
        if entry.hot.as_deref().is_some_and(is_other) {
            let idle = |hot: &Hot| hot.holding.is_idle(now_us, &self.terms);
            if !entry.hot.as_deref().is_some_and(idle) {
                return Asked::Not;
            }
            entry.hot = None;
        }
        if entry.hot.is_none() && !hot.contains(&digest) {
            hot.push(digest);
            self.hot
                .fetch_or(1 << Self::place(&op.key), Ordering::Relaxed);
        }
        let hot = entry.hot.get_or_insert_with(|| {
            *met = met.wrapping_add(1);
            Box::new(Hot::of(op, *met))
        });
        match &hot.answered {
            Some(answered) if hot.holding.is_asking() => Asked::Already(answered.clone()),
            _ => {
                // One of the same key may have changed in what is no parameter of its, such as its tiers.
                hot.strategy = Arc::clone(op.strategy);
                let demand = &entry.demand;
                let question = hot.holding.ask(now_us, cost, demand, &op.rate, &self.terms);
                Asked::Part(Box::new(hot.part(self, question)))
            }
        }
    }

    /// Takes note of an answer. Returns what is told to the one who asked, unless it is what the store
    /// decided.
    pub(super) fn answer(&self, key: &Key, question: Question, answer: Answer) -> Option<Decision> {
        let mut keys = self.keys_of(key);
        let Keys { entries, tally, .. } = &mut *keys;
        let entry = entries.get_mut(&key.digest())?;
        let hot = entry.hot.as_deref_mut()?;
        let limit = Limit {
            demand: &entry.demand,
            rate: &hot.rate,
            terms: &self.terms,
        };
        hot.holding
            .answer(question, answer, self.now_us(), &limit, tally)
    }

    pub(super) fn give_up(&self, key: &Key, number: u64) {
        if let Some(hot) = self.keys_of(key).hot(key) {
            hot.holding.give_up(number);
        }
    }

    /// Whether there is something to look after.
    pub(super) fn is_any_hot(&self) -> bool {
        self.hot.load(Ordering::Relaxed) != 0
    }

    /// What is to be given back although nobody hits, and whether anything is held at all.
    pub(super) fn tend(self: &Arc<Self>) -> (Vec<Part>, bool) {
        let mut parts = Vec::new();
        let mut is_needed = false;
        let mut rest = self.hot.load(Ordering::Relaxed);
        while rest != 0 {
            let place = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let mut keys = self.shards[place].lock();
            let now_us = self.now_us();
            let Keys {
                entries,
                hot,
                tally,
                ..
            } = &mut *keys;
            hot.retain(|digest| {
                let Some(entry) = entries.get_mut(digest) else {
                    return false;
                };
                let Some(hot) = entry.hot.as_deref_mut() else {
                    return false;
                };
                let question =
                    hot.holding
                        .tend(now_us, &entry.demand, &hot.rate, &self.terms, tally);
                if let Some(question) = question {
                    parts.push(hot.part(self, question));
                }
                if hot.holding.is_idle(now_us, &self.terms) {
                    entry.hot = None;
                }
                entry.hot.is_some()
            });
            match hot.is_empty() {
                true => drop(self.hot.fetch_and(!(1 << place), Ordering::Relaxed)),
                false => is_needed = true,
            }
        }
        (parts, is_needed)
    }

    /// Everything that is held, to be given back, and where there is a question, when it is answered.
    pub(super) fn give_back(self: &Arc<Self>) -> (Vec<Part>, Vec<Answered>) {
        let (mut parts, mut asked) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            let mut keys = shard.lock();
            let now_us = self.now_us();
            for entry in keys.entries.values_mut() {
                let Some(hot) = entry.hot.as_deref_mut() else {
                    continue;
                };
                if hot.holding.is_asking() {
                    asked.extend(hot.answered.clone());
                } else if let Some(question) = hot.holding.give_back(now_us, &self.terms) {
                    parts.push(hot.part(self, question));
                }
            }
        }
        (parts, asked)
    }

    /// Forgets everything.
    pub(super) fn void(&self) {
        for shard in &self.shards {
            let mut keys = shard.lock();
            let Keys { entries, tally, .. } = &mut *keys;
            for entry in entries.values_mut() {
                if let Some(hot) = entry.hot.as_deref_mut() {
                    hot.holding.void(tally);
                }
            }
        }
    }

    /// The sum of all tallies, and how much is held.
    pub(super) fn tally(&self) -> (Tally, u64) {
        let (mut sum, mut held) = (Tally::default(), 0);
        for shard in &self.shards {
            let keys = shard.lock();
            sum.add(&keys.tally);
            let hot = keys.entries.values().filter_map(|entry| entry.hot.as_ref());
            held += hot.map(|hot| hot.holding.left()).sum::<u64>();
        }
        (sum, held)
    }

    /// How many keys are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let len = |shard: &Shard| shard.lock().entries.len();
        self.shards.iter().map(len).sum()
    }

    #[inline]
    fn keys_of(&self, key: &Key) -> MutexGuard<'_, Keys> {
        self.shards[Self::place(key)].lock()
    }

    /// In which shard it is.
    #[inline]
    fn place(key: &Key) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
        let place = (key.digest() >> 64) as usize;
        place % Self::SHARDS
    }
}

impl Shard {
    #[inline]
    fn lock(&self) -> MutexGuard<'_, Keys> {
        // It is consistent between calls.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    fn hot(&mut self, key: &Key) -> Option<&mut Hot> {
        self.entries.get_mut(&key.digest())?.hot.as_deref_mut()
    }
}

impl Hot {
    fn of(op: &Op<'_>, nth: u32) -> Hot {
        Hot {
            key: op.key,
            strategy: Arc::clone(op.strategy),
            rate: op.rate,
            attributes: op.attributes.clone(),
            holding: Holding::new(nth),
            answered: None,
        }
    }

    /// Whether a hit asks for the same limit.
    #[inline]
    fn is_of(&self, op: &Op<'_>) -> bool {
        self.rate == op.rate && self.attributes == *op.attributes
    }

    fn part(&mut self, table: &Arc<Table>, question: Question) -> Part {
        let (tell, answered) = watch::channel(None);
        self.answered = Some(answered);
        Part::lending(
            self.key,
            &self.strategy,
            self.rate,
            self.attributes.clone(),
            Pending::new(table, self.key, question, tell),
        )
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}
