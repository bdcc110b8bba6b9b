//! A new file beside the one in force, in shadow.

use std::fmt;

use traffik_core::{Error, Result, ShadowReport};

use super::plan::Plan;
use super::{LimitsFile, Reloaded};

/// What a throttle of a file that is [tried](crate::LimitsFileBuilder::try_beside) would have done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tried {
    /// Its name.
    pub throttle: String,
    /// The numbers of the rules that lead to it, from 1.
    pub rules: Vec<usize>,
    /// What it would have done.
    pub outcome: TriedOutcome,
}

/// What there is to tell about a throttle of a file that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TriedOutcome {
    /// It decided this.
    Decided(ShadowReport),
    /// It is not in the new file: what it denies would be admitted.
    Removed,
    /// It is disabled in the new file, or in shadow: what it denies would be admitted.
    DeniesNobody,
}

impl LimitsFile {
    /// What the file would have done that is tried beside this one, for each of its throttles, since that was said of it:
    /// requests that would be newly denied or newly admitted. Then the throttles that it no longer has. Empty if none is tried.
    pub fn tried(&self) -> Vec<Tried> {
        let loaded = self.loaded();
        let (Some(plan), Some(trial)) = (&loaded.plan, &loaded.trial) else {
            return Vec::new();
        };
        let trial = &trial.plan;
        let mut all: Vec<Tried> = Vec::new();
        for one in &trial.throttles {
            let outcome = match self.limits().get(&one.known_as) {
                _ if !one.denies => TriedOutcome::DeniesNobody,
                Some(throttle) => TriedOutcome::Decided(throttle.shadow_report()),
                // Somebody has taken it out by hand.
                None => continue,
            };
            all.push(Tried {
                throttle: one.name.clone(),
                rules: rules_of(trial, &one.name),
                outcome,
            });
        }
        for one in &plan.throttles {
            if !trial.throttles.iter().any(|other| other.name == one.name) {
                all.push(Tried {
                    throttle: one.name.clone(),
                    rules: rules_of(plan, &one.name),
                    outcome: TriedOutcome::Removed,
                });
            }
        }
        all
    }

    /// Puts the file in force that is tried: it takes the place of this one, on disk and in one change, as `mv` and a reload. Throttles
    /// go on with the counts that they have in earnest, not with those of the trial.
    ///
    /// # Errors
    ///
    /// If none is tried, it is not on disk as it was tried, or it cannot be moved. Nothing has changed then.
    pub fn promote(&self) -> Result<Reloaded> {
        let mut loaded = self.loaded();
        let (Some(path), Some(trial)) = (&self.0.trial, &loaded.trial) else {
            return Err(Error::invalid(
                "no file is tried that could be put in force: see `try_beside`",
            ));
        };
        let mut texts = self.read()?;
        if texts.trial.as_ref() != Some(&trial.text) {
            return Err(Error::invalid(format!(
                "{} is not what was tried: reload it first",
                path.display()
            )));
        }
        // It may be the same text, and mistaken only in the place of the other.
        let promoted = texts.trial.take().unwrap_or_default();
        texts.file = promoted;
        let moved = || {
            std::fs::rename(path, &self.0.path).map_err(|error| {
                Error::invalid(format!("{} cannot be moved: {error}", path.display()))
            })
        };
        loaded.readings += 1;
        self.apply(&mut loaded, texts, moved)
    }
}

fn rules_of(plan: &Plan, throttle: &str) -> Vec<usize> {
    let is_of = |at: &usize| plan.throttles[*at].name == throttle;
    let rules = plan
        .rules
        .iter()
        .filter(|rule| rule.throttles.iter().any(is_of));
    rules.map(|rule| rule.number).collect()
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<String> = self.rules.iter().map(usize::to_string).collect();
        match rules.len() {
            0 => write!(f, "throttle `{}`, in no rule: ", self.throttle)?,
            1 => write!(f, "throttle `{}`, rule {}: ", self.throttle, rules[0])?,
            _ => write!(
                f,
                "throttle `{}`, rules {}: ",
                self.throttle,
                rules.join(", ")
            )?,
        }
        match &self.outcome {
            TriedOutcome::Decided(report) => write!(f, "{report}"),
            TriedOutcome::Removed => {
                write!(f, "not in the new file, what it denies would be admitted")
            }
            TriedOutcome::DeniesNobody => {
                write!(
                    f,
                    "disabled or in shadow in the new file, what it denies would be admitted"
                )
            }
        }
    }
}
