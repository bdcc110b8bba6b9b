//! Strategies by name, for command lines and configuration files.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::{
    AdaptiveThrottle, CostBasedTokenBucket, DistributedFairness, FixedWindow, Gcra,
    GeographicDistribution, LeakyBucket, LeakyBucketWithQueue, PriorityQueue, QuotaWithRollover,
    SlidingWindowCounter, SlidingWindowLog, Strategy, TieredRate, TimeOfDay, TokenBucket,
    TokenBucketWithDebt,
};
use crate::error::{Error, Result};
use crate::identity::Priority;
use crate::rate::Rate;

/// Every name that [`named`] knows.
pub const NAMES: &[&str] = &[
    "fixed_window",
    "sliding_window_log",
    "sliding_window_counter",
    "token_bucket",
    "token_bucket_with_debt",
    "leaky_bucket",
    "leaky_bucket_with_queue",
    "gcra",
    "tiered_rate",
    "adaptive_throttle",
    "priority_queue",
    "quota_with_rollover",
    "time_of_day",
    "cost_based_token_bucket",
    "distributed_fairness",
    "geographic_distribution",
];

/// A built-in strategy by its [id](Strategy::id), with options after commas.
///
/// Options are called as the builder's methods. Durations are written as the period of a rate:
/// `500ms`, `2 hours`.
///
/// ```
/// use traffik_core::strategy;
///
/// let bucket = strategy::named("token_bucket,burst=20")?;
/// assert_eq!(bucket.id(), "token_bucket");
///
/// let error = strategy::named("gcra,burst=20").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "strategy gcra has no option `burst`; it has burst_tolerance, strict"
/// );
/// # Ok::<(), traffik_core::Error>(())
/// ```
///
/// # Errors
///
/// If the name is unknown, the strategy has no such option, or a value does not suit it.
pub fn named(text: &str) -> Result<Arc<dyn Strategy>> {
    let mut parts = text.split(',').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let mut options = Options::new(name, parts)?;
    let strategy: Arc<dyn Strategy> = match name {
        "fixed_window" => Arc::new(FixedWindow::new()),
        "sliding_window_log" => Arc::new(SlidingWindowLog::new()),
        "sliding_window_counter" => Arc::new(SlidingWindowCounter::new()),
        "token_bucket" => options
            .of(TokenBucket::new())
            .set("burst", value, TokenBucket::burst)?
            .done(),
        "token_bucket_with_debt" => options
            .of(TokenBucketWithDebt::new())
            .set("burst", value, TokenBucketWithDebt::burst)?
            .set("max_debt", value, TokenBucketWithDebt::max_debt)?
            .done(),
        "leaky_bucket" => Arc::new(LeakyBucket::new()),
        "leaky_bucket_with_queue" => Arc::new(LeakyBucketWithQueue::new()),
        "gcra" => options
            .of(Gcra::new())
            .set("burst_tolerance", duration, Gcra::burst_tolerance)?
            .switch("strict", Gcra::strict)?
            .done(),
        "tiered_rate" => options
            .of(TieredRate::new())
            .set("default_tier", value::<String>, TieredRate::default_tier)?
            .done(),
        "adaptive_throttle" => options
            .of(AdaptiveThrottle::new())
            .set("load_threshold", value, AdaptiveThrottle::load_threshold)?
            .set(
                "reduction_factor",
                value,
                AdaptiveThrottle::reduction_factor,
            )?
            .set("recovery_rate", value, AdaptiveThrottle::recovery_rate)?
            .set("min_limit_ratio", value, AdaptiveThrottle::min_limit_ratio)?
            .done(),
        "priority_queue" => options
            .of(PriorityQueue::new())
            .set(
                "default_priority",
                priority,
                PriorityQueue::default_priority,
            )?
            .set("max_queue_size", value, PriorityQueue::max_queue_size)?
            .done(),
        "quota_with_rollover" => options
            .of(QuotaWithRollover::new())
            .set(
                "rollover_percentage",
                value,
                QuotaWithRollover::rollover_percentage,
            )?
            .set("max_rollover", value, QuotaWithRollover::max_rollover)?
            .switch("cumulative", QuotaWithRollover::cumulative)?
            .done(),
        "time_of_day" => options
            .of(TimeOfDay::new())
            .set("timezone_offset", value, TimeOfDay::timezone_offset)?
            .set(
                "timezone_offset_minutes",
                value,
                TimeOfDay::timezone_offset_minutes,
            )?
            .done(),
        "cost_based_token_bucket" => options
            .of(CostBasedTokenBucket::new())
            .set("burst", value, CostBasedTokenBucket::burst)?
            .set("cost_window", value, CostBasedTokenBucket::cost_window)?
            .set(
                "min_refill_rate",
                value,
                CostBasedTokenBucket::min_refill_rate,
            )?
            .done(),
        "distributed_fairness" => {
            // Without a name it is refused when it is asked to serve a rate.
            let instance = options
                .take("instance", value::<String>)?
                .unwrap_or_default();
            options
                .of(DistributedFairness::new(instance))
                .set("weight", value, DistributedFairness::weight)?
                .set(
                    "fairness_window",
                    duration,
                    DistributedFairness::fairness_window,
                )?
                .done()
        }
        "geographic_distribution" => options
            .of(GeographicDistribution::new())
            .set(
                "allow_spillover",
                value,
                GeographicDistribution::allow_spillover,
            )?
            .set(
                "default_region",
                value::<String>,
                GeographicDistribution::default_region,
            )?
            .done(),
        _ => {
            return Err(Error::invalid(format!(
                "{name:?} is no strategy; there are {}",
                NAMES.join(", ")
            )));
        }
    };
    options.finish()?;
    Ok(strategy)
}

/// `key=value` pairs that a strategy takes its options from.
struct Options<'a> {
    strategy: &'a str,
    given: Vec<(&'a str, &'a str)>,
    known: Vec<&'static str>,
}

impl<'a> Options<'a> {
    fn new(strategy: &'a str, parts: impl Iterator<Item = &'a str>) -> Result<Options<'a>> {
        let given = parts.map(|part| match part.split_once('=') {
            Some((key, value)) => Ok((key.trim(), value.trim())),
            None => Err(Error::invalid(format!(
                "an option of a strategy is written `key=value`, not {part:?}"
            ))),
        });
        Ok(Options {
            strategy,
            given: given.collect::<Result<_>>()?,
            known: Vec::new(),
        })
    }

    fn of<'o, S: Strategy>(&'o mut self, strategy: S) -> Configured<'o, 'a, S> {
        Configured {
            options: self,
            strategy,
        }
    }

    /// Takes an option out, if it is given.
    fn take<T>(
        &mut self,
        key: &'static str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>> {
        self.known.push(key);
        let Some(at) = self.given.iter().position(|(given, _)| *given == key) else {
            return Ok(None);
        };
        let (_, value) = self.given.remove(at);
        parse(value).map(Some).map_err(|error| {
            Error::invalid(format!(
                "option `{key}` of strategy {}: {value:?}: {error}",
                self.strategy
            ))
        })
    }

    /// Refuses what is left over.
    fn finish(self) -> Result<()> {
        let Some((key, _)) = self.given.first() else {
            return Ok(());
        };
        let has = match self.known.is_empty() {
            true => "none".to_owned(),
            false => self.known.join(", "),
        };
        Err(Error::invalid(format!(
            "strategy {} has no option `{key}`; it has {has}",
            self.strategy
        )))
    }
}

/// A strategy that is given its options.
struct Configured<'o, 'a, S> {
    options: &'o mut Options<'a>,
    strategy: S,
}

impl<S: Strategy> Configured<'_, '_, S> {
    /// Sets an option if it is given.
    fn set<T>(
        mut self,
        key: &'static str,
        parse: fn(&str) -> Result<T, String>,
        set: impl FnOnce(S, T) -> S,
    ) -> Result<Self> {
        if let Some(value) = self.options.take(key, parse)? {
            self.strategy = set(self.strategy, value);
        }
        Ok(self)
    }

    /// Switches an option on if it is given as `true`.
    fn switch(self, key: &'static str, on: impl FnOnce(S) -> S) -> Result<Self> {
        self.set(key, value::<bool>, |strategy, is_on| match is_on {
            true => on(strategy),
            false => strategy,
        })
    }

    fn done(self) -> Arc<dyn Strategy> {
        Arc::new(self.strategy)
    }
}

fn value<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn priority(text: &str) -> Result<Priority, String> {
    match text {
        "low" => Ok(Priority::Low),
        "normal" => Ok(Priority::Normal),
        "high" => Ok(Priority::High),
        "critical" => Ok(Priority::Critical),
        _ => Err("a priority is low, normal, high or critical".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    Rate::parse_period(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        named(text).expect_err("should be refused").to_string()
    }

    #[test]
    fn every_name_is_the_id_of_its_strategy() {
        for name in NAMES {
            assert_eq!(named(name).unwrap().id(), *name);
        }
    }

    #[test]
    fn options_reach_the_strategy() {
        let parameters = |text| named(text).unwrap().parameters();
        assert_eq!(
            parameters("token_bucket, burst = 20"),
            TokenBucket::new().burst(20).parameters()
        );
        let gcra = Gcra::new()
            .burst_tolerance(Duration::from_millis(500))
            .strict();
        assert_eq!(
            parameters("gcra,strict=true,burst_tolerance=500ms"),
            gcra.parameters()
        );
    }

    #[test]
    fn texts_shares_and_switches_are_options_too() {
        let parameters = |text| named(text).unwrap().parameters();
        assert_eq!(
            parameters(
                "quota_with_rollover,rollover_percentage=0.25,max_rollover=7,cumulative=true"
            ),
            QuotaWithRollover::new()
                .rollover_percentage(0.25)
                .max_rollover(7)
                .cumulative()
                .parameters()
        );
        let rate = Rate::per_second(1);
        let tiered = named("tiered_rate,default_tier=gold").unwrap();
        assert!(
            tiered
                .validate(&rate)
                .unwrap_err()
                .to_string()
                .contains("gold")
        );
        assert!(
            named("gcra,strict=false")
                .unwrap()
                .parameters()
                .contains("strict=false")
        );
    }

    #[test]
    fn refuses_by_name() {
        assert!(
            refusal("windows").starts_with("\"windows\" is no strategy; there are fixed_window,")
        );
        assert_eq!(
            refusal("fixed_window,burst=1"),
            "strategy fixed_window has no option `burst`; it has none"
        );
        assert_eq!(
            refusal("gcra,strict"),
            "an option of a strategy is written `key=value`, not \"strict\""
        );
        assert!(
            refusal("token_bucket,burst=x")
                .starts_with("option `burst` of strategy token_bucket: \"x\": ")
        );
        assert!(refusal("gcra,burst_tolerance=5").contains("`30s`"));
        assert!(refusal("token_bucket,burst=1,burst=2").contains("no option `burst`"));
    }
}
