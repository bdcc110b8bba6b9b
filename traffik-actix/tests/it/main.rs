//! traffik in real actix-web applications.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics fails; clippy knows only functions marked as tests"
)]

mod ask;
mod bodies;
mod caught;
mod concurrency;
#[cfg(feature = "config")]
mod config;
mod cors;
mod delay;
mod denial;
mod direct;
mod duplicates;
mod functions;
mod headers;
mod levels;
mod limits;
mod middleware;
mod on_error;
mod on_error_by;
mod permits;
mod proxies;
mod receipts;
mod routing;
mod scopes;
mod server;
mod shadow;
mod sockets;
mod store;
mod support;
mod tenants;
mod unresolved;
mod whereabouts;
