//! What those who run a limiter are told.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod events;
mod numbers;
mod remote;
