//! Who has how many under way, and who waits.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// So that threads seldom wait for each other.
const SHARDS: usize = 16;

/// Room that an emptied shard keeps.
const SPARE: usize = 64;

pub(super) struct Table([Mutex<HashMap<u128, Count>>; SHARDS]);

/// Those of one count. Somebody waits only if as many as may be are under way.
struct Count {
    in_flight: u32,
    queue: VecDeque<Waiter>,
    /// Whose turn came last: of one that is under way to wait elsewhere.
    #[cfg(feature = "redis")]
    head: u128,
}

struct Waiter {
    client: u128,
    turn: Arc<Turn>,
}

/// Whether somebody's turn has come.
pub(super) struct Turn(Mutex<State>);

enum State {
    Waits(Option<Waker>),
    HasCome(Option<Waker>),
}

/// What became of somebody.
#[cfg_attr(not(feature = "tokio"), allow(dead_code))]
pub(super) enum Entered {
    /// Under way, and so many are besides.
    InFlight(u32),
    Waits(Arc<Turn>),
    NoRoom,
}

impl Table {
    pub(super) fn new() -> Table {
        Table(std::array::from_fn(|_| Mutex::default()))
    }

    fn shard(&self, key: u128) -> MutexGuard<'_, HashMap<u128, Count>> {
        // One of its halves is random.
        let folded = key ^ (key >> 64) ^ (key >> 32) ^ (key >> 16);
        let [low, ..] = folded.to_le_bytes();
        lock(&self.0[usize::from(low) % SHARDS])
    }

    /// One more is under way, if that may be: how many were before.
    pub(super) fn enter(&self, key: u128, limit: u32) -> Option<u32> {
        enter(&mut self.shard(key), key, limit)
    }

    /// The same, or in the queue, if there is room.
    pub(super) fn enter_or_wait(
        &self,
        key: u128,
        limit: u32,
        client: u128,
        most_of_client: usize,
        waiting: &AtomicUsize,
        most: usize,
    ) -> Entered {
        let mut shard = self.shard(key);
        if let Some(before) = enter(&mut shard, key, limit) {
            return Entered::InFlight(before);
        }
        match shard.get_mut(&key) {
            Some(count) => count.queue_up(client, most_of_client, waiting, most),
            // As many as may be are under way.
            None => Entered::NoRoom,
        }
    }

    /// The same where one at a time is under way, to wait elsewhere for all: it has one of its client's places.
    #[cfg(feature = "redis")]
    pub(super) fn lead_or_wait(
        &self,
        key: u128,
        client: u128,
        most_of_client: usize,
        waiting: &AtomicUsize,
        most: usize,
    ) -> Entered {
        if most_of_client == 0 {
            return Entered::NoRoom;
        }
        let mut shard = self.shard(key);
        let entered = enter(&mut shard, key, 1);
        let Some(count) = shard.get_mut(&key) else {
            return Entered::NoRoom;
        };
        if let Some(before) = entered {
            count.head = client;
            return Entered::InFlight(before);
        }
        let taken = usize::from(count.head == client);
        count.queue_up(client, most_of_client - taken, waiting, most)
    }

    /// One is under way no more; or it is, but as the next in the queue, whose turn has come.
    pub(super) fn leave(&self, key: u128, waiting: &AtomicUsize) -> Option<Arc<Turn>> {
        let mut shard = self.shard(key);
        let Entry::Occupied(mut entry) = shard.entry(key) else {
            return None;
        };
        let count = entry.get_mut();
        if let Some(next) = count.queue.pop_front() {
            waiting.fetch_sub(1, Ordering::Relaxed);
            #[cfg(feature = "redis")]
            {
                count.head = next.client;
            }
            // Before others see the queue without it.
            next.turn.come();
            return Some(next.turn);
        }
        count.in_flight -= 1;
        if count.in_flight == 0 {
            entry.remove();
            if shard.capacity() > SPARE && shard.len() < shard.capacity() / 8 {
                let room = (shard.len() * 2).max(SPARE / 2);
                shard.shrink_to(room);
            }
        }
        None
    }

    /// Somebody does not wait any more; false if their turn has come already.
    pub(super) fn give_up(&self, key: u128, turn: &Arc<Turn>, waiting: &AtomicUsize) -> bool {
        let mut shard = self.shard(key);
        let Some(count) = shard.get_mut(&key) else {
            return false;
        };
        let place = count
            .queue
            .iter()
            .position(|one| Arc::ptr_eq(&one.turn, turn));
        let Some(place) = place else {
            return false;
        };
        count.queue.remove(place);
        waiting.fetch_sub(1, Ordering::Relaxed);
        true
    }

    pub(super) fn in_flight(&self, key: u128) -> u32 {
        self.shard(key).get(&key).map_or(0, |count| count.in_flight)
    }

    /// How many are under way, and how many counts there are.
    pub(super) fn sum(&self) -> (u64, u64) {
        self.0.iter().fold((0, 0), |(in_flight, counts), shard| {
            let shard = lock(shard);
            let here: u64 = shard.values().map(|count| u64::from(count.in_flight)).sum();
            (in_flight + here, counts + shard.len() as u64)
        })
    }

    /// For how many counts there is room.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.0.iter().map(|shard| lock(shard).capacity()).sum()
    }
}

fn enter(shard: &mut HashMap<u128, Count>, key: u128, limit: u32) -> Option<u32> {
    let count = shard.entry(key).or_insert_with(|| Count {
        in_flight: 0,
        queue: VecDeque::new(),
        #[cfg(feature = "redis")]
        head: 0,
    });
    // Who waits comes first: then nobody else fits in either.
    let before = count.in_flight;
    (before < limit).then(|| {
        count.in_flight += 1;
        before
    })
}

impl Count {
    fn queue_up(
        &mut self,
        client: u128,
        most_of_client: usize,
        waiting: &AtomicUsize,
        most: usize,
    ) -> Entered {
        let of_client = self.queue.iter().filter(|one| one.client == client);
        if of_client.count() >= most_of_client {
            return Entered::NoRoom;
        }
        if waiting.fetch_add(1, Ordering::Relaxed) >= most {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return Entered::NoRoom;
        }
        let turn = Arc::new(Turn(Mutex::new(State::Waits(None))));
        self.queue.push_back(Waiter {
            client,
            turn: Arc::clone(&turn),
        });
        Entered::Waits(turn)
    }
}

impl Turn {
    fn come(&self) {
        let mut state = lock(&self.0);
        if let State::Waits(waker) = &mut *state {
            *state = State::HasCome(waker.take());
        }
    }

    /// Wakes up whoever waits for it. Not under the lock of the table: a waker may do anything.
    pub(super) fn wake(&self) {
        let waker = match &mut *lock(&self.0) {
            State::Waits(_) => None,
            State::HasCome(waker) => waker.take(),
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn poll(&self, waker: &Waker) -> Poll<()> {
        match &mut *lock(&self.0) {
            State::HasCome(_) => Poll::Ready(()),
            State::Waits(known) => {
                *known = Some(waker.clone());
                Poll::Pending
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks panics halfway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
