//! What `#[throttle]` expands to calls. Not part of the public API.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Responder};
use smallvec::{SmallVec, smallvec};
use traffik_core::__private::LONGEST_NAME;
use traffik_core::{Error, Result};

use crate::limits::Limits;
use crate::limits::live::Current;
use crate::request::body;
use crate::response::problem::Problem;
use crate::response::reply::Reply;
use crate::throttle::HttpThrottle;
use crate::throttle::admission::{self, Outcome, Receipt, Undecided};
use crate::throttle::answered::{Answered, Dues};
use crate::throttle::builder::HttpThrottleBuilder;

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

/// A request that has to wait, and what is known about it.
struct Waiting<'a> {
    throttles: Throttles<'a>,
    undecided: Undecided,
}

impl<'a> Waiting<'a> {
    #[cold]
    fn new(throttles: Throttles<'a>, undecided: Undecided) -> Option<Box<Waiting<'a>>> {
        Some(Box::new(Waiting {
            throttles,
            undecided,
        }))
    }
}

fn all_of<'t>(throttles: &'t Throttles<'_>) -> SmallVec<[&'t HttpThrottle; 4]> {
    throttles.iter().map(|one| &**one).collect()
}

/// Decides without waiting, unless somebody looks at the response.
fn decide(
    throttles: &[&HttpThrottle],
    req: &HttpRequest,
) -> std::result::Result<Outcome, Undecided> {
    match throttles.iter().any(|one| one.after().is_anything()) {
        true => Err(Undecided::UNASKED),
        false => admission::admit_now(throttles, req, None),
    }
}

/// The same for one throttle.
#[inline]
fn decide_one(
    throttle: &HttpThrottle,
    req: &HttpRequest,
) -> std::result::Result<Outcome, Undecided> {
    match throttle.after().is_anything() {
        true => Err(Undecided::UNASKED),
        false => admission::admit_one_now(throttle, req, None),
    }
}

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

    /// Decides without waiting, if nothing has to be waited for; else, or if nobody can decide, nothing is charged.
    #[inline]
    fn admit_now(
        &self,
        req: &HttpRequest,
    ) -> std::result::Result<Outcome, Option<Box<Waiting<'_>>>> {
        match self.fixed() {
            // Mostly it is one.
            Some([one]) => decide_one(one, req)
                .map_err(|undecided| Waiting::new(smallvec![Current::Fixed(one)], undecided)),
            _ => self.admit_several_now(req),
        }
    }

    fn admit_several_now(
        &self,
        req: &HttpRequest,
    ) -> std::result::Result<Outcome, Option<Box<Waiting<'_>>>> {
        let throttles = self.throttles(req).ok_or(None)?;
        let decided = decide(&all_of(&throttles), req);
        decided.map_err(|undecided| Waiting::new(throttles, undecided))
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

/// A throttle that is named after its handler. Others may have the same path, such as those of two `impl`s of a module.
pub fn throttle_of(path: &str) -> HttpThrottleBuilder {
    HttpThrottleBuilder::of_handler(path)
}

/// Checks while a handler is compiled that a limit of it can be named after its path, with what is added to that.
///
/// # Panics
///
/// If it is too long.
pub const fn check_name(path: &str, added: &str) {
    assert!(
        path.len() + added.len() <= LONGEST_NAME,
        "a limit is named after its handler, but names have at most 256 bytes: add `name = \"..\"`"
    );
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

/// A request whose body was not read: all that a handler with limits takes. One argument, since actix-web polls and
/// moves each by itself.
pub struct Unread {
    pub(crate) req: HttpRequest,
    pub(crate) payload: Payload,
}

impl FromRequest for Unread {
    type Error = Infallible;
    type Future = Ready<std::result::Result<Unread, Infallible>>;

    #[inline]
    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        ready(Ok(Unread {
            req: req.clone(),
            payload: payload.take(),
        }))
    }
}

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unread").finish_non_exhaustive()
    }
}

/// Decides, then extracts the arguments, then calls the handler.
///
/// Arguments of an actix handler are extracted all at once. Were the throttle one of them, the body
/// of a denied request would be read and parsed, and a malformed one answered 400 before the throttle
/// was asked.
pub fn run<H, Args>(
    limits: &'static HandlerLimits,
    unread: Unread,
    handler: H,
) -> impl Future<Output = HttpResponse>
where
    H: Handler<Args>,
    Args: FromRequest,
    H::Output: Responder,
{
    answer(limits, unread, handler, || ())
}

/// What it holds while it waits is moved with every request. So all that is rare is in functions of its own,
/// whose futures are boxed.
///
/// A request that is denied lets go of what it holds elsewhere as soon as that is decided: what it is answered, and
/// the rest of its body, may take as long as its client likes.
pub(crate) async fn answer<H, Args>(
    limits: &'static HandlerLimits,
    unread: Unread,
    handler: H,
    let_go: impl FnOnce(),
) -> HttpResponse
where
    H: Handler<Args>,
    Args: FromRequest,
    H::Output: Responder,
{
    let Unread { req, mut payload } = unread;
    let (receipt, dues) = match limits.admit_now(&req) {
        Ok(Outcome::Admitted(receipt)) => (receipt, None),
        Ok(Outcome::Denied(reply)) => {
            let_go();
            return Box::pin(reply.after(&req, payload)).await;
        }
        Err(waiting) => match Box::pin(admit_later(waiting, &req, &mut payload)).await {
            Ok(admitted) => admitted,
            Err(reply) => {
                let_go();
                return Box::pin(reply.after(&req, payload)).await;
            }
        },
    };
    let mut response = match Args::from_request(&req, &mut payload).await {
        Ok(args) => handler
            .call(args)
            .await
            .respond_to(&req)
            .map_into_boxed_body(),
        Err(error) => HttpResponse::from_error(error),
    };
    if let Some(dues) = dues {
        dues.settle(&Answered::of(Some(&req), &response));
    }
    receipt.stamp(response.headers_mut());
    response
}

/// What is to be told of a request that was admitted, and what it owes, if anything.
type Admitted = (Receipt, Option<Box<Dues>>);

/// Decides what could not be decided at once, or says what the request is answered.
async fn admit_later(
    waiting: Option<Box<Waiting<'_>>>,
    req: &HttpRequest,
    payload: &mut Payload,
) -> std::result::Result<Admitted, Reply> {
    let Waiting {
        throttles,
        undecided,
    } = *waiting.ok_or_else(|| Reply::now(broken()))?;
    let throttles = all_of(&throttles);
    let decided = admission::admit_later(&throttles, req, None, undecided);
    let outcome = match throttles.iter().any(|throttle| throttle.waits()) {
        true => body::unless_gone(req.version(), payload, Box::pin(decided)).await,
        false => Some(decided.await),
    };
    match outcome {
        Some((Outcome::Admitted(receipt), dues)) => {
            Ok((receipt, (!dues.is_empty()).then(|| Box::new(dues))))
        }
        Some((Outcome::Denied(reply), _)) => Err(reply),
        None => Err(Reply::now(admission::gone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "names have at most 256 bytes")]
    fn a_path_that_is_too_long_compiled() {
        let path = "p".repeat(LONGEST_NAME - 9);
        check_name(&path, "");
        check_name(&path, "#in_flight");
    }
}
