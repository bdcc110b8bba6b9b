//! `RedisBackend` against a Redis.

mod busy;
mod cluster;
mod cluster_changes;
mod cold_start;
mod company;
mod config;
mod conformance;
mod decisions;
mod denials;
mod failures;
mod in_flight;
mod keys;
mod lags;
mod losses;
mod permissions;
mod permits;
mod processes;
mod redlock;
mod sentinel;
mod settings;
mod several_servers;
mod shadow;
mod store;
mod strategies;
mod tenants;
mod tls;
mod trips;
mod ways;
mod websockets;

use traffik_core::{Backend, Throttle, ThrottleBuilder};

fn throttle(name: &str, rate: &str, backend: impl Backend) -> Throttle {
    builder(name, rate, backend)
        .build()
        .expect("valid settings")
}

fn builder(name: &str, rate: &str, backend: impl Backend) -> ThrottleBuilder {
    // What a failure is, a test wants to see.
    Throttle::builder(name)
        .rate(rate)
        .backend(backend)
        .on_error(traffik_core::OnError::Raise)
}
