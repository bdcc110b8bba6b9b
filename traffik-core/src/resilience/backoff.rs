use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How long to wait between attempts.
///
/// ```
/// use std::time::Duration;
/// use traffik_core::{Backoff, Jitter};
///
/// let backoff = Backoff::exponential(Duration::from_millis(2)).max(Duration::from_millis(10));
/// let wait = |attempt| backoff.jitter(Jitter::None).wait(attempt);
/// assert_eq!([wait(1), wait(2), wait(3), wait(4)], [2, 4, 8, 10].map(Duration::from_millis));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    growth: Growth,
    max: Duration,
    jitter: Jitter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    Constant,
    Linear(Duration),
    Exponential(u32),
    Logarithmic,
}

/// How much chance there is in a wait, so that those who failed together do not come back together.
///
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// None: the wait as computed.
    None,
    /// Anything from nothing to the wait as computed. The default.
    #[default]
    Full,
    /// Half of the wait as computed, and up to as much again.
    Equal,
}

impl Backoff {
    /// Always the same wait.
    pub const fn constant(wait: Duration) -> Backoff {
        Self::growing(wait, Growth::Constant)
    }

    /// Each wait is longer than the one before by `increment`.
    pub const fn linear(first: Duration, increment: Duration) -> Backoff {
        Self::growing(first, Growth::Linear(increment))
    }

    /// Each wait is twice the one before; see [`multiplier`](Backoff::multiplier).
    pub const fn exponential(first: Duration) -> Backoff {
        Self::growing(first, Growth::Exponential(2))
    }

    /// The `n`th wait is `first × log2(n + 1)`; to another base, divide `first` by its `log2`.
    pub const fn logarithmic(first: Duration) -> Backoff {
        Self::growing(first, Growth::Logarithmic)
    }

    const fn growing(base: Duration, growth: Growth) -> Backoff {
        Backoff {
            base,
            growth,
            max: Duration::from_secs(60),
            jitter: Jitter::Full,
        }
    }

    /// Makes waits grow exponentially, by this factor.
    pub const fn multiplier(mut self, multiplier: u32) -> Backoff {
        self.growth = Growth::Exponential(multiplier);
        self
    }

    /// Sets the longest wait. Default: a minute.
    pub const fn max(mut self, max: Duration) -> Backoff {
        self.max = max;
        self
    }

    /// Sets how much chance there is in a wait. Default: [`Jitter::Full`].
    pub const fn jitter(mut self, jitter: Jitter) -> Backoff {
        self.jitter = jitter;
        self
    }

    /// How long to wait after attempt number `attempt`, which counts from 1, has failed.
    pub fn wait(&self, attempt: u32) -> Duration {
        let wait = self.computed(attempt);
        match self.jitter {
            Jitter::None => wait,
            Jitter::Full => random_part(wait),
            Jitter::Equal => wait / 2 + random_part(wait - wait / 2),
        }
    }

    /// The first wait, without chance.
    pub(super) fn first(&self) -> Duration {
        self.computed(1)
    }

    /// No wait is longer.
    pub(super) fn longest(&self) -> Duration {
        match self.growth {
            Growth::Constant => self.first(),
            _ => self.max,
        }
    }

    fn computed(&self, attempt: u32) -> Duration {
        let before = attempt.saturating_sub(1);
        let wait = match self.growth {
            Growth::Constant => self.base,
            Growth::Linear(increment) => self.base.saturating_add(increment.saturating_mul(before)),
            Growth::Exponential(factor) => self.base.saturating_mul(factor.saturating_pow(before)),
            // Floats, but no decision depends on them.
            Growth::Logarithmic => {
                let factor = (f64::from(before) + 2.0).log2();
                Duration::try_from_secs_f64(self.base.as_secs_f64() * factor)
                    .unwrap_or(Duration::MAX)
            }
        };
        wait.min(self.max)
    }
}

impl Default for Backoff {
    /// Exponential from 5 ms on, with full jitter: made for stores that answer within a few.
    fn default() -> Self {
        Backoff::exponential(Duration::from_millis(5))
    }
}

/// Uniformly from nothing to all of it.
fn random_part(of: Duration) -> Duration {
    // Every `RandomState` has other keys; quality enough to spread retries, without a dependency.
    let random = u128::from(RandomState::new().hash_one(0));
    let nanos = (of.as_nanos().min(u128::from(u64::MAX)) * random) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn waits(backoff: Backoff) -> [Duration; 4] {
        [1, 2, 3, 4].map(|attempt| backoff.jitter(Jitter::None).wait(attempt))
    }

    #[test]
    fn waits_grow_as_the_original_says() {
        assert_eq!(waits(Backoff::constant(MS(7))), [7, 7, 7, 7].map(MS));
        assert_eq!(
            waits(Backoff::linear(MS(7), MS(10))),
            [7, 17, 27, 37].map(MS)
        );
        assert_eq!(waits(Backoff::exponential(MS(7))), [7, 14, 28, 56].map(MS));
        let tripling = Backoff::exponential(MS(7)).multiplier(3).max(MS(50));
        assert_eq!(waits(tripling), [7, 21, 50, 50].map(MS));
        let [first, second, third, _] = waits(Backoff::logarithmic(MS(7)));
        assert_eq!((first, third), (MS(7), MS(14)));
        assert!(second > MS(11) && second < MS(12));
    }

    #[test]
    fn endless_attempts_and_waits_overflow_nothing() {
        for backoff in [
            Backoff::linear(Duration::MAX, Duration::MAX),
            Backoff::exponential(Duration::MAX),
            Backoff::logarithmic(Duration::MAX),
            Backoff::exponential(MS(1)).multiplier(u32::MAX),
            Backoff::constant(Duration::MAX).max(Duration::MAX),
        ] {
            for attempt in [0, 1, u32::MAX] {
                assert!(backoff.wait(attempt) <= backoff.max);
            }
        }
    }

    #[test]
    fn jitter_stays_in_its_bounds_and_uses_them() {
        let all = |jitter| {
            let backoff = Backoff::constant(MS(100)).jitter(jitter);
            let waits: Vec<_> = (0..1000).map(|_| backoff.wait(1)).collect();
            (*waits.iter().min().unwrap(), *waits.iter().max().unwrap())
        };
        // By chance alone these fail once in 10^40 runs.
        let (least, most) = all(Jitter::Full);
        assert!(least < MS(10) && most > MS(90) && most <= MS(100));
        let (least, most) = all(Jitter::Equal);
        assert!(least >= MS(50) && least < MS(60) && most > MS(90) && most <= MS(100));
    }
}
