//! What holds for all strategies when the clock steps back or the rate is changed.

use std::sync::Arc;
use std::time::Duration;

use super::trial::Trial;
use super::{NAMES, Settlement, Strategy, named};
use crate::decision::Decision;
use crate::rate::Rate;
use crate::time::{Timestamp, micros};

/// Every strategy by name.
fn all() -> Vec<Arc<dyn Strategy>> {
    let text = |name: &&str| match *name {
        "distributed_fairness" => "distributed_fairness,instance=a".to_owned(),
        "time_of_day" => "time_of_day,windows=0-24:1".to_owned(),
        name => name.to_owned(),
    };
    let strict = named("gcra,strict=true,burst_tolerance=30s");
    let texts = NAMES.iter().map(|name| named(&text(name)));
    texts
        .chain([strict])
        .map(|one| one.expect("a name"))
        .collect()
}

impl Trial<'_> {
    /// As backends do: a denial is followed by a realignment.
    fn hit_as_stored(&mut self) -> Decision {
        let decision = self.hit(1);
        if decision.is_denied() {
            self.settle(Settlement::Charge(0));
        }
        decision
    }

    /// How many hits pass before one is denied, and how long that has to wait.
    fn drain(&mut self) -> (usize, Duration) {
        let mut admitted = 0;
        loop {
            let decision = self.hit_as_stored();
            if decision.is_denied() {
                return (admitted, decision.wait());
            }
            admitted += 1;
        }
    }

    /// Waits as told, and passes.
    fn passes_after(&mut self, wait: Duration) -> bool {
        self.advance(wait - Duration::from_micros(1));
        let early = self.hit(1).is_allowed();
        self.advance(Duration::from_micros(1));
        !early && self.hit(1).is_allowed()
    }

    fn step_back(&mut self, by: Duration) {
        self.now = Timestamp::from_micros(self.now.as_micros() - micros(by));
    }
}

const HOUR: Duration = Duration::from_secs(60 * 60);

/// `5/minute` was denied for an hour, on every strategy.
#[test]
fn the_clock_stepped_back_an_hour_and_nobody_was_admitted_for_an_hour() {
    for strategy in all() {
        let mut trial = Trial::of(&*strategy, "5/minute");
        trial.drain();
        trial.step_back(HOUR);
        let (admitted, wait) = trial.drain();
        assert_eq!(admitted, 0, "{strategy:?} admits more because of it");
        // Two periods, and one in which a counter lingers.
        assert!(wait <= Duration::from_secs(180), "{strategy:?}: {wait:?}");
        assert!(trial.passes_after(wait), "{strategy:?} after {wait:?}");
    }
}

/// Half of what was taken before a step back is still taken after it.
#[test]
fn a_clock_that_steps_back_forgives_nothing() {
    for strategy in all() {
        let mut trial = Trial::of(&*strategy, "100/minute");
        let whole = trial.drain().0;
        trial.cell = crate::cell::Cell::fresh();
        for _ in 0..whole / 2 {
            assert!(trial.hit_as_stored().is_allowed());
        }
        trial.step_back(HOUR);
        let (admitted, wait) = trial.drain();
        assert!(
            admitted <= whole.div_ceil(2),
            "{strategy:?}: {admitted} more"
        );
        assert!(wait <= Duration::from_secs(121), "{strategy:?}: {wait:?}");
    }
}

/// All of `1/day` was used, then the rate became `1/minute`: to wait 86,399 s. And `3/366d`, then
/// `3/week`: 361 days.
#[test]
fn a_raised_limit_did_not_take_effect() {
    for strategy in all() {
        for (before, after) in [
            ("1/day", "1/minute"),
            ("3/366d", "3/week"),
            ("10/hour", "1000/hour"),
            ("5/minute", "100/second"),
        ] {
            let mut trial = Trial::of(&*strategy, before);
            trial.drain();
            trial.advance(Duration::from_secs(2));
            trial.rate = Rate::literal(after);
            let (_, wait) = trial.drain();
            // As if all of the new limit had just been taken.
            let mut twin = Trial::of(&*strategy, after);
            twin.now = trial.now;
            let most = twin.drain().1.max(twin.rate.period()) + Duration::from_secs(1);
            assert!(
                wait <= most,
                "{strategy:?} from {before} to {after}: {wait:?}"
            );
            assert!(trial.passes_after(wait), "{strategy:?} after {wait:?}");
        }
    }
}

/// Whatever was taken: from the change on, no more than the new rate admits from a fresh cell.
#[test]
fn a_lowered_limit_holds_at_once() {
    for strategy in all() {
        for (before, after) in [("1000/minute", "10/minute"), ("100/hour", "5/day")] {
            let mut fresh = Trial::of(&*strategy, after);
            let most = fresh.drain().0;
            for taken in [1, 50, 1_000] {
                let mut trial = Trial::of(&*strategy, before);
                for _ in 0..taken {
                    let _ = trial.hit_as_stored();
                }
                trial.rate = Rate::literal(after);
                let (admitted, wait) = trial.drain();
                assert!(admitted <= most, "{strategy:?}: {admitted} of {most}");
                // What was taken before may be forgotten earlier: when its cell expires.
                trial.advance(wait);
                assert!(trial.hit(1).is_allowed(), "{strategy:?} after {wait:?}");
            }
        }
    }
}

/// `100/month` would have been windows of 30.44 days, that begin at any time of a month.
#[test]
fn windows_that_are_a_period_long_refuse_months_and_years() {
    let even = [
        "calendar_window",
        "cost_based_token_bucket",
        "gcra",
        "leaky_bucket",
        "leaky_bucket_with_queue",
        "priority_queue",
        "sliding_window_log",
        "token_bucket",
        "token_bucket_with_debt",
    ];
    for strategy in all() {
        for (rate, text) in [
            (Rate::per_month(9), "9/month"),
            (Rate::literal("9/2months"), "9/2months"),
            (Rate::per_year(9), "9/year"),
        ] {
            let refused = strategy
                .validate(&rate)
                .err()
                .map(|error| error.to_string());
            let expected = (!even.contains(&strategy.id())).then(|| {
                format!(
                    "`{text}` has no windows that are all of one length: months and years begin anew with the \
                     strategy `calendar_window`; or give a length, such as `9/30days`"
                )
            });
            assert_eq!(refused, expected, "{strategy:?}");
        }
    }
}

/// It lasts as long as its price says, under the same rate, and is not taken for a mistake.
#[test]
fn what_buckets_were_charged_beyond_their_limit_is_paid_in_full() {
    for name in [
        "token_bucket",
        "leaky_bucket",
        "leaky_bucket_with_queue",
        "gcra",
        "gcra,strict=true",
    ] {
        let strategy = named(name).unwrap();
        let mut trial = Trial::of(&*strategy, "1/s");
        trial.settle(Settlement::Charge(10_000));
        let (admitted, wait) = trial.drain();
        assert_eq!(admitted, 0, "{name}");
        assert_eq!(wait, Duration::from_secs(10_000), "{name}");
        // A refund of half of it is worth as much as cannot have drained.
        trial.advance(Duration::from_secs(1_000));
        trial.settle(Settlement::Refund {
            cost: 5_000,
            age_us: 1_000_000_000,
        });
        assert_eq!(trial.hit(1).wait(), Duration::from_secs(5_000), "{name}");
    }
}

#[test]
fn settlements_reach_every_strategy() {
    for strategy in all() {
        let mut trial = Trial::of(&*strategy, "10/minute");
        let whole = trial.hit(0).remaining();
        trial.settle(Settlement::Charge(1));
        assert_eq!(trial.hit(0).remaining(), whole - 1, "{strategy:?}");
        trial.settle(Settlement::Refund { cost: 1, age_us: 0 });
        assert_eq!(trial.hit(0).remaining(), whole, "{strategy:?}");
        trial.settle(Settlement::Charge(u32::MAX));
        assert_eq!(trial.hit(0).remaining(), 0, "{strategy:?}");
    }
}
