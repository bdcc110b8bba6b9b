//! Why a function could not make sense of a request.

use std::any::Any;
use std::fmt;

use actix_web::HttpResponse;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use actix_web::web::Bytes;

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

    /// What it is answered, if it was an error of actix-web.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
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
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
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

    pub(crate) fn response(&self) -> HttpResponse {
        let mut response = HttpResponse::with_body(self.status, BoxBody::new(self.body.clone()));
        *response.headers_mut() = self.headers.clone();
        response
    }
}
