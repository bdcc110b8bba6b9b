use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use traffik_core::{Attempt, Decision, Hits, Identity, Result, Stat, Verdict};

use super::connection::Connection;
use super::limit::{Limit, in_room};
use super::rule::cut;
use crate::response::failed::Recovery;
use crate::response::hit_error::HitError;
use crate::throttle::HttpThrottle;
use crate::throttle::ask::Ask;
use crate::throttle::backend::ThrottleBackend;
use crate::throttle::resolved::Resolved;

/// A question to a throttle about the client of a WebSocket. Made by
/// [`ThrottledSession::ask`](crate::ThrottledSession::ask).
///
/// ```
/// use traffik_actix::{HitError, HttpThrottle, ThrottledSession};
///
/// async fn export(session: &ThrottledSession, exports: &HttpThrottle) -> Result<bool, HitError> {
///     Ok(session.ask(exports).scope("pdf").cost(3).hit().await?.is_allowed())
/// }
///
/// async fn left(session: &ThrottledSession, messages: &HttpThrottle) -> Result<u64, HitError> {
///     Ok(session.ask(messages).stat().await?.remaining)
/// }
/// # let _ = (export, left);
/// ```
///
/// A throttle of the connection's own rules counts as its messages do, in their count. Another one is asked about the handshake, as
/// by [`HttpThrottle::ask`] and in the same counts; of who [`identify_as`](crate::ThrottledSession::identify_as) said it is, if it did.
#[derive(Clone)]
#[must_use]
pub struct WsAsk<'a> {
    connection: &'a Connection,
    throttle: &'a HttpThrottle,
    identity: Option<Identity>,
    cost: Option<u32>,
    scope: Option<String>,
}

/// What is known about an asked throttle.
struct Known<'a> {
    resolved: Rc<Resolved>,
    backend: ThrottleBackend,
    /// What takes note of it.
    limit: Option<&'a Limit>,
    /// In which room of a rule's count, and its scope.
    room: Option<String>,
    scope: Option<String>,
}

impl<'a> WsAsk<'a> {
    pub(super) fn new(connection: &'a Connection, throttle: &'a HttpThrottle) -> WsAsk<'a> {
        WsAsk {
            connection,
            throttle,
            identity: None,
            cost: None,
            scope: None,
        }
    }

    /// By somebody else than the client.
    pub fn by(mut self, identity: impl Into<Identity>) -> WsAsk<'a> {
        self.identity = Some(identity.into());
        self
    }

    /// At another cost than the throttle says. A cost of zero is always admitted.
    pub fn cost(mut self, cost: u32) -> WsAsk<'a> {
        self.cost = Some(cost);
        self
    }

    /// In a scope with a count of its own, such as a room: the count of [`WsRule::scope_by`](crate::WsRule::scope_by), if a rule of the
    /// connection has the throttle, else that of a request that is [asked about](crate::Ask::scope) in this scope. Unless the throttle
    /// has scopes of its own, or the rule is per connection, the two are one.
    pub fn scope(mut self, scope: impl Into<String>) -> WsAsk<'a> {
        self.scope = Some(scope.into());
        self
    }

    /// Decides, and charges what is admitted. A throttle that lets requests
    /// [wait](crate::HttpThrottleBuilder::wait_up_to) waits here, too.
    ///
    /// # Errors
    ///
    /// As [`HttpThrottle::hit`].
    pub async fn hit(self) -> Result<Decision, HitError> {
        let now = self.throttle.current();
        if now.is_disabled() {
            return Ok(Decision::UNLIMITED);
        }
        let known = match self.known(&now).await? {
            Ok(known) => known,
            Err(answer) => return Ok(answer),
        };
        let request = &self.connection.request;
        let mut hits = Hits::default();
        hits.push_on(
            now.throttle(),
            self.attempt(&known),
            &*known.backend.backend,
            Recovery::of(&now, &known.backend, request),
        );
        let decision = hits.until_ready().await?[0];
        if let Some(limit) = known.limit.filter(|_| decision.is_allowed()) {
            let room = known.room.as_deref();
            limit.took(&now, &known.resolved, room, self.cost, &decision);
        }
        Ok(decision)
    }

    /// What would be decided, and why, charging nothing.
    ///
    /// # Errors
    ///
    /// As [`HttpThrottle::stat`].
    pub async fn stat(self) -> Result<Stat, HitError> {
        let now = self.throttle.current();
        if now.is_disabled() {
            return Ok(Stat::unlimited());
        }
        Ok(match self.known(&now).await? {
            Ok(known) => {
                let backend = &*known.backend.backend;
                let throttle = now.throttle();
                throttle.stat_on(backend, &self.attempt(&known)).await?
            }
            Err(answer) if answer.is_allowed() => Stat::unlimited(),
            Err(answer) => Stat {
                limit: answer.limit(),
                remaining: 0,
                wait: answer.wait(),
                verdict: answer.verdict(),
                ..Stat::unlimited()
            },
        })
    }

    /// How long such a hit would have to wait: nothing if it would be admitted, `None` if it never will.
    ///
    /// # Errors
    ///
    /// As [`HttpThrottle::stat`].
    pub async fn wait(self) -> Result<Option<Duration>, HitError> {
        let stat = self.stat().await?;
        Ok((stat.verdict != Verdict::Never).then_some(stat.wait))
    }

    /// Whether such a hit would be denied, charging nothing.
    ///
    /// # Errors
    ///
    /// As [`HttpThrottle::stat`].
    pub async fn is_throttled(self) -> Result<bool, HitError> {
        Ok(self.stat().await?.verdict != Verdict::Allow)
    }

    /// What the throttle wants to know, or what an error handler answers if that cannot be found.
    async fn known(&self, now: &HttpThrottle) -> Result<Result<Known<'a>, Decision>> {
        let connection = self.connection;
        let mut rules = connection.settings.rules.iter();
        if let Some(at) = rules.position(|rule| rule.throttle.stands_for(self.throttle)) {
            let answer = connection.ask_again(at, now).await?;
            let limit = &connection.limits[at];
            return Ok(match limit.resolved_for(now) {
                Some(resolved) if answer.is_allowed() => {
                    // What is charged to others is taken by others.
                    let noted = self.identity.is_none().then_some(limit);
                    let room = self.scope.clone().map(cut);
                    Ok(Known {
                        scope: in_room(&resolved, room.as_deref()),
                        resolved,
                        backend: limit.backend().clone(),
                        limit: noted,
                        room,
                    })
                }
                _ => Err(answer),
            });
        }
        let ask = Ask {
            throttle: now,
            identity: self.identity.clone().or_else(|| connection.who()),
            cost: self.cost,
            scope: self.scope.as_deref().map(Cow::Borrowed),
        };
        let places = connection.places(now).await;
        let meeting = connection.meet(&ask, &places).await;
        let answer = meeting.before_hit().await?;
        Ok(match meeting.resolved {
            Ok(resolved) => Ok(Known {
                resolved: Rc::new(resolved),
                backend: meeting.backend.clone(),
                limit: None,
                room: None,
                scope: None,
            }),
            Err(_) => Err(answer),
        })
    }

    fn attempt<'k>(&'k self, known: &'k Known<'_>) -> Attempt<'k> {
        let identity = self.identity.as_ref();
        let identity = identity.unwrap_or(&known.resolved.identity);
        let mut attempt = known.resolved.attempt_by(identity);
        if let Some(cost) = self.cost {
            attempt = attempt.cost(cost);
        }
        if let Some(scope) = &known.scope {
            attempt = attempt.scope(scope);
        }
        attempt
    }
}

/// Without the client.
impl fmt::Debug for WsAsk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsAsk")
            .field("throttle", &self.throttle.name())
            .field("cost", &self.cost)
            .finish_non_exhaustive()
    }
}
