//! Waiting instead of denying.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::{Instant, sleep, timeout};

use crate::decision::{Decision, Decisions};
use crate::error::Result;
use crate::identity::Identity;
use crate::key::KeyHasher;
use crate::throttle::{Attempt, Hits, Recover, Throttle};

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
    /// attempt that would be denied [allows](Attempt::wait_up_to). Hits that begin with the same
    /// throttle and identity are served in the order in which they came.
    ///
    /// # Errors
    ///
    /// As [`decide`](Hits::decide).
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a tokio runtime.
    pub async fn until_ready(&self) -> Result<Decisions> {
        match self.queue() {
            // Boxed, since it is rare and would enlarge the future of every hit.
            Some((max_wait, line)) => {
                Box::pin(self.queue_up_and_note(max_wait, line, &mut || {})).await
            }
            None => self.decide().await,
        }
    }

    /// The same, which says whenever it asks. The last time is when what is admitted is charged.
    #[doc(hidden)]
    pub async fn until_ready_telling(&self, asks: &mut (dyn FnMut() + Send)) -> Result<Decisions> {
        match self.queue() {
            Some((max_wait, line)) => Box::pin(self.queue_up_and_note(max_wait, line, asks)).await,
            None => {
                asks();
                self.decide().await
            }
        }
    }

    /// How long they may wait, and where.
    fn queue(&self) -> Option<(Duration, Line)> {
        self.max_wait()
            .and_then(|max_wait| Some((max_wait, self.line()?)))
    }

    async fn queue_up_and_note(
        &self,
        max_wait: Duration,
        line: Line,
        asks: &mut (dyn FnMut() + Send),
    ) -> Result<Decisions> {
        let decided = self.queue_up(max_wait, line, asks).await;
        self.note(&decided);
        decided
    }

    async fn queue_up(
        &self,
        max_wait: Duration,
        line: Line,
        asks: &mut (dyn FnMut() + Send),
    ) -> Result<Decisions> {
        let start = Instant::now();
        if !someone_waits(line) {
            asks();
            let decisions = self.ask().await?;
            if !self.may_wait(&decisions, Duration::ZERO) {
                return Ok(decisions);
            }
        }
        let Some(_seats) = self.seats() else {
            return self.refuse().await;
        };
        let place = Place::in_line(line);
        // Durations, not instants: there is no instant `Duration::MAX` from now.
        let patience = max_wait.saturating_sub(start.elapsed());
        let Ok(_turn) = timeout(patience, place.turn.lock()).await else {
            return self.refuse().await;
        };
        loop {
            asks();
            let decisions = self.ask().await?;
            match decisions.retry_after() {
                Some(wait) if self.may_wait(&decisions, start.elapsed()) => {
                    sleep(wait).await;
                }
                _ => return Ok(decisions),
            }
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
            Ok(denied) if denied.is_denied() && self.max_wait().is_some() => None,
            decided => {
                self.note(&decided);
                Some(decided)
            }
        }
    }

    /// Whether hits like these would have to queue up; then they must not be decided out of turn.
    pub fn must_queue(&self) -> bool {
        self.max_wait().is_some() && self.line().is_some_and(someone_waits)
    }

    /// The longest that any of the attempts may wait.
    fn max_wait(&self) -> Option<Duration> {
        self.entries
            .iter()
            .filter_map(|entry| entry.throttle.patience(&entry.attempt))
            .max()
    }

    /// Where these hits queue up: at the cell of the first that takes something from one.
    fn line(&self) -> Option<Line> {
        self.entries.iter().find_map(|entry| {
            if !entry.throttle.charges(&entry.attempt) || entry.throttle.is_shadow() {
                return None;
            }
            let op = entry
                .throttle
                .op(&entry.attempt, entry.backend.key_hasher())?;
            Some((entry.backend.store_id(), op.key.digest()))
        })
    }

    /// Whether waiting for what denies is worthwhile and allowed.
    fn may_wait(&self, decisions: &Decisions, waited: Duration) -> bool {
        let Some(wait) = decisions.retry_after() else {
            return false;
        };
        let mut denied = self
            .entries
            .iter()
            .zip(decisions.iter())
            .filter(|(_, decision)| decision.is_denied());
        // Without the primary backend there is no telling when it will be better.
        denied.all(|(entry, decision)| {
            !decision.is_degraded()
                && entry
                    .attempt
                    .max_wait()
                    .is_some_and(|max| waited + wait <= max)
        })
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

    /// The denial of hits that would have to wait, but may not.
    async fn refuse(&self) -> Result<Decisions> {
        let mut decisions = self.preview().await?;
        if decisions.is_allowed() {
            // Somebody else's turn is about to take what is free at this moment.
            for (entry, decision) in self.entries.iter().zip(decisions.iter_mut()) {
                if entry.throttle.patience(&entry.attempt).is_some() {
                    *decision = Decision::deny(decision.limit(), 0, 1);
                }
            }
        }
        Ok(decisions)
    }
}

/// Which hits are served in order: those on the same cell of the same store.
type Line = (usize, u128);
type Turn = Arc<tokio::sync::Mutex<()>>;

/// Who waits, in this process.
#[derive(Default)]
struct Waiting {
    lines: HashMap<Line, Queue>,
    /// By [whose](Throttle::seats) they are.
    seats: HashMap<u64, Taken>,
}

/// Those in a line.
#[derive(Default)]
struct Queue {
    turn: Turn,
    places: usize,
}

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

/// How many are in any line: most of the time nobody, and then nobody locks.
static PLACES: AtomicUsize = AtomicUsize::new(0);

fn someone_waits(line: Line) -> bool {
    PLACES.load(Ordering::Relaxed) > 0 && waiting().lines.contains_key(&line)
}

/// A place in a line, left when dropped.
struct Place {
    line: Line,
    /// Its queue is first in, first out.
    turn: Turn,
}

impl Place {
    fn in_line(line: Line) -> Place {
        PLACES.fetch_add(1, Ordering::Relaxed);
        let mut waiting = waiting();
        let queue = waiting.lines.entry(line).or_default();
        queue.places += 1;
        let turn = Arc::clone(&queue.turn);
        Place { line, turn }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = waiting();
        if let Some(queue) = waiting.lines.get_mut(&self.line) {
            queue.places -= 1;
            if queue.places == 0 {
                waiting.lines.remove(&self.line);
            }
        }
        PLACES.fetch_sub(1, Ordering::Relaxed);
    }
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
        if let Some(taken) = waiting.seats.get(&throttle.seats()) {
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
        let taken = waiting.seats.entry(throttle.seats()).or_default();
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
        let Some(taken) = waiting.seats.get_mut(&self.throttle.seats()) else {
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
            waiting.seats.remove(&self.throttle.seats());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use tokio::task::{LocalSet, yield_now};
    use tokio::time::Instant;

    use super::*;
    use crate::{Clock, Gcra, MemoryBackend, Timestamp};

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
        assert!(!waiting().seats.contains_key(&throttle.seats()));
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
            assert!(!super::waiting().seats.contains_key(&throttle.seats()));
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

    /// Neither was the last one, as long as both still held it.
    #[test]
    fn a_line_that_two_left_at_once_was_kept() {
        const LINES: u128 = 1_000;
        // Of no store.
        let line = |at: u128| (usize::MAX, at);
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for at in 0..LINES {
                        let place = Place::in_line(line(at));
                        start.wait();
                        drop(place);
                    }
                });
            }
        });
        assert!((0..LINES).all(|at| !waiting().lines.contains_key(&line(at))));
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

    /// Polls all futures, in order, until all are done.
    async fn join_all(futures: impl Iterator<Item = impl Future<Output = ()>>) {
        let mut futures: Vec<_> = futures.map(Box::pin).collect();
        std::future::poll_fn(|cx| {
            futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
            match futures.is_empty() {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
    }
}
