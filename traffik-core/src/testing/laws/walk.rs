//! One trace against one strategy, checking every law at every hit.

use std::time::Duration;

use super::trace::{Deed, Gap, Move, Trace};
use super::{Broken, Law, Laws};
use crate::cell::Cell;
use crate::decision::{Decision, Verdict};
use crate::rate::Rate;
use crate::strategy::{Hit, Settlement};
use crate::time::{Timestamp, micros};

/// Clocks of traces run at most this far ahead, 30 years in µs, so that the sum of any instant
/// and a span is a word. A bucket may well take 142 years to refill: what happens then is beyond
/// every promise, and not looked at.
const MAX_AHEAD_US: u64 = 30 * 366 * 24 * 60 * 60 * 1_000_000;

pub(super) struct Walk<'a> {
    laws: &'a Laws<'a>,
    rate: Rate,
    now: u64,
    /// How much time has really passed: the clock may step back, but time does not.
    real: u64,
    end: u64,
    stepped_back: bool,
    /// Whether the rate was changed.
    changed: bool,
    cell: Cell,
    /// When the last denial said to come again.
    ready: u64,
    /// When something was taken, in real time, and how much of it was not refunded.
    admitted: Vec<(u64, u32)>,
    /// What has happened, for the reader of a failure.
    story: Vec<String>,
}

type Lawful = Result<(), Broken>;

impl<'a> Walk<'a> {
    pub(super) fn new(laws: &'a Laws<'a>, trace: &Trace) -> Walk<'a> {
        Walk {
            laws,
            rate: trace.rate,
            now: trace.start_us,
            real: 0,
            end: trace.start_us + MAX_AHEAD_US,
            stepped_back: false,
            changed: false,
            cell: Cell::fresh(),
            ready: trace.start_us,
            admitted: Vec::new(),
            story: Vec::new(),
        }
    }

    pub(super) fn go(&mut self, trace: &Trace) -> Lawful {
        // An attempt may bring a rate that nobody validated.
        if self.laws.strategy.validate(&self.rate).is_ok() {
            trace.moves.iter().try_for_each(|one| self.go_on(*one))?;
        }
        self.bears(&Cell::fresh());
        self.bears(&trace.corrupt);
        Ok(())
    }

    pub(super) fn broken(&self, law: Law, why: String) -> Broken {
        let mut trace = format!("  {:?} at {}:", self.laws.strategy, self.rate);
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

    fn go_on(&mut self, one: Move) -> Lawful {
        self.pass(one.gap);
        match one.deed {
            Deed::Hit => self.hit(one),
            Deed::Charge => self.charge(one),
            Deed::Refund(which) => self.refund(usize::from(which), one),
            Deed::Change(limit, period) => {
                self.change(limit, period);
                Ok(())
            }
        }
    }

    fn hit(&mut self, one: Move) -> Lawful {
        let (cost, who) = (one.cost.of(&self.rate), one.who);
        self.story.push(format!(
            "at {} µs: cost {cost} by {who} on {:?}",
            self.now, self.cell
        ));

        let before = self.cell.clone();
        let decision = self.pure(cost, who)?;
        let peek = self.peeks(&before, who)?;
        let what = match decision.verdict() {
            Verdict::Allow => format!("admitted, {} left", decision.remaining()),
            Verdict::Deny => format!("wait {} µs", decision.wait().as_micros()),
            Verdict::Never => "never".into(),
        };
        self.story.push(format!("  {what}"));

        self.consistent(&before, who, cost, &decision, &peek)?;
        self.grows(&before, cost, who)?;
        if decision.is_allowed() {
            self.restored(cost, who, &peek)?;
            self.admitted(cost, &decision, who)
        } else {
            self.denied(&before, cost, who, &decision)
        }
    }

    fn pass(&mut self, gap: Gap) {
        let (period, now) = (self.rate.period_us(), self.now);
        let off = |at: u64, by: i8| at.saturating_add_signed(i64::from(by));
        let to = match gap {
            Gap::Micros(micros) => now + micros,
            Gap::Intervals(count, by) => {
                off(now + self.rate.time_for(u64::from(count)).micros(), by)
            }
            Gap::Part(part) => now + period / 256 * u64::from(part),
            Gap::Edge(by) => off((now / period + 1) * period, by),
            Gap::Wait(by) => off(self.ready, by),
            Gap::Expiry(by) => off(self.cell.expires().as_micros(), by),
            Gap::Back(part) => {
                self.stepped_back = true;
                self.now = now.saturating_sub(period / 256 * u64::from(part));
                return;
            }
        };
        if to <= self.end {
            // Only an explicit step goes back.
            self.now = now.max(to);
            self.real += self.now - now;
        }
    }

    /// Steps the cell itself, and a copy of it for comparison.
    fn pure(&mut self, cost: u32, who: usize) -> Result<Decision, Broken> {
        let mut twin = self.cell.clone();
        let again = self.step(&mut twin, self.now, cost, who);
        let mut cell = std::mem::take(&mut self.cell);
        let decision = self.step(&mut cell, self.now, cost, who);
        self.cell = cell;
        if decision == again && self.cell == twin {
            return Ok(decision);
        }
        let why = format!("the same hit again: {again:?} and {twin:?}, not {decision:?}");
        Err(self.broken(Law::Pure, why))
    }

    /// What the cell says before the hit.
    fn peeks(&self, before: &Cell, who: usize) -> Result<Decision, Broken> {
        let mut cell = before.clone();
        let peek = self.step(&mut cell, self.now, 0, who);
        if cell != *before {
            let why = format!("a cost of zero made it {cell:?}");
            return Err(self.broken(Law::Peek, why));
        }
        if !peek.is_allowed() {
            return Err(self.broken(Law::Peek, format!("a cost of zero got {peek:?}")));
        }
        let hit = self.hit_of(self.now, 1, who);
        let _ = self.laws.strategy.details(before, &hit);
        Ok(peek)
    }

    fn consistent(
        &self,
        before: &Cell,
        who: usize,
        cost: u32,
        decision: &Decision,
        peek: &Decision,
    ) -> Lawful {
        let one = self.step(&mut before.clone(), self.now, 1, who);
        let mut cases = vec![(1, one.is_allowed())];
        if !self.laws.post_paid {
            cases.push((cost, decision.is_allowed()));
        }
        for (cost, allowed) in cases {
            if (peek.remaining() >= u64::from(cost)) != allowed {
                let why = format!(
                    "{} remain, and a cost of {cost} is {}",
                    peek.remaining(),
                    if allowed { "admitted" } else { "denied" }
                );
                return Err(self.broken(Law::Consistent, why));
            }
        }
        for said in [decision, peek] {
            if said.remaining() > said.limit() {
                let why = format!("{} of {} remain", said.remaining(), said.limit());
                return Err(self.broken(Law::Consistent, why));
            }
        }
        let after = match decision.is_allowed() {
            true => self.step(&mut self.cell.clone(), self.now, 0, who),
            false => *peek,
        };
        if after.remaining() != decision.remaining() {
            let why = format!(
                "the decision says that {} remain, a peek after it {}",
                decision.remaining(),
                after.remaining()
            );
            return Err(self.broken(Law::Consistent, why));
        }
        Ok(())
    }

    fn admitted(&mut self, cost: u32, decision: &Decision, who: usize) -> Lawful {
        if !decision.wait().is_zero() {
            let why = format!("admitted, but to wait {:?}", decision.wait());
            return Err(self.broken(Law::Honest, why));
        }
        if cost == 0 {
            return Ok(());
        }
        self.admitted.push((self.real, cost));
        self.small()?;
        self.bounded()?;
        self.fresh(cost, who)
    }

    fn denied(&mut self, before: &Cell, cost: u32, who: usize, decision: &Decision) -> Lawful {
        if self.cell != *before {
            return Err(self.broken(Law::Denial, format!("it became {:?}", self.cell)));
        }
        self.realign(who);
        if decision.verdict() == Verdict::Never {
            return self.never(cost, who);
        }
        let wait = micros(decision.wait());
        if wait == 0 {
            return Err(self.broken(Law::Honest, "denied, but without a wait".into()));
        }
        self.ready = self.now.saturating_add(wait);
        if self.ready > self.end {
            return Ok(());
        }
        for after in [wait / 2, wait - 1, wait] {
            let again = self.step(&mut self.cell.clone(), self.now + after, cost, who);
            if again.is_allowed() != (after == wait) {
                let why = format!(
                    "to wait {wait} µs, but after {after} µs {:?}",
                    again.verdict()
                );
                return Err(self.broken(Law::Honest, why));
            }
        }
        Ok(())
    }

    /// What backends do after a denial.
    fn realign(&mut self, who: usize) {
        let mut cell = std::mem::take(&mut self.cell);
        if self.settle(&mut cell, Settlement::Charge(0), who) {
            self.story.push(format!("  realigned to {cell:?}"));
        }
        self.cell = cell;
    }

    /// Takes more than there may be. What there was counts as admitted.
    fn charge(&mut self, one: Move) -> Lawful {
        let (cost, who) = (one.cost.of(&self.rate), one.who);
        let before = self.peeks(&self.cell, who)?.remaining();
        self.settles(Settlement::Charge(cost), who)?;
        let after = self.peeks(&self.cell, who)?.remaining();
        // What is more than a word holds is told as the largest number that is not unlimited.
        let is_known = before < u64::MAX - 1;
        if is_known && after > before.saturating_sub(cost.into()) {
            let why = format!("{cost} were charged, and {after} of {before} remain");
            return Err(self.broken(Law::Settled, why));
        }
        let taken = u32::try_from(before).unwrap_or(u32::MAX).min(cost);
        if taken > 0 {
            self.admitted.push((self.real, taken));
        }
        Ok(())
    }

    /// From a change of the rate on, what the new rate admits, in an interval a period longer: a
    /// window of the old rate may end in the middle of one of the new.
    fn change(&mut self, limit: [u8; 2], period: [u8; 2]) {
        let [times, parts] = limit.map(u32::from);
        let limit = self.rate.limit().saturating_mul(times) / parts;
        let [times, parts] = period.map(u32::from);
        let ms = self.rate.period().as_millis() * u128::from(times) / u128::from(parts);
        let period = Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX));
        let rate = Rate::new(limit.clamp(1, Rate::MAX_LIMIT), period);
        if let Ok(rate) = rate
            && !rate.is_unlimited()
            && self.laws.strategy.validate(&rate).is_ok()
        {
            self.story
                .push(format!("at {} µs: the rate becomes {rate}", self.now));
            self.rate = rate;
            self.admitted.clear();
            self.changed = true;
        }
    }

    /// Gives back what one of the last admissions has taken, or a part of it.
    fn refund(&mut self, which: usize, one: Move) -> Lawful {
        let Some(place) = self.admitted.len().checked_sub(1 + which) else {
            return Ok(());
        };
        let (at, taken) = self.admitted[place];
        let cost = match one.cost.of(&self.rate) {
            part if part < taken => part,
            _ => taken,
        };
        let age_us = self.real - at;
        self.settles(Settlement::Refund { cost, age_us }, one.who)?;
        self.admitted[place].1 -= cost;
        Ok(())
    }

    /// Settles the cell itself, and a copy of it for comparison.
    fn settles(&mut self, settlement: Settlement, who: usize) -> Lawful {
        let before = self.cell.clone();
        self.story.push(format!(
            "at {} µs: {settlement:?} by {who} on {before:?}",
            self.now
        ));
        let (mut cell, mut twin) = (before.clone(), before.clone());
        let changed = self.settle(&mut cell, settlement, who);
        if self.settle(&mut twin, settlement, who) != changed || cell != twin {
            let why = format!("the same settlement again: {twin:?}, not {cell:?}");
            return Err(self.broken(Law::Pure, why));
        }
        if !changed && cell != before {
            let why = format!("a settlement that changed nothing made it {cell:?}");
            return Err(self.broken(Law::Settled, why));
        }
        self.cell = cell;
        self.small()
    }

    /// A refund of what was just taken leaves as much as there was.
    fn restored(&self, cost: u32, who: usize, before: &Decision) -> Lawful {
        let mut cell = self.cell.clone();
        let refund = Settlement::Refund { cost, age_us: 0 };
        if cost == 0 || !self.settle(&mut cell, refund, who) {
            // What a strategy cannot refund it may keep.
            return Ok(());
        }
        let after = self.step(&mut cell, self.now, 0, who);
        if after.remaining() != before.remaining() {
            let why = format!(
                "{} remained before a hit of cost {cost} that was refunded at once, {} after it",
                before.remaining(),
                after.remaining()
            );
            return Err(self.broken(Law::Settled, why));
        }
        Ok(())
    }

    /// Under the rate of the trace and others, which the same cell may meet as well.
    fn grows(&self, before: &Cell, cost: u32, who: usize) -> Lawful {
        let is_over = before.is_expired(Timestamp::from_micros(self.now));
        if !self.laws.strategy.grows() || is_over || before.queue().is_some() {
            return Ok(());
        }
        let others = [(1, 2), (3, 1)];
        let others = others.into_iter().filter_map(|(times, parts)| {
            let limit = self.rate.limit().saturating_mul(times) / parts;
            Rate::new(limit.max(1), self.rate.period() * parts / times).ok()
        });
        for rate in others.chain([self.rate]) {
            if self.laws.strategy.validate(&rate).is_err() {
                continue;
            }
            for cost in [1, cost] {
                let hit = Hit {
                    rate: &rate,
                    ..self.hit_of(self.now, cost, who)
                };
                let mut after = before.clone();
                let realign = Settlement::Charge(0);
                if self.laws.strategy.settle(&mut after, &hit, realign) {
                    // It is further ahead than it should be, and comes back.
                    continue;
                }
                let decision = self.laws.strategy.step(&mut after, &hit);
                if cost > 0 && decision.is_allowed() && after.words() <= before.words() {
                    let why = format!("a cost of {cost} at {rate} made {before:?} into {after:?}");
                    return Err(self.broken(Law::Grows, why));
                }
            }
        }
        Ok(())
    }

    fn never(&self, cost: u32, who: usize) -> Lawful {
        for after in [0, 1, self.rate.period_us(), 3 * self.rate.period_us()] {
            let fresh = self.step(&mut Cell::fresh(), self.now + after, cost, who);
            if fresh.is_allowed() {
                let why = format!("never, but admitted from a fresh cell after {after} µs");
                return Err(self.broken(Law::Honest, why));
            }
        }
        Ok(())
    }

    fn small(&self) -> Lawful {
        let queue = self.cell.queue().map_or(&[][..], |queue| queue.items());
        let mut words = self
            .cell
            .words()
            .iter()
            .chain(queue.iter().flatten())
            .copied()
            .chain([self.cell.expires().as_micros()]);
        match words.find(|word| *word >= Cell::WORD_LIMIT) {
            None => Ok(()),
            Some(word) => Err(self.broken(Law::Small, format!("{word} is stored"))),
        }
    }

    /// Every interval that ends with the last admission; the others were checked when they did.
    fn bounded(&self) -> Lawful {
        let Some(&(end, last)) = self.admitted.last() else {
            return Ok(());
        };
        let mut total = 0;
        for &(start, cost) in self.admitted.iter().rev() {
            total += u128::from(cost);
            let longer = if self.changed {
                self.rate.period_us()
            } else {
                0
            };
            let most = self.laws.bound.most(&self.rate, end - start + longer);
            let counted = match self.laws.post_paid {
                true => total - u128::from(last.saturating_sub(1)),
                false => total,
            };
            if counted > most {
                let law = match (self.changed, self.stepped_back) {
                    (true, _) => Law::Changed,
                    (false, true) => Law::StepsBack,
                    (false, false) => Law::Bounded,
                };
                let why = format!("{counted} admitted in {} µs, at most {most}", end - start);
                return Err(self.broken(law, why));
            }
        }
        Ok(())
    }

    fn fresh(&self, cost: u32, who: usize) -> Lawful {
        let expires = self.cell.expires().as_micros();
        let (from, period) = (expires.max(self.now), self.rate.period_us());
        let instants = [from, from + 1, from + period / 3, from + 5 * period];
        for at in instants.into_iter().filter(|at| *at <= self.end) {
            for (cost, who) in [(1, 0), (cost, who), (self.rate.limit(), who)] {
                let (mut expired, mut fresh) = (self.cell.clone(), Cell::fresh());
                let old = self.step(&mut expired, at, cost, who);
                let new = self.step(&mut fresh, at, cost, who);
                // What is denied stays as it is, expired or absent.
                if old != new || (old.is_allowed() && expired != fresh) {
                    let why = format!(
                        "at {at} µs, expired at {expires}, a cost of {cost} got {old:?} and left \
                         {expired:?}, fresh {new:?} and {fresh:?}"
                    );
                    return Err(self.broken(Law::Fresh, why));
                }
            }
        }
        Ok(())
    }

    /// Neither a cell that it cannot have written nor a rate that it refuses may make it panic.
    fn bears(&mut self, cell: &Cell) {
        self.story.push(format!("then on {cell:?}"));
        for cost in [0, 1, self.rate.limit(), u32::MAX] {
            let (mut cell, hit) = (cell.clone(), self.hit_of(self.now, cost, 0));
            for _ in 0..2 {
                let _ = self.laws.strategy.details(&cell, &hit);
                let _ = self.laws.strategy.step(&mut cell, &hit);
            }
            for age_us in [0, u64::MAX] {
                for settlement in [
                    Settlement::Charge(cost),
                    Settlement::Refund { cost, age_us },
                ] {
                    self.laws.strategy.settle(&mut cell, &hit, settlement);
                }
            }
        }
    }

    fn step(&self, cell: &mut Cell, now: u64, cost: u32, who: usize) -> Decision {
        self.laws.strategy.step(cell, &self.hit_of(now, cost, who))
    }

    fn settle(&self, cell: &mut Cell, settlement: Settlement, who: usize) -> bool {
        let hit = self.hit_of(self.now, 1, who);
        self.laws.strategy.settle(cell, &hit, settlement)
    }

    fn hit_of(&self, now: u64, cost: u32, who: usize) -> Hit<'_> {
        Hit {
            now: Timestamp::from_micros(now),
            rate: &self.rate,
            cost,
            attributes: &self.laws.askers[who],
        }
    }
}
