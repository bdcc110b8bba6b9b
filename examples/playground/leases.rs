//! Leases in a time that is moved by hand: their tasks run when it is, and whenever somebody waits.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::yield_now;
use tokio::time::advance;
use traffik_core::{
    Backend, Batch, BoxFuture, Cell, Decisions, Error, Key, Leased, Op, Result, Timestamp,
};

use crate::remote::Remote;

/// A runtime whose time stands still.
pub(crate) struct Tasks(Runtime);

impl Tasks {
    /// Who has no answer after so many waits for time to pass.
    const TURNS: usize = 100;

    pub(crate) fn new() -> Result<Tasks> {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        let failed = |error| Error::other("a trial has no runtime").with_source(error);
        runtime.map(Tasks).map_err(failed)
    }

    /// Lets time pass, and those run who waited for it.
    pub(crate) fn pass(&self, time: Duration) {
        self.0.block_on(async {
            advance(time).await;
            yield_now().await;
        });
    }

    /// What a future comes to for which no time has to pass.
    pub(crate) fn run<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let mut future = pin!(future);
        for _ in 0..Self::TURNS {
            if let Poll::Ready(value) = poll(future.as_mut()) {
                return value;
            }
            self.0.block_on(yield_now());
        }
        Err(Error::other("a memory made somebody wait"))
    }

    pub(crate) fn beside(&self, leased: Leased<Remote>) -> Beside {
        Beside {
            leased,
            tasks: self.0.handle().clone(),
        }
    }
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Leases that find their tasks' runtime. What is around them finds none, so that a breaker probes and a
/// failover pays with requests, as they do without leases: tasks would do it after waits that chance makes.
#[derive(Debug)]
pub(crate) struct Beside {
    leased: Leased<Remote>,
    tasks: Handle,
}

impl Backend for Beside {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        let mut applied = self.leased.apply(batch);
        Box::pin(poll_fn(move |context| {
            let _entered = self.tasks.enter();
            applied.as_mut().poll(context)
        }))
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        self.leased.load(op)
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        self.leased.reset()
    }

    fn ready<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        self.leased.ready(key)
    }

    fn answers(&self, key: &Key) -> Option<u64> {
        self.leased.answers(key)
    }
}
