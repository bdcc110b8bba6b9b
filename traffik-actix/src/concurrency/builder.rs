//! How a [`ConcurrencyLimit`] is made.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse};
use traffik_core::{Concurrency, ConcurrencyBuilder, Error, Identity, Result, headers};
#[cfg(feature = "redis")]
use traffik_core::{OnOutage, RedisBackend};

use crate::concurrency::busy::{BusyDenial, ByNumber};
use crate::concurrency::limit::{ConcurrencyLimit, Settings};
use crate::request::source::{IntoValue, Source};
use crate::response::handler::DeniedHandler;
use crate::response::headers::{Headers, text};

/// Settings of a [`ConcurrencyLimit`].
#[derive(Debug)]
#[must_use]
pub struct ConcurrencyLimitBuilder {
    inner: ConcurrencyBuilder,
    identify: Option<Source<Identity>>,
    max_wait: Duration,
    retry_after: Duration,
    on_denied: Option<DeniedHandler<ByNumber>>,
    headers: Option<Headers>,
}

impl ConcurrencyLimitBuilder {
    pub(super) fn new(name: impl Into<String>) -> ConcurrencyLimitBuilder {
        ConcurrencyLimitBuilder {
            inner: Concurrency::builder(name),
            identify: None,
            max_wait: Duration::ZERO,
            retry_after: Duration::from_secs(1),
            on_denied: None,
            headers: None,
        }
    }

    /// Sets how many requests may be in flight at a time. Required, and at least one.
    pub fn in_flight(mut self, most: u32) -> Self {
        self.inner = self.inner.in_flight(most);
        self
    }

    /// Counts all clients together: what this server can do at a time, not what each of them gets. Denials are
    /// then 503 Service Unavailable.
    pub fn shared(mut self) -> Self {
        self.inner = self.inner.shared();
        self
    }

    /// Counts on a Redis, over all servers that have a limit of this name on it: exactly, with a round trip for each
    /// request, which is not waited for when it ends. What a crashed server had in flight ends with its
    /// [lease](ConcurrencyLimitBuilder::lease). Default: in this process. Needs the feature `redis`.
    ///
    /// See [there](ConcurrencyBuilder::backend) what pauses, outages and losses mean.
    ///
    /// ```no_run
    /// use traffik_actix::{ConcurrencyLimit, OnOutage, RedisBackend};
    ///
    /// let redis = RedisBackend::builder("redis://10.0.0.5").namespace("shop").build()?;
    /// let exports = ConcurrencyLimit::builder("exports")
    ///     .in_flight(10)
    ///     .backend(redis)
    ///     .on_outage(OnOutage::Share(3)) // while Redis is away, each of three servers gives a third
    ///     .build()?;
    /// # let _ = exports;
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    #[cfg(feature = "redis")]
    pub fn backend(mut self, backend: RedisBackend) -> Self {
        self.inner = self.inner.backend(backend);
        self
    }

    /// Sets for how long a request counts on a backend if its server says nothing more: from 10 ms to an hour. Default:
    /// 10 seconds, renewed every third of it.
    #[cfg(feature = "redis")]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.inner = self.inner.lease(lease);
        self
    }

    /// Sets what is done while the backend cannot be asked. Default: [deny](OnOutage::Deny).
    #[cfg(feature = "redis")]
    pub fn on_outage(mut self, on_outage: OnOutage) -> Self {
        self.inner = self.inner.on_outage(on_outage);
        self
    }

    /// Sets who asks. Default: what the [`ThrottleBackend`](crate::ThrottleBackend) of the application says,
    /// else [`ClientIp::peer`](crate::ClientIp::peer). If it [fails](IntoValue), the request is answered 400.
    pub fn identify<F, R>(mut self, identify: F) -> Self
    where
        F: Fn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<Identity>,
    {
        self.identify = Some(Source::sync("identity", identify));
        self
    }

    /// The same with an async function.
    pub fn identify_async<F, R>(mut self, identify: F) -> Self
    where
        F: AsyncFn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<Identity>,
    {
        self.identify = Some(Source::awaiting("identity", identify));
        self
    }

    /// Lets requests wait up to this long for their turn, in the order in which they came. Default: deny at once.
    ///
    /// A request that is dropped frees its place; when actix-web drops it, see
    /// [there](crate::HttpThrottleBuilder::wait_up_to).
    pub fn wait_up_to(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    /// Sets how many requests may wait at a time, over all clients; more are denied at once. Default: 1,000.
    pub fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.inner = self.inner.max_waiters(max_waiters);
        self
    }

    /// Sets how many requests of one client may wait at a time, so that nobody takes every place. Default: a
    /// quarter of [`max_waiters`](ConcurrencyLimitBuilder::max_waiters), and at least one.
    pub fn max_waiters_per_client(mut self, max_waiters: usize) -> Self {
        self.inner = self.inner.max_waiters_per_client(max_waiters);
        self
    }

    /// Sets when denied clients are told to come back, since nobody knows when a request ends. Default: after a
    /// second.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = wait;
        self
    }

    /// Sets the response to denied requests. Default: [the usual](BusyDenial::default_response).
    pub fn on_denied<F>(mut self, handler: F) -> Self
    where
        F: Fn(&BusyDenial<'_>) -> HttpResponse + Send + Sync + 'static,
    {
        self.on_denied = Some(DeniedHandler::<ByNumber>::now(handler));
        self
    }

    /// Sets an async function that answers them.
    pub fn on_denied_async<F>(mut self, handler: F) -> Self
    where
        F: AsyncFn(&BusyDenial<'_>) -> HttpResponse + Send + Sync + 'static,
    {
        self.on_denied = Some(DeniedHandler::<ByNumber>::later(handler));
        self
    }

    /// Sets which responses carry headers. Default: all; if it is [shared](ConcurrencyLimitBuilder::shared),
    /// denials only, since what a server can do is nobody's quota.
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = Some(headers);
        self
    }

    /// The limit.
    ///
    /// # Errors
    ///
    /// If the name is empty, not printable ASCII or longer than 256 bytes; if it is not said how many may be in
    /// flight, or none; if a lease is too short or too long, or is one of no backend.
    pub fn build(self) -> Result<ConcurrencyLimit, Error> {
        let counter = self.inner.build()?;
        let mut policy = String::new();
        headers::push_concurrency_policy(&mut policy, counter.name(), counter.limit());
        let usual = match counter.is_shared() {
            true => Headers::Denied,
            false => Headers::Always,
        };
        Ok(ConcurrencyLimit(Arc::new(Settings {
            quoted_name: headers::beginning(counter.name()),
            policy: text(policy.into_bytes()),
            counter,
            identify: self.identify,
            max_wait: self.max_wait,
            retry_after: self.retry_after,
            on_denied: self.on_denied,
            headers: self.headers.unwrap_or(usual),
        })))
    }
}
