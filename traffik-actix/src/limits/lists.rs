//! Rules of a registry: lists that are replaced together with their throttles.

use std::sync::Arc;

use traffik_core::{Error, Result};

use crate::entry::rule::{Conditions, Rule};
use crate::limits::registry::{Registry, State};
use crate::throttle::builder::HttpThrottleBuilder;

/// Which list of which registry.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) registry: Arc<Registry>,
    list: usize,
}

impl Listed {
    pub(crate) fn new(registry: &Arc<Registry>, list: usize) -> Listed {
        let registry = Arc::clone(registry);
        Listed { registry, list }
    }

    /// The rules in a state of the registry, with their throttles as they are in it.
    pub(crate) fn in_state(&self, state: &State) -> Vec<Rule> {
        let now = |rule: &Rule| {
            // Unless it was taken out by hand.
            let entry = state.get(rule.throttle.name())?;
            Some(rule.with(entry.in_force().clone()))
        };
        state.list(self.list).iter().filter_map(now).collect()
    }
}

/// A list and its throttles, which take the place of those before all at once.
pub(crate) struct Replacement<'a> {
    list: usize,
    pub(crate) throttles: Vec<Replaced<'a>>,
    /// Throttles, each for requests that meet one of some conditions.
    pub(crate) rules: Vec<(&'a str, Vec<Conditions>)>,
    /// Throttles that are no more.
    pub(crate) removed: Vec<String>,
}

/// A throttle of such a list.
pub(crate) struct Replaced<'a> {
    pub(crate) name: &'a str,
    pub(crate) recipe: &'a HttpThrottleBuilder,
    pub(crate) is_enabled: bool,
    /// Whether it was of the list before.
    pub(crate) is_known: bool,
    pub(crate) is_changed: bool,
    /// Whether it only says what it would do: another one is not mistaken for it.
    pub(crate) is_trial: bool,
}

impl<'a> Replacement<'a> {
    pub(crate) fn of(list: usize) -> Replacement<'a> {
        Replacement {
            list,
            throttles: Vec::new(),
            rules: Vec::new(),
            removed: Vec::new(),
        }
    }

    pub(crate) fn added(&self) -> Vec<String> {
        self.names(|one| !one.is_known)
    }

    pub(crate) fn changed(&self) -> Vec<String> {
        self.names(|one| one.is_known && one.is_changed)
    }

    fn names(&self, which: impl Fn(&Replaced<'_>) -> bool) -> Vec<String> {
        let names = self.throttles.iter().filter(|one| which(one));
        names.map(|one| one.name.to_owned()).collect()
    }
}

impl State {
    /// Replaces a list and its throttles.
    ///
    /// # Errors
    ///
    /// If a throttle cannot be built, or has the name of one that is not of the list.
    pub(crate) fn replace(
        &mut self,
        registry: &Registry,
        replacement: &Replacement<'_>,
    ) -> Result<()> {
        for name in &replacement.removed {
            self.remove(name);
        }
        for one in &replacement.throttles {
            self.place(registry, one)?;
        }
        let rule = |(name, conditions): &(&str, Vec<Conditions>)| {
            let throttle = match self.get(name) {
                Some(entry) => entry.throttle().clone(),
                // Taken out by hand: the rule is for one of this name, if there will be one.
                None => {
                    let mut all = replacement.throttles.iter();
                    let one = all.find(|one| one.name == *name)?;
                    one.recipe.clone().build().ok()?
                }
            };
            Some(Rule::any(throttle, conditions.clone()))
        };
        let rules: Vec<Rule> = replacement.rules.iter().filter_map(rule).collect();
        self.set_list(replacement.list, rules);
        Ok(())
    }

    fn place(&mut self, registry: &Registry, one: &Replaced<'_>) -> Result<()> {
        match self.get_mut(one.name) {
            Some(_) if !one.is_known => {
                return Err(Error::invalid(format!(
                    "the program has a throttle `{}` already: give the one of the file another name",
                    one.name
                )));
            }
            // Nor does one come back that was taken out by hand.
            _ if one.is_known && !one.is_changed => return Ok(()),
            Some(_) if one.is_trial => {
                self.remove(one.name);
                self.add(registry, one.recipe.clone())?;
            }
            Some(entry) => entry.rebuild(one.recipe.clone().originating(registry.origin()))?,
            None => {
                self.add(registry, one.recipe.clone())?;
            }
        }
        match self.get_mut(one.name) {
            Some(entry) => entry.set_enabled(one.is_enabled),
            None => Ok(()),
        }
    }
}
