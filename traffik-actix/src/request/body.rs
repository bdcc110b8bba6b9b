//! The bodies of requests that are denied, or wait.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::Version;
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap};
use actix_web::rt::time::{interval, timeout};
use actix_web::web::Bytes;
use futures_util::{Stream, StreamExt, stream};

/// How large a body may be that is read although its request is denied: a login, not an upload.
const SMALL: usize = 16 * 1024;

/// How long a denial waits for the rest of such a body. Most came with the head; after
/// `Expect: 100-continue` one is a round trip away, which is no longer than a new connection takes.
const PATIENCE: Duration = Duration::from_millis(500);

/// How much of a body is read ahead to see whether its client is there.
const AHEAD: usize = 16 * 1024;

/// How often to look whether a client is still there that sends nothing more.
const LOOK: Duration = Duration::from_millis(250);

/// Whether [`drain`] is worthwhile.
pub(crate) fn is_small(headers: &HeaderMap, body: &Payload) -> bool {
    let length = headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    !matches!(body, Payload::None) && length.is_some_and(|length| (1..=SMALL).contains(&length))
}

/// Throws the body of a denied request away, if it is small: actix-web closes an HTTP/1 connection after
/// the answer to a request whose body was not read, and the client would need a new one.
pub(crate) async fn drain(headers: &HeaderMap, mut body: Payload) {
    if is_small(headers, &body) {
        let rest = async { while let Some(Ok(_)) = body.next().await {} };
        let _ = timeout(PATIENCE, rest).await;
    }
}

/// Runs a future until it is done or, over HTTP/2, the client has given up its stream, of which actix-web
/// says nothing: `None`. Over HTTP/1 it drops the request.
pub(crate) async fn unless_gone<F: Future>(
    version: Version,
    body: &mut Payload,
    future: F,
) -> Option<F::Output> {
    // A stream of somebody's own need not bear to be asked again.
    if version != Version::HTTP_2 || matches!(body, Payload::None | Payload::Stream { .. }) {
        return Some(future.await);
    }
    watch(body, future).await
}

/// What was read of a body meanwhile is put back.
async fn watch<F: Future>(body: &mut Payload, future: F) -> Option<F::Output> {
    let mut watched = Watched {
        body: body.take(),
        read: VecDeque::new(),
        bytes: 0,
    };
    let mut look = interval(LOOK);
    let mut future = pin!(future);
    let done = poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        while look.poll_tick(cx).is_ready() {}
        watched.poll_gone(cx).map(|()| None)
    });
    let done = done.await;
    *body = watched.into_body();
    done
}

struct Watched {
    body: Payload,
    read: VecDeque<Bytes>,
    bytes: usize,
}

impl Watched {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.bytes < AHEAD {
            match ready!(Pin::new(&mut self.body).poll_next(cx)) {
                Some(Ok(chunk)) => {
                    self.bytes += chunk.len();
                    // An empty one would be for free.
                    self.read.extend((!chunk.is_empty()).then_some(chunk));
                }
                Some(Err(_)) => return Poll::Ready(()),
                // All is read. Whether the stream is reset shows when it is asked again.
                None => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    fn into_body(self) -> Payload {
        match self.read.is_empty() {
            true => self.body,
            false => Payload::Stream {
                payload: Box::pin(stream::iter(self.read).map(Ok).chain(self.body)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use actix_web::error::PayloadError;
    use actix_web::http::header::HeaderValue;
    use futures_util::future::pending;
    use tokio::time::{Instant, pause, sleep};

    use super::*;

    fn length(bytes: usize) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(bytes))])
    }

    fn endless() -> Payload {
        let payload = Box::pin(stream::pending::<Result<Bytes, PayloadError>>());
        Payload::Stream { payload }
    }

    #[actix_web::test]
    async fn a_denial_does_not_wait_for_a_body_that_is_large_or_never_comes() {
        pause();
        let start = Instant::now();
        drain(&length(SMALL + 1), endless()).await;
        drain(&length(0), endless()).await;
        drain(&HeaderMap::new(), endless()).await;
        drain(&length(1), Payload::None).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        drain(&length(SMALL), endless()).await;
        // The timer rounds up to its next millisecond.
        assert_eq!(start.elapsed().as_millis() / 100, 5);
    }

    /// A stream as of h2: it ends, and once it is reset it fails.
    fn of_h2(chunks: usize, reset: &Rc<Cell<bool>>) -> Payload {
        let (mut left, reset) = (chunks, Rc::clone(reset));
        let payload = Box::pin(stream::poll_fn(move |_| {
            if left > 0 {
                left -= 1;
                return Poll::Ready(Some(Ok(Bytes::from(vec![b'x'; 1_000]))));
            }
            let error = reset.get().then_some(Err(PayloadError::EncodingCorrupted));
            Poll::Ready(error)
        }));
        Payload::Stream { payload }
    }

    /// Issue 9.5 (i): a stream that was reset kept its place for its whole wait.
    #[actix_web::test]
    async fn a_stream_that_is_reset_is_noticed() {
        pause();
        for chunks in [0, 3] {
            let reset = Rc::new(Cell::new(false));
            let mut body = of_h2(chunks, &reset);
            let later = Rc::clone(&reset);
            actix_web::rt::spawn(async move {
                sleep(Duration::from_secs(3)).await;
                later.set(true);
            });
            let start = Instant::now();
            assert_eq!(watch(&mut body, pending::<()>()).await, None);
            assert!(start.elapsed() <= Duration::from_secs(3) + LOOK * 2);
        }
    }

    #[actix_web::test]
    async fn a_body_that_was_read_meanwhile_is_put_back() {
        pause();
        for chunks in [0, 1, 3, 100] {
            let mut body = of_h2(chunks, &Rc::default());
            let output = watch(&mut body, sleep(Duration::from_secs(3))).await;
            assert_eq!(output, Some(()));
            let mut bytes = 0;
            while let Some(chunk) = body.next().await {
                bytes += chunk.unwrap().len();
            }
            assert_eq!(bytes, chunks * 1_000);
        }
    }
}
