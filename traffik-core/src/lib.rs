//! Exact, distributed rate limiting, for any framework.
//!
//! A [`Strategy`] is a pure step over a tiny [`Cell`]; a [`Backend`] applies steps atomically and
//! tells the time; a [`Throttle`] is a name, a [`Rate`], a strategy and a backend. Several
//! throttles that meet one request are decided as [one batch](Hits): all of them admit it and are
//! charged, or none is.
//!
//! ```
//! use std::net::IpAddr;
//! use traffik_core::{Identity, MemoryBackend, Throttle};
//!
//! let throttle = Throttle::builder("login")
//!     .rate("2/minute")
//!     .backend(MemoryBackend::new())
//!     .build()?;
//! let peer = Identity::from(IpAddr::from([192, 0, 2, 1]));
//!
//! assert!(throttle.hit_now(&peer)?.is_allowed());
//! assert!(throttle.hit_now(&peer)?.is_allowed());
//! let denied = throttle.hit_now(&peer)?;
//! println!("try again in {:?}", denied.retry_after());
//! # assert!(denied.is_denied());
//! # Ok::<(), traffik_core::Error>(())
//! ```
//!
//! # Features
//!
//! * `memcached`: [`MemcachedBackend`]. Needs OpenSSL, which its client links.
//! * `metrics`: counts and times of decisions, and who is denied most often.
//! * `serde`: [`Rate`] in configuration files; decisions and statistics as JSON.
//! * `store`: [`Store`] and [`Locked`], to bring storage of your own; [`Lock`], for whatever only one
//!   may do at a time.
//! * `tokio`: [`Throttle::until_ready`], which waits instead of denying; [`Concurrency`], how many at a time;
//!   [leases](Leased); and [`resilience`]'s deadlines and retries.
//! * `redis`: `RedisBackend`, and with `redis-cluster`, `redis-sentinel` and `redis-tls` the other ways to reach one.
//! * `testing`: `testing::laws` and `testing::conformance`, the tests every strategy and backend here
//!   passes, for your own types.
//! * `time-zone`: [`CalendarWindow`] and [`TimeOfDay`] in IANA time zones, with daylight saving time.
//! * `tracing`: an event (target `traffik`) for each denial at the level `debug`, with the fields `throttle`, `outcome`,
//!   `limit`, `wait_us` and `degraded`, and one for each change of the state of a backend or breaker at `warn`, which is a
//!   line of the log otherwise. A span `decide` is around what may have to be waited for. A span of yours that has the fields
//!   `throttle` and `outcome` learns what was decided inside it.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backend;
mod cell;
#[cfg(feature = "tokio")]
mod concurrency;
mod decision;
#[cfg(feature = "tokio")]
mod delay;
mod error;
pub mod headers;
mod identity;
mod key;
#[cfg(feature = "tokio")]
mod lease;
#[cfg(feature = "store")]
pub mod lock;
#[cfg(feature = "store")]
mod locked;
#[cfg(feature = "metrics")]
pub mod metrics;
mod name;
mod observe;
#[cfg(any(feature = "redis", feature = "tokio"))]
mod patience;
mod rate;
pub mod resilience;
mod span;
#[cfg(feature = "store")]
mod store;
pub mod strategy;
mod suggest;
mod sweep;
#[cfg(any(feature = "testing", test))]
pub mod testing;
mod throttle;
mod time;
#[cfg(feature = "time-zone")]
mod time_zone;
mod together;

#[cfg(feature = "memcached")]
pub use backend::MemcachedBackend;
#[cfg(feature = "redis")]
pub use backend::RedisBackend;
#[cfg(all(feature = "redis", feature = "store"))]
pub use backend::RedisStore;
pub use backend::{Backend, Batch, BoxFuture, MemoryBackend, Op};
pub use cell::{Cell, Mark, Queue};
#[cfg(all(feature = "redis", feature = "tokio"))]
pub use concurrency::OnOutage;
#[cfg(feature = "tokio")]
pub use concurrency::{Busy, Concurrency, ConcurrencyBuilder, ConcurrencyInfo, InFlight};
pub use decision::{Decision, Decisions, Stat, Verdict};
pub use error::{Error, Result};
pub use identity::{Attributes, Identity, Priority};
pub use key::{Key, KeyHasher};
#[cfg(feature = "tokio")]
pub use lease::{Lease, LeaseInfo, Leased};
#[cfg(feature = "store")]
pub use lock::{Lock, LockConfig};
#[cfg(feature = "store")]
pub use locked::{Locked, LockedBuilder};
pub use rate::{Rate, RateError};
/// The client that [`RedisBackend`] is made with, for those who bring one of their own.
#[cfg(feature = "redis")]
pub use redis;
#[doc(inline)]
pub use resilience::{
    BackendExt, Backoff, BreakerInfo, BreakerState, CircuitBreaker, CircuitBreakerBuilder,
    Failover, Fallback, Guarded, Jitter, OutageInfo, Transition,
};
#[cfg(feature = "tokio")]
pub use resilience::{Deadline, Retry, Retrying};
pub use span::Span;
#[cfg(feature = "store")]
pub use store::{Entry, Store};
#[doc(inline)]
pub use strategy::{
    AdaptiveThrottle, CalendarWindow, CostBasedTokenBucket, Details, DistributedFairness,
    FixedWindow, Gcra, GeographicDistribution, Hit, LeakyBucket, LeakyBucketWithQueue, Lent,
    LoadGauge, Loan, PriorityQueue, QuotaWithRollover, Settlement, Sharing, SlidingWindowCounter,
    SlidingWindowLog, Strategy, TieredRate, TimeOfDay, TokenBucket, TokenBucketWithDebt, Zone,
};
pub use throttle::{
    Attempt, Failure, Flow, Hits, IntoRate, NestedQuota, OnDrop, OnError, Permit, Quota, Recover,
    ShadowReport, Throttle, ThrottleBuilder,
};
#[doc(hidden)]
pub use throttle::{Expected, Reign};
pub use time::{Clock, ManualClock, MonotonicClock, SystemClock, Timestamp};
#[cfg(feature = "time-zone")]
pub use time_zone::IanaZone;

/// For `traffik-actix-macros`, whose hints and checks are the same.
#[doc(hidden)]
pub mod __private {
    pub use crate::name::LONGEST_NAME;
    pub use crate::suggest::nearest;
}
