//! What compiles, without a warning.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test that panics fails; clippy knows only functions marked as tests"
)]

pub mod arguments;
pub mod descriptions;
pub mod lints;
pub mod originals;
pub mod positions;
pub mod signatures;
