use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::Error;
use crate::observe;
use crate::time::{Clock, MonotonicClock};

/// Takes note of when a backend fails, and says so once, not with every request.
pub(crate) struct Outage {
    /// Of what it is the backend, and who decides instead, for the log.
    of: Cow<'static, str>,
    instead: &'static str,
    /// The same as a label.
    kind: &'static str,
    clock: Arc<dyn Clock>,
    /// Of a store that has no shards.
    whole: Course,
    shards: RwLock<Vec<(u64, Arc<Course>)>>,
    probed_us: u64,
    /// Whether the log was told that it fails, and not yet that it does no more.
    announced: AtomicBool,
    degraded: AtomicU64,
}

/// How the outage of a shard goes.
#[derive(Debug)]
struct Course {
    /// When the backend first succeeded after it had failed, in µs of the clock; `NEVER` before it has
    /// failed, `LASTS` while it does.
    ended_us: AtomicU64,
    /// When it failed after it had succeeded, as all nodes knew.
    began_us: AtomicU64,
    /// Until when other nodes may not have noticed that it decides again.
    noticed_us: AtomicU64,
}

/// What a [`Fallback`](super::Fallback), or a [`Throttle`](crate::Throttle) without one, has seen of
/// failures, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct OutageInfo {
    /// Whether the backend is taken to be failing: from its first error until it has decided
    /// without one for a second, on each of its [shards](crate::Backend::shard_of).
    pub lasts: bool,
    /// How many decisions were made without it.
    pub degraded_total: u64,
    /// On how many counts something was admitted without it that it does not know of yet.
    pub owing: usize,
}

const NEVER: u64 = u64::MAX;
const LASTS: u64 = u64::MAX - 1;

/// Where an outage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// There never was one.
    Never,
    /// The backend failed last time.
    Lasts,
    /// It ended so many µs ago; other nodes may not have noticed that yet.
    Over { ago_us: u64, unnoticed: bool },
}

/// So long without an error, an outage is over. Errors now and then are one outage, not many.
const QUIET_US: u64 = 1_000_000;

impl Outage {
    /// Of a backend with a fallback.
    ///
    /// `probed_us` is the longest that another node leaves it alone after it has failed.
    pub(super) fn with_fallback(clock: Arc<dyn Clock>, probed_us: u64) -> Outage {
        let of = "rate limits".into();
        let mut outage = Self::new(of, "its fallback decides", "fallback", clock);
        outage.probed_us = probed_us;
        outage
    }

    /// Of a throttle without one.
    pub(crate) fn of_throttle(name: &str) -> Outage {
        let of = format!("throttle `{name}`").into();
        Self::new(
            of,
            "its error policy decides",
            "throttle",
            Arc::new(MonotonicClock::new()),
        )
    }

    fn new(
        of: Cow<'static, str>,
        instead: &'static str,
        kind: &'static str,
        clock: Arc<dyn Clock>,
    ) -> Outage {
        Outage {
            of,
            instead,
            kind,
            clock,
            whole: Course::default(),
            shards: RwLock::default(),
            probed_us: 0,
            announced: AtomicBool::new(false),
            degraded: AtomicU64::new(0),
        }
    }

    pub(crate) fn info(&self) -> OutageInfo {
        OutageInfo {
            lasts: self.announced.load(Ordering::Relaxed),
            degraded_total: self.degraded.load(Ordering::Relaxed),
            owing: 0,
        }
    }

    /// The backend of a throttle failed.
    #[inline]
    pub(crate) fn fail(&self, error: &Error) {
        self.fail_on(0, error);
    }

    /// A shard failed. While an outage lasts every request comes along here, so it neither reads the
    /// clock nor writes what other threads read.
    #[inline]
    pub(super) fn fail_on(&self, shard: u64, error: &Error) {
        self.with(shard, |course| {
            if course.ended_us.load(Ordering::Relaxed) != LASTS {
                self.begin(course, error);
            }
        });
    }

    #[cold]
    fn begin(&self, course: &Course, error: &Error) {
        let now_us = self.clock.now().as_micros();
        // Whoever has not noticed yet that it was over waits on: to them it is one outage.
        if now_us >= course.noticed_us.load(Ordering::Relaxed) {
            course.began_us.store(now_us, Ordering::Relaxed);
        }
        course.ended_us.store(LASTS, Ordering::Relaxed);
        if !self.announced.swap(true, Ordering::Relaxed) {
            observe::outages(self.kind, 1);
            observe::outage_began(&self.of, self.instead, error);
        }
    }

    #[inline]
    fn with<T>(&self, shard: u64, act: impl FnOnce(&Course) -> T) -> T {
        match shard {
            0 => act(&self.whole),
            shard => act(&self.find_or_add(shard)),
        }
    }

    fn find_or_add(&self, shard: u64) -> Arc<Course> {
        let find = |all: &[(u64, Arc<Course>)]| {
            let found = all.iter().find(|(of, _)| *of == shard);
            found.map(|(_, course)| Arc::clone(course))
        };
        // Consistent between statements.
        let known = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(course) = find(&known) {
            return course;
        }
        drop(known);
        let mut all = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        find(&all).unwrap_or_else(|| {
            // Which shards there are may be known only after an outage, and that was one of them all.
            let course = Arc::new(self.whole.clone());
            all.push((shard, Arc::clone(&course)));
            course
        })
    }

    /// So many operations were decided without it.
    #[inline]
    pub(crate) fn degrade(&self, decisions: usize) {
        self.degraded.fetch_add(decisions as u64, Ordering::Relaxed);
    }

    /// Where the outage of a shard is. Whoever has never seen one reads one word and no clock.
    #[inline]
    pub(super) fn phase_of(&self, shard: u64) -> Phase {
        let phase = |course: &Course| match course.ended_us.load(Ordering::Relaxed) {
            NEVER => Phase::Never,
            LASTS => Phase::Lasts,
            ended_us => {
                let now_us = self.clock.now().as_micros();
                Phase::Over {
                    ago_us: now_us.saturating_sub(ended_us),
                    unnoticed: now_us < course.noticed_us.load(Ordering::Relaxed),
                }
            }
        };
        self.with(shard, phase)
    }

    /// The backend of a throttle decided.
    #[inline]
    pub(crate) fn succeed(&self) {
        self.succeed_on(0);
    }

    /// A shard decided.
    #[inline]
    pub(super) fn succeed_on(&self, shard: u64) {
        self.with(shard, |course| {
            if course.ended_us.load(Ordering::Relaxed) != NEVER {
                self.recover(course);
            }
        });
    }

    #[cold]
    fn recover(&self, course: &Course) {
        let now_us = self.clock.now().as_micros();
        let ended_us = course.ended_us.load(Ordering::Relaxed);
        if ended_us == LASTS {
            self.end(course, now_us);
            // Whoever is found later is not told of an outage that is over.
            if self.whole.ended_us.load(Ordering::Relaxed) == LASTS {
                self.end(&self.whole, now_us);
            }
            return;
        }
        if now_us.saturating_sub(ended_us) >= QUIET_US
            && self.announced.load(Ordering::Relaxed)
            && self.are_all_quiet(now_us)
            && self.announced.swap(false, Ordering::Relaxed)
        {
            observe::outages(self.kind, -1);
            observe::outage_ended(&self.of);
        }
    }

    /// Whether no shard fails, nor has failed a short while ago.
    fn are_all_quiet(&self, now_us: u64) -> bool {
        // Consistent between statements.
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        shards.iter().all(
            |(_, course)| match course.ended_us.load(Ordering::Relaxed) {
                NEVER => true,
                LASTS => false,
                ended_us => now_us.saturating_sub(ended_us) >= QUIET_US,
            },
        )
    }

    fn end(&self, course: &Course, now_us: u64) {
        // Whoever leaves it alone for twice as long each time, from 100 ms on, has not done so for
        // four times as long as it was away when that was over.
        let lasted_us = now_us.saturating_sub(course.began_us.load(Ordering::Relaxed));
        let unnoticed_us = lasted_us.saturating_mul(4).min(self.probed_us);
        course
            .noticed_us
            .fetch_max(now_us.saturating_add(unnoticed_us), Ordering::Relaxed);
        course.ended_us.store(now_us, Ordering::Relaxed);
    }
}

impl Default for Course {
    fn default() -> Self {
        Course {
            ended_us: AtomicU64::new(NEVER),
            began_us: AtomicU64::new(0),
            noticed_us: AtomicU64::new(0),
        }
    }
}

impl Clone for Course {
    fn clone(&self) -> Self {
        let copy = |word: &AtomicU64| AtomicU64::new(word.load(Ordering::Relaxed));
        Course {
            ended_us: copy(&self.ended_us),
            began_us: copy(&self.began_us),
            noticed_us: copy(&self.noticed_us),
        }
    }
}

/// Nobody will ever see it end.
impl Drop for Outage {
    fn drop(&mut self) {
        if *self.announced.get_mut() {
            observe::outages(self.kind, -1);
            observe::outage_left(&self.of);
        }
    }
}

impl fmt::Debug for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::ManualClock;

    fn outage() -> (ManualClock, Outage) {
        let clock = ManualClock::default();
        let outage = Outage::with_fallback(Arc::new(clock.clone()), 5_000_000);
        (clock, outage)
    }

    fn failure() -> Error {
        Error::timeout("the store did not answer within 50ms")
    }

    /// Memory had no say after it, and it was never said to be over.
    #[test]
    fn a_shard_that_was_found_in_an_outage_did_not_know_of_it() {
        let (clock, outage) = outage();
        outage.fail(&failure());
        clock.advance(Duration::from_millis(10));
        assert_eq!(outage.phase_of(7), Phase::Lasts);
        outage.succeed_on(7);
        let over = Phase::Over {
            ago_us: 0,
            unnoticed: true,
        };
        // Nor has another that is found when it is over.
        assert_eq!((outage.phase_of(7), outage.phase_of(8)), (over, over));
        clock.advance(Duration::from_secs(1));
        outage.succeed_on(7);
        assert!(!outage.info().lasts);
        outage.fail_on(9, &failure());
        assert!(outage.info().lasts);
    }

    /// And when that one failed on, it was not said again.
    #[test]
    fn an_outage_of_one_shard_was_said_to_be_over_by_another() {
        let (clock, outage) = outage();
        let second = Duration::from_secs(1);
        outage.fail_on(7, &failure());
        outage.fail_on(8, &failure());
        outage.succeed_on(8);
        clock.advance(second);
        outage.succeed_on(8);
        assert!(outage.info().lasts);
        outage.succeed_on(7);
        outage.succeed_on(8);
        assert!(outage.info().lasts, "not for a second");
        clock.advance(second);
        // Whoever is asked next.
        outage.succeed_on(8);
        assert!(!outage.info().lasts);
    }
}
