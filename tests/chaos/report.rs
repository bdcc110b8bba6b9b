use std::fmt;
use std::time::Duration;

use super::load::{Policy, Record, Stage, UNDER_WAY, What};
use super::scenarios::Scenario;
use super::{DEADLINE, LIMIT};

/// A network and a scheduler without a fault: what a request may take beyond its deadline.
const SLACK: Duration = Duration::from_millis(250);

/// What became of the requests of one policy in one scenario.
pub(super) struct Report<'a> {
    scenario: &'a Scenario,
    policy: Policy,
    requests: usize,
    failed: usize,
    admitted: usize,
    admitted_in_fault: usize,
    healed: usize,
    longest: Duration,
    /// During the fault; with a breaker, once that was open, and without its probes.
    p99: Option<Duration>,
    recovery: Option<Duration>,
    /// How late the machine was at worst.
    lag: Duration,
}

impl<'a> Report<'a> {
    pub(super) fn head() -> String {
        let columns = [
            "policy", "requests", "5xx", "admitted", "of limit", "healed", "longest", "p99",
            "recovery", "lag",
        ];
        row("scenario", &columns.map(str::to_owned))
    }

    pub(super) fn new(scenario: &'a Scenario, policy: Policy, records: &[Record]) -> Report<'a> {
        let answers: Vec<_> = records
            .iter()
            .filter_map(|record| match record.what {
                What::Answer {
                    policy: of,
                    status,
                    spared,
                } if of == policy => Some((record.stage, record.took, status, spared)),
                _ => None,
            })
            .collect();
        let count = |what: What| records.iter().filter(|record| record.what == what).count();
        let with = |wanted: fn(u16) -> bool| {
            let answers = answers
                .iter()
                .filter(move |(.., status, _)| wanted(*status));
            answers.map(|(stage, ..)| *stage)
        };
        let mut in_fault: Vec<_> = answers
            .iter()
            .filter(|(stage, .., spared)| {
                *stage == Stage::Fault && (*spared || policy != Policy::Failover)
            })
            .map(|(_, took, ..)| *took)
            .collect();
        in_fault.sort_unstable();
        if policy == Policy::Failover {
            in_fault.truncate(in_fault.len().saturating_sub(count(What::Probed)));
        }
        let took = |what: What| {
            let of = records.iter().filter(move |record| record.what == what);
            of.map(|record| record.took).max()
        };
        Report {
            scenario,
            policy,
            requests: answers.len(),
            failed: with(|status| status >= 500).count(),
            admitted: with(|status| status == 200).count(),
            admitted_in_fault: with(|status| status == 200)
                .filter(|stage| *stage == Stage::Fault)
                .count(),
            healed: count(What::Healed(policy)),
            longest: answers
                .iter()
                .map(|(_, took, ..)| *took)
                .max()
                .unwrap_or_default(),
            p99: in_fault.get(in_fault.len() * 99 / 100).copied(),
            recovery: took(What::Recovered(policy)),
            lag: took(What::Overslept).unwrap_or_default(),
        }
    }

    /// What was promised and not kept. `memory` is what memory alone did meanwhile.
    pub(super) fn broken_promises(&self, memory: &Report<'_>) -> Vec<String> {
        let (limit, failover) = (LIMIT as usize, self.policy == Policy::Failover);
        // What was under way when the fault began, or when a cell was lost again, neither memory
        // nor the hints had heard of.
        let most = limit + UNDER_WAY * self.healed.max(1);
        // A machine that is late makes Redis late, even before the fault.
        let late = self.longest >= DEADLINE;
        let unnoticed = self.scenario.is_unnoticed && !late;
        let must_heal = self.scenario.loses_state && !late && self.policy != Policy::Memory;
        let may_fail = self.policy == Policy::Raise && !unnoticed;
        let may_last = DEADLINE + SLACK + 3 * self.lag;
        let twice = self.p99.zip(memory.p99.map(|p99| 2 * p99 + self.lag));
        let promises = [
            (
                "no request fails unless told to",
                self.failed == 0 || may_fail,
            ),
            (
                "no request takes longer than its deadline",
                self.longest <= may_last,
            ),
            ("the store decides again by itself", self.recovery.is_some()),
            (
                "the limit is kept unless told otherwise",
                self.policy == Policy::Allow || self.admitted <= most,
            ),
            (
                "what the store loses is restored",
                !must_heal || self.healed > 0,
            ),
            (
                "requests are admitted during an outage",
                !failover || self.scenario.lasts.is_zero() || self.admitted_in_fault > 0,
            ),
            (
                "with an open breaker, p99 is within twice that of memory alone",
                !failover || twice.is_none_or(|(p99, most)| p99 <= most),
            ),
        ];
        let broken = promises.iter().filter(|(_, kept)| !kept);
        broken
            .map(|(promise, _)| format!("not kept: {promise}\n{self}\n{memory}"))
            .collect()
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Option<Duration>| {
            duration.map_or("-".into(), |took| {
                format!("{:.2} ms", took.as_secs_f64() * 1e3)
            })
        };
        let percent = self.admitted * 100 / LIMIT as usize;
        f.write_str(&row(
            self.scenario.name,
            &[
                format!("{:?}", self.policy),
                self.requests.to_string(),
                self.failed.to_string(),
                self.admitted.to_string(),
                format!("{percent} %"),
                self.healed.to_string(),
                ms(Some(self.longest)),
                ms(self.p99),
                ms(self.recovery),
                ms(Some(self.lag)),
            ],
        ))
    }
}

fn row(first: &str, cells: &[String; 10]) -> String {
    let cells = cells.iter().map(|cell| format!(" {cell:>10}"));
    format!("{first:36}{}", cells.collect::<String>())
}
