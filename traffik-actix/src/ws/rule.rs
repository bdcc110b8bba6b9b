use std::fmt;
use std::sync::Arc;

use actix_ws::AggregatedMessage;

use crate::throttle::HttpThrottle;

/// A throttle, the messages it is for, and what each of them costs.
///
/// ```
/// use traffik_actix::actix_ws::AggregatedMessage;
/// use traffik_actix::{HttpThrottle, WsRule};
///
/// // A megabyte per minute and client, over all of its connections.
/// let bytes = HttpThrottle::builder("bytes").rate("1000000/minute").build()?;
/// let bytes = WsRule::new(bytes).per_byte();
///
/// // Two images per second and connection.
/// let images = HttpThrottle::builder("images").rate("2/second").build()?;
/// let images = WsRule::new(images)
///     .when(|message| matches!(message, AggregatedMessage::Binary(_)))
///     .per_connection();
/// # let _ = (bytes, images);
/// # Ok::<(), traffik_actix::Error>(())
/// ```
#[derive(Clone)]
pub struct WsRule {
    pub(crate) throttle: HttpThrottle,
    predicate: Option<Arc<MessageFn<bool>>>,
    cost: Option<Arc<MessageFn<u32>>>,
    pub(crate) per_connection: bool,
}

type MessageFn<T> = dyn Fn(&AggregatedMessage) -> T + Send + Sync;

impl WsRule {
    /// A rule for every message, at the cost that the throttle says.
    ///
    /// What the throttle asks about its request (who asks, at what rate and cost, in which scope) it
    /// asks about the handshake, once. `wait_up_to` lets a message wait for its turn instead of being
    /// denied; until then nothing more is decided, and little is read, so that the client is slowed down.
    pub fn new(throttle: HttpThrottle) -> WsRule {
        WsRule {
            throttle,
            predicate: None,
            cost: None,
            per_connection: false,
        }
    }

    /// Only messages for which this returns true, such as those of one kind.
    pub fn when<F>(mut self, predicate: F) -> WsRule
    where
        F: Fn(&AggregatedMessage) -> bool + Send + Sync + 'static,
    {
        self.predicate = Some(Arc::new(predicate));
        self
    }

    /// Sets a function that gives the cost of a message. A cost of zero is always admitted.
    pub fn cost_by<F>(mut self, cost: F) -> WsRule
    where
        F: Fn(&AggregatedMessage) -> u32 + Send + Sync + 'static,
    {
        self.cost = Some(Arc::new(cost));
        self
    }

    /// Messages cost a unit per byte of their payload, and empty ones one unit: they are work, too.
    pub fn per_byte(self) -> WsRule {
        self.cost_by(|message| u32::try_from(payload(message)).unwrap_or(u32::MAX).max(1))
    }

    /// Counts each connection by itself. Default: all connections of a client share one count, so
    /// that opening another tab gains nothing. Add this *beside* such a limit, not instead of it.
    pub fn per_connection(mut self) -> WsRule {
        self.per_connection = true;
        self
    }

    pub(crate) fn applies(&self, message: &AggregatedMessage) -> bool {
        self.predicate
            .as_ref()
            .is_none_or(|predicate| predicate(message))
    }

    /// What a message costs, unless that does not depend on it.
    pub(crate) fn cost_of(&self, message: &AggregatedMessage) -> Option<u32> {
        self.cost.as_ref().map(|cost| cost(message))
    }
}

pub(super) fn payload(message: &AggregatedMessage) -> usize {
    match message {
        AggregatedMessage::Text(text) => text.len(),
        AggregatedMessage::Binary(bytes)
        | AggregatedMessage::Ping(bytes)
        | AggregatedMessage::Pong(bytes) => bytes.len(),
        AggregatedMessage::Close(_) => 0,
    }
}

impl From<HttpThrottle> for WsRule {
    fn from(throttle: HttpThrottle) -> Self {
        WsRule::new(throttle)
    }
}

impl fmt::Debug for WsRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsRule")
            .field("throttle", &self.throttle)
            .field("per_connection", &self.per_connection)
            .finish_non_exhaustive()
    }
}
