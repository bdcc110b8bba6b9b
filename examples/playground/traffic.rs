//! When requests come.

use serde::Deserialize;

/// How long a trial is at most, in seconds.
pub(crate) const LONGEST: u64 = 120;
/// A shape of traffic.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// Evenly.
    Steady,
    /// All of five seconds in one, and then nothing.
    Bursts,
    /// More and more.
    Ramp,
    /// By chance, but the same every time.
    Random,
}

impl Shape {
    /// Milliseconds, in order, at which a client asks that asks so many times a second on average.
    pub(crate) fn times(self, per_second: u64, seconds: u64) -> Vec<u64> {
        let (count, length) = (per_second * seconds, seconds * 1_000);
        let mut times: Vec<u64> = match self {
            Shape::Steady => (0..count).map(|at| at * length / count).collect(),
            Shape::Bursts => (0..count)
                .map(|at| at * length / count)
                .map(|at| at / 5_000 * 5_000 + at % 5_000 / 5)
                .collect(),
            Shape::Ramp => (0..count)
                .map(|at| (at * length * length / count).isqrt())
                .collect(),
            Shape::Random => chance().map(|at| at % length).take(usize(count)).collect(),
        };
        times.sort_unstable();
        times
    }
}

fn usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Numbers without an order (Knuth's linear congruences).
fn chance() -> impl Iterator<Item = u64> {
    let next = |state: &u64| {
        Some(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407),
        )
    };
    std::iter::successors(Some(7_u64), next)
        .skip(1)
        .map(|state| state >> 33)
}

/// That a trial is no longer than the page can show, and has no more requests than so many.
pub(crate) fn check(per_second: u64, seconds: u64, most: u64) -> Result<(), String> {
    if !(1..=LONGEST).contains(&seconds) {
        return Err(format!("a trial takes from 1 to {LONGEST} seconds"));
    }
    let count = per_second.saturating_mul(seconds);
    match (1..=most).contains(&count) {
        true => Ok(()),
        false => Err(format!(
            "a trial has from 1 to {most} requests, not {count}"
        )),
    }
}
