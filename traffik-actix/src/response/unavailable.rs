use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};

use crate::response::problem::{Problem, REDUCED_CAPACITY};

/// The cause of a 503: a backend failed and the policy is to [raise](traffik_core::OnError::Raise).
pub struct Unavailable(pub(crate) traffik_core::Error);

impl Unavailable {
    /// What failed.
    pub fn error(&self) -> &traffik_core::Error {
        &self.0
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rate limits cannot be checked: {}", self.0)
    }
}

/// One line: there are loggers that write it for each such request.
impl fmt::Debug for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unavailable({})", self.0)
    }
}

impl ResponseError for Unavailable {
    fn status_code(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        // What failed is for the log, not for the client.
        let (kind, title) = REDUCED_CAPACITY;
        Problem {
            kind,
            title,
            status: self.status_code(),
            detail: "Rate limits cannot be checked at the moment.",
            violated: &[],
            wait: None,
        }
        .response()
    }
}
