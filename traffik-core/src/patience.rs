//! Waiting for an answer, but not for ever.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

#[cfg(feature = "redis")]
pub(crate) use pulse::Pulse;
use tokio::time::{Instant, sleep_until};

/// How long is still waited for an answer, or for several that are asked for in turn.
///
/// An answer that has arrived when the time is up is an answer: sockets are looked at once more.
/// And time in which this thread did not run does not count, because nothing could be sent or
/// received in it: on a busy machine, or beside a task that blocks its thread, a healthy store would
/// seem to hang.
#[derive(Debug)]
pub(crate) struct Patience {
    end: Instant,
    /// When to look next whether this thread runs.
    due: Instant,
    slice: Duration,
}

impl Patience {
    /// A thread that does not run costs one slice at most, however long that lasts.
    const SLICES: u32 = 4;

    /// A timer that is later than this was kept waiting; those of tokio are exact to a millisecond.
    const LATE: Duration = Duration::from_millis(2);

    /// Like tokio's for timers that are never to fire.
    const FAR: Duration = Duration::from_secs(30 * 366 * 86_400);

    pub(crate) fn new(limit: Duration) -> Patience {
        let (now, limit) = (Instant::now(), limit.min(Self::FAR));
        let slice = limit / Self::SLICES;
        Patience {
            end: now + limit,
            due: now + slice,
            slice,
        }
    }

    /// For what was begun earlier with this limit, and has until then.
    #[cfg(feature = "redis")]
    pub(crate) fn until(end: Instant, limit: Duration) -> Patience {
        Patience {
            due: end.min(Instant::now() + limit.min(Self::FAR) / Self::SLICES),
            end,
            ..Patience::new(limit)
        }
    }

    /// The answer, or `None` if it does not come in time.
    pub(crate) async fn wait<T>(&mut self, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = pin!(answer);
        let mut timer = pin!(sleep_until(self.due));
        loop {
            let polled = poll_fn(|context| match answer.as_mut().poll(context) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending => timer.as_mut().poll(context).map(|()| None),
            });
            if let Some(answer) = polled.await {
                return Some(answer);
            }
            if !self.goes_on() {
                return at_last(answer).await;
            }
            timer.as_mut().reset(self.due);
        }
    }

    /// When it was due.
    fn goes_on(&mut self) -> bool {
        let now = Instant::now();
        let late = now.saturating_duration_since(self.due);
        if late > Self::LATE {
            self.end += late;
        }
        self.due = self.end.min(now + self.slice);
        now < self.end
    }
}

/// One timer for all who wait for answers on one connection.
#[cfg(feature = "redis")]
mod pulse {
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use tokio::time::{Instant, Sleep, sleep_until};

    use super::Patience;

    /// Beats four times in the limit while somebody waits, and tells by how much it was late.
    #[derive(Debug)]
    pub(crate) struct Pulse {
        limit: Duration,
        /// Made with the first beat.
        timer: Option<Pin<Box<Sleep>>>,
        /// When it beats next, if anybody waits.
        due: Option<Instant>,
        /// Whether the timer knows whom to wake.
        is_set: bool,
    }

    /// Time that did not count, from one instant to another.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Beat {
        due: Instant,
        pub(crate) now: Instant,
    }

    impl Pulse {
        pub(crate) fn new(limit: Duration) -> Pulse {
            Pulse {
                limit: limit.min(Patience::FAR),
                timer: None,
                due: None,
                is_set: false,
            }
        }

        /// Somebody begins to wait; returns until when.
        pub(crate) fn start(&mut self, now: Instant) -> Instant {
            let end = now + self.limit;
            if self.due.is_none() {
                self.beat_at(now + self.limit / Patience::SLICES);
            }
            end
        }

        /// Goes on after a beat, if there is an end that somebody waits for.
        pub(crate) fn go_on(&mut self, now: Instant, soonest: Option<Instant>) {
            match soonest {
                Some(end) => self.beat_at(end.min(now + self.limit / Patience::SLICES)),
                None => self.due = None,
            }
        }

        fn beat_at(&mut self, due: Instant) {
            self.due = Some(due);
            self.is_set = false;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(due),
                None => self.timer = Some(Box::pin(sleep_until(due))),
            }
        }

        /// The next beat. In between this costs next to nothing.
        pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Beat> {
            let (Some(due), Some(timer)) = (self.due, &mut self.timer) else {
                return Poll::Pending;
            };
            if self.is_set && !timer.is_elapsed() {
                return Poll::Pending;
            }
            self.is_set = true;
            timer.as_mut().poll(context).map(|()| Beat {
                due,
                now: Instant::now(),
            })
        }
    }

    impl Beat {
        /// The end of somebody's time, who has waited since then.
        pub(crate) fn prolong(&self, end: &mut Instant, since: Instant) {
            let late = self.now.saturating_duration_since(self.due);
            if late > Patience::LATE {
                *end += late.min(self.now.saturating_duration_since(since));
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use std::future::poll_fn;

        use tokio::time::advance;

        use super::*;

        const LIMIT: Duration = Duration::from_millis(40);

        /// Nor does it count for those who came while it went on, from when they came.
        #[tokio::test(start_paused = true)]
        async fn time_in_which_the_thread_does_not_run_counts_for_nobody() {
            let mut pulse = Pulse::new(LIMIT);
            let since = Instant::now();
            let until = pulse.start(since);
            assert_eq!(until, since + LIMIT);

            let mut end = until;
            let punctual = poll_fn(|context| pulse.poll(context)).await;
            punctual.prolong(&mut end, since);
            assert_eq!(end, until);

            pulse.go_on(punctual.now, Some(end));
            let waits = poll_fn(|context| Poll::Ready(pulse.poll(context).is_pending()));
            assert!(waits.await);
            advance(Duration::from_secs(1)).await;
            let late = poll_fn(|context| pulse.poll(context)).await;
            late.prolong(&mut end, since);
            assert_eq!(end, until + (late.now - late.due));
            assert!(late.now - late.due > Duration::from_millis(980));

            let came = late.now - Duration::from_millis(300);
            let mut end = came + LIMIT;
            late.prolong(&mut end, came);
            assert_eq!(end, late.now + LIMIT);
        }

        /// It is kept for whoever waits next, and tells nobody meanwhile.
        #[tokio::test(start_paused = true)]
        async fn it_stops_when_nobody_waits() {
            let mut pulse = Pulse::new(LIMIT);
            for _ in 0..3 {
                let start = Instant::now();
                pulse.start(start);
                // Who comes later changes nothing.
                pulse.start(start + LIMIT / 8);
                let beat = poll_fn(|context| pulse.poll(context)).await;
                assert_eq!(beat.due, start + LIMIT / 4);
                pulse.go_on(beat.now, None);
                advance(10 * LIMIT).await;
                let waits = poll_fn(|context| Poll::Ready(pulse.poll(context).is_pending()));
                assert!(waits.await);
            }
        }
    }
}

/// The answer, if it has arrived.
async fn at_last<T>(mut answer: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    // Those who read the sockets run first; then perhaps those who tell us.
    for _ in 0..2 {
        tokio::task::yield_now().await;
        let now = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context)));
        if let Poll::Ready(answer) = now.await {
            return Some(answer);
        }
    }
    None
}

/// The answer, or `None` if it does not come within the limit.
pub(crate) async fn in_time<T>(limit: Duration, answer: impl Future<Output = T>) -> Option<T> {
    Patience::new(limit).wait(answer).await
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;
    use tokio::time::{advance, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    fn near(elapsed: Duration, ms: u64) -> bool {
        (ms..=ms + 3).contains(&u64::try_from(elapsed.as_millis()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn ends_when_the_time_is_up() {
        for ms in [1, 2, 5, 50, 999, 100_000] {
            let start = Instant::now();
            let limit = Duration::from_millis(ms);
            assert_eq!(in_time(limit, pending::<()>()).await, None);
            assert!(near(start.elapsed(), ms), "{:?}", start.elapsed());
        }
        assert_eq!(in_time(Duration::MAX, sleep(LIMIT)).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn several_answers_share_the_time() {
        let start = Instant::now();
        let mut patience = Patience::new(LIMIT);
        let step = || sleep(Duration::from_millis(20));
        assert_eq!(patience.wait(step()).await, Some(()));
        assert_eq!(patience.wait(step()).await, Some(()));
        assert_eq!(patience.wait(step()).await, None);
        assert!(near(start.elapsed(), 50), "{:?}", start.elapsed());
    }

    /// At each of these moments of the wait the thread does not run for a second, and then the answer
    /// takes as long again as is left, but for a slice.
    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_thread_does_not_run_does_not_count() {
        for (blocked_at, needs) in [(0, 35), (10, 25), (13, 20), (30, 5), (49, 0)] {
            let (teller, told) = oneshot::channel();
            tokio::spawn(async move {
                sleep(Duration::from_millis(blocked_at)).await;
                advance(Duration::from_secs(1)).await;
                if needs > 0 {
                    sleep(Duration::from_millis(needs)).await;
                }
                let _ = teller.send(());
            });
            let answer = in_time(LIMIT, told).await;
            assert_eq!(answer, Some(Ok(())), "blocked after {blocked_at} ms");
        }
    }

    /// Whoever reads it has not run since.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_there_when_the_time_is_up_is_an_answer() {
        let (teller, told) = oneshot::channel();
        let mut told = pin!(told);
        tokio::spawn(async move {
            sleep(LIMIT).await;
            tokio::task::yield_now().await;
            let _ = teller.send(());
        });
        let start = Instant::now();
        assert_eq!(in_time(LIMIT, told.as_mut()).await, Some(Ok(())));
        assert!(near(start.elapsed(), 50), "{:?}", start.elapsed());
    }
}
