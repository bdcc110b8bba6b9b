use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use traffik_core::{
    Backend, Batch, BoxFuture, Cell, Decisions, Error, Key, ManualClock, MemoryBackend, Op, Result,
    Timestamp,
};

/// A store of another process, as far as anybody can see, that fails on command.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    cells: MemoryBackend,
    is_down: Arc<AtomicBool>,
}

impl Remote {
    pub(crate) fn new() -> Remote {
        Remote {
            cells: memory(&ManualClock::default()),
            is_down: Arc::default(),
        }
    }

    pub(crate) fn fail(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    fn check(&self) -> Result<()> {
        match self.is_down.load(Ordering::Relaxed) {
            true => Err(Error::connection("the store is down")),
            false => Ok(()),
        }
    }
}

pub(crate) fn memory(clock: &ManualClock) -> MemoryBackend {
    let memory = MemoryBackend::builder().clock(clock.clone());
    memory.build().unwrap()
}

impl Backend for Remote {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(async move {
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
