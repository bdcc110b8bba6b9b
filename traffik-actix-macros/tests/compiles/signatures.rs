//! Every signature that actix-web takes, is taken.
#![deny(warnings)]
#![deny(unreachable_pub)]
#![allow(
    clippy::too_many_arguments,
    clippy::just_underscores_and_digits,
    clippy::multiple_bound_locations,
    clippy::needless_question_mark,
    reason = "signatures of all kinds"
)]

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use actix_web::{Either, FromRequest, HttpRequest, HttpResponse, Responder, ResponseError, web};
use traffik_actix::throttle;

trait Empty: Send + 'static {
    fn empty() -> Self;
}

impl Empty for String {
    fn empty() -> String {
        String::new()
    }
}

#[derive(Debug)]
struct Failure;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failure")
    }
}

impl ResponseError for Failure {}

impl From<std::num::ParseIntError> for Failure {
    fn from(_: std::num::ParseIntError) -> Failure {
        Failure
    }
}

#[throttle("100/minute")]
async fn no_arguments() -> &'static str {
    "none"
}

#[throttle("100/minute")]
async fn question_mark(text: String) -> Result<impl Responder, Failure> {
    let number: u32 = text.parse()?;
    Ok(HttpResponse::Ok().body(number.to_string()))
}

#[throttle("100/minute")]
async fn inferred_error() -> actix_web::Result<impl Responder> {
    let closure = || async { Ok::<_, actix_web::Error>("inner") };
    Ok(closure().await?)
}

#[throttle("100/minute")]
async fn destructuring(
    web::Form((user, mut count)): web::Form<(String, u32)>,
    mut body: String,
    _: HttpRequest,
) -> impl Responder {
    count += 1;
    body.push_str(&user);
    format!("{count} {}", body.len())
}

#[throttle("100/minute")]
async fn optional(
    first: Option<web::Path<u32>>,
    second: Result<String, actix_web::Error>,
) -> String {
    format!("{} {}", first.is_some(), second.is_ok())
}

#[throttle("100/minute")]
async fn generic<S: Empty, const N: usize>(_request: HttpRequest) -> impl Responder
where
    S: fmt::Debug,
    [u8; N]: Sized,
{
    format!("{:?} {N}", S::empty())
}

#[throttle("100/minute")]
async fn generic_extractor<E>(_extracted: E) -> impl Responder
where
    E: FromRequest + 'static,
    E::Error: fmt::Debug,
{
    "generic"
}

#[throttle("100/minute")]
fn returns_a_future(body: web::Bytes) -> impl Future<Output = Result<HttpResponse, Failure>> {
    std::future::ready(Ok(HttpResponse::Ok().body(body)))
}

#[throttle("100/minute")]
fn returns_a_box() -> Pin<Box<dyn Future<Output = Either<&'static str, String>>>> {
    Box::pin(async { Either::Left("boxed") })
}

#[throttle("100/minute")]
async fn sixteen(
    _1: HttpRequest,
    _2: HttpRequest,
    _3: HttpRequest,
    _4: HttpRequest,
    _5: HttpRequest,
    _6: HttpRequest,
    _7: HttpRequest,
    _8: HttpRequest,
    _9: HttpRequest,
    _10: HttpRequest,
    _11: HttpRequest,
    _12: HttpRequest,
    _13: HttpRequest,
    _14: HttpRequest,
    _15: HttpRequest,
    _16: web::Payload,
) -> impl Responder {
    "sixteen"
}

#[throttle("100/minute")]
async fn calls_itself(depth: web::Path<u32>) -> String {
    match depth.into_inner() {
        0 => String::new(),
        depth => Box::pin(calls_itself(web::Path::from(depth - 1))).await,
    }
}

/// Documented.
#[must_use]
#[expect(unused_variables, reason = "the expectation is met in the original")]
#[throttle("100/minute")]
#[inline]
#[allow(clippy::unused_async)]
pub async fn attributes(unused: web::Bytes) -> &'static str {
    "attributes"
}

#[deprecated = "use the other one"]
#[throttle("100/minute")]
async fn outdated() -> &'static str {
    "outdated"
}

#[test]
fn is_taken() {
    #[allow(deprecated)]
    let _ = actix_web::App::new()
        .route("/", web::get().to(no_arguments))
        .route("/", web::get().to(question_mark))
        .route("/", web::get().to(inferred_error))
        .route("/", web::get().to(destructuring))
        .route("/", web::get().to(optional))
        .route("/", web::get().to(generic::<String, 3>))
        .route("/", web::get().to(generic_extractor::<web::Bytes>))
        .route("/", web::get().to(returns_a_future))
        .route("/", web::get().to(returns_a_box))
        .route("/", web::get().to(sixteen))
        .route("/", web::get().to(calls_itself))
        .route("/", web::get().to(attributes))
        .route("/", web::get().to(outdated));
}
