//! Waiting for an answer, but not for ever.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

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
