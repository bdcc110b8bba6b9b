//! Limits as an extractor, for those who prefer types to macros.

use std::marker::PhantomData;
use std::ops::Deref;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use futures_util::future::LocalBoxFuture;

use crate::request::body;
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
