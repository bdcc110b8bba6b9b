//! What a response says about what its request has cost.

use std::cell::{Cell, Ref};
use std::fmt;
use std::sync::Arc;

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{Extensions, ResponseHead, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use traffik_core::Permit;

use crate::throttle::HttpThrottle;

/// The response to a request that was admitted, for functions that say what it has cost: see
/// [`cost_after`](crate::HttpThrottleBuilder::cost_after) and
/// [`refund_if`](crate::HttpThrottleBuilder::refund_if).
///
/// Its head is complete, its body may still be on its way.
pub struct Answered<'a> {
    request: Option<&'a HttpRequest>,
    head: &'a ResponseHead,
    extensions: Ref<'a, Extensions>,
    size: BodySize,
}

impl<'a> Answered<'a> {
    pub(crate) fn of<B: MessageBody>(
        request: Option<&'a HttpRequest>,
        response: &'a HttpResponse<B>,
    ) -> Answered<'a> {
        Answered {
            request,
            head: response.head(),
            extensions: response.extensions(),
            size: response.body().size(),
        }
    }

    /// The request; nothing if a middleware further in failed with an error, which loses it.
    pub fn request(&self) -> Option<&HttpRequest> {
        self.request
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The headers, as far as the server does not write them itself.
    pub fn headers(&self) -> &HeaderMap {
        self.head.headers()
    }

    /// How many bytes its body has; nothing if it is streamed and does not say.
    pub fn content_length(&self) -> Option<u64> {
        match self.size {
            BodySize::None => Some(0),
            BodySize::Sized(bytes) => Some(bytes),
            BodySize::Stream => self
                .headers()
                .get(CONTENT_LENGTH)
                .and_then(|length| length.to_str().ok()?.parse().ok()),
        }
    }

    /// A value that the handler left in the extensions of the response, or of the request.
    ///
    /// ```
    /// use actix_web::{HttpMessage, HttpRequest};
    /// use traffik_actix::{HttpThrottle, MemoryBackend};
    ///
    /// #[derive(Clone, Copy)]
    /// struct Rows(u32);
    ///
    /// let queries = HttpThrottle::builder("queries")
    ///     .rate("10000/hour")
    ///     .cost(100) // reserved
    ///     .cost_after(|answered| answered.extension().map_or(100, |Rows(rows)| rows))
    ///     .backend(MemoryBackend::new())
    ///     .build()?;
    ///
    /// async fn query(req: HttpRequest) -> &'static str {
    ///     req.extensions_mut().insert(Rows(7));
    ///     "seven rows"
    /// }
    /// # let _ = (queries, query);
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    pub fn extension<T: Clone + 'static>(&self) -> Option<T> {
        let of_response = self.extensions.get::<T>().cloned();
        of_response.or_else(|| self.request?.extensions().get::<T>().cloned())
    }
}

impl fmt::Debug for Answered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered")
            .field("status", &self.status())
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

type CostFn = dyn Fn(&Answered<'_>) -> u32 + Send + Sync;
type RefundFn = dyn Fn(&Answered<'_>) -> bool + Send + Sync;

/// How a throttle settles what it has charged.
#[derive(Clone, Default)]
pub(crate) struct After {
    pub(crate) cost: Option<Arc<CostFn>>,
    pub(crate) refund: Option<Arc<RefundFn>>,
}

impl After {
    pub(crate) fn is_anything(&self) -> bool {
        self.cost.is_some() || self.refund.is_some()
    }

    /// What it has cost, if not what was charged.
    fn cost(&self, answered: &Answered<'_>) -> Option<u32> {
        match &self.refund {
            Some(refund) if refund(answered) => Some(0),
            _ => self.cost.as_ref().map(|cost| cost(answered)),
        }
    }
}

impl fmt::Debug for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("After")
            .field("cost", &self.cost.is_some())
            .field("refund", &self.refund.is_some())
            .finish()
    }
}

/// What is to be settled when the response is there. Dropped before, it has cost what was charged.
#[derive(Debug, Default)]
pub(crate) struct Dues(pub(crate) Vec<(HttpThrottle, Permit)>);

impl Dues {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Settles without waiting for the store.
    pub(crate) fn settle(self, answered: &Answered<'_>) {
        for (throttle, permit) in self.0 {
            if let Some(cost) = throttle.after().cost(answered) {
                permit.settle_later(cost);
            }
        }
    }

    /// The same by what a service came to. The response that an error is going to be is looked at when it is
    /// made, since some errors can be asked for it only once.
    pub(crate) fn settle_by<B: MessageBody>(
        self,
        response: &mut actix_web::Result<ServiceResponse<B>>,
    ) {
        if self.is_empty() {
            return;
        }
        match response {
            Ok(response) => {
                self.settle(&Answered::of(Some(response.request()), response.response()));
            }
            Err(error) => {
                let dues = Cell::new(self);
                error.add_response_mapper(move |response| {
                    dues.take().settle(&Answered::of(None, &response));
                    response
                });
            }
        }
    }
}
