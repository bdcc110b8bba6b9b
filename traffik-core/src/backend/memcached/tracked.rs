use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::sweep::Sweep;
use crate::time::Timestamp;

/// The cells that this process has stored, so that a reset can delete them at once.
#[derive(Debug, Default)]
pub(super) struct Tracked(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    cells: HashMap<u128, Cell>,
    /// For those that have expired.
    sweep: Sweep,
}

#[derive(Debug)]
struct Cell {
    server: usize,
    expires: Timestamp,
}

/// About 64 MB. What is not tracked is forgotten all the same, and expires by itself.
const MAX: usize = if cfg!(test) { 1_000 } else { 1_000_000 };

/// How often at most all are looked through for room: that takes longer than thousands of hits.
const SWEEP_US: u64 = 10_000_000;

impl Tracked {
    pub(super) fn insert(&self, digest: u128, server: usize, expires: Timestamp, now: Timestamp) {
        let mut state = self.lock();
        if let Some(cell) = state.cells.get_mut(&digest) {
            cell.expires = expires;
            return;
        }
        if state.cells.len() >= MAX && state.sweep.is_due(now.as_micros(), SWEEP_US) {
            state.cells.retain(|_, cell| cell.expires > now);
        }
        if state.cells.len() < MAX {
            state.cells.insert(digest, Cell { server, expires });
        }
    }

    /// Takes the cells of each server.
    pub(super) fn take(&self, servers: usize) -> Vec<Vec<u128>> {
        let mut by_server = vec![Vec::new(); servers];
        for (digest, cell) in std::mem::take(&mut self.lock().cells) {
            by_server[cell.server].push(digest);
        }
        by_server
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing under this lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each hit looked through all that there were, one after the other.
    #[test]
    fn a_million_cells_that_are_alive_were_looked_through_by_each_hit() {
        let tracked = Tracked::default();
        let at = Timestamp::from_micros;
        let start = 1_704_067_200_000_000;
        let alive = at(start + 3 * SWEEP_US);
        for digest in 0..MAX as u128 {
            tracked.insert(digest, 0, alive, at(start));
        }
        for digest in 0..9 * MAX as u128 {
            tracked.insert(digest, 0, alive, at(start + SWEEP_US));
            tracked.insert(digest, 0, alive, at(start + 2 * SWEEP_US - 1));
        }
        assert_eq!(tracked.lock().sweep.last_us, start + SWEEP_US);
        tracked.insert(u128::MAX, 1, at(u64::MAX), alive);
        let cells = tracked.take(2);
        assert_eq!((cells[0].len(), cells[1].len()), (0, 1));
    }
}
