//! The function that makes a tenant's backend.

use futures_util::future::{LocalBoxFuture, ready};
use traffik_core::Result;

use crate::request::source::IntoValue;
use crate::throttle::backend::ThrottleBackend;

pub(super) trait Make: Send + Sync {
    fn make<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<ThrottleBackend>>;
}

/// A function that does not wait.
pub(super) struct AtOnce<F>(pub(super) F);

/// An async one.
pub(super) struct Awaiting<F>(pub(super) F);

const WHAT: &str = "tenant";

impl<F, R> Make for AtOnce<F>
where
    F: Fn(&str) -> R + Send + Sync,
    R: IntoValue<ThrottleBackend>,
{
    fn make<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<ThrottleBackend>> {
        Box::pin(ready((self.0)(name).into_value(WHAT)))
    }
}

impl<F, R> Make for Awaiting<F>
where
    F: AsyncFn(&str) -> R + Send + Sync,
    R: IntoValue<ThrottleBackend>,
{
    fn make<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<ThrottleBackend>> {
        Box::pin(async move { (self.0)(name).await.into_value(WHAT) })
    }
}
