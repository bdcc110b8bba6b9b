//! Schedules of nodes that are lent hits and spend them on their own, checked against the bound.
//!
//! Messages take their time, are lost on the way or on the way back, and come back too late; clocks
//! run a thousandth too fast or too slow; nodes pause, die, and give back; others make plain hits;
//! rates change and cells are reset. Over all intervals, what all nodes spent and what the cell
//! admitted itself is within the bound.

use proptest::prelude::*;

use super::trace::{self, Cost};
use super::{Broken, Law, Laws};
use crate::cell::Cell;
use crate::decision::{Decision, Verdict};
use crate::rate::Rate;
use crate::strategy::{Hit, Lent, Loan, Settlement};
use crate::time::{Timestamp, micros};

/// A rate, nodes, and what they do.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    rate: Rate,
    start_us: u64,
    length: Length,
    who: usize,
    /// By how many millionths the clock of each node runs fast.
    drifts: Vec<i64>,
    turns: Vec<Turn>,
}

/// How long leases are.
#[derive(Clone, Copy, Debug)]
enum Length {
    Micros(u64),
    /// A part of the period, in 1/256.
    Part(u16),
}

/// Some time passes, then a node does something.
#[derive(Clone, Copy, Debug)]
struct Turn {
    gap: Gap,
    node: usize,
    deed: Deed,
}

#[derive(Clone, Copy, Debug)]
enum Gap {
    Micros(u64),
    /// A part of the length, in 1/256.
    Part(u16),
    /// To the last moment at which the node may spend, plus microseconds.
    Deadline(i8),
    /// To when something ends that was lent, or one length before, plus microseconds.
    End(bool, i8),
    /// To the expiry of the cell, plus microseconds.
    Expiry(i8),
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    /// A plain hit.
    Hit(Cost),
    Spend(Cost),
    Ask(Question),
    Die,
    Reset,
    /// To so many 1/4 of the limit at first.
    Rate(u32),
    /// The clock of the store steps back by a part of the length, in 1/256.
    Back(u16),
}

#[derive(Clone, Copy, Debug)]
struct Question {
    want: Cost,
    cost: u32,
    /// Which part of what is left is given back, in 1/4.
    back: u32,
    /// How long it takes there and back, in 1/256 of the length.
    there: u16,
    home: u16,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered,
    NeverArrives,
    AnswerLost,
}

pub(super) fn schedules(laws: &Laws<'_>) -> impl Strategy<Value = Schedule> + use<> {
    let rate = match laws.rates.as_slice() {
        [] => prop_oneof![1 => trace::rate(), 2 => ordinary()].boxed(),
        rates => proptest::sample::select(rates.to_vec()).boxed(),
    };
    let length = prop_oneof![
        2 => Just(Length::Micros(1_000_000)),
        1 => (0..40_u32).prop_map(|bits| Length::Micros(1 << bits)),
        2 => (1..600_u16).prop_map(Length::Part),
    ];
    let drifts = prop::collection::vec(prop_oneof![Just(0), -1_000..=1_000_i64], 1..4);
    let turns = prop::collection::vec(turn(), 1..40);
    let start = trace::START_US..2 * trace::START_US;
    (rate, start, length, 0..laws.askers.len(), drifts, turns).prop_map(
        |(rate, start_us, length, who, drifts, turns)| Schedule {
            rate,
            start_us,
            length,
            who,
            drifts,
            turns,
        },
    )
}

fn ordinary() -> impl Strategy<Value = Rate> {
    (1..=40_u32).prop_map(Rate::per_second)
}

fn turn() -> impl Strategy<Value = Turn> {
    let gap = prop_oneof![
        4 => (0..3_u64).prop_map(Gap::Micros),
        3 => (0..300_u16).prop_map(Gap::Part),
        4 => (-1..=1_i8).prop_map(Gap::Deadline),
        4 => (any::<bool>(), -1..=1_i8).prop_map(|(first, by)| Gap::End(first, by)),
        1 => (-1..=1_i8).prop_map(Gap::Expiry),
    ];
    let cost = || {
        prop_oneof![
            2 => (1..4_u32).prop_map(Cost::Units),
            2 => (0..256_u16).prop_map(Cost::Part),
            3 => Just(Cost::Limit(0)),
            1 => Just(Cost::Units(u32::MAX)),
        ]
    };
    let delay = || prop_oneof![3 => Just(0), 2 => 0..60_u16, 1 => 0..600_u16];
    let fate = prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::NeverArrives),
        1 => Just(Fate::AnswerLost),
    ];
    let question = (cost(), 0..3_u32, 0..=4_u32, delay(), delay(), fate);
    let question = question.prop_map(|(want, cost, back, there, home, fate)| Question {
        want,
        cost,
        back,
        there,
        home,
        fate,
    });
    let deed = prop_oneof![
        12 => question.prop_map(Deed::Ask),
        10 => cost().prop_map(Deed::Spend),
        8 => cost().prop_map(Deed::Hit),
        1 => Just(Deed::Die),
        1 => Just(Deed::Reset),
        1 => (1..9_u32).prop_map(Deed::Rate),
        1 => (0..600_u16).prop_map(Deed::Back),
    ];
    (gap, 0..4_usize, deed).prop_map(|(gap, node, deed)| Turn { gap, node, deed })
}

/// How whoever is lent hits behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    /// By how many millionths a lease is cut short, since clocks differ.
    pub(super) margin: u64,
    /// Whether a lease counts from when it was asked for, and not from the answer.
    pub(super) from_question: bool,
    /// Whether what was given back is spent no more.
    pub(super) keeps_off: bool,
    /// Whether a question is asked once only.
    pub(super) asks_once: bool,
    /// Whether what is told to be spent is spent.
    pub(super) tells_truth: bool,
}

impl Manners {
    pub(super) const GOOD: Manners = Manners {
        margin: 2_000,
        from_question: true,
        keeps_off: true,
        asks_once: true,
        tells_truth: true,
    };
}

pub(super) struct World<'a> {
    laws: &'a Laws<'a>,
    manners: Manners,
    first_rate: Rate,
    rates: Vec<Rate>,
    length_us: u64,
    who: usize,
    /// What the clock of the store says, less what has really passed.
    offset: u64,
    /// How much time has really passed.
    real: u64,
    cell: Cell,
    nodes: Vec<Node>,
    flights: Vec<Flight>,
    /// When something ends that was lent, in real time.
    ends: Vec<u64>,
    admitted: Vec<(u64, u32)>,
    /// Since the last reset or change of the rate: the first of what was admitted, how much was still
    /// out at that time, and until when that may be spent.
    era: (usize, u64, u64),
    /// Whether there was a reset, or the clock stepped back. Then a window of the same name may begin
    /// again, which takes for its own what was lent in the first one. Who leases gives back nothing that
    /// has ended; before that nodes here do, since a store has to see it.
    begins_again: bool,
    story: Vec<String>,
}

#[derive(Default)]
struct Node {
    drift: i64,
    lots: Vec<Lot>,
    /// Of the last question: answers to others are ignored.
    asked: u64,
}

struct Lot {
    left: u32,
    /// Since it was told last.
    spent: u32,
    term: u64,
    /// On the clock of the node.
    deadline: u64,
}

/// A question on its way, or its answer.
struct Flight {
    node: usize,
    number: u64,
    /// On the clock of the node.
    sent: u64,
    arrives: u64,
    takes_home: u64,
    fate: Fate,
    cost: u32,
    loan: Loan,
    answer: Option<(bool, Lent)>,
}

type Lawful = Result<(), Broken>;

impl<'a> World<'a> {
    pub(super) fn new(laws: &'a Laws<'a>, schedule: &Schedule, manners: Manners) -> World<'a> {
        let length_us = match schedule.length {
            Length::Micros(micros) => micros,
            Length::Part(part) => schedule.rate.period_us() / 256 * u64::from(part),
        };
        let node = |drift: &i64| Node {
            drift: *drift,
            ..Node::default()
        };
        World {
            laws,
            manners,
            first_rate: schedule.rate,
            rates: vec![schedule.rate],
            length_us: length_us.clamp(1, 3_600_000_000),
            who: schedule.who,
            offset: schedule.start_us,
            real: 0,
            cell: Cell::fresh(),
            nodes: schedule.drifts.iter().map(node).collect(),
            flights: Vec::new(),
            ends: Vec::new(),
            admitted: Vec::new(),
            era: (0, 0, 0),
            begins_again: false,
            story: Vec::new(),
        }
    }

    pub(super) fn go(&mut self, schedule: &Schedule) -> Lawful {
        let rate = &schedule.rate;
        if self.laws.strategy.validate(rate).is_err() || !self.laws.strategy.lends(rate, 1) {
            return Ok(());
        }
        schedule.turns.iter().try_for_each(|turn| self.turn(*turn))
    }

    pub(super) fn broken(&self, law: Law, why: String) -> Broken {
        let mut trace = format!(
            "  {:?} lends at {} for {} µs:",
            self.laws.strategy, self.first_rate, self.length_us
        );
        for line in &self.story {
            trace.push_str("\n    ");
            trace.push_str(line);
        }
        Broken {
            law,
            why,
            trace,
            seed: self.laws.seed,
        }
    }

    fn turn(&mut self, turn: Turn) -> Lawful {
        let node = turn.node % self.nodes.len();
        self.pass(turn.gap, node)?;
        let rate = self.rate();
        match turn.deed {
            Deed::Hit(cost) => self.hit(self.cost(cost)),
            Deed::Spend(cost) => self.spend(node, cost.of(&rate)),
            Deed::Ask(question) => self.ask(node, question),
            Deed::Die => {
                self.tell(format!("node {node} dies"));
                let drift = self.nodes[node].drift;
                // Answers to the dead find nobody.
                let asked = self.nodes[node].asked + 1;
                self.nodes[node] = Node {
                    drift,
                    asked,
                    ..Node::default()
                };
                Ok(())
            }
            Deed::Reset => {
                self.tell("is reset".into());
                self.cell = Cell::fresh();
                self.begins_again = true;
                self.new_era();
                Ok(())
            }
            Deed::Rate(quarters) => self.change(quarters),
            Deed::Back(part) => {
                let by = self.length_us / 256 * u64::from(part);
                self.tell(format!("the clock steps back by {by} µs"));
                self.offset -= by.min(self.offset / 2);
                self.begins_again = true;
                Ok(())
            }
        }
    }

    fn change(&mut self, quarters: u32) -> Lawful {
        let limit = u64::from(self.first_rate.limit()) * u64::from(quarters) / 4;
        let limit = u32::try_from(limit.max(1)).unwrap_or(u32::MAX);
        if let Ok(rate) = Rate::new(limit, self.first_rate.period())
            && self.laws.strategy.validate(&rate).is_ok()
        {
            self.tell(format!("the rate becomes {rate}"));
            self.rates.push(rate);
            self.new_era();
        }
        Ok(())
    }

    /// Intervals that began before count no more; what is out may still be spent.
    fn new_era(&mut self) {
        let held = self.nodes.iter().flat_map(|node| &node.lots);
        let held: u64 = held.map(|lot| u64::from(lot.left)).sum();
        let flying = self.flights.iter().filter_map(|flight| flight.answer);
        let flying: u64 = flying.map(|(_, lent)| u64::from(lent.amount)).sum();
        // What is given back may be put back, if it is not taken.
        let back: u64 = self
            .flights
            .iter()
            .map(|one| u64::from(one.loan.back))
            .sum();
        let arrives = self.flights.iter().map(|flight| flight.arrives).max();
        let until = arrives.unwrap_or(0).max(self.real + self.length_us);
        self.era = (self.admitted.len(), held + flying + back, until);
    }

    fn tell(&mut self, what: String) {
        let now = self.now().as_micros();
        self.story.push(format!("at {now} µs: {what}"));
    }

    fn rate(&self) -> Rate {
        *self.rates.last().expect("it begins with one")
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.offset + self.real)
    }

    /// What hits are lent for costs 1, if only those are lent.
    fn cost(&self, cost: Cost) -> u32 {
        match self.laws.post_paid {
            true => 1,
            false => cost.of(&self.rate()),
        }
    }

    fn clock_of(&self, node: usize, real: u64) -> u64 {
        real.saturating_add_signed(real.cast_signed() / 1_000 * self.nodes[node].drift / 1_000)
    }

    fn pass(&mut self, gap: Gap, node: usize) -> Lawful {
        let off = |at: u64, by: i8| at.saturating_add_signed(i64::from(by));
        let to = match gap {
            Gap::Micros(micros) => self.real + micros,
            Gap::Part(part) => self.real + self.length_us * u64::from(part) / 256,
            Gap::Deadline(by) => off(self.last_moment(node), by),
            Gap::End(first, by) => {
                let back = if first { self.length_us } else { 0 };
                let ends = self
                    .ends
                    .iter()
                    .map(|end| off(end.saturating_sub(back), by));
                ends.filter(|end| *end > self.real).min().unwrap_or(0)
            }
            Gap::Expiry(by) => {
                let expiry = off(self.cell.expires().as_micros(), by);
                expiry.saturating_sub(self.offset)
            }
        };
        // A week at most.
        let to = to.clamp(self.real, self.real + 604_800_000_000);
        loop {
            let due = |flight: &Flight| flight.arrives;
            let next = self.flights.iter().enumerate();
            let next = next.min_by_key(|(_, flight)| due(flight));
            let Some((at, _)) = next.filter(|(_, flight)| due(flight) <= to) else {
                self.real = to;
                return Ok(());
            };
            let flight = self.flights.swap_remove(at);
            self.real = self.real.max(flight.arrives);
            self.arrive(flight)?;
        }
    }

    /// The last moment at which a node may spend some of what it has.
    fn last_moment(&self, node: usize) -> u64 {
        let lots = self.nodes[node].lots.iter().filter(|lot| lot.left > 0);
        let Some(deadline) = lots.map(|lot| lot.deadline).max() else {
            return self.real;
        };
        let (mut low, mut high) = (0, 2 * deadline + 1);
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            match self.clock_of(node, middle) < deadline {
                true => low = middle,
                false => high = middle,
            }
        }
        low
    }

    fn ask(&mut self, node: usize, question: Question) -> Lawful {
        let want = question.want.of(&self.rate());
        let cost = self.cost(Cost::Units(question.cost)).min(question.cost);
        let sent = self.clock_of(node, self.real);
        let delay = |part: u16| self.length_us * u64::from(part) / 256;
        let (there, home) = (delay(question.there), delay(question.home));
        let asker = &mut self.nodes[node];
        asker.asked += 1;
        if self.begins_again {
            for lot in asker.lots.iter_mut().filter(|lot| lot.deadline <= sent) {
                lot.left = 0;
            }
        }
        let (back, spent, back_of) = match asker.lots.last_mut() {
            None => (0, 0, 0),
            Some(lot) => {
                let back = lot.left / 4 * question.back + lot.left % 4 * question.back / 4;
                if self.manners.keeps_off {
                    lot.left -= back;
                }
                let spent = match self.manners.tells_truth {
                    true => std::mem::take(&mut lot.spent),
                    false => lot.left,
                };
                (back, spent, lot.term)
            }
        };
        let loan = Loan {
            want,
            length_us: self.length_us,
            back,
            spent,
            back_of,
        };
        let number = asker.asked;
        let flight = || Flight {
            node,
            number,
            sent,
            arrives: self.real + there,
            takes_home: home,
            fate: question.fate,
            cost,
            loan,
            answer: None,
        };
        let mut flights = vec![flight()];
        if !self.manners.asks_once {
            // What it brings back it brings again.
            flights.push(Flight {
                cost: 0,
                loan: Loan { want: 0, ..loan },
                fate: Fate::AnswerLost,
                ..flight()
            });
        }
        self.flights.extend(flights);
        self.tell(format!(
            "node {node} asks for {want} beside a hit of {cost}, {back} come back of {back_of}, {spent} were spent"
        ));
        self.pass(Gap::Micros(0), node)
    }

    fn arrive(&mut self, flight: Flight) -> Lawful {
        match (flight.answer, flight.fate) {
            (Some((admitted, lent)), _) => {
                self.come_home(&flight, admitted, lent);
                Ok(())
            }
            (None, Fate::NeverArrives) => Ok(()),
            (None, _) => self.lend(flight),
        }
    }

    fn lend(&mut self, flight: Flight) -> Lawful {
        let (cost, loan) = (flight.cost, flight.loan);
        let before = self.cell.clone();
        let (rate, now) = (self.rate(), self.now());
        let hit = self.hit_of(&rate, now, cost);
        let mut cell = before.clone();
        let (decision, lent) = self.laws.strategy.lend(&mut cell, &hit, &loan);
        self.cell = cell;
        self.tell(format!(
            "node {} is {}, {lent:?}, {before:?} becomes {:?}",
            flight.node,
            if decision.is_allowed() {
                "admitted"
            } else {
                "denied"
            },
            self.cell
        ));
        if decision.is_denied() {
            if self.cell != before || cost == 0 {
                let why = format!("a loan of cost {cost} was denied, and {:?}", self.cell);
                return Err(self.broken(Law::Denial, why));
            }
            self.realign();
        } else {
            self.ends.push(self.real + lent.lasts_us);
            self.lent_well(&before, &lent, &loan)?;
            self.admit(cost)?;
        }
        if flight.fate == Fate::Answered {
            self.flights.push(Flight {
                arrives: self.real + flight.takes_home,
                answer: Some((decision.is_allowed(), lent)),
                ..flight
            });
        }
        Ok(())
    }

    /// No more than was wanted, nor than was there; and what is lent is named and lasts.
    fn lent_well(&self, before: &Cell, lent: &Lent, loan: &Loan) -> Lawful {
        let remaining = self.step(&mut before.clone(), 0).remaining();
        let there = remaining.saturating_add(u64::from(loan.back));
        let is_named = lent.amount == 0 || lent.term > 0 && lent.lasts_us > 0;
        if lent.amount > loan.want || u64::from(lent.amount) > there || !is_named {
            let why = format!("lent {lent:?} of {there} for {loan:?}");
            return Err(self.broken(Law::Lent, why));
        }
        // Under another rate it may last longer than when it was written.
        match self.cell == *before {
            true => Ok(()),
            false => self.small_and_fresh(),
        }
    }

    fn come_home(&mut self, flight: &Flight, admitted: bool, lent: Lent) {
        let now = self.clock_of(flight.node, self.real);
        let (manners, loan) = (self.manners, flight.loan);
        let node = &mut self.nodes[flight.node];
        if node.asked != flight.number {
            return;
        }
        if !admitted {
            // Nothing was taken back.
            let lot = node.lots.iter_mut().find(|lot| lot.term == loan.back_of);
            if let Some(lot) = lot.filter(|_| manners.keeps_off && manners.tells_truth) {
                lot.left += loan.back;
                lot.spent += loan.spent;
            }
            return;
        }
        if !lent.known {
            node.lots.retain(|lot| lot.term != loan.back_of);
        }
        if lent.amount > 0 {
            let since = if manners.from_question {
                flight.sent
            } else {
                now
            };
            let lasts = lent.lasts_us.min(loan.length_us);
            let cut = match manners.margin {
                0 => 0,
                // And a little, as these clocks round.
                margin => lasts / 1_000 * margin / 1_000 + 3,
            };
            node.lots.push(Lot {
                left: lent.amount,
                spent: 0,
                term: lent.term,
                deadline: since + lasts.saturating_sub(cut),
            });
        }
    }

    fn spend(&mut self, node: usize, mut cost: u32) -> Lawful {
        let now = self.clock_of(node, self.real);
        let mut spent = 0;
        for lot in &mut self.nodes[node].lots {
            if now < lot.deadline {
                let part = lot.left.min(cost);
                lot.left -= part;
                lot.spent += part;
                cost -= part;
                spent += part;
            }
        }
        self.tell(format!("node {node} spends {spent}"));
        self.admit(spent)
    }

    /// A plain hit.
    fn hit(&mut self, cost: u32) -> Lawful {
        let before = self.cell.clone();
        let mut cell = before.clone();
        let decision = self.step(&mut cell, cost);
        self.cell = cell;
        self.tell(format!("a hit of {cost} on {before:?} gets {decision:?}"));
        let peek = self.step(&mut before.clone(), 0);
        if peek.remaining() >= u64::from(cost) && !decision.is_allowed() {
            let why = format!(
                "{} remain, and a cost of {cost} is denied",
                peek.remaining()
            );
            return Err(self.broken(Law::Consistent, why));
        }
        if decision.is_allowed() {
            self.admit(cost)?;
            return match cost {
                0 => Ok(()),
                _ => self.small_and_fresh(),
            };
        }
        if self.cell != before {
            return Err(self.broken(Law::Denial, format!("it became {:?}", self.cell)));
        }
        self.realign();
        self.honest(cost, &decision)
    }

    /// If nobody else takes or gives back anything, the wait is exact.
    fn honest(&self, cost: u32, decision: &Decision) -> Lawful {
        let wait = micros(decision.wait());
        if decision.verdict() == Verdict::Never || wait > 1 << 50 {
            return Ok(());
        }
        for after in [wait / 2, wait.saturating_sub(1), wait] {
            let (rate, now) = (self.rate(), self.now().plus_micros(after));
            let hit = self.hit_of(&rate, now, cost);
            let again = self.laws.strategy.step(&mut self.cell.clone(), &hit);
            if again.is_allowed() != (after == wait) {
                let why = format!("to wait {wait} µs, but after {after} µs {again:?}");
                return Err(self.broken(Law::Honest, why));
            }
        }
        Ok(())
    }

    /// What backends do after a denial.
    fn realign(&mut self) {
        let (rate, now) = (self.rate(), self.now());
        let hit = self.hit_of(&rate, now, 1);
        let mut cell = self.cell.clone();
        if self
            .laws
            .strategy
            .settle(&mut cell, &hit, Settlement::Charge(0))
        {
            self.cell = cell;
            self.tell(format!("  realigned to {:?}", self.cell));
        }
    }

    fn small_and_fresh(&self) -> Lawful {
        if let Some(word) = self
            .cell
            .words()
            .iter()
            .find(|word| **word >= Cell::WORD_LIMIT)
        {
            return Err(self.broken(Law::Small, format!("{word} is stored")));
        }
        let expires = self.cell.expires().max(self.now());
        for after in [0, self.length_us] {
            let (rate, now) = (self.rate(), expires.plus_micros(after));
            let hit = self.hit_of(&rate, now, 1);
            let (mut old, mut fresh) = (self.cell.clone(), Cell::fresh());
            let told = self.laws.strategy.step(&mut old, &hit);
            let new = self.laws.strategy.step(&mut fresh, &hit);
            // What is denied stays as it is, expired or absent.
            if told != new || told.is_allowed() && old != fresh {
                let why = format!(
                    "{:?} is over, and becomes {old:?}, not {fresh:?}",
                    self.cell
                );
                return Err(self.broken(Law::Fresh, why));
            }
        }
        Ok(())
    }

    /// Every interval of this era that ends now.
    fn admit(&mut self, cost: u32) -> Lawful {
        if cost == 0 {
            return Ok(());
        }
        self.admitted.push((self.real, cost));
        let (first, held, until) = self.era;
        let mut total = 0;
        for &(start, cost) in self.admitted[first..].iter().rev() {
            total += u128::from(cost);
            let length = self.real - start;
            let bounds = self
                .rates
                .iter()
                .map(|rate| self.laws.bound.most(rate, length));
            let extra = if start <= until { u128::from(held) } else { 0 };
            let most = bounds.max().unwrap_or(0) + extra;
            if total > most {
                let why = format!("{total} spent and admitted in {length} µs, at most {most}");
                return Err(self.broken(Law::Lent, why));
            }
        }
        Ok(())
    }

    fn step(&self, cell: &mut Cell, cost: u32) -> Decision {
        let (rate, now) = (self.rate(), self.now());
        let hit = self.hit_of(&rate, now, cost);
        self.laws.strategy.step(cell, &hit)
    }

    fn hit_of<'h>(&'h self, rate: &'h Rate, now: Timestamp, cost: u32) -> Hit<'h> {
        Hit {
            now,
            rate,
            cost,
            attributes: &self.laws.askers[self.who],
        }
    }
}

#[cfg(test)]
mod tests;
