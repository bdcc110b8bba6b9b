//! What is told of decisions to those who run a limiter: numbers with the feature `metrics`, events and spans with
//! `tracing`, and without them nothing, at no cost: whatever is called here is then empty.

#[cfg(feature = "tracing")]
mod events;
#[cfg(not(feature = "tracing"))]
#[path = "observe/no_events.rs"]
mod events;
#[cfg(all(feature = "tokio", feature = "metrics"))]
mod in_flight;
#[cfg(all(feature = "tokio", not(feature = "metrics")))]
#[path = "observe/no_in_flight.rs"]
mod in_flight;
mod lines;
#[cfg(feature = "metrics")]
mod meters;
#[cfg(not(feature = "metrics"))]
#[path = "observe/no_meters.rs"]
mod meters;
#[cfg(feature = "metrics")]
pub(crate) mod offenders;

pub(crate) use events::{breaker_changed, outage_began, outage_ended, outage_left, spanned};
#[cfg(feature = "tokio")]
pub(crate) use in_flight::{Asks, InFlightMeters};
#[cfg(feature = "tokio")]
pub(crate) use meters::LeaseMeters;
#[cfg(feature = "redis")]
pub(crate) use meters::state_losses;
pub(crate) use meters::{Meters, Stopwatch, breaker_is, outages};

use crate::decision::{Decision, Verdict};
use crate::identity::Identity;
use crate::throttle::{Difference, Throttle};

/// Whether anybody is told anything.
const IS_ON: bool = cfg!(any(feature = "metrics", feature = "tracing"));

/// What became of a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(any(feature = "metrics", feature = "tracing")), expect(dead_code))]
pub(crate) enum Outcome {
    Admitted,
    Denied,
    Never,
    /// Another limit of the same request denied.
    Withheld,
    Failed,
}

impl Outcome {
    fn of(decision: &Decision, is_withheld: bool) -> Outcome {
        match decision.verdict() {
            Verdict::Allow if is_withheld => Outcome::Withheld,
            Verdict::Allow => Outcome::Admitted,
            Verdict::Deny => Outcome::Denied,
            Verdict::Never => Outcome::Never,
        }
    }

    #[cfg_attr(not(any(feature = "metrics", feature = "tracing")), expect(dead_code))]
    fn name(self) -> &'static str {
        match self {
            Outcome::Admitted => "admitted",
            Outcome::Denied => "denied",
            Outcome::Never => "never",
            Outcome::Withheld => "withheld",
            Outcome::Failed => "failed",
        }
    }
}

/// A decision was made, and is the last word.
#[inline]
pub(crate) fn decided(throttle: &Throttle, who: &Identity, decision: &Decision, is_withheld: bool) {
    // Nothing was decided, unless an error policy admitted.
    if !IS_ON || decision.is_unlimited() && !decision.is_degraded() {
        return;
    }
    let outcome = Outcome::of(decision, is_withheld);
    throttle.meters().decided(outcome, decision, who);
    events::decided(throttle, outcome, decision);
}

/// What a throttle in shadow would have done.
pub(crate) fn shadowed(throttle: &Throttle, would: &Decision, difference: Difference) {
    if IS_ON {
        throttle.meters().shadowed(difference);
    }
    if let Difference::NewlyDenied | Difference::NewlyAdmitted = difference {
        events::shadowed(throttle, would, difference);
    }
}

/// No decision was made.
#[inline]
pub(crate) fn failed(throttle: &Throttle) {
    if IS_ON {
        throttle.meters().failed();
        events::failed(throttle);
    }
}
