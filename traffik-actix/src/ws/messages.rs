//! The messages that pass.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_ws::{AggregatedMessage, CloseCode, MessageStream, ProtocolError};
use futures_util::Stream;
use futures_util::future::LocalBoxFuture;

use super::assembly::Assembly;
use super::connection::{Connection, Verdict};

/// The messages of a WebSocket that its limits admit, whole.
///
/// It ends after the client's `Close`, after an error, and when the connection is gone, or was closed
/// because of its limits.
///
/// Nothing runs in the background: messages are read, and limits asked, while this is polled. It may be
/// polled beside other things, as in `tokio::select!`: a message that is being decided is not lost. When
/// dropped, or when the client vanishes, a message that waits for its turn gives its place away.
pub struct ThrottledMessages {
    connection: Rc<Connection>,
    frames: MessageStream,
    assembly: Assembly,
    /// What came while the message before was decided.
    ahead: Option<AggregatedMessage>,
    state: State,
}

enum State {
    Reading,
    /// One message is decided, or waits for its turn.
    Deciding(LocalBoxFuture<'static, Verdict>),
    /// The client is told why the connection ends.
    Closing(LocalBoxFuture<'static, ProtocolError>),
    Ended,
}

type Item = Result<AggregatedMessage, ProtocolError>;

impl ThrottledMessages {
    pub(crate) fn new(connection: Rc<Connection>, frames: MessageStream) -> ThrottledMessages {
        ThrottledMessages {
            assembly: Assembly::new(connection.bounds()),
            connection,
            frames,
            ahead: None,
            state: State::Reading,
        }
    }

    /// The next message that is admitted; `None` when there are no more.
    ///
    /// # Errors
    ///
    /// If the client violates the protocol or sends a message that is
    /// [too large](crate::WsThrottle::max_message_size), for which the connection is closed, or if the
    /// connection breaks. Nothing follows.
    pub async fn recv(&mut self) -> Option<Result<AggregatedMessage, ProtocolError>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.frames).poll_next(cx)) else {
                return Poll::Ready(None);
            };
            match frame.and_then(|frame| self.assembly.take(frame)) {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// The message, if it passes at once. Otherwise it is seen to.
    fn decide(&mut self, message: AggregatedMessage) -> Option<AggregatedMessage> {
        let charges = self.connection.charges(&message);
        let decided = self.connection.decide_now(&charges);
        if let Some(Ok(decisions)) = &decided
            && decisions.is_allowed()
        {
            self.connection.passed(&charges);
            return Some(message);
        }
        let judged = Rc::clone(&self.connection).judge(message, charges, decided);
        self.state = State::Deciding(Box::pin(judged));
        None
    }

    /// Notices whether a client vanishes while its message waits. For that the next message has to be
    /// read, but no more than that.
    fn poll_vanished(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.connection.waits() || self.ahead.is_some() {
            return Poll::Pending;
        }
        match ready!(self.poll_whole(cx)) {
            Some(Ok(next)) => {
                self.ahead = Some(next);
                return Poll::Pending;
            }
            Some(Err(error)) => self.fail(error),
            None => self.state = State::Ended,
        }
        Poll::Ready(())
    }

    fn fail(&mut self, error: ProtocolError) {
        let connection = Rc::clone(&self.connection);
        self.state = State::Closing(Box::pin(async move {
            if let Some(code) = close_code(&error) {
                connection.close(code.into()).await;
            }
            error
        }));
    }
}

impl Stream for ThrottledMessages {
    type Item = Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Reading => {
                    let next = match this.ahead.take() {
                        Some(message) => Some(Ok(message)),
                        None => ready!(this.poll_whole(cx)),
                    };
                    match next {
                        Some(Ok(close @ AggregatedMessage::Close(_))) => {
                            this.state = State::Ended;
                            return Poll::Ready(Some(Ok(close)));
                        }
                        Some(Ok(message)) => {
                            if let Some(admitted) = this.decide(message) {
                                return Poll::Ready(Some(Ok(admitted)));
                            }
                        }
                        Some(Err(error)) => this.fail(error),
                        None => this.state = State::Ended,
                    }
                }
                State::Deciding(verdict) => match verdict.as_mut().poll(cx) {
                    Poll::Ready(Verdict::Pass(message)) => {
                        this.state = State::Reading;
                        return Poll::Ready(Some(Ok(message)));
                    }
                    Poll::Ready(Verdict::Drop) => this.state = State::Reading,
                    Poll::Ready(Verdict::End) => this.state = State::Ended,
                    Poll::Pending => ready!(this.poll_vanished(cx)),
                },
                State::Closing(closed) => {
                    let error = ready!(closed.as_mut().poll(cx));
                    this.state = State::Ended;
                    return Poll::Ready(Some(Err(error)));
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

/// What a client is told about its violation of the protocol, if it is still there (RFC 6455, 7.4.1).
fn close_code(error: &ProtocolError) -> Option<CloseCode> {
    match error {
        ProtocolError::Overflow => Some(CloseCode::Size),
        ProtocolError::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            Some(CloseCode::Invalid)
        }
        ProtocolError::Io(_) => None,
        _ => Some(CloseCode::Protocol),
    }
}

impl fmt::Debug for ThrottledMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottledMessages").finish_non_exhaustive()
    }
}
