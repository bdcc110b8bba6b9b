//! Changes of state as lines of the log.

use crate::decision::Decision;
use crate::error::Error;
use crate::resilience::BreakerState;
use crate::throttle::{Difference, Throttle};

pub(crate) fn breaker_changed(
    name: &str,
    from: BreakerState,
    to: BreakerState,
    cause: Option<&Error>,
) {
    match (to, cause) {
        (BreakerState::Open, Some(cause)) => {
            log::warn!("circuit breaker `{name}`: {from} -> {to}: {cause}");
        }
        (BreakerState::Open, None) => log::warn!("circuit breaker `{name}`: {from} -> {to}"),
        _ => log::info!("circuit breaker `{name}`: {from} -> {to}"),
    }
}

pub(crate) fn outage_began(of: &str, instead: &str, error: &Error) {
    log::warn!("the backend of {of} fails, {instead}: {error}");
}

pub(crate) fn outage_ended(of: &str) {
    log::info!("the backend of {of} decides again");
}

pub(crate) fn outage_left(of: &str) {
    log::info!("the backend of {of} failed until it was used no more");
}

pub(crate) fn shadowed(throttle: &Throttle, would: &Decision, difference: Difference) {
    let name = throttle.name();
    match difference {
        Difference::NewlyDenied => log::debug!(
            "throttle `{name}` is in shadow, and would have denied for {:?}",
            would.wait()
        ),
        _ => log::debug!("throttle `{name}` is in shadow, and would have admitted"),
    }
}
