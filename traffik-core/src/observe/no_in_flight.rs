//! Without the feature `metrics`: nothing.

use std::marker::PhantomData;

use crate::concurrency::{Busy, InFlight};

#[derive(Clone, Debug)]
pub(crate) struct InFlightMeters;

impl InFlightMeters {
    #[inline]
    pub(crate) fn new(_: &str) -> InFlightMeters {
        InFlightMeters
    }

    #[inline]
    pub(crate) fn began(&self) {}

    #[inline]
    pub(crate) fn ended(&self) {}

    #[inline]
    pub(crate) fn ask(&self) -> Asks<'_> {
        Asks(PhantomData)
    }

    #[cfg(feature = "redis")]
    pub(crate) fn lost(&self, _: u64) {}

    #[cfg(feature = "redis")]
    pub(crate) fn expired(&self, _: u64) {}
}

pub(crate) struct Asks<'a>(PhantomData<&'a ()>);

impl Asks<'_> {
    #[inline]
    pub(crate) fn waits(&mut self) {}

    #[inline]
    pub(crate) fn finds_no_room(&mut self) {}

    #[inline]
    pub(crate) fn became(self, _: &Result<InFlight, Busy>) {}
}
