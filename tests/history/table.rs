//! What became of each combination of a backend, a fault and a strategy.

use std::collections::BTreeMap;
use std::fmt;

use traffik_core::Decision;

use super::check::{Findings, Terms, check};
use super::event::{Event, Hit, Outcome, Told};
use super::world::{GROUP, Limit, World};

/// What is promised of a combination.
#[derive(Clone, Copy, Debug)]
pub(super) enum Promise {
    /// An order, and so no more than the bound.
    Order(Terms),
    /// No more than the bound.
    Bound,
    /// No more than twice the bound: each of two servers keeps to it.
    Twice,
    /// No more than the bound in an interval of any length, though the store was lost so many times less one: of hits that
    /// leases decide, enough of them to tell.
    Lent { fills: u64 },
    /// Nothing: what happens is measured.
    Nothing,
    /// Nothing: how often there is no order is measured.
    NoOrder(Terms),
}

/// A backend and what happened to it, and for each strategy what was found.
#[derive(Debug)]
pub(super) struct Row {
    backend: &'static str,
    fault: String,
    promise: Promise,
    by_strategy: BTreeMap<usize, (Findings, Excess)>,
    /// Their names.
    strategies: Vec<&'static str>,
}

/// What was admitted in less than a period, less what the documentation says is the most.
#[derive(Clone, Copy, Debug, Default)]
struct Excess {
    worst: i64,
    decisions: u64,
    /// Of a failover, or of a lease.
    by_memory: u64,
}

impl Row {
    pub(super) fn new(
        backend: &'static str,
        fault: impl Into<String>,
        promise: Promise,
        world: &World,
        events: Vec<Event>,
    ) -> Row {
        let mut groups: BTreeMap<usize, Vec<Event>> = BTreeMap::new();
        for event in events {
            let group = event.hits[0].cell / GROUP;
            groups.entry(group).or_default().push(event);
        }
        let found = groups.into_iter().map(|(group, mut events)| {
            let steps_back = matches!(promise, Promise::Order(terms) if terms.steps_back);
            events.sort_by_key(|event| event.answered_ns);
            let excess = match promise {
                Promise::Lent { fills } => Excess::lent(world, &events, fills),
                Promise::Twice => Excess::of(world, &events, steps_back, 2),
                _ => Excess::of(world, &events, steps_back, 1),
            };
            // These were decided by memory, of which each process has its own.
            events.retain(|event| !event.is_degraded());
            let findings = match promise {
                Promise::Order(terms) | Promise::NoOrder(terms) => check(world, &events, terms),
                Promise::Bound | Promise::Twice | Promise::Lent { .. } | Promise::Nothing => {
                    Findings::default()
                }
            };
            (group, (findings, excess))
        });
        Row {
            backend,
            fault: fault.into(),
            promise,
            by_strategy: found.collect(),
            strategies: world
                .limits
                .iter()
                .map(|limit| limit.strategy.id())
                .collect(),
        }
    }

    /// Whatever is not as promised.
    pub(super) fn broken(&self) -> Vec<String> {
        if matches!(self.promise, Promise::Nothing | Promise::NoOrder(_)) {
            return Vec::new();
        }
        // Of a clock that steps back the order of answers is not that of its times: there the bound
        // follows from the order that was found, and from the laws of the model.
        let measured =
            matches!(self.promise, Promise::Order(terms) if terms.forgets || terms.steps_back);
        let mut broken = Vec::new();
        if matches!(self.promise, Promise::Lent { .. }) && 20 * self.by_memory() < self.decisions()
        {
            let name = format!("{}, {}", self.backend, self.fault);
            broken.push(format!("{name}: too little was decided by leases to tell"));
        }
        for (findings, excess) in self.by_strategy.values() {
            let mut violations = findings.violations.clone();
            if !measured && excess.worst > 0 {
                violations.push(format!("{} too many were admitted", excess.worst));
            }
            let name = |what| format!("{}, {}: {what}", self.backend, self.fault);
            broken.extend(violations.into_iter().map(name));
        }
        broken
    }

    pub(super) fn decisions(&self) -> u64 {
        self.by_strategy
            .values()
            .map(|(_, excess)| excess.decisions)
            .sum()
    }

    /// Those that were made without asking the store.
    fn by_memory(&self) -> u64 {
        let all = self.by_strategy.values();
        all.map(|(_, excess)| excess.by_memory).sum()
    }

    pub(super) fn head() -> &'static str {
        "| backend | fault | promised | decisions | in an order | without an answer | of these charged \
         | by memory | forgotten | unexplained | violations | worst |\n|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    }

    /// For each strategy, values that are separated by commas.
    pub(super) fn by_strategy(&self) -> String {
        let mut text = String::new();
        for (group, (findings, excess)) in &self.by_strategy {
            let strategy = self.strategies[group * GROUP];
            let violations = findings.violations.len();
            text += &format!(
                "{},{},\"{}\",{},{},{},{},{},{},{violations},{}\n",
                strategy,
                self.backend,
                self.fault,
                excess.decisions,
                findings.checked,
                findings.lost,
                findings.charged,
                findings.forgotten,
                findings.unexplained,
                excess.worst,
            );
        }
        text
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |of: fn(&Findings) -> u64| -> u64 {
            self.by_strategy
                .values()
                .map(|(findings, _)| of(findings))
                .sum()
        };
        let promised = match self.promise {
            Promise::Order(Terms {
                counts_first: true, ..
            }) => "an order, of what is not counted",
            Promise::Order(Terms { forgets: true, .. }) => "an order, but for what is lost",
            Promise::Order(_) => "an order",
            Promise::Bound => "the bound",
            Promise::Twice => "twice the bound",
            Promise::Lent { fills: 1 } => "the bound, in any interval",
            Promise::Lent { .. } => "the bound and a burst, in any interval",
            Promise::Nothing | Promise::NoOrder(_) => "nothing",
        };
        let excesses = self.by_strategy.values().map(|(_, excess)| excess.worst);
        write!(
            f,
            "| {} | {} | {promised} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.backend,
            self.fault,
            self.decisions(),
            sum(|findings| findings.checked),
            sum(|findings| findings.lost),
            sum(|findings| findings.charged),
            self.by_memory(),
            sum(|findings| findings.forgotten),
            sum(|findings| findings.unexplained),
            sum(|findings| findings.violations.len() as u64),
            excesses.max().unwrap_or_default(),
        )
    }
}

impl Excess {
    /// Of events in the order of their answers.
    ///
    /// A hit counts where it was both asked and answered within the period: when it was decided in between
    /// nobody knows for certain, since a clock may be read long before the turn of who read it. Of a clock that
    /// is set by hand there is no other time than what it showed.
    fn of(world: &World, events: &[Event], steps_back: bool, times: i64) -> Excess {
        let mut admitted: BTreeMap<usize, Vec<Charge>> = BTreeMap::new();
        let mut excess = Excess {
            worst: i64::MIN,
            ..Excess::default()
        };
        let mut latest = 0;
        for event in events {
            latest = latest.max(event.time().as_micros());
            let (asked_us, known_us) = match steps_back {
                true => (latest, latest),
                false => (event.asked_ns / 1_000, event.answered_ns.div_ceil(1_000)),
            };
            excess.decisions += u64::from(!event.told().is_empty());
            excess.by_memory += u64::from(event.is_degraded());
            for hit in event.hits.iter().filter(|_| event.is_admitted()) {
                admitted.entry(hit.cell).or_default().push(Charge {
                    asked_us,
                    known_us,
                    cost: hit.cost.into(),
                });
            }
        }
        for (cell, charges) in admitted {
            let limit = &world.limits[cell];
            let most = i64::try_from(limit.most).expect("small");
            let worst = most_within(limit.rate.period_us(), charges) - times * most;
            excess.worst = excess.worst.max(worst);
        }
        excess
    }
}

impl Excess {
    /// In intervals of any length, of hits that were asked and answered in them. The events are in the order of their answers.
    fn lent(world: &World, events: &[Event], fills: u64) -> Excess {
        let mut excess = Excess::of(world, events, false, 1);
        excess.by_memory = events.iter().map(|event| u64::from(event.is_local)).sum();
        excess.worst = i64::MIN;
        for (cell, charges) in admitted(events) {
            let limit = &world.limits[cell];
            for start in charges.iter().map(|charge| charge.asked_us) {
                let mut sum = 0;
                for charge in charges.iter().filter(|charge| charge.asked_us >= start) {
                    sum += charge.cost;
                    let most = limit.most_in(charge.known_us - start + 1, fills);
                    let worst = sum - i64::try_from(most).expect("small");
                    excess.worst = excess.worst.max(worst);
                }
            }
        }
        excess
    }
}

/// What was admitted of each cell.
fn admitted(events: &[Event]) -> BTreeMap<usize, Vec<Charge>> {
    let mut admitted: BTreeMap<usize, Vec<Charge>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.is_admitted()) {
        for hit in &event.hits {
            admitted.entry(hit.cell).or_default().push(Charge {
                asked_us: event.asked_ns / 1_000,
                known_us: event.answered_ns.div_ceil(1_000),
                cost: hit.cost.into(),
            });
        }
    }
    admitted
}

/// What was admitted, and between which times.
#[derive(Clone, Copy, Debug)]
struct Charge {
    asked_us: u64,
    known_us: u64,
    cost: i64,
}

/// The most that was charged within less than a period. The charges are in the order in which they were known.
fn most_within(period_us: u64, charges: Vec<Charge>) -> i64 {
    let mut by_asked: Vec<usize> = (0..charges.len()).collect();
    by_asked.sort_by_key(|at| charges[*at].asked_us);
    let mut is_in = vec![false; charges.len()];
    let (mut next, mut sum, mut worst) = (0, 0, 0);
    for first in by_asked {
        let start = charges[first].asked_us;
        while next < charges.len()
            && charges[next].known_us - charges[next].known_us.min(start) < period_us
        {
            is_in[next] = charges[next].asked_us >= start;
            sum += i64::from(is_in[next]) * charges[next].cost;
            next += 1;
        }
        worst = worst.max(sum);
        sum -= i64::from(is_in[first]) * charges[first].cost;
    }
    worst
}

#[test]
fn a_clock_that_was_read_long_before_its_turn_counted_as_one_too_many() {
    let charge = |asked_us, known_us, cost| Charge {
        asked_us,
        known_us,
        cost,
    };
    // Within 10 us: what is known at the 10th, asked at 0, is in another period.
    for (charges, most) in [
        (vec![charge(0, 1, 2), charge(5, 9, 3)], 5),
        (vec![charge(0, 1, 2), charge(9, 10, 3)], 3),
        (vec![charge(0, 1, 2), charge(8, 9, 3), charge(8, 15, 4)], 7),
        (
            vec![charge(3, 3, 1), charge(1, 40, 9), charge(39, 41, 1)],
            1,
        ),
        (vec![charge(0, 50, 1), charge(20, 51, 1)], 0),
        (vec![], 0),
    ] {
        assert_eq!(most_within(10, charges.clone()), most, "{charges:?}");
    }
}

/// Within a period there was room for each of them.
#[test]
fn what_leases_admit_too_much_in_a_long_interval_is_seen() {
    let world = World::lent();
    // So many at once, and then so many each second.
    let admitted = |cell: usize, at_once: u32, each_second: u32| {
        let event = |at_us: u64, cost: u32| Event {
            asked_ns: at_us * 1_000,
            answered_ns: at_us * 1_000 + 1,
            hits: vec![Hit {
                cell,
                cost,
                asker: 0,
            }],
            outcome: Outcome::Told(vec![Told {
                decision: Decision::allow(1, 0),
                seen: None,
            }]),
            is_local: true,
        };
        let later = (1..=5).map(|second| event(second * 1_000_000, each_second));
        let events: Vec<Event> = [event(0, at_once)].into_iter().chain(later).collect();
        Excess::lent(&world, &events, 1).worst
    };
    let of = |id: &str| {
        let is_it = |limit: &Limit| limit.strategy.id() == id && limit.rate.limit() == 200;
        world.limits.iter().position(is_it).expect("there is one")
    };
    let (bucket, window) = (of("token_bucket"), of("fixed_window"));
    assert_eq!(admitted(bucket, 200, 200), 0);
    assert_eq!(admitted(bucket, 200, 201), 5);
    assert_eq!(admitted(bucket, 201, 200), 1);
    assert_eq!(admitted(window, 200, 200), -200);
    assert_eq!(admitted(window, 300, 250), 150);
}
