//! What `tracing` is told.

use tracing::field::Empty;
use tracing::instrument::{Instrument, Instrumented};
use tracing::{Span, debug, debug_span, warn};

use super::{Outcome, lines};
use crate::decision::Decision;
use crate::error::Error;
use crate::resilience::BreakerState;
use crate::throttle::{Difference, Hits, Throttle};

/// The target of all events and spans.
const TARGET: &str = "traffik";

/// A denial is an event; and the span at hand, if it has these fields, learns what was decided, of several limits
/// what denied.
pub(super) fn decided(throttle: &Throttle, outcome: Outcome, decision: &Decision) {
    let name = throttle.name();
    match outcome {
        Outcome::Denied | Outcome::Never => {
            record(name, outcome);
            debug!(
                target: TARGET,
                throttle = name,
                outcome = outcome.name(),
                limit = decision.limit(),
                wait_us = u64::try_from(decision.wait().as_micros()).unwrap_or(u64::MAX),
                degraded = decision.is_degraded(),
                "denied"
            );
        }
        Outcome::Admitted => record(name, outcome),
        Outcome::Withheld | Outcome::Failed => {}
    }
}

/// What would be different if a throttle in shadow were in earnest.
pub(super) fn shadowed(throttle: &Throttle, would: &Decision, difference: Difference) {
    if !is_heard() {
        return lines::shadowed(throttle, would, difference);
    }
    debug!(
        target: TARGET,
        throttle = throttle.name(),
        outcome = difference.name(),
        limit = would.limit(),
        wait_us = u64::try_from(would.wait().as_micros()).unwrap_or(u64::MAX),
        "shadow"
    );
}

pub(super) fn failed(throttle: &Throttle) {
    record(throttle.name(), Outcome::Failed);
    debug!(
        target: TARGET,
        throttle = throttle.name(),
        outcome = Outcome::Failed.name(),
        "not decided"
    );
}

fn record(throttle: &str, outcome: Outcome) {
    let span = Span::current();
    span.record("throttle", throttle);
    span.record("outcome", outcome.name());
}

/// A span around decisions that may have to be waited for.
pub(crate) fn spanned<P, F: Future>(hits: &Hits<'_, P>, deciding: F) -> Instrumented<F> {
    let throttle = hits.first().map(Throttle::name);
    deciding.instrument(debug_span!(
        target: TARGET,
        "decide",
        throttle,
        outcome = Empty,
        limits = hits.len(),
    ))
}

pub(crate) fn breaker_changed(
    name: &str,
    from: BreakerState,
    to: BreakerState,
    cause: Option<&Error>,
) {
    if !is_heard() {
        return lines::breaker_changed(name, from, to, cause);
    }
    let cause = cause.map(tracing::field::display);
    warn!(target: TARGET, breaker = name, %from, %to, cause, "circuit breaker changed");
}

pub(crate) fn outage_began(of: &str, instead: &str, error: &Error) {
    match is_heard() {
        true => warn!(target: TARGET, of, %error, "the backend fails, {instead}"),
        false => lines::outage_began(of, instead, error),
    }
}

pub(crate) fn outage_ended(of: &str) {
    match is_heard() {
        true => warn!(target: TARGET, of, "the backend decides again"),
        false => lines::outage_ended(of),
    }
}

pub(crate) fn outage_left(of: &str) {
    match is_heard() {
        true => warn!(target: TARGET, of, "the backend failed until it was used no more"),
        false => lines::outage_left(of),
    }
}

/// Whether there is a subscriber. Else the log is told, and never both: many subscribers get its lines as well.
fn is_heard() -> bool {
    tracing::dispatcher::has_been_set()
}
