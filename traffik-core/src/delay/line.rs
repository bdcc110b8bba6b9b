//! Lines, in which those wait who wait for the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// What is waited for: a cell of a store.
pub(super) type Line = (usize, u128);

/// Where hits stand in line if they have to wait for one of their attempts.
#[derive(Debug)]
pub(super) struct Spot {
    /// Which attempt it is.
    pub(super) at: usize,
    pub(super) line: Line,
    pub(super) cost: u32,
    pub(super) patience: Duration,
}

/// Who stands in a line, by when they came. The first is waiting for the cell, those after it for those before
/// them; who does not stand there any more has called who is the first then.
type Queue = BTreeMap<u64, Standing>;

struct Standing {
    cost: u32,
    call: Arc<Notify>,
}

fn lines() -> MutexGuard<'static, HashMap<Line, Queue>> {
    static LINES: OnceLock<Mutex<HashMap<Line, Queue>>> = OnceLock::new();
    LINES
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// How many are in any line: most of the time nobody, and then nobody locks.
static PLACES: AtomicUsize = AtomicUsize::new(0);

pub(super) fn is_anybody_anywhere() -> bool {
    PLACES.load(Ordering::Relaxed) > 0
}

/// Whether there is a line at one of these spots.
pub(super) fn is_anybody_at(spots: &[Spot]) -> bool {
    let lines = lines();
    spots.iter().any(|spot| lines.contains_key(&spot.line))
}

/// A place among those who wait, left when dropped.
///
/// Nobody stands in more than one line at a time, so that nobody keeps others from what it does not wait for, and no
/// two wait for each other. But its number, which says when it came, goes with it from one line to the next: it
/// is overtaken in none.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    line: Option<Line>,
    call: Arc<Notify>,
}

impl Place {
    /// The last one, in no line yet.
    pub(super) fn new() -> Place {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Place {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            line: None,
            call: Arc::default(),
        }
    }

    /// The first spot where somebody stands who came earlier.
    pub(super) fn behind<'s>(&self, spots: &'s [Spot]) -> Option<&'s Spot> {
        if !is_anybody_anywhere() {
            return None;
        }
        let lines = lines();
        spots.iter().find(|spot| {
            let first = lines.get(&spot.line).and_then(Queue::first_key_value);
            first.is_some_and(|(first, _)| *first < self.number)
        })
    }

    /// What those would take who stand before it, in their order.
    pub(super) fn ahead(&self, spot: &Spot) -> Vec<u32> {
        let lines = lines();
        let queue = lines.get(&spot.line).into_iter();
        queue
            .flat_map(|queue| queue.range(..self.number))
            .map(|(_, standing)| standing.cost)
            .collect()
    }

    /// Stands here, and nowhere else any more.
    pub(super) fn stand_at(&mut self, spot: &Spot) {
        if self.line == Some(spot.line) {
            return;
        }
        if self.line.is_none() {
            PLACES.fetch_add(1, Ordering::Relaxed);
        }
        let standing = Standing {
            cost: spot.cost,
            call: Arc::clone(&self.call),
        };
        let mut lines = lines();
        let queue = lines.entry(spot.line).or_default();
        queue.insert(self.number, standing);
        let left = self.line.replace(spot.line);
        let next = left.and_then(|line| leave(&mut lines, line, self.number));
        // Whoever is woken may want to look at once.
        drop(lines);
        if let Some(next) = next {
            next.notify_one();
        }
    }

    /// Waits until nobody stands before it at any of these spots; false if its patience ends before.
    pub(super) async fn turn(&mut self, spots: &[Spot], start: Instant) -> bool {
        while let Some(spot) = self.behind(spots) {
            if self.line != Some(spot.line) {
                self.stand_at(spot);
                // Who stood there may have left in between, and has called nobody.
                continue;
            }
            // Durations, not instants: there is no instant `Duration::MAX` from now.
            let patience = spot.patience.saturating_sub(start.elapsed());
            if timeout(patience, self.call.notified()).await.is_err() {
                return false;
            }
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(line) = self.line else { return };
        let next = leave(&mut lines(), line, self.number);
        PLACES.fetch_sub(1, Ordering::Relaxed);
        if let Some(next) = next {
            next.notify_one();
        }
    }
}

/// Leaves a line; who has to be told that they are the first now.
fn leave(lines: &mut HashMap<Line, Queue>, line: Line, number: u64) -> Option<Arc<Notify>> {
    let queue = lines.get_mut(&line)?;
    queue.remove(&number);
    let Some((first, standing)) = queue.first_key_value() else {
        lines.remove(&line);
        return None;
    };
    (*first > number).then(|| Arc::clone(&standing.call))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither was the last one, as long as both still held it.
    #[test]
    fn a_line_that_two_left_at_once_was_kept() {
        const LINES: u128 = 1_000;
        let spot = |at: u128| Spot {
            at: 0,
            // Of no store.
            line: (usize::MAX, at),
            cost: 1,
            patience: Duration::MAX,
        };
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for at in 0..LINES {
                        let mut place = Place::new();
                        place.stand_at(&spot(at));
                        start.wait();
                        drop(place);
                    }
                });
            }
        });
        assert!((0..LINES).all(|at| !is_anybody_at(&[spot(at)])));
    }
}
