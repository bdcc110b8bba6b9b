//! Throttles that only say what they would do.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::Throttle;
use crate::decision::{Decision, Verdict};
use crate::strategy::{Shadowing, Strategy};

/// Whether a throttle only says what it would do, and what that was.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    /// The same for all who take each other's place: what is said of one holds for all.
    state: Arc<State>,
    /// Whether it was in shadow when it was built.
    was_built_so: bool,
    strategy: OnceLock<Arc<dyn Strategy>>,
    /// The throttle that it is to replace.
    pub(super) replaces: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    is_on: AtomicBool,
    counts: [AtomicU64; 5],
}

/// What a throttle in shadow would have done, in numbers of hits. Made by [`Throttle::shadow_report`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShadowReport {
    /// Admitted, and would have been.
    pub admitted: u64,
    /// Admitted, and would have been denied.
    pub newly_denied: u64,
    /// Denied by nothing but the throttle that this is to [replace](super::ThrottleBuilder::shadow_of), and would have
    /// been admitted.
    pub newly_admitted: u64,
    /// Denied, and would have been.
    pub denied: u64,
    /// Denied by other limits, and not by this one: it was not charged.
    pub withheld: u64,
}

/// One of the numbers of a [`ShadowReport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    Admitted,
    NewlyDenied,
    NewlyAdmitted,
    Denied,
    Withheld,
}

impl Difference {
    pub(crate) const ALL: [Difference; 5] = [
        Difference::Admitted,
        Difference::NewlyDenied,
        Difference::NewlyAdmitted,
        Difference::Denied,
        Difference::Withheld,
    ];

    #[cfg_attr(not(any(feature = "metrics", feature = "tracing")), expect(dead_code))]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Difference::Admitted => "admitted",
            Difference::NewlyDenied => "newly_denied",
            Difference::NewlyAdmitted => "newly_admitted",
            Difference::Denied => "denied",
            Difference::Withheld => "withheld",
        }
    }

    /// What `would` have been decided of a hit that was denied, or not, by nothing but a throttle that is to be
    /// replaced.
    fn of(would: &Decision, is_denied: bool, is_by_replaced: bool) -> Difference {
        match (is_denied, would.verdict()) {
            (false, Verdict::Allow) => Difference::Admitted,
            (false, _) => Difference::NewlyDenied,
            (true, Verdict::Allow) if is_by_replaced => Difference::NewlyAdmitted,
            (true, Verdict::Allow) => Difference::Withheld,
            (true, _) => Difference::Denied,
        }
    }
}

impl Shadow {
    pub(super) fn new(is_on: bool, replaces: Option<String>) -> Shadow {
        let state = State {
            is_on: AtomicBool::new(is_on),
            ..State::default()
        };
        Shadow {
            state: Arc::new(state),
            was_built_so: is_on,
            replaces,
            ..Shadow::default()
        }
    }

    /// That of a throttle that takes this one's place: as it is at any time, unless it is built otherwise.
    pub(super) fn succeeded_by(&self, is_shadow: bool, replaces: Option<String>) -> Shadow {
        let mut successor = Shadow::new(is_shadow, replaces);
        if is_shadow == self.was_built_so {
            successor.state = Arc::clone(&self.state);
        }
        successor
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.state.is_on.load(Ordering::Relaxed)
    }

    fn count(&self, which: Difference) -> &AtomicU64 {
        &self.state.counts[which as usize]
    }

    #[cold]
    pub(super) fn strategy(&self, of: &Arc<dyn Strategy>) -> &Arc<dyn Strategy> {
        self.strategy.get_or_init(|| Shadowing::of(of))
    }

    pub(super) fn note(
        &self,
        would: &Decision,
        is_denied: bool,
        is_by_replaced: bool,
    ) -> Difference {
        let difference = Difference::of(would, is_denied, is_by_replaced);
        self.count(difference).fetch_add(1, Ordering::Relaxed);
        difference
    }
}

impl Throttle {
    /// Whether it only says what it would do; see [`shadow`](super::ThrottleBuilder::shadow).
    #[inline]
    pub fn is_shadow(&self) -> bool {
        self.0.shadow.is_on()
    }

    /// From the next hit on: denies what is beyond the limit, with the counts that it has; or, with `true`, only says
    /// what it would do. At once, in all clones, without a lock.
    ///
    /// What was [reported](Throttle::shadow_report) is forgotten when a shadow begins.
    pub fn set_shadow(&self, is_shadow: bool) {
        if is_shadow && !self.is_shadow() {
            for which in Difference::ALL {
                self.0.shadow.count(which).store(0, Ordering::Relaxed);
            }
        }
        let state = &self.0.shadow.state;
        state.is_on.store(is_shadow, Ordering::Relaxed);
    }

    /// What it would have done while it was in shadow: what would be denied that was not, and the other way round.
    ///
    /// ```
    /// use traffik_core::{Identity, MemoryBackend, Throttle};
    ///
    /// let api = Throttle::builder("api").rate("2/day").shadow().backend(MemoryBackend::new()).build()?;
    /// let ann = Identity::of("ann");
    /// for _ in 0..5 {
    ///     let decision = api.hit_now(&ann)?;
    ///     assert!(decision.is_allowed()); // whatever it would have been:
    ///     println!("{:?}", decision.shadowed());
    /// }
    /// assert_eq!(api.shadow_report().newly_denied, 3);
    /// assert_eq!(api.shadow_report().to_string(), "of 5 hits, 3 newly denied, 0 newly admitted");
    ///
    /// api.set_shadow(false); // in earnest from now on
    /// assert!(api.hit_now(&ann)?.is_denied());
    /// # Ok::<(), traffik_core::Error>(())
    /// ```
    pub fn shadow_report(&self) -> ShadowReport {
        let count = |which: Difference| self.0.shadow.count(which).load(Ordering::Relaxed);
        let [admitted, newly_denied, newly_admitted, denied, withheld] = Difference::ALL.map(count);
        ShadowReport {
            admitted,
            newly_denied,
            newly_admitted,
            denied,
            withheld,
        }
    }

    /// Whether nothing but the throttle that this is to replace denied, of these.
    pub(super) fn replaces_all<'a>(&self, mut denied: impl Iterator<Item = &'a Throttle>) -> bool {
        let replaces = self.0.shadow.replaces.as_deref();
        replaces.is_some_and(|replaced| denied.all(|one| one.name() == replaced))
    }
}

impl ShadowReport {
    /// How many hits there were.
    pub fn hits(&self) -> u64 {
        self.admitted + self.newly_denied + self.newly_admitted + self.denied + self.withheld
    }
}

impl fmt::Display for ShadowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShadowReport {
            newly_denied,
            newly_admitted,
            ..
        } = self;
        let hits = self.hits();
        write!(
            f,
            "of {hits} hits, {newly_denied} newly denied, {newly_admitted} newly admitted"
        )
    }
}
