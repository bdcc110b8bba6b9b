//! `bench_server`, as it is tried from a shell.

mod clients;
mod control;
mod flags;
mod limits;
mod rules;
#[cfg(any(feature = "redis", feature = "memcached"))]
mod stores;
