//! What requests are answered of which there are too many at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use traffik_core::Busy;
use traffik_core::headers::whole_seconds;

use crate::concurrency::limit::ConcurrencyLimit;
use crate::response::answer::Answer;
use crate::response::handler::Kind;
use crate::response::problem::{Problem, QUOTA_EXCEEDED, REDUCED_CAPACITY};

/// A request that was denied since as many as may be are in flight, for functions that answer it: see
/// [`on_denied`](crate::ConcurrencyLimitBuilder::on_denied).
#[derive(Debug)]
#[non_exhaustive]
pub struct BusyDenial<'a> {
    /// The request. Its body has not been read.
    pub request: &'a HttpRequest,
    /// The limit.
    pub limit: &'a ConcurrencyLimit,
    /// How many may be in flight, and whether the request waited in vain.
    pub busy: Busy,
}

impl BusyDenial<'_> {
    /// When the client is told to come back.
    pub fn retry_after(&self) -> Duration {
        self.limit.retry_after()
    }

    /// 429 Too Many Requests, or 503 Service Unavailable if [all clients count
    /// together](crate::ConcurrencyLimitBuilder::shared): then this one did nothing wrong. With `Retry-After`,
    /// `Cache-Control: no-store` and a body of type `application/problem+json`, which are added to the answer of
    /// any function, unless it has its own.
    pub fn default_response(&self) -> HttpResponse {
        HttpResponse::from_error(self.cause())
    }

    pub(crate) fn cause(&self) -> TooManyInFlight {
        TooManyInFlight {
            name: self.limit.name().to_owned(),
            is_shared: self.limit.counter().is_shared(),
            most: self.busy.limit(),
            is_known: self.busy.failure().is_none(),
            wait: self.retry_after(),
            answer: None,
        }
    }
}

/// The cause of such a 429 or 503, as `HttpResponse::error` and `Logger` see it.
#[derive(Clone, Debug)]
pub struct TooManyInFlight {
    name: String,
    is_shared: bool,
    most: u32,
    /// Not while the backend of the limit cannot be asked.
    is_known: bool,
    wait: Duration,
    /// What it is answered, if a function has said so.
    answer: Option<Arc<Answer>>,
}

impl TooManyInFlight {
    /// The name of the limit.
    pub fn limit(&self) -> &str {
        &self.name
    }

    /// When the client is told to come back.
    pub fn retry_after(&self) -> Duration {
        self.wait
    }

    /// The error of a handler, which is rendered as this response.
    pub(crate) fn answered(self, response: HttpResponse) -> actix_web::Error {
        match Answer::keep(response) {
            Ok(answer) => TooManyInFlight {
                answer: Some(Arc::new(answer)),
                ..self
            }
            .into(),
            Err(response) => InternalError::from_response(self.to_string(), *response).into(),
        }
    }
}

impl fmt::Display for TooManyInFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_known {
            return write!(f, "how many are in flight by {} is not known", self.name);
        }
        write!(f, "{} requests are in flight by {}", self.most, self.name)
    }
}

impl ResponseError for TooManyInFlight {
    fn status_code(&self) -> StatusCode {
        match (&self.answer, self.is_shared) {
            (Some(answer), _) => answer.status,
            (None, true) => StatusCode::SERVICE_UNAVAILABLE,
            (None, false) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        if let Some(answer) = &self.answer {
            return answer.response();
        }
        let (kind, title) = match self.is_shared {
            true => REDUCED_CAPACITY,
            false => QUOTA_EXCEEDED,
        };
        let what = match (self.is_known, self.is_shared, self.most) {
            (false, ..) => "Requests cannot be counted at the moment".to_owned(),
            (true, true, _) => "The server is busy".to_owned(),
            (true, false, 1) => "Your last request is not answered yet".to_owned(),
            (true, false, most) => format!("{most} of your requests are not answered yet"),
        };
        let detail = match whole_seconds(self.wait).max(1) {
            1 => format!("{what}. Retry in 1 second."),
            seconds => format!("{what}. Retry in {seconds} seconds."),
        };
        // Nobody violated what could not be counted.
        let violated = match self.is_known && !self.is_shared {
            true => vec![self.name.clone()],
            false => Vec::new(),
        };
        Problem {
            kind,
            title,
            status: self.status_code(),
            detail: &detail,
            violated: &violated,
            wait: Some(self.wait),
        }
        .response()
    }
}

/// A denial since as many as may be are in flight, for functions that answer it.
#[derive(Debug)]
pub(crate) enum ByNumber {}

impl Kind for ByNumber {
    type Denial<'a> = BusyDenial<'a>;
}
