//! Random hits at instants where strategies are likely to be wrong.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::Laws;
use crate::cell::Cell;
use crate::rate::Rate;
use crate::time::Timestamp;

/// A rate, and hits under it.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub(super) rate: Rate,
    /// Of the first hit, in µs since the epoch.
    pub(super) start_us: u64,
    pub(super) moves: Vec<Move>,
    /// What a store might return that nobody wrote.
    pub(super) corrupt: Cell,
}

/// Some time passes, then somebody does something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) gap: Gap,
    pub(super) cost: Cost,
    /// Which of the askers.
    pub(super) who: usize,
    pub(super) deed: Deed,
}

/// What somebody does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    Hit,
    /// Charges the cost without asking.
    Charge,
    /// Refunds one of the last admissions: the last is 0.
    Refund(u8),
    /// Changes the rate: limit and period become so many times as much, then that part of it.
    Change([u8; 2], [u8; 2]),
}

/// How far the clock moves before a hit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gap {
    /// By microseconds.
    Micros(u64),
    /// By so many emission intervals, plus microseconds.
    Intervals(u32, i8),
    /// By a part of the period, in 1/256.
    Part(u16),
    /// To the next multiple of the period, plus microseconds.
    Edge(i8),
    /// To the end of the last denial's wait, plus microseconds.
    Wait(i8),
    /// To the expiry of the cell, plus microseconds.
    Expiry(i8),
    /// Back by a part of the period, in 1/256.
    Back(u16),
}

/// The cost of a hit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cost {
    Units(u32),
    /// A part of the limit, in 1/256.
    Part(u16),
    /// The limit, plus units.
    Limit(i8),
}

impl Cost {
    pub(super) fn of(self, rate: &Rate) -> u32 {
        let limit = i64::from(rate.limit());
        let cost = match self {
            Cost::Units(units) => i64::from(units),
            Cost::Part(part) => limit * i64::from(part) / 256,
            Cost::Limit(plus) => limit + i64::from(plus),
        };
        u32::try_from(cost.max(0)).unwrap_or(u32::MAX)
    }
}

/// 2024-01-01: the start of a minute, an hour and a day.
pub(super) const START_US: u64 = 1_704_067_200_000_000;

pub(super) fn traces(laws: &Laws<'_>) -> impl Strategy<Value = Trace> + use<> {
    let rate = match laws.rates.as_slice() {
        [] => rate().boxed(),
        rates => select(rates.to_vec()).boxed(),
    };
    let start_us = prop_oneof![Just(START_US), START_US..2 * START_US];
    // Half of the traces know no step back, so that they test the stricter law.
    let moves = any::<bool>().prop_flat_map({
        let askers = laws.askers.len();
        move |steps_back| prop::collection::vec(one(askers, steps_back), 1..48)
    });
    (rate, start_us, moves, corrupt()).prop_map(|(rate, start_us, moves, corrupt)| Trace {
        rate,
        start_us,
        moves,
        corrupt,
    })
}

fn corrupt() -> impl Strategy<Value = Cell> {
    let word = || {
        prop_oneof![
            0..3_u64,
            START_US - 2_000_000..START_US + 2_000_000,
            0..Cell::WORD_LIMIT,
            // Of any length: counts and totals that are small, or nearly.
            (0..53_u32, any::<u64>()).prop_map(|(bits, any)| (1 << bits) + any % (1 << bits)),
            Just(Cell::WORD_LIMIT - 1),
        ]
    };
    let words = prop::collection::vec(word(), 0..=Cell::MAX_WORDS);
    let queue = prop::collection::vec([word(), word()], 0..4);
    (words, queue).prop_map(|(words, queue)| {
        let mut cell = Cell::fresh();
        cell.set(&words, Timestamp::from_micros(START_US));
        for pair in queue {
            cell.queue_mut().push(pair);
        }
        cell
    })
}

pub(super) fn rate() -> impl Strategy<Value = Rate> {
    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    let limit = prop_oneof![
        4 => 1..=20_u32,
        1 => select(vec![1, 2, 3, 7, 60, 100, 1_000, 999_999_937, Rate::MAX_LIMIT]),
        1 => (0..30_u32, any::<u32>()).prop_map(|(bits, any)| {
            ((1 << bits) + any % (1 << bits)).min(Rate::MAX_LIMIT)
        }),
    ];
    let period_ms = prop_oneof![
        3 => select(vec![1_000, 60_000, 3_600_000, DAY_MS]),
        1 => select(vec![1, 2, 7, 999, 1_001, 7 * DAY_MS, 31 * DAY_MS, 366 * DAY_MS]),
        1 => select(vec![1, 3, 12]).prop_map(|months: u64| months * 2_629_746_000),
        1 => (0..34_u32, any::<u64>()).prop_map(|(bits, any)| {
            ((1 << bits) + any % (1 << bits)).min(366 * DAY_MS)
        }),
    ];
    (limit, period_ms).prop_map(|(limit, period_ms)| {
        Rate::new(limit, Duration::from_millis(period_ms))
            .expect("both are drawn from their ranges")
    })
}

fn one(askers: usize, steps_back: bool) -> impl Strategy<Value = Move> {
    let back = if steps_back { 2 } else { 0 };
    let gap = prop_oneof![
        6 => (0..3_u64).prop_map(Gap::Micros),
        3 => (0..4_u32, -1..=1_i8).prop_map(|(count, plus)| Gap::Intervals(count, plus)),
        2 => (0..768_u16).prop_map(Gap::Part),
        3 => (-1..=1_i8).prop_map(Gap::Edge),
        4 => (-1..=1_i8).prop_map(Gap::Wait),
        2 => (-1..=1_i8).prop_map(Gap::Expiry),
        back => (0..768_u16).prop_map(Gap::Back),
    ];
    let cost = prop_oneof![
        4 => Just(Cost::Units(1)),
        2 => (0..5_u32).prop_map(Cost::Units),
        3 => (0..256_u16).prop_map(Cost::Part),
        2 => (-1..=2_i8).prop_map(Cost::Limit),
        1 => prop_oneof![(256..2_000_u16).prop_map(Cost::Part), Just(Cost::Units(u32::MAX))],
    ];
    let deed = prop_oneof![
        14 => Just(Deed::Hit),
        1 => Just(Deed::Charge),
        3 => (0..4_u8).prop_map(Deed::Refund),
        1 => [[1..9_u8, 1..9_u8], [1..9_u8, 1..9_u8]]
            .prop_map(|[limit, period]| Deed::Change(limit, period)),
    ];
    (gap, cost, 0..askers, deed).prop_map(|(gap, cost, who, deed)| Move {
        gap,
        cost,
        who,
        deed,
    })
}
