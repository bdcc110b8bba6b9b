//! Threads that wait for memcached so that nobody else has to.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::promise::promise;
use super::queue::{Queue, Refusal};
use super::server::{left_until, start_thread};
use super::session::Shared;
use super::worker::Worker;
use crate::error::{Error, Result};
use crate::key::Key;

/// A fixed number of threads for each server, each with a bounded queue of its own. A server that
/// hangs holds its own threads and nobody else's; a key is always served by the same thread.
pub(super) struct Lanes {
    queues: Box<[Arc<Queue<Job>>]>,
    per_server: usize,
    timeout: Duration,
}

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

impl Lanes {
    /// Starts the threads.
    pub(super) fn start(
        shared: &Arc<Shared>,
        per_server: usize,
        capacity: usize,
        timeout: Duration,
    ) -> Result<Lanes> {
        let lanes = Lanes {
            queues: (0..shared.servers.len() * per_server)
                .map(|_| Arc::new(Queue::new(capacity)))
                .collect(),
            per_server,
            timeout,
        };
        for (at, queue) in lanes.queues.iter().enumerate() {
            let queue = Arc::clone(queue);
            let worker = Worker::new(Arc::clone(shared), at / per_server);
            start_thread(shared.generation.namespace(), at, move || {
                work(&queue, worker, timeout);
            })?;
        }
        Ok(lanes)
    }

    /// The lane of a key on its server: all keys of one identity share it, so that within this process
    /// batches are as atomic as single hits.
    pub(super) fn of_key(&self, key: &Key, server: usize) -> usize {
        // Servers are chosen by the other half.
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
        let place = (key.who >> 64) as usize;
        server * self.per_server + place % self.per_server
    }

    /// Any lane of a server.
    pub(super) fn of_server(&self, server: usize) -> usize {
        server * self.per_server
    }

    /// Has a thread do something before the deadline, and waits for the answer. The thread never
    /// waits longer than that, hence neither does the caller, whatever runtime it lives in.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        lane: usize,
        errand: impl FnOnce(&mut Worker, Instant) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let deadline = Instant::now() + self.timeout;
        let (resolver, answer) = promise();
        let job = Box::new(move |worker: &mut Worker| {
            // Charging somebody who has gone away would be wrong, if it can be avoided.
            if !resolver.is_abandoned() {
                resolver.resolve(left_until(deadline).and_then(|_| errand(worker, deadline)));
            }
        });
        self.queues[lane]
            .push(job)
            .map_err(|refusal| match refusal {
                Refusal::Full => Error::overloaded("too many hits already wait for memcached"),
                Refusal::Closed => Error::closed("the memcached backend was closed"),
            })?;
        let answer = answer.await;
        answer.unwrap_or_else(|| Err(Error::other("a strategy panicked while it decided a hit")))
    }

    /// Lets the threads end once they have served what is in their queues.
    pub(super) fn close(&self) {
        self.queues.iter().for_each(|queue| queue.close());
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes")
            .field("threads", &self.queues.len())
            .finish_non_exhaustive()
    }
}

fn work(queue: &Queue<Job>, mut worker: Worker, timeout: Duration) {
    while let Some(job) = queue.pop() {
        // A strategy of the user's may panic. The worker keeps nothing that a panic could spoil.
        let _ = catch_unwind(AssertUnwindSafe(|| job(&mut worker)));
        // Whoever comes meanwhile waits, but for no longer than for a hit.
        if queue.is_empty() {
            worker.tidy(timeout);
        }
    }
}
