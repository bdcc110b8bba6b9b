//! Which rules of a file a request meets, in words.

use std::fmt::{self, Write as _};

use actix_web::HttpRequest;

use super::plan::Plan;
use super::rules::PlannedRule;

/// Which rules of a file a request meets, in which order, and with what: as text by `Display`. Made by
/// [`LimitsFile::explain`](crate::LimitsFile::explain).
#[derive(Clone, Debug)]
pub struct Explanation {
    text: String,
    throttles: Vec<String>,
}

impl Explanation {
    /// The names of the throttles that decide the request, in their order.
    pub fn throttles(&self) -> &[String] {
        &self.throttles
    }

    pub(super) fn of(plan: &Plan, file: &str, req: &HttpRequest) -> Explanation {
        let mut explanation = Explanation {
            text: format!("{} {}\n", req.method(), req.uri()),
            throttles: Vec::new(),
        };
        let is_met = |rule: &&PlannedRule| rule.checks.iter().all(|check| (check.is_met)(req));
        let (met, others): (Vec<&PlannedRule>, Vec<&PlannedRule>) =
            plan.rules.iter().partition(is_met);
        for rule in &met {
            explanation.add(plan, file, rule);
        }
        explanation.conclude(&met);
        for rule in others {
            let unmet = rule.checks.iter().filter(|check| !(check.is_met)(req));
            let unmet: Vec<&str> = unmet.map(|check| &*check.words).collect();
            let _ = writeln!(
                explanation.text,
                "not {}: only if {}",
                at(rule, file),
                unmet.join(", and ")
            );
        }
        explanation
    }

    fn add(&mut self, plan: &Plan, file: &str, rule: &PlannedRule) {
        let words: Vec<&str> = rule.checks.iter().map(|check| &*check.words).collect();
        let when = match words.is_empty() {
            true => "every request".to_owned(),
            false => words.join(", and "),
        };
        let _ = writeln!(self.text, "{}: {when}", at(rule, file));
        for throttle in rule.throttles.iter().map(|at| &plan.throttles[*at]) {
            if self.throttles.contains(&throttle.name) {
                let _ = writeln!(self.text, "  `{}`, which is asked already", throttle.name);
                continue;
            }
            self.throttles.push(throttle.name.clone());
            let _ = writeln!(self.text, "  {}. `{}`", self.throttles.len(), throttle.name);
            for words in &throttle.words {
                let _ = writeln!(self.text, "     {words}");
            }
        }
    }

    fn conclude(&mut self, met: &[&PlannedRule]) {
        self.text.push_str(match (met.len(), self.throttles.len()) {
            (0, _) => "no rule is for it: it is not limited\n",
            (_, 1) => "it is admitted by this throttle, and charged, or answered 429\n",
            _ => "all of them admit it, and are charged, or it is answered 429, and nothing is charged\n",
        });
    }
}

fn at(rule: &PlannedRule, file: &str) -> String {
    match rule.place {
        Some(place) => format!("rule {} ({file}:{})", rule.number, place.line),
        None => format!("rule {}", rule.number),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
