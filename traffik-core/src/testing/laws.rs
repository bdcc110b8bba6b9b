//! What every strategy promises, checked over random traces.
//!
//! ```
//! use traffik_core::TokenBucket;
//! use traffik_core::testing::laws::{Bound, Laws};
//!
//! let bucket = TokenBucket::new().burst(20);
//! Laws::of(&bucket, Bound::bucket(|_rate| 20)).check();
//! ```
//!
//! A trace is a rate, drawn from the ordinary and the extreme, and a list of hits at chosen
//! instants: at once, a microsecond apart, at the edges of periods, exactly when the last denial
//! said and just before, after the cell has expired, and on clocks that step back. When a law is
//! broken the trace is shrunk to a short one and shown, with the seed that leads to it again.

mod lending;
mod trace;
mod walk;

use std::cell::Cell as Slot;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::lending::{Manners, Schedule, World};
use self::trace::Trace;
use self::walk::Walk;
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::span::Span;
use crate::strategy::Strategy;
use crate::time::micros;

/// The laws, ready to be held against a strategy.
#[derive(Debug)]
#[must_use]
pub struct Laws<'a> {
    strategy: &'a dyn Strategy,
    bound: Bound,
    askers: Vec<Attributes>,
    rates: Vec<Rate>,
    post_paid: bool,
    cases: u32,
    seed: u64,
}

impl<'a> Laws<'a> {
    /// The laws for `strategy`, which claims to admit no more than `bound`.
    pub fn of(strategy: &'a dyn Strategy, bound: Bound) -> Laws<'a> {
        Laws {
            strategy,
            bound,
            askers: vec![Attributes::NONE],
            rates: Vec::new(),
            post_paid: false,
            cases: 256,
            seed: RandomState::new().hash_one(0),
        }
    }

    /// Sets who asks; each hit draws one of them. Default: somebody nothing is known about.
    ///
    /// # Panics
    ///
    /// If there is nobody.
    pub fn asked_by(mut self, askers: impl IntoIterator<Item = Attributes>) -> Self {
        self.askers = askers.into_iter().collect();
        assert!(!self.askers.is_empty(), "somebody has to ask");
        self
    }

    /// Sets the rates to draw from. Default: every limit and period there is. Rates that the
    /// strategy's [`validate`](Strategy::validate) refuses are passed over in any case, but must not
    /// make it [panic](Law::Total).
    pub fn rates(mut self, rates: impl IntoIterator<Item = Rate>) -> Self {
        self.rates = rates.into_iter().collect();
        self
    }

    /// For strategies that admit a hit of any cost when earlier ones are paid for, such as
    /// [`Gcra`](crate::Gcra) by default: what remains is then about hits of cost 1, and the last
    /// hit of an interval counts as 1 towards the bound.
    pub fn post_paid(mut self) -> Self {
        self.post_paid = true;
        self
    }

    /// Sets how many traces to try. Default: 256.
    pub fn cases(mut self, cases: u32) -> Self {
        self.cases = cases;
        self
    }

    /// Sets the seed that the traces are drawn from, so that the same ones are tried again.
    /// Default: another one each time; a broken law says which.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Checks all laws.
    ///
    /// # Panics
    ///
    /// If one is broken, with the trace that shows it.
    pub fn check(self) {
        if let Err(broken) = self.test() {
            panic!("{broken}");
        }
    }

    /// Checks all laws.
    ///
    /// # Errors
    ///
    /// The law that is broken and the shortest trace found that shows it.
    pub fn test(self) -> Result<(), Broken> {
        self.test_each(trace::traces(&self), |trace| self.walk(trace))?;
        self.test_lending(Manners::GOOD)
    }

    /// Whatever the strategy lends is spent by nodes with these manners.
    fn test_lending(&self, manners: Manners) -> Result<(), Broken> {
        self.test_each(lending::schedules(self), |schedule| {
            self.run(schedule, manners)
        })
    }

    fn test_each<S: proptest::strategy::Strategy>(
        &self,
        all: S,
        walk: impl Fn(&S::Value) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let config = Config {
            cases: self.cases,
            failure_persistence: None,
            ..Config::default()
        };
        // While a trace is shrunk, only the law that it broke first counts.
        let first: Slot<Option<Law>> = Slot::new(None);
        let mut runner = TestRunner::new_with_rng(config, self.rng());
        let tested = runner.run(&all, |trace| match walk(&trace) {
            Err(broken) if first.get().is_none_or(|law| law == broken.law) => {
                first.set(Some(broken.law));
                Err(TestCaseError::fail(broken.law.to_string()))
            }
            _ => Ok(()),
        });
        match tested {
            Ok(()) => Ok(()),
            Err(TestError::Fail(reason, trace)) => match walk(&trace) {
                Err(broken) => Err(broken),
                Ok(_) => panic!("broken once, and not again: {}", reason.message()),
            },
            Err(TestError::Abort(reason)) => panic!("no traces to try: {reason}"),
        }
    }

    fn rng(&self) -> TestRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        TestRng::from_seed(RngAlgorithm::ChaCha, &seed)
    }

    fn walk(&self, trace: &Trace) -> Result<(), Broken> {
        let mut walk = Walk::new(self, trace);
        match without_panic(|| walk.go(trace)) {
            Ok(outcome) => outcome,
            Err(what) => Err(walk.broken(Law::Total, what)),
        }
    }

    fn run(&self, schedule: &Schedule, manners: Manners) -> Result<(), Broken> {
        let mut world = World::new(self, schedule, manners);
        match without_panic(|| world.go(schedule)) {
            Ok(outcome) => outcome,
            Err(what) => Err(world.broken(Law::Total, what)),
        }
    }
}

/// The error says what panicked.
fn without_panic<T>(task: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(task)).map_err(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or(panic.downcast_ref::<&str>().copied())
            .unwrap_or("something that is no text");
        format!("panicked: {what}")
    })
}

/// A promise that every strategy keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Law {
    /// The same cell and hit give the same decision and cell.
    Pure,
    /// A cost of zero is admitted and writes nothing.
    Peek,
    /// A denied hit writes nothing.
    Denial,
    /// From its expiry on, a cell decides like an empty one.
    Fresh,
    /// A denied hit is admitted exactly after its wait and no earlier, and what is never admitted
    /// is not admitted from a fresh cell either.
    Honest,
    /// What is admitted in any interval is within the documented bound.
    Bounded,
    /// The same when the clock steps back, over the time that really passed.
    StepsBack,
    /// After the rate was changed, what is admitted from then on is what the new rate admits in an
    /// interval a period longer.
    Changed,
    /// A [settlement](Strategy::settle) takes at least what it charges, and a refund of what was just
    /// taken leaves as much as there was. Refunds count for [`Law::Bounded`]: it is about what was
    /// admitted and not refunded.
    Settled,
    /// What is [lent](Strategy::lend) is no more than there was, and whatever happens to those who
    /// spend it, what they spend and what is admitted otherwise is within the documented bound.
    Lent,
    /// Every stored word is below 2^53.
    Small,
    /// Words become greater, under any rate, if the strategy [says so](Strategy::grows).
    Grows,
    /// What remains is what can be taken: of cost 1 at least, and of every cost if pre-paid; and
    /// it is never more than the limit.
    Consistent,
    /// No hit makes it panic, not even on a cell that it cannot have written or at a rate that its
    /// [`validate`](Strategy::validate) refuses, which an [attempt](crate::Attempt::rate) may bring.
    Total,
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Law::Pure => "pure",
            Law::Peek => "a peek changes nothing",
            Law::Denial => "a denial changes nothing",
            Law::Fresh => "an expired cell decides like a fresh one",
            Law::Honest => "waits are exact",
            Law::Bounded => "bounded",
            Law::StepsBack => "bounded when the clock steps back",
            Law::Changed => "bounded when the rate changes",
            Law::Settled => "settlements take what they charge and return what they refund",
            Law::Lent => "bounded when hits are lent",
            Law::Small => "words are below 2^53",
            Law::Grows => "words become greater",
            Law::Consistent => "what remains is what can be taken",
            Law::Total => "never panics",
        })
    }
}

/// A broken law, and the trace that shows it.
#[derive(Clone, Debug)]
pub struct Broken {
    law: Law,
    why: String,
    trace: String,
    seed: u64,
}

impl Broken {
    /// The law.
    pub fn law(&self) -> Law {
        self.law
    }

    /// What to [set](Laws::seed) to find it again.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { law, why, .. } = self;
        let (trace, seed) = (&self.trace, self.seed);
        write!(f, "broken law: {law} (seed {seed})\n  {why}\n{trace}")
    }
}

impl std::error::Error for Broken {}

type Most = dyn Fn(&Rate, Duration) -> u128 + Send + Sync;

/// The most cost that a strategy admits in any interval, both of its ends included.
pub struct Bound(Box<Most>);

impl Bound {
    /// Any function of rate and length.
    pub fn new(most: impl Fn(&Rate, Duration) -> u128 + Send + Sync + 'static) -> Bound {
        Bound(Box::new(most))
    }

    /// `per_window` in each window of the rate's period; an interval of length *t* touches at most
    /// `⌈t ÷ period⌉ + 1` of them.
    pub fn windows(per_window: impl Fn(&Rate) -> u64 + Send + Sync + 'static) -> Bound {
        Bound::new(move |rate, interval| {
            let touched = micros(interval).div_ceil(rate.period_us()) + 1;
            u128::from(per_window(rate)) * u128::from(touched)
        })
    }

    /// `capacity` at once, and what the rate earns in the interval.
    pub fn bucket(capacity: impl Fn(&Rate) -> u64 + Send + Sync + 'static) -> Bound {
        Bound::new(move |rate, interval| {
            let earned = rate.earned_in(Span::from_micros(micros(interval)));
            u128::from(capacity(rate)) + u128::from(earned)
        })
    }

    fn most(&self, rate: &Rate, interval_us: u64) -> u128 {
        (self.0)(rate, Duration::from_micros(interval_us))
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
