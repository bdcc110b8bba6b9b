//! Responses that are under way until their body ends.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use pin_project_lite::pin_project;
use traffik_core::InFlight;

pin_project! {
    /// A body that keeps its request [in flight](traffik_core::InFlight): until it ends, fails or is dropped,
    /// since the client is gone or the server has sent all of it.
    #[derive(Debug)]
    pub struct InFlightBody<B> {
        #[pin]
        body: B,
        held: Vec<InFlight>,
    }
}

impl<B> InFlightBody<B> {
    pub(crate) fn new(body: B, held: Vec<InFlight>) -> InFlightBody<B> {
        InFlightBody { body, held }
    }
}

impl<B: MessageBody> MessageBody for InFlightBody<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.project();
        let next = this.body.poll_next(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            this.held.clear();
        }
        next
    }

    /// What is in memory as a whole is as good as sent.
    fn try_into_bytes(self) -> Result<Bytes, Self> {
        let InFlightBody { body, held } = self;
        body.try_into_bytes()
            .map_err(|body| InFlightBody { body, held })
    }
}
