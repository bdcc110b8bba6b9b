//! Strategies by name, for command lines and configuration files.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::{FixedWindow, Gcra, Strategy, TokenBucket};
use crate::error::{Error, Result};
use crate::rate::Rate;

/// Every name that [`named`] knows.
pub const NAMES: &[&str] = &["fixed_window", "token_bucket", "gcra"];

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
        "fixed_window" => Arc::new(FixedWindow),
        "token_bucket" => {
            Arc::new(options.apply(TokenBucket::new(), "burst", number, TokenBucket::burst)?)
        }
        "gcra" => {
            let gcra = options.apply(
                Gcra::new(),
                "burst_tolerance",
                duration,
                Gcra::burst_tolerance,
            )?;
            Arc::new(
                options.apply(gcra, "strict", number, |gcra, strict: bool| match strict {
                    true => gcra.strict(),
                    false => gcra,
                })?,
            )
        }
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

    /// Sets an option if it is given.
    fn apply<S, T>(
        &mut self,
        strategy: S,
        key: &'static str,
        parse: fn(&str) -> Result<T, String>,
        set: impl FnOnce(S, T) -> S,
    ) -> Result<S> {
        self.known.push(key);
        let Some(at) = self.given.iter().position(|(given, _)| *given == key) else {
            return Ok(strategy);
        };
        let (_, value) = self.given.remove(at);
        match parse(value) {
            Ok(value) => Ok(set(strategy, value)),
            Err(error) => Err(Error::invalid(format!(
                "option `{key}` of strategy {}: {value:?}: {error}",
                self.strategy
            ))),
        }
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

fn number<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
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
