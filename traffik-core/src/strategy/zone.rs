use std::fmt::Debug;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::time::Timestamp;

/// How local time differs from UTC, for [`CalendarWindow`](crate::CalendarWindow) and
/// [`TimeOfDay`](crate::TimeOfDay).
///
/// Offsets that never change are built in; `IanaZone`, with the feature `time-zone`, knows the
/// others.
pub trait Zone: Debug + Send + Sync + 'static {
    /// The seconds to add to UTC at this instant: less than 26 hours, or it is refused.
    fn offset_seconds(&self, at: Timestamp) -> i32;

    /// The first instant after this one at which the offset changes, if it ever does.
    fn next_change(&self, after: Timestamp) -> Option<Timestamp>;
}

/// A zone, or the name of one in the IANA database (with the feature `time-zone`): `"Europe/Berlin"`.
///
/// A name that is none is an error when a throttle is built.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no time zone",
    label = "neither a time zone nor the name of one",
    note = "a time zone is a name such as `\"Europe/Berlin\"`, an `IanaZone`, or a type of yours that implements `Zone`"
)]
pub trait IntoZone {
    /// The shared zone.
    ///
    /// # Errors
    ///
    /// If there is none of this name.
    fn into_zone(self) -> Result<Arc<dyn Zone>>;
}

#[diagnostic::do_not_recommend]
impl<Z: Zone> IntoZone for Z {
    fn into_zone(self) -> Result<Arc<dyn Zone>> {
        Ok(Arc::new(self))
    }
}

impl IntoZone for Arc<dyn Zone> {
    fn into_zone(self) -> Result<Arc<dyn Zone>> {
        Ok(self)
    }
}

impl IntoZone for &str {
    #[cfg(feature = "time-zone")]
    fn into_zone(self) -> Result<Arc<dyn Zone>> {
        Ok(Arc::new(crate::IanaZone::named(self)?))
    }

    #[cfg(not(feature = "time-zone"))]
    fn into_zone(self) -> Result<Arc<dyn Zone>> {
        Err(Error::invalid(format!(
            "the time zone `{self}` is known by its name with the feature `time-zone` only"
        )))
    }
}

impl IntoZone for String {
    fn into_zone(self) -> Result<Arc<dyn Zone>> {
        self.as_str().into_zone()
    }
}

/// An offset that never changes.
#[derive(Debug)]
struct FixedOffset {
    seconds: i32,
}

impl Zone for FixedOffset {
    fn offset_seconds(&self, _at: Timestamp) -> i32 {
        self.seconds
    }

    fn next_change(&self, _after: Timestamp) -> Option<Timestamp> {
        None
    }
}

/// Where a strategy is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Utc,
    In(Arc<dyn Zone>),
    /// It was given none, and what is wrong with that is told when a throttle is built.
    Nowhere(Arc<str>),
}

/// Local time is never as far from UTC.
pub(super) const FARTHEST_US: u64 = 26 * 60 * 60 * 1_000_000;

impl Place {
    pub(super) fn of(zone: impl IntoZone) -> Place {
        match zone.into_zone() {
            Ok(zone) => Place::In(zone),
            Err(error) => Place::Nowhere(error.to_string().into()),
        }
    }

    pub(super) fn at_offset_minutes(minutes: i32) -> Place {
        Place::In(Arc::new(FixedOffset {
            seconds: minutes.saturating_mul(60),
        }))
    }

    pub(super) fn offset_seconds(&self, at_us: u64) -> i32 {
        match self {
            Place::In(zone) => zone.offset_seconds(Timestamp::from_micros(at_us)),
            Place::Utc | Place::Nowhere(_) => 0,
        }
    }

    /// When the offset next changes; never twice at once.
    pub(super) fn next_change(&self, after_us: u64) -> Option<u64> {
        match self {
            Place::In(zone) => zone
                .next_change(Timestamp::from_micros(after_us))
                .map(Timestamp::as_micros)
                .filter(|change| *change > after_us),
            Place::Utc | Place::Nowhere(_) => None,
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        if let Place::Nowhere(why) = self {
            return Err(Error::invalid(why.to_string()));
        }
        let offset = self.offset_seconds(0);
        if u64::from(offset.unsigned_abs()) * 1_000_000 > FARTHEST_US {
            return Err(Error::invalid(format!(
                "local time is less than 26 hours ahead of UTC or behind, not {offset} seconds"
            )));
        }
        Ok(())
    }
}
