//! One connection meets its limits.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, ResponseError};
use actix_ws::{AggregatedMessage, CloseCode, CloseReason, Session};
use smallvec::SmallVec;
use tokio::time::timeout;
use traffik_core::{Decision, Decisions, Error, Hits, Identity, Result};

use super::assembly::{Bounds, Whole};
use super::excess::{Excess, OnExcess};
use super::limit::{Limit, Party};
use super::rule::Charges;
use super::throttle::Settings;
use super::unique;
use crate::limits::live::Current;
use crate::response::denial::Denial;
use crate::response::failed::Recovery;
use crate::response::unresolved::Unresolved;
use crate::throttle::HttpThrottle;
use crate::throttle::admission::{self, Decided, Meeting, Outcome};
use crate::throttle::ask::Ask;
use crate::throttle::backend::ThrottleBackend;
use crate::throttle::places::Places;
use crate::throttle::resolved::Resolved;

/// How long the frame that closes a connection may wait for a client that reads nothing.
const PARTING: Duration = Duration::from_secs(1);

type Parties<'a> = SmallVec<[Party<'a>; 3]>;
type Throttles<'a> = SmallVec<[Current<'a>; 3]>;

pub(crate) struct Connection {
    pub(super) settings: Arc<Settings>,
    /// The handshake.
    pub(super) request: HttpRequest,
    /// The backend that was chosen for it.
    chosen: Option<ThrottleBackend>,
    pub(super) session: Session,
    id: String,
    /// Who it turned out to be.
    who: RefCell<Option<Identity>>,
    /// One for each rule.
    pub(super) limits: Vec<Limit>,
    /// Denials since the last admission.
    denials: Cell<u32>,
    waits: Cell<bool>,
    /// Messages that were not sent because of their limits.
    pub(super) unsent: Cell<u64>,
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Verdict {
    Pass(AggregatedMessage),
    Drop,
    /// The connection was closed.
    End,
}

impl Connection {
    /// Finds out what the throttles want to know about a handshake.
    ///
    /// # Errors
    ///
    /// The response that refuses the connection, if they cannot and no handler lets it in.
    pub(crate) async fn open(
        settings: Arc<Settings>,
        request: &HttpRequest,
        session: Session,
    ) -> actix_web::Result<Rc<Connection>> {
        let mut connection = Connection {
            settings,
            request: request.clone(),
            chosen: ThrottleBackend::chosen_for(request),
            session,
            id: unique::id(),
            who: RefCell::new(None),
            limits: Vec::new(),
            denials: Cell::new(0),
            waits: Cell::new(false),
            unsent: Cell::new(0),
        };
        let mut limits = Vec::new();
        for rule in &connection.settings.rules {
            let now = rule.throttle.current();
            let places = connection.places(&now).await;
            let meeting = connection.meet(&now.ask(), &places).await;
            let answer = meeting.before_hit().await.map(|answer| [answer]);
            let meetings = std::slice::from_ref(&meeting);
            if let Outcome::Denied(reply) = admission::conclude(request, meetings, &answer) {
                return Err(admission::into_error(meetings, answer, reply).await);
            }
            let limit = Limit::new(meeting.backend);
            limit.learn(rule, &connection.id, meeting);
            limits.push(limit);
        }
        connection.limits = limits;
        Ok(Rc::new(connection))
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.settings.bounds
    }

    /// What a message costs, by which rules.
    pub(super) fn charges(&self, message: &Whole, way: Way) -> Charges {
        let rules = self.settings.rules.iter().enumerate();
        rules
            .filter(|(_, rule)| rule.outgoing == (way == Way::Out))
            .filter_map(|(at, rule)| rule.charge(at, message))
            .collect()
    }

    /// Decides, unless something has to be waited for; nothing is charged then.
    pub(super) fn decide_now(&self, charges: &Charges) -> Option<Result<Decisions>> {
        let parties = self.parties(charges, self.throttles(charges));
        if !parties.iter().all(Party::is_known) {
            return None;
        }
        let decided = self.hits(&parties).try_until_ready()?;
        admitted(&parties, &decided);
        Some(decided)
    }

    /// Notes that a message passed; what no rule is for does not make up for denials.
    pub(crate) fn passed(&self, charges: &Charges) {
        if !charges.is_empty() {
            self.denials.set(0);
        }
    }

    /// Whether a message waits for its turn, as opposed to a backend.
    pub(crate) fn waits(&self) -> bool {
        self.waits.get()
    }

    /// Decides a message, unless it is decided, and does what is to be done about it.
    pub(crate) async fn judge(
        self: Rc<Self>,
        message: AggregatedMessage,
        charges: Charges,
        decided: Option<Result<Decisions>>,
    ) -> Verdict {
        let decided = match decided {
            Some(decided) => decided,
            None => self.decide(&charges, Way::In).await,
        };
        let decisions = match decided {
            Ok(decisions) => decisions,
            Err(error) => return self.fail(error).await,
        };
        if decisions.is_allowed() {
            self.passed(&charges);
            return Verdict::Pass(message);
        }
        match self.exceed(&message, &charges, &decisions).await {
            OnExcess::Admit => Verdict::Pass(message),
            OnExcess::Close => Verdict::End,
            OnExcess::Notify | OnExcess::Discard => Verdict::Drop,
        }
    }

    /// Closes the connection.
    pub(crate) async fn close(&self, reason: CloseReason) {
        // A client that reads nothing leaves no room for it, and is hung up on.
        let _ = timeout(PARTING, self.session.clone().close(Some(reason))).await;
    }

    /// Decides. A message that waits for its turn holds up those that come in, if it is one of them.
    pub(super) async fn decide(&self, charges: &Charges, way: Way) -> Result<Decisions> {
        let mut answers: Decisions = charges.iter().map(|_| Decision::UNLIMITED).collect();
        // What is asked now is what decides, whatever changes meanwhile.
        let throttles: Throttles<'_> = self.throttles(charges).collect();
        for ((charge, now), answer) in charges.iter().zip(&throttles).zip(answers.iter_mut()) {
            *answer = self.ask_again(charge.rule, now).await?;
        }
        if answers.is_denied() {
            return Ok(answers);
        }
        let parties = self.parties(charges, throttles);
        let decided = self.decide_known(&parties, way).await;
        admitted(&parties, &decided);
        decided
    }

    async fn decide_known(&self, parties: &Parties<'_>, way: Way) -> Result<Decisions> {
        let hits = self.hits(parties);
        if !hits.must_queue() {
            let decided = hits.ask().await;
            let may_wait = parties.iter().any(Party::may_wait);
            if !(may_wait && decided.as_ref().is_ok_and(Decisions::is_denied)) {
                hits.note(&decided);
                return decided;
            }
        }
        if way == Way::Out {
            return hits.until_ready().await;
        }
        self.waits.set(true);
        let decided = hits.until_ready().await;
        self.waits.set(false);
        decided
    }

    /// Finds out what a rule did not know at the handshake, whose throttle is this by now.
    pub(super) async fn ask_again(&self, rule: usize, now: &HttpThrottle) -> Result<Decision> {
        let (limit, rule) = (&self.limits[rule], &self.settings.rules[rule]);
        match limit.resolved() {
            Some(known) if known.suffices(now) => return Ok(Decision::UNLIMITED),
            // Boxed, since it is rare.
            Some(known) => return Box::pin(self.ask_more(limit, &known, now)).await,
            None => {}
        }
        let places = self.places(now).await;
        let ask = Ask {
            identity: self.who(),
            ..now.ask()
        };
        let meeting = self.meet(&ask, &places).await;
        let answer = meeting.before_hit().await;
        limit.learn(rule, &self.id, meeting);
        answer
    }

    /// Asks the functions that a throttle has since the handshake. What is known is not asked again.
    async fn ask_more(
        &self,
        limit: &Limit,
        known: &Resolved,
        now: &HttpThrottle,
    ) -> Result<Decision> {
        let ask = Ask {
            throttle: now,
            identity: Some(known.identity.clone()),
            cost: known.cost,
            scope: Some(Cow::Borrowed("")),
        };
        let meeting = admission::meet_on(&ask, &self.request, limit.backend()).await;
        let answer = meeting.before_hit().await;
        limit.complete(&meeting);
        answer
    }

    /// From now on the client is somebody else, who is charged with what it took lately.
    pub(super) async fn identify_as(&self, identity: Identity) -> Result<()> {
        let mut known = Vec::new();
        for (rule, limit) in self.settings.rules.iter().zip(&self.limits) {
            let now = rule.throttle.current();
            if now.is_disabled() {
                known.push(None);
                continue;
            }
            let ask = now.ask().by(identity.clone());
            let places = self.places(&now).await;
            let meeting = self.meet(&ask, &places).await;
            let resolved = rule.placed(meeting.resolved?, &self.id);
            limit.count_on(meeting.backend);
            limit.carry(&now, &resolved).await?;
            known.push(Some(Rc::new(resolved)));
        }
        for (limit, resolved) in self.limits.iter().zip(known) {
            limit.replace(resolved);
        }
        *self.who.borrow_mut() = Some(identity);
        Ok(())
    }

    /// Who it turned out to be.
    pub(super) fn who(&self) -> Option<Identity> {
        self.who.borrow().clone()
    }

    /// What the throttle's function says about the handshake, if it has one that says where to count.
    pub(super) async fn places(&self, throttle: &HttpThrottle) -> Places {
        Places::of(&[throttle.ask()], &self.request).await
    }

    pub(super) async fn meet<'a>(&'a self, ask: &Ask<'a>, places: &'a Places) -> Meeting<'a> {
        admission::meet(ask, &self.request, places, self.outer()).await
    }

    fn outer(&self) -> Option<&ThrottleBackend> {
        self.chosen.as_ref().or(self.settings.backend.as_ref())
    }

    /// The throttles of a message, as they are now.
    fn throttles<'a>(&'a self, charges: &'a Charges) -> impl Iterator<Item = Current<'a>> {
        let rules = charges
            .iter()
            .map(|charge| &self.settings.rules[charge.rule]);
        rules.map(|rule| rule.throttle.current())
    }

    /// The rules of a message, with their throttles.
    fn parties<'a>(
        &'a self,
        charges: &'a Charges,
        throttles: impl IntoIterator<Item = Current<'a>>,
    ) -> Parties<'a> {
        let parties = charges.iter().zip(throttles);
        let parties = parties
            .map(|(charge, throttle)| Party::new(charge, throttle, &self.limits[charge.rule]));
        parties.collect()
    }

    fn hits<'a>(&'a self, parties: &'a Parties<'_>) -> Hits<'a, Recovery<'a>> {
        let mut hits = Hits::default();
        for party in parties {
            let backend = party.limit.backend();
            hits.push_on(
                party.throttle.throttle(),
                party.attempt(),
                &*backend.backend,
                Recovery::of(&party.throttle, backend, &self.request),
            );
        }
        hits
    }

    /// Does what is to be done about a message beyond its limits, and says what that was.
    async fn exceed(
        &self,
        message: &AggregatedMessage,
        charges: &Charges,
        decisions: &Decisions,
    ) -> OnExcess {
        let all: Vec<Decided> = charges
            .iter()
            .zip(decisions.iter())
            .map(|(charge, decision)| self.decided(charge.rule, *decision))
            .collect();
        let Some((at, denial)) = Denial::new(&self.request, &all) else {
            unreachable!("called with a denial among the decisions");
        };
        let mut excess = Excess {
            message,
            denial,
            in_a_row: self.denials.get(),
            session: &self.session,
            extras: &self.settings.extras,
        };
        if excess.is_clients_fault() {
            excess.in_a_row = excess.in_a_row.saturating_add(1);
            self.denials.set(excess.in_a_row);
        }
        // The limit that denied, the one with the longest wait if several did.
        let spokesman = &self.limits[charges[at].rule];
        let backends = spokesman.backend().on_excess.as_ref();
        let mut answer = match self.settings.on_excess.as_ref().or(backends) {
            Some(handler) => handler.answer(&excess).await,
            None => OnExcess::default(),
        };
        let enough = self.settings.close_after;
        if answer != OnExcess::Admit
            && excess.is_clients_fault()
            && enough.is_some_and(|enough| excess.in_a_row >= enough)
        {
            answer = OnExcess::Close;
        }
        match answer {
            OnExcess::Notify => spokesman.notify(&excess),
            OnExcess::Close => self.close(excess.close_reason()).await,
            OnExcess::Discard | OnExcess::Admit => {}
        }
        answer
    }

    fn decided(&self, rule: usize, decision: Decision) -> Decided {
        let throttle = self.settings.rules[rule].throttle.current();
        let resolved = self.limits[rule].resolved();
        Decided::by(&throttle, resolved.as_deref(), decision)
    }

    async fn fail(&self, error: Error) -> Verdict {
        let makes_sense = !error.is_unresolved();
        // Otherwise it is logged already, and not as an error: clients can bring it about at will.
        if makes_sense {
            log::error!("a WebSocket is closed, since its limits cannot be checked: {error}");
        }
        let reason = match makes_sense || Unresolved(error).status_code().is_server_error() {
            true => (CloseCode::Error, "rate limits cannot be checked"),
            false => (
                CloseCode::Policy,
                "the limits cannot make sense of the handshake",
            ),
        };
        self.close(reason.into()).await;
        Verdict::End
    }
}

/// Takes note of who was charged.
fn admitted(parties: &Parties<'_>, decided: &Result<Decisions>) {
    if let Ok(decisions) = decided
        && decisions.is_allowed()
    {
        for (party, decision) in parties.iter().zip(decisions.iter()) {
            party.admitted(decision);
        }
    }
}
