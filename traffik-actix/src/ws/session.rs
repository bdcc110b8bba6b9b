use std::fmt;
use std::rc::Rc;

use actix_web::web::Bytes;
use actix_ws::{AggregatedMessage, CloseReason, Session};
use bytestring::ByteString;
use traffik_core::Identity;

use super::ask::WsAsk;
use super::assembly::Whole;
use super::connection::{Connection, Way};
use super::held::Held;
use super::outbox::Outbox;
use super::spent::{self, OnSpent, SendError};
use crate::response::hit_error::HitError;
use crate::throttle::HttpThrottle;

/// A [`Session`] that knows its limits: it sends what the limits of what [goes out](crate::WsThrottle::outgoing)
/// admit, asks limits by hand, and learns who is at the other end.
///
/// ```no_run
/// use actix_web::{HttpRequest, HttpResponse, rt, web};
/// use traffik_actix::actix_ws::AggregatedMessage;
/// use traffik_actix::{Identity, WsThrottle};
/// # fn user_of(_: &str) -> Option<String> { None }
///
/// async fn feed(req: HttpRequest, body: web::Payload, limits: web::Data<WsThrottle>)
/// -> actix_web::Result<HttpResponse> {
///     let (response, _, mut messages) = limits.handle(&req, body).await?;
///     let mut session = messages.session();
///     rt::spawn(async move {
///         while let Some(Ok(message)) = messages.recv().await {
///             let AggregatedMessage::Text(text) = message else { continue };
///             if let Some(user) = text.strip_prefix("login:").and_then(user_of) {
///                 // From now on the user is limited, not the address.
///                 session.identify_as(Identity::of(user)).await?;
///             }
///             session.text("this is limited, too").await?;
///         }
///         Ok::<(), Box<dyn std::error::Error>>(())
///     });
///     Ok(response)
/// }
/// # let _ = feed;
/// ```
///
/// Made by [`ThrottledMessages::session`](crate::ThrottledMessages::session), and cheap to clone. What is sent through the
/// [`Session`] of actix-ws itself is not limited.
#[derive(Clone)]
pub struct ThrottledSession {
    connection: Rc<Held>,
    session: Session,
}

impl ThrottledSession {
    pub(super) fn new(connection: &Rc<Held>) -> ThrottledSession {
        ThrottledSession {
            connection: Rc::clone(connection),
            session: connection.session.clone(),
        }
    }

    /// Sends a text.
    ///
    /// It waits for its turn, if its throttles [say so](crate::HttpThrottleBuilder::wait_up_to), and while the client does not
    /// read what it was sent before. For many clients at once see [`outbox`](ThrottledSession::outbox).
    ///
    /// # Errors
    ///
    /// If it was not sent: see [`SendError`] and [`OnSpent`].
    pub async fn text(&mut self, text: impl Into<ByteString>) -> Result<(), SendError> {
        self.send(AggregatedMessage::Text(text.into())).await
    }

    /// Sends a binary message.
    ///
    /// # Errors
    ///
    /// As [`text`](ThrottledSession::text).
    pub async fn binary(&mut self, bytes: impl Into<Bytes>) -> Result<(), SendError> {
        self.send(AggregatedMessage::Binary(bytes.into())).await
    }

    /// Sends a ping; of more than 125 bytes the first 125.
    ///
    /// # Errors
    ///
    /// As [`text`](ThrottledSession::text).
    pub async fn ping(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.send(AggregatedMessage::Ping(bytes)).await
    }

    /// Answers a ping; with more than 125 bytes, with the first 125.
    ///
    /// # Errors
    ///
    /// As [`text`](ThrottledSession::text).
    pub async fn pong(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.send(AggregatedMessage::Pong(bytes)).await
    }

    /// Closes the connection, which costs nothing.
    ///
    /// # Errors
    ///
    /// If it is closed already.
    pub async fn close(self, reason: Option<CloseReason>) -> Result<(), SendError> {
        Ok(self.session.close(reason).await?)
    }

    /// How many messages of this connection were not sent because of their limits, those in an
    /// [`Outbox`] included.
    pub fn unsent(&self) -> u64 {
        self.connection.unsent.get()
    }

    /// A box of so many messages, at least one, that are sent one after the other as limits and client allow. Whoever puts one in
    /// never waits, so that a client that is slow, or has spent its budget, holds up nobody else.
    pub fn outbox(&self, messages: usize) -> Outbox {
        Outbox::open(&self.connection, messages)
    }

    /// Says who the client is, as it turned out later: by a login on the socket. From the next message on each rule counts
    /// for that identity, whatever functions say who asks; the other functions of the throttles are asked
    /// again about the handshake, whose extensions may say more by now, such as a plan.
    ///
    /// **What was taken before is not lost.** What this connection took within the last window of each rule, as far as it
    /// counts still, is charged to the identity as well, whether it fits or not: a login is no fresh budget. The count it was
    /// charged to first, such as that of an address, keeps it too, so that logging out is none either. A message that is being
    /// decided meanwhile counts for whoever it was. Of [scopes](crate::WsRule::scope_by) the 64 that were begun last are taken along.
    ///
    /// # Errors
    ///
    /// If a function of a throttle cannot make sense of the handshake, or a store fails. Nothing has changed
    /// then but what the identity is charged.
    pub async fn identify_as(&self, identity: impl Into<Identity>) -> Result<(), HitError> {
        Ok(self.connection.identify_as(identity.into()).await?)
    }

    /// A question to a throttle about this client: one that limits this connection, and counts as its messages do, or another
    /// one.
    pub fn ask<'a>(&'a self, throttle: &'a HttpThrottle) -> WsAsk<'a> {
        WsAsk::new(&self.connection, throttle)
    }

    async fn send(&mut self, message: AggregatedMessage) -> Result<(), SendError> {
        self.connection.send(&mut self.session, message).await
    }
}

impl Connection {
    /// Sends a message if the limits admit it.
    pub(super) async fn send(
        &self,
        session: &mut Session,
        message: AggregatedMessage,
    ) -> Result<(), SendError> {
        let whole = Whole::from(message);
        let charges = self.charges(&whole, Way::Out);
        if !charges.is_empty() {
            let decided = match self.decide_now(&charges) {
                Some(decided) => decided,
                None => self.decide(&charges, Way::Out).await,
            };
            let decisions = decided.map_err(SendError::Unchecked)?;
            if decisions.is_denied() {
                self.unsent.set(self.unsent.get().saturating_add(1));
                let denied = SendError::denied(&decisions);
                return match self.settings.on_spent {
                    OnSpent::Fail => Err(denied),
                    OnSpent::Discard => Ok(()),
                    OnSpent::Close => {
                        self.close(spent::close_reason(&decisions)).await;
                        Err(denied)
                    }
                };
            }
        }
        let sent = match whole.message {
            AggregatedMessage::Text(text) => session.text(text).await,
            AggregatedMessage::Binary(bytes) => session.binary(bytes).await,
            AggregatedMessage::Ping(bytes) => session.ping(&bytes).await,
            AggregatedMessage::Pong(bytes) => session.pong(&bytes).await,
            AggregatedMessage::Close(reason) => session.clone().close(reason).await,
        };
        Ok(sent?)
    }
}

impl fmt::Debug for ThrottledSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottledSession").finish_non_exhaustive()
    }
}
