use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::time::Timestamp;

/// The cells that this process has stored, so that a reset can delete them at once.
#[derive(Debug, Default)]
pub(super) struct Tracked(Mutex<HashMap<u128, Cell>>);

#[derive(Debug)]
struct Cell {
    server: usize,
    expires: Timestamp,
}

/// About 64 MB. What is not tracked is forgotten all the same, and expires by itself.
const MAX: usize = 1_000_000;

impl Tracked {
    pub(super) fn insert(&self, digest: u128, server: usize, expires: Timestamp, now: Timestamp) {
        let mut cells = self.lock();
        if cells.len() >= MAX {
            cells.retain(|_, cell| cell.expires > now);
        }
        if cells.len() < MAX {
            cells.insert(digest, Cell { server, expires });
        }
    }

    /// Takes the cells of each server.
    pub(super) fn take(&self, servers: usize) -> Vec<Vec<u128>> {
        let mut by_server = vec![Vec::new(); servers];
        for (digest, cell) in std::mem::take(&mut *self.lock()) {
            by_server[cell.server].push(digest);
        }
        by_server
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u128, Cell>> {
        // Nothing under this lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
