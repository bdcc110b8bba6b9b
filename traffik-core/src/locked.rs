use std::collections::hash_map::{self, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout, timeout_at};

use crate::backend::{Backend, Batch, BoxFuture, Op};
use crate::cell::Cell;
use crate::decision::Decisions;
use crate::error::{Error, Result};
use crate::key::KeyHasher;
use crate::lock::{LockConfig, Terms};
use crate::patience::in_time;
use crate::store::{Entry, Held, Orphans, Store};
use crate::time::{Clock, SystemClock, Timestamp};

/// A backend on a [`Store`] of your own, by its locks. Clones share everything.
///
/// ```no_run
/// # use std::time::Duration;
/// # use traffik_core::{Result, Store};
/// # #[derive(Debug)]
/// # struct Table;
/// # impl Store for Table {
/// #     async fn get(&self, _: &str) -> Result<Option<Vec<u8>>> { Ok(None) }
/// #     async fn set(&self, _: &str, _: &[u8], _: Option<Duration>) -> Result<()> { Ok(()) }
/// #     async fn delete(&self, _: &str) -> Result<bool> { Ok(false) }
/// #     async fn lock(&self, _: &str, _: &str, _: Duration) -> Result<bool> { Ok(true) }
/// #     async fn unlock(&self, _: &str, _: &str) -> Result<()> { Ok(()) }
/// #     async fn reset(&self) -> Result<()> { Ok(()) }
/// # }
/// use traffik_core::{Locked, Throttle};
///
/// # fn example(table: Table) -> Result<()> {
/// let backend = Locked::new(table)?; // `Table` implements `Store`
/// let throttle = Throttle::builder("api").rate("100/minute").backend(backend).build()?;
/// # let _ = throttle;
/// # Ok(())
/// # }
/// ```
///
/// A batch takes one lock for each identity in it (nearly always one), reads its cells, decides,
/// writes them if all were admitted, and releases the lock: four commands. Hits of one process on
/// one identity wait for each other in order, without asking the store; those of several processes
/// ask again and again, for as long as the [`LockConfig`] says, and fail with
/// [`Error::is_contended`] then. Unless [`OnError`](crate::OnError) says otherwise, that is a denial
/// of one second. A strategy that must wait for its locks differently has a backend of its own on
/// the same store, as stores in an `Arc` allow.
///
/// No decision takes longer than the [deadline](LockedBuilder::deadline), whether the store hangs or
/// others do not finish.
///
/// A lock that its holder cannot release, because it crashed or its future was dropped, is released
/// by the next use of this backend, else when it expires. A decision that would be stored after its
/// lock has expired is an error instead. Two holders may overlap only if the store itself takes longer
/// than the rest of the lock's time to write, for which choose a time far above that; or if a hit is
/// dropped, or its deadline ends, while the store writes, and the store finishes that write after the
/// next hit has released the lock.
///
/// It waits, hence it must be used inside a tokio runtime, such as actix's.
pub struct Locked<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: S,
    terms: Terms,
    deadline: Duration,
    clock: Arc<dyn Clock>,
    hasher: KeyHasher,
    persistent: bool,
    closed: AtomicBool,
    queues: Queues,
    orphans: Orphans,
}

/// Where hits of this process wait for each other: a queue for each identity on which some work.
#[derive(Default)]
struct Queues(std::sync::Mutex<HashMap<u128, Queue>>);

#[derive(Default)]
struct Queue {
    /// Those that wait, and the one whose turn it is.
    hits: usize,
    turn: Arc<Mutex<()>>,
}

/// A place in a queue, which is left when this is dropped.
struct Place<'a> {
    queues: &'a Queues,
    who: u128,
    /// Once it has come.
    turn: Option<OwnedMutexGuard<()>>,
}

/// Cells outlive their use by this much: the clocks of the store and of those who share it are not
/// quite ours.
const SLACK: Duration = Duration::from_secs(60);

const DEADLINE: Duration = Duration::from_secs(1);

/// While this is held, no other hit of this process works on some identities.
type Turn<'a> = SmallVec<[Place<'a>; 1]>;

impl<S: Store> Locked<S> {
    /// A backend with default settings.
    ///
    /// # Errors
    ///
    /// If an environment variable about [locks](crate::lock) is malformed.
    pub fn new(store: S) -> Result<Locked<S>> {
        Self::builder(store).build()
    }

    /// A backend with other settings.
    pub fn builder(store: S) -> LockedBuilder<S> {
        LockedBuilder {
            store,
            lock: LockConfig::new(),
            deadline: DEADLINE,
            clock: Arc::new(SystemClock::new()),
            hasher: Ok(KeyHasher::shared()),
            persistent: true,
        }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.0.store
    }
}

impl<S: Store> Inner<S> {
    async fn apply(&self, batch: &Batch<'_>) -> Result<Decisions> {
        self.check_open()?;
        let end = Instant::now() + self.deadline;
        let deciding = async {
            if !self.orphans.is_empty() {
                self.orphans.release(&self.store).await;
            }
            self.decide_alone(batch).await
        };
        let (_turn, held, decided) = in_time(self.deadline, deciding)
            .await
            .unwrap_or_else(|| Err(self.late()))?;
        // What is decided is decided, even if the store hangs now: then the lock is an orphan.
        let _ = timeout_at(end, held.release()).await;
        decided
    }

    /// Decides under the locks of a batch, which are still to be released.
    async fn decide_alone(
        &self,
        batch: &Batch<'_>,
    ) -> Result<(Turn<'_>, Held<'_, S>, Result<Decisions>)> {
        let mut who: SmallVec<[u128; 1]> = batch.ops().iter().map(|op| op.key.who).collect();
        who.sort_unstable();
        who.dedup();
        let turn = self.queue(&who).await?;
        let names: SmallVec<[String; 1]> =
            who.iter().map(|who| format!("lock:{who:032x}")).collect();
        let held = Held::acquire(&self.store, Some(&self.orphans), names, self.terms).await?;
        let decided = self.decide(batch, &held).await;
        Ok((turn, held, decided))
    }

    #[cold]
    fn late(&self) -> Error {
        Error::timeout(format!(
            "the store did not answer within {:?}",
            self.deadline
        ))
    }

    /// Waits until no other hit of this process works on these identities.
    async fn queue(&self, who: &[u128]) -> Result<Turn<'_>> {
        let wait = async {
            let mut turn = SmallVec::new();
            for who in who {
                turn.push(self.queues.wait(*who).await);
            }
            turn
        };
        timeout(self.terms.patience, wait).await.map_err(|error| {
            let error_of = match self.terms.patience.is_zero() {
                true => Error::contended,
                // Nobody else holds these: the store is too slow for so many.
                false => Error::overloaded,
            };
            error_of("too many hits waited for the lock of a key").with_source(error)
        })
    }

    async fn decide(&self, batch: &Batch<'_>, held: &Held<'_, S>) -> Result<Decisions> {
        let names: SmallVec<[String; 3]> = batch.ops().iter().map(|op| op.key.text()).collect();
        let keys: SmallVec<[&str; 3]> = names.iter().map(String::as_str).collect();
        let values = match &*keys {
            [key] => vec![self.store.get(key).await?],
            keys => self.store.multi_get(keys).await?,
        };
        if values.len() != keys.len() {
            return Err(Error::other("the store did not answer for each key"));
        }
        let mut cells: SmallVec<[Cell; 3]> = values.iter().map(cell_of).collect();
        let now = self.clock.now();
        let decisions = batch.decide(&mut cells, now);
        let mut changed: SmallVec<[usize; 3]> = SmallVec::new();
        for (at, op) in batch.ops().iter().enumerate() {
            let is_changed = match decisions.is_denied() {
                true => decisions[at].is_denied() && op.realign(&mut cells[at], now),
                false => op.cost > 0,
            };
            changed.extend(is_changed.then_some(at));
        }

        let values: SmallVec<[Vec<u8>; 3]> = cells.iter().map(Cell::encode).collect();
        let entries: SmallVec<[Entry<'_>; 3]> = changed
            .into_iter()
            .map(|at| Entry {
                key: keys[at],
                value: &values[at],
                ttl: Some(ttl(&cells[at], now)),
            })
            .collect();
        if !entries.is_empty() {
            held.check()?;
        }
        match &*entries {
            [] => {}
            [one] => self.store.set(one.key, one.value, one.ttl).await?,
            all => self.store.multi_set(all).await?,
        }
        Ok(decisions)
    }

    fn check_open(&self) -> Result<()> {
        match self.closed.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Error::closed("the backend was closed")),
        }
    }
}

impl Queues {
    /// Waits for one's turn.
    async fn wait(&self, who: u128) -> Place<'_> {
        let turn = {
            let mut all = self.lock();
            let queue = all.entry(who).or_default();
            queue.hits += 1;
            Arc::clone(&queue.turn)
        };
        let mut place = Place {
            queues: self,
            who,
            turn: None,
        };
        place.turn = Some(turn.lock_owned().await);
        place
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u128, Queue>> {
        // Nothing under this lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turn = None;
        let mut all = self.queues.lock();
        if let hash_map::Entry::Occupied(mut queue) = all.entry(self.who) {
            queue.get_mut().hits -= 1;
            if queue.get().hits == 0 {
                queue.remove();
            }
        }
    }
}

impl<S: Store> Backend for Locked<S> {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(self.0.apply(batch))
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        Box::pin(async move {
            self.0.check_open()?;
            let key = op.key.text();
            let value = in_time(self.0.deadline, self.0.store.get(&key))
                .await
                .unwrap_or_else(|| Err(self.0.late()))?;
            Ok((cell_of(&value), self.0.clock.now()))
        })
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.store.reset())
    }

    /// Closes the store; after this every decision is an error. The cells stay, unless the backend is
    /// not [persistent](LockedBuilder::persistent): then the store is reset **for everybody**.
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.0.closed.store(true, Ordering::Relaxed);
            self.0.orphans.release(&self.0.store).await;
            if !self.0.persistent {
                self.0.store.reset().await?;
            }
            self.0.store.close().await
        })
    }

    fn would_forget(&self) -> bool {
        !self.0.persistent
    }

    fn store_id(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>().addr()
    }

    fn key_hasher(&self) -> &KeyHasher {
        &self.0.hasher
    }
}

impl<S> Clone for Locked<S> {
    fn clone(&self) -> Self {
        Locked(Arc::clone(&self.0))
    }
}

impl<S: fmt::Debug> fmt::Debug for Locked<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked")
            .field("store", &self.0.store)
            .field("terms", &self.0.terms)
            .finish_non_exhaustive()
    }
}

/// Settings of a [`Locked`].
#[derive(Debug)]
#[must_use]
pub struct LockedBuilder<S> {
    store: S,
    lock: LockConfig,
    deadline: Duration,
    clock: Arc<dyn Clock>,
    hasher: Result<KeyHasher>,
    persistent: bool,
}

impl<S: Store> LockedBuilder<S> {
    /// How locks are taken, as far as it differs from [the process](crate::lock).
    pub fn lock(mut self, lock: LockConfig) -> Self {
        self.lock = lock;
        self
    }

    /// The longest that a decision may take, waiting for locks included. Default: 1 s, since the
    /// speed of the store is not known; for one that answers within a millisecond 50 ms is ample.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The clock to decide by. Default: the system's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// A secret that all processes which share the store know. Needed where clients choose their
    /// own identities freely; see [`KeyHasher`].
    pub fn secret(mut self, secret: &[u8]) -> Self {
        self.hasher = KeyHasher::of_setting(secret);
        self
    }

    /// Whether closing keeps the cells, as it should if others share them. Default: yes. Without,
    /// one process that ends, as each does when a new version is rolled out, forgives everybody.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// The backend.
    ///
    /// # Errors
    ///
    /// If an environment variable about [locks](crate::lock) is malformed, if locks would be held
    /// for no more than 2 ms, if the deadline is none, or if the secret is empty.
    pub fn build(self) -> Result<Locked<S>> {
        let deadlines = Duration::from_millis(1)..=Duration::from_secs(3_600);
        if !deadlines.contains(&self.deadline) {
            let given = self.deadline;
            let message = format!("deadline must be between 1 ms and 1 h, not {given:?}");
            return Err(Error::invalid(message));
        }
        Ok(Locked(Arc::new(Inner {
            store: self.store,
            terms: self.lock.terms()?,
            deadline: self.deadline,
            clock: self.clock,
            hasher: self.hasher?,
            persistent: self.persistent,
            closed: AtomicBool::new(false),
            queues: Queues::default(),
            orphans: Orphans::default(),
        })))
    }
}

fn cell_of(value: &Option<Vec<u8>>) -> Cell {
    value.as_deref().map_or_else(Cell::fresh, Cell::decode)
}

fn ttl(cell: &Cell, now: Timestamp) -> Duration {
    Duration::from_micros(cell.expires().micros_since(now)) + SLACK
}
