//! The cells that are hit: the same in every process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use traffik_core::strategy::{CalendarWindow, TimeOfDay};
use traffik_core::{
    AdaptiveThrottle, Attempt, Attributes, Backend, Batch, BoxFuture, Cell, CostBasedTokenBucket,
    Decision, Decisions, DistributedFairness, FixedWindow, Gcra, GeographicDistribution, Identity,
    Key, KeyHasher, LeakyBucket, LeakyBucketWithQueue, LoadGauge, MemoryBackend, Op, Priority,
    PriorityQueue, QuotaWithRollover, Rate, Result, SlidingWindowCounter, SlidingWindowLog, Span,
    Strategy, Throttle, TieredRate, Timestamp, TokenBucket, TokenBucketWithDebt,
};

use super::event::Hit;

/// No hit costs more.
pub(super) const DEAREST: u32 = 3;

/// Cells that may be hit together: two of a strategy, and a window beside them.
pub(super) const GROUP: usize = 3;

#[derive(Debug)]
pub(super) struct World {
    pub(super) limits: Vec<Limit>,
    pub(super) askers: Vec<Attributes>,
    /// By which the model tells cells apart.
    keys: Vec<Key>,
}

/// A cell, and what decides about it.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) strategy: Arc<dyn Strategy>,
    pub(super) rate: Rate,
    /// The most that its documentation says is admitted in less than a period, in all.
    pub(super) most: u64,
    bound: Option<Bound>,
}

/// What a strategy that lends admits in an interval of any length, by its documentation.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// So much, and what the rate earns.
    Bucket(u64),
    /// So much in each window, and so much once.
    Windows(u64, u64),
}

impl Limit {
    /// The most that is admitted in so many µs by somebody who was given all that a cell holds so often: once, and once
    /// more for each time that it was lost. Of strategies that lend only.
    pub(super) fn most_in(&self, span_us: u64, fills: u64) -> u64 {
        match self.bound.expect("it lends") {
            Bound::Bucket(holds) => fills * holds + self.rate.earned_in(Span::from_micros(span_us)),
            Bound::Windows(each, once) => {
                // As many as it touches.
                let windows = (span_us - 1) / self.rate.period_us() + 2;
                each * (windows + fills - 1) + once * fills
            }
        }
    }
}

/// What a strategy admits at most in less than a period, by its documentation, given the limit.
type Most = fn(u64) -> u64;

impl World {
    pub(super) fn new() -> World {
        World::of(|_| true)
    }

    /// One with the cells of some strategies only.
    pub(super) fn of(wanted: impl Fn(&dyn Strategy) -> bool) -> World {
        let mut limits = Vec::new();
        for (strategy, most) in strategies()
            .into_iter()
            .filter(|(strategy, _)| wanted(&**strategy))
        {
            // Without a script two trips are taken. Who is overtaken in between by the whole life of a
            // cell does not notice, so this should be rare.
            let scale = match strategy.lua(&rate(1, 1), 1, &Attributes::NONE) {
                Some(_) => 1,
                None => 20,
            };
            let rates =
                [(40, 100), (7, 30)].map(|(limit, ms)| rate(limit * scale, ms * u64::from(scale)));
            for (strategy, rate, most) in [
                (Arc::clone(&strategy), rates[0], most),
                (strategy, rates[1], most),
                (
                    Arc::new(FixedWindow),
                    rate(50 * scale, 70 * u64::from(scale)),
                    twice,
                ),
            ] {
                strategy.validate(&rate).expect("it serves the rate");
                let most = most(rate.limit().into());
                limits.push(Limit {
                    strategy,
                    rate,
                    most,
                    bound: None,
                });
            }
        }
        World::with(limits)
    }

    /// One with the strategies that lend, at limits of which it saves trips to lend.
    pub(super) fn lent() -> World {
        let window: BoundOf = |limit| Bound::Windows(limit, 0);
        let limits = lending().into_iter().flat_map(|(strategy, bound)| {
            [
                (Arc::clone(&strategy), rate(200, 1_000), bound),
                (strategy, rate(120, 1_500), bound),
                (Arc::new(FixedWindow), rate(150, 1_200), window),
            ]
        });
        let limits = limits.map(|(strategy, rate, bound)| {
            strategy.validate(&rate).expect("it serves the rate");
            assert!(strategy.lends(&rate, 1), "{strategy:?} does not lend");
            let mut limit = Limit {
                strategy,
                rate,
                most: 0,
                bound: Some(bound(rate.limit().into())),
            };
            limit.most = limit.most_in(rate.period_us() - 1, 1);
            limit
        });
        World::with(limits.collect())
    }

    fn with(limits: Vec<Limit>) -> World {
        let memory = MemoryBackend::new();
        let keys = keys(&limits, memory.key_hasher());
        World {
            limits,
            askers: askers(),
            keys,
        }
    }

    /// Whether Redis decides hits on this cell by itself.
    pub(super) fn has_script(&self, cell: usize) -> bool {
        let Limit { strategy, rate, .. } = &self.limits[cell];
        strategy.lua(rate, 1, &Attributes::NONE).is_some()
    }

    pub(super) fn groups(&self) -> usize {
        self.limits.len() / GROUP
    }

    /// Where the cells are on a backend.
    pub(super) fn keys_of(&self, backend: &dyn Backend) -> Vec<Key> {
        keys(&self.limits, backend.key_hasher())
    }

    /// Decides as the model: what a hit does to a cell, or hits that come together to theirs.
    pub(super) fn decide(&self, hits: &[Hit], cells: &mut [Cell], now: Timestamp) -> Decisions {
        let ops: Vec<Op<'_>> = hits.iter().map(|hit| self.op(hit)).collect();
        let decisions = Batch::new(&ops).decide(cells, now);
        // Else each decision would leave room that is never used again, and copies of a cell that is decided
        // on for minutes would take longer and longer.
        cells.iter_mut().for_each(Cell::compact);
        decisions
    }

    fn op(&self, hit: &Hit) -> Op<'_> {
        let limit = &self.limits[hit.cell];
        Op {
            key: self.keys[hit.cell],
            strategy: &limit.strategy,
            rate: limit.rate,
            cost: hit.cost,
            attributes: &self.askers[hit.asker],
        }
    }
}

fn twice(limit: u64) -> u64 {
    2 * limit
}

fn rate(limit: u32, ms: u64) -> Rate {
    Rate::new(limit, Duration::from_millis(ms)).expect("a rate")
}

fn askers() -> Vec<Attributes> {
    let of = |tier, priority, region, instance| Attributes {
        tier: Some(std::borrow::Cow::Borrowed(tier)),
        priority: Some(priority),
        region: Some(std::borrow::Cow::Borrowed(region)),
        instance: Some(std::borrow::Cow::Borrowed(instance)),
    };
    vec![
        Attributes::NONE,
        of("free", Priority::Low, "us-east", "mars"),
        of("unknown", Priority::Critical, "eu-west", "venus"),
    ]
}

/// All of them, at and off their defaults.
fn strategies() -> Vec<(Arc<dyn Strategy>, Most)> {
    let gauge = LoadGauge::new();
    gauge.set(0.9);
    let regions = [("us-east", 0.5), ("eu-west", 0.25), ("default", 0.1)];
    let strict = |ms| {
        Gcra::new()
            .strict()
            .burst_tolerance(Duration::from_millis(ms))
    };
    // Post-paid, the last hit of an interval counts as 1.
    let smooth: Most = |limit| 1 + limit + u64::from(DEAREST) - 1;
    vec![
        (Arc::new(FixedWindow), twice),
        (Arc::new(SlidingWindowLog), |limit| limit),
        (Arc::new(SlidingWindowCounter), twice),
        (Arc::new(TokenBucket::new()), twice),
        (Arc::new(TokenBucket::new().burst(5)), |limit| 5 + limit),
        (
            Arc::new(TokenBucketWithDebt::new().burst(3).max_debt(5)),
            |limit| 8 + limit,
        ),
        (Arc::new(LeakyBucket), twice),
        (Arc::new(LeakyBucketWithQueue), twice),
        (Arc::new(Gcra::new()), smooth),
        // 20 ms are 8 intervals of the one rate, and 4 of the other.
        (Arc::new(strict(20)), |limit| 9 + limit),
        (Arc::new(CostBasedTokenBucket::new()), twice),
        (Arc::new(TieredRate::new().tier("free", 1.5)), |limit| {
            3 * limit
        }),
        (Arc::new(QuotaWithRollover::new()), |limit| {
            2 * limit + limit / 2
        }),
        (
            Arc::new(QuotaWithRollover::new().max_rollover(4).cumulative()),
            |limit| 2 * limit + 4,
        ),
        // The largest limit of a part, in three parts at most.
        (Arc::new(TimeOfDay::new()), |limit| 6 * limit),
        (Arc::new(CalendarWindow::new()), twice),
        (Arc::new(AdaptiveThrottle::new()), twice),
        (Arc::new(AdaptiveThrottle::new().load(&gauge)), twice),
        (Arc::new(PriorityQueue::new()), |limit| limit),
        (
            Arc::new(DistributedFairness::new("mars").weight(2.5)),
            twice,
        ),
        (
            Arc::new(GeographicDistribution::new().regions(regions)),
            twice,
        ),
    ]
}

/// What a strategy admits, given the limit.
type BoundOf = fn(u64) -> Bound;

/// Those that lend.
fn lending() -> Vec<(Arc<dyn Strategy>, BoundOf)> {
    let strict = Gcra::new()
        .strict()
        .burst_tolerance(Duration::from_millis(500));
    let all: Vec<(Arc<dyn Strategy>, BoundOf)> = vec![
        (Arc::new(FixedWindow), |limit| Bound::Windows(limit, 0)),
        (Arc::new(TokenBucket::new()), Bound::Bucket),
        (Arc::new(TokenBucket::new().burst(60)), |_| {
            Bound::Bucket(60)
        }),
        (
            Arc::new(TokenBucketWithDebt::new().burst(60).max_debt(60)),
            |_| Bound::Bucket(120),
        ),
        (Arc::new(LeakyBucket), Bound::Bucket),
        // 500 ms are 100 intervals of the one rate, and 40 of the other.
        (Arc::new(strict), |limit| Bound::Bucket(1 + limit / 2)),
        (Arc::new(TieredRate::new().tier("free", 1.5)), |limit| {
            Bound::Windows(limit + limit / 2, 0)
        }),
        (Arc::new(QuotaWithRollover::new()), |limit| {
            Bound::Windows(limit, limit / 2)
        }),
        // One part more, if it begins meanwhile.
        (Arc::new(TimeOfDay::new()), |limit| {
            Bound::Windows(2 * limit, 2 * limit)
        }),
        (Arc::new(CalendarWindow::new()), |limit| {
            Bound::Windows(limit, 0)
        }),
    ];
    all
}

/// Tells where the throttles of an application would have these cells.
fn keys(limits: &[Limit], hasher: &KeyHasher) -> Vec<Key> {
    let catcher = Arc::new(KeyCatcher {
        hasher: *hasher,
        caught: Mutex::default(),
    });
    for (at, limit) in limits.iter().enumerate() {
        // Those of a group are one identity's: a batch over them is one script of a cluster.
        let who = Identity::of(at / GROUP);
        let throttle = Throttle::builder(format!("history {at}"))
            .rate(limit.rate)
            .strategy(Arc::clone(&limit.strategy))
            .backend(Arc::clone(&catcher))
            .build()
            .expect("valid settings");
        let hit = throttle.hit_now(Attempt::by(&who));
        assert!(hit.expect("an answer").is_allowed());
    }
    catcher.caught.lock().unwrap().clone()
}

/// A backend that only looks where it should count.
#[derive(Debug)]
struct KeyCatcher {
    hasher: KeyHasher,
    caught: Mutex<Vec<Key>>,
}

impl Backend for KeyCatcher {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(std::future::ready(
            self.try_apply(batch).expect("it never waits"),
        ))
    }

    fn load<'a>(&'a self, _: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(std::future::ready(Ok(Default::default())))
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        let keys = batch.ops().iter().map(|op| op.key);
        self.caught.lock().unwrap().extend(keys);
        let allow = batch.ops().iter().map(|_| Decision::UNLIMITED);
        Some(Ok(allow.collect()))
    }

    fn key_hasher(&self) -> &KeyHasher {
        &self.hasher
    }
}
