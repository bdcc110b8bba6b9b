//! Distributed rate limiting for actix-web.
//!
//! ```no_run
//! use actix_web::{App, HttpServer, web};
//! use traffik_actix::HttpThrottle;
//!
//! #[actix_web::main]
//! async fn main() -> std::io::Result<()> {
//!     let api = HttpThrottle::builder("api").rate("100/minute").build()?; // for each client
//!
//!     HttpServer::new(move || {
//!         App::new()
//!             .wrap(api.clone())
//!             .route("/", web::get().to(async || "hello"))
//!     })
//!     .bind(("127.0.0.1", 8080))?
//!     .run()
//!     .await
//! }
//! ```
//!
//! * [`ThrottleMiddleware`] limits an application, a scope or a resource by several rules.
//! * [`Throttled`] is an extractor; [`HttpThrottle::enforce`] does the same from inside a handler.
//! * [`ThrottleHeaders`] tells clients what was decided by hand, and [`RateLimitInfo`] handlers what was decided at all.
//! * [`HttpThrottle::reserve`] is for costs that are known afterwards, and
//!   [`refund_if`](HttpThrottleBuilder::refund_if) for requests that do not count, such as logins that succeed.
//! * [`ConcurrencyLimit`] is how many requests may be in flight at a time.
//! * A rate is what each client gets; [`shared`](HttpThrottleBuilder::shared) makes it one for all.
//! * [`ThrottleBackend`] is where counts live, and what throttles do by default.
//! * [`Tenants`] are backends, one for each tenant, made when they are needed.
//! * [`Limits`] are throttles that change while the program runs.
//! * `LimitsFile` (feature `config`) are rules and throttles from a file, which change when it does.
//! * [`ClientIp`] tells clients apart by address, behind proxies too.
//! * `WsThrottle` (feature `ws`) limits the messages of WebSockets.
//!
//! Nothing here decides: strategies and backends are in [`traffik_core`].
//!
//! # Features
//!
//! | feature | for |
//! |---|---|
//! | `macros` (default) | `#[throttle]`; without it there is no `syn` to compile |
//! | `redis`, `redis-cluster`, `redis-sentinel`, `redis-tls` | counts that servers share, and the ways to reach them |
//! | `memcached` | the same in Memcached; needs OpenSSL |
//! | `store` | storage of your own |
//! | `ws` | limits on WebSocket messages |
//! | `config` | limits from a file, and changed in it while requests pass |
//! | `time-zone` | limits by the calendar and the hour of places with daylight saving time |
//! | `metrics`, `tracing` | what limits do, for whoever runs them |
//! | `serde` | rates in configuration files, statistics as JSON |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod concurrency;
#[cfg(feature = "config")]
mod config;
mod entry;
mod limits;
mod request;
mod response;
mod tenants;
mod throttle;
#[cfg(feature = "ws")]
mod ws;

pub use concurrency::body::InFlightBody;
pub use concurrency::builder::ConcurrencyLimitBuilder;
pub use concurrency::busy::{BusyDenial, TooManyInFlight};
pub use concurrency::limit::ConcurrencyLimit;
pub use concurrency::middleware::{ConcurrencyFuture, ConcurrencyService};
#[cfg(feature = "config")]
pub use config::document::LimitsDocument;
#[cfg(feature = "config")]
pub use config::explain::Explanation;
#[cfg(feature = "config")]
pub use config::{LimitsFile, LimitsFileBuilder, Reloaded, Tried, TriedOutcome};
pub use entry::extract::{StatOf, ThrottleRule, Throttled};
pub use entry::guard::Within;
pub use entry::headers::{ThrottleHeaders, ThrottleHeadersFuture, ThrottleHeadersService};
pub use entry::middleware::{ThrottleFuture, ThrottleMiddleware, ThrottleService};
pub use entry::rule::{IntoRule, Rule};
pub use limits::{Limit, Limits};
pub use request::client_ip::{ClientIp, ProxyHeader};
pub use request::networks::Networks;
pub use request::scope::Scope;
pub use request::source::IntoValue;
pub use response::denial::{Denial, DenialProblem, Throttled as ThrottledError};
pub use response::failed::Failed;
pub use response::headers::{HeaderStyle, Headers};
pub use response::hit_error::HitError;
pub use response::info::RateLimitInfo;
pub use response::unavailable::Unavailable;
pub use response::unresolved::Unresolved;
pub use tenants::Tenants;
pub use tenants::by::{ByTenant, TenantService};
pub use throttle::HttpThrottle;
pub use throttle::admission::Decided;
pub use throttle::answered::Answered;
pub use throttle::ask::Ask;
pub use throttle::backend::ThrottleBackend;
pub use throttle::builder::HttpThrottleBuilder;
pub use throttle::by::By;
#[cfg(feature = "macros")]
pub use traffik_actix_macros::throttle;
#[cfg(feature = "ws")]
pub use ws::{
    Excess, OnExcess, OnSpent, Outbox, SendError, ThrottledMessages, ThrottledSession, WsAsk,
    WsRule, WsThrottle,
};

#[cfg(feature = "ws")]
#[doc(no_inline)]
pub use actix_ws;
#[cfg(feature = "memcached")]
#[doc(no_inline)]
pub use traffik_core::MemcachedBackend;
#[cfg(all(feature = "redis", feature = "store"))]
#[doc(no_inline)]
pub use traffik_core::RedisStore;
#[doc(no_inline)]
pub use traffik_core::{
    self, Backend, BackendExt, Backoff, Batch, BoxFuture, Busy, CircuitBreaker, Clock, Concurrency,
    Decision, Decisions, Error, Flow, Identity, InFlight, Lease, LeaseInfo, Leased, ManualClock,
    MemoryBackend, OnDrop, OnError, Op, Permit, Priority, Rate, Retry, ShadowReport, Stat,
    Timestamp, Verdict, strategy, strategy::Weekday,
};
#[cfg(feature = "store")]
#[doc(no_inline)]
pub use traffik_core::{Entry, Lock, LockConfig, Locked, Store, lock};
#[cfg(feature = "redis")]
#[doc(no_inline)]
pub use traffik_core::{OnOutage, RedisBackend};

/// For the code that `#[throttle]` expands to.
#[doc(hidden)]
pub mod __private {
    pub use actix_web::HttpResponse;

    pub use crate::entry::handler::{HandlerLimits, Unread, check_name, run, throttle_of};
    pub use crate::entry::in_flight::{HandlerInFlight, run_in_flight};
}
