//! What a node holds of one key: pure, so that it can be checked without a server.

use smallvec::SmallVec;

use super::demand::Demand;
use super::terms::Terms;
use crate::decision::{Decision, Verdict};
use crate::rate::Rate;
use crate::strategy::{Lent, Loan};
use crate::time::micros;

/// A part of a lease: lent at once, and spent before the others, which end later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lot {
    pub(super) left: u32,
    pub(super) term: u64,
    /// When it ends, by the clock of this node.
    pub(super) until_us: u64,
    /// Of which [era](Holding::age) it is.
    pub(super) era: u32,
}

/// What was taken out for one hit.
pub(super) type Lots = SmallVec<[Lot; 2]>;

/// What the store said last.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    at_us: u64,
    /// How much the limit can have available; 0 if the store has not been asked.
    limit: u64,
    free: u64,
    /// When the key is as good as fresh.
    reset_us: u64,
}

/// The store has nothing left.
#[derive(Clone, Copy, Debug)]
struct Dry {
    /// For hits of this cost, or a greater one.
    cost: u32,
    since_us: u64,
    /// What the wait of such a hit was then.
    wait_us: u64,
    reset_us: u64,
}

/// What is asked of the store for a key, together with a hit or alone.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) number: u64,
    pub(super) sent_us: u64,
    pub(super) cost: u32,
    pub(super) loan: Loan,
    /// What is given back, in case that the hit is denied, and with it the return.
    back: Lots,
}

/// What a holding is of: how much of it is asked for, at which rate, on which terms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit<'a> {
    pub(super) demand: &'a Demand,
    pub(super) rate: &'a Rate,
    pub(super) terms: &'a Terms,
}

/// What became of leases.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) local: u64,
    pub(super) lent: u64,
    pub(super) returned: u64,
    pub(super) stranded: u64,
    pub(super) void: u64,
}

/// What a hit finds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// It was decided here.
    Decided(Decision),
    /// It was admitted, and there is not enough left for those to come.
    Low(Decision),
    /// The store has to be asked.
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Holding {
    /// Those that end first, first.
    lots: SmallVec<[Lot; 4]>,
    /// How much was spent of which term, and not told.
    untold: SmallVec<[(u64, u32); 2]>,
    told: Told,
    dry: Option<Dry>,
    /// With less than this left, the store is asked before the rest runs out.
    low: u64,
    /// Numbers of questions: of the last one, and whether it awaits its answer.
    number: u64,
    asking: bool,
    /// What was lent in an earlier one is void.
    era: u32,
    asked_us: u64,
    hit_us: u64,
    /// How long a question takes, on average.
    trip_us: u64,
    /// When the store stops counting what it lent last: what is not spent by then is lost.
    ends_us: u64,
}

impl Holding {
    /// Of so much a lease saves trips that are worth the trouble.
    pub(super) const LEAST: u64 = 6;
    const MOST_LOTS: usize = 4;
    /// What fits into a part of what others can spare is plentiful: of an eighth of what is free.
    const PLENTY: u64 = 4;
    /// After so long the store is asked again, whatever the wait: something may have been given back, or
    /// everything reset.
    const LONGEST_US: u64 = 1_000_000;
    /// What is lent so shortly before the end of a window is hardly ever spent by then.
    const LATE_US: u64 = 16_000;
    /// A trip takes less as a rule.
    const FIRST_TRIP_US: u64 = 1_000;

    /// The `nth` of a table: what is on its way back to an earlier one, or was set aside of it, is none of
    /// this one's.
    pub(super) fn new(nth: u32) -> Holding {
        Holding {
            number: u64::from(nth) << 32,
            // More than are voided while a hit is on its way.
            era: nth << 8,
            ..Holding::default()
        }
    }

    /// Decides a hit by what is held, or known to be gone. What it costs is put into
    /// `aside`, if there is one: then it has to be [told](Holding::note) to be spent, or put back.
    #[inline]
    pub(super) fn decide(
        &mut self,
        now_us: u64,
        cost: u32,
        rate: &Rate,
        terms: &Terms,
        tally: &mut Tally,
        aside: Option<&mut Lots>,
    ) -> Found {
        self.end(now_us, tally);
        let left = self.left();
        if left >= u64::from(cost) {
            self.hit_us = now_us;
            self.spend(cost, aside);
            tally.local += 1;
            let decision = self.allowed(now_us);
            return match left - u64::from(cost) < self.low && !self.asking {
                true => Found::Low(decision),
                false => Found::Decided(decision),
            };
        }
        match self.deny(now_us, cost, rate, terms) {
            Some(denied) => {
                self.hit_us = now_us;
                tally.local += 1;
                Found::Decided(denied)
            }
            None => Found::Nothing,
        }
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asking
    }

    /// Whether the answer should be here by now. Nobody need wait for it any more.
    pub(super) fn is_overdue(&self, now_us: u64) -> bool {
        u128::from(now_us.saturating_sub(self.asked_us)) >= Terms::PATIENCE.as_micros()
    }

    /// Whether the limit is large enough to lend parts of it, and the store near enough that something
    /// is left of a lease when it arrives.
    pub(super) fn is_worth(&self, cost: u32, terms: &Terms) -> bool {
        let least = 4 * Self::LEAST.saturating_mul(cost.into());
        let is_near = self.trip_us < terms.length_us / 4;
        is_near && (self.told.limit == 0 || self.told.limit >= least)
    }

    pub(super) fn left(&self) -> u64 {
        self.lots.iter().map(|lot| u64::from(lot.left)).sum()
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_idle(&self, now_us: u64, terms: &Terms) -> bool {
        let is_over = now_us.saturating_sub(self.hit_us) > 4 * terms.period_us;
        !self.asking && self.lots.is_empty() && is_over
    }

    /// What a hit is told that costs nothing.
    pub(super) fn peek(&self, now_us: u64) -> Option<Decision> {
        (self.told.limit > 0).then(|| self.allowed(now_us))
    }

    /// Takes back what was set aside, as if it had never been.
    pub(super) fn put_back(&mut self, lot: Lot) {
        if lot.era == self.era {
            self.keep(lot);
        }
    }

    /// What was set aside is spent.
    pub(super) fn note(&mut self, lot: Lot) {
        if lot.era == self.era {
            note(&mut self.untold, lot.term, lot.left);
        }
    }

    /// Begins to ask for a hit that costs something, or for those to come.
    pub(super) fn ask(
        &mut self,
        now_us: u64,
        cost: u32,
        demand: &Demand,
        rate: &Rate,
        terms: &Terms,
    ) -> Question {
        let period_us = self.period_us(rate, terms);
        let trip_us = 2 * self.trip_us.max(Self::FIRST_TRIP_US);
        let span_us = self.span_us(now_us, period_us + trip_us);
        let need = match demand.over(now_us, span_us) {
            // Towards the end of a window it would be asked for less and less, over and over.
            less if span_us > Self::LATE_US => less.max(Self::LEAST),
            need => need,
        };
        let part = self.part(now_us, rate);
        let need = match self.ends_with_window() {
            true => {
                let span_us = self.span_us(now_us, 2 * period_us + trip_us);
                need.max(demand.over(now_us, span_us).min(part / Self::PLENTY))
            }
            false => need,
        };
        let (back_of, back) = match cost {
            0 => (self.most_spent(), SmallVec::new()),
            _ => self.set_aside_oldest(),
        };
        self.hit_us = now_us;
        let kept = self.left();
        let want = need.saturating_sub(kept).min(part);
        self.question(now_us, cost, want, back_of, back, terms)
    }

    /// What has to be said to the store although nobody hits: what is left goes back of a key that
    /// falls idle, and what will not be spent before it ends.
    pub(super) fn tend(
        &mut self,
        now_us: u64,
        demand: &Demand,
        rate: &Rate,
        terms: &Terms,
        tally: &mut Tally,
    ) -> Option<Question> {
        self.end(now_us, tally);
        if self.asking || self.lots.is_empty() && self.untold.is_empty() {
            return None;
        }
        let period_us = self.period_us(rate, terms);
        let is_idle = now_us.saturating_sub(self.hit_us) > period_us;
        let is_ending = self.lots.first().is_some_and(|lot| {
            let rest_us = lot.until_us.saturating_sub(now_us);
            // For less it is not worth a trip.
            let most = demand.over(now_us, rest_us) + Self::LEAST;
            rest_us < terms.early_us() && u64::from(lot.left) > most
        });
        let is_due = now_us.saturating_sub(self.asked_us) > period_us;
        let need = demand.over(now_us, self.span_us(now_us, period_us));
        let is_too_much = is_due && self.left() > 2 * need + Self::LEAST;
        if !is_idle && !is_ending && !is_too_much {
            return None;
        }
        let (back_of, back) = self.set_aside_oldest();
        let want = match is_idle {
            true => 0,
            false => need
                .saturating_sub(self.left())
                .min(self.part(now_us, rate)),
        };
        // What comes back can be lent at once.
        let want = want.min(need);
        Some(self.question(now_us, 0, want, back_of, back, terms))
    }

    /// Everything, since the backend is closed.
    pub(super) fn give_back(&mut self, now_us: u64, terms: &Terms) -> Option<Question> {
        self.lots.first()?;
        let (back_of, back) = self.set_aside_oldest();
        Some(self.question(now_us, 0, 0, back_of, back, terms))
    }

    /// The store has decided the hit of a question, and lent something if it was admitted; `next` is
    /// what a hit of the same cost would be told after it, or of one if it costs nothing. Returns what
    /// the one who asked is told: that what is held here is left, too.
    pub(super) fn answer(
        &mut self,
        question: Question,
        answer: Answer,
        now_us: u64,
        of: &Limit<'_>,
        tally: &mut Tally,
    ) -> Option<Decision> {
        let Limit {
            demand,
            rate,
            terms,
        } = *of;
        if question.number != self.number {
            return None;
        }
        self.asking = false;
        let took_us = now_us.saturating_sub(question.sent_us);
        self.trip_us = (self.trip_us * 7 + took_us) / 8;
        let (decision, lent) = match answer {
            Answer::Admitted(decision, lent) => (decision, lent),
            Answer::Denied(decision) => {
                self.tell(now_us, &decision, decision.remaining());
                if decision.verdict() == Verdict::Deny {
                    self.dry = Some(Dry::since(now_us, question.cost, &decision));
                }
                self.undo(question);
                return None;
            }
            Answer::Undone => {
                self.undo(question);
                return self.peek(now_us);
            }
            Answer::Lost => {
                self.dry = None;
                return None;
            }
        };
        if !lent.lent.known && question.loan.back_of != 0 {
            self.forget(question.loan.back_of, tally);
            tally.void += u64::from(question.loan.back);
        } else {
            tally.returned += u64::from(question.loan.back);
        }
        self.tell(now_us, &decision, lent.lent.free);
        let lent_now = lent.lent;
        if lent_now.amount > 0 {
            tally.lent += u64::from(lent_now.amount);
            self.ends_us = question.sent_us.saturating_add(lent_now.lasts_us);
            self.keep(Lot {
                left: lent_now.amount,
                term: lent_now.term,
                until_us: terms.deadline(question.sent_us, lent_now.lasts_us),
                era: self.era,
            });
        }
        let is_scarce = lent_now.amount < question.loan.want;
        self.dry = match is_scarce && lent.next.verdict() == Verdict::Deny {
            true => Some(Dry::since(now_us, question.cost.max(1), &lent.next)),
            false => None,
        };
        let period_us = self.period_us(rate, terms);
        let ahead_us = 2 * self.trip_us + period_us / 16;
        let rest_us = self.ends_us.saturating_sub(now_us);
        let lasts = rest_us < 2 * period_us && self.left() >= demand.over(now_us, rest_us);
        self.low = match self.dry {
            Some(_) => 0,
            // What is left lasts for the rest of the window.
            None if lasts => 0,
            None => (demand.over(now_us, ahead_us) + 1).min(self.left() / 2),
        };
        Some(self.allowed(now_us))
    }

    /// Nobody waits for the answer any more, if there is one.
    pub(super) fn give_up(&mut self, number: u64) {
        if number == self.number {
            self.asking = false;
        }
    }

    /// What is held is worth nothing any more, nor what will be answered.
    pub(super) fn void(&mut self, tally: &mut Tally) {
        tally.void += self.left();
        self.lots.clear();
        self.untold.clear();
        self.told = Told::default();
        self.dry = None;
        self.number += 1;
        self.asking = false;
        self.age();
    }

    /// What has been set aside is void.
    fn age(&mut self) {
        self.era = self.era.wrapping_add(1);
        for lot in &mut self.lots {
            lot.era = self.era;
        }
    }

    /// Of the present term, which ends last, what could be given back: for looking.
    pub(super) fn returnable(&self) -> Option<Loan> {
        let term = self.lots.last()?.term;
        let mine = self.lots.iter().filter(|lot| lot.term == term);
        Some(Loan {
            back: mine.map(|lot| lot.left).sum(),
            back_of: term,
            ..Loan::default()
        })
    }

    /// Drops what has ended.
    #[inline]
    fn end(&mut self, now_us: u64, tally: &mut Tally) {
        while let Some(first) = self.lots.first()
            && (first.until_us <= now_us || first.left == 0)
        {
            tally.stranded += u64::from(first.left);
            self.lots.remove(0);
        }
    }

    #[inline]
    fn spend(&mut self, cost: u32, mut aside: Option<&mut Lots>) {
        let mut owed = cost;
        for lot in &mut self.lots {
            let part = lot.left.min(owed);
            lot.left -= part;
            owed -= part;
            match &mut aside {
                Some(aside) => aside.push(Lot { left: part, ..*lot }),
                None => note(&mut self.untold, lot.term, part),
            }
            if owed == 0 {
                break;
            }
        }
    }

    #[inline]
    fn allowed(&self, now_us: u64) -> Decision {
        let remaining = (self.left() + self.told.free).min(self.told.limit);
        let reset_us = self.told.reset_us.saturating_sub(now_us);
        Decision::allow(self.told.limit, remaining).resets_in(reset_us)
    }

    /// What a hit is told if the store is known to have nothing left.
    pub(super) fn deny(
        &self,
        now_us: u64,
        cost: u32,
        rate: &Rate,
        terms: &Terms,
    ) -> Option<Decision> {
        let dry = self.dry?;
        let is_unknown = cost < dry.cost || u64::from(cost) > self.told.limit;
        if self.asking || is_unknown || !self.is_worth(cost, terms) {
            return None;
        }
        let pause_us = terms.pause_us.min(self.filled_us(rate) / 4);
        let wait_us = dry.wait_of(cost, rate).max(pause_us);
        let wait_us = dry.since_us.saturating_add(wait_us).saturating_sub(now_us);
        let is_stale = now_us.saturating_sub(dry.since_us) >= Self::LONGEST_US;
        if wait_us == 0 || is_stale || now_us < dry.since_us {
            return None;
        }
        let remaining = (self.left() + self.told.free).min(u64::from(cost) - 1);
        let reset_us = self.told.reset_us.saturating_sub(now_us).max(wait_us);
        Some(Decision::deny(self.told.limit, remaining, wait_us).resets_in(reset_us))
    }

    /// In what time the limit fills up from nothing.
    fn filled_us(&self, rate: &Rate) -> u64 {
        match self.told.limit {
            0 => u64::MAX,
            limit => rate.time_for(limit).ceil(),
        }
    }

    /// How often to ask: a limit that fills up sooner is asked more often.
    pub(super) fn period_us(&self, rate: &Rate, terms: &Terms) -> u64 {
        terms.period_us.min(self.filled_us(rate) / 4)
    }

    /// For how long to ask ahead: not beyond the end of a window, with which all leases end, and up to
    /// it if it is near.
    fn span_us(&self, now_us: u64, span_us: u64) -> u64 {
        match self.ends_us.checked_sub(now_us) {
            Some(rest_us) if rest_us > 0 && rest_us < span_us + span_us / 2 => rest_us,
            _ => span_us,
        }
    }

    /// Whether what is lent ends when the key is as good as fresh. Then what is plentiful can be held for
    /// longer, and nobody misses it; of a bucket, what is held is not earned anew meanwhile.
    fn ends_with_window(&self) -> bool {
        let apart_us = self.ends_us.abs_diff(self.told.reset_us);
        // One is measured from before the question, the other from after the answer.
        apart_us <= 2 * self.trip_us.max(Self::FIRST_TRIP_US)
    }

    /// Of what may be free, what others can spare.
    fn part(&self, now_us: u64, rate: &Rate) -> u64 {
        // The first question asks how much there is.
        if self.told.limit == 0 {
            return 0;
        }
        let since = crate::span::Span::from_micros(now_us.saturating_sub(self.told.at_us));
        let free = match now_us >= self.told.reset_us {
            true => self.told.limit,
            false => self.told.free.saturating_add(rate.earned_in(since)),
        };
        (free.min(self.told.limit) / 2).max(Self::LEAST)
    }

    /// The term of which most was spent and not told.
    fn most_spent(&self) -> u64 {
        let most = self.untold.iter().max_by_key(|(_, spent)| *spent);
        most.map_or(0, |(term, _)| *term)
    }

    fn set_aside_oldest(&mut self) -> (u64, Lots) {
        let Some(term) = self.lots.first().map(|lot| lot.term) else {
            return (self.most_spent(), SmallVec::new());
        };
        let back = self.lots.iter().copied();
        let back = back.filter(|lot| lot.term == term).collect();
        self.lots.retain(|lot| lot.term != term);
        (term, back)
    }

    fn question(
        &mut self,
        now_us: u64,
        cost: u32,
        want: u64,
        back_of: u64,
        back: Lots,
        terms: &Terms,
    ) -> Question {
        let mut spent = 0;
        self.untold.retain(|(term, untold)| {
            if *term == back_of {
                spent = *untold;
            }
            *term != back_of
        });
        self.number += 1;
        self.asking = true;
        self.asked_us = now_us;
        Question {
            number: self.number,
            sent_us: now_us,
            cost,
            loan: Loan {
                want: u32::try_from(want).unwrap_or(u32::MAX),
                length_us: terms.length_us,
                back: back.iter().map(|lot| lot.left).sum(),
                spent,
                back_of,
            },
            back,
        }
    }

    /// As if it had not been asked.
    fn undo(&mut self, question: Question) {
        let spent = question.loan.spent;
        if spent > 0 {
            note(&mut self.untold, question.loan.back_of, spent);
        }
        for lot in question.back {
            self.keep(lot);
        }
    }

    fn keep(&mut self, lot: Lot) {
        if lot.left == 0 {
            return;
        }
        let later = |held: &Lot| held.until_us > lot.until_us;
        let at = self.lots.iter().position(later);
        self.lots.insert(at.unwrap_or(self.lots.len()), lot);
        if self.lots.len() > Self::MOST_LOTS {
            self.merge();
        }
    }

    /// Two lots of one term as one that ends when the first does.
    fn merge(&mut self) {
        let pair = self
            .lots
            .windows(2)
            .position(|two| two[0].term == two[1].term);
        if let Some(at) = pair {
            let later = self.lots.remove(at + 1);
            let lot = &mut self.lots[at];
            lot.left = lot.left.saturating_add(later.left);
        }
    }

    fn tell(&mut self, now_us: u64, decision: &Decision, free: u64) {
        self.told = Told {
            at_us: now_us,
            limit: decision.limit(),
            free,
            reset_us: now_us.saturating_add(micros(decision.reset())),
        };
    }

    /// What is left of a term that the store knows nothing of.
    fn forget(&mut self, term: u64, tally: &mut Tally) {
        let void = self.lots.iter().filter(|lot| lot.term == term);
        tally.void += void.map(|lot| u64::from(lot.left)).sum::<u64>();
        self.lots.retain(|lot| lot.term != term);
        self.untold.retain(|(untold, _)| *untold != term);
        // Of which term it was is not looked at: of others a little is not given back.
        self.age();
    }
}

/// Of one term more was spent.
#[inline]
fn note(untold: &mut SmallVec<[(u64, u32); 2]>, term: u64, spent: u32) {
    match untold.iter_mut().find(|(known, _)| *known == term) {
        Some((_, known)) => *known = known.saturating_add(spent),
        None => {
            // The oldest has ended, or counts until it does.
            if untold.len() == 2 {
                untold.remove(0);
            }
            untold.push((term, spent));
        }
    }
}

/// How a question ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// The hit was admitted, if there was one.
    Admitted(Decision, Grant),
    /// It was not, so that nothing happened.
    Denied(Decision),
    /// Nothing happened, since another limit of the same identity denied, which is decided at once.
    Undone,
    /// Nobody knows what happened.
    Lost,
}

/// What was lent, and what a hit is told after that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    pub(super) lent: Lent,
    pub(super) next: Decision,
}

impl Dry {
    fn since(now_us: u64, cost: u32, denied: &Decision) -> Dry {
        Dry {
            cost,
            since_us: now_us,
            wait_us: micros(denied.wait()),
            reset_us: micros(denied.reset()),
        }
    }

    /// How long a hit that costs more had to wait: until the rest is earned, or until all comes back
    /// at once.
    fn wait_of(&self, cost: u32, rate: &Rate) -> u64 {
        let more = rate.time_for(u64::from(cost - self.cost)).ceil();
        let earned = self.wait_us.saturating_add(more);
        self.wait_us.max(earned.min(self.reset_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate::per_second(100);

    fn terms() -> Terms {
        let second = std::time::Duration::from_secs(1);
        Terms::new(second, second / 4)
    }

    fn ask(holding: &mut Holding) -> Question {
        holding.ask(5, 1, &Demand::default(), &RATE, &terms())
    }

    /// Ten of a term, by a store that does or does not know what comes back.
    fn lend(holding: &mut Holding, question: Question, term: u64, known: bool) {
        let lent = Lent {
            amount: 10,
            term,
            lasts_us: 1_000_000,
            known,
            free: 80,
        };
        let decision = Decision::allow(100, 80);
        let grant = Grant {
            lent,
            next: decision,
        };
        let (demand, terms) = (Demand::default(), terms());
        let limit = Limit {
            demand: &demand,
            rate: &RATE,
            terms: &terms,
        };
        let answer = Answer::Admitted(decision, grant);
        let _ = holding.answer(question, answer, 9, &limit, &mut Tally::default());
    }

    fn lent(nth: u32) -> Holding {
        let mut holding = Holding::new(nth);
        let question = ask(&mut holding);
        lend(&mut holding, question, 1, true);
        holding
    }

    fn set_aside(holding: &mut Holding, cost: u32) -> Lot {
        let (mut lots, mut tally) = (Lots::new(), Tally::default());
        let _ = holding.decide(9, cost, &RATE, &terms(), &mut tally, Some(&mut lots));
        lots[0]
    }

    /// It came back, and was spent beside what the store lent anew after a loss.
    #[test]
    fn what_was_set_aside_is_void_with_its_term() {
        for (known, left) in [(true, 12), (false, 10)] {
            let mut holding = lent(1);
            let aside = set_aside(&mut holding, 2);
            let question = ask(&mut holding);
            lend(&mut holding, question, 2, known);
            holding.put_back(aside);
            assert_eq!(holding.left(), left);
            // What is lent since can be set aside.
            let aside = set_aside(&mut holding, 10);
            holding.put_back(aside);
            assert_eq!(holding.left(), left);
        }
    }

    /// They began to count anew, and it was taken for theirs.
    #[test]
    fn what_is_on_its_way_to_one_that_is_gone_is_not_for_those_who_come_after() {
        let mut gone = lent(1);
        let aside = set_aside(&mut gone, 2);
        let late = ask(&mut gone);
        gone.void(&mut Tally::default());
        let mut holding = Holding::new(2);
        let _ = ask(&mut holding);
        let _ = ask(&mut holding);
        lend(&mut holding, late, 1, true);
        holding.put_back(aside);
        assert_eq!(holding.left(), 0);
    }
}
