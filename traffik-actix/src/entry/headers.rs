//! Headers about what was decided by hand.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll, ready as unwrap_ready};

use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use pin_project_lite::pin_project;

use crate::response::cors::expose;
use crate::response::headers::write_denial;
use crate::response::info::RateLimitInfo;

/// Tells clients what was decided by hand, and keeps what was decided at all.
///
/// [`enforce`](crate::HttpThrottle::enforce), [`hit`](crate::HttpThrottle::hit),
/// [`reserve`](crate::HttpThrottle::reserve) and [`Throttled`](crate::Throttled) decide before there is a response
/// that could carry headers. Around them, this middleware adds those, beside the ones that other middlewares and
/// `#[throttle]` write. A 429 that a handler made itself of a denied `hit` also gets `Retry-After` and
/// `Cache-Control: no-store`, unless it has its own.
///
/// ```
/// use actix_web::{App, HttpRequest, web};
/// use traffik_actix::{HttpThrottle, MemoryBackend, ThrottleHeaders};
///
/// async fn export(req: HttpRequest, exports: web::Data<HttpThrottle>) -> actix_web::Result<&'static str> {
///     exports.enforce(&req).await?;
///     Ok("rows") // with `RateLimit: "exports";r=9;t=360`
/// }
///
/// let exports = HttpThrottle::builder("exports").rate("10/hour").backend(MemoryBackend::new()).build()?;
/// let app = App::new()
///     .app_data(web::Data::new(exports))
///     .route("/export", web::get().to(export))
///     .wrap(ThrottleHeaders::new());
/// # let _ = app;
/// # Ok::<(), traffik_actix::Error>(())
/// ```
///
/// Register it *after* other limits, so that it is outside: then [`RateLimitInfo`] knows everything that was decided.
#[derive(Clone, Debug, Default)]
pub struct ThrottleHeaders {
    exposes: bool,
}

impl ThrottleHeaders {
    /// The middleware.
    pub fn new() -> ThrottleHeaders {
        ThrottleHeaders::default()
    }

    /// Lets scripts of other origins see the headers about limits: their names are added to
    /// `Access-Control-Expose-Headers` of each response that has some.
    ///
    /// That is for services whose CORS headers come from elsewhere, such as a proxy. With `actix-cors` say
    /// `expose_headers(HeaderStyle::Standard.names())`: it replaces what is added further in.
    pub fn expose(mut self) -> ThrottleHeaders {
        self.exposes = true;
        self
    }
}

impl<S, B> Transform<S, ServiceRequest> for ThrottleHeaders
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
{
    type Response = ServiceResponse<B>;
    type Error = actix_web::Error;
    type Transform = ThrottleHeadersService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        let exposes = self.exposes;
        ready(Ok(ThrottleHeadersService { service, exposes }))
    }
}

/// What [`ThrottleHeaders`] makes of the service it wraps.
#[derive(Debug)]
pub struct ThrottleHeadersService<S> {
    service: S,
    exposes: bool,
}

impl<S, B> Service<ServiceRequest> for ThrottleHeadersService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
{
    type Response = ServiceResponse<B>;
    type Error = actix_web::Error;
    type Future = ThrottleHeadersFuture<S::Future>;

    actix_web::dev::forward_ready!(service);

    fn call(&self, req: ServiceRequest) -> Self::Future {
        ThrottleHeadersFuture {
            stamp: Stamp {
                info: RateLimitInfo::keep(req.request()),
                exposes: self.exposes,
            },
            response: self.service.call(req),
        }
    }
}

pin_project! {
    /// The response of a [`ThrottleHeadersService`].
    #[derive(Debug)]
    pub struct ThrottleHeadersFuture<F> {
        #[pin]
        response: F,
        stamp: Stamp,
    }
}

impl<F, B> Future for ThrottleHeadersFuture<F>
where
    F: Future<Output = actix_web::Result<ServiceResponse<B>>>,
{
    type Output = actix_web::Result<ServiceResponse<B>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = unwrap_ready!(this.response.poll(cx));
        match &mut response {
            Ok(response) => this.stamp.write(response.status(), response.headers_mut()),
            Err(error) => {
                let stamp = this.stamp.clone();
                error.add_response_mapper(move |mut response| {
                    stamp.write(response.status(), response.headers_mut());
                    response
                });
            }
        }
        Poll::Ready(response)
    }
}

/// What is added to a response.
#[derive(Clone, Debug)]
struct Stamp {
    info: RateLimitInfo,
    exposes: bool,
}

impl Stamp {
    fn write(&self, status: StatusCode, headers: &mut HeaderMap) {
        self.info.stamp(headers);
        if status == StatusCode::TOO_MANY_REQUESTS
            && let Some(denied) = self.info.denied_by_hand()
        {
            write_denial(headers, &denied);
        }
        if self.exposes {
            expose(headers);
        }
    }
}
