//! Examples that run, and the servers they need.

mod browser;
mod example;
#[cfg(any(feature = "redis", feature = "memcached"))]
#[allow(dead_code, reason = "tests of the backends need more of it")]
#[path = "../../../tests/support/port.rs"]
mod port;
#[cfg(any(feature = "redis", feature = "memcached"))]
#[allow(dead_code, reason = "tests of the backends need more of it")]
#[path = "../../../tests/support/process.rs"]
mod process;
#[cfg(any(feature = "redis", feature = "memcached"))]
mod servers;

pub(crate) use self::browser::Page;
pub(crate) use self::example::{Example, binary, ends, receive, status_of, talk};
#[cfg(any(feature = "redis", feature = "memcached"))]
pub(crate) use self::process::Process;
#[cfg(feature = "memcached")]
pub(crate) use self::servers::memcached;
#[cfg(feature = "redis")]
pub(crate) use self::servers::redis;
#[cfg(any(feature = "redis-cluster", feature = "redis-sentinel"))]
pub(crate) use self::servers::redis_cli;
#[cfg(feature = "redis-cluster")]
pub(crate) use self::servers::redis_cluster;
#[cfg(feature = "redis-sentinel")]
pub(crate) use self::servers::sentinel_of;
