//! A limit around an application, a scope or a resource.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready as unwrap_ready};

use actix_web::HttpMessage as _;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use futures_util::future::LocalBoxFuture;
use pin_project_lite::pin_project;
use traffik_core::{Identity, InFlight};

use crate::concurrency::body::InFlightBody;
use crate::concurrency::limit::{ConcurrencyLimit, Entry, Stamp};
use crate::response::reply::Reply;
use crate::throttle::admission;

/// What a request has until its response is there.
struct Held {
    in_flight: InFlight,
    stamp: Stamp,
}

type Answer<B> = actix_web::Result<ServiceResponse<EitherBody<InFlightBody<B>>>>;

/// A limit is a middleware: `.wrap(limit.clone())`.
impl<S, B> Transform<S, ServiceRequest> for ConcurrencyLimit
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<InFlightBody<B>>>;
    type Error = actix_web::Error;
    type Transform = ConcurrencyService<S>;
    type InitError = ();
    type Future = Ready<std::result::Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(ConcurrencyService {
            service: Rc::new(service),
            limit: self.clone(),
        }))
    }
}

/// What a [`ConcurrencyLimit`] makes of the service it wraps.
#[derive(Debug)]
pub struct ConcurrencyService<S> {
    service: Rc<S>,
    limit: ConcurrencyLimit,
}

impl<S, B> Service<ServiceRequest> for ConcurrencyService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<InFlightBody<B>>>;
    type Error = actix_web::Error;
    type Future = ConcurrencyFuture<S, B>;

    actix_web::dev::forward_ready!(service);

    fn call(&self, req: ServiceRequest) -> Self::Future {
        match self.limit.enter_now(req.request()) {
            Entry::InFlight(in_flight) => ConcurrencyFuture::InFlight {
                held: Some(Held::new(&self.limit, in_flight)),
                response: self.service.call(req),
            },
            Entry::Denied(refused) => {
                let reply = self.limit.reply(req.request(), refused);
                let (req, payload) = req.into_parts();
                ConcurrencyFuture::Boxed {
                    response: Box::pin(async move { Ok(reply.send(req, payload).await) }),
                }
            }
            Entry::Waits(known) => ConcurrencyFuture::Boxed {
                response: Box::pin(wait(
                    self.limit.clone(),
                    Rc::clone(&self.service),
                    req,
                    known,
                )),
            },
        }
    }
}

async fn wait<S, B>(
    limit: ConcurrencyLimit,
    service: Rc<S>,
    mut req: ServiceRequest,
    known: Option<Identity>,
) -> Answer<B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    let mut payload = req.take_payload();
    let entered = limit.enter_with(req.request(), &mut payload, known).await;
    let reply = match entered {
        Some(Ok(in_flight)) => {
            req.set_payload(payload);
            let held = Held::new(&limit, in_flight);
            return held.finish(service.call(req).await);
        }
        Some(Err(refused)) => limit.reply(req.request(), refused),
        None => Reply::now(admission::gone()),
    };
    Ok(reply.send(req.into_parts().0, payload).await)
}

impl Held {
    fn new(limit: &ConcurrencyLimit, in_flight: InFlight) -> Held {
        Held {
            stamp: limit.stamp(&in_flight),
            in_flight,
        }
    }

    /// Goes on with the body of the response.
    fn finish<B: MessageBody>(self, response: actix_web::Result<ServiceResponse<B>>) -> Answer<B> {
        let Held { in_flight, stamp } = self;
        match response {
            Ok(mut response) => {
                stamp.write(response.headers_mut());
                let held = vec![in_flight];
                let response = response.map_body(|_, body| InFlightBody::new(body, held));
                Ok(response.map_into_left_body())
            }
            Err(mut error) => {
                // What an error is rendered as is in memory.
                drop(in_flight);
                error.add_response_mapper(move |mut response| {
                    stamp.write(response.headers_mut());
                    response
                });
                Err(error)
            }
        }
    }
}

pin_project! {
    /// The response of a [`ConcurrencyService`]. Nothing is boxed unless the request is denied, or has to wait.
    #[project = State]
    #[allow(missing_docs, missing_debug_implementations)]
    pub enum ConcurrencyFuture<S, B>
    where
        S: Service<ServiceRequest>,
    {
        InFlight { #[pin] response: S::Future, held: Option<Held> },
        Boxed { response: LocalBoxFuture<'static, Answer<B>> },
    }
}

impl<S, B> Future for ConcurrencyFuture<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    type Output = Answer<B>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            State::InFlight { response, held } => {
                let response = unwrap_ready!(response.poll(cx));
                match held.take() {
                    Some(held) => Poll::Ready(held.finish(response)),
                    None => panic!("`ConcurrencyFuture` was polled after it was ready"),
                }
            }
            State::Boxed { response } => response.as_mut().poll(cx),
        }
    }
}
