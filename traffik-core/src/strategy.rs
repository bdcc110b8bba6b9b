//! How a limit is spread over time.
//!
//! A strategy is a pure function over a [`Cell`]: it knows neither keys nor stores nor the time
//! but through the [`Hit`] it is given. Backends make its steps atomic.
//!
//! | strategy | most admitted within a period | state | choose it for |
//! |---|---|---|---|
//! | [`FixedWindow`] | 2 × limit, around a window's edge | 2 words | plain quotas; the default |
//! | [`SlidingWindowLog`] | limit, anywhere | 16 bytes per hit | strict limits, if small |
//! | [`SlidingWindowCounter`] | 2 × limit, after a late burst | 3 words | strict enough, at any limit |
//! | [`TokenBucket`] | burst + limit | 2 words | bursts that are earned back steadily |
//! | [`TokenBucketWithDebt`] | burst + debt + limit | 2 words | the same, with an overdraft |
//! | [`LeakyBucket`] | 2 × limit | 2 words | work in progress that drains |
//! | [`LeakyBucketWithQueue`] | 2 × limit | 16 bytes per hit | the same, counting what is queued |
//! | [`Gcra`] | ⌊tolerance ÷ interval⌋ + 1 + limit | 2 words | smooth spacing of requests |
//! | [`CostBasedTokenBucket`] | burst + limit | 16 bytes per hit of a history | slowing down who is expensive |
//! | [`TieredRate`] | 2 × the tier's limit | 2 words | plans |
//! | [`QuotaWithRollover`] | 2 × limit + rollover | 3 words | plans whose rest is not lost |
//! | [`TimeOfDay`] | limits of the parts touched | 2 words | cheap nights |
//! | [`CalendarWindow`] | 2 × limit, around midnight or the end of a month | 2 words | quotas of contracts |
//! | [`AdaptiveThrottle`] | 2 × limit, less under load | 3 words | shedding load |
//! | [`PriorityQueue`] | limit, anywhere | 16 bytes per hit | important hits beside others |
//! | [`DistributedFairness`] | 2 × limit, of all instances | 32 bytes per instance | one limit, many instances |
//! | [`GeographicDistribution`] | 2 × limit, of all regions | 32 bytes per region | one limit, many regions |
//!
//! Within a period is an interval as long as the period and shorter by a moment; each strategy says
//! what holds for other intervals, and [`testing::laws`](crate#features) holds it to that.
//!
//! # When the rate is changed
//!
//! The new rate decides from the next hit on: from then on, what is admitted is what it admits in an
//! interval a period longer. What was taken before counts on as follows.
//!
//! | strategies | what was taken under the old rate |
//! |---|---|
//! | [`FixedWindow`], [`TieredRate`], [`SlidingWindowCounter`], [`AdaptiveThrottle`], [`QuotaWithRollover`], [`TimeOfDay`], [`CalendarWindow`], [`DistributedFairness`], [`GeographicDistribution`] | is a count, and counts until the new period is over that begins where the old window did, or around that |
//! | [`SlidingWindowLog`], [`PriorityQueue`] | counts for the new period from when it was taken |
//! | [`TokenBucket`], [`TokenBucketWithDebt`], [`LeakyBucket`], [`LeakyBucketWithQueue`], [`Gcra`], [`CostBasedTokenBucket`] | is owed as a time, and goes on to be: 30 s are 30 s at any rate, but no more than the new rate's whole capacity. So whoever had used up `1/day` waits for a minute at most once it is `1/minute` |
//!
//! What an [`AdaptiveThrottle`] cut stays cut, as so many units of the limit; what rolled over in a
//! [`QuotaWithRollover`] is at most what can roll over under the new limit. What was
//! [charged](Settlement::Charge) beyond a limit, or post-paid, is owed in full as long as the rate is
//! the same, and then as above. A store forgets what was taken when it would have been worth nothing
//! under the rate at which it was taken: after a period was made longer, somebody who was told to
//! wait may be admitted a little earlier, but never more than the new limit.
//!
//! # When the clock steps back
//!
//! Nobody is admitted more than the bound allows over the time that really passed. Up to a second, by
//! which threads overtake each other, is waited for. What lies further ahead than a clock that never
//! stepped back could have put it (a window's start by more than a period, a bucket's debt by more
//! than it holds) is brought back when a hit is denied, and keeps its count: a window is then the
//! next one, a bucket is empty, a log was made now.

mod adaptive;
mod calendar;
mod calendar_window;
#[cfg(test)]
mod changes;
mod cost_based;
mod details;
mod distributed_fairness;
mod fixed_window;
mod gcra;
mod geographic_distribution;
mod leaky_bucket;
mod leaky_bucket_with_queue;
mod lending;
mod log;
mod lua;
mod named;
mod priority_queue;
mod quota_with_rollover;
mod ratio;
mod schedule;
mod settle;
mod shadow;
mod shares;
mod sliding_window_counter;
mod sliding_window_log;
mod tiered;
mod time_of_day;
mod token_bucket;
mod token_bucket_with_debt;
#[cfg(test)]
mod trial;
mod window;
mod zone;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

pub use adaptive::{AdaptiveThrottle, AdaptiveThrottleStat, LoadGauge};
pub use calendar::Weekday;
pub use calendar_window::{CalendarWindow, CalendarWindowStat};
pub use cost_based::{CostBasedTokenBucket, CostBasedTokenBucketStat};
pub use details::DetailsOf;
pub use distributed_fairness::{DistributedFairness, DistributedFairnessStat};
pub use fixed_window::{FixedWindow, FixedWindowStat};
pub use gcra::{Gcra, GcraStat};
pub use geographic_distribution::{GeographicDistribution, GeographicDistributionStat};
pub use leaky_bucket::{LeakyBucket, LeakyBucketStat};
pub use leaky_bucket_with_queue::{LeakyBucketWithQueue, LeakyBucketWithQueueStat};
#[cfg_attr(
    not(feature = "testing"),
    allow(unused_imports, reason = "the backend that leases")
)]
pub(crate) use lending::Lending;
pub use lending::{Lent, Loan};
pub use lua::Lua;
#[cfg(feature = "redis")]
pub(crate) use lua::{BESIDE, BESIDE_IN_PLACE, BUILT_IN, IN_PLACE};
#[doc(hidden)]
pub use named::options_of;
pub use named::{NAMES, named};
pub use priority_queue::{PriorityQueue, PriorityQueueStat};
pub use quota_with_rollover::{QuotaWithRollover, QuotaWithRolloverStat};
pub use settle::Settlement;
#[cfg_attr(
    not(feature = "testing"),
    allow(unused_imports, reason = "the backends of some features")
)]
pub(crate) use settle::Settling;
pub(crate) use shadow::Shadowing;
pub use sliding_window_counter::{SlidingWindowCounter, SlidingWindowCounterStat};
pub use sliding_window_log::{SlidingWindowLog, SlidingWindowLogStat};
pub use tiered::{TieredRate, TieredRateStat};
pub use time_of_day::{TimeOfDay, TimeOfDayStat};
pub use token_bucket::{TokenBucket, TokenBucketStat};
pub use token_bucket_with_debt::{TokenBucketWithDebt, TokenBucketWithDebtStat};
pub use zone::{IntoZone, Zone};

use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::Result;
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::time::Timestamp;

/// One attempt to take `cost` from a cell.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a> {
    /// The backend's time.
    pub now: Timestamp,
    /// The rate in force; never unlimited.
    pub rate: &'a Rate,
    /// How much to take. A cost of zero asks without taking.
    pub cost: u32,
    /// What is known about who asks.
    pub attributes: &'a Attributes,
}

/// Decides hits against one key.
///
/// ```
/// use traffik_core::{Cell, Decision, Hit, Strategy};
///
/// /// One hit per period, whatever the limit says.
/// #[derive(Debug)]
/// struct OnePerPeriod;
///
/// impl Strategy for OnePerPeriod {
///     fn id(&self) -> &'static str {
///         "one_per_period"
///     }
///
///     fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
///         let wait = match cell.words() {
///             [ready] => ready.saturating_sub(hit.now.as_micros()),
///             _ => 0,
///         };
///         match (hit.cost, wait) {
///             (0, 0) => Decision::allow(1, 1),
///             (0, _) => Decision::allow(1, 0).resets_in(wait),
///             (1, 0) => {
///                 let ready = hit.now.plus_micros(hit.rate.period_us());
///                 cell.set(&[ready.as_micros()], ready);
///                 Decision::allow(1, 0).resets_in(hit.rate.period_us())
///             }
///             (1, _) => Decision::deny(1, 0, wait),
///             _ => Decision::never(1, u64::from(wait == 0)),
///         }
///     }
/// }
///
/// # #[cfg(feature = "testing")] {
/// // With the feature `testing`: random traces, shrunk to the shortest that breaks a law.
/// use traffik_core::testing::laws::{Bound, Laws};
///
/// let once = Bound::new(|rate, interval| interval.as_micros() / rate.period().as_micros() + 1);
/// Laws::of(&OnePerPeriod, once).check();
/// # }
/// ```
pub trait Strategy: Debug + Send + Sync + 'static {
    /// A stable name; part of the storage key.
    fn id(&self) -> &'static str;

    /// Decides one hit, and charges the cell if it is admitted.
    ///
    /// Pure: the same cell and hit give the same decision and cell. Backends may call it again
    /// for the same hit, and may undo what it did. A denial, or a cost of zero, changes nothing;
    /// a cost of zero is always admitted. A cell whose words it cannot have written decides like
    /// a fresh one.
    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision;

    /// The same step for Redis, where all of a batch is decided in one round trip. Without it a
    /// hit on Redis takes two, and more if others write the same key at the same time.
    ///
    /// Asked for hits of a cost above zero, under a rate that is not unlimited. Whatever does not
    /// depend on the cell or the time had better be computed here and passed as an argument.
    fn lua(&self, rate: &Rate, cost: u32, attributes: &Attributes) -> Option<Lua> {
        let _ = (rate, cost, attributes);
        None
    }

    /// Corrects what a cell was charged: charges without asking whether it fits, or gives back what
    /// a hit did not use. Returns whether the cell changed.
    ///
    /// Pure, as a step, and the cost of the hit does not matter. A refund never lets the strategy
    /// admit more than its bound, of what was admitted and not refunded. What a strategy cannot
    /// honour it leaves: this one charges what fits, and refunds nothing.
    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        settle::by_steps(self, cell, hit, settlement)
    }

    /// The same for Redis, as [`lua`](Strategy::lua) is for a step. It sets `admitted` to true,
    /// whether or not it changes the cell.
    fn settle_lua(
        &self,
        rate: &Rate,
        settlement: Settlement,
        attributes: &Attributes,
    ) -> Option<Lua> {
        let _ = (rate, settlement, attributes);
        None
    }

    /// Whether hits of this cost can be [lent](Strategy::lend) at this rate. Default: none can.
    fn lends(&self, rate: &Rate, cost: u32) -> bool {
        let _ = (rate, cost);
        false
    }

    /// A step that lends: takes back what the loan brings back, decides the hit, and lends of what is
    /// left, so that hits can be decided elsewhere.
    ///
    /// Pure, as a step. The cost may be zero, which is admitted. A denial changes nothing, and
    /// takes nothing back. What is lent is taken like a hit of that cost, never more than fits, and
    /// may be spent at any time while it lasts: over every interval, what is spent and what is
    /// admitted here are within the bound together. So what is out must not drain. What comes back is
    /// known by its [term](Lent::term) only; what has ended is not taken back, as it may have been
    /// spent.
    ///
    /// Default: a step; nothing is lent. Lending needs [`lends`](Strategy::lends) as well.
    fn lend(&self, cell: &mut Cell, hit: &Hit<'_>, loan: &Loan) -> (Decision, Lent) {
        let _ = loan;
        (self.step(cell, hit), Lent::default())
    }

    /// The same for Redis, as [`lua`](Strategy::lua) is for a step, but also asked for a cost of zero.
    /// It sets `admitted` to true if the hit is, whether or not it changes the cell.
    fn lend_lua(
        &self,
        rate: &Rate,
        cost: u32,
        loan: &Loan,
        attributes: &Attributes,
    ) -> Option<Lua> {
        let _ = (rate, cost, loan, attributes);
        None
    }

    /// Whether steps of this strategy do something else than to take a cost: they settle, lend, or only say
    /// what they would do.
    #[doc(hidden)]
    fn is_correction(&self) -> bool {
        false
    }

    /// Whether a step gives something back, so that it must not be made again if its answer was lost: it
    /// would be given twice.
    #[doc(hidden)]
    fn gives_back(&self) -> bool {
        false
    }

    /// What a step of this strategy settles, if that is what its steps do: for
    /// [`Backend::settle`](crate::Backend::settle).
    #[doc(hidden)]
    fn settlement(&self) -> Option<Settlement> {
        None
    }

    /// Who shares one cell: by default, nobody but the hits of one identity.
    fn sharing(&self) -> Sharing {
        Sharing::Identity
    }

    /// The parameters that give the state another meaning, as a text; part of the storage key.
    fn parameters(&self) -> String {
        String::new()
    }

    /// Whether this strategy can serve `rate`; asked when a throttle is built.
    ///
    /// Not asked about the rates that [attempts](crate::Attempt::rate) bring, so that these cost
    /// nothing to check. At one that would be refused a [`step`](Strategy::step) still decides, and
    /// rather denies too much: what overflows saturates, and nothing panics.
    ///
    /// # Errors
    ///
    /// If some parameter does not fit the rate.
    fn validate(&self, rate: &Rate) -> Result<()> {
        let _ = rate;
        Ok(())
    }

    /// Whether an admitted hit usually does nothing but add its cost to the second of two words,
    /// the first being a whole number of milliseconds since the epoch that expiry follows by a
    /// period.
    ///
    /// Some stores count such cells with a single command. They check what they counted against
    /// [`step`](Strategy::step), so a wrong `true` makes hits slower, not wrong.
    fn counts(&self) -> bool {
        false
    }

    /// Whether the words of a cell become greater with every hit that is admitted, whatever its
    /// time, cost and rate: compared from the first one on, as the parts of a date are. Cells with
    /// a queue are not meant, nor those that a [settlement](Strategy::settle) makes smaller, or would
    /// bring back.
    ///
    /// Then the greater of two cells is the later. A store that knows an older one than it should,
    /// since it was replaced by a replica that lags, is told of the later.
    fn grows(&self) -> bool {
        false
    }

    /// Whether of two cells without a queue the one whose words are greater, compared from the first
    /// one on, is at least as used up: whatever hit comes, what it admits, the other admits too, and
    /// is not greater afterwards. The rates of both have the same period.
    ///
    /// Then a cell may stand for several keys, since the greater of two stands for both.
    fn ordered(&self) -> bool {
        false
    }

    /// Whether what a hit takes is the [time](Rate::time_for) in which the rate earns its cost, as of a bucket,
    /// and not a count. Then a hit that was charged under another rate is refunded no more time than it took.
    /// Default: it is a count.
    fn takes_time(&self) -> bool {
        false
    }

    /// Makes of a cell of which something is [lent](Strategy::lend) one of which nothing is, that
    /// admits no more for it, and knows no term: where cells of several keys become one, by
    /// [order](Strategy::ordered). Default: they are ordered as they are.
    #[doc(hidden)]
    fn call_in(&self, cell: &mut Cell) {
        let _ = cell;
    }

    /// Makes the queue of a cell about half as long, such that the cell admits no more for it, and
    /// returns whether it could: asked by a memory that has no room for longer ones.
    fn coarsen(&self, cell: &mut Cell) -> bool {
        let _ = cell;
        false
    }

    /// In what time a rate earns a whole quota, which is the [limit](Decision::limit) that decisions
    /// tell: the window that clients are told of. Zero if it has no length, so that they are told of none.
    /// Default: the period, in which windows begin anew.
    fn window(&self, rate: &Rate, quota: u64) -> Duration {
        let _ = quota;
        rate.period()
    }

    /// What the cell says, by the strategy's own names.
    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let _ = (cell, hit);
        Details::None
    }
}

/// What a wrapper of a strategy has in common with it: all but what its steps do. In one place, so
/// that none forgets to pass on what strategies learn to tell.
macro_rules! same_strategy_as {
    ($inner:ident) => {
        fn id(&self) -> &'static str {
            self.$inner.id()
        }

        fn settle(
            &self,
            cell: &mut crate::cell::Cell,
            hit: &crate::strategy::Hit<'_>,
            settlement: crate::strategy::Settlement,
        ) -> bool {
            self.$inner.settle(cell, hit, settlement)
        }

        fn settle_lua(
            &self,
            rate: &crate::rate::Rate,
            settlement: crate::strategy::Settlement,
            attributes: &crate::identity::Attributes,
        ) -> Option<crate::strategy::Lua> {
            self.$inner.settle_lua(rate, settlement, attributes)
        }

        fn sharing(&self) -> crate::strategy::Sharing {
            self.$inner.sharing()
        }

        fn parameters(&self) -> String {
            self.$inner.parameters()
        }

        fn validate(&self, rate: &crate::rate::Rate) -> crate::error::Result<()> {
            self.$inner.validate(rate)
        }

        fn counts(&self) -> bool {
            self.$inner.counts()
        }

        fn ordered(&self) -> bool {
            self.$inner.ordered()
        }

        fn takes_time(&self) -> bool {
            self.$inner.takes_time()
        }

        fn call_in(&self, cell: &mut crate::cell::Cell) {
            self.$inner.call_in(cell);
        }

        fn coarsen(&self, cell: &mut crate::cell::Cell) -> bool {
            self.$inner.coarsen(cell)
        }

        fn window(&self, rate: &crate::rate::Rate, quota: u64) -> std::time::Duration {
            self.$inner.window(rate, quota)
        }

        fn details(
            &self,
            cell: &crate::cell::Cell,
            hit: &crate::strategy::Hit<'_>,
        ) -> crate::strategy::Details {
            self.$inner.details(cell, hit)
        }
    };
}
pub(crate) use same_strategy_as;

/// A strategy, one that is shared already, or a text that [names](named) one: `"gcra"`,
/// `"token_bucket,burst=20"`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no strategy",
    label = "neither a strategy nor the name of one",
    note = "a strategy is a type such as `TokenBucket::new().burst(20)`, the same as a text, \
            `\"token_bucket,burst=20\"`, or a type of yours that implements `Strategy`"
)]
pub trait IntoStrategy {
    /// The shared strategy.
    ///
    /// # Errors
    ///
    /// If a text names none, or an option of it makes no sense.
    fn into_strategy(self) -> Result<Arc<dyn Strategy>>;
}

#[diagnostic::do_not_recommend]
impl<S: Strategy> IntoStrategy for S {
    fn into_strategy(self) -> Result<Arc<dyn Strategy>> {
        Ok(Arc::new(self))
    }
}

impl IntoStrategy for Arc<dyn Strategy> {
    fn into_strategy(self) -> Result<Arc<dyn Strategy>> {
        Ok(self)
    }
}

impl IntoStrategy for &str {
    fn into_strategy(self) -> Result<Arc<dyn Strategy>> {
        named(self)
    }
}

impl IntoStrategy for String {
    fn into_strategy(self) -> Result<Arc<dyn Strategy>> {
        named(&self)
    }
}

/// Who shares one cell of a throttle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Each identity has a cell of its own.
    #[default]
    Identity,
    /// All identities share one, for capacities that are divided by what identities are, such as
    /// their region, and not by who they are.
    Everybody,
}

/// What a strategy keeps about a key, by its own names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(tag = "strategy", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Details {
    /// Nothing, or nothing it tells.
    None,
    /// Of a [`FixedWindow`].
    FixedWindow(FixedWindowStat),
    /// Of a [`TokenBucket`].
    TokenBucket(TokenBucketStat),
    /// Of a [`Gcra`].
    Gcra(GcraStat),
    /// Of a [`SlidingWindowLog`].
    SlidingWindowLog(SlidingWindowLogStat),
    /// Of a [`SlidingWindowCounter`].
    SlidingWindowCounter(SlidingWindowCounterStat),
    /// Of a [`TokenBucketWithDebt`].
    TokenBucketWithDebt(TokenBucketWithDebtStat),
    /// Of a [`LeakyBucket`].
    LeakyBucket(LeakyBucketStat),
    /// Of a [`LeakyBucketWithQueue`].
    LeakyBucketWithQueue(LeakyBucketWithQueueStat),
    /// Of a [`TieredRate`].
    TieredRate(TieredRateStat),
    /// Of a [`QuotaWithRollover`].
    QuotaWithRollover(QuotaWithRolloverStat),
    /// Of an [`AdaptiveThrottle`].
    AdaptiveThrottle(AdaptiveThrottleStat),
    /// Of a [`PriorityQueue`].
    PriorityQueue(PriorityQueueStat),
    /// Of [`DistributedFairness`].
    DistributedFairness(DistributedFairnessStat),
    /// Of a [`GeographicDistribution`].
    GeographicDistribution(GeographicDistributionStat),
    /// Of a [`CostBasedTokenBucket`].
    CostBasedTokenBucket(CostBasedTokenBucketStat),
    /// Of a [`TimeOfDay`].
    TimeOfDay(TimeOfDayStat),
    /// Of a [`CalendarWindow`].
    CalendarWindow(CalendarWindowStat),
    /// Of a strategy of your own.
    Custom {
        /// Names and values.
        fields: Vec<(&'static str, u64)>,
    },
}
