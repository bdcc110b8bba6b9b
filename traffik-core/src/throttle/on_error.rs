use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Throttle;
use crate::backend::{Backend, BoxFuture};
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::rate::Rate;

type Handler = dyn Fn(&Failure<'_>) -> BoxFuture<'static, Result<Decision>> + Send + Sync;

/// What to do with a hit when the backend fails.
///
/// Only a handler is asked about hits of which it is not even known who makes them, at what cost or
/// under which rate ([`Error::is_unresolved`]). Under any other policy that error is returned: admitting
/// them would open the limit to whoever can make the function fail, and denying them would announce
/// a time when it is over, which nobody knows.
#[derive(Clone, Default)]
pub enum OnError {
    /// Admit: availability before protection.
    Allow,
    /// Deny for the throttle's minimum wait, else for [a second](OnError::WAIT): protection before
    /// availability. The default.
    #[default]
    Throttle,
    /// Return the error.
    Raise,
    /// Ask a function; see [`OnError::handler`].
    Handler(Arc<Handler>),
}

impl OnError {
    /// How long [`OnError::Throttle`] denies if the throttle has no minimum wait.
    pub const WAIT: Duration = Duration::from_secs(1);

    /// Asks a function of yours, which sees everything about the hit but may not borrow from it
    /// while it waits.
    ///
    /// ```
    /// use std::time::Duration;
    /// use traffik_core::{Decision, OnError};
    ///
    /// let policy = OnError::handler(|failure| {
    ///     let answer = match failure.error.is_timeout() {
    ///         true => failure.allow(),
    ///         false => failure.deny_for(Duration::from_secs(5)),
    ///     };
    ///     async move { Ok(answer) }
    /// });
    /// # let _ = policy;
    /// ```
    pub fn handler<F, Fut>(handler: F) -> OnError
    where
        F: Fn(&Failure<'_>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Decision>> + Send + 'static,
    {
        OnError::Handler(Arc::new(move |failure| Box::pin(handler(failure))))
    }

    /// What this policy answers; `None` to return the error itself.
    pub async fn answer(&self, failure: &Failure<'_>) -> Option<Result<Decision>> {
        match self {
            OnError::Handler(handler) => Some(handler(failure).await),
            _ => self.answer_now(failure)?.map(Ok),
        }
    }

    /// The same without waiting; `None` if the policy has to wait.
    pub fn answer_now(&self, failure: &Failure<'_>) -> Option<Option<Decision>> {
        match self {
            OnError::Handler(_) => None,
            _ if failure.error.is_unresolved() => Some(None),
            OnError::Raise => Some(None),
            OnError::Allow => Some(Some(failure.allow())),
            OnError::Throttle => {
                let wait = failure.throttle.min_wait().unwrap_or(Self::WAIT);
                Some(Some(failure.deny_for(wait)))
            }
        }
    }
}

/// Decides hits that a backend failed to; for frameworks, whose error handlers may know more about
/// a hit than this crate does.
pub trait Recover {
    /// The decision, or nothing to return the error itself, if that need not be waited for.
    fn recover_now(&self, failure: &Failure<'_>) -> Option<Option<Decision>>;

    /// The decision, or nothing to return the error itself.
    fn recover(&self, failure: &Failure<'_>) -> impl Future<Output = Option<Result<Decision>>>;
}

/// For throttles that have no policy of their own.
impl Recover for &OnError {
    fn recover_now(&self, failure: &Failure<'_>) -> Option<Option<Decision>> {
        let policy = failure.throttle.on_error().unwrap_or(self);
        policy.answer_now(failure)
    }

    async fn recover(&self, failure: &Failure<'_>) -> Option<Result<Decision>> {
        let policy = failure.throttle.on_error().unwrap_or(self);
        policy.answer(failure).await
    }
}

impl fmt::Debug for OnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OnError::Allow => "Allow",
            OnError::Throttle => "Throttle",
            OnError::Raise => "Raise",
            OnError::Handler(_) => "Handler(..)",
        })
    }
}

/// A hit that could not be decided, for error handlers.
///
/// If the error [is unresolved](Error::is_unresolved), it failed before there was a hit: a function that
/// should say who asks, at what cost or under which rate, could not make sense of the request. What it
/// did not say has its default below, and no backend was asked.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Failure<'a> {
    /// What went wrong.
    pub error: &'a Error,
    /// The throttle.
    pub throttle: &'a Throttle,
    /// Who asked; [`Identity::ANONYMOUS`] if that is not known.
    pub identity: &'a Identity,
    /// In which scope.
    pub scope: Option<&'a str>,
    /// The rate in force.
    pub rate: Rate,
    /// The cost of the hit.
    pub cost: u32,
    /// The backend that failed, or was not asked.
    pub backend: &'a dyn Backend,
}

impl<'a> Failure<'a> {
    /// A hit that failed before its identity, rate or cost was known: those are the defaults.
    #[doc(hidden)]
    pub fn before_hit(
        error: &'a Error,
        throttle: &'a Throttle,
        backend: &'a dyn Backend,
    ) -> Failure<'a> {
        static ANONYMOUS: Identity = Identity::ANONYMOUS;
        Failure {
            error,
            throttle,
            identity: &ANONYMOUS,
            scope: None,
            rate: throttle.rate(),
            cost: throttle.cost(),
            backend,
        }
    }

    /// Admits the hit, marked as degraded and [unchecked](Decision::is_unchecked).
    pub fn allow(&self) -> Decision {
        Decision::UNLIMITED.into_unchecked()
    }

    /// Denies the hit for a while, marked as degraded and [unchecked](Decision::is_unchecked).
    pub fn deny_for(&self, wait: Duration) -> Decision {
        let limit = u64::from(self.rate.limit());
        Decision::deny(limit, 0, crate::time::micros(wait)).into_unchecked()
    }
}
