//! Errors of hits by hand.

use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use traffik_core::Error;

use crate::response::unavailable::Unavailable;
use crate::response::unresolved::Unresolved;

/// Why a throttle could not decide: for `?` in a handler, where it is answered as
/// [`enforce`](crate::HttpThrottle::enforce) would.
///
/// That is a [503](Unavailable) if the backend failed, a [400](Unresolved) or the response of a
/// function's own `actix_web::Error` if the request makes no sense to it.
///
/// ```
/// use actix_web::{HttpRequest, web};
/// use traffik_actix::HttpThrottle;
///
/// async fn search(req: HttpRequest, heavy: web::Data<HttpThrottle>) -> actix_web::Result<&'static str> {
///     Ok(match heavy.hit(&req).await?.is_allowed() {
///         true => "the best results",
///         false => "some results",
///     })
/// }
/// # let _ = search;
/// ```
pub struct HitError(Error);

impl HitError {
    /// What went wrong.
    pub fn error(&self) -> &Error {
        &self.0
    }

    /// The same, to keep.
    pub fn into_inner(self) -> Error {
        self.0
    }
}

impl ResponseError for HitError {
    fn status_code(&self) -> StatusCode {
        match self.0.is_unresolved() {
            true => Unresolved(self.0.clone()).status_code(),
            false => Unavailable(self.0.clone()).status_code(),
        }
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        match self.0.is_unresolved() {
            true => Unresolved(self.0.clone()).error_response(),
            false => Unavailable(self.0.clone()).error_response(),
        }
    }
}

impl std::ops::Deref for HitError {
    type Target = Error;

    fn deref(&self) -> &Error {
        &self.0
    }
}

impl From<Error> for HitError {
    fn from(error: Error) -> Self {
        HitError(error)
    }
}

impl From<HitError> for Error {
    fn from(error: HitError) -> Self {
        error.0
    }
}

impl fmt::Display for HitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for HitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for HitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
