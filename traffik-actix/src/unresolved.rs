//! Requests that the functions of a throttle cannot make sense of.

use std::any::Any;
use std::error::Error as _;
use std::fmt;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use actix_web::web::Bytes;
use actix_web::{HttpResponse, ResponseError};
use traffik_core::Error;

use crate::denial::Problem;

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
        self.0.source()?.downcast_ref::<Cause>()?.answer.as_ref()
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

/// What a function of a throttle failed with.
#[derive(Debug)]
pub(crate) struct Cause {
    text: String,
    answer: Option<Answer>,
}

impl Cause {
    pub(crate) fn new<E: fmt::Display + 'static>(error: &E) -> Cause {
        let error_of_actix = (error as &dyn Any).downcast_ref::<actix_web::Error>();
        Cause {
            text: error.to_string(),
            answer: error_of_actix.map(|error| Answer::new(error.error_response())),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Cause {}

/// A response that errors can carry: they are sent between threads, a response is not.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn new(response: HttpResponse) -> Answer {
        Answer {
            status: response.status(),
            headers: response.headers().clone(),
            // The body of an error is a text. A stream could be sent only once.
            body: response.into_body().try_into_bytes().unwrap_or_default(),
        }
    }

    fn response(&self) -> HttpResponse {
        let mut response = HttpResponse::with_body(self.status, BoxBody::new(self.body.clone()));
        *response.headers_mut() = self.headers.clone();
        response
    }
}
