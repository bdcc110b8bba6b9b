//! One connection meets its limits.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, ResponseError};
use actix_ws::{AggregatedMessage, CloseCode, CloseReason, Session};
use futures_util::FutureExt;
use smallvec::SmallVec;
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout};
use traffik_core::{Attempt, Decision, Decisions, Error, Hits, Identity, Result};

use super::assembly::Bounds;
use super::excess::{Excess, OnExcess};
use super::rule::WsRule;
use super::throttle::Settings;
use super::unique;
use crate::limits::live::Current;
use crate::response::denial::Denial;
use crate::response::failed::Recovery;
use crate::response::unresolved::Unresolved;
use crate::throttle::HttpThrottle;
use crate::throttle::admission::{self, Decided, Meeting, Outcome};
use crate::throttle::backend::ThrottleBackend;
use crate::throttle::resolved::Resolved;

/// How long the frame that closes a connection may wait for a client that reads nothing.
const PARTING: Duration = Duration::from_secs(1);

/// Who is not limited.
static NOBODY: Identity = Identity::EXEMPT;

type Throttles<'a> = SmallVec<[Current<'a>; 3]>;

pub(crate) struct Connection {
    settings: Arc<Settings>,
    /// The handshake.
    request: HttpRequest,
    /// The backend that was chosen for it.
    chosen: Option<ThrottleBackend>,
    session: Session,
    id: String,
    /// One for each rule.
    limits: Vec<Limit>,
    /// Denials since the last admission.
    denials: Cell<u32>,
    waits: Cell<bool>,
}

/// What a rule knows about a connection.
struct Limit {
    backend: ThrottleBackend,
    /// Empty as long as it cannot be found out, and a handler admits nevertheless.
    resolved: OnceCell<Resolved>,
    /// When the client was told about a denial, and for how long that will do.
    told: Cell<Option<(Instant, Duration)>>,
}

/// The rules that a message meets, and what it costs by each.
pub(crate) type Charges = SmallVec<[Charge; 2]>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge {
    rule: usize,
    cost: Option<u32>,
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
            limits: Vec::new(),
            denials: Cell::new(0),
            waits: Cell::new(false),
        };
        let mut limits = Vec::new();
        for rule in &connection.settings.rules {
            let now = rule.throttle.current();
            let meeting = connection.meet(&now).await;
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
    pub(crate) fn charges(&self, message: &AggregatedMessage) -> Charges {
        let rules = self.settings.rules.iter().enumerate();
        rules
            .filter(|(_, rule)| rule.applies(message))
            .map(|(at, rule)| Charge {
                rule: at,
                cost: rule.cost_of(message),
            })
            .collect()
    }

    /// Decides, unless something has to be waited for; nothing is charged then.
    pub(crate) fn decide_now(&self, charges: &Charges) -> Option<Result<Decisions>> {
        let throttles = self.throttles(charges);
        let known = |(charge, throttle): (&Charge, &Current<'_>)| {
            self.limits[charge.rule].resolved.get().is_some() || throttle.is_disabled()
        };
        match charges.iter().zip(&throttles).all(known) {
            true => self.hits(charges, &throttles).try_until_ready(),
            false => None,
        }
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
            None => self.decide(&charges).await,
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

    async fn decide(&self, charges: &Charges) -> Result<Decisions> {
        let mut answers: Decisions = charges.iter().map(|_| Decision::UNLIMITED).collect();
        for (charge, answer) in charges.iter().zip(answers.iter_mut()) {
            *answer = self.ask_again(charge.rule).await?;
        }
        if answers.is_denied() {
            return Ok(answers);
        }
        let throttles = self.throttles(charges);
        let hits = self.hits(charges, &throttles);
        if !hits.must_queue() {
            let decided = hits.ask().await;
            let waits = decided.as_ref().is_ok_and(Decisions::is_denied) && self.may_wait(charges);
            if !waits {
                hits.note(&decided);
                return decided;
            }
        }
        self.waits.set(true);
        let decided = hits.until_ready().await;
        self.waits.set(false);
        decided
    }

    /// Finds out what a rule did not know at the handshake.
    async fn ask_again(&self, rule: usize) -> Result<Decision> {
        let (limit, rule) = (&self.limits[rule], &self.settings.rules[rule]);
        if limit.resolved.get().is_some() {
            return Ok(Decision::UNLIMITED);
        }
        let now = rule.throttle.current();
        let meeting = self.meet(&now).await;
        let answer = meeting.before_hit().await;
        limit.learn(rule, &self.id, meeting);
        answer
    }

    async fn meet<'a>(&'a self, throttle: &'a HttpThrottle) -> Meeting<'a> {
        let outer = self.chosen.as_ref().or(self.settings.backend.as_ref());
        admission::meet(&throttle.ask(), &self.request, outer).await
    }

    /// Who decides, as they are now.
    fn throttles(&self, charges: &Charges) -> Throttles<'_> {
        let rules = charges
            .iter()
            .map(|charge| &self.settings.rules[charge.rule]);
        rules.map(|rule| rule.throttle.current()).collect()
    }

    fn hits<'a>(
        &'a self,
        charges: &Charges,
        throttles: &'a Throttles<'_>,
    ) -> Hits<'a, Recovery<'a>> {
        let mut hits = Hits::default();
        for (charge, throttle) in charges.iter().zip(throttles) {
            let limit = &self.limits[charge.rule];
            hits.push_on(
                throttle.throttle(),
                match throttle.is_disabled() {
                    true => Attempt::by(&NOBODY),
                    false => limit.attempt(charge.cost),
                },
                &*limit.backend.backend,
                Recovery::of(throttle, &limit.backend, &self.request),
            );
        }
        hits
    }

    fn may_wait(&self, charges: &Charges) -> bool {
        let mut resolved = charges
            .iter()
            .filter_map(|charge| self.limits[charge.rule].resolved.get());
        resolved.any(Resolved::waits)
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
        let Some(denial) = Denial::new(&self.request, &all) else {
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
        let spokesman = self.spokesman(&excess, charges, &all);
        let backends = spokesman.and_then(|limit| limit.backend.on_excess.as_ref());
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
            OnExcess::Notify => {
                if let Some(limit) = spokesman {
                    limit.notify(&excess);
                }
            }
            OnExcess::Close => self.close(excess.close_reason()).await,
            OnExcess::Discard | OnExcess::Admit => {}
        }
        answer
    }

    /// The limit that denied, the one with the longest wait if several did.
    fn spokesman(&self, excess: &Excess<'_>, charges: &Charges, all: &[Decided]) -> Option<&Limit> {
        let is_it = |decided: &Decided| decided.throttle.is(excess.denial.throttle);
        let at = all.iter().position(is_it)?;
        Some(&self.limits[charges[at].rule])
    }

    fn decided(&self, rule: usize, decision: Decision) -> Decided {
        let throttle = self.settings.rules[rule].throttle.current();
        Decided::by(&throttle, self.limits[rule].resolved.get(), decision)
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

impl Limit {
    fn new(backend: &ThrottleBackend) -> Limit {
        Limit {
            backend: backend.clone(),
            resolved: OnceCell::new(),
            told: Cell::new(None),
        }
    }

    /// Keeps what a meeting found out.
    fn learn(&self, rule: &WsRule, connection: &str, meeting: Meeting<'_>) {
        // Who asks is not asked while it is disabled.
        if meeting.is_disabled() {
            return;
        }
        if let Ok(mut resolved) = meeting.resolved {
            if rule.per_connection {
                let scope = resolved.scope.get_or_insert_default();
                scope.push_str(connection);
            }
            self.resolved.get_or_init(|| resolved);
        }
    }

    fn attempt(&self, cost: Option<u32>) -> Attempt<'_> {
        let attempt = match self.resolved.get() {
            Some(resolved) => resolved.attempt(),
            None => Attempt::by(&NOBODY),
        };
        match cost {
            Some(cost) => attempt.cost(cost),
            None => attempt,
        }
    }

    /// Tells the client, unless it was told lately.
    fn notify(&self, excess: &Excess<'_>) {
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
