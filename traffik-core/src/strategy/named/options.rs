use std::sync::Arc;

use super::values;
use crate::error::{Error, Result};
use crate::strategy::Strategy;
use crate::suggest::nearest;

/// `key=value` pairs that a strategy takes its options from.
pub(super) struct Options<'a> {
    strategy: &'a str,
    given: Vec<(&'a str, &'a str)>,
    known: Vec<&'static str>,
}

impl<'a> Options<'a> {
    pub(super) fn new(
        strategy: &'a str,
        parts: impl Iterator<Item = &'a str>,
    ) -> Result<Options<'a>> {
        let mut given: Vec<(&str, &str)> = Vec::new();
        for part in parts {
            let Some((key, value)) = part.split_once('=') else {
                return Err(Error::invalid(format!(
                    "an option of a strategy is written `key=value`, not {part:?}"
                )));
            };
            let key = key.trim();
            if given.iter().any(|(other, _)| *other == key) {
                return Err(Error::invalid(format!(
                    "option `{key}` of strategy {strategy} is given twice"
                )));
            }
            given.push((key, value.trim()));
        }
        Ok(Options {
            strategy,
            given,
            known: Vec::new(),
        })
    }

    pub(super) fn of<'o, S: Strategy>(&'o mut self, strategy: S) -> Configured<'o, 'a, S> {
        Configured {
            options: self,
            strategy,
        }
    }

    /// Takes an option out, if it is given.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        parse: fn(&str) -> values::Result<T>,
    ) -> Result<Option<T>> {
        self.known.push(key);
        let Some(at) = self.given.iter().position(|(given, _)| *given == key) else {
            return Ok(None);
        };
        let (_, value) = self.given.remove(at);
        parse(value).map(Some).map_err(|right| {
            Error::invalid(format!(
                "option `{key}` of strategy {} must be {right}, not {value:?}",
                self.strategy
            ))
        })
    }

    pub(super) fn into_known(self) -> Vec<&'static str> {
        self.known
    }

    /// Refuses what is left over.
    pub(super) fn finish(self) -> Result<()> {
        let Some((key, _)) = self.given.first() else {
            return Ok(());
        };
        let names = self.known.iter().copied();
        let hint =
            nearest(key, names).map_or(String::new(), |near| format!(", did you mean `{near}`?"));
        let has = match self.known.is_empty() {
            true => "none".to_owned(),
            false => self.known.join(", "),
        };
        Err(Error::invalid(format!(
            "strategy {} has no option `{key}`{hint}; it has {has}",
            self.strategy
        )))
    }
}

/// A strategy that is given its options.
pub(super) struct Configured<'o, 'a, S> {
    options: &'o mut Options<'a>,
    strategy: S,
}

impl<S: Strategy> Configured<'_, '_, S> {
    /// Sets an option if it is given.
    pub(super) fn set<T>(
        mut self,
        key: &'static str,
        parse: fn(&str) -> values::Result<T>,
        set: impl FnOnce(S, T) -> S,
    ) -> Result<Self> {
        if let Some(value) = self.options.take(key, parse)? {
            self.strategy = set(self.strategy, value);
        }
        Ok(self)
    }

    /// Switches an option on if it is given as `true`.
    pub(super) fn switch(self, key: &'static str, on: impl FnOnce(S) -> S) -> Result<Self> {
        self.set(key, values::flag, |strategy, is_on| match is_on {
            true => on(strategy),
            false => strategy,
        })
    }

    /// Tells of an option that another build has.
    #[cfg(not(feature = "time-zone"))]
    pub(super) fn elsewhere(self, option: &'static str) -> Self {
        self.options.known.push(option);
        self
    }

    pub(super) fn done(self) -> Arc<dyn Strategy> {
        Arc::new(self.strategy)
    }
}
