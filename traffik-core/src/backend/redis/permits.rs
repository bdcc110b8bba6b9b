//! Permits to be under way, each under a lease that this process renews for as long as it has it.

mod tending;
mod trips;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::Notify;

use super::RedisBackend;
use super::script::{Program, script};
use crate::error::Result;
use crate::key::Key;
use crate::observe::InFlightMeters;

/// Those that are under way together: how many may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    pub(crate) key: Key,
    pub(crate) limit: u32,
    /// How long one is under way if its process says nothing more.
    pub(crate) lease: Duration,
}

/// One more is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Granted {
    pub(crate) permit: u64,
    pub(crate) remaining: u32,
}

/// Somebody's place among all who wait, of any process; given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    backend: RedisBackend,
    count: Count,
    /// Nothing before it was told, and when its turn has come.
    text: Vec<u8>,
}

/// Who is told when there may be a permit, until this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    backend: RedisBackend,
    count: Key,
    /// Nothing when it is over.
    told: Option<Arc<Notify>>,
}

/// What this process has under way on one Redis.
#[derive(Debug, Default)]
pub(super) struct Permits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Tells this process's permits from those of others.
    process: u64,
    next: AtomicU64,
    state: Mutex<State>,
    /// There is something to tell.
    news: Notify,
    /// How many rounds were begun, and how many of the next ones panic.
    #[cfg(test)]
    rounds: std::sync::atomic::AtomicU32,
    #[cfg(test)]
    falters: std::sync::atomic::AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<Key, Held>,
    /// What the server is to forget.
    ended: Vec<Ended>,
    /// When all leases are to be renewed, and how much later again.
    renewal: Option<Instant>,
    pause: Option<Duration>,
    /// When something is to be told: that, or before it what could not be told.
    due: Option<Instant>,
    /// As long as there is something to tell, there is somebody to tell.
    backend: Option<RedisBackend>,
    /// Whether somebody tends to it.
    is_tended: bool,
    /// Whoever waits for the next permit, of each count.
    heads: HashMap<Key, Arc<Notify>>,
    /// Where it is told what becomes of leases, of each limit.
    meters: HashMap<u128, InFlightMeters>,
}

/// What is under way of one count.
#[derive(Debug)]
struct Held {
    lease: Duration,
    permits: HashSet<u64>,
    /// The latest of those that the server has yet to hear of.
    untold: Option<u64>,
    /// Those of which it has never heard.
    unasked: HashSet<u64>,
}

type Member = SmallVec<[u8; 32]>;

/// A permit or a place that is no more.
#[derive(Clone, Debug)]
struct Ended {
    /// Of the count.
    count: Key,
    key: Key,
    member: Member,
    /// When it ends by itself.
    until: Instant,
    /// Whether the server may hear of it only afterwards, since there was no answer.
    is_doubtful: bool,
}

/// Of each lease at most this part passes between two renewals, so that two may fail.
const RENEWALS: u32 = 3;

/// How soon what could not be told is told again.
const RETRY: Duration = Duration::from_millis(500);

/// Who waits is taken for gone if nothing is heard of them for this long.
const WAITS: Duration = Duration::from_millis(500);

static ASK: LazyLock<Arc<Program>> =
    LazyLock::new(|| Arc::new(Program::alone(script!(include_str!("permits/ask.lua")))));

static RENEW: LazyLock<Arc<Program>> =
    LazyLock::new(|| Arc::new(Program::alone(script!(include_str!("permits/renew.lua")))));

impl Default for Shared {
    fn default() -> Self {
        Shared {
            process: RandomState::new().hash_one(std::process::id()),
            next: AtomicU64::new(1),
            state: Mutex::default(),
            news: Notify::new(),
            #[cfg(test)]
            rounds: Default::default(),
            #[cfg(test)]
            falters: Default::default(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Consistent between statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Panics, if this is one of the rounds that do.
    #[cfg(test)]
    fn falter(&self) {
        self.rounds.fetch_add(1, Ordering::SeqCst);
        let falters = &self.falters;
        let fewer = |left: u32| left.checked_sub(1);
        let before = falters.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer);
        assert!(before.is_err(), "a round falters");
    }

    fn member(&self, permit: u64) -> Member {
        let mut member = Member::new();
        member.extend_from_slice(&self.process.to_be_bytes());
        member.extend_from_slice(&permit.to_be_bytes());
        member
    }
}

/// Where those of a count wait.
fn waiters(count: &Key) -> Key {
    Key { scope: 1, ..*count }
}

impl RedisBackend {
    fn permits(&self) -> &Arc<Shared> {
        &self.0.permits.0
    }

    /// Asks for a permit, in one round trip. Who has a place is admitted before all who came later, and who
    /// has none after all who wait.
    ///
    /// If it is not known what became of the question, what may have been granted is given back.
    pub(crate) async fn permit(
        &self,
        count: Count,
        mut place: Option<&mut Place>,
    ) -> Result<Option<Granted>> {
        let permits = self.permits();
        let is_untold = |held: &Held| held.untold.is_some();
        if permits.lock().held.get(&count.key).is_some_and(is_untold) {
            self.tell_of(count.key).await?;
        }
        let permit = permits.next.fetch_add(1, Ordering::Relaxed);
        let mut doubt = Doubt {
            backend: self,
            count,
            permit: Some(permit),
        };
        let mut own = permits.one_of(&count.key);
        let answer = loop {
            match self.ask_for(count, permit, own, place.as_deref()).await {
                Ok((trips::Answer::Forgotten, expired)) if own.is_some() => {
                    permits.lock().expired(&count.key, expired);
                    self.tell_of(count.key).await?;
                    own = None;
                }
                Ok((answer, expired)) => {
                    permits.lock().expired(&count.key, expired);
                    break answer;
                }
                Err(error) => {
                    if error.is_unexecuted() {
                        doubt.permit = None;
                    }
                    return Err(error);
                }
            }
        };
        doubt.permit = None;
        Ok(match answer {
            trips::Answer::Granted { remaining } => {
                if let Some(place) = place {
                    place.text.clear();
                }
                self.hold(permits.lock(), count, permit, None);
                Some(Granted { permit, remaining })
            }
            trips::Answer::Denied { place: text } => {
                if let Some(place) = &mut place {
                    place.text = text;
                }
                None
            }
            trips::Answer::Forgotten => None,
        })
    }

    /// A permit that nobody was asked for, if this process has fewer than `most`. The server will be told.
    pub(crate) fn permit_unasked(&self, count: Count, most: u32) -> Option<u64> {
        let permits = self.permits();
        let state = permits.lock();
        let held = state.held.get(&count.key);
        if held.map_or(0, |held| held.permits.len()) >= most as usize {
            return None;
        }
        // Under the lock: whatever was told of then includes all lower ones.
        let permit = permits.next.fetch_add(1, Ordering::Relaxed);
        self.hold(state, count, permit, Some(permit));
        Some(permit)
    }

    fn hold(
        &self,
        mut state: MutexGuard<'_, State>,
        count: Count,
        permit: u64,
        untold: Option<u64>,
    ) {
        let held = state.held.entry(count.key).or_insert_with(|| Held {
            lease: count.lease,
            permits: HashSet::new(),
            untold: None,
            unasked: HashSet::new(),
        });
        held.permits.insert(permit);
        held.unasked.extend(untold);
        held.untold = held.untold.max(untold);
        // Again, if nobody could be had before.
        self.tend(&mut state);
        let pause = count.lease / RENEWALS;
        if state.pause.is_none_or(|before| pause < before) {
            state.pause = Some(pause);
        }
        let due = Instant::now() + pause;
        if state.renewal.is_none_or(|before| due < before) {
            state.renewal = Some(due);
        }
        if state.due.is_none_or(|before| due < before) {
            state.due = Some(due);
            drop(state);
            self.permits().news.notify_one();
        }
    }

    /// A permit is no more. The server is told in the background.
    pub(crate) fn end_permit(&self, count: Count, permit: u64) {
        let member = self.permits().member(permit);
        let is_doubtful = false;
        self.end(count, count.key, member, is_doubtful, |state| {
            if let Some(held) = state.held.get_mut(&count.key) {
                held.permits.remove(&permit);
                held.unasked.remove(&permit);
                if held.permits.is_empty() {
                    state.held.remove(&count.key);
                }
            }
        });
    }

    fn end(
        &self,
        count: Count,
        key: Key,
        member: Member,
        is_doubtful: bool,
        also: impl FnOnce(&mut State),
    ) {
        let permits = self.permits();
        let mut state = permits.lock();
        also(&mut state);
        state.ended.push(Ended {
            count: count.key,
            key,
            member,
            until: Instant::now() + count.lease,
            is_doubtful,
        });
        if state.backend.is_none() {
            state.backend = Some(self.clone());
        }
        self.tend(&mut state);
        drop(state);
        permits.news.notify_one();
    }

    /// Tells of the leases of a limit.
    pub(crate) fn meter_permits(&self, throttle: u128, meters: &InFlightMeters) {
        let mut state = self.permits().lock();
        state.meters.insert(throttle, meters.clone());
    }

    /// How many are under way of a count, of this process.
    pub(crate) fn permits_of(&self, count: &Key) -> u32 {
        self.permits().has(count)
    }

    /// How many are under way of counts of a limit, and of how many, of this process.
    pub(crate) fn permits_of_limit(&self, throttle: u128) -> (u64, u64) {
        let state = self.permits().lock();
        let own = state
            .held
            .iter()
            .filter(|(key, _)| key.throttle == throttle);
        own.fold((0, 0), |(permits, counts), (_, held)| {
            (permits + held.permits.len() as u64, counts + 1)
        })
    }

    /// Is told when one of this process is under way no more. Of each count one waits at a time.
    pub(crate) fn watch_permits(&self, count: Key) -> Watch {
        let mut state = self.permits().lock();
        let told = Arc::clone(state.heads.entry(count).or_default());
        Watch {
            backend: self.clone(),
            count,
            told: Some(told),
        }
    }

    pub(crate) fn place(&self, count: Count) -> Place {
        Place {
            backend: self.clone(),
            count,
            text: Vec::new(),
        }
    }
}

impl Shared {
    fn one_of(&self, count: &Key) -> Option<u64> {
        let state = self.lock();
        state.held.get(count)?.permits.iter().next().copied()
    }

    fn has(&self, count: &Key) -> u32 {
        let state = self.lock();
        let held = state.held.get(count).map_or(0, |held| held.permits.len());
        u32::try_from(held).unwrap_or(u32::MAX)
    }
}

impl Drop for Permits {
    /// Nobody has any more, and nobody is left to tell.
    fn drop(&mut self) {
        self.0.news.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (count, text) = (self.count, std::mem::take(&mut self.text));
        if text.is_empty() {
            return;
        }
        let key = waiters(&count.key);
        let member = Member::from_vec(text);
        self.backend.end(count, key, member, false, |_| ());
    }
}

impl Watch {
    /// Waits until there may be one.
    pub(crate) async fn changed(&self) {
        if let Some(told) = &self.told {
            told.notified().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.backend.permits().lock();
        // Under the lock, so that of several the last one knows that it is.
        self.told = None;
        state.leave_head(&self.count);
    }
}

impl State {
    fn expired(&self, count: &Key, leases: u64) {
        if leases > 0
            && let Some(meters) = self.meters.get(&count.throttle)
        {
            meters.expired(leases);
        }
    }

    fn lost(&self, count: &Key, leases: u64) {
        if leases > 0
            && let Some(meters) = self.meters.get(&count.throttle)
        {
            meters.lost(leases);
        }
    }

    /// Unless the next one is there already.
    fn leave_head(&mut self, count: &Key) {
        let is_alone = |head: &Arc<Notify>| Arc::strong_count(head) == 1;
        if self.heads.get(count).is_some_and(is_alone) {
            self.heads.remove(count);
        }
    }
}

/// A permit that may have been granted.
struct Doubt<'a> {
    backend: &'a RedisBackend,
    count: Count,
    permit: Option<u64>,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit {
            let (count, member) = (self.count, self.backend.permits().member(permit));
            self.backend.end(count, count.key, member, true, |_| ());
        }
    }
}
