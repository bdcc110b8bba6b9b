//! Strategies that break one law each must be caught by that law.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::cell::Cell;
use crate::decision::{Decision, Verdict};
use crate::strategy::{FixedWindow, Hit, Settlement};
use crate::time::Timestamp;

/// Of traces that are the same each time: which mistake they come upon first is chance.
const SEED: u64 = 1;

/// A fixed window with something wrong with it.
#[derive(Debug)]
struct Mutant {
    wrong: Wrong,
    steps: AtomicU64,
}

#[derive(Debug, PartialEq)]
enum Wrong {
    Nothing,
    CountsItsSteps,
    WritesOnPeek,
    DeniesPeek,
    WritesOnDenial,
    ForgetsTooEarly,
    WaitsTooLong,
    WaitsTooShort,
    NeverTooSoon,
    ForgetsWhenTimeStepsBack,
    StoresNanoseconds,
    CountsDown,
    PromisesTooMuch,
    PromisesTooLittle,
    TellsAnotherLimit,
    Panics,
    ChargesTooLittle,
    RefundsTooLittle,
    RefundsWhatIsOver,
    NeverRealigns,
}

impl Strategy for Mutant {
    fn id(&self) -> &'static str {
        "mutant"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let now = hit.now.as_micros();
        let begun = cell.words().first().is_none_or(|start| *start <= now);
        if self.wrong == Wrong::ForgetsWhenTimeStepsBack && !begun {
            let mut forgotten = Cell::fresh();
            let decision = FixedWindow.step(&mut forgotten, hit);
            if decision.is_allowed() && hit.cost > 0 {
                *cell = forgotten;
            }
            return decision;
        }
        if self.wrong == Wrong::CountsDown {
            let mut up = upside_down(cell);
            let decision = FixedWindow.step(&mut up, hit);
            *cell = upside_down(&up);
            return decision;
        }
        let before = cell.clone();
        let decision = FixedWindow.step(cell, hit);
        let (limit, left) = (decision.limit(), decision.remaining());
        let wait = micros(decision.wait());
        let denied = decision.verdict() == Verdict::Deny;
        let charged = decision.is_allowed() && hit.cost > 0;
        match self.wrong {
            Wrong::CountsItsSteps => {
                let steps = self.steps.fetch_add(1, Ordering::Relaxed);
                return decision.resets_in(steps);
            }
            Wrong::WritesOnPeek if hit.cost == 0 => cell.set(&[now, 0], hit.now),
            Wrong::DeniesPeek if hit.cost == 0 && left == 0 => {
                return Decision::deny(limit, 0, 1);
            }
            Wrong::WritesOnDenial if denied => {
                cell.set(&[before.words()[0], limit], before.expires());
            }
            Wrong::ForgetsTooEarly if charged => {
                let words = [cell.words()[0], cell.words()[1]];
                cell.set(&words, Timestamp::from_micros(now + 1));
            }
            Wrong::WaitsTooLong if denied => return Decision::deny(limit, left, wait + 1),
            Wrong::WaitsTooShort if denied => return Decision::deny(limit, left, wait - 1),
            Wrong::NeverTooSoon if denied => return Decision::never(limit, left),
            Wrong::StoresNanoseconds if charged => cell.queue_mut().push([now * 1_000, 1]),
            Wrong::PromisesTooMuch if hit.cost == 0 => return Decision::allow(limit, left + 1),
            Wrong::PromisesTooLittle => return Decision::allow(limit, left / 2),
            Wrong::TellsAnotherLimit if hit.cost == 0 => return Decision::allow(limit / 2, left),
            Wrong::Panics if denied => panic!("no room"),
            _ => {}
        }
        decision
    }

    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        if self.wrong == Wrong::CountsDown {
            let mut up = upside_down(cell);
            let changed = FixedWindow.settle(&mut up, hit, settlement);
            *cell = upside_down(&up);
            return changed;
        }
        let now = hit.now.as_micros();
        let begun = cell.words().first().is_none_or(|start| *start <= now);
        if self.wrong == Wrong::ForgetsWhenTimeStepsBack && !begun {
            let mut forgotten = Cell::fresh();
            let changed = FixedWindow.settle(&mut forgotten, hit, settlement);
            if changed {
                *cell = forgotten;
            }
            return changed;
        }
        let settlement = match (&self.wrong, settlement) {
            (Wrong::NeverRealigns, Settlement::Charge(0)) => return false,
            (Wrong::ChargesTooLittle, Settlement::Charge(cost)) => Settlement::Charge(cost / 2),
            (Wrong::RefundsTooLittle, Settlement::Refund { cost, age_us }) => Settlement::Refund {
                cost: cost.div_ceil(2),
                age_us,
            },
            (Wrong::RefundsWhatIsOver, Settlement::Refund { cost, .. }) => {
                Settlement::Refund { cost, age_us: 0 }
            }
            (_, settlement) => settlement,
        };
        FixedWindow.settle(cell, hit, settlement)
    }

    fn grows(&self) -> bool {
        matches!(self.wrong, Wrong::Nothing | Wrong::CountsDown)
    }
}

fn upside_down(cell: &Cell) -> Cell {
    let mut turned = cell.clone();
    if let [start, count] = *cell.words() {
        turned.set(&[start, count ^ (Cell::WORD_LIMIT / 4 - 1)], cell.expires());
    }
    turned
}

fn broken_by(wrong: Wrong) -> Option<Law> {
    let mutant = Mutant {
        wrong,
        steps: AtomicU64::new(0),
    };
    let bound = Bound::windows(|rate| u64::from(rate.limit()));
    Laws::of(&mutant, bound)
        .seed(SEED)
        .test()
        .err()
        .map(|broken| broken.law())
}

#[test]
fn each_law_catches_who_breaks_it() {
    assert_eq!(broken_by(Wrong::Nothing), None);
    for (wrong, law) in [
        (Wrong::CountsItsSteps, Law::Pure),
        (Wrong::WritesOnPeek, Law::Peek),
        (Wrong::DeniesPeek, Law::Peek),
        (Wrong::WritesOnDenial, Law::Denial),
        (Wrong::ForgetsTooEarly, Law::Fresh),
        (Wrong::WaitsTooLong, Law::Honest),
        (Wrong::WaitsTooShort, Law::Honest),
        (Wrong::NeverTooSoon, Law::Honest),
        (Wrong::ForgetsWhenTimeStepsBack, Law::StepsBack),
        (Wrong::StoresNanoseconds, Law::Small),
        (Wrong::CountsDown, Law::Grows),
        (Wrong::PromisesTooMuch, Law::Consistent),
        (Wrong::PromisesTooLittle, Law::Consistent),
        (Wrong::TellsAnotherLimit, Law::Consistent),
        (Wrong::Panics, Law::Total),
        (Wrong::ChargesTooLittle, Law::Settled),
        (Wrong::RefundsTooLittle, Law::Settled),
        (Wrong::NeverRealigns, Law::Honest),
    ] {
        let name = format!("{wrong:?}");
        assert_eq!(broken_by(wrong), Some(law), "{name}");
    }
}

#[test]
fn a_refund_of_what_is_over_admits_too_much() {
    let broken = broken_by(Wrong::RefundsWhatIsOver);
    let bounds = [Law::Bounded, Law::StepsBack, Law::Changed];
    assert!(
        broken.is_some_and(|law| bounds.contains(&law)),
        "{broken:?}"
    );
}

#[test]
fn the_bound_is_checked_over_all_intervals() {
    let once = Bound::new(|rate, interval| {
        u128::from(rate.limit()) * u128::from(micros(interval) / rate.period_us() + 1)
    });
    let broken = Laws::of(&FixedWindow, once).seed(SEED).test().unwrap_err();
    assert!(matches!(broken.law(), Law::Bounded | Law::StepsBack));
}

#[test]
fn a_broken_law_is_told_with_a_short_trace() {
    let told = once_for_ever().seed(SEED).test().unwrap_err().to_string();
    assert!(told.starts_with("broken law: bounded"), "{told}");
    assert!(told.contains("FixedWindow at 1/second:"), "{told}");
    // Two admissions are enough, of two lines each, with a step back between them at most.
    assert!(told.lines().count() <= 3 + 6, "{told}");
}

#[test]
fn the_seed_of_a_broken_law_leads_to_it_again() {
    let drawn = once_for_ever().test().unwrap_err();
    let again = once_for_ever().seed(drawn.seed()).test().unwrap_err();
    assert_eq!(again.to_string(), drawn.to_string());
    assert!(
        drawn.to_string().contains(&drawn.seed().to_string()),
        "{drawn}"
    );
}

/// A bound that no limit keeps.
fn once_for_ever() -> Laws<'static> {
    let once = Bound::new(|rate, _| u128::from(rate.limit()));
    Laws::of(&FixedWindow, once).rates([Rate::per_second(1)])
}

/// Promises nothing at all.
#[derive(Debug)]
struct Refuses {
    panics: bool,
}

impl Strategy for Refuses {
    fn id(&self) -> &'static str {
        "refuses"
    }

    fn step(&self, _: &mut Cell, _: &Hit<'_>) -> Decision {
        assert!(!self.panics, "it said that it cannot serve this rate");
        Decision::deny(0, 0, 0)
    }

    fn validate(&self, _: &Rate) -> crate::Result<()> {
        Err(crate::Error::invalid("serves no rate"))
    }
}

#[test]
fn refused_rates_are_passed_over_but_must_be_borne() {
    let laws = |panics| Laws::of(&Refuses { panics }, Bound::new(|_, _| 0)).test();
    assert!(laws(false).is_ok());
    assert_eq!(laws(true).unwrap_err().law(), Law::Total);
}
