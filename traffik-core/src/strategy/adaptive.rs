use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ratio::Ratio;
use super::settle::{self, Settlement};
use super::{Details, Hit, Lua, Strategy, window};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::Result;
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::time::Timestamp;

/// Counts in fixed windows whose limit shrinks under load and recovers without it.
///
/// Between two windows the limit changes once: if the load was above `load_threshold` it is
/// multiplied by `reduction_factor`, but not below `min_limit_ratio` of the rate's limit;
/// otherwise it grows by `recovery_rate` of the rate's limit, back to that at most. An idle window
/// counts as one without load.
///
/// The load is what the last window took of its limit or, better, what you
/// [measure](AdaptiveThrottle::load): latency, requests in flight, errors.
///
/// * **Bound**: the rate's limit in each window, hence `limit × (⌈t ÷ period⌉ + 1)` in an interval
///   of length *t*, as of a [`FixedWindow`](crate::FixedWindow).
/// * **State**: three words, start of the window, count and what the limit lacks, kept until it
///   would have recovered.
/// * **Bursts**: the limit in force at once.
/// * **Choose it** to shed load before the service suffers. Additive increase and multiplicative
///   decrease let many clients converge:
///   <https://en.wikipedia.org/wiki/Additive_increase/multiplicative_decrease>
#[derive(Clone, Debug)]
pub struct AdaptiveThrottle {
    threshold: Ratio,
    reduction: Ratio,
    recovery: Ratio,
    min_limit: Ratio,
    gauge: Option<LoadGauge>,
}

impl AdaptiveThrottle {
    /// Above a load of 0.8 the limit is cut to 0.6 of what it was, not below 0.3; it recovers by
    /// 0.1 with each window.
    pub const fn new() -> AdaptiveThrottle {
        AdaptiveThrottle {
            threshold: Ratio::new(0.8),
            reduction: Ratio::new(0.6),
            recovery: Ratio::new(0.1),
            min_limit: Ratio::new(0.3),
            gauge: None,
        }
    }

    /// Sets the load above which the limit is cut, between 0 and 1.
    pub const fn load_threshold(mut self, load: f64) -> AdaptiveThrottle {
        self.threshold = Ratio::new(load);
        self
    }

    /// Sets what a cut leaves of the limit, between 0 and 1.
    pub const fn reduction_factor(mut self, factor: f64) -> AdaptiveThrottle {
        self.reduction = Ratio::new(factor);
        self
    }

    /// Sets which part of the rate's limit comes back with a window, between 0 and 1.
    pub const fn recovery_rate(mut self, part: f64) -> AdaptiveThrottle {
        self.recovery = Ratio::new(part);
        self
    }

    /// Sets which part of the rate's limit is never cut, between 0 and 1.
    pub const fn min_limit_ratio(mut self, part: f64) -> AdaptiveThrottle {
        self.min_limit = Ratio::new(part);
        self
    }

    /// Takes the load from a gauge that you set, instead of from the count of each key.
    pub fn load(mut self, gauge: &LoadGauge) -> AdaptiveThrottle {
        self.gauge = Some(gauge.clone());
        self
    }

    fn least(&self, limit: u64) -> u64 {
        self.min_limit.of(limit).max(1)
    }

    fn regained(&self, limit: u64) -> u64 {
        self.recovery.of(limit).max(1)
    }

    fn cut(&self, limit: u64, of: u64) -> u64 {
        self.reduction.of(limit).max(self.least(of))
    }

    fn load_ppm(&self, window: &Window) -> u64 {
        match &self.gauge {
            Some(gauge) => gauge.ppm(),
            None => window.count.saturating_mul(1_000_000) / window.limit,
        }
    }

    fn is_loaded(&self, window: &Window) -> bool {
        match &self.gauge {
            Some(gauge) => gauge.ppm() > self.threshold.ppm(),
            // The quotient of `load_ppm` is rounded down; this is exact.
            None => {
                window.count.saturating_mul(1_000_000)
                    > window.limit.saturating_mul(self.threshold.ppm())
            }
        }
    }

    /// The limit of the window after this one.
    fn next_limit(&self, window: &Window, limit: u64) -> u64 {
        if self.is_loaded(window) {
            self.cut(window.limit, limit)
        } else {
            (window.limit + self.regained(limit)).min(limit)
        }
    }

    /// How many windows after one whose successor has `next` as its limit it first is `wanted`.
    fn windows_until(&self, wanted: u64, next: u64, limit: u64) -> u64 {
        1 + wanted.saturating_sub(next).div_ceil(self.regained(limit))
    }

    /// Keeps a window until its limit will have recovered.
    fn store(&self, cell: &mut Cell, window: &Window, rate: &Rate) {
        let limit = u64::from(rate.limit());
        // What a gauge will say is not known: at worst it cuts.
        let next = match self.gauge {
            Some(_) => self.cut(window.limit, limit),
            None => self.next_limit(window, limit),
        };
        let recovered = self.windows_until(limit, next, limit);
        let expires = window
            .start
            .saturating_add(recovered.saturating_mul(rate.period_us()));
        // Not the limit itself: if the rate is changed, it is another.
        let start = window.start + window.late;
        let words = [start, window.count, limit - window.limit];
        cell.set(&words, Timestamp::from_micros(expires));
    }

    /// The last window that was written to, the one in force, and how many lie between.
    fn windows(&self, cell: &Cell, hit: &Hit<'_>) -> (Window, Window, u64) {
        let limit = u64::from(hit.rate.limit());
        let fresh = Window {
            start: window::aligned(hit),
            late: 0,
            count: 0,
            limit,
        };
        let [start, count, lacking] = *cell.words() else {
            return (fresh, fresh, 0);
        };
        let late = start - window::realigned(start, hit);
        let start = start - late;
        let written = Window {
            start,
            late,
            count,
            limit: limit.saturating_sub(lacking).max(self.least(limit)),
        };
        let passed = hit.now.as_micros().saturating_sub(start) / hit.rate.period_us();
        match passed {
            0 => (written, written, 0),
            _ => {
                let grown = self.regained(limit).saturating_mul(passed - 1);
                let next = self.next_limit(&written, limit);
                let limit = next.saturating_add(grown).min(limit);
                (written, Window { limit, ..fresh }, passed)
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Window {
    start: u64,
    /// How much later the window began that was written, if the period was another then. It stays
    /// as it is, so that the words of the cell become greater.
    late: u64,
    count: u64,
    limit: u64,
}

impl Default for AdaptiveThrottle {
    fn default() -> Self {
        AdaptiveThrottle::new()
    }
}

impl Strategy for AdaptiveThrottle {
    fn id(&self) -> &'static str {
        "adaptive_throttle"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let (written, current, passed) = self.windows(cell, hit);
        let (now, period) = (hit.now.as_micros(), hit.rate.period_us());
        let (limit, cost) = (u64::from(hit.rate.limit()), u64::from(hit.cost));
        let end = current.start.saturating_add(period);
        // How far the window will be brought back, if it should not be so far ahead.
        let ahead = current.start - window::honest(current.start, hit);
        let left = end.saturating_sub(ahead).saturating_sub(now);

        let available = current.limit.saturating_sub(current.count);
        if cost <= available {
            if cost > 0 {
                let charged = Window {
                    count: current.count + cost,
                    ..current
                };
                self.store(cell, &charged, hit.rate);
            }
            return Decision::allow(current.limit, available - cost).resets_in(left);
        }
        if cost > limit {
            return Decision::never(current.limit, available).resets_in(left);
        }
        let next = self.next_limit(&written, limit);
        let until = self.windows_until(cost, next, limit).max(passed + 1) - passed;
        let wait = current
            .start
            .saturating_add(until.saturating_mul(period))
            .saturating_sub(ahead)
            .saturating_sub(now);
        Decision::deny(current.limit, available, wait).resets_in(left)
    }

    /// None with a gauge: it may change between asking Redis and deciding on the answer.
    fn grows(&self) -> bool {
        true
    }

    fn lua(&self, rate: &Rate, cost: u32, _attributes: &Attributes) -> Option<Lua> {
        if self.gauge.is_some() {
            return None;
        }
        let limit = u64::from(rate.limit());
        let arguments = [
            cost.into(),
            limit,
            rate.period_us(),
            self.threshold.ppm(),
            self.reduction.ppm(),
            self.least(limit),
            self.regained(limit),
        ];
        Some(Lua::new(LUA, &arguments))
    }

    /// A refund counts if it is of this window.
    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        let (_, current, _) = self.windows(cell, hit);
        let elapsed = settle::elapsed(current.start, hit.now);
        let start = window::honest(current.start, hit);
        let settled = Window {
            start,
            late: if start == current.start {
                current.late
            } else {
                0
            },
            count: settlement.of_count(current.count, elapsed, MOST),
            ..current
        };
        let changes = (settled.start, settled.count) != (current.start, current.count);
        if changes {
            self.store(cell, &settled, hit.rate);
        }
        changes
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        if self.gauge.is_some() {
            return None;
        }
        let limit = u64::from(rate.limit());
        let [is_refund, amount, age] = settlement.words();
        let arguments = [
            limit,
            rate.period_us(),
            self.threshold.ppm(),
            self.reduction.ppm(),
            self.least(limit),
            self.regained(limit),
            is_refund,
            amount,
            age,
        ];
        Some(Lua::new(SETTLE_LUA, &arguments))
    }

    fn validate(&self, rate: &Rate) -> Result<()> {
        window::has_length(rate)?;
        for (what, ratio) in [
            ("the load threshold", self.threshold),
            ("the reduction factor", self.reduction),
            ("the recovery rate", self.recovery),
            ("the minimum limit ratio", self.min_limit),
        ] {
            ratio.validate(what, 0.000_001, 0.999_999)?;
        }
        Ok(())
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let (_, current, _) = self.windows(cell, hit);
        Details::AdaptiveThrottle(AdaptiveThrottleStat {
            effective_limit: current.limit,
            current_count: current.count,
            current_load_ppm: self.load_ppm(&current),
            load_threshold_ppm: self.threshold.ppm(),
            window_id: current.start / hit.rate.period_us(),
            window_start: Timestamp::from_micros(current.start),
        })
    }
}

/// No window is charged beyond this: above any limit, and a millionfold below 2^53.
const MOST: u64 = 9_000_000_000;

pub(super) const LUA: &str = concat!(
    "local cost, limit, period, threshold, reduction, least, regained =\n",
    "    unpack('>I8I8I8I8I8I8I8', arguments)\n",
    include_str!("adaptive_window.lua"),
    include_str!("adaptive.lua")
);

pub(super) const SETTLE_LUA: &str = concat!(
    "local limit, period, threshold, reduction, least, regained, refund, amount, age =\n",
    "    unpack('>I8I8I8I8I8I8I8I8I8', arguments)\n",
    include_str!("adaptive_window.lua"),
    include_str!("settle.lua"),
    include_str!("adaptive_settle.lua")
);

/// What an [`AdaptiveThrottle`] knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct AdaptiveThrottleStat {
    /// The limit of this window.
    pub effective_limit: u64,
    /// What was taken in it.
    pub current_count: u64,
    /// The load, in parts per million.
    pub current_load_ppm: u64,
    /// The load above which the next limit is cut, in parts per million.
    pub load_threshold_ppm: u64,
    /// How many periods since the epoch the window begins.
    pub window_id: u64,
    /// When the window began.
    pub window_start: Timestamp,
}

/// How loaded a service is, for an [`AdaptiveThrottle`]; clones show the same.
///
/// ```
/// use traffik_core::{AdaptiveThrottle, LoadGauge};
///
/// let gauge = LoadGauge::new();
/// let strategy = AdaptiveThrottle::new().load(&gauge);
/// gauge.set(0.93); // from wherever you measure it
/// # let _ = strategy;
/// ```
#[derive(Clone, Debug, Default)]
pub struct LoadGauge(Arc<AtomicU64>);

impl LoadGauge {
    /// A gauge that shows no load.
    pub fn new() -> LoadGauge {
        LoadGauge::default()
    }

    /// Sets the load: 0 for none, 1 for all that the service can bear. What is no such number
    /// counts as too much.
    pub fn set(&self, load: f64) {
        self.0.store(Ratio::new(load).ppm(), Ordering::Relaxed);
    }

    fn ppm(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};

    fn bound() -> Bound {
        Bound::windows(|rate| rate.limit().into())
    }

    #[test]
    fn is_lawful() {
        Laws::of(&AdaptiveThrottle::new(), bound()).check();
    }

    #[test]
    fn is_lawful_with_other_parameters() {
        let eager = AdaptiveThrottle::new()
            .load_threshold(0.000_001)
            .reduction_factor(0.000_001)
            .recovery_rate(0.999_999)
            .min_limit_ratio(0.000_001);
        Laws::of(&eager, bound()).check();
        let slow = AdaptiveThrottle::new().recovery_rate(0.01);
        Laws::of(&slow, bound()).check();
    }

    #[test]
    fn is_lawful_under_any_load() {
        let gauge = LoadGauge::new();
        let strategy = AdaptiveThrottle::new().load(&gauge);
        for load in [0.0, 0.79, 0.81, f64::NAN] {
            gauge.set(load);
            Laws::of(&strategy, bound()).cases(64).check();
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// SPEC 3.21: every hit above the threshold cut again: 80, 32, 32, 32 ..., for ever.
    #[test]
    fn a_window_is_cut_once_and_recovers() {
        let adaptive = AdaptiveThrottle::new();
        let mut trial = Trial::of(&adaptive, "100/s");
        let mut window = |hits| {
            let admitted = trial.admitted_of(hits);
            trial.advance(SECOND);
            admitted
        };
        assert_eq!(window(90), 90);
        assert_eq!([window(200), window(200), window(200)], [60, 36, 30]);
        // Asked for less than it has, it recovers by a tenth of the limit with each window.
        assert_eq!([window(20), window(20), window(20)], [20; 3]);
        assert_eq!(window(200), 60);
    }

    /// SPEC 6.5: the window after 90 hits of 100 admits at least 30 and less than 100.
    #[test]
    fn load_measured_by_itself_is_the_default() {
        let adaptive = AdaptiveThrottle::new();
        let mut trial = Trial::of(&adaptive, "100/s");
        assert_eq!(trial.admitted_of(90), 90);
        trial.advance(SECOND);
        assert_eq!(trial.hit(0).limit(), 60);
        trial.advance(4 * SECOND);
        assert_eq!(trial.hit(0).limit(), 100);
    }

    #[test]
    fn a_gauge_cuts_an_idle_client_and_spares_a_busy_one() {
        let gauge = LoadGauge::new();
        let adaptive = AdaptiveThrottle::new().load(&gauge);
        let mut trial = Trial::of(&adaptive, "100/s");
        assert_eq!(trial.admitted_of(200), 100);
        trial.advance(SECOND);
        assert_eq!(trial.admitted_of(200), 100);
        gauge.set(0.95);
        trial.advance(SECOND);
        assert_eq!(trial.admitted_of(1), 1);
        assert_eq!(trial.hit(0).limit(), 60);
    }

    #[test]
    fn refuses_what_is_not_between_zero_and_one() {
        for (strategy, text) in [
            (
                AdaptiveThrottle::new().load_threshold(1.0),
                "load threshold",
            ),
            (AdaptiveThrottle::new().reduction_factor(0.0), "reduction"),
            (AdaptiveThrottle::new().recovery_rate(-1.0), "recovery"),
            (
                AdaptiveThrottle::new().min_limit_ratio(2.0),
                "minimum limit",
            ),
        ] {
            let error = strategy.validate(&Rate::per_second(1)).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
