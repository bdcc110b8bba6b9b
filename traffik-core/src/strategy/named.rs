//! Strategies by name, for command lines and configuration files.

mod options;
mod values;

use std::sync::Arc;

use self::options::{Configured, Options};
use self::values::{
    count, duration, flag, hours, minutes, number, priority, regions, reserves, signed, tiers,
    weekday, word,
};
use super::{
    AdaptiveThrottle, CalendarWindow, CostBasedTokenBucket, DistributedFairness, FixedWindow, Gcra,
    GeographicDistribution, LeakyBucket, LeakyBucketWithQueue, PriorityQueue, QuotaWithRollover,
    SlidingWindowCounter, SlidingWindowLog, Strategy, TieredRate, TimeOfDay, TokenBucket,
    TokenBucketWithDebt,
};
use crate::error::{Error, Result};
use crate::suggest::nearest;

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
    "calendar_window",
    "cost_based_token_bucket",
    "distributed_fairness",
    "geographic_distribution",
];

/// A built-in strategy by its [id](Strategy::id), with options after commas.
///
/// Options are called as the builder's methods. Durations are written as the period of a rate:
/// `500ms`, `2 hours`. Lists are joined with `|`, and what is a tuple in the builder is written with
/// `:` and `-`:
///
/// | | |
/// |---|---|
/// | `tiered_rate` | `tiers=free:1\|gold:4.5` |
/// | `priority_queue` | `reserve=high:0.1\|critical:0.2` |
/// | `time_of_day` | `windows=9-17:2\|22-6:0.5`, `windows_by_minute=570-1050:2`, `zone=Europe/Berlin` (with the feature `time-zone`) |
/// | `calendar_window` | `week_starts_on=sunday`, `month_starts_on=15`, `zone=Europe/Berlin` (with the feature `time-zone`) |
/// | `geographic_distribution` | `regions=eu:0.6\|us:0.4` |
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
    let strategy = with_options(name, &mut options)?;
    options.finish()?;
    Ok(strategy)
}

/// The names of the options that a strategy has in this build, by its name or a text for [`named`]; `None` if there is
/// no such strategy.
#[doc(hidden)]
pub fn options_of(text: &str) -> Option<Vec<&'static str>> {
    let name = text.split(',').next().unwrap_or_default().trim();
    let mut options = Options::new(name, std::iter::empty()).ok()?;
    with_options(name, &mut options).ok()?;
    Some(options.into_known())
}

/// A strategy with those options that it has; what it has not is left over.
fn with_options(name: &str, options: &mut Options<'_>) -> Result<Arc<dyn Strategy>> {
    Ok(match name {
        "fixed_window" => Arc::new(FixedWindow::new()),
        "sliding_window_log" => Arc::new(SlidingWindowLog::new()),
        "sliding_window_counter" => Arc::new(SlidingWindowCounter::new()),
        "token_bucket" => options
            .of(TokenBucket::new())
            .set("burst", count, TokenBucket::burst)?
            .done(),
        "token_bucket_with_debt" => options
            .of(TokenBucketWithDebt::new())
            .set("burst", count, TokenBucketWithDebt::burst)?
            .set("max_debt", count, TokenBucketWithDebt::max_debt)?
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
            .set("tiers", tiers, TieredRate::tiers)?
            .set("default_tier", word, TieredRate::default_tier)?
            .done(),
        "adaptive_throttle" => options
            .of(AdaptiveThrottle::new())
            .set("load_threshold", number, AdaptiveThrottle::load_threshold)?
            .set(
                "reduction_factor",
                number,
                AdaptiveThrottle::reduction_factor,
            )?
            .set("recovery_rate", number, AdaptiveThrottle::recovery_rate)?
            .set("min_limit_ratio", number, AdaptiveThrottle::min_limit_ratio)?
            .done(),
        "priority_queue" => options
            .of(PriorityQueue::new())
            .set(
                "default_priority",
                priority,
                PriorityQueue::default_priority,
            )?
            .set("max_queue_size", count, PriorityQueue::max_queue_size)?
            .set("reserve", reserves, |queue, reserves| {
                reserves.into_iter().fold(queue, |queue, (priority, part)| {
                    queue.reserve(priority, part)
                })
            })?
            .done(),
        "quota_with_rollover" => options
            .of(QuotaWithRollover::new())
            .set(
                "rollover_percentage",
                number,
                QuotaWithRollover::rollover_percentage,
            )?
            .set("max_rollover", count, QuotaWithRollover::max_rollover)?
            .switch("cumulative", QuotaWithRollover::cumulative)?
            .done(),
        "time_of_day" => zoned(
            options
                .of(TimeOfDay::new())
                .set("windows", hours, TimeOfDay::windows)?
                .set("windows_by_minute", minutes, TimeOfDay::windows_by_minute)?
                .set("timezone_offset", signed, TimeOfDay::timezone_offset)?
                .set(
                    "timezone_offset_minutes",
                    signed,
                    TimeOfDay::timezone_offset_minutes,
                )?,
            TimeOfDay::zone,
        )?
        .done(),
        "calendar_window" => zoned(
            options
                .of(CalendarWindow::new())
                .set("week_starts_on", weekday, CalendarWindow::week_starts_on)?
                .set("month_starts_on", count, CalendarWindow::month_starts_on)?
                .set("timezone_offset", signed, CalendarWindow::timezone_offset)?
                .set(
                    "timezone_offset_minutes",
                    signed,
                    CalendarWindow::timezone_offset_minutes,
                )?,
            CalendarWindow::zone,
        )?
        .done(),
        "cost_based_token_bucket" => options
            .of(CostBasedTokenBucket::new())
            .set("burst", count, CostBasedTokenBucket::burst)?
            .set("cost_window", count, CostBasedTokenBucket::cost_window)?
            .set(
                "min_refill_rate",
                number,
                CostBasedTokenBucket::min_refill_rate,
            )?
            .done(),
        "distributed_fairness" => {
            // Without a name it is refused when it is asked to serve a rate.
            let instance = options.take("instance", word)?.unwrap_or_default();
            options
                .of(DistributedFairness::new(instance))
                .set("weight", number, DistributedFairness::weight)?
                .set(
                    "fairness_window",
                    duration,
                    DistributedFairness::fairness_window,
                )?
                .done()
        }
        "geographic_distribution" => options
            .of(GeographicDistribution::new())
            .set("regions", regions, GeographicDistribution::regions)?
            .set(
                "allow_spillover",
                flag,
                GeographicDistribution::allow_spillover,
            )?
            .set(
                "default_region",
                word,
                GeographicDistribution::default_region,
            )?
            .done(),
        _ => {
            let hint = nearest(name, NAMES.iter().copied())
                .map_or(String::new(), |near| format!(", did you mean `{near}`?"));
            return Err(Error::invalid(format!(
                "{name:?} is no strategy{hint}; there are {}",
                NAMES.join(", ")
            )));
        }
    })
}

#[cfg(feature = "time-zone")]
fn zoned<'o, 'a, S: Strategy>(
    strategy: Configured<'o, 'a, S>,
    zone: fn(S, crate::IanaZone) -> S,
) -> Result<Configured<'o, 'a, S>> {
    strategy.set("zone", values::zone, zone)
}

#[cfg(not(feature = "time-zone"))]
#[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
fn zoned<'o, 'a, S: Strategy>(
    strategy: Configured<'o, 'a, S>,
    _zone: fn(S, &'static str) -> S,
) -> Result<Configured<'o, 'a, S>> {
    Ok(strategy.elsewhere("zone (with the feature `time-zone`)"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::Priority;
    use crate::rate::Rate;
    use crate::strategy::Weekday;

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
    fn every_strategy_tells_its_options() {
        for name in NAMES {
            let options = options_of(name).expect("it is one");
            let other = refusal(&format!("{name},other=1"));
            let has = match options.is_empty() {
                true => "none".to_owned(),
                false => options.join(", "),
            };
            assert!(other.ends_with(&format!("; it has {has}")), "{other}");
        }
        let options = options_of(" gcra , strict=true").expect("it is one");
        assert_eq!(options, ["burst_tolerance", "strict"]);
        assert_eq!(options_of("gcrb"), None);
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
    fn lists_are_options_too() {
        let parameters = |text| named(text).unwrap().parameters();
        assert_eq!(
            parameters("tiered_rate,tiers=free:1 | gold : 4.5,default_tier=gold"),
            TieredRate::new()
                .tiers([("free", 1.0), ("gold", 4.5)])
                .default_tier("gold")
                .parameters()
        );
        assert_eq!(
            parameters("priority_queue,reserve=high:0.25|critical:0"),
            PriorityQueue::new()
                .reserve(Priority::High, 0.25)
                .reserve(Priority::Critical, 0.0)
                .parameters()
        );
        assert_eq!(
            parameters("time_of_day,windows=9-17:2|22-6:0.5,timezone_offset=-5"),
            TimeOfDay::new()
                .windows([(9, 17, 2.0), (22, 6, 0.5)])
                .timezone_offset(-5)
                .parameters()
        );
        assert_eq!(
            parameters("time_of_day,windows_by_minute=570-1050:2"),
            TimeOfDay::new()
                .windows_by_minute([(570, 1050, 2.0)])
                .parameters()
        );
        // Whatever they are set to, a calendar window keeps its place.
        assert_eq!(
            format!(
                "{:?}",
                named("calendar_window,week_starts_on=sunday,month_starts_on=15,timezone_offset=9")
                    .unwrap()
            ),
            format!(
                "{:?}",
                CalendarWindow::new()
                    .week_starts_on(Weekday::Sunday)
                    .month_starts_on(15)
                    .timezone_offset(9)
            )
        );
        assert_eq!(
            parameters("geographic_distribution,regions=eu:0.6|us:0.4,allow_spillover=false"),
            GeographicDistribution::new()
                .regions([("eu", 0.6), ("us", 0.4)])
                .allow_spillover(false)
                .parameters()
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
        assert_eq!(
            refusal("token_bucket,burst=1,burst=2"),
            "option `burst` of strategy token_bucket is given twice"
        );
    }

    #[test]
    fn says_what_would_be_right() {
        for (text, right) in [
            (
                "token_bucket,burst=-1",
                "a whole number from 0 to 4294967295",
            ),
            (
                "gcra,burst_tolerance=5",
                "a duration such as `500ms` or `2 hours`, of 366 days at most",
            ),
            (
                "gcra,burst_tolerance=500",
                "a duration such as `500ms` or `2 hours`, of 366 days at most",
            ),
            ("gcra,strict=yes", "`true` or `false`"),
            (
                "adaptive_throttle,load_threshold=inf",
                "a number of at least 0 such as `0.5`",
            ),
            (
                "time_of_day,timezone_offset=1.5",
                "a whole number such as `-5`",
            ),
            (
                "time_of_day,windows=9-17",
                "hours of the day and their multipliers such as `9-17:2|22-6:0.5`",
            ),
            (
                "time_of_day,windows=",
                "hours of the day and their multipliers such as `9-17:2|22-6:0.5`",
            ),
            (
                "time_of_day,windows_by_minute=9:30-10:2",
                "minutes of the day and their multipliers such as `570-1050:2|1320-360:0.5`",
            ),
            (
                "calendar_window,week_starts_on=sun",
                "monday, tuesday, wednesday, thursday, friday, saturday or sunday",
            ),
            (
                "tiered_rate,tiers=free:1|gold",
                "tiers and their multipliers such as `free:1|gold:4.5`",
            ),
            (
                "tiered_rate,tiers=:1",
                "tiers and their multipliers such as `free:1|gold:4.5`",
            ),
            (
                "geographic_distribution,regions=eu:-0.5",
                "regions and their parts such as `eu:0.6|us:0.4`",
            ),
            (
                "priority_queue,default_priority=9",
                "low, normal, high or critical",
            ),
            (
                "priority_queue,reserve=vip:0.2",
                "priorities and their parts such as `high:0.1|critical:0.2`",
            ),
        ] {
            let (name, option) = text.split_once(',').unwrap();
            let (key, value) = option.split_once('=').unwrap();
            assert_eq!(
                refusal(text),
                format!("option `{key}` of strategy {name} must be {right}, not {value:?}")
            );
        }
    }

    #[cfg(feature = "time-zone")]
    #[test]
    fn zones_have_names() {
        let berlin = TimeOfDay::new().zone(crate::IanaZone::named("Europe/Berlin").unwrap());
        assert_eq!(
            named("time_of_day,zone=Europe/Berlin")
                .unwrap()
                .parameters(),
            berlin.parameters()
        );
        for name in ["time_of_day", "calendar_window"] {
            assert_eq!(
                refusal(&format!("{name},zone=Mars")),
                format!(
                    "option `zone` of strategy {name} must be a time zone of the IANA database such \
                     as `Europe/Berlin`, not \"Mars\""
                )
            );
        }
    }

    #[cfg(not(feature = "time-zone"))]
    #[test]
    fn zones_take_a_feature() {
        let refusal = refusal("time_of_day,zone=Europe/Berlin");
        assert!(
            refusal.ends_with("zone (with the feature `time-zone`)"),
            "{refusal}"
        );
    }
}
