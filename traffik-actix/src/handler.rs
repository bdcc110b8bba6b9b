//! What `#[throttle]` expands to calls. Not part of the public API.

use std::sync::OnceLock;

use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Responder, web};
use smallvec::SmallVec;
use traffik_core::{Error, Result};

use crate::admission::{self, Outcome};
use crate::denial::Unavailable;
use crate::throttle::HttpThrottle;

/// The throttles of one handler, built when the first request comes.
#[derive(Debug)]
pub struct HandlerLimits {
    build: fn() -> Vec<Result<HttpThrottle, Error>>,
    built: OnceLock<std::result::Result<Vec<HttpThrottle>, String>>,
}

impl HandlerLimits {
    /// Throttles that `build` makes, once.
    pub const fn new(build: fn() -> Vec<Result<HttpThrottle, Error>>) -> HandlerLimits {
        HandlerLimits {
            build,
            built: OnceLock::new(),
        }
    }

    fn throttles(&self) -> std::result::Result<SmallVec<[&HttpThrottle; 4]>, Unavailable> {
        let built = self.built.get_or_init(|| {
            let built: Result<Vec<_>> = (self.build)().into_iter().collect();
            // What the macro could not see, such as an expression: it is the same for every request.
            built.map_err(|error| {
                log::error!("a `#[throttle]` is invalid, its handler cannot be served: {error}");
                error.to_string()
            })
        });
        match built {
            Ok(throttles) => Ok(throttles.iter().collect()),
            Err(error) => Err(Unavailable(Error::invalid(error.clone()))),
        }
    }
}

/// Decides, then extracts the arguments, then calls the handler.
///
/// Arguments of an actix handler are extracted all at once. Were the throttle one of them, the body
/// of a denied request would be read and parsed, and a malformed one answered 400 before the throttle
/// was asked.
pub async fn run<H, Args>(
    limits: &'static HandlerLimits,
    req: HttpRequest,
    payload: web::Payload,
    handler: H,
) -> HttpResponse
where
    H: Handler<Args>,
    Args: FromRequest,
    H::Output: Responder,
{
    let throttles = match limits.throttles() {
        Ok(throttles) => throttles,
        Err(invalid) => return HttpResponse::from_error(invalid),
    };
    let outcome = match admission::admit_now(&throttles, &req, None) {
        Ok(outcome) => outcome,
        Err(undecided) => admission::admit_later(&throttles, &req, None, undecided).await,
    };
    let receipt = match outcome {
        Outcome::Admitted(receipt) => receipt,
        Outcome::Denied(response) => return response,
    };
    let mut payload = payload.into_inner();
    let mut response = match Args::from_request(&req, &mut payload).await {
        Ok(args) => handler
            .call(args)
            .await
            .respond_to(&req)
            .map_into_boxed_body(),
        Err(error) => HttpResponse::from_error(error),
    };
    receipt.stamp(response.headers_mut());
    response
}
