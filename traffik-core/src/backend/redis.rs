//! Cells in a Redis, shared by every process that uses it.

mod answer;
mod builder;
#[cfg(feature = "redis-cluster")]
mod cluster;
mod denials;
mod failure;
mod hints;
mod link;
#[cfg(feature = "redis-cluster")]
mod map;
mod node;
#[cfg(feature = "tokio")]
pub(crate) mod permits;
mod pipe;
#[cfg(feature = "store")]
mod redlock;
mod reset;
mod resp;
mod script;
#[cfg(feature = "redis-sentinel")]
mod sentinel;
mod slots;
#[cfg(feature = "store")]
mod store;
mod stream;
#[cfg(feature = "redis-tls")]
mod tls;
mod trip;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[cfg(feature = "testing")]
pub(crate) use answer::read_wire as read_answers;
pub use builder::RedisBackendBuilder;
#[cfg(all(feature = "testing", feature = "redis-cluster"))]
pub(crate) use map::read_wire as read_slots;
#[cfg(feature = "testing")]
pub(crate) use reset::read_wire as read_time;
#[cfg(feature = "store")]
pub use store::RedisStore;

use self::answer::{Answer, Outcome};
use self::denials::Denials;
use self::failure::disagreement;
use self::hints::Hints;
use self::link::{Link, Links, Lost};
use self::script::{Programs, Step, Steps};
use self::trip::{Answered, Terms};
use super::cas::Attempts;
use super::{Backend, Batch, BoxFuture, Op, realigning};
use crate::cell::Cell;
use crate::decision::Decisions;
use crate::error::{Error, Result};
use crate::key::{Key, KeyHasher};
use crate::patience::in_time;
use crate::strategy::Strategy;
use crate::time::{Clock, Timestamp, micros};

/// Keeps cells in a Redis (or Valkey) of version 5 or later, shared by every process that uses it.
///
/// Every decision, and every batch of the throttles of one request, is **one round trip**: one
/// script that reads the clock of the server, decides all operations, and charges all or none.
/// What comes up on one thread at the same moment, up to 64 operations, shares a round trip, which
/// takes Redis a fraction of the work; nobody waits for company.
/// Servers with wrong clocks therefore agree. Two trips are taken only by strategies without a
/// [script](crate::Strategy::lua): those of your own, an [adaptive throttle](crate::AdaptiveThrottle)
/// with a gauge, and [hours](crate::strategy::TimeOfDay) in a zone whose offset changes.
///
/// Clones share everything. Each thread has one connection of its own, made when first needed and
/// replaced when it breaks; building a backend connects to nothing, so that a program starts while
/// Redis is down. Use it from within a tokio runtime, such as actix's.
///
/// A hit that was denied is denied again without asking Redis until its wait is over, at most for
/// a second at a time, so that a flood costs little; see
/// [`deny_cache`](RedisBackendBuilder::deny_cache).
///
/// # Failures
///
/// A decision takes no longer than the [deadline](RedisBackendBuilder::deadline), whatever the
/// server does, once there is a connection, for which there is a [time of its
/// own](RedisBackendBuilder::connect_timeout). If the connection breaks or the time is up after the command was sent, the hit may
/// have been charged: the error says so ([`Error::is_unexecuted`]). Nothing is sent twice unless
/// it certainly was not executed.
///
/// # What is stored
///
/// `<namespace>:{<digest of the identity>}<digest of throttle and scope>`, a few dozen bytes, with
/// a time to live of exactly as long as it matters. No identity is ever sent. After a reset,
/// `<namespace>:reset` tells for two hours when that was. What a [`Concurrency`](crate::Concurrency) has in
/// flight is in keys that end in `:in-flight`, and goes on through a reset.
///
/// Give the server room. When it has none left, its `maxmemory-policy` chooses between two evils: with
/// `noeviction` every hit that would change a count is an error, so that a full server is an outage;
/// with any other, counts are evicted, and whoever they limited may be forgiven, unless a process
/// that saw them [restores](#losses) them. `volatile-ttl` evicts first what would have ended soonest.
///
/// # Permissions
///
/// Where users of the server have permissions ([ACL](https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/)),
/// this backend's needs `~<namespace>:*`, the first row, and those of what is used. If one is missing,
/// hits are errors that name the command; none is admitted because a count could not be read.
///
/// | for | commands |
/// |---|---|
/// | every decision | `+evalsha +eval +get +set +setrange +time` |
/// | [`SlidingWindowLog`](crate::SlidingWindowLog), [`PriorityQueue`](crate::PriorityQueue), [`LeakyBucketWithQueue`](crate::LeakyBucketWithQueue) | `+getrange +strlen +pexpire` |
/// | a [`Concurrency`](crate::Concurrency) | `+evalsha +eval +time +zadd +zcard +zrangebyscore +zrem +zremrangebyscore +pttl +pexpire` |
/// | a URL with a database | `+select` |
/// | `reset`, and `close` unless persistent | `+scan +unlink +set +time` |
/// | a cluster | `+cluster|slots` |
/// | a master that sentinels watch | `+role` |
/// | a [`RedisStore`](RedisBackend::store) | `+eval +get +mget +set +unlink +exists +incrby +decrby +pexpire` |
/// | its locks | `+eval +get +set +del` |
///
/// With a [clock](RedisBackendBuilder::clock) of your own nothing needs `+time`.
///
/// # Losses
///
/// Redis may be flushed, restarted empty, short of memory, or replaced by a replica that lags. What
/// it knew is not lost with it: each process remembers the cells it saw last, and sends what it
/// remembers along with the next hit, in the same round trip. If the key is gone before its time,
/// the cell is restored before the hit is decided, and [counted](RedisBackend::state_loss_total).
/// So it is if the key is still there, but older than what the process saw: as on a promoted
/// replica, after a restart from a snapshot, or when a process that remembers less was the first to
/// restore it. Which of two cells is older their [words](crate::Strategy::grows) tell, and no clock.
///
/// So a loss forgives a client only what other processes have charged since this one last saw it,
/// and only until they come back: a process that finds the key there learns from the answer to its
/// next hit that it is too old, and restores it with the one after. Not restored are cells that nobody who
/// is still running saw within the last hour, or that were displaced by
/// [newer ones](RedisBackendBuilder::heal); the logs and queues of strategies that keep them;
/// strategies without a script; and anything on a cluster. A reset by any process is not undone,
/// unless the memory of the reset is lost itself before the others heard of it.
///
/// Where hits are [leased](crate::Lease), some counts become less because something was given back. Of
/// limits that can be lent a cell that is older is no sign of a loss then, so that only those are restored
/// whose key is gone.
///
/// ```no_run
/// use traffik_core::{RedisBackend, Throttle};
///
/// let backend = RedisBackend::builder("redis://127.0.0.1:6379").namespace("shop").build()?;
/// let throttle = Throttle::builder("login").rate("5/minute").backend(backend).build()?;
/// # let _ = throttle;
/// # Ok::<(), traffik_core::Error>(())
/// ```
#[derive(Clone)]
pub struct RedisBackend(Arc<Inner>);

struct Inner {
    links: Links,
    programs: Programs,
    namespace: String,
    deadline: Duration,
    persistent: bool,
    hasher: KeyHasher,
    clock: Option<Arc<dyn Clock>>,
    start: Instant,
    denials: Denials,
    hints: Hints,
    #[cfg(feature = "tokio")]
    permits: permits::Permits,
    closed: AtomicBool,
}

impl RedisBackend {
    /// A backend with default settings on the server at `url`:
    /// `redis://[user:password@]host[:port][/database]`.
    ///
    /// # Errors
    ///
    /// If the URL is malformed. That nobody answers there shows when a hit is decided.
    pub fn at(url: &str) -> Result<RedisBackend> {
        Self::builder(url).build()
    }

    /// A backend with other settings on the server at `url`.
    pub fn builder(url: &str) -> RedisBackendBuilder {
        RedisBackendBuilder::at(url)
    }

    /// What all keys begin with.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Whether closing keeps the cells.
    pub fn is_persistent(&self) -> bool {
        self.0.persistent
    }

    /// How long a decision may take, once there is a connection.
    pub fn deadline(&self) -> Duration {
        self.0.deadline
    }

    /// How many cells this backend found Redis to have lost, and restored. Clones count together.
    pub fn state_loss_total(&self) -> u64 {
        self.0.hints.losses()
    }
}

impl Inner {
    /// With an injected clock, Redis's own runs on, and must not drop what still matters.
    const CLOCK_SLACK_MS: u64 = 3_600_000;

    fn slack_ms(&self) -> u64 {
        match self.clock {
            None => 0,
            Some(_) => Self::CLOCK_SLACK_MS,
        }
    }

    fn now(&self) -> Option<Timestamp> {
        self.clock.as_ref().map(|clock| clock.now())
    }

    /// µs since some instant, on a clock that runs like the one that decides.
    fn stopwatch(&self) -> u64 {
        match &self.clock {
            None => micros(self.start.elapsed()),
            Some(clock) => clock.now().as_micros(),
        }
    }

    fn check_open(&self) -> Result<()> {
        match self.closed.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Error::closed("the redis backend was closed")),
        }
    }

    /// Without asking Redis, if it is known to deny.
    fn deny(&self, batch: &Batch<'_>) -> Option<Decisions> {
        self.denials.answer(batch, || self.stopwatch())
    }

    // The less common ways are boxed: their futures are large, and would be moved with every hit.
    async fn decide(self: &Arc<Self>, link: &Arc<Link>, batch: &Batch<'_>) -> Result<Decisions> {
        let ticket = self.denials.ticket(batch, || self.stopwatch());
        if self.links.connect().has_slots() && batch.is_scattered() {
            let deciding = self.in_time_altogether(link, self.decide_by_slot(link, batch));
            return Box::pin(deciding).await;
        }
        let (decisions, denied) = self.ask_to_decide(link, batch).await?;
        if let Some(seen) = denied {
            let cells = seen.decoded();
            let realigning = realigning(batch, &cells, &decisions, seen.now);
            if let Some(ticket) = ticket {
                let answered_us = self.stopwatch();
                ticket.denied(&decisions, cells, seen.now, answered_us);
            }
            if !realigning.is_empty() {
                Box::pin(self.realign(link, realigning)).await;
            }
        }
        Ok(decisions)
    }

    /// What fails the next denial tries again.
    async fn realign(
        self: &Arc<Self>,
        link: &Arc<Link>,
        realigning: Vec<(&Op<'_>, Arc<dyn Strategy>)>,
    ) {
        for (op, strategy) in realigning {
            let op = Op {
                strategy: &strategy,
                cost: 1,
                ..*op
            };
            let batch = Batch::new(std::slice::from_ref(&op));
            let realigned = self.ask_to_decide(link, &batch).await;
            self.denials.changed([&op.key]);
            if realigned.is_err() {
                break;
            }
        }
    }

    /// Also returns the cells before the decision, if it is a denial.
    async fn ask_to_decide(
        self: &Arc<Self>,
        link: &Arc<Link>,
        batch: &Batch<'_>,
    ) -> Result<(Decisions, Option<Box<Answer>>)> {
        // The steps are sent, and not kept.
        let answered = match steps_of(batch) {
            Some(steps) => self.ask(link, batch, &steps, self.now(), Some(self.slack_ms()))?,
            None => {
                let deciding = self.in_time_altogether(link, self.decide_in_two_trips(link, batch));
                return Box::pin(deciding).await;
            }
        };
        let answer = answered.await?;
        if answer.outcome == Outcome::Raced {
            // A script that knows part of the calendar was asked about another.
            let deciding = self.in_time_altogether(link, self.decide_in_two_trips(link, batch));
            return Box::pin(deciding).await;
        }
        let mut cells = answer.decoded();
        let decisions = batch.decide(&mut cells, answer.now);
        if decisions.is_allowed() != (answer.outcome == Outcome::Admitted) {
            return Err(disagreement(answer.outcome));
        }
        // Else there is no telling which server answered.
        if self.links.era() == answer.era && self.hints.saw(batch, &answer, &cells) {
            self.links.begin_era();
        }
        let denied = decisions.is_denied().then(|| Box::new(answer));
        Ok((decisions, denied))
    }

    /// For strategies without a script: read, decide here, and write if nobody else has.
    async fn decide_in_two_trips(
        self: &Arc<Self>,
        link: &Arc<Link>,
        batch: &Batch<'_>,
    ) -> Result<(Decisions, Option<Box<Answer>>)> {
        let mut attempts = Attempts::default();
        loop {
            let seen = self.look(link, batch)?.await?;
            let mut cells = seen.decoded();
            let decisions = batch.decide(&mut cells, seen.now);
            if decisions.is_denied() {
                return Ok((decisions, Some(Box::new(seen))));
            }

            let write: Steps<'_> = batch
                .ops()
                .iter()
                .zip(seen.cells.iter().zip(cells))
                .map(|(op, (before, after))| Step::unless_changed(op, before, after))
                .collect();
            let written = self.ask(link, batch, &write, Some(seen.now), Some(self.slack_ms()))?;
            let written = written.await?;
            if written.outcome == Outcome::Admitted {
                // Logs may have met a newer cell than the one seen. Else this is the decision that
                // was written, though a gauge may have changed since.
                let decisions = match written.cells == seen.cells {
                    true => decisions,
                    false => batch.decide(&mut written.decoded(), seen.now),
                };
                let denied = decisions.is_denied().then(|| Box::new(written));
                return Ok((decisions, denied));
            }
            tokio::time::sleep(attempts.again()?).await;
        }
    }

    /// Asks what would be decided, changing nothing.
    fn look(self: &Arc<Self>, link: &Arc<Link>, batch: &Batch<'_>) -> Result<Answered> {
        let look = |op| Step::of(op).unwrap_or(Step::Read);
        let steps: Steps<'_> = batch.ops().iter().map(look).collect();
        self.ask(link, batch, &steps, self.now(), None)
    }

    /// One round trip.
    fn ask(
        self: &Arc<Self>,
        link: &Arc<Link>,
        batch: &Batch<'_>,
        steps: &[Step<'_>],
        now: Option<Timestamp>,
        slack_ms: Option<u64>,
    ) -> Result<Answered> {
        if steps.len() > usize::from(u16::MAX) {
            return Err(Error::invalid(
                "a request can meet 65,535 throttles at most",
            ));
        }
        let program = self.programs.serving(steps);
        let terms = Terms {
            // A script of the user's may fail halfway, and a cluster wants one slot per command.
            shared: program.is_common() && !self.links.connect().has_slots(),
            program,
            now,
            slack_ms,
        };
        Ok(self.travel(link, terms, batch, steps))
    }

    /// Lets several commands take no longer than the deadline, once there is a connection.
    async fn in_time_altogether<T>(
        &self,
        link: &Arc<Link>,
        task: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        drop(link.line().await?);
        let done = in_time(self.deadline, task).await;
        done.unwrap_or_else(|| Err(Lost::Late(self.deadline).into()))
    }
}

/// `None` if a strategy has no script.
fn steps_of<'a>(batch: &Batch<'_>) -> Option<Steps<'a>> {
    let mut steps = Steps::new();
    for op in batch.ops() {
        steps.push(Step::of(op)?);
    }
    Some(steps)
}

impl Backend for RedisBackend {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(async move {
            self.0.check_open()?;
            if batch.ops().is_empty() {
                return Ok(Decisions::default());
            }
            if let Some(denied) = self.0.deny(batch) {
                return Ok(denied);
            }
            let link = self.0.links.of_this_thread()?;
            self.0.decide(&link, batch).await
        })
    }

    /// Answers only what is known to be denied.
    fn try_apply(&self, batch: &Batch<'_>) -> Option<Result<Decisions>> {
        match self.0.check_open() {
            Ok(()) => self.0.deny(batch).map(Ok),
            Err(closed) => Some(Err(closed)),
        }
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(async move {
            self.0.check_open()?;
            let batch = Batch::new(std::slice::from_ref(op));
            let look = [Step::Read];
            let link = self.0.links.of_this_thread()?;
            let answer = self.0.ask(&link, &batch, &look, self.0.now(), None)?;
            let answer = answer.await?;
            Ok((Cell::decode(&answer.cells[0]), answer.now))
        })
    }

    /// Looks through all keys of the server for those of this namespace, and unlinks them. Hits
    /// that are made meanwhile may or may not survive, nor cells that a cluster moves to another
    /// node meanwhile. It is an error if any cannot be unlinked.
    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.0.check_open()?;
            let clock = || self.0.now();
            let reset = reset::reset(self.0.links.connect(), &self.0.namespace, clock).await;
            self.0.denials.clear();
            self.0.hints.clear();
            reset
        })
    }

    /// Hangs up; after this every decision is an error.
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let reset = match self.0.persistent {
                true => Ok(()),
                false => self.reset().await,
            };
            self.0.closed.store(true, Ordering::Relaxed);
            self.0.links.close();
            reset
        })
    }

    fn shard_of(&self, key: &Key) -> u64 {
        match self.0.links.connect().has_slots() {
            true => self.0.links.connect().shard_of(key),
            false => 0,
        }
    }

    fn would_forget(&self) -> bool {
        !self.0.persistent
    }

    fn store_id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn expect_returns(&self) {
        self.0.hints.expect_returns();
    }

    fn key_hasher(&self) -> &KeyHasher {
        &self.0.hasher
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("server", self.0.links.connect())
            .field("namespace", &self.0.namespace)
            .field("deadline", &self.0.deadline)
            .finish_non_exhaustive()
    }
}
