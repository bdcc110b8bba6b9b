//! What the benches share: contestants in turn, medians, ratios to the first.
//!
//! One figure of a busy machine means nothing, and neither do two that were taken a minute apart.
//! Contestants therefore run in short turns, A B C A B C, and are compared turn by turn: the ratio
//! of a round is between neighbours in time, and what is printed is the median over all rounds.

pub mod load;
pub mod server;
pub mod sockets;
pub mod store;

use std::fmt;
use std::sync::OnceLock;

/// What is measured, and how one turn of it is taken.
pub struct Contestant<'a, const N: usize> {
    name: String,
    turn: Box<dyn FnMut() -> [f64; N] + 'a>,
}

impl<'a, const N: usize> Contestant<'a, N> {
    /// A contestant whose `turn` returns one figure of each kind.
    pub fn new(name: impl Into<String>, turn: impl FnMut() -> [f64; N] + 'a) -> Contestant<'a, N> {
        Contestant {
            name: name.into(),
            turn: Box::new(turn),
        }
    }
}

impl<const N: usize> fmt::Debug for Contestant<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Contestant").field(&self.name).finish()
    }
}

/// What became of one contestant.
#[derive(Clone, Debug)]
pub struct Standing<const N: usize> {
    /// Its name.
    pub name: String,
    /// For each kind of figure what it was.
    pub figures: [Figure; N],
    turns: Vec<[f64; N]>,
}

impl<const N: usize> Standing<N> {
    /// One kind of figure divided by that of another contestant in the same round.
    pub fn ratio_to(&self, other: &Standing<N>, kind: usize) -> Spread {
        ratio(&self.turns, &other.turns, kind)
    }
}

/// One kind of figure of one contestant, over all rounds.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// The figure itself.
    pub value: Spread,
    /// The figure divided by that of the first contestant in the same round.
    pub ratio: Spread,
}

/// Lets everybody take one turn per round; the first contestant is what the others are compared to.
pub fn compete<const N: usize>(
    rounds: usize,
    mut contestants: Vec<Contestant<'_, N>>,
) -> Vec<Standing<N>> {
    let mut turns = vec![Vec::with_capacity(rounds); contestants.len()];
    for _ in 0..rounds {
        for (contestant, turns) in contestants.iter_mut().zip(&mut turns) {
            turns.push((contestant.turn)());
        }
    }
    let first = turns[0].clone();
    contestants
        .into_iter()
        .zip(turns)
        .map(|(contestant, turns)| Standing {
            name: contestant.name,
            figures: std::array::from_fn(|kind| Figure {
                value: Spread::of(turns.iter().map(|turn| turn[kind])),
                ratio: ratio(&turns, &first, kind),
            }),
            turns,
        })
        .collect()
}

fn ratio<const N: usize>(ones: &[[f64; N]], others: &[[f64; N]], kind: usize) -> Spread {
    let rounds = ones.iter().zip(others);
    Spread::of(rounds.map(|(one, other)| one[kind] / other[kind]))
}

/// The middle and the ends of some figures.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    fn of(figures: impl IntoIterator<Item = f64>) -> Spread {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        Spread {
            median: figures[figures.len() / 2],
            min: figures[0],
            max: figures[figures.len() - 1],
        }
    }

    /// The same of one divided by the figures.
    pub fn inverse(self) -> Spread {
        Spread {
            median: 1.0 / self.median,
            min: 1.0 / self.max,
            max: 1.0 / self.min,
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { median, min, max } = self;
        let digits = f.precision().unwrap_or(1);
        let text = format!("{median:.digits$} ({min:.digits$} - {max:.digits$})");
        match f.width() {
            Some(width) => write!(f, "{text:width$}"),
            None => f.write_str(&text),
        }
    }
}

/// Binds this thread to a core, if there are that many.
pub fn pin(core: usize) {
    // Once bound, a thread and whoever it starts know of no other core.
    static CORES: OnceLock<Vec<core_affinity::CoreId>> = OnceLock::new();
    let cores = CORES.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default());
    if let Some(core) = cores.get(core) {
        core_affinity::set_for_current(*core);
    }
}
