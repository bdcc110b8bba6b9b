//! So many at a time over all processes: permits under leases, on a Redis.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::outage::OnOutage;
use super::place::Place as Turn;
use super::table::Entered;
use super::{Busy, Concurrency, InFlight};
use crate::backend::permits::{Count, Place};
use crate::backend::{Backend, RedisBackend};
use crate::error::Error;
use crate::identity::Identity;
use crate::key::{Key, KeyHasher};
use crate::observe::{Asks, InFlightMeters};
use crate::resilience::CircuitBreaker;

/// Where permits are had.
#[derive(Debug)]
pub(super) struct Remote {
    backend: RedisBackend,
    throttle: u128,
    lease: Duration,
    on_outage: OnOutage,
    /// So that not everybody waits for a server that does not answer.
    breaker: CircuitBreaker,
}

/// What became of a question, and the place that is kept for the next.
type Asked = (Result<Option<InFlight>, Busy>, Option<Place>);

/// Whoever waits asks again after this, then after twice as long each time, or when one of this process is under
/// way no more.
const SHORTEST: Duration = Duration::from_millis(10);

/// And at least so often.
const LONGEST: Duration = Duration::from_millis(100);

impl Remote {
    pub(super) fn new(
        name: &str,
        backend: RedisBackend,
        lease: Duration,
        on_outage: OnOutage,
    ) -> Remote {
        let breaker = CircuitBreaker::builder().name(format!("in flight, {name}"));
        Remote {
            backend,
            // Of more parts than any other purpose's with such a beginning.
            throttle: KeyHasher::throttle(&["in flight", name, "permits"]),
            lease,
            on_outage,
            // Its other settings are the usual ones.
            breaker: breaker.build().unwrap_or_default(),
        }
    }

    /// Where it is told what becomes of leases.
    pub(super) fn tell(&self, meters: &InFlightMeters) {
        self.backend.meter_permits(self.throttle, meters);
    }

    pub(super) fn on_outage(&self) -> OnOutage {
        self.on_outage
    }

    fn count(&self, limit: u32, who: u128) -> Count {
        let key = Key {
            throttle: self.throttle,
            scope: 0,
            who,
        };
        Count {
            key,
            limit,
            lease: self.lease,
        }
    }

    /// Where an identity counts.
    pub(super) fn who(&self, identity: &Identity, is_shared: bool) -> u128 {
        let hasher = self.backend.key_hasher();
        match is_shared {
            true => hasher.everybody(),
            false => hasher.identity(identity),
        }
    }

    pub(super) fn release(&self, limit: u32, who: u128, permit: u64) {
        self.backend.end_permit(self.count(limit, who), permit);
    }

    pub(super) fn in_flight(&self, who: u128) -> u32 {
        self.backend.permits_of(&self.count(0, who).key)
    }

    /// How many are under way, and how many counts there are.
    pub(super) fn sum(&self) -> (u64, u64) {
        self.backend.permits_of_limit(self.throttle)
    }
}

impl Concurrency {
    pub(super) async fn acquire_there(
        &self,
        remote: &Remote,
        identity: &Identity,
        max_wait: Duration,
        asks: &mut Asks<'_>,
    ) -> Result<InFlight, Busy> {
        let who = remote.who(identity, self.0.is_shared);
        let count = remote.count(self.0.limit, who);
        // Who waits comes first. The table of a limit like this one has whoever waits the longest.
        if self.0.table.in_flight(who) == 0
            && let Some(in_flight) = self.ask(count, None).await.0?
        {
            return Ok(in_flight);
        }
        if max_wait.is_zero() {
            return Err(self.busy(false));
        }
        let client = self.0.hasher.identity(identity);
        let waited = timeout(max_wait, self.wait_there(remote, count, client, asks)).await;
        waited.unwrap_or_else(|_| Err(self.busy(true)))
    }

    /// Whoever is the first in the queue of this process asks again and again, and has a place among those of
    /// all processes.
    async fn wait_there(
        &self,
        remote: &Remote,
        count: Count,
        client: u128,
        asks: &mut Asks<'_>,
    ) -> Result<InFlight, Busy> {
        let _head = self.head_of_queue(count.key.who, client, asks).await?;
        asks.waits();
        let watch = remote.backend.watch_permits(count.key);
        let mut place = Some(remote.backend.place(count));
        let mut pause = SHORTEST;
        loop {
            let (asked, kept) = self.ask(count, place).await;
            if let Some(in_flight) = asked? {
                return Ok(in_flight);
            }
            place = kept;
            let _ = timeout(pause, watch.changed()).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    async fn head_of_queue(
        &self,
        who: u128,
        client: u128,
        asks: &mut Asks<'_>,
    ) -> Result<Head<'_>, Busy> {
        let inner = &self.0;
        let entered = inner.table.lead_or_wait(
            who,
            client,
            inner.max_waiters_per_client,
            &inner.waiting,
            inner.max_waiters,
        );
        let (turn, has_waited) = match entered {
            Entered::NoRoom => {
                asks.finds_no_room();
                return Err(self.busy(false));
            }
            Entered::InFlight(_) => (InFlight::of(self.clone(), who, 0), false),
            Entered::Waits(turn) => {
                asks.waits();
                (Turn::new(self.clone(), who, turn).await, true)
            }
        };
        let others = inner.waiting.fetch_add(1, Ordering::Relaxed);
        let head = Head {
            limit: self,
            _turn: turn,
        };
        // Who waits already has a place.
        match has_waited || others < inner.max_waiters {
            true => Ok(head),
            false => {
                asks.finds_no_room();
                Err(self.busy(false))
            }
        }
    }

    /// One question, in a task of its own: what is granted to nobody who waits for it is given back.
    async fn ask(&self, count: Count, place: Option<Place>) -> Asked {
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        tokio::spawn(async move {
            let asked = this.ask_in_task(count, place).await;
            let _ = answer.send(asked);
        });
        answered.await.unwrap_or_else(|_| {
            let error = Error::interrupted("the runtime ended before redis answered");
            (Err(self.failed(error)), None)
        })
    }

    async fn ask_in_task(&self, count: Count, mut place: Option<Place>) -> Asked {
        let Some(remote) = &self.0.remote else {
            return (Ok(None), place);
        };
        // Of the node that has the count, if there are several.
        let breaker = remote.breaker.of_shard(remote.backend.shard_of(&count.key));
        let Some(leave) = breaker.acquire() else {
            let error = Error::connection("redis has not answered lately, and is not asked");
            return (self.in_outage(remote, count, error), place);
        };
        let granted = remote.backend.permit(count, place.as_mut()).await;
        leave.settle(&granted);
        let outcome = match granted {
            Ok(granted) => Ok(granted
                .map(|one| InFlight::with(self.clone(), count.key.who, one.permit, one.remaining))),
            Err(error) => self.in_outage(remote, count, error),
        };
        (outcome, place)
    }

    fn in_outage(
        &self,
        remote: &Remote,
        count: Count,
        error: Error,
    ) -> Result<Option<InFlight>, Busy> {
        let most = match remote.on_outage {
            OnOutage::Deny | OnOutage::Raise => return Err(self.failed(error)),
            OnOutage::Allow => u32::MAX,
            OnOutage::Share(processes) => count.limit / processes.max(1),
        };
        let permit = remote.backend.permit_unasked(count, most);
        Ok(permit.map(|permit| InFlight::unasked(self.clone(), count.key.who, permit)))
    }

    fn failed(&self, error: Error) -> Busy {
        Busy {
            failure: Some(error),
            ..self.busy(false)
        }
    }
}

/// Whoever waits the longest in this process.
struct Head<'a> {
    limit: &'a Concurrency,
    _turn: InFlight,
}

impl Drop for Head<'_> {
    fn drop(&mut self) {
        self.limit.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
