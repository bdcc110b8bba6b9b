//! A store that can be taken away. The guide's plots use this file too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use traffik_core::{
    Backend, Batch, BoxFuture, Cell, Decisions, Error, Key, MemoryBackend, Op, Result, Timestamp,
};

/// A store of another process, as far as anybody can see.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    cells: MemoryBackend,
    is_away: Arc<AtomicBool>,
    trips: Arc<AtomicU64>,
}

impl Remote {
    pub(crate) fn over(cells: MemoryBackend) -> Remote {
        Remote {
            cells,
            is_away: Arc::default(),
            trips: Arc::default(),
        }
    }

    /// The same store, asked by another node: its trips are counted apart.
    pub(crate) fn of_another_node(&self) -> Remote {
        Remote {
            trips: Arc::default(),
            ..self.clone()
        }
    }

    /// How often it was asked to decide, in vain or not.
    pub(crate) fn trips(&self) -> u64 {
        self.trips.load(Ordering::Relaxed)
    }

    pub(crate) fn take_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    fn check(&self) -> Result<()> {
        match self.is_away.load(Ordering::Relaxed) {
            true => Err(Error::connection("the store is away")),
            false => Ok(()),
        }
    }
}

impl Backend for Remote {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(async move {
            self.trips.fetch_add(1, Ordering::Relaxed);
            self.check()?;
            self.cells.apply(batch).await
        })
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(async move {
            self.check()?;
            self.cells.load(op).await
        })
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        self.cells.reset()
    }

    fn ready<'a>(&'a self, _: &'a Key) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.check() })
    }
}
