//! Waiting instead of denying.

mod line;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::{Instant, sleep};

use self::line::{Place, Spot, is_anybody_anywhere, is_anybody_at};
use crate::backend::Op;
use crate::decision::{Decision, Decisions};
use crate::error::Result;
use crate::identity::Identity;
use crate::key::KeyHasher;
use crate::throttle::{Attempt, Entry, Hits, Recover, Throttle};

impl Throttle {
    /// Decides an attempt like [`hit`](Throttle::hit), but waits up to `max_wait` rather than
    /// denying it; with [`Duration::MAX`] for as long as it takes.
    ///
    /// Attempts of one identity are served in the order in which they came. An attempt is denied
    /// at once if it would certainly have to wait longer, if it can never be admitted, or if
    /// [too many](crate::ThrottleBuilder::max_waiters) wait already, of this identity
    /// (a [quarter](crate::ThrottleBuilder::max_waiters_per_client) of the places by default) or over all.
    /// Dropping the future frees its place, and charges nothing.
    ///
    /// The timer is tokio's, with a resolution of a millisecond.
    ///
    /// # Errors
    ///
    /// As [`hit`](Throttle::hit).
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a tokio runtime (actix-rt has one).
    pub async fn until_ready<'a>(
        &'a self,
        attempt: impl Into<Attempt<'a>>,
        max_wait: Duration,
    ) -> Result<Decision> {
        let attempt = attempt.into().wait_up_to(max_wait);
        let decisions = Hits::from((self, attempt)).until_ready().await?;
        Ok(decisions[0])
    }

    /// How long an attempt may wait, if it may, and if there can be anything to wait for.
    fn patience(&self, attempt: &Attempt<'_>) -> Option<Duration> {
        let max_wait = attempt.max_wait().filter(|_| !self.is_shadow());
        max_wait.filter(|_| self.charges(attempt))
    }

    /// What is not limited or costs nothing is never denied.
    fn charges(&self, attempt: &Attempt<'_>) -> bool {
        self.rate_of(attempt).is_some() && attempt.cost.unwrap_or(self.cost()) > 0
    }
}

impl<P: Recover> Hits<'_, P> {
    /// Decides like [`decide`](Hits::decide), but waits rather than denying, as far as every
    /// attempt that would be denied [allows](Attempt::wait_up_to). Hits on the same throttles by the same
    /// identities are served in the order in which they came; and only who waits for the same throttle and
    /// identity waits for each other.
    ///
    /// # Errors
    ///
    /// As [`decide`](Hits::decide).
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a tokio runtime.
    pub async fn until_ready(&self) -> Result<Decisions> {
        match self.is_patient() {
            // Boxed, since it is rare and would enlarge the future of every hit.
            true => Box::pin(self.queue_up_and_note(&mut || {})).await,
            false => self.decide().await,
        }
    }

    /// The same, which says whenever it asks. The last time is when what is admitted is charged.
    #[doc(hidden)]
    pub async fn until_ready_telling(&self, asks: &mut (dyn FnMut() + Send)) -> Result<Decisions> {
        match self.is_patient() {
            true => Box::pin(self.queue_up_and_note(asks)).await,
            false => {
                asks();
                self.decide().await
            }
        }
    }

    async fn queue_up_and_note(&self, asks: &mut (dyn FnMut() + Send)) -> Result<Decisions> {
        let decided = self.queue_up(asks).await;
        self.note(&decided);
        decided
    }

    async fn queue_up(&self, asks: &mut (dyn FnMut() + Send)) -> Result<Decisions> {
        let start = Instant::now();
        let spots = self.spots();
        let mut place = Place::new();
        let mut seats = None;
        loop {
            if place.behind(&spots).is_some() {
                seats = seats.or_else(|| self.seats());
                if seats.is_none() || !place.turn(&spots, start).await {
                    return self.refuse(&spots, &place, asks).await;
                }
            }
            let waited = start.elapsed();
            asks();
            let decisions = self.ask().await?;
            let Some((spot, wait)) = self.worth_waiting(&decisions, &spots, waited) else {
                return Ok(decisions);
            };
            seats = seats.or_else(|| self.seats());
            if seats.is_none() {
                return Ok(decisions);
            }
            place.stand_at(spot);
            sleep(wait).await;
        }
    }

    /// Decides like [`until_ready`](Hits::until_ready), if that need not wait: neither for a backend
    /// nor for their turn. Nothing is charged otherwise.
    #[inline]
    pub fn try_until_ready(&self) -> Option<Result<Decisions>> {
        if self.must_queue() {
            return None;
        }
        match self.try_ask()? {
            Ok(denied) if denied.is_denied() && self.is_patient() => None,
            decided => {
                self.note(&decided);
                Some(decided)
            }
        }
    }

    /// Whether hits like these would have to queue up; then they must not be decided out of turn.
    pub fn must_queue(&self) -> bool {
        is_anybody_anywhere() && is_anybody_at(&self.spots())
    }

    /// Whether any of the attempts may wait.
    fn is_patient(&self) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| entry.throttle.patience(&entry.attempt).is_some())
    }

    /// Where these hits may have to wait: at the cell of each attempt that may.
    fn spots(&self) -> SmallVec<[Spot; 3]> {
        let entries = self.entries.iter().enumerate();
        entries
            .filter_map(|(at, entry)| {
                let patience = entry.throttle.patience(&entry.attempt)?;
                let op = entry.op()?;
                Some(Spot {
                    at,
                    line: (entry.backend.store_id(), op.key.digest()),
                    cost: op.cost,
                    patience,
                })
            })
            .collect()
    }

    /// For how long to wait, and where, if waiting for what denies is worthwhile and allowed.
    ///
    /// That is where it takes the longest. What will be ready before is free for others until then.
    fn worth_waiting<'s>(
        &self,
        decisions: &Decisions,
        spots: &'s [Spot],
        waited: Duration,
    ) -> Option<(&'s Spot, Duration)> {
        let wait = decisions.retry_after()?;
        let mut longest = None;
        let all = decisions.iter().enumerate();
        for (at, decision) in all.filter(|(_, decision)| decision.is_denied()) {
            let spot = spots.iter().find(|spot| spot.at == at)?;
            // Without the primary backend there is no telling when it will be better.
            if decision.is_degraded() || waited.saturating_add(wait) > spot.patience {
                return None;
            }
            if decision.wait() == wait {
                longest = longest.or(Some(spot));
            }
        }
        Some((longest?, wait))
    }

    /// A seat among the waiting of every throttle that these hits may wait for.
    fn seats(&self) -> Option<SmallVec<[Seat; 3]>> {
        let waiting = self
            .entries
            .iter()
            .filter(|entry| entry.throttle.patience(&entry.attempt).is_some());
        waiting
            .map(|entry| Seat::take(entry.throttle, entry.attempt.identity))
            .collect()
    }

    /// The denial of hits that would have to wait for their turn, but may not; unless there is enough for
    /// everybody who stands before them, too.
    async fn refuse(
        &self,
        spots: &[Spot],
        place: &Place,
        asks: &mut (dyn FnMut() + Send),
    ) -> Result<Decisions> {
        let mut decisions = self.preview().await?;
        if decisions.is_denied() {
            return Ok(decisions);
        }
        for spot in spots {
            if let Some(denied) = self.entries[spot.at].after(&place.ahead(spot)).await {
                decisions[spot.at] = denied;
            }
        }
        if decisions.is_denied() {
            return Ok(decisions);
        }
        asks();
        self.ask().await
    }
}

impl<'a, P> Entry<'a, P> {
    fn op(&self) -> Option<Op<'a>> {
        self.throttle.op(&self.attempt, self.backend.key_hasher())
    }

    /// How this hit, or one of those before it, would be denied if those of such costs came first; as far as that can
    /// be told. It would not be before it has waited so long.
    async fn after(&self, costs: &[u32]) -> Option<Decision> {
        let op = self.op().filter(|_| !costs.is_empty())?;
        let (mut cell, now) = self.backend.load(&op).await.ok()?;
        let costs = costs.iter().copied().chain([op.cost]);
        let mut decisions = costs.map(|cost| Op { cost, ..op }.step(&mut cell, now));
        let denied = decisions.find(|decision| decision.retry_after().is_some())?;
        Some(self.throttle.floor(denied))
    }
}

/// Seats that are taken, in this process, by [whose](Throttle::seats) they are.
type Waiting = HashMap<u64, Taken>;

/// Seats of a throttle that are taken.
#[derive(Default)]
struct Taken {
    all: usize,
    /// By the digest of who sits there.
    by_client: HashMap<u128, usize>,
}

fn waiting() -> MutexGuard<'static, Waiting> {
    static WAITING: OnceLock<Mutex<Waiting>> = OnceLock::new();
    WAITING
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// One of the [places to wait](Throttle::max_waiters) of a throttle, freed when dropped.
struct Seat {
    throttle: Throttle,
    client: u128,
}

impl Seat {
    fn take(throttle: &Throttle, identity: &Identity) -> Option<Seat> {
        let client = KeyHasher::local().identity(identity);
        let mut waiting = waiting();
        if let Some(taken) = waiting.get(&throttle.seats()) {
            let own = taken.by_client.get(&client).copied().unwrap_or(0);
            if taken.all >= throttle.max_waiters() || own >= throttle.max_waiters_per_client() {
                return None;
            }
        } else if throttle
            .max_waiters()
            .min(throttle.max_waiters_per_client())
            == 0
        {
            return None;
        }
        let taken = waiting.entry(throttle.seats()).or_default();
        taken.all += 1;
        *taken.by_client.entry(client).or_default() += 1;
        throttle.meters().waits();
        Some(Seat {
            throttle: throttle.clone(),
            client,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.throttle.meters().waits_no_more();
        let mut waiting = waiting();
        let Some(taken) = waiting.get_mut(&self.throttle.seats()) else {
            return;
        };
        taken.all -= 1;
        if let Some(own) = taken.by_client.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.by_client.remove(&self.client);
            }
        }
        if taken.all == 0 {
            waiting.remove(&self.throttle.seats());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use tokio::task::{LocalSet, yield_now};
    use tokio::time::Instant;

    use super::*;
    use crate::{Clock, Gcra, MemoryBackend, Timestamp, TokenBucket};

    /// Tells tokio's time, which stands still in these tests until everybody waits for it.
    #[derive(Debug)]
    struct TokioClock(Instant);

    impl Clock for TokioClock {
        fn now(&self) -> Timestamp {
            let elapsed = self.0.elapsed().as_micros();
            Timestamp::from_micros(1_704_067_200_000_000 + u64::try_from(elapsed).unwrap())
        }
    }

    fn memory() -> MemoryBackend {
        let clock = TokioClock(Instant::now());
        MemoryBackend::builder().clock(clock).build().unwrap()
    }

    fn smooth(max_waiters: usize) -> Throttle {
        Throttle::builder("smooth")
            .rate("10/s")
            .strategy(Gcra::new())
            .max_waiters(max_waiters)
            .backend(memory())
            .build()
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn excess_is_spaced_evenly_in_order_of_arrival() {
        let throttle = smooth(100);
        let start = Instant::now();
        let served = Mutex::new(Vec::<(u64, Duration)>::new());
        let local = LocalSet::new();
        local
            .run_until(async {
                let ann = Identity::of("ann");
                let waits = (0..8_u64).map(|n| {
                    let (throttle, ann, served) = (&throttle, &ann, &served);
                    async move {
                        let decision = throttle
                            .until_ready(ann, Duration::from_secs(5))
                            .await
                            .unwrap();
                        assert!(decision.is_allowed());
                        served.lock().unwrap().push((n, start.elapsed()));
                    }
                });
                join_all(waits).await;
            })
            .await;
        let expected: Vec<_> = (0..8)
            .map(|n| (n, Duration::from_millis(n * 100)))
            .collect();
        assert_eq!(*served.lock().unwrap(), expected);
        assert!(!waiting().contains_key(&throttle.seats()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_is_denied_at_once() {
        let throttle = smooth(100);
        let bob = Identity::of("bob");
        let hit = |millis| throttle.until_ready(&bob, Duration::from_millis(millis));
        let start = Instant::now();
        assert!(hit(0).await.unwrap().is_allowed());
        let denied = hit(99).await.unwrap();
        assert_eq!(denied.retry_after(), Some(Duration::from_millis(100)));
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(hit(100).await.unwrap().is_allowed());
        assert_eq!(start.elapsed(), Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn whose_time_runs_out_in_line_is_denied() {
        let throttle = smooth(100);
        let cid = Identity::of("cid");
        let hit = |millis| throttle.until_ready(&cid, Duration::from_millis(millis));
        let (first, second, third, fourth) = tokio::join!(hit(0), hit(500), hit(500), hit(150));
        assert!(first.unwrap().is_allowed() && second.unwrap().is_allowed());
        assert!(third.unwrap().is_allowed());
        assert!(fourth.unwrap().is_denied());
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_bounded_and_freed_when_dropped() {
        let throttle = smooth(1);
        let dan = Identity::of("dan");
        let hit = || throttle.until_ready(&dan, Duration::from_secs(9));
        assert!(hit().await.unwrap().is_allowed());
        let mut waiting = Box::pin(hit());
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("it should wait"),
            () = yield_now() => {}
        }
        let start = Instant::now();
        assert!(hit().await.unwrap().is_denied(), "the only place is taken");
        assert_eq!(start.elapsed(), Duration::ZERO);
        drop(waiting);
        assert!(hit().await.unwrap().is_allowed());
    }

    /// Issue 9.5 (i): one client took all places, and everybody else was denied at once.
    #[tokio::test(start_paused = true)]
    async fn a_client_cannot_take_all_places() {
        let built = |places: usize, share: Option<usize>| {
            let mut builder = Throttle::builder("shared")
                .rate("1/s")
                .strategy(Gcra::new());
            if let Some(share) = share {
                builder = builder.max_waiters_per_client(share);
            }
            builder
                .max_waiters(places)
                .backend(memory())
                .build()
                .unwrap()
        };
        for (places, share, one, two) in [
            (8, None, 2, 2),
            (1, None, 1, 0),
            (3, None, 1, 1),
            (0, None, 0, 0),
            (8, Some(8), 8, 0),
            (8, Some(5), 5, 3),
            (8, Some(0), 0, 0),
        ] {
            let throttle = built(places, share);
            let (ann, bob) = (Identity::of("ann"), Identity::of("bob"));
            let mut waiting = Vec::new();
            let mut counts = Vec::new();
            for who in [&ann, &bob] {
                assert!(throttle.hit(who).await.unwrap().is_allowed());
                let before = waiting.len();
                for _ in 0..9 {
                    let mut wait = Box::pin(throttle.until_ready(who, Duration::MAX));
                    tokio::select! {
                        biased;
                        decided = &mut wait => assert!(decided.unwrap().is_denied()),
                        () = yield_now() => waiting.push(wait),
                    }
                }
                counts.push(waiting.len() - before);
            }
            assert_eq!(counts, [one, two], "{share:?} of {places}");
            drop(waiting);
            assert!(!super::waiting().contains_key(&throttle.seats()));
        }
    }

    /// While a limit is changed, its old places and its new ones were open at once.
    #[tokio::test(start_paused = true)]
    async fn who_waits_at_a_throttle_takes_a_place_of_its_successor() {
        let old = smooth(1);
        let new = Throttle::builder("smooth")
            .rate("1/s")
            .strategy(Gcra::new())
            .max_waiters(1)
            .backend(memory())
            .succeeding(&old)
            .build()
            .unwrap();
        let who = Identity::of("ann");
        assert!(old.hit(&who).await.unwrap().is_allowed());
        assert!(new.hit(&who).await.unwrap().is_allowed());
        let wait = |throttle: &'static Throttle| {
            let who = who.clone();
            async move { throttle.until_ready(&who, Duration::MAX).await }
        };
        let [old, new] = [old, new].map(|one| &*Box::leak(Box::new(one)));
        let mut waiting = Box::pin(wait(old));
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("it should wait"),
            () = yield_now() => {}
        }
        assert!(wait(new).await.unwrap().is_denied());
        drop(waiting);
        assert!(wait(new).await.unwrap().is_allowed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_fits_does_not_wait() {
        let throttle = smooth(9);
        let eve = Identity::of("eve");
        let huge = Attempt::by(&eve)
            .cost(u32::MAX)
            .rate(crate::Rate::literal("1/366d"));
        let decision = throttle.until_ready(huge, Duration::MAX).await.unwrap();
        assert_eq!(decision.verdict(), crate::Verdict::Never);
    }

    /// There is no instant so far ahead: it panicked as soon as somebody had to wait.
    #[tokio::test(start_paused = true)]
    async fn patience_may_be_endless() {
        let throttle = smooth(9);
        let fay = Identity::of("fay");
        let start = Instant::now();
        let hit = || throttle.until_ready(&fay, Duration::MAX);
        let (first, second, third) = tokio::join!(hit(), hit(), hit());
        for decision in [first, second, third] {
            assert!(decision.unwrap().is_allowed());
        }
        assert_eq!(start.elapsed(), Duration::from_millis(200));
    }

    /// It queued behind those who wait, and was denied where no place was left.
    #[tokio::test(start_paused = true)]
    async fn what_costs_nothing_waits_for_nobody() {
        let throttle = smooth(1);
        let gus = Identity::of("gus");
        let hit = |cost| {
            let attempt = Attempt::by(&gus).cost(cost);
            throttle.until_ready(attempt, Duration::from_secs(9))
        };
        assert!(hit(1).await.unwrap().is_allowed());
        let mut waiting = Box::pin(hit(1));
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("it should wait"),
            () = yield_now() => {}
        }
        let start = Instant::now();
        assert!(hit(0).await.unwrap().is_allowed());
        assert!(hit(1).await.unwrap().is_denied(), "the only place is taken");

        let free = Attempt::by(&gus).cost(0).wait_up_to(Duration::from_secs(9));
        let hits = Hits::from((&throttle, free));
        assert!(!hits.must_queue());
        assert!(hits.try_until_ready().unwrap().unwrap().is_allowed());

        // Another throttle may be waited for, and has a place; this one's cost still is nothing.
        let other = smooth(1);
        assert!(other.hit_now(&gus).unwrap().is_allowed());
        let mut both = Hits::from((&throttle, free));
        both.push(&other, Attempt::by(&gus).wait_up_to(Duration::from_secs(9)));
        assert!(both.until_ready().await.unwrap().is_allowed());
        assert_eq!(start.elapsed(), Duration::from_millis(100));
        drop(waiting);
    }

    /// As nobody among them could be denied for want of a place, all passed, and none was charged.
    #[tokio::test(start_paused = true)]
    async fn who_need_not_wait_takes_no_place() {
        let throttle = smooth(1);
        let (hal, exempt) = (Identity::of("hal"), Identity::EXEMPT);
        let long = Duration::from_secs(9);
        assert!(throttle.until_ready(&hal, long).await.unwrap().is_allowed());
        let mut waiting = Box::pin(throttle.until_ready(&hal, long));
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("it should wait"),
            () = yield_now() => {}
        }
        let mut hits = Hits::from((&throttle, Attempt::by(&hal)));
        hits.push(&throttle, Attempt::by(&exempt).wait_up_to(long));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(hits.until_ready().await.unwrap().is_allowed());
        assert!(throttle.hit_now(&hal).unwrap().is_denied(), "it is charged");
    }

    /// They stood in the line of the first throttle, whatever they waited for, and everybody behind them.
    #[tokio::test(start_paused = true)]
    async fn who_waited_for_their_own_limit_held_up_everybody() {
        for (is_shared, is_patient) in [(true, false), (true, true), (false, true)] {
            let memory = memory();
            let all = Throttle::builder("all").rate("1000000/s");
            let all = match is_shared {
                true => all.shared(),
                false => all,
            };
            let all = all.backend(memory.clone()).build().unwrap();
            let each = spaced("each", "1/s", &memory);
            let [team, ann, bob] = ["team", "ann", "bob"].map(Identity::of);
            let hits = |who| {
                let patience = Duration::from_secs(2);
                let of_all = match is_patient {
                    true => Attempt::by(&team).wait_up_to(patience),
                    false => Attempt::by(&team),
                };
                let own = Attempt::by(who).wait_up_to(patience);
                Hits::from_iter([(&all, of_all), (&each, own)])
            };
            let (hers, his) = (hits(&ann), hits(&bob));
            let mut waits: Vec<_> = (0..5).map(|_| Box::pin(hers.until_ready())).collect();
            let first = poll(&mut waits.remove(0)).unwrap();
            assert!(first.unwrap().is_allowed());
            assert!(waits.iter_mut().all(|wait| poll(wait).is_none()));

            assert!(hers.must_queue() && !his.must_queue());
            let start = Instant::now();
            assert!(his.until_ready().await.unwrap().is_allowed());
            assert_eq!(start.elapsed(), Duration::ZERO);
            let admitted = Mutex::new(Vec::new());
            join_all(waits.into_iter().map(|wait| async {
                let decided = wait.await.unwrap();
                admitted.lock().unwrap().push(decided.is_allowed());
            }))
            .await;
            assert_eq!(admitted.into_inner().unwrap(), [true, true, false, false]);
        }
    }

    /// It went on standing in front, though it was no more what all share that it waited for.
    #[tokio::test(start_paused = true)]
    async fn who_found_out_in_front_that_their_own_limit_denies_stayed_there() {
        for is_first in [true, false] {
            let memory = memory();
            let all = Throttle::builder("all").rate("1/s").strategy(Gcra::new());
            let all = all.shared().backend(memory.clone()).build().unwrap();
            let each = spaced("each", "6/minute", &memory);
            let [ann, bob, cid] = ["ann", "bob", "cid"].map(Identity::of);
            let hits = |who| {
                let attempt = Attempt::by(who).wait_up_to(Duration::MAX);
                let mut throttles = [(&all, attempt), (&each, attempt)];
                if !is_first {
                    throttles.reverse();
                }
                Hits::from_iter(throttles)
            };
            let start = Instant::now();
            let [hers, his, cids] = [&ann, &bob, &cid].map(hits);
            assert!(hers.until_ready().await.unwrap().is_allowed());
            let served = Mutex::new(Vec::new());
            let waits = [("cid", &cids), ("ann", &hers), ("bob", &his)];
            join_all(waits.into_iter().map(async |(who, hits)| {
                assert!(hits.until_ready().await.unwrap().is_allowed());
                served
                    .lock()
                    .unwrap()
                    .push((who, start.elapsed().as_secs()));
            }))
            .await;
            let expected = [("cid", 1), ("bob", 2), ("ann", 10)];
            assert_eq!(served.into_inner().unwrap(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_several_limits_in_turn_is_served_in_order() {
        let memory = memory();
        let fast = spaced("fast", "10/s", &memory);
        let slow = Throttle::builder("slow").rate("3/s").backend(memory);
        let slow = slow.build().unwrap();
        let ann = Identity::of("ann");
        let attempt = Attempt::by(&ann).wait_up_to(Duration::from_secs(5));
        let start = Instant::now();
        let hits = [
            Hits::from_iter([(&fast, attempt), (&slow, attempt)]),
            Hits::from_iter([(&slow, attempt), (&fast, attempt)]),
        ];
        let served = Mutex::new(Vec::new());
        let (hits, served) = (&hits, &served);
        // Some ask for the one first, some for the other: that must not hold up both.
        join_all((0..8).map(async |n| {
            assert!(hits[n % 2].until_ready().await.unwrap().is_allowed());
            served
                .lock()
                .unwrap()
                .push((n, start.elapsed().as_millis()));
        }))
        .await;
        let expected = [0, 100, 200, 1_000, 1_100, 1_200, 2_000, 2_100];
        let expected: Vec<_> = (0..8).zip(expected).collect();
        assert_eq!(*served.lock().unwrap(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_when_it_is_their_turn_hands_it_on() {
        let throttle = smooth(100);
        let ann = Identity::of("ann");
        let hit = || Box::pin(throttle.until_ready(&ann, Duration::from_secs(9)));
        let start = Instant::now();
        assert!(hit().await.unwrap().is_allowed());
        let [mut first, mut second, mut third] = [hit(), hit(), hit()];
        for wait in [&mut first, &mut second, &mut third] {
            assert!(poll(wait).is_none());
        }
        drop(first);
        // Nobody has told it yet.
        drop(second);
        assert!(third.await.unwrap().is_allowed());
        assert_eq!(start.elapsed(), Duration::from_millis(100));
    }

    /// What was free was as good as taken by who stood in front. Its wait was told as a microsecond.
    #[tokio::test(start_paused = true)]
    async fn whose_time_ran_out_in_line_was_told_to_come_back_at_once() {
        let throttle = smooth(8);
        let ann = Identity::of("ann");
        let interval = Duration::from_millis(100);
        let hit = || Box::pin(throttle.until_ready(&ann, interval));
        assert!(hit().await.unwrap().is_allowed());
        let (mut first, mut second) = (hit(), hit());
        assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
        tokio::time::advance(interval).await;
        // Two places are all that a client gets.
        for late in [&mut hit(), &mut second] {
            let denied = poll(late).unwrap().unwrap();
            assert_eq!(denied.retry_after(), Some(interval));
        }
        assert!(first.await.unwrap().is_allowed());
    }

    /// What is free may be too little for who stands in front, and kept for them.
    #[tokio::test(start_paused = true)]
    async fn whose_time_runs_out_behind_a_large_hit_is_told_how_long_that_takes() {
        let bucket = Throttle::builder("bucket")
            .rate("10/s")
            .strategy(TokenBucket::new());
        let bucket = bucket.backend(memory()).build().unwrap();
        let ann = Identity::of("ann");
        let hit = |cost, millis| {
            let attempt = Attempt::by(&ann).cost(cost);
            Box::pin(bucket.until_ready(attempt, Duration::from_millis(millis)))
        };
        assert!(hit(10, 0).await.unwrap().is_allowed());
        let (mut large, mut small) = (hit(5, 9_000), hit(1, 200));
        assert!(poll(&mut large).is_none() && poll(&mut small).is_none());
        let denied = small.await.unwrap();
        assert_eq!(denied.retry_after(), Some(Duration::from_millis(300)));
        assert!(large.await.unwrap().is_allowed());
    }

    /// It was denied, since those in front had not been told yet that it was their turn.
    #[tokio::test(start_paused = true)]
    async fn whose_time_ran_out_in_line_was_denied_though_there_was_enough_for_all() {
        let window = Throttle::builder("window").rate("2/s").backend(memory());
        let window = window.build().unwrap();
        let ann = Identity::of("ann");
        let hit = || Box::pin(window.until_ready(&ann, Duration::from_secs(1)));
        assert!(hit().await.unwrap().is_allowed() && hit().await.unwrap().is_allowed());
        let (mut first, mut second) = (hit(), hit());
        assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(poll(&mut second).unwrap().unwrap().is_allowed());
        assert!(first.await.unwrap().is_allowed());
    }

    fn spaced(name: &str, rate: &str, backend: &MemoryBackend) -> Throttle {
        let throttle = Throttle::builder(name).rate(rate).strategy(Gcra::new());
        throttle.backend(backend.clone()).build().unwrap()
    }

    /// What it has come to at once.
    fn poll<T>(future: &mut Pin<Box<impl Future<Output = T>>>) -> Option<T> {
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    /// Polls all futures, in order, until all are done.
    async fn join_all(futures: impl Iterator<Item = impl Future<Output = ()>>) {
        let mut futures: Vec<_> = futures.map(Box::pin).collect();
        std::future::poll_fn(|cx| {
            futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
            match futures.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}
