//! What those who run a limiter are told.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod events;
mod in_flight;
mod numbers;
mod remote;
