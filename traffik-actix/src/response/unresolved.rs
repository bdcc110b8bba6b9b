//! Requests that the functions of a throttle cannot make sense of.

use std::error::Error as _;
use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use traffik_core::Error;

use crate::request::cause::Cause;
use crate::response::answer::Answer;
use crate::response::problem::Problem;

/// The cause of a 400: a function that should say who asks, at what cost or under which rate, could
/// not make sense of the request.
///
/// If the function failed with an [`actix_web::Error`], the response is the one of that error:
/// `ErrorUnauthorized` is a 401, and `ErrorServiceUnavailable` a 503.
pub struct Unresolved(pub(crate) Error);

impl Unresolved {
    /// What failed; its source is what the function said.
    pub fn error(&self) -> &Error {
        &self.0
    }

    fn answer(&self) -> Option<&Answer> {
        self.0.source()?.downcast_ref::<Cause>()?.answer()
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One line, without the cause, which may quote the client.
impl fmt::Debug for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unresolved({})", self.0)
    }
}

impl ResponseError for Unresolved {
    fn status_code(&self) -> StatusCode {
        self.answer()
            .map_or(StatusCode::BAD_REQUEST, |answer| answer.status)
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        match self.answer() {
            Some(answer) => answer.response(),
            // The cause may quote the client; the error itself does not.
            None => Problem {
                kind: "about:blank",
                title: "Bad Request",
                status: StatusCode::BAD_REQUEST,
                detail: &self.0.to_string(),
                violated: &[],
                wait: None,
            }
            .response(),
        }
    }
}
