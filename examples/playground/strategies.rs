//! The same requests against several strategies.

use serde::Deserialize;
use serde_json::{Value, json};
use traffik_core::{
    Attempt, Clock, Error, Identity, ManualClock, MemoryBackend, Throttle, Timestamp,
};

use crate::traffic::{self, Shape};

/// What the page asks.
#[derive(Deserialize)]
pub(crate) struct Question {
    rate: String,
    strategies: Vec<String>,
    shape: Shape,
    per_second: u64,
    seconds: u64,
}

/// How many strategies are compared at most.
const MOST: usize = 8;
/// How many requests a trial has at most: each is shown.
const MOST_REQUESTS: u64 = 1_500;

impl Question {
    pub(crate) fn answer(&self) -> Result<Value, String> {
        traffic::check(self.per_second, self.seconds, MOST_REQUESTS)?;
        if self.strategies.is_empty() || self.strategies.len() > MOST {
            return Err(format!("from 1 to {MOST} strategies can be compared"));
        }
        let times = self.shape.times(self.per_second, self.seconds);
        let lanes = self.strategies.iter().map(|strategy| {
            let lane = lane(&self.rate, strategy, &times);
            lane.unwrap_or_else(|error| json!({ "strategy": strategy, "error": error.to_string() }))
        });
        Ok(json!({
            "view": "strategies",
            "seconds": self.seconds,
            "lanes": lanes.collect::<Vec<_>>(),
        }))
    }
}

/// What one strategy makes of it: for each request when it came, whether it passed, what was left and how
/// long it was told to wait, in milliseconds.
fn lane(rate: &str, strategy: &str, times: &[u64]) -> Result<Value, Error> {
    let clock = ManualClock::default();
    let start = clock.now();
    let memory = MemoryBackend::builder().shards(1).clock(clock.clone());
    let throttle = Throttle::builder("trial")
        .rate(rate)
        .strategy(strategy)
        .backend(memory.build()?)
        .build()?;
    let mut hits = Vec::with_capacity(times.len());
    let (mut admitted, mut limit) = (0, 0);
    for at in times {
        clock.set(instant(start, *at));
        let decision = throttle.hit_now(Attempt::by(&Identity::ANONYMOUS))?;
        let passes = u8::from(decision.is_allowed());
        admitted += u64::from(passes);
        limit = decision.limit();
        let wait = decision.wait().as_millis();
        hits.push(json!([
            at,
            passes,
            decision.remaining(),
            u64::try_from(wait).unwrap_or(u64::MAX)
        ]));
    }
    let denied = times.len() as u64 - admitted;
    Ok(json!({
        "strategy": strategy, "limit": limit, "admitted": admitted, "denied": denied, "hits": hits,
    }))
}

pub(crate) fn instant(start: Timestamp, millis: u64) -> Timestamp {
    start.plus_micros(millis * 1_000)
}
