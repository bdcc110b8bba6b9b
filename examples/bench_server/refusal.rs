//! What a request is told that makes no sense, or cannot be served now.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

/// An error that says what was wrong and what would be right.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    error: String,
}

impl Refusal {
    pub(crate) fn bad_request(error: impl Into<String>) -> Refusal {
        Refusal {
            status: StatusCode::BAD_REQUEST,
            error: error.into(),
        }
    }

    pub(crate) fn conflict(error: impl Into<String>) -> Refusal {
        Refusal {
            status: StatusCode::CONFLICT,
            error: error.into(),
        }
    }

    /// The backend does not answer.
    pub(crate) fn unavailable(error: &traffik_actix::Error) -> Refusal {
        Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error: error.to_string(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status).json(json!({"status": "error", "error": self.error}))
    }
}
