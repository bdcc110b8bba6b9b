//! Without the feature `tracing`: changes of state are lines of the log, and decisions are not told.

use super::Outcome;
pub(super) use super::lines::shadowed;
pub(crate) use super::lines::{breaker_changed, outage_began, outage_ended, outage_left};
use crate::decision::Decision;
use crate::throttle::{Hits, Throttle};

#[inline]
pub(super) fn decided(_: &Throttle, _: Outcome, _: &Decision) {}

#[inline]
pub(super) fn failed(_: &Throttle) {}

#[inline]
pub(crate) fn spanned<P, F>(_: &Hits<'_, P>, deciding: F) -> F {
    deciding
}
