//! A store that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use traffik_actix::traffik_core::backend::{Batch, BoxFuture, Op};
use traffik_actix::traffik_core::{Cell, Decisions, Result};
use traffik_actix::{Backend, Error, MemoryBackend, Timestamp};

/// A store that cannot be reached while `down`, and is never answered from at once.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    cells: MemoryBackend,
    pub(crate) down: Arc<AtomicBool>,
}

impl Store {
    pub(crate) fn down() -> Store {
        Store::over(MemoryBackend::new(), true)
    }

    pub(crate) fn over(cells: MemoryBackend, down: bool) -> Store {
        Store {
            cells,
            down: Arc::new(AtomicBool::new(down)),
        }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        actix_web::rt::task::yield_now().await;
        match self.down.load(Ordering::Relaxed) {
            true => Err(Error::connection("the store refused the connection")),
            false => call.await,
        }
    }
}

impl Backend for Store {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(self.call(async { self.cells.apply(batch).await }))
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(self.call(async { self.cells.load(op).await }))
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.call(async { self.cells.reset().await }))
    }

    fn now(&self) -> Timestamp {
        self.cells.now()
    }
}
