//! What a file says, checked as a whole.

use actix_web::HttpRequest;

use super::backends::Backends;
use super::document::{LimitsDocument, Mistake, Mistakes, Value};
use super::explain::Explanation;
use super::identities::{Identities, Proxies};
use super::parts::Parts;
use super::reader::Table;
use super::rules::{self, PlannedRule};
use super::throttles::{Planned, Surroundings};
use crate::entry::rule::Conditions;

pub(super) struct Plan {
    pub(super) throttles: Vec<Planned>,
    pub(super) rules: Vec<PlannedRule>,
    pub(super) backends: Backends,
}

impl Plan {
    /// # Errors
    ///
    /// All mistakes that can be told at once. What a part with a mistake would have been is taken to be there, so that none
    /// follows from another.
    pub(super) fn read(
        document: &LimitsDocument,
        parts: &Parts,
        before: &Backends,
        is_trial: bool,
    ) -> Result<Plan, Mistakes> {
        let Value::Table(entries) = &document.0.value else {
            let must =
                "it must be a table with the keys throttle, rule, backend, identity and proxies";
            return Err(Mistake::at(None, must).into());
        };
        let mistakes = Mistakes::default();
        let file = Table::new("the file".to_owned(), None, entries, &mistakes);
        let proxies = Proxies::read(&file);
        let identities = Identities::read(&file, &proxies, parts);
        let backends = Backends::read(&file, parts, before);
        let around = Surroundings {
            parts,
            proxies: &proxies,
            identities: &identities,
            backends: &backends,
            is_trial,
        };
        let tables = file.tables("throttle");
        let names: Vec<&str> = tables.iter().map(|(name, ..)| *name).collect();
        let throttles: Vec<Planned> = tables
            .iter()
            .filter_map(|(name, node, table)| Planned::read(name, node, table, &around))
            .collect();
        let rules = rules::read(&file, &names, &proxies, parts);
        file.finish();
        // Such as a file that is being written.
        if tables.is_empty() && mistakes.is_empty() {
            let what = "there is no throttle in it: write `[throttle.NAME]`, and below it `rate = \"100/minute\"`";
            mistakes.add(Mistake::at(None, what));
        }
        match mistakes.is_empty() {
            true => Ok(Plan {
                throttles,
                rules,
                backends,
            }),
            false => Err(mistakes),
        }
    }

    /// For each throttle that is in a rule when it is asked: if one of its rules is for the request. In the order in which
    /// rules name them, each once.
    pub(super) fn conditions(&self) -> Vec<(&Planned, Vec<Conditions>)> {
        let mut all: Vec<(&Planned, Vec<Conditions>)> = Vec::new();
        for rule in &self.rules {
            for at in &rule.throttles {
                let throttle = &self.throttles[*at];
                match all
                    .iter_mut()
                    .find(|(one, _)| one.known_as == throttle.known_as)
                {
                    Some((_, conditions)) => conditions.push(rule.conditions.clone()),
                    None => all.push((throttle, vec![rule.conditions.clone()])),
                }
            }
        }
        all
    }

    /// What it would do about a request.
    pub(super) fn explain(&self, file: &str, req: &HttpRequest) -> Explanation {
        Explanation::of(self, file, req)
    }

    /// Throttles that are in no rule.
    pub(super) fn unruled(&self) -> impl Iterator<Item = &Planned> {
        let is_in = |at: usize| self.rules.iter().any(|rule| rule.throttles.contains(&at));
        let all = self.throttles.iter().enumerate();
        all.filter(move |(at, _)| !is_in(*at))
            .map(|(_, throttle)| throttle)
    }
}
