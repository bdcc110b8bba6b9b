//! The messages that pass.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_ws::{AggregatedMessage, CloseCode, MessageStream, ProtocolError};
use futures_util::Stream;
use futures_util::future::LocalBoxFuture;
use traffik_core::InFlight;

use super::assembly::{Assembly, Whole};
use super::connection::{Connection, Verdict, Way};
use super::held::Held;
use super::rule::payload;
use super::session::ThrottledSession;

/// Frames that are seen to at a stretch. A flood comes by the thousand, and without a pause whatever is
/// beside it in the worker waits until all of it is dropped.
const STRETCH: u32 = 32;

/// The messages of a WebSocket that its limits admit, whole.
///
/// It ends after the client's `Close`, after an error, and when the connection is gone, or was closed
/// because of its limits.
///
/// Nothing runs in the background: messages are read, and limits asked, while this is polled. It may be
/// polled beside other things, as in `tokio::select!`: a message that is being decided is not lost. When
/// dropped, or when the client vanishes, a message that waits for its turn gives its place away. To notice
/// that, up to 64 messages or 64 KiB are read ahead; a client that sent more keeps its turn.
pub struct ThrottledMessages {
    connection: Rc<Held>,
    frames: MessageStream,
    assembly: Assembly,
    /// What came while the message before was decided.
    ahead: Ahead,
    /// Frames since the task last paused.
    stretch: u32,
    state: State,
    /// That there is this connection counts as long.
    _in_flight: Option<InFlight>,
}

/// Messages that were read to see whether the client is still there.
#[derive(Default)]
struct Ahead {
    messages: VecDeque<Whole>,
    bytes: usize,
}

impl Ahead {
    fn has_room(&self) -> bool {
        self.messages.len() < 64 && self.bytes < 64 * 1024
    }

    fn push(&mut self, whole: Whole) {
        self.bytes += payload(&whole.message);
        self.messages.push_back(whole);
    }

    fn pop(&mut self) -> Option<Whole> {
        let whole = self.messages.pop_front()?;
        self.bytes -= payload(&whole.message);
        Some(whole)
    }
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
    pub(crate) fn new(
        connection: Rc<Connection>,
        frames: MessageStream,
        in_flight: Option<InFlight>,
    ) -> ThrottledMessages {
        ThrottledMessages {
            assembly: Assembly::new(connection.bounds()),
            connection: Held::new(connection),
            frames,
            ahead: Ahead::default(),
            stretch: 0,
            state: State::Reading,
            _in_flight: in_flight,
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

    /// The session of the same connection, for what is limited as it goes [out](crate::WsThrottle::outgoing), and for
    /// asking and learning more about who is at the other end.
    pub fn session(&self) -> ThrottledSession {
        ThrottledSession::new(&self.connection)
    }

    /// Lets others run after a stretch of work.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stretch < STRETCH {
            self.stretch += 1;
            return Poll::Ready(());
        }
        self.stretch = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The next message to see to.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Whole, ProtocolError>>> {
        if self.ahead.messages.is_empty() {
            return self.poll_whole(cx);
        }
        ready!(self.poll_pause(cx));
        Poll::Ready(self.ahead.pop().map(Ok))
    }

    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Whole, ProtocolError>>> {
        loop {
            ready!(self.poll_pause(cx));
            let Poll::Ready(frame) = Pin::new(&mut self.frames).poll_next(cx) else {
                self.stretch = 0;
                return Poll::Pending;
            };
            let Some(frame) = frame else {
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
    fn decide(&mut self, whole: Whole) -> Option<AggregatedMessage> {
        let charges = self.connection.charges(&whole, Way::In);
        let message = whole.message;
        let decided = self.connection.decide_now(&charges);
        if let Some(Ok(decisions)) = &decided
            && decisions.is_allowed()
        {
            self.connection.passed(&charges);
            return Some(message);
        }
        let judged = Rc::clone(&self.connection.connection).judge(message, charges, decided);
        self.state = State::Deciding(Box::pin(judged));
        None
    }

    /// Notices whether a client vanishes while its message waits. For that what it sends has to be read,
    /// within bounds.
    fn poll_vanished(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.connection.waits() && self.ahead.has_room() {
            match ready!(self.poll_whole(cx)) {
                Some(Ok(next)) => {
                    self.ahead.push(next);
                    continue;
                }
                Some(Err(error)) => self.fail(error),
                None => self.state = State::Ended,
            }
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn fail(&mut self, error: ProtocolError) {
        let connection = Rc::clone(&self.connection.connection);
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
                State::Reading => match ready!(this.poll_message(cx)) {
                    Some(Ok(whole)) if matches!(whole.message, AggregatedMessage::Close(_)) => {
                        this.state = State::Ended;
                        return Poll::Ready(Some(Ok(whole.message)));
                    }
                    Some(Ok(message)) => {
                        if let Some(admitted) = this.decide(message) {
                            return Poll::Ready(Some(Ok(admitted)));
                        }
                    }
                    Some(Err(error)) => this.fail(error),
                    None => this.state = State::Ended,
                },
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
