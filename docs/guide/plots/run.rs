//! A strategy under a trace of requests.

use std::time::Duration;

use traffik_core::{Attempt, Decision, Identity, ManualClock, MemoryBackend, Throttle, Timestamp};

/// A strategy that was asked, by its text and under its rate.
pub(super) struct Run {
    throttle: Throttle,
    clock: ManualClock,
    start: Timestamp,
    who: Identity,
}

/// One request and what became of it.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    /// Milliseconds since the trace began.
    pub(super) at: u64,
    pub(super) decision: Decision,
}

impl Run {
    /// The clock begins where windows do.
    pub(super) fn new(strategy: &str, rate: &str) -> Run {
        let clock = ManualClock::default();
        let start = traffik_core::Clock::now(&clock);
        let backend = MemoryBackend::builder().clock(clock.clone()).build();
        let throttle = Throttle::builder("plot")
            .rate(rate)
            .strategy(strategy)
            .backend(backend.expect("the default settings"))
            .build()
            .unwrap_or_else(|error| panic!("{strategy}: {error}"));
        Run {
            throttle,
            clock,
            start,
            who: Identity::ANONYMOUS,
        }
    }

    fn ask(&self, at: u64, cost: u32) -> Decision {
        self.clock.set(self.start.plus_micros(at * 1_000));
        let attempt = Attempt::by(&self.who).cost(cost);
        self.throttle.hit_now(attempt).expect("memory answers")
    }

    /// Requests at these milliseconds.
    pub(super) fn hit_at(&self, trace: &[u64]) -> Vec<Answer> {
        let answer = |&at: &u64| Answer {
            at,
            decision: self.ask(at, 1),
        };
        trace.iter().map(answer).collect()
    }

    /// What is left, asked every so many milliseconds beside the requests, which come first.
    pub(super) fn left_at(&self, trace: &[u64], until: u64, step: usize) -> Vec<(u64, u64)> {
        let mut hits = trace.iter().peekable();
        let mut left = Vec::new();
        for at in (0..=until).step_by(step) {
            while let Some(hit) = hits.next_if(|hit| **hit <= at) {
                let _admitted = self.ask(*hit, 1);
            }
            left.push((at, self.ask(at, 0).remaining()));
        }
        left
    }
}

/// How many were admitted.
pub(super) fn admitted(answers: &[Answer]) -> usize {
    let passed = |answer: &&Answer| answer.decision.is_allowed();
    answers.iter().filter(passed).count()
}

/// The most that were admitted within less than so long.
pub(super) fn most_within(answers: &[Answer], period: Duration) -> usize {
    let passed: Vec<_> = answers
        .iter()
        .filter(|answer| answer.decision.is_allowed())
        .map(|answer| u128::from(answer.at))
        .collect();
    let from = |at: usize| {
        let end = passed[at] + period.as_millis();
        passed[at..]
            .iter()
            .take_while(|later| **later < end)
            .count()
    };
    (0..passed.len()).map(from).max().unwrap_or(0)
}
