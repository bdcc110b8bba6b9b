//! Locks that a majority of independent masters grants.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::RedisBackend;
use super::store::RedisStore;
use crate::backend::BoxFuture;
use crate::error::{Error, Result};
use crate::lock::validity;

impl RedisStore {
    /// Takes locks by majority of several masters, at least three, instead of on the one that keeps
    /// the keys and values: by
    /// [Redlock](https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/). Locks
    /// are then to be had, and stay held, while a minority of the masters is down.
    ///
    /// All are asked at once, each within the deadline of its own backend, and the answer is known
    /// with the majority: a few that hang delay nobody. Who is refused, or granted too little too
    /// late, gives back at once what it was granted. The masters must be independent: no replicas
    /// of each other, no nodes of one cluster. Everybody must name the same ones, with the same
    /// namespaces.
    ///
    /// # What it cannot promise
    ///
    /// That a lock is free at once when it is released on another thread than it was taken on: a
    /// grant of the minority may then arrive after its release, and stays until its time is over.
    /// The majority is free.
    ///
    /// That two never hold a lock at once: only that they do not as long as clocks run alike (to a
    /// hundredth) and no master forgets. A master that restarts without what it had granted must
    /// stay away for the longest time that a lock is held, or write every change to disk before it
    /// answers (`appendonly yes`, `appendfsync always`). And a holder that is held up for longer
    /// than its lock lasts does not know: there are no fencing tokens. Where that would do harm,
    /// let the thing that is written refuse it, such as by a version number. No limit depends on
    /// locks: a [`RedisBackend`] decides without any.
    ///
    /// ```no_run
    /// use traffik_core::{Lock, LockConfig, RedisBackend};
    ///
    /// # async fn example() -> traffik_core::Result<()> {
    /// let urls = ["redis://10.0.0.1", "redis://10.0.0.2", "redis://10.0.0.3"];
    /// let masters = urls.map(RedisBackend::at).into_iter().collect::<Result<Vec<_>, _>>()?;
    /// let store = masters[0].store().redlock(masters)?;
    /// let lock = Lock::acquire(&store, "nightly-report", LockConfig::new()).await?;
    /// lock.release().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If there are fewer than three masters, or one is named twice.
    pub fn redlock(self, masters: impl IntoIterator<Item = RedisBackend>) -> Result<RedisStore> {
        let masters: Arc<[RedisStore]> = masters.into_iter().map(|one| one.store()).collect();
        if masters.len() < 3 {
            return Err(Error::invalid(format!(
                "a redlock needs at least 3 independent masters, of which one may fail, not {}",
                masters.len()
            )));
        }
        let twice = |at: usize| masters[..at].iter().any(|one| one.is(&masters[at]));
        if (1..masters.len()).any(twice) {
            return Err(Error::invalid(
                "a redlock's masters must be independent, but one of them is named twice",
            ));
        }
        Ok(self.locked_by(Redlock(masters)))
    }
}

/// The masters.
#[derive(Clone, Debug)]
pub(super) struct Redlock(Arc<[RedisStore]>);

impl Redlock {
    fn majority(&self) -> usize {
        self.0.len() / 2 + 1
    }

    /// Tries once.
    pub(super) async fn lock(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool> {
        let start = Instant::now();
        let mut answers = self.ask(name, owner, move |master, name, owner| async move {
            master.lock_here(&name, &owner, ttl).await
        });
        let (mut granted, mut failures) = (0, Vec::new());
        while granted < self.majority() && granted + answers.pending() >= self.majority() {
            match answers.next().await {
                Some(Ok(true)) => granted += 1,
                Some(Err(error)) => failures.push(error),
                Some(Ok(false)) | None => {}
            }
        }
        // What is still on its way was sent before what releases it, and on the same connection,
        // unless that is sent by another thread: then it may be left behind until its time is over.
        drop(answers);
        if granted >= self.majority() && start.elapsed() < validity(ttl) {
            return Ok(true);
        }
        // What cannot be released ends with its time.
        let _ = self.unlock(name, owner).await;
        if granted >= self.majority() {
            return Err(Error::timeout(format!(
                "the masters of a redlock took longer to grant it than the {ttl:?} it is held for"
            )));
        }
        match self.missing(failures) {
            Some(error) => Err(error),
            None => Ok(false),
        }
    }

    /// Returns when a majority has released it, so that others can have it; the rest is told in the
    /// background.
    pub(super) async fn unlock(&self, name: &str, owner: &str) -> Result<()> {
        let mut answers = self.ask(name, owner, |master, name, owner| async move {
            master.unlock_here(&name, &owner).await
        });
        let (mut released, mut failures) = (0, Vec::new());
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(()) => released += 1,
                Err(error) => failures.push(error),
            }
            if released == self.majority() {
                tokio::spawn(async move { while answers.next().await.is_some() {} });
                return Ok(());
            }
        }
        self.missing(failures).map_or(Ok(()), Err)
    }

    fn ask<T, Fut>(
        &self,
        name: &str,
        owner: &str,
        question: impl Fn(RedisStore, Arc<str>, Arc<str>) -> Fut,
    ) -> Answers<T>
    where
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        let (name, owner) = (Arc::from(name), Arc::from(owner));
        let asked = self.0.iter().map(|master| {
            let asking = question(master.clone(), Arc::clone(&name), Arc::clone(&owner));
            Box::pin(asking) as BoxFuture<'static, Result<T>>
        });
        Answers(asked.collect())
    }

    /// The error, if so many masters failed that no majority is left.
    fn missing(&self, mut failures: Vec<Error>) -> Option<Error> {
        let (all, left) = (self.0.len(), self.0.len() - failures.len());
        if left >= self.majority() {
            return None;
        }
        let error = Error::connection(format!(
            "{} of {all} masters of a redlock cannot be asked, and {} are needed",
            failures.len(),
            self.majority()
        ));
        Some(match failures.pop() {
            Some(last) => error.with_source(last),
            None => error,
        })
    }
}

/// Of several masters, in the order in which they come.
struct Answers<T>(Vec<BoxFuture<'static, Result<T>>>);

impl<T> Answers<T> {
    fn pending(&self) -> usize {
        self.0.len()
    }

    async fn next(&mut self) -> Option<Result<T>> {
        poll_fn(|context| {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            for at in 0..self.0.len() {
                if let Poll::Ready(answer) = self.0[at].as_mut().poll(context) {
                    drop(self.0.swap_remove(at));
                    return Poll::Ready(Some(answer));
                }
            }
            Poll::Pending
        })
        .await
    }
}
