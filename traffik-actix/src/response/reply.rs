//! Answers to requests that go no further.

use std::fmt;

use actix_web::body::EitherBody;
use actix_web::dev::{Payload, ServiceResponse};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::future::LocalBoxFuture;

use crate::request::body;

/// An answer that is there, or has to be waited for.
pub(crate) enum Reply {
    /// Boxed, since this is moved with every request.
    Now(Box<HttpResponse>),
    Later(LocalBoxFuture<'static, HttpResponse>),
}

impl Reply {
    pub(crate) fn now(response: HttpResponse) -> Reply {
        Reply::Now(Box::new(response))
    }

    pub(crate) async fn get(self) -> HttpResponse {
        match self {
            Reply::Now(response) => *response,
            Reply::Later(response) => response.await,
        }
    }

    /// The response of a handler, after the rest of the request's body if that is small.
    pub(crate) async fn after(self, req: &HttpRequest, payload: Payload) -> HttpResponse {
        let response = self.get().await;
        body::drain(req.headers(), payload).await;
        response
    }

    /// The same of a middleware.
    pub(crate) async fn send<B>(
        self,
        req: HttpRequest,
        payload: Payload,
    ) -> ServiceResponse<EitherBody<B>> {
        let response = self.after(&req, payload).await;
        denied(req, response)
    }
}

/// A request answered without the service. `ServiceRequest::into_response` would lose the cause
/// that `Logger` and `ErrorHandlers` want to see.
pub(crate) fn denied<B>(
    req: HttpRequest,
    response: HttpResponse,
) -> ServiceResponse<EitherBody<B>> {
    ServiceResponse::new(req, response).map_into_right_body()
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Now(response) => f.debug_tuple("Now").field(&response.status()).finish(),
            Reply::Later(_) => f.write_str("Later"),
        }
    }
}
