//! Responses to keep.

use std::fmt;

use actix_web::HttpResponse;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use actix_web::web::Bytes;

/// A response that errors can carry: they are sent between threads, a response is not.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// Keeps a response.
    ///
    /// # Errors
    ///
    /// The response, if its body is a stream, which could be sent only once.
    pub(crate) fn keep(response: HttpResponse) -> Result<Answer, Box<HttpResponse>> {
        let (head, body) = response.into_parts();
        match body.try_into_bytes() {
            Ok(body) => Ok(Answer {
                status: head.status(),
                headers: head.headers().clone(),
                body,
            }),
            Err(body) => Err(Box::new(head.set_body(body))),
        }
    }

    /// The same of the response of an error, whose body is a text.
    pub(crate) fn of_error(response: HttpResponse) -> Answer {
        Answer::keep(response).unwrap_or_else(|response| Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: Bytes::new(),
        })
    }

    pub(crate) fn response(&self) -> HttpResponse {
        let mut response = HttpResponse::with_body(self.status, BoxBody::new(self.body.clone()));
        *response.headers_mut() = self.headers.clone();
        response
    }
}

/// One line, without what it says: there are loggers that write errors for each denied request.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({})", self.status.as_u16())
    }
}
