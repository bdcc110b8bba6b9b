//! What a throttle answers.

use std::time::Duration;

use smallvec::SmallVec;

use crate::rate::Rate;
use crate::strategy::{Details, DetailsOf};

/// The answer of one throttle to one hit. A denial is an answer, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[must_use]
pub struct Decision {
    verdict: Verdict,
    #[cfg_attr(
        feature = "serde",
        serde(rename = "degraded", serialize_with = "as_bool")
    )]
    marks: Marks,
    limit: u64,
    remaining: u64,
    wait_us: u64,
    reset_us: u64,
}

/// Whether a hit may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[repr(u64)] // see `Marks`
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not, until [`Decision::wait`] is over.
    Deny,
    /// It never may: its cost exceeds everything the throttle can ever have available.
    Never,
}

/// How a decision came about.
///
/// A whole word instead of `bool`s, as is the verdict: a decision then consists of words only, and
/// so does a `Result` of one. With single bytes among them the compiler moves it in pieces that
/// overlap, each of which waits for the last to leave the store buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Marks(u64);

impl Marks {
    /// Something else than the primary backend decided.
    const DEGRADED: u64 = 1;
    /// Nothing counted: an error policy decided.
    const UNCHECKED: u64 = 2;
    /// The throttle is in shadow.
    const SHADOW: u64 = 4;
    /// It would have denied.
    const WOULD_DENY: u64 = 8;
    /// For ever.
    const NEVER: u64 = 16;
}

impl std::fmt::Debug for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let marks = ["degraded", "unchecked", "shadow", "would deny", "never"];
        let set = marks.iter().enumerate();
        f.debug_set()
            .entries(
                set.filter(|(at, _)| self.0 >> at & 1 == 1)
                    .map(|(_, mark)| mark),
            )
            .finish()
    }
}

#[cfg(feature = "serde")]
fn as_bool<S: serde::Serializer>(marks: &Marks, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(marks.0 & Marks::DEGRADED != 0)
}

impl Decision {
    /// The hit may pass and `remaining` of `limit` are left after it.
    pub const fn allow(limit: u64, remaining: u64) -> Decision {
        Decision {
            verdict: Verdict::Allow,
            marks: Marks(0),
            limit,
            remaining,
            wait_us: 0,
            reset_us: 0,
        }
    }

    /// The hit may not pass; the same hit would after exactly `wait_us` microseconds, if nobody
    /// else hits in between.
    pub const fn deny(limit: u64, remaining: u64, wait_us: u64) -> Decision {
        Decision {
            verdict: Verdict::Deny,
            marks: Marks(0),
            limit,
            remaining,
            wait_us,
            reset_us: wait_us,
        }
    }

    /// The hit can never pass, because its cost exceeds the capacity.
    pub const fn never(limit: u64, remaining: u64) -> Decision {
        Decision {
            verdict: Verdict::Never,
            marks: Marks(0),
            limit,
            remaining,
            wait_us: 0,
            reset_us: 0,
        }
    }

    /// Nothing limits this hit: the rate is unlimited or the identity exempt.
    pub const UNLIMITED: Decision = Decision::allow(u64::MAX, u64::MAX);

    /// The key is as good as fresh after `reset_us` microseconds without a hit.
    pub const fn resets_in(mut self, reset_us: u64) -> Decision {
        self.reset_us = reset_us;
        self
    }

    /// Marks a decision that was made without the primary backend.
    pub const fn into_degraded(mut self) -> Decision {
        self.marks.0 |= Marks::DEGRADED;
        self
    }

    /// Marks a decision that was made without asking any store.
    pub(crate) const fn into_unchecked(mut self) -> Decision {
        self.marks.0 |= Marks::DEGRADED | Marks::UNCHECKED;
        self
    }

    /// Admits, and says what would have been decided.
    pub(crate) const fn into_shadow(mut self) -> Decision {
        self.marks.0 |= match self.verdict {
            Verdict::Allow => Marks::SHADOW,
            Verdict::Deny => Marks::SHADOW | Marks::WOULD_DENY,
            Verdict::Never => Marks::SHADOW | Marks::WOULD_DENY | Marks::NEVER,
        };
        self.verdict = Verdict::Allow;
        self
    }

    /// What a throttle in [shadow](crate::ThrottleBuilder::shadow) would have decided, which admitted the hit
    /// nevertheless; `None` if the throttle was in earnest.
    #[inline]
    pub const fn shadowed(&self) -> Option<Decision> {
        if self.marks.0 & Marks::SHADOW == 0 {
            return None;
        }
        let mut would = *self;
        would.marks.0 &= Marks::DEGRADED | Marks::UNCHECKED;
        would.verdict = match self.marks.0 & (Marks::WOULD_DENY | Marks::NEVER) {
            0 => Verdict::Allow,
            Marks::WOULD_DENY => Verdict::Deny,
            _ => Verdict::Never,
        };
        Some(would)
    }

    /// Whether it admits what would have been denied.
    pub(crate) const fn hides_denial(&self) -> bool {
        self.marks.0 & Marks::WOULD_DENY != 0
    }

    /// What is left of a decision at `nodes` times the cost to one of so many nodes that share a
    /// limit. A share of nothing is denied for a while, not for ever: others have more to give.
    pub(crate) const fn into_share(mut self, nodes: u32, wait: Duration) -> Decision {
        if !self.is_unlimited() {
            self.limit /= nodes as u64;
            self.remaining /= nodes as u64;
        }
        if nodes > 1 && matches!(self.verdict, Verdict::Never) {
            self.verdict = Verdict::Deny;
            self.wait_us = crate::time::micros(wait);
        }
        self
    }

    /// A denial waits at least this long; admissions stay as they are.
    pub fn with_min_wait(mut self, min: Duration) -> Decision {
        if self.verdict == Verdict::Deny {
            self.wait_us = self.wait_us.max(crate::time::micros(min));
            self.reset_us = self.reset_us.max(self.wait_us);
        }
        self
    }

    /// Allow, deny or never.
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether the hit may pass.
    pub const fn is_allowed(&self) -> bool {
        matches!(self.verdict, Verdict::Allow)
    }

    /// Whether the hit may not pass, now or ever.
    pub const fn is_denied(&self) -> bool {
        !self.is_allowed()
    }

    /// Whether nothing limited this hit.
    pub const fn is_unlimited(&self) -> bool {
        self.limit == u64::MAX
    }

    /// Whether the primary backend failed and something else decided.
    pub const fn is_degraded(&self) -> bool {
        self.marks.0 & Marks::DEGRADED != 0
    }

    /// Whether it was made by an [error policy](crate::OnError), because no store could be asked: a
    /// denial then says nothing about what the client did. What a fallback decides was checked.
    pub const fn is_unchecked(&self) -> bool {
        self.marks.0 & Marks::UNCHECKED != 0
    }

    /// How much can be available at most; `u64::MAX` if unlimited.
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// How much could be taken right now, after this hit; `u64::MAX` if unlimited.
    pub const fn remaining(&self) -> u64 {
        self.remaining
    }

    /// How long to wait until the same hit passes; zero if it is allowed or never will be.
    pub const fn wait(&self) -> Duration {
        match self.verdict {
            // Of a throttle in shadow it is what the wait would have been.
            Verdict::Allow => Duration::ZERO,
            Verdict::Deny | Verdict::Never => Duration::from_micros(self.wait_us),
        }
    }

    /// Time until the same hit passes, if it was denied and ever will. Exact to the microsecond.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self.verdict {
            Verdict::Deny => Some(self.wait()),
            Verdict::Allow | Verdict::Never => None,
        }
    }

    /// Time until the key is as good as fresh if nobody hits it; for windows, until the next one.
    pub const fn reset(&self) -> Duration {
        Duration::from_micros(self.reset_us)
    }

    /// The same in whole seconds, rounded up.
    #[inline]
    pub(crate) const fn reset_seconds(&self) -> u64 {
        self.reset_us.div_ceil(1_000_000)
    }
}

/// The decisions of a batch, in the order of its operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Decisions(SmallVec<[Decision; 3]>);

impl Decisions {
    pub(crate) fn of(decisions: &[Decision]) -> Decisions {
        Decisions(SmallVec::from_slice(decisions))
    }

    /// Whether every throttle admits.
    pub fn is_allowed(&self) -> bool {
        self.0.iter().all(Decision::is_allowed)
    }

    /// Whether some throttle denies.
    pub fn is_denied(&self) -> bool {
        !self.is_allowed()
    }

    /// Time until all denying throttles would admit, unless one never will or none denies.
    pub fn retry_after(&self) -> Option<Duration> {
        if self
            .0
            .iter()
            .any(|decision| decision.verdict() == Verdict::Never)
        {
            return None;
        }
        self.0.iter().filter_map(Decision::retry_after).max()
    }
}

impl std::ops::Deref for Decisions {
    type Target = [Decision];

    fn deref(&self) -> &[Decision] {
        &self.0
    }
}

impl std::ops::DerefMut for Decisions {
    fn deref_mut(&mut self) -> &mut [Decision] {
        &mut self.0
    }
}

impl AsRef<[Decision]> for Decisions {
    fn as_ref(&self) -> &[Decision] {
        self
    }
}

impl FromIterator<Decision> for Decisions {
    fn from_iter<I: IntoIterator<Item = Decision>>(decisions: I) -> Self {
        Decisions(decisions.into_iter().collect())
    }
}

impl From<Decision> for Decisions {
    #[inline]
    fn from(decision: Decision) -> Self {
        let mut decisions = SmallVec::new();
        decisions.push(decision);
        Decisions(decisions)
    }
}

/// What a throttle knows about a key, read without consuming anything.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Stat {
    /// The rate in force.
    pub rate: Rate,
    /// How much can be available at most.
    pub limit: u64,
    /// How much could be taken right now.
    pub remaining: u64,
    /// How long the next hit would have to wait; zero if it would pass, or never will.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "wait_us", serialize_with = "crate::time::as_micros")
    )]
    pub wait: Duration,
    /// Whether the next hit would pass.
    pub verdict: Verdict,
    /// Time until the key is as good as fresh if nobody hits it; for windows, until the next one.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "reset_us", serialize_with = "crate::time::as_micros")
    )]
    pub reset: Duration,
    /// What the strategy keeps, by its own names.
    pub details: Details,
}

impl Stat {
    /// What a strategy keeps, by its type; `None` if another one decided.
    ///
    /// ```
    /// use traffik_core::strategy::TokenBucketStat;
    /// use traffik_core::{Identity, MemoryBackend, Throttle, TokenBucket};
    ///
    /// let throttle = Throttle::builder("api").rate("10/minute").strategy(TokenBucket::new());
    /// let throttle = throttle.backend(MemoryBackend::new()).build()?;
    /// # async fn example(throttle: Throttle) -> traffik_core::Result<()> {
    /// let stat = throttle.stat(&Identity::ANONYMOUS).await?;
    /// if let Some(bucket) = stat.details_of::<TokenBucketStat>() {
    ///     println!("{bucket:?}");
    /// }
    /// # Ok(())
    /// # }
    /// # let _ = example;
    /// # Ok::<(), traffik_core::Error>(())
    /// ```
    pub fn details_of<T: DetailsOf>(&self) -> Option<&T> {
        T::of(&self.details)
    }

    /// The statistics of an unlimited rate or an exempt identity.
    pub fn unlimited() -> Stat {
        Stat {
            rate: Rate::UNLIMITED,
            limit: u64::MAX,
            remaining: u64::MAX,
            wait: Duration::ZERO,
            verdict: Verdict::Allow,
            reset: Duration::ZERO,
            details: Details::None,
        }
    }

    /// As [`Decision::with_min_wait`]: the next hit is answered so.
    pub(crate) fn with_min_wait(mut self, min: Duration) -> Stat {
        if self.verdict == Verdict::Deny {
            // Decisions tell whole microseconds.
            self.wait = self
                .wait
                .max(Duration::from_micros(crate::time::micros(min)));
            self.reset = self.reset.max(self.wait);
        }
        self
    }
}
