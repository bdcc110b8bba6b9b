//! Values that a throttle gets from a request.

use std::fmt;
use std::sync::Arc;

use actix_web::HttpRequest;
use futures_util::future::LocalBoxFuture;
use traffik_core::{Error, Result};

use crate::request::cause::Cause;

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

/// A value, or the result of a function of the request that may fail to find one.
///
/// To fail is to say that the *request* makes no sense: it is answered **400 Bad Request** (see
/// [`Unresolved`](crate::Unresolved)), nothing is charged, and no [`OnError`](crate::OnError) policy but a
/// handler is asked, so that a client who makes the function fail gains nothing. Fail with an
/// [`actix_web::Error`] to answer otherwise: with `ErrorUnauthorized` if a key is missing, or with
/// `ErrorServiceUnavailable` if it is the server's fault, such as a session store that cannot be reached.
/// The text of the error is logged at debug level and never sent, except that of an `actix_web::Error`.
#[diagnostic::on_unimplemented(
    message = "the function gives neither `{T}` nor a `Result` of it",
    label = "gives `{Self}`",
    note = "an `async` function goes to the method of the same name that ends in `_async`, and an \
            `Option` becomes a `Result` with `.ok_or(\"what is missing\")`, which is answered 400, or \
            with an error of `actix_web::error`, such as `ErrorUnauthorized`"
)]
pub trait IntoValue<T> {
    /// The value, or why there is none. `what` names it in the error.
    ///
    /// # Errors
    ///
    /// If the function failed; the error is [unresolved](Error::is_unresolved).
    fn into_value(self, what: &'static str) -> Result<T>;
}

impl<T> IntoValue<T> for T {
    fn into_value(self, _what: &'static str) -> Result<T> {
        Ok(self)
    }
}

#[diagnostic::do_not_recommend]
impl<T, E: fmt::Display + 'static> IntoValue<T> for std::result::Result<T, E> {
    fn into_value(self, what: &'static str) -> Result<T> {
        // The cause may quote the client: it is for logs, not for the message.
        self.map_err(|error| {
            Error::unresolved(format!(
                "the {what} function could not make sense of the request"
            ))
            .with_source(Cause::new(&error))
        })
    }
}

/// A text that the program knows.
#[diagnostic::do_not_recommend]
impl IntoValue<String> for &'static str {
    fn into_value(self, _what: &'static str) -> Result<String> {
        Ok(self.to_owned())
    }
}

#[diagnostic::do_not_recommend]
impl<E: fmt::Display + 'static> IntoValue<String> for std::result::Result<&'static str, E> {
    fn into_value(self, what: &'static str) -> Result<String> {
        self.map(str::to_owned).into_value(what)
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

    /// Whether it has to be waited for.
    #[inline]
    pub(crate) fn is_async(&self) -> bool {
        matches!(self, Source::Async(_))
    }

    /// Whether it is the very same function.
    #[inline]
    pub(crate) fn is(&self, other: &Source<T>) -> bool {
        match (self, other) {
            (Source::Sync(one), Source::Sync(other)) => Arc::ptr_eq(one, other),
            (Source::Async(one), Source::Async(other)) => Arc::ptr_eq(one, other),
            _ => false,
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
