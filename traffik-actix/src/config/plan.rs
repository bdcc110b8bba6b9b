//! What a file says, checked as a whole.

use actix_web::HttpRequest;

use super::backends::Backends;
use super::document::{LimitsDocument, Mistake, Read, Value};
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
    /// The first mistake.
    pub(super) fn read(
        document: &LimitsDocument,
        parts: &Parts,
        before: &Backends,
        is_trial: bool,
    ) -> Read<Plan> {
        let Value::Table(entries) = &document.0.value else {
            return Err(Mistake::at(
                None,
                "it must be a table with the keys throttle, rule, backend, identity and proxies",
            ));
        };
        let file = Table::new("the file".to_owned(), None, entries);
        let proxies = Proxies::read(&file)?;
        let identities = Identities::read(&file, &proxies, parts)?;
        let backends = Backends::read(&file, parts, before)?;
        let around = Surroundings {
            parts,
            proxies: &proxies,
            identities: &identities,
            backends: &backends,
            is_trial,
        };
        let tables = file.tables("throttle")?;
        let throttles = tables
            .iter()
            .map(|(name, node, table)| Planned::read(name, node, table, &around));
        let throttles = throttles.collect::<Read<Vec<Planned>>>()?;
        let rules = rules::read(&file, &throttles, &proxies, parts)?;
        file.finish()?;
        // Such as a file that is being written.
        if throttles.is_empty() {
            let what = "there is no throttle in it: write `[throttle.NAME]`, and below it `rate = \"100/minute\"`";
            return Err(Mistake::at(None, what));
        }
        Ok(Plan {
            throttles,
            rules,
            backends,
        })
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
