//! What a rule knows about a connection.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::unconstrained;
use tokio::time::Instant;
use traffik_core::{Attempt, Decision, Identity, Permit, Rate, Result, Strategy};

use super::excess::Excess;
use super::recent::Recents;
use super::rule::{Charge, Own, WsRule};
use crate::limits::live::Current;
use crate::request::scope;
use crate::throttle::HttpThrottle;
use crate::throttle::admission::Meeting;
use crate::throttle::backend::ThrottleBackend;
use crate::throttle::resolved::Resolved;

/// Who is not limited.
static NOBODY: Identity = Identity::EXEMPT;

pub(super) struct Limit {
    /// That of the handshake, whose handlers have to do as long as it cannot be found out which it is.
    backend: ThrottleBackend,
    /// Where it counts, once that is known.
    place: OnceCell<ThrottleBackend>,
    /// Empty as long as it cannot be found out, and a handler admits nevertheless.
    resolved: RefCell<Option<Rc<Resolved>>>,
    /// When the client was told about a denial, and for how long that will do.
    told: Cell<Option<(Instant, Duration)>>,
    /// What is taken along if the client turns out to be somebody else.
    recents: RefCell<Recents>,
}

impl Limit {
    pub(super) fn new(backend: &ThrottleBackend) -> Limit {
        Limit {
            backend: backend.clone(),
            place: OnceCell::new(),
            resolved: RefCell::new(None),
            told: Cell::new(None),
            recents: RefCell::default(),
        }
    }

    /// What the throttle asked about the handshake.
    pub(super) fn resolved(&self) -> Option<Rc<Resolved>> {
        self.resolved.borrow().clone()
    }

    /// The same if that is all that the throttle asks by now.
    pub(super) fn resolved_for(&self, throttle: &HttpThrottle) -> Option<Rc<Resolved>> {
        self.resolved()
            .filter(|resolved| resolved.suffices(throttle))
    }

    /// Keeps what a meeting found out, unless it is known.
    pub(super) fn learn(&self, rule: &WsRule, connection: &str, meeting: Meeting<'_>) {
        // Who asks is not asked while it is disabled.
        if meeting.is_disabled() || self.resolved().is_some() {
            return;
        }
        if let Ok(resolved) = meeting.resolved {
            self.count_on(meeting.backend);
            self.replace(Some(Rc::new(rule.placed(resolved, connection))));
        }
    }

    /// Adds what functions gave in a meeting that are new.
    pub(super) fn complete(&self, meeting: &Meeting<'_>) {
        // The client may be somebody else by now, and stays so.
        if let (Ok(found), Some(known)) = (&meeting.resolved, self.resolved()) {
            self.replace(Some(Rc::new(known.completed_by(found))));
        }
    }

    /// Where it counts from now on, unless that is known.
    pub(super) fn count_on(&self, backend: &ThrottleBackend) {
        self.place.get_or_init(|| backend.clone());
    }

    pub(super) fn backend(&self) -> &ThrottleBackend {
        self.place.get().unwrap_or(&self.backend)
    }

    pub(super) fn replace(&self, resolved: Option<Rc<Resolved>>) {
        *self.resolved.borrow_mut() = resolved;
    }

    /// Takes note of what was admitted.
    pub(super) fn took(
        &self,
        throttle: &HttpThrottle,
        resolved: &Resolved,
        room: Option<&str>,
        cost: Option<u32>,
        decision: &Decision,
    ) {
        let hides_denial = decision.shadowed().is_some_and(|would| would.is_denied());
        if decision.is_unlimited() || decision.is_unchecked() || hides_denial {
            return;
        }
        let throttle = throttle.throttle();
        let cost = cost.or(resolved.cost).unwrap_or(throttle.cost());
        let rate = resolved.rate.unwrap_or(throttle.rate());
        let window_us = counts_for_us(throttle.strategy(), &rate, decision.limit());
        let at = self.backend().backend.now();
        let mut recents = self.recents.borrow_mut();
        recents.add(room, cost, at, window_us);
    }

    /// Charges somebody with what the connection took lately as somebody else, whether it fits or not.
    pub(super) async fn carry(&self, throttle: &HttpThrottle, to: &Resolved) -> Result<()> {
        let Some(from) = self.resolved() else {
            return Ok(());
        };
        // A function may be new that gives the rate: without one nothing would count.
        let from = from.completed_by(to);
        let rooms = self.recents.borrow().rooms();
        for room in rooms {
            let room = room.as_deref();
            let (before, after) = (in_room(&from, room), in_room(to, room));
            let before = scoped(from.attempt(), before.as_deref());
            let after = scoped(to.attempt(), after.as_deref());
            let (throttle, backend) = (throttle.throttle(), &self.backend().backend);
            if throttle.counts_as_one(&**backend, &before, &after) {
                continue;
            }
            // No more than counts still: what drains is not taken along.
            let stat = throttle.stat_on(&**backend, &before).await?;
            let counted = stat.limit.saturating_sub(stat.remaining);
            let window_us = counts_for_us(throttle.strategy(), &stat.rate, stat.limit);
            let taken = self.recents.borrow().taken(room, backend.now(), window_us);
            let carried = taken.min(u32::try_from(counted).unwrap_or(u32::MAX));
            let none = after.cost(0);
            let expected = Permit::expecting([(throttle, none, backend.clone())]);
            if let Some(permit) = expected.confirm(Decision::allow(stat.limit, 0).into()) {
                permit.settle(carried).await?;
            }
        }
        Ok(())
    }

    /// Tells the client, unless it was told lately.
    pub(super) fn notify(&self, excess: &Excess<'_>) {
        if self.may_tell(Instant::now(), excess.quiet()) {
            // A client that does not read what it is sent is not told; nor does it hold up the rest.
            // But that the task has done much already is no reason not to.
            let mut session = excess.session();
            let _ = unconstrained(session.text(excess.notice())).now_or_never();
        }
    }

    /// Whether the client may be told, which is noted.
    fn may_tell(&self, now: Instant, quiet: Duration) -> bool {
        if let Some((told, enough)) = self.told.get()
            && now.saturating_duration_since(told) < enough
        {
            return false;
        }
        self.told.set(Some((now, quiet)));
        true
    }
}

/// A rule that a message meets, as it is now.
pub(super) struct Party<'a> {
    pub(super) limit: &'a Limit,
    pub(super) throttle: Current<'a>,
    resolved: Option<Rc<Resolved>>,
    cost: Option<u32>,
    own: Option<&'a Own>,
    /// That of a room, if it is in one.
    scope: Option<String>,
}

impl<'a> Party<'a> {
    #[inline]
    pub(super) fn new(charge: &'a Charge, throttle: Current<'a>, limit: &'a Limit) -> Party<'a> {
        let resolved = limit.resolved_for(&throttle);
        let own = charge.own.as_deref();
        let scope = match (&resolved, own.and_then(|own| own.room.as_deref())) {
            (Some(resolved), Some(room)) => in_room(resolved, Some(room)),
            _ => None,
        };
        Party {
            limit,
            throttle,
            resolved,
            cost: charge.cost,
            own,
            scope,
        }
    }

    /// Whether there is nothing more to find out.
    pub(super) fn is_known(&self) -> bool {
        self.resolved.is_some() || self.throttle.is_disabled()
    }

    pub(super) fn may_wait(&self) -> bool {
        let resolved = self.resolved.as_deref();
        resolved.is_some_and(Resolved::waits)
    }

    pub(super) fn attempt(&self) -> Attempt<'_> {
        let Some(resolved) = &self.resolved else {
            return Attempt::by(&NOBODY);
        };
        if self.throttle.is_disabled() {
            return Attempt::by(&NOBODY);
        }
        let own = self.own.and_then(|own| own.identity.as_ref());
        let attempt = resolved.attempt_by(own.unwrap_or(&resolved.identity));
        let attempt = match self.cost {
            Some(cost) => attempt.cost(cost),
            None => attempt,
        };
        scoped(attempt, self.scope.as_deref())
    }

    /// Takes note of its admission. What a message says it is charged to is taken nowhere else.
    #[inline]
    pub(super) fn admitted(&self, decision: &Decision) {
        let room = match self.own {
            Some(own) if own.identity.is_some() => return,
            own => own.and_then(|own| own.room.as_deref()),
        };
        if let Some(resolved) = &self.resolved {
            let limit = self.limit;
            limit.took(&self.throttle, resolved, room, self.cost, decision);
        }
    }
}

fn scoped<'a>(attempt: Attempt<'a>, scope: Option<&'a str>) -> Attempt<'a> {
    match scope {
        Some(scope) => attempt.scope(scope),
        None => attempt,
    }
}

/// The scope of a room: within that of the handshake, in which no path has a line break. If that has none, the scope of a
/// request that is asked about in such a scope.
pub(super) fn in_room(resolved: &Resolved, room: Option<&str>) -> Option<String> {
    let room = room?;
    match &resolved.scope {
        Some(outer) => Some(format!("{outer}\n{room}")),
        None => scope::join(None, Some(room)),
    }
}

/// For how many microseconds at most what is taken counts. A window that has no length is none of zero: what is of
/// months counts for the longest ones, what is of nothing known for good.
fn counts_for_us(strategy: &dyn Strategy, rate: &Rate, quota: u64) -> u64 {
    // No month has more days than 31, and clocks may change in it.
    const MONTH_US: u64 = 32 * 24 * 60 * 60 * 1_000_000;
    let window = strategy.window(rate, quota);
    match rate.months() {
        _ if !window.is_zero() => u64::try_from(window.as_micros()).unwrap_or(u64::MAX),
        Some(months) => MONTH_US.saturating_mul(months.into()),
        None => u64::MAX,
    }
}
