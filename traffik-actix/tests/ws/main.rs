//! Limits on WebSockets, over real sockets and with a client that is not actix's.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics fails; clippy knows only functions marked as tests"
)]

mod client;
mod closing;
mod connections;
mod delay;
mod excess;
mod failures;
mod identity;
mod limits;
mod messages;
mod outgoing;
mod server;
#[path = "../it/store.rs"]
mod store;
mod support;
mod workers;
