//! What `#[throttle]` expands to calls. Not part of the public API.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Responder, web};
use smallvec::SmallVec;
use traffik_core::{Error, Result};

use crate::limits::Limits;
use crate::limits::live::Current;
use crate::request::body;
use crate::response::problem::Problem;
use crate::throttle::HttpThrottle;
use crate::throttle::admission::{self, Outcome, Undecided};
use crate::throttle::answered::{Answered, Dues};

/// The throttles of one handler, built when the first request comes.
#[derive(Debug)]
pub struct HandlerLimits {
    build: fn() -> Vec<Result<HttpThrottle, Error>>,
    built: OnceLock<Option<Vec<HttpThrottle>>>,
    /// Those of the application's [`Limits`], each at its place among all.
    named: &'static [(usize, &'static str)],
    /// That one of those is not there was said.
    explained: AtomicBool,
}

type Throttles<'a> = SmallVec<[Current<'a>; 4]>;

impl HandlerLimits {
    /// Throttles that `build` makes, once.
    pub const fn new(build: fn() -> Vec<Result<HttpThrottle, Error>>) -> HandlerLimits {
        HandlerLimits {
            build,
            built: OnceLock::new(),
            named: &[],
            explained: AtomicBool::new(false),
        }
    }

    /// And these of the application's `Limits`.
    pub const fn with_named(
        build: fn() -> Vec<Result<HttpThrottle, Error>>,
        named: &'static [(usize, &'static str)],
    ) -> HandlerLimits {
        HandlerLimits {
            build,
            built: OnceLock::new(),
            named,
            explained: AtomicBool::new(false),
        }
    }

    /// The throttles, if none of them is one of the application's, or a mistake.
    #[inline]
    fn fixed(&self) -> Option<&[HttpThrottle]> {
        match self.named {
            [] => self.built(),
            _ => None,
        }
    }

    /// The throttles, unless one of them is a mistake of the program.
    fn throttles(&self, req: &HttpRequest) -> Option<Throttles<'_>> {
        let built = self.built()?.iter().map(Current::Fixed);
        match self.named {
            [] => Some(built.collect()),
            named => self.with_those_of_the_application(named, built.collect(), req),
        }
    }

    fn with_those_of_the_application<'a>(
        &self,
        named: &[(usize, &str)],
        mut throttles: Throttles<'a>,
        req: &HttpRequest,
    ) -> Option<Throttles<'a>> {
        let found = Limits::of(req).and_then(|limits| limits.in_force(named));
        match found {
            Ok(found) => {
                for ((at, _), throttle) in named.iter().zip(found) {
                    throttles.insert(*at, Current::Live(throttle));
                }
                Some(throttles)
            }
            Err(error) => {
                if !self.explained.swap(true, Ordering::Relaxed) {
                    log::error!("a handler is not served: {error}");
                }
                None
            }
        }
    }

    fn built(&self) -> Option<&[HttpThrottle]> {
        let built = self.built.get_or_init(|| all((self.build)()));
        built.as_deref()
    }
}

/// What was made for a handler, unless some of it could not be: that the log tells.
pub(crate) fn all<T>(made: Vec<Result<T>>) -> Option<Vec<T>> {
    let made: Result<Vec<_>> = made.into_iter().collect();
    // What the macro could not see, such as an expression: it is the same for every request.
    made.inspect_err(|error| {
        log::error!("a `#[throttle]` is invalid, its handler is not served: {error}");
    })
    .ok()
}

/// The answer of a handler whose limits are invalid: nothing passes unlimited, and the log says why.
#[cold]
pub(crate) fn broken() -> HttpResponse {
    Problem {
        kind: "about:blank",
        title: "Internal Server Error",
        status: StatusCode::INTERNAL_SERVER_ERROR,
        detail: "The limits of this handler are invalid.",
        violated: &[],
        wait: None,
    }
    .response()
}

/// Decides, then extracts the arguments, then calls the handler.
///
/// Arguments of an actix handler are extracted all at once. Were the throttle one of them, the body
/// of a denied request would be read and parsed, and a malformed one answered 400 before the throttle
/// was asked.
pub fn run<H, Args>(
    limits: &'static HandlerLimits,
    req: HttpRequest,
    payload: web::Payload,
    handler: H,
) -> impl Future<Output = HttpResponse>
where
    H: Handler<Args>,
    Args: FromRequest,
    H::Output: Responder,
{
    answer(limits, req, payload.into_inner(), handler)
}

pub(crate) async fn answer<H, Args>(
    limits: &'static HandlerLimits,
    req: HttpRequest,
    mut payload: Payload,
    handler: H,
) -> HttpResponse
where
    H: Handler<Args>,
    Args: FromRequest,
    H::Output: Responder,
{
    let found;
    let throttles: SmallVec<[&HttpThrottle; 4]> = match limits.fixed() {
        Some(fixed) => fixed.iter().collect(),
        None => {
            found = limits.throttles(&req);
            match &found {
                Some(found) => found.iter().map(|one| &**one).collect(),
                None => return broken(),
            }
        }
    };
    let settles = throttles.iter().any(|one| one.after().is_anything());
    let decided = match settles {
        true => Err(Undecided::UNASKED),
        false => admission::admit_now(&throttles, &req, None),
    };
    let outcome = match decided {
        Ok(outcome) => Some((outcome, Dues::default())),
        // Boxed, since these futures are large, and room for them would be made with every request.
        Err(undecided) => {
            let decided = Box::pin(admission::admit_later(&throttles, &req, None, undecided));
            match throttles.iter().any(|throttle| throttle.waits()) {
                true => Box::pin(body::unless_gone(req.version(), &mut payload, decided)).await,
                false => Some(decided.await),
            }
        }
    };
    let (receipt, dues) = match outcome {
        Some((Outcome::Admitted(receipt), dues)) => (receipt, dues),
        Some((Outcome::Denied(reply), _)) => {
            return Box::pin(reply.after(&req, payload)).await;
        }
        None => return admission::gone(),
    };
    let mut response = match Args::from_request(&req, &mut payload).await {
        Ok(args) => handler
            .call(args)
            .await
            .respond_to(&req)
            .map_into_boxed_body(),
        Err(error) => HttpResponse::from_error(error),
    };
    if !dues.is_empty() {
        dues.settle(&Answered::of(Some(&req), &response));
    }
    receipt.stamp(response.headers_mut());
    response
}
