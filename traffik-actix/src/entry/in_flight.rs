//! What `#[throttle(in_flight = ..)]` expands to calls. Not part of the public API.

use std::sync::OnceLock;

use actix_web::dev::Payload;
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Responder};
use smallvec::SmallVec;
use traffik_core::{Error, InFlight, Result};

use crate::concurrency::body::InFlightBody;
use crate::concurrency::limit::{ConcurrencyLimit, Entry, Stamp};
use crate::entry::handler::{HandlerLimits, Unread, all, answer, broken};
use crate::response::reply::Reply;
use crate::throttle::admission;

/// How often one handler may be called, and how many at a time, built when the first request comes.
#[derive(Debug)]
pub struct HandlerInFlight {
    rates: HandlerLimits,
    build: fn() -> Vec<Result<ConcurrencyLimit, Error>>,
    built: OnceLock<Option<Vec<ConcurrencyLimit>>>,
}

impl HandlerInFlight {
    /// These throttles, perhaps none, and limits that `build` makes, once.
    pub const fn new(
        rates: HandlerLimits,
        build: fn() -> Vec<Result<ConcurrencyLimit, Error>>,
    ) -> HandlerInFlight {
        HandlerInFlight {
            rates,
            build,
            built: OnceLock::new(),
        }
    }

    fn built(&self) -> Option<&[ConcurrencyLimit]> {
        let built = self.built.get_or_init(|| all((self.build)()));
        built.as_deref()
    }

    /// Lets the request in everywhere, or says what it is answered.
    async fn enter(&self, req: &HttpRequest, payload: &mut Payload) -> Entered {
        let mut entered = Vec::new();
        for limit in self.built().ok_or_else(|| Reply::now(broken()))? {
            let in_flight = match limit.enter_now(req) {
                Entry::InFlight(in_flight) => in_flight,
                Entry::Denied(refused) => return Err(limit.reply(req, refused)),
                Entry::Waits(known) => {
                    match Box::pin(limit.enter_with(req, payload, known)).await {
                        Some(entered) => entered.map_err(|refused| limit.reply(req, refused))?,
                        None => return Err(Reply::now(admission::gone())),
                    }
                }
            };
            entered.push((limit.stamp(&in_flight), in_flight));
        }
        Ok(entered)
    }
}

type Entered = std::result::Result<Vec<(Stamp, InFlight)>, Reply>;

/// Asks how many are in flight before any rate, so that what is denied for that is charged nowhere; then as
/// [`run`](crate::entry::handler::run). The request is in flight until a rate denies it, or the body of its response
/// has ended.
pub async fn run_in_flight<H, Args>(
    limits: &'static HandlerInFlight,
    unread: Unread,
    handler: H,
) -> HttpResponse
where
    H: Handler<Args>,
    Args: FromRequest,
    H::Output: Responder,
{
    let Unread { req, mut payload } = unread;
    let entered = match limits.enter(&req, &mut payload).await {
        Ok(entered) => entered,
        Err(reply) => return Box::pin(reply.after(&req, payload)).await,
    };
    let (stamps, mut held): (SmallVec<[Stamp; 2]>, Vec<InFlight>) = entered.into_iter().unzip();
    let unread = Unread { req, payload };
    let mut response = answer(&limits.rates, unread, handler, || held.clear()).await;
    for stamp in stamps {
        stamp.write(response.headers_mut());
    }
    response
        .map_body(|_, body| InFlightBody::new(body, held))
        .map_into_boxed_body()
}
