//! Whose a request is.

use std::future::{Ready, ready};
use std::rc::Rc;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::{HttpMessage as _, HttpRequest, ResponseError as _};
use futures_util::future::LocalBoxFuture;

use crate::request::body;
use crate::request::source::Source;
use crate::response::hit_error::HitError;
use crate::tenants::Tenants;
use crate::throttle::backend::ThrottleBackend;

/// A middleware that finds out whose a request is; made by [`Tenants::by`].
#[derive(Clone, Debug)]
pub struct ByTenant {
    tenants: Tenants,
    name: Source<String>,
}

impl ByTenant {
    pub(super) fn new(tenants: Tenants, name: Source<String>) -> ByTenant {
        ByTenant { tenants, name }
    }

    async fn choose(&self, req: &HttpRequest) -> Result<ThrottleBackend, HitError> {
        let name = self.name.get(req).await?;
        self.tenants.open(&name).await
    }
}

impl<S, B> Transform<S, ServiceRequest> for ByTenant
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Transform = TenantService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(TenantService(Rc::new((self.clone(), service)))))
    }
}

/// What [`ByTenant`] makes of the service it wraps.
#[derive(Debug)]
pub struct TenantService<S>(Rc<(ByTenant, S)>);

impl<S, B> Service<ServiceRequest> for TenantService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        self.0.1.poll_ready(cx)
    }

    fn call(&self, req: ServiceRequest) -> Self::Future {
        let this = Rc::clone(&self.0);
        Box::pin(async move {
            let (by, service) = &*this;
            match by.choose(req.request()).await {
                Ok(backend) => {
                    req.extensions_mut().insert(backend);
                    let response = service.call(req).await?;
                    Ok(response.map_into_left_body())
                }
                Err(error) => {
                    let (req, payload) = req.into_parts();
                    body::drain(req.headers(), payload).await;
                    let response = ServiceResponse::new(req, error.error_response());
                    Ok(response.map_into_right_body())
                }
            }
        })
    }
}
