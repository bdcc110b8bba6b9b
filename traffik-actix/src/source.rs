//! Values that a throttle gets from a request.

use std::fmt;
use std::sync::Arc;

use actix_web::HttpRequest;
use futures_util::future::LocalBoxFuture;
use traffik_core::{Error, Result};

/// A function of the request that gives a value, at once or after a while.
#[derive(Clone)]
pub(crate) enum Source<T> {
    Sync(Arc<SyncFn<T>>),
    Async(Arc<dyn AsyncSource<T> + Send + Sync>),
}

type SyncFn<T> = dyn Fn(&HttpRequest) -> Result<T> + Send + Sync;

pub(crate) trait AsyncSource<T> {
    fn get<'a>(&'a self, req: &'a HttpRequest) -> LocalBoxFuture<'a, Result<T>>;
}

/// A value, or the result of a function that may fail to find one.
pub trait IntoValue<T> {
    /// The value, or why there is none. `what` names it in the error.
    ///
    /// # Errors
    ///
    /// If the function failed.
    fn into_value(self, what: &'static str) -> Result<T>;
}

impl<T> IntoValue<T> for T {
    fn into_value(self, _what: &'static str) -> Result<T> {
        Ok(self)
    }
}

impl<T, E: fmt::Display> IntoValue<T> for std::result::Result<T, E> {
    fn into_value(self, what: &'static str) -> Result<T> {
        // The cause may quote the client: it is for logs, not for the message.
        self.map_err(|error| {
            Error::other(format!("the {what} function of a throttle failed"))
                .with_source(error.to_string())
        })
    }
}

impl<T> Source<T> {
    pub(crate) fn sync<F, R>(what: &'static str, f: F) -> Source<T>
    where
        F: Fn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<T>,
    {
        Source::Sync(Arc::new(move |req| f(req).into_value(what)))
    }

    pub(crate) fn awaiting<F, R>(what: &'static str, f: F) -> Source<T>
    where
        F: AsyncFn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<T>,
    {
        Source::Async(Arc::new(Awaiting { what, f }))
    }

    /// The value, unless it has to be waited for.
    #[inline]
    pub(crate) fn now(&self, req: &HttpRequest) -> Option<Result<T>> {
        match self {
            Source::Sync(f) => Some(f(req)),
            Source::Async(_) => None,
        }
    }

    pub(crate) async fn get(&self, req: &HttpRequest) -> Result<T> {
        match self {
            Source::Sync(f) => f(req),
            Source::Async(f) => f.get(req).await,
        }
    }
}

impl<T> fmt::Debug for Source<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Sync(_) => "function",
            Source::Async(_) => "async function",
        })
    }
}

struct Awaiting<F> {
    what: &'static str,
    f: F,
}

impl<T, F, R> AsyncSource<T> for Awaiting<F>
where
    F: AsyncFn(&HttpRequest) -> R,
    R: IntoValue<T>,
{
    fn get<'a>(&'a self, req: &'a HttpRequest) -> LocalBoxFuture<'a, Result<T>> {
        Box::pin(async move { (self.f)(req).await.into_value(self.what) })
    }
}
