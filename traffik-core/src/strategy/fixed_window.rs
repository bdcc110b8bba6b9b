use super::{Details, Hit, Lent, Loan, Lua, Settlement, Strategy, window};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::Result;
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::time::Timestamp;

/// Counts hits in windows aligned to the epoch: `100/minute` starts anew with every minute of the
/// clock.
///
/// * **Bound**: at most the limit in each window, hence at most *twice* the limit in any period: all
///   of one window at its end and all of the next at its beginning. An interval of one period
///   touches two windows, so never more.
/// * **State**: two words, start of the window and count, kept until the window ends.
/// * **Bursts**: the limit at once.
/// * **Choose it** when quotas should read as people say them ("per minute") and twice the limit
///   around an edge does no harm. It is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FixedWindow;

impl FixedWindow {
    /// The strategy; it has no parameters.
    pub const fn new() -> FixedWindow {
        FixedWindow
    }
}

impl Strategy for FixedWindow {
    fn id(&self) -> &'static str {
        "fixed_window"
    }

    #[inline]
    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        window::step(cell, hit, u64::from(hit.rate.limit()))
    }

    fn grows(&self) -> bool {
        true
    }

    fn ordered(&self) -> bool {
        true
    }

    fn lua(&self, rate: &Rate, cost: u32, _attributes: &Attributes) -> Option<Lua> {
        Some(window::lua(rate, cost, rate.limit().into()))
    }

    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        window::settle(cell, hit, settlement)
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        Some(window::settle_lua(rate, settlement))
    }

    fn lends(&self, _rate: &Rate, _cost: u32) -> bool {
        true
    }

    fn lend(&self, cell: &mut Cell, hit: &Hit<'_>, loan: &Loan) -> (Decision, Lent) {
        window::lend(cell, hit, loan, hit.rate.limit().into())
    }

    fn lend_lua(&self, rate: &Rate, cost: u32, loan: &Loan, _: &Attributes) -> Option<Lua> {
        Some(window::lend_lua(rate, cost, loan, rate.limit().into()))
    }

    fn counts(&self) -> bool {
        true
    }

    fn validate(&self, rate: &Rate) -> Result<()> {
        window::has_length(rate)
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let (start, count) = window::count(cell, hit);
        Details::FixedWindow(FixedWindowStat {
            window_start: Timestamp::from_micros(start),
            window_end: Timestamp::from_micros(start + hit.rate.period_us()),
            count,
        })
    }
}

/// What a [`FixedWindow`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct FixedWindowStat {
    /// When the window began.
    pub window_start: Timestamp,
    /// When the next one begins.
    pub window_end: Timestamp,
    /// What was taken in it.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};

    #[test]
    fn is_lawful() {
        Laws::of(&FixedWindow, Bound::windows(|rate| rate.limit().into())).check();
    }

    /// A node gave back what had ended, to a window that had begun a second time.
    #[test]
    fn is_lawful_where_a_window_begins_again() {
        let laws = Laws::of(&FixedWindow, Bound::windows(|rate| rate.limit().into()));
        laws.seed(11_465_035_618_848_452_785).check();
    }

    /// SPEC 3.2: `3/s` was 3 per two seconds.
    #[test]
    fn a_second_is_a_second() {
        let mut trial = Trial::of(&FixedWindow, "3/s");
        assert_eq!(trial.admitted_of(9), 3);
        trial.advance(Duration::from_secs(1));
        assert_eq!(trial.admitted_of(9), 3);
    }

    /// SPEC 3.3: the period lost what was below a second; `3/2900ms` started anew after two.
    #[test]
    fn a_period_need_not_be_whole_seconds() {
        let mut trial = Trial::of(&FixedWindow, "3/2900ms");
        assert_eq!(trial.admitted_of(9), 3);
        let wait = trial.hit(1).wait();
        trial.advance(wait - Duration::from_micros(1));
        assert_eq!(trial.admitted_of(9), 0);
        trial.advance(Duration::from_micros(1));
        assert_eq!(trial.admitted_of(9), 3);
    }

    /// SPEC 3.4: the wait was to the end of a window of the clock, the count one of the first hit.
    #[test]
    fn wait_and_count_are_of_the_same_window() {
        let mut trial = Trial::of(&FixedWindow, "1/10s");
        trial.advance(Duration::from_millis(9_500));
        assert_eq!(trial.admitted_of(2), 1);
        assert_eq!(trial.hit(1).wait(), Duration::from_millis(500));
        trial.advance(Duration::from_millis(500));
        assert_eq!(trial.admitted_of(2), 1);
    }

    /// SPEC 6.1 and 6.4: what is denied is not counted, and looking at the limit says to wait.
    #[test]
    fn hammering_does_not_prolong_the_denial() {
        let mut trial = Trial::of(&FixedWindow, "5/s");
        assert_eq!(trial.admitted_of(1_000), 5);
        let Details::FixedWindow(stat) = trial.details() else {
            panic!("it is a fixed window");
        };
        assert_eq!(stat.count, 5);
        assert!(trial.hit(1).retry_after().is_some());
    }
}
