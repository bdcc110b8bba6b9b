//! Limits as an extractor, for those who prefer types to macros.

use std::marker::PhantomData;
use std::ops::Deref;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use futures_util::future::LocalBoxFuture;
use traffik_core::Stat;

use crate::request::body;
use crate::response::hit_error::HitError;
use crate::throttle::HttpThrottle;

/// Names a throttle in the type of a handler's argument.
pub trait ThrottleRule: 'static {
    /// The throttle, the same one every time.
    fn throttle() -> &'static HttpThrottle;
}

/// An argument that is extracted only if a throttle admits the request.
///
/// actix-web polls all arguments of a handler at once, so a body beside this would be read while
/// the throttle decides. Put the body *inside*: `Throttled<Uploads, web::Bytes>` is read afterwards.
///
/// Denials carry the throttle's headers, responses of the handler do inside of
/// [`ThrottleHeaders`](crate::ThrottleHeaders), as with [`enforce`](HttpThrottle::enforce).
///
/// ```
/// use std::sync::LazyLock;
/// use actix_web::web;
/// use traffik_actix::{HttpThrottle, ThrottleRule, Throttled};
///
/// struct Uploads;
///
/// impl ThrottleRule for Uploads {
///     fn throttle() -> &'static HttpThrottle {
///         static UPLOADS: LazyLock<HttpThrottle> = LazyLock::new(|| {
///             HttpThrottle::builder("uploads").rate("10/minute").build().expect("a valid throttle")
///         });
///         &UPLOADS
///     }
/// }
///
/// async fn upload(body: Throttled<Uploads, web::Bytes>) -> String {
///     format!("{} bytes", body.len())
/// }
/// # let _ = web::post().to(upload);
/// ```
#[derive(Debug)]
pub struct Throttled<R, T = ()> {
    value: T,
    rule: PhantomData<fn() -> R>,
}

impl<R, T> Throttled<R, T> {
    /// What was extracted.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<R, T> Deref for Throttled<R, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<R: ThrottleRule, T: FromRequest + 'static> FromRequest for Throttled<R, T> {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, actix_web::Result<Self>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let req = req.clone();
        let mut payload = payload.take();
        Box::pin(async move {
            if let Err(denied) = R::throttle().enforce(&req).await {
                body::drain(req.headers(), payload).await;
                return Err(denied);
            }
            let value = T::from_request(&req, &mut payload)
                .await
                .map_err(Into::into)?;
            Ok(Throttled {
                value,
                rule: PhantomData,
            })
        })
    }
}

/// An argument that says what a throttle knows about the request, and charges nothing: what
/// [`stat`](HttpThrottle::stat) says.
///
/// ```
/// use std::sync::LazyLock;
/// use traffik_actix::{HttpThrottle, StatOf, ThrottleRule};
///
/// struct Exports;
///
/// impl ThrottleRule for Exports {
///     fn throttle() -> &'static HttpThrottle {
///         static EXPORTS: LazyLock<HttpThrottle> = LazyLock::new(|| {
///             HttpThrottle::builder("exports").rate("10/day").build().expect("a valid throttle")
///         });
///         &EXPORTS
///     }
/// }
///
/// async fn page(exports: StatOf<Exports>) -> String {
///     format!("{} of {} exports are left today", exports.remaining, exports.limit)
/// }
/// # let _ = actix_web::web::get().to(page);
/// ```
///
/// It is asked while the arguments are extracted: beside a [`Throttled`] of the same throttle either may be first. What
/// was decided about the request is in [`RateLimitInfo`](crate::RateLimitInfo).
///
/// # Errors
///
/// A [`HitError`]: a 503 if the backend fails, a 400 if a function of the throttle cannot make sense of the request.
/// As `Option<StatOf<_>>` it is nothing then.
#[derive(Debug)]
pub struct StatOf<R> {
    stat: Stat,
    rule: PhantomData<fn() -> R>,
}

impl<R> StatOf<R> {
    /// What was found out.
    pub fn into_inner(self) -> Stat {
        self.stat
    }
}

impl<R> Deref for StatOf<R> {
    type Target = Stat;

    fn deref(&self) -> &Stat {
        &self.stat
    }
}

impl<R: ThrottleRule> FromRequest for StatOf<R> {
    type Error = HitError;
    type Future = LocalBoxFuture<'static, Result<Self, HitError>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let req = req.clone();
        Box::pin(async move {
            Ok(StatOf {
                stat: R::throttle().stat(&req).await?,
                rule: PhantomData,
            })
        })
    }
}
