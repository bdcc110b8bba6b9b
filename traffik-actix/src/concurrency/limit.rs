use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{HeaderMap, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use traffik_core::headers::{self, Left};
use traffik_core::{Busy, Concurrency, Error, Identity, InFlight};

use crate::concurrency::builder::ConcurrencyLimitBuilder;
use crate::concurrency::busy::{BusyDenial, ByNumber};
use crate::request::body;
use crate::request::source::Source;
use crate::response::handler::DeniedHandler;
use crate::response::headers::{Headers, RATELIMIT, RATELIMIT_POLICY, text, write_wait};
use crate::response::reply::Reply;
use crate::response::unavailable::Unavailable;
use crate::throttle::admission;
use crate::throttle::backend::ThrottleBackend;

/// How many requests may be in flight at a time: of each client, or of all together. In this process, or over all
/// servers on one Redis (feature `redis`: [`backend`](ConcurrencyLimitBuilder)).
///
/// A request is in flight until its response has ended: the body, if it is streamed, not its head alone, and a
/// WebSocket until it is closed. It ends as well when the client is gone, or the handler panics.
///
/// ```
/// use actix_web::{App, web};
/// use traffik_actix::ConcurrencyLimit;
///
/// // Once, outside of the `HttpServer::new` closure: workers share the clones' count.
/// let downloads = ConcurrencyLimit::builder("downloads").in_flight(4).build()?; // of each client: else 429
/// let server = ConcurrencyLimit::builder("server").in_flight(500).shared().build()?; // of all: else 503
///
/// let app = App::new()
///     .service(web::resource("/download").wrap(downloads).get(async || "bytes"))
///     .wrap(server);
/// # let _ = app;
/// # Ok::<(), traffik_actix::Error>(())
/// ```
///
/// By hand, [`acquire`](ConcurrencyLimit::acquire)
/// gives an [`InFlight`] to keep for as long as something is under way.
///
/// Denials are answered 429, or 503 if [all count together](ConcurrencyLimitBuilder::shared), with `Retry-After`
/// and `RateLimit-Policy: "downloads";q=4;qu="concurrent-requests"`. By default actix-web does not notice that a
/// client went away before the handler has answered: its request is in flight as long as the handler works, as it
/// should be.
#[derive(Clone)]
pub struct ConcurrencyLimit(pub(super) Arc<Settings>);

pub(super) struct Settings {
    pub(super) counter: Concurrency,
    pub(super) identify: Option<Source<Identity>>,
    pub(super) max_wait: Duration,
    pub(super) retry_after: Duration,
    pub(super) on_denied: Option<DeniedHandler<ByNumber>>,
    pub(super) headers: Headers,
    /// `RateLimit-Policy`.
    pub(super) policy: HeaderValue,
    pub(super) quoted_name: Box<str>,
}

/// What became of a request.
pub(crate) enum Entry {
    InFlight(InFlight),
    Denied(Refused),
    /// It has to wait: to find out who asks, unless that is known, or for its turn.
    Waits(Option<Identity>),
}

/// Why a request goes no further.
pub(crate) enum Refused {
    Busy(Busy),
    Unresolved(Error),
}

impl ConcurrencyLimit {
    /// A limit in the making. The name says what it is about, in headers and logs.
    pub fn builder(name: impl Into<String>) -> ConcurrencyLimitBuilder {
        ConcurrencyLimitBuilder::new(name)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.counter.name()
    }

    /// The count, which knows nothing of requests: for jobs, and to look at.
    pub fn counter(&self) -> &Concurrency {
        &self.0.counter
    }

    /// When denied clients are told to come back.
    pub(crate) fn retry_after(&self) -> Duration {
        self.0.retry_after
    }

    /// Admits a request, or fails with the response it should be answered: for `?` in a handler. Waits, if
    /// [that is said](ConcurrencyLimitBuilder::wait_up_to).
    ///
    /// ```
    /// use actix_web::{HttpRequest, HttpResponse, rt, web};
    /// use traffik_actix::ConcurrencyLimit;
    /// # async fn transcode() {}
    ///
    /// async fn start(req: HttpRequest, jobs: web::Data<ConcurrencyLimit>) -> actix_web::Result<HttpResponse> {
    ///     let in_flight = jobs.acquire(&req).await?; // a 429 if the client has too many
    ///     rt::spawn(async move {
    ///         transcode().await;
    ///         drop(in_flight); // not before
    ///     });
    ///     Ok(HttpResponse::Accepted().finish())
    /// }
    /// # let _ = start;
    /// ```
    ///
    /// # Errors
    ///
    /// The denial as an error that is rendered as the usual response, or
    /// [`Unresolved`](crate::Unresolved) if it cannot be found out who asks.
    pub async fn acquire(&self, req: &HttpRequest) -> actix_web::Result<InFlight> {
        self.acquire_by(req, None).await
    }

    /// The same by somebody who is known to the handler.
    ///
    /// # Errors
    ///
    /// As [`acquire`](ConcurrencyLimit::acquire).
    pub async fn acquire_as(
        &self,
        req: &HttpRequest,
        identity: impl Into<Identity>,
    ) -> actix_web::Result<InFlight> {
        self.acquire_by(req, Some(identity.into())).await
    }

    async fn acquire_by(
        &self,
        req: &HttpRequest,
        known: Option<Identity>,
    ) -> actix_web::Result<InFlight> {
        let refused = match self.enter(req, known).await {
            Ok(in_flight) => return Ok(in_flight),
            Err(refused) => refused,
        };
        Err(match refused {
            Refused::Unresolved(error) => admission::refusal(error),
            Refused::Busy(busy) => {
                if let Some(failure) = self.raised(&busy) {
                    return Err(failure.into());
                }
                let cause = self.denial(req, busy.clone()).cause();
                cause.answered(self.deny(req, busy).get().await)
            }
        })
    }

    /// What need not wait.
    pub(crate) fn enter_now(&self, req: &HttpRequest) -> Entry {
        let who = match self.who(req, |source| source.now(req)) {
            Some(Ok(identity)) => identity,
            Some(Err(error)) => return Entry::Denied(self.unresolved(error)),
            None => return Entry::Waits(None),
        };
        if !self.0.counter.is_local() {
            return Entry::Waits(Some(who));
        }
        if self.0.max_wait.is_zero() {
            return match self.0.counter.try_acquire(&who) {
                Ok(in_flight) => Entry::InFlight(in_flight),
                Err(busy) => Entry::Denied(Refused::Busy(busy)),
            };
        }
        match self.0.counter.try_acquire_or_wait(&who) {
            Some(in_flight) => Entry::InFlight(in_flight),
            None => Entry::Waits(Some(who)),
        }
    }

    async fn enter(&self, req: &HttpRequest, known: Option<Identity>) -> Result<InFlight, Refused> {
        let who = match known {
            Some(identity) => identity,
            None => {
                let source = self.who(req, Source::clone);
                let found = source.get(req).await;
                found.map_err(|error| self.unresolved(error))?
            }
        };
        let entered = self.0.counter.acquire(&who, self.0.max_wait).await;
        entered.map_err(Refused::Busy)
    }

    /// The same for a middleware or a handler; `None` if the client is gone meanwhile.
    pub(crate) async fn enter_with(
        &self,
        req: &HttpRequest,
        payload: &mut Payload,
        known: Option<Identity>,
    ) -> Option<Result<InFlight, Refused>> {
        let entering = Box::pin(self.enter(req, known));
        body::unless_gone(req.version(), payload, entering).await
    }

    /// Asks the function that says who asks.
    fn who<T>(&self, req: &HttpRequest, ask: impl FnOnce(&Source<Identity>) -> T) -> T {
        if let Some(own) = &self.0.identify {
            return ask(own);
        }
        if let Some(chosen) = ThrottleBackend::chosen_for(req) {
            return ask(&chosen.identify);
        }
        ask(&ThrottleBackend::of(req)
            .unwrap_or_else(|| ThrottleBackend::global())
            .identify)
    }

    #[cold]
    fn unresolved(&self, error: Error) -> Refused {
        Refused::Unresolved(error.within(format_args!("limit `{}`", self.name())))
    }

    /// The answer to a request that goes no further.
    #[cold]
    pub(crate) fn reply(&self, req: &HttpRequest, refused: Refused) -> Reply {
        match refused {
            Refused::Busy(busy) => self.deny(req, busy),
            Refused::Unresolved(error) => Reply::now(admission::refuse(error)),
        }
    }

    fn denial<'a>(&'a self, request: &'a HttpRequest, busy: Busy) -> BusyDenial<'a> {
        BusyDenial {
            request,
            limit: self,
            busy,
        }
    }

    fn deny(&self, req: &HttpRequest, busy: Busy) -> Reply {
        let is_known = busy.failure().is_none();
        if let Some(failure) = self.raised(&busy) {
            return Reply::now(HttpResponse::from_error(failure));
        }
        let finish = move |limit: &Self, response| limit.finish(response, is_known);
        match &self.0.on_denied {
            None => Reply::now(finish(self, self.denial(req, busy).default_response())),
            Some(DeniedHandler::Now(handler)) => {
                Reply::now(finish(self, handler(&self.denial(req, busy))))
            }
            Some(DeniedHandler::Later(handler)) => {
                let (handler, limit, req) = (Arc::clone(handler), self.clone(), req.clone());
                Reply::Later(Box::pin(async move {
                    finish(&limit, handler.answer(&limit.denial(&req, busy)).await)
                }))
            }
        }
    }

    /// Adds what every denial says.
    fn finish(&self, mut response: HttpResponse, is_known: bool) -> HttpResponse {
        let headers = response.headers_mut();
        write_wait(headers, Some(self.0.retry_after));
        // Nobody violated what could not be counted.
        if self.0.headers.on_denied() && is_known {
            let seconds = headers::whole_seconds(self.0.retry_after).max(1);
            self.write(headers, 0, seconds);
        }
        response
    }

    /// What failed, if that is to be told as such.
    fn raised(&self, busy: &Busy) -> Option<Unavailable> {
        #[cfg(feature = "redis")]
        let raises = self.0.counter.on_outage() == Some(traffik_core::OnOutage::Raise);
        #[cfg(not(feature = "redis"))]
        let raises = false;
        let failure = busy.failure().filter(|_| raises)?;
        Some(Unavailable(failure.clone()))
    }

    /// What the response to an admitted request is to say.
    pub(crate) fn stamp(&self, in_flight: &InFlight) -> Stamp {
        let tells = self.0.headers.on_admitted() && in_flight.is_counted();
        Stamp(tells.then(|| (self.clone(), in_flight.remaining())))
    }

    fn write(&self, map: &mut HeaderMap, remaining: u32, seconds: u64) {
        let left = Left {
            remaining: remaining.into(),
            seconds,
        };
        map.append(RATELIMIT_POLICY, self.0.policy.clone());
        let limit = headers::limits(&[(&*self.0.quoted_name, left)]);
        map.append(RATELIMIT, text(limit));
    }
}

/// How many more could have been in flight, for the headers of a response.
#[derive(Debug, Default)]
pub(crate) struct Stamp(Option<(ConcurrencyLimit, u32)>);

impl Stamp {
    pub(crate) fn write(&self, map: &mut HeaderMap) {
        if let Some((limit, remaining)) = &self.0 {
            limit.write(map, *remaining, 0);
        }
    }
}

impl fmt::Debug for ConcurrencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimit")
            .field("counter", &self.0.counter)
            .finish_non_exhaustive()
    }
}
