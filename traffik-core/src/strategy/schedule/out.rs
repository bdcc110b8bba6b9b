//! What is out on lease of a cell.
//!
//! Such a cell has six words: the arrival time as ever; when the *epoch* at hand ends, what was lent
//! in it and is not back, and what was in the one before; and how long epochs are. A lease of an
//! epoch counts as out until the end of the next. When nothing is out any more, two words are left.
//!
//! What is out has been taken, and may be spent at its last moment as well as at once. So it must
//! not drain: the arrival time is *pinned* to at least the present and the price of what is out, at
//! every step, and at each end before what ended is dropped. Let `A` be what is spent in `(s, t]`,
//! and `V` the hits made on the cell in it, and the leases that end in it. A lease that is spent in
//! it either ends in it or is out at `t`, so `A ≤ V + out(t)`. `V` is at most the level at `t`, apart
//! from what is out, and what drained. Level and out are within the capacity together: so
//! `A ≤ capacity + rate × (t − s)`, over every interval.

use super::{arrival, charge, charge_any, fraction, owed, settle_to};
use crate::cell::Cell;
use crate::decision::{Decision, Verdict};
use crate::rate::Rate;
use crate::span::Span;
use crate::strategy::settle::CLOCK_SLACK_US;
use crate::strategy::{Hit, Lent, Loan, Settlement};
use crate::time::{Timestamp, micros};

/// Epochs are no longer: an hour, in µs.
pub(super) const LONGEST_US: u64 = 3_600_000_000;

/// No more than this is out in an epoch, whatever rates it was lent under.
const MOST: u64 = 1 << 40;

/// What is out.
#[derive(Clone, Copy, Debug)]
struct Out {
    /// When the epoch at hand ends.
    end: u64,
    /// Lent in this epoch.
    current: u64,
    /// Lent in the epoch before.
    before: u64,
    /// How long epochs are.
    length: u64,
}

impl Out {
    fn total(self) -> u64 {
        self.current + self.before
    }

    /// Unless it is nothing.
    fn some(self) -> Option<Out> {
        (self.total() > 0).then_some(self)
    }

    /// What of it is of this term.
    fn of_term(&mut self, term: u64) -> Option<&mut u64> {
        if term == self.end {
            Some(&mut self.current)
        } else if term.saturating_add(self.length) == self.end {
            Some(&mut self.before)
        } else {
            None
        }
    }
}

/// A cell at the time of a hit.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    /// As if nothing were out, but pinned.
    plain: Cell,
    out: Option<Out>,
    /// Whether the epoch was further ahead than it can honestly be, and was brought back.
    is_ahead: bool,
}

impl Opened {
    pub(super) fn of(cell: &Cell, hit: &Hit<'_>, capacity: Span) -> Opened {
        let [tat, word, end, current, before, length] = *cell.words() else {
            return Opened {
                plain: cell.clone(),
                out: None,
                is_ahead: false,
            };
        };
        let mut plain = Cell::fresh();
        plain.set(&[tat, word], cell.expires());
        let length = length.min(LONGEST_US);
        let latest = hit.now.as_micros() + length;
        let is_ahead = end > latest + CLOCK_SLACK_US;
        let out = Out {
            end: if is_ahead { latest } else { end },
            current: current.min(MOST),
            before: before.min(MOST),
            length,
        };
        let mut opened = Opened {
            plain,
            out: Some(out),
            is_ahead,
        };
        opened.advance(hit.now.as_micros(), hit.rate, capacity);
        opened.out = opened.out.and_then(Out::some);
        let floor = opened.floor(hit, capacity);
        opened.pin(floor, hit.rate);
        opened
    }

    /// Drops what ended until then.
    fn advance(&mut self, until_us: u64, rate: &Rate, capacity: Span) {
        while let Some(out) = self.out.filter(|out| out.end <= until_us) {
            let owed = rate.time_for(out.total()).min(capacity);
            self.pin(Span::from_micros(out.end).plus(owed, rate.limit()), rate);
            let next = Out {
                end: out.end + out.length,
                current: 0,
                before: out.current,
                length: out.length,
            };
            self.out = next.some();
        }
    }

    /// The least arrival time now: what is out does not drain.
    fn floor(&self, hit: &Hit<'_>, capacity: Span) -> Span {
        let total = self.out.map_or(0, Out::total);
        let owed = hit.rate.time_for(total).min(capacity);
        Span::from_micros(hit.now.as_micros()).plus(owed, hit.rate.limit())
    }

    fn pin(&mut self, floor: Span, rate: &Rate) {
        let [micros, word] = *self.plain.words() else {
            return;
        };
        if Span::new(micros, fraction(word, rate)) < floor {
            let words = [floor.micros(), floor.fraction().into()];
            let expires = Timestamp::from_micros(floor.ceil());
            self.plain.set(&words, expires);
        }
    }

    /// When all is over if nobody does anything.
    pub(super) fn over(&self, hit: &Hit<'_>, capacity: Span) -> u64 {
        let mut last = self.clone();
        last.advance(u64::MAX, hit.rate, capacity);
        arrival(&last.plain, hit).ceil()
    }

    /// The arrival time at present.
    pub(super) fn arrival(&self, hit: &Hit<'_>) -> Span {
        arrival(&self.plain, hit)
    }

    fn store(self, cell: &mut Cell, hit: &Hit<'_>, capacity: Span) {
        let [tat, word] = *self.plain.words() else {
            return;
        };
        let expires = Timestamp::from_micros(self.over(hit, capacity));
        match self.out {
            None => cell.set(&[tat, word], expires),
            Some(out) => cell.set(
                &[tat, word, out.end, out.current, out.before, out.length],
                expires,
            ),
        }
    }

    /// Returns whether the term is known, and so much of it is out. What was spent of it is a hit
    /// made by now: that part ends at once, and drains from here on.
    fn take_back(&mut self, loan: &Loan, hit: &Hit<'_>, capacity: Span) -> bool {
        let back = u64::from(loan.back);
        let gone = back + u64::from(loan.spent);
        let Some(of_term) = self
            .out
            .as_mut()
            .and_then(|out| out.of_term(loan.back_of))
            .filter(|of_term| **of_term >= gone.max(1))
        else {
            return false;
        };
        if gone > 0 {
            *of_term -= gone;
            let tat = self
                .arrival(hit)
                .minus(hit.rate.time_for(back), hit.rate.limit());
            let tat = tat.max(self.floor(hit, capacity));
            charge_any(&mut self.plain, hit, tat, capacity);
            self.out = self.out.and_then(Out::some);
        }
        true
    }

    /// Lends of what is free. Returns how much, and what is free beside it.
    fn lend(&mut self, loan: &Loan, hit: &Hit<'_>, capacity: Span) -> (u32, Span) {
        let (rate, now) = (hit.rate, hit.now.as_micros());
        let horizon = Span::from_micros(now).plus(capacity, rate.limit());
        let tat = self.arrival(hit);
        let left = horizon.minus(tat, rate.limit());
        let most = MOST - self.out.map_or(0, Out::total).min(MOST);
        let amount = rate.earned_in(left).min(loan.want.into()).min(most);
        if amount == 0 {
            return (0, left);
        }
        let price = rate.time_for(amount);
        charge(&mut self.plain, hit, tat.plus(price, rate.limit()));
        let length = loan.length_us.clamp(1, LONGEST_US);
        let out = self.out.get_or_insert(Out {
            end: now + length,
            current: 0,
            before: 0,
            length,
        });
        out.current += amount;
        let amount = u32::try_from(amount).unwrap_or(loan.want);
        (amount, left.minus(price, rate.limit()))
    }

    /// How long until a hit that is denied now is admitted, if nobody else does anything.
    fn wait(
        mut self,
        hit: &Hit<'_>,
        capacity: Span,
        step: impl Fn(&mut Cell, &Hit<'_>) -> Decision,
    ) -> u64 {
        let now = hit.now.as_micros();
        let mut hit = *hit;
        loop {
            let at = hit.now.as_micros();
            let decision = step(&mut self.plain.clone(), &hit);
            let ready = at.saturating_add(micros(decision.wait()));
            let Some(out) = self.out.filter(|_| decision.is_denied()) else {
                return ready - now;
            };
            if ready <= out.end && self.fits_beside(&hit, capacity, &step) {
                return ready - now;
            }
            self.advance(out.end, hit.rate, capacity);
            hit.now = Timestamp::from_micros(out.end);
            self.pin(self.floor(&hit, capacity), hit.rate);
        }
    }

    /// Whether a hit fits beside what is out, if nothing else was taken.
    fn fits_beside(
        &self,
        hit: &Hit<'_>,
        capacity: Span,
        step: impl Fn(&mut Cell, &Hit<'_>) -> Decision,
    ) -> bool {
        let floor = self.floor(hit, capacity);
        let mut least = Cell::fresh();
        let words = [floor.micros(), floor.fraction().into()];
        least.set(&words, Timestamp::from_micros(floor.ceil()));
        step(&mut least, hit).is_allowed()
    }
}

/// A step on a cell of which something is out, given the step on one of which nothing is.
#[cold]
pub(in crate::strategy) fn step(
    cell: &mut Cell,
    hit: &Hit<'_>,
    capacity: Span,
    step: impl Fn(&mut Cell, &Hit<'_>) -> Decision,
) -> Decision {
    let now = hit.now.as_micros();
    let mut opened = Opened::of(cell, hit, capacity);
    let decision = step(&mut opened.plain, hit);
    if decision.is_allowed() && hit.cost > 0 {
        let over = opened.over(hit, capacity);
        opened.store(cell, hit, capacity);
        return decision.resets_in(over - now);
    }
    // As the denial will be told of what is brought back.
    if let (tat, true) = owed(&opened.plain, hit, capacity) {
        charge_any(&mut opened.plain, hit, tat, capacity);
    }
    let over = opened.over(hit, capacity);
    let decision = match decision.verdict() {
        Verdict::Deny => {
            let (limit, remaining) = (decision.limit(), decision.remaining());
            Decision::deny(limit, remaining, opened.wait(hit, capacity, step))
        }
        Verdict::Allow | Verdict::Never => decision,
    };
    decision.resets_in(over.saturating_sub(now))
}

/// Settles a cell of which something is out.
#[cold]
pub(super) fn settle(
    cell: &mut Cell,
    hit: &Hit<'_>,
    settlement: Settlement,
    capacity: Span,
) -> bool {
    let mut opened = Opened::of(cell, hit, capacity);
    let (floor, is_ahead) = (opened.floor(hit, capacity), opened.is_ahead);
    let changes = settle_to(
        &mut opened.plain,
        hit,
        settlement,
        capacity,
        floor,
        is_ahead,
    );
    if changes {
        opened.store(cell, hit, capacity);
    }
    changes
}

/// A step that lends, given the step on a cell of which nothing is out.
pub(in crate::strategy) fn lend(
    cell: &mut Cell,
    hit: &Hit<'_>,
    loan: &Loan,
    capacity: Span,
    step: impl Fn(&mut Cell, &Hit<'_>) -> Decision,
) -> (Decision, Lent) {
    let now = hit.now.as_micros();
    let mut opened = Opened::of(cell, hit, capacity);
    let known = opened.take_back(loan, hit, capacity);
    let decision = step(&mut opened.plain, hit);
    if decision.is_denied() {
        // Without what would have come back.
        return (self::step(cell, hit, capacity, step), Lent::default());
    }
    let (amount, left) = opened.lend(loan, hit, capacity);
    let free = hit.rate.earned_in(left).min(decision.limit());
    let lent = Lent {
        amount,
        term: opened.out.map_or(0, |out| out.end),
        lasts_us: opened.out.map_or(0, |out| out.end + out.length - now),
        known,
        free,
    };
    let over = opened.over(hit, capacity);
    let takes_back = known && (loan.back > 0 || loan.spent > 0);
    if takes_back || hit.cost > 0 || amount > 0 {
        opened.store(cell, hit, capacity);
    }
    let decision = Decision::allow(decision.limit(), free).resets_in(over.saturating_sub(now));
    (decision, lent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Attributes;
    use crate::strategy::{Strategy as _, TokenBucket};

    const RATE: Rate = Rate::per_second(10);
    const BUCKET: TokenBucket = TokenBucket::new();
    const SECOND: u64 = 1_000_000;

    fn hit(now: u64, cost: u32) -> Hit<'static> {
        Hit {
            now: Timestamp::from_micros(1_704_067_200_000_000 + now),
            rate: &RATE,
            cost,
            attributes: &Attributes::NONE,
        }
    }

    fn lend(cell: &mut Cell, now: u64, want: u32, back: (u32, u64)) -> Lent {
        let loan = Loan {
            want,
            length_us: SECOND,
            back: back.0,
            back_of: back.1,
            spent: 0,
        };
        let (decision, lent) = BUCKET.lend(cell, &hit(now, 0), &loan);
        assert!(decision.is_allowed());
        lent
    }

    fn left(cell: &Cell, now: u64) -> u64 {
        BUCKET.step(&mut cell.clone(), &hit(now, 0)).remaining()
    }

    #[test]
    fn what_is_out_does_not_drain_until_it_ends() {
        let mut cell = Cell::fresh();
        assert_eq!(lend(&mut cell, 0, 10, (0, 0)).lasts_us, 2 * SECOND);
        for (now, expected) in [
            (SECOND, 0),
            (2 * SECOND, 0),
            (2_500_000, 5),
            (3 * SECOND, 10),
        ] {
            assert_eq!(left(&cell, now), expected, "after {now} µs");
        }
        let denied = BUCKET.step(&mut cell, &hit(SECOND, 3));
        assert_eq!(micros(denied.wait()), SECOND + 300_000);
    }

    #[test]
    fn a_cell_of_which_nothing_is_out_has_two_words() {
        let mut cell = Cell::fresh();
        let lent = lend(&mut cell, 0, 4, (0, 0));
        assert_eq!(cell.words().len(), 6);
        let mut plain = Cell::fresh();
        lend(&mut cell, 0, 0, (4, lent.term));
        assert!(BUCKET.step(&mut cell, &hit(0, 1)).is_allowed());
        assert!(BUCKET.step(&mut plain, &hit(0, 1)).is_allowed());
        assert_eq!(cell, plain);

        lend(&mut cell, 0, 4, (0, 0));
        assert!(BUCKET.step(&mut cell, &hit(2 * SECOND, 1)).is_allowed());
        assert_eq!(cell.words().len(), 2);
    }

    #[test]
    fn nothing_comes_back_that_has_ended_or_is_not_out() {
        for (now, back, known) in [
            (0, 4, true),
            (0, 5, false),
            (2 * SECOND - 1, 4, true),
            (2 * SECOND, 4, false),
        ] {
            let mut cell = Cell::fresh();
            let lent = lend(&mut cell, 0, 4, (0, 0));
            let before = cell.clone();
            assert_eq!(lend(&mut cell, now, 0, (back, lent.term)).known, known);
            assert_eq!(cell == before, !known, "after {now} µs");
        }
    }

    #[test]
    fn a_cell_that_is_called_in_admits_no_more() {
        let mut cell = Cell::fresh();
        lend(&mut cell, 0, 6, (0, 0));
        assert!(BUCKET.step(&mut cell, &hit(300_000, 3)).is_allowed());
        let mut called_in = cell.clone();
        BUCKET.call_in(&mut called_in);
        assert!(called_in.words() > cell.words());
        for now in (0..4 * SECOND).step_by(50_000) {
            assert!(left(&called_in, now) <= left(&cell, now), "after {now} µs");
        }
    }
}
