//! Each mistake that makes leases admit too many must be caught.

use super::*;
use crate::strategy::{Strategy as _, TokenBucket};
use crate::testing::laws::Bound;

const SEED: u64 = 1;

/// A token bucket that lends with something wrong with it.
#[derive(Debug)]
struct Careless(Wrong);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    /// What is out drains.
    DoesNotPin,
    /// What has ended is dropped before it is pinned.
    DropsBeforeItPins,
    TakesBackWhatHasEnded,
    /// What has ended counts as unspent.
    GivesBackWhatHasEnded,
}

const BUCKET: TokenBucket = TokenBucket::new();

impl Careless {
    fn before(&self, cell: &mut Cell, hit: &Hit<'_>) {
        let [tat, word, mut end, mut current, mut before, length] = *cell.words() else {
            return;
        };
        let (now, mut ended) = (hit.now.as_micros(), 0);
        while end <= now && current + before > 0 {
            ended += before;
            (end, current, before) = (end + length, 0, current);
        }
        match self.0 {
            Wrong::DropsBeforeItPins => {
                cell.set(&[tat, word, end, current, before, length], cell.expires());
            }
            Wrong::GivesBackWhatHasEnded if ended > 0 => {
                let cost = u32::try_from(ended).unwrap_or(u32::MAX);
                let refund = Settlement::Refund { cost, age_us: 0 };
                BUCKET.settle(cell, hit, refund);
            }
            _ => {}
        }
    }

    fn after(&self, cell: &mut Cell) {
        if self.0 == Wrong::DoesNotPin
            && let [tat, word, ..] = *cell.words()
        {
            cell.set(&[tat, word], cell.expires());
        }
    }
}

impl crate::strategy::Strategy for Careless {
    fn id(&self) -> &'static str {
        "careless"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let decision = BUCKET.step(cell, hit);
        if decision.is_allowed() && hit.cost > 0 {
            self.after(cell);
        }
        decision
    }

    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        BUCKET.settle(cell, hit, settlement)
    }

    fn lends(&self, _: &Rate, _: u32) -> bool {
        true
    }

    fn lend(&self, cell: &mut Cell, hit: &Hit<'_>, loan: &Loan) -> (Decision, Lent) {
        let mut changed = cell.clone();
        self.before(&mut changed, hit);
        let (decision, lent) = BUCKET.lend(&mut changed, hit, loan);
        if decision.is_denied() {
            return (decision, lent);
        }
        if self.0 == Wrong::TakesBackWhatHasEnded && !lent.known {
            let refund = Settlement::Refund {
                cost: loan.back,
                age_us: 0,
            };
            BUCKET.settle(&mut changed, hit, refund);
        }
        self.after(&mut changed);
        *cell = changed;
        (decision, lent)
    }
}

fn caught(wrong: Wrong, manners: Manners) -> Option<Law> {
    let careless = Careless(wrong);
    let laws = Laws::of(&careless, Bound::bucket(|rate| rate.limit().into()));
    let laws = laws.seed(SEED).cases(20_000);
    let laws = laws.rates([Rate::per_second(10), Rate::per_minute(100)]);
    let broken = laws.test_lending(manners).err();
    broken.map(|broken| broken.law())
}

#[test]
fn careful_lending_is_lawful() {
    let careless = Careless(Wrong::Nothing);
    let laws = Laws::of(&careless, Bound::bucket(|rate| rate.limit().into()));
    if let Err(broken) = laws.cases(1_000).test_lending(Manners::GOOD) {
        panic!("{broken}");
    }
}

#[test]
fn each_mistake_of_who_lends_is_caught() {
    for wrong in [
        Wrong::DoesNotPin,
        Wrong::DropsBeforeItPins,
        Wrong::TakesBackWhatHasEnded,
        Wrong::GivesBackWhatHasEnded,
    ] {
        assert_eq!(caught(wrong, Manners::GOOD), Some(Law::Lent), "{wrong:?}");
    }
}

#[test]
fn each_mistake_of_who_is_lent_is_caught() {
    let good = Manners::GOOD;
    for manners in [
        Manners { margin: 0, ..good },
        Manners {
            from_question: false,
            ..good
        },
        Manners {
            keeps_off: false,
            ..good
        },
        Manners {
            asks_once: false,
            ..good
        },
        Manners {
            tells_truth: false,
            ..good
        },
    ] {
        assert_eq!(
            caught(Wrong::Nothing, manners),
            Some(Law::Lent),
            "{manners:?}"
        );
    }
}
