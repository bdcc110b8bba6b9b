use std::fmt;
use std::sync::Arc;

use actix_ws::AggregatedMessage;
use smallvec::SmallVec;
use traffik_core::Identity;

use super::assembly::Whole;
use crate::throttle::HttpThrottle;
use crate::throttle::resolved::Resolved;

/// How many bytes of the name of a room tell it apart.
const ROOM: usize = 256;

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
    cost: Cost,
    room: Option<Arc<MessageFn<Option<String>>>>,
    identity: Option<Arc<MessageFn<Option<Identity>>>>,
    pub(crate) per_connection: bool,
    /// Whether it is for what goes out.
    pub(crate) outgoing: bool,
}

/// What a message costs.
#[derive(Clone)]
enum Cost {
    /// What the throttle says.
    Fixed,
    By(Arc<MessageFn<u32>>),
    Frames,
}

/// The rules that a message meets, and what it costs by each.
pub(crate) type Charges = SmallVec<[Charge; 2]>;

#[derive(Debug)]
pub(crate) struct Charge {
    pub(super) rule: usize,
    pub(super) cost: Option<u32>,
    /// Boxed, since it is rare.
    pub(super) own: Option<Box<Own>>,
}

/// What a message says about itself.
#[derive(Debug)]
pub(crate) struct Own {
    pub(super) room: Option<String>,
    pub(super) identity: Option<Identity>,
}

type MessageFn<T> = dyn Fn(&AggregatedMessage) -> T + Send + Sync;

impl WsRule {
    /// A rule for every message, at the cost that the throttle says.
    ///
    /// What the throttle asks about its request (who asks, at what rate and cost, in which scope) it
    /// asks about the handshake, once, and again at a [login](crate::ThrottledSession::identify_as). `wait_up_to` lets a message wait for its turn instead of being
    /// denied; until then nothing more is decided, and little is read, so that the client is slowed down.
    pub fn new(throttle: HttpThrottle) -> WsRule {
        WsRule {
            throttle,
            predicate: None,
            cost: Cost::Fixed,
            room: None,
            identity: None,
            per_connection: false,
            outgoing: false,
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
        self.cost = Cost::By(Arc::new(cost));
        self
    }

    /// Messages cost a unit per byte of their payload, and empty ones one unit: they are work, too.
    pub fn per_byte(self) -> WsRule {
        self.cost_by(|message| u32::try_from(payload(message)).unwrap_or(u32::MAX).max(1))
    }

    /// Messages cost a unit per frame: a message in several fragments costs as many, when it is complete. A
    /// client that sends tiny fragments gains nothing by it.
    pub fn per_frame(mut self) -> WsRule {
        self.cost = Cost::Frames;
        self
    }

    /// Counts messages of different scopes by themselves, such as those for different rooms; with `None`, together
    /// with all others that have none.
    ///
    /// ```
    /// use traffik_actix::actix_ws::AggregatedMessage;
    /// use traffik_actix::{HttpThrottle, WsRule, WsThrottle};
    ///
    /// fn room(message: &AggregatedMessage) -> Option<String> {
    ///     let AggregatedMessage::Text(text) = message else { return None };
    ///     let (room, _) = text.split_once(':')?;
    ///     Some(room.to_owned())
    /// }
    ///
    /// let all = HttpThrottle::builder("messages").rate("60/minute").build()?;
    /// let in_a_room = HttpThrottle::builder("in-a-room").rate("20/minute").build()?;
    /// let limits = WsThrottle::new(all).rule(WsRule::new(in_a_room).scope_by(room));
    /// # let _ = limits;
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    ///
    /// Whoever can invent scopes has a count in each, so have a rule without scopes beside it. Of a longer one the first
    /// 256 bytes count.
    pub fn scope_by<F>(mut self, scope: F) -> WsRule
    where
        F: Fn(&AggregatedMessage) -> Option<String> + Send + Sync + 'static,
    {
        self.room = Some(Arc::new(scope));
        self
    }

    /// Charges a message to whom this says, such as where one connection speaks for many; with `None` to the client.
    ///
    /// For a client that turns out to be somebody, such as by a login, see
    /// [`identify_as`](crate::ThrottledSession::identify_as): here nothing is taken along.
    pub fn identify_by<F>(mut self, identity: F) -> WsRule
    where
        F: Fn(&AggregatedMessage) -> Option<Identity> + Send + Sync + 'static,
    {
        self.identity = Some(Arc::new(identity));
        self
    }

    /// Counts each connection by itself. Default: all connections of a client share one count, so
    /// that opening another tab gains nothing. Add this *beside* such a limit, not instead of it.
    pub fn per_connection(mut self) -> WsRule {
        self.per_connection = true;
        self
    }

    /// What a message costs by this rule, if it is for it.
    pub(super) fn charge(&self, at: usize, message: &Whole) -> Option<Charge> {
        let applies = self.predicate.as_ref();
        let message = match applies.is_none_or(|applies| applies(&message.message)) {
            true => message,
            false => return None,
        };
        Some(Charge {
            rule: at,
            cost: match &self.cost {
                Cost::Fixed => None,
                Cost::By(cost) => Some(cost(&message.message)),
                Cost::Frames => Some(message.frames),
            },
            own: self.own(&message.message),
        })
    }

    fn own(&self, message: &AggregatedMessage) -> Option<Box<Own>> {
        let room = self.room.as_ref().and_then(|room| room(message));
        let identity = self.identity.as_ref().and_then(|who| who(message));
        (room.is_some() || identity.is_some()).then(|| {
            let room = room.map(cut);
            Box::new(Own { room, identity })
        })
    }

    /// What is known of a handshake, as it counts for a connection.
    pub(super) fn placed(&self, mut resolved: Resolved, connection: &str) -> Resolved {
        if self.per_connection {
            let scope = resolved.scope.get_or_insert_default();
            scope.push_str(connection);
        }
        resolved
    }
}

/// So much of the name of a room as tells it apart.
pub(super) fn cut(mut room: String) -> String {
    if let Some(end) = (0..=ROOM).rev().find(|at| room.is_char_boundary(*at))
        && room.len() > ROOM
    {
        room.truncate(end);
    }
    room
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
            .field("outgoing", &self.outgoing)
            .finish_non_exhaustive()
    }
}
