use std::collections::VecDeque;

use super::{Arc, Attributes, Backend, Batch, Cell, Decision, Decisions, ManualClock, Op, Rate};
use super::{Strategy, Timestamp, decide, key};
use crate::identity::Priority;
use crate::strategy::{Lending, Lent, Loan, Settlement, Settling};
use crate::time::Clock;

/// A random sequence of hits, applied to a backend and to cells of our own.
pub(super) struct Trace<'a> {
    backend: &'a dyn Backend,
    clock: &'a ManualClock,
    seed: u64,
    choices: Choices,
    /// What was done last, for the reader of a failure.
    story: VecDeque<Told>,
    lanes: Vec<Lane<'a>>,
    askers: [Attributes; 4],
    /// The clock does not step back before this: some cell has expired since, and the backend may
    /// or may not have dropped it.
    earliest: Timestamp,
}

/// A key, and what should be stored under it.
struct Lane<'a> {
    strategy: &'a Arc<dyn Strategy>,
    key: crate::Key,
    rate: Rate,
    cell: Cell,
    /// What the last hit was told to wait for.
    wait_us: u64,
    /// What was lent last, of which some may come back.
    lent: Lent,
}

/// A step that was as expected. Written out only when a later one is not: that takes longer than the step.
#[derive(Debug)]
#[expect(dead_code, reason = "read by whoever reads a failure")]
struct Told {
    at: Timestamp,
    ops: Vec<(Arc<dyn Strategy>, Rate, u32)>,
    decided: Decisions,
    cells: Vec<Cell>,
}

/// What is done to a lane.
enum Deed {
    Hit(u32),
    Settle(Settlement),
    Lend(u32, Loan),
}

impl<'a> Trace<'a> {
    const STEPS: u32 = 60;
    /// How many of them a failure tells.
    const STORY: usize = 5;

    pub(super) fn new(
        backend: &'a dyn Backend,
        clock: &'a ManualClock,
        strategies: &'a [Arc<dyn Strategy>],
        seed: u64,
    ) -> Trace<'a> {
        let mut choices = Choices(seed);
        let lanes = strategies.iter().map(|strategy| Lane {
            strategy,
            key: key(
                backend,
                &format!("trace {seed} of {}", strategies.len()),
                strategy,
                seed,
            ),
            rate: choices.rate(&**strategy),
            cell: Cell::fresh(),
            wait_us: 0,
            lent: Lent::default(),
        });
        let lanes = lanes.collect();
        Trace {
            backend,
            clock,
            seed,
            lanes,
            story: VecDeque::with_capacity(Self::STORY),
            askers: askers(),
            choices,
            earliest: clock.now(),
        }
    }

    pub(super) async fn run(mut self) {
        for step in 0..Self::STEPS {
            self.move_clock();
            // Up to three different lanes.
            let mut hit: Vec<usize> = (0..=self.choices.below(3))
                .map(|_| self.choices.index(self.lanes.len()))
                .collect();
            hit.sort_unstable();
            hit.dedup();
            let deeds: Vec<Deed> = hit.iter().map(|lane| self.deed(*lane)).collect();
            let asker = self.askers[self.choices.index(4)].clone();
            self.compare(step, &hit, &deeds, &asker).await;
            if self.choices.below(8) == 0 {
                let lane = &mut self.lanes[hit[0]];
                lane.rate = self.choices.rate(&**lane.strategy);
            }
        }
    }

    /// More instances than a strategy tells apart, twice each, and one by one forgotten.
    pub(super) async fn crowd(mut self) {
        for lane in &mut self.lanes {
            lane.rate = Rate::per_day(1_000);
        }
        for (step, instance) in (0..300).zip((0..100).cycle()) {
            let asker = Attributes {
                instance: Some(format!("{instance}").into()),
                ..Attributes::NONE
            };
            self.compare(step, &[0], &[Deed::Hit(1)], &asker).await;
            if step >= 200 {
                self.clock.advance_micros(60 * 60 * 1_000_000);
            }
        }
    }

    /// Moments that matter: the promised one, just before it, the same again, far later, earlier.
    fn move_clock(&mut self) {
        let lane = self.choices.index(self.lanes.len());
        let (wait, period) = (self.lanes[lane].wait_us, self.lanes[lane].rate.period_us());
        let now = self.clock.now();
        let to = match self.choices.below(10) {
            0..=2 => now,
            3 | 4 => now.plus_micros(wait),
            5 => now.plus_micros(wait.saturating_sub(1)),
            6 => now.plus_micros(self.choices.below(period / 2 + 1)),
            7 => now.plus_micros(self.choices.below(5_000)),
            8 => now.plus_micros(self.choices.below(3 * period)),
            _ => {
                let back = self.choices.below(4 * period + 1);
                Timestamp::from_micros(now.as_micros().saturating_sub(back)).max(self.earliest)
            }
        };
        // The present century: a trace of long periods must not run out of numbers.
        if to.as_micros() < 4_000_000_000_000_000 {
            self.clock.set(to);
        }
        for lane in &self.lanes {
            if lane.cell.is_expired(self.clock.now()) {
                self.earliest = self.earliest.max(lane.cell.expires());
            }
        }
    }

    fn cost(&mut self, lane: usize) -> u32 {
        let limit = self.lanes[lane].rate.limit();
        match self.choices.below(12) {
            0 => 0,
            1..=6 => 1,
            7 => limit,
            8 => limit + 1,
            9 => u32::MAX,
            _ => 1 + u32::try_from(self.choices.below(u64::from(limit))).expect("below a u32"),
        }
    }

    /// Now and then the hit is a settlement instead, or lends.
    fn deed(&mut self, lane: usize) -> Deed {
        let cost = self.cost(lane);
        let period = self.lanes[lane].rate.period_us();
        match self.choices.below(10) {
            0 => Deed::Settle(Settlement::Charge(cost)),
            1 => Deed::Settle(Settlement::Refund {
                cost,
                age_us: match self.choices.below(4) {
                    0 | 1 => 0,
                    2 => self.choices.below(period / 8 + 2),
                    _ => self.choices.below(2 * period),
                },
            }),
            2..=4 => Deed::Lend(cost, self.loan(lane)),
            _ => Deed::Hit(cost),
        }
    }

    fn loan(&mut self, lane: usize) -> Loan {
        let want = self.cost(lane);
        let Lane { rate, lent, .. } = &self.lanes[lane];
        let (period, lent) = (rate.period_us(), *lent);
        let length_us = match self.choices.below(3) {
            0 => 1_000_000,
            1 => 1 + self.choices.below(period),
            _ => self.choices.below(10_000_000_000),
        };
        let part = self.choices.below(u64::from(lent.amount) + 1);
        let (back, back_of) = match self.choices.below(4) {
            0 => (0, 0),
            1 => (u32::MAX, lent.term),
            2 => (1, self.choices.below(Cell::WORD_LIMIT)),
            _ => (u32::try_from(part).expect("at most a u32"), lent.term),
        };
        Loan {
            want,
            length_us,
            back,
            back_of,
            spent: [0, 0, 1, back / 2][usize::try_from(self.choices.below(4)).expect("below 4")],
        }
    }

    async fn compare(&mut self, step: u32, hit: &[usize], deeds: &[Deed], asker: &Attributes) {
        let lending: Vec<Option<Arc<Lending>>> = hit
            .iter()
            .zip(deeds)
            .map(|(lane, deed)| match deed {
                Deed::Lend(cost, loan) => {
                    Some(Lending::of(self.lanes[*lane].strategy, *cost, *loan))
                }
                _ => None,
            })
            .collect();
        let strategies: Vec<Arc<dyn Strategy>> = hit
            .iter()
            .zip(deeds.iter().zip(&lending))
            .map(|(lane, (deed, lending))| match (deed, lending) {
                (_, Some(lending)) => Arc::clone(lending) as _,
                (Deed::Settle(settlement), _) => {
                    Settling::of(self.lanes[*lane].strategy, *settlement)
                }
                _ => Arc::clone(self.lanes[*lane].strategy),
            })
            .collect();
        let ops: Vec<Op<'_>> = hit
            .iter()
            .zip(deeds)
            .zip(&strategies)
            .map(|((lane, deed), strategy)| Op {
                strategy,
                ..self.lanes[*lane].op(deed.cost(), asker)
            })
            .collect();
        let batch = Batch::new(&ops);
        let now = self.clock.now();
        let mut cells: Vec<Cell> = hit
            .iter()
            .map(|lane| self.lanes[*lane].cell.clone())
            .collect();

        let (loaded, time) = self.backend.load(&ops[0]).await.expect("a load");
        assert_eq!(time, now, "the time of a load");
        assert_eq!(
            ops[0].stat(&loaded, now),
            ops[0].stat(&cells[0], now),
            "{} loads another cell in step {step} of trace {}: {loaded:?} for {:?}, after {:#?}",
            ops[0].strategy.id(),
            self.seed,
            cells[0],
            self.story,
        );

        let expected = batch.decide(&mut cells, now);
        let lent: Vec<Option<Lent>> = told(&lending);
        let actual = decide(self.backend, &batch).await;
        if actual.is_allowed() {
            assert_eq!(
                told(&lending),
                lent,
                "what is lent in step {step} of trace {} differs (left: by the backend; right: by \
                 the strategy): {ops:?}, before it {:#?}",
                self.seed,
                self.story,
            );
        }
        assert_eq!(
            actual, expected,
            "step {step} of trace {} differs (left: the backend; right: the strategy): {ops:?}, \
             cells after it {cells:?}, before it {:#?}",
            self.seed, self.story,
        );
        if self.story.len() == Self::STORY {
            self.story.pop_front();
        }
        self.story.push_back(Told {
            at: now,
            ops: ops
                .iter()
                .map(|op| (Arc::clone(op.strategy), op.rate, op.cost))
                .collect(),
            decided: expected.clone(),
            cells: cells.clone(),
        });
        for ((op, cell), decision) in ops.iter().zip(&mut cells).zip(expected.iter()) {
            if decision.is_denied() {
                op.realign(cell, now);
            }
        }
        let is_allowed = expected.is_allowed();
        for (((lane, cell), decision), lent) in hit.iter().zip(cells).zip(expected.iter()).zip(lent)
        {
            let lane = &mut self.lanes[*lane];
            lane.cell = cell;
            lane.wait_us = wait_us(decision);
            lane.lent = lent.filter(|_| is_allowed).unwrap_or(lane.lent);
        }
    }
}

fn told(lending: &[Option<Arc<Lending>>]) -> Vec<Option<Lent>> {
    let told = |lending: &Option<Arc<Lending>>| lending.as_ref().map(|lending| lending.lent());
    lending.iter().map(told).collect()
}

impl Deed {
    /// Of the operation: what settles or lends has a cost of its own.
    fn cost(&self) -> u32 {
        match self {
            Deed::Hit(cost) => *cost,
            Deed::Settle(_) | Deed::Lend(..) => 1,
        }
    }
}

impl Lane<'_> {
    fn op<'a>(&'a self, cost: u32, attributes: &'a Attributes) -> Op<'a> {
        Op {
            key: self.key,
            strategy: self.strategy,
            rate: self.rate,
            cost,
            attributes,
        }
    }
}

/// Nobody in particular, and some who are.
fn askers() -> [Attributes; 4] {
    let asker = |tier: &'static str, priority, place: &'static str| Attributes {
        tier: Some(tier.into()),
        priority: Some(priority),
        region: Some(place.into()),
        instance: Some(place.into()),
    };
    [
        Attributes::NONE,
        asker("premium", Priority::Critical, "us-east"),
        asker("free", Priority::Low, "eu-west"),
        asker("unheard of", Priority::High, "mars"),
    ]
}

fn wait_us(decision: &Decision) -> u64 {
    crate::time::micros(decision.wait())
}

/// A source of choices that is the same everywhere: splitmix64,
/// <https://prng.di.unimi.it/splitmix64.c>.
pub(super) struct Choices(u64);

impl Choices {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// Ordinary rates, odd ones and extreme ones, that the strategy can serve.
    fn rate(&mut self, strategy: &dyn Strategy) -> Rate {
        loop {
            let limit = match self.below(8) {
                0 => 1,
                1 => u64::from(Rate::MAX_LIMIT) - self.below(3),
                2 => 1 + self.below(u64::from(Rate::MAX_LIMIT)),
                _ => 1 + self.below(20),
            };
            let period_ms = match self.below(9) {
                // Months.
                8 => [1, 3, 12][self.index(3)] * 2_629_746_000,
                0 => 1,
                1 => 31_622_400_000,
                2 => 1 + self.below(31_622_400_000),
                3 => 1 + self.below(1_000),
                _ => 1_000 * [1, 7, 60, 3_600, 86_400][self.index(5)],
            };
            let limit = u32::try_from(limit).expect("at most a thousand million");
            let rate = Rate::new(limit, std::time::Duration::from_millis(period_ms));
            let rate = rate.expect("a limit and a period in range");
            if strategy.validate(&rate).is_ok() {
                return rate;
            }
        }
    }
}
