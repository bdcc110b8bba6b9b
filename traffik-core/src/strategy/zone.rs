use std::fmt::Debug;

use crate::time::Timestamp;

/// How local time differs from UTC, for [`TimeOfDay`](crate::TimeOfDay).
///
/// Offsets that never change are built in; `IanaZone`, with the feature `time-zone`, knows the
/// others.
pub trait Zone: Debug + Send + Sync + 'static {
    /// The seconds to add to UTC at this instant.
    fn offset_seconds(&self, at: Timestamp) -> i32;

    /// The first instant after this one at which the offset changes, if it ever does.
    fn next_change(&self, after: Timestamp) -> Option<Timestamp>;
}

/// An offset that never changes.
#[derive(Debug)]
pub(super) struct FixedOffset {
    pub(super) seconds: i32,
}

impl Zone for FixedOffset {
    fn offset_seconds(&self, _at: Timestamp) -> i32 {
        self.seconds
    }

    fn next_change(&self, _after: Timestamp) -> Option<Timestamp> {
        None
    }
}
