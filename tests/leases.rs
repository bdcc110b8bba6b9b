//! Leases on real stores, by real processes.

mod faults;
mod processes;
mod stores;
mod websockets;

use traffik_core::{Backend, OnError, Strategy, Throttle};

fn throttle(rate: &str, strategy: impl Strategy, backend: impl Backend) -> Throttle {
    Throttle::builder("leases")
        .rate(rate)
        .strategy(strategy)
        .backend(backend)
        .on_error(OnError::Raise)
        .build()
        .unwrap()
}
