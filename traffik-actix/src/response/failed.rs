//! What to do when a limit cannot be checked.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use actix_web::HttpRequest;
use futures_util::future::LocalBoxFuture;
use traffik_core::{Decision, Failure, OnError, Recover, Result};

use crate::throttle::HttpThrottle;
use crate::throttle::backend::ThrottleBackend;

/// A request that a throttle could not decide, for error handlers.
///
/// Everything about the hit is there as well: see [`Failure`]. If its error
/// [is unresolved](traffik_core::Error::is_unresolved), there was no hit yet: a function of the throttle
/// could not make sense of the request, which the client can bring about. Return that error, as below, or
/// deny; to admit opens the limit.
///
/// ```
/// use std::time::Duration;
/// use traffik_actix::{Decision, Error, Failed, HttpThrottle};
///
/// async fn when_in_doubt(failed: &Failed<'_>) -> Result<Decision, Error> {
///     if failed.error.is_unresolved() {
///         return Err(failed.error.clone()); // 400
///     }
///     let signed_in = failed.request.headers().contains_key("authorization");
///     match signed_in && failed.error.is_timeout() {
///         true => Ok(failed.allow()),
///         false => Ok(failed.deny_for(Duration::from_secs(5))),
///     }
/// }
///
/// let api = HttpThrottle::builder("api").rate("100/minute").on_error_by(when_in_doubt).build()?;
/// # let _ = api;
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Failed<'a> {
    /// The request. Its body has not been read.
    pub request: &'a HttpRequest,
    /// The hit, and what went wrong.
    pub failure: &'a Failure<'a>,
}

impl<'a> Deref for Failed<'a> {
    type Target = Failure<'a>;

    fn deref(&self) -> &Failure<'a> {
        self.failure
    }
}

/// One line, without the request and who asks: headers may have secrets.
impl fmt::Debug for Failed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.failure.throttle.name();
        write!(f, "Failed(throttle `{name}`: {})", self.failure.error)
    }
}

/// A policy, or a function of the request.
#[derive(Clone)]
pub(crate) enum ErrorPolicy {
    Fixed(OnError),
    By(Arc<dyn Handler + Send + Sync>),
}

pub(crate) trait Handler {
    fn answer<'a>(&'a self, failed: &'a Failed<'a>) -> LocalBoxFuture<'a, Result<Decision>>;
}

impl<F: AsyncFn(&Failed<'_>) -> Result<Decision>> Handler for F {
    fn answer<'a>(&'a self, failed: &'a Failed<'a>) -> LocalBoxFuture<'a, Result<Decision>> {
        Box::pin(self(failed))
    }
}

impl ErrorPolicy {
    pub(crate) fn by<F>(handler: F) -> ErrorPolicy
    where
        F: AsyncFn(&Failed<'_>) -> Result<Decision> + Send + Sync + 'static,
    {
        ErrorPolicy::By(Arc::new(handler))
    }
}

/// The policy that is in force for a request.
#[derive(Clone, Copy)]
pub(crate) struct Recovery<'a> {
    policy: &'a ErrorPolicy,
    request: &'a HttpRequest,
}

impl<'a> Recovery<'a> {
    #[inline]
    pub(crate) fn of(
        throttle: &'a HttpThrottle,
        backend: &'a ThrottleBackend,
        request: &'a HttpRequest,
    ) -> Recovery<'a> {
        Recovery {
            policy: throttle.on_error(backend),
            request,
        }
    }
}

impl Recover for Recovery<'_> {
    fn recover_now(&self, failure: &Failure<'_>) -> Option<Option<Decision>> {
        match self.policy {
            ErrorPolicy::Fixed(policy) => policy.answer_now(failure),
            ErrorPolicy::By(_) => None,
        }
    }

    async fn recover(&self, failure: &Failure<'_>) -> Option<Result<Decision>> {
        let request = self.request;
        let answer = match self.policy {
            ErrorPolicy::Fixed(policy) => policy.answer(failure).await?,
            ErrorPolicy::By(handler) => handler.answer(&Failed { request, failure }).await,
        };
        let floor = failure.throttle.min_wait().unwrap_or_default();
        Some(answer.map(|decision| decision.with_min_wait(floor)))
    }
}

impl fmt::Debug for ErrorPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorPolicy::Fixed(policy) => policy.fmt(f),
            ErrorPolicy::By(_) => f.write_str("async function"),
        }
    }
}
