//! Tests against real servers. Each starts those it needs on ports of the loopback interface that
//! nobody else has, and ends them; nothing is mocked, and nothing is skipped if a server is not installed.

#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod chaos;
mod custom_strategy;
mod fuzz;
mod history;
mod leases;
mod locked_store;
mod memcached_backend;
mod memory_backend;
mod packages;
mod ports;
mod redis_backend;
mod support;
mod vectors;
