//! The tests that every strategy and backend of this crate passes, for your own types.

pub mod laws;

pub mod conformance;

#[doc(hidden)]
pub mod replies;
