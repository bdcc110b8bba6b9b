//! One request meets its throttles.

use std::fmt;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use smallvec::SmallVec;
use traffik_core::headers::whole_seconds;
use traffik_core::{
    Attempt, Backend, Decision, Decisions, Error, Expected, Failure, Hits, Identity, Permit, Rate,
    Recover, Result, Stat, Throttle,
};

use crate::response::denial::{Asked, Denial, Throttled};
use crate::response::failed::Recovery;
use crate::response::handler::DeniedHandler;
use crate::response::headers::{Said, Told, text, write_denial};
use crate::response::info::{How, Noted, RateLimitInfo};
use crate::response::reply::Reply;
use crate::response::unavailable::Unavailable;
use crate::response::unresolved::Unresolved;
use crate::throttle::HttpThrottle;
use crate::throttle::answered::Dues;
use crate::throttle::ask::Ask;
use crate::throttle::backend::ThrottleBackend;
use crate::throttle::company::Company;
use crate::throttle::places::Places;
use crate::throttle::resolved::Resolved;

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It may pass; the receipt is for its response.
    Admitted(Receipt),
    /// It goes no further.
    Denied(Reply),
}

/// What one throttle decided about a request.
#[derive(Clone)]
#[non_exhaustive]
pub struct Decided {
    /// The throttle.
    pub throttle: HttpThrottle,
    /// Its decision.
    pub decision: Decision,
    /// The rate it applied.
    pub rate: Rate,
}

impl Decided {
    pub(crate) fn by(
        throttle: &HttpThrottle,
        resolved: Option<&Resolved>,
        decision: Decision,
    ) -> Decided {
        let dynamic = resolved.and_then(|resolved| resolved.rate);
        Decided {
            throttle: throttle.clone(),
            decision,
            rate: dynamic.unwrap_or(throttle.throttle().rate()),
        }
    }
}

/// The throttle by its name.
impl fmt::Debug for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decided")
            .field("throttle", &self.throttle.name())
            .field("decision", &self.decision)
            .field("rate", &self.rate)
            .finish()
    }
}

/// What the response to an admitted request should say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Receipt(Told);

impl Receipt {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.0, Told::None)
    }

    #[inline]
    pub(crate) fn stamp(self, headers: &mut HeaderMap) {
        if !self.is_empty() {
            self.0.write(headers);
        }
    }
}

/// A request before one of its throttles.
pub(crate) struct Meeting<'a> {
    throttle: &'a HttpThrottle,
    pub(crate) backend: &'a ThrottleBackend,
    recovery: Recovery<'a>,
    /// What the throttle asks about the request, or why it could not be found.
    pub(crate) resolved: Result<Resolved>,
}

type Meetings<'a> = SmallVec<[Meeting<'a>; 3]>;
type Answers = SmallVec<[Decision; 3]>;

/// What is known already about a request whose decision has to be waited for: what each throttle
/// asked about it, or nothing if that has to be waited for too. It is not asked twice.
#[derive(Debug)]
pub(crate) struct Undecided(Option<Vec<Result<Resolved>>>);

impl Undecided {
    /// Nothing is known.
    pub(crate) const UNASKED: Undecided = Undecided(None);

    fn resolved<'a>(meetings: impl IntoIterator<Item = Meeting<'a>>) -> Undecided {
        Undecided(Some(
            meetings
                .into_iter()
                .map(|meeting| meeting.resolved)
                .collect(),
        ))
    }
}

/// Decides without waiting, if nothing has to be waited for. Nothing is charged otherwise.
pub(crate) fn admit_now(
    throttles: &[&HttpThrottle],
    req: &HttpRequest,
    outer: Option<&ThrottleBackend>,
) -> std::result::Result<Outcome, Undecided> {
    match throttles {
        [] => Ok(Outcome::Admitted(Receipt::default())),
        [one] => admit_one_now(one, req, outer),
        all => admit_several_now(all, req, outer),
    }
}

/// The same for one throttle.
#[inline]
pub(crate) fn admit_one_now(
    throttle: &HttpThrottle,
    req: &HttpRequest,
    outer: Option<&ThrottleBackend>,
) -> std::result::Result<Outcome, Undecided> {
    let chosen = throttle.chosen_for(req);
    let outer = chosen.as_ref().or(outer);
    match throttle.asks_only_who() && !RateLimitInfo::is_kept(req) {
        true => admit_alone(throttle, req, outer),
        false => meet_unless_far(&[throttle], req, outer),
    }
}

fn admit_several_now(
    throttles: &[&HttpThrottle],
    req: &HttpRequest,
    outer: Option<&ThrottleBackend>,
) -> std::result::Result<Outcome, Undecided> {
    let chosen = chosen_for(throttles.iter().copied(), req);
    let outer = chosen.as_ref().or(outer);
    if !RateLimitInfo::is_kept(req)
        && let Some(company) = HttpThrottle::company(throttles).filter(|one| one.is_plain())
        && !throttles.iter().any(|one| one.throttle().is_shadow())
    {
        return admit_plain(company, throttles, req, outer);
    }
    meet_unless_far(throttles, req, outer)
}

/// Meets all, unless a function that says where one of them counts has to be asked.
fn meet_unless_far(
    throttles: &[&HttpThrottle],
    req: &HttpRequest,
    outer: Option<&ThrottleBackend>,
) -> std::result::Result<Outcome, Undecided> {
    // Rare enough to be worth no way of its own.
    if throttles.iter().any(|one| one.backend_by().is_some()) {
        return Err(Undecided::UNASKED);
    }
    meet_all(throttles, req, outer, Meetings::new())
}

fn meet_all<'a>(
    throttles: &[&'a HttpThrottle],
    req: &'a HttpRequest,
    outer: Option<&'a ThrottleBackend>,
    mut meetings: Meetings<'a>,
) -> std::result::Result<Outcome, Undecided> {
    let others = &throttles[meetings.len()..];
    let backends = others.iter().map(|one| one.backend_for(req, outer));
    let backends: SmallVec<[&ThrottleBackend; 3]> = backends.collect();
    let mut all = others.iter().zip(&backends);
    // Before any function is asked, so that none is asked again.
    if all.any(|(throttle, backend)| throttle.has_to_wait(backend)) {
        return Err(Undecided::UNASKED);
    }
    for (throttle, backend) in others.iter().zip(backends) {
        let meeting = Meeting::now(throttle, req, backend, &meetings);
        meetings.push(meeting.ok_or(Undecided::UNASKED)?);
    }
    meet_now(req, meetings)
}

fn meet_now(req: &HttpRequest, meetings: Meetings<'_>) -> std::result::Result<Outcome, Undecided> {
    match decide_now(&meetings) {
        Some(answers) => {
            note(req, &meetings, &answers, Entry::Itself);
            Ok(conclude(req, &meetings, &answers))
        }
        None => Err(Undecided::resolved(meetings)),
    }
}

/// Who tells clients what was decided.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// The middleware or handler that has asked.
    Itself,
    /// Nobody, unless somebody wants to know what is decided by hand.
    Hand,
}

/// Leaves what was decided to whoever wants to know.
fn note(
    req: &HttpRequest,
    meetings: &[Meeting<'_>],
    answers: &Result<impl AsRef<[Decision]>>,
    entry: Entry,
) {
    let Some(info) = RateLimitInfo::of(req) else {
        return;
    };
    let Ok(answers) = answers else {
        return;
    };
    let answers = answers.as_ref();
    let denied = answers.iter().any(Decision::is_denied);
    info.note(
        meetings
            .iter()
            .zip(answers)
            .map(|(meeting, decision)| Noted {
                decided: meeting.decided(*decision),
                told: meeting.tells(decision, denied).map(How::of),
                is_by_hand: entry == Entry::Hand,
            }),
    );
}

/// The common case: one limit that asks for nothing but who it is. Nothing is put together here that only
/// others need.
fn admit_alone(
    throttle: &HttpThrottle,
    req: &HttpRequest,
    outer: Option<&ThrottleBackend>,
) -> std::result::Result<Outcome, Undecided> {
    let backend = throttle.backend_for(req, outer);
    let meeting = |resolved| Meeting::new(throttle, req, backend, resolved);
    let Some(who) = throttle.who_now(req, backend) else {
        return Err(Undecided::UNASKED);
    };
    let Ok(identity) = &who else {
        let unknown = meeting(who.map(Resolved::only));
        return meet_now(req, Meetings::from_iter([unknown]));
    };
    let decided = Hits::try_decide_one(
        throttle.throttle(),
        Attempt::by(identity),
        &*backend.backend,
        Recovery::of(throttle, backend, req),
    );
    if let Some(Ok(decision)) = &decided
        && decision.is_allowed()
        && decision.shadowed().is_none()
    {
        let told = Told::of_admission(throttle, backend, decision);
        return Ok(Outcome::Admitted(Receipt(told)));
    }
    let meeting = meeting(who.map(Resolved::only));
    match decided {
        Some(decided) => {
            let answers = decided.map(|decision| [decision]);
            Ok(conclude(req, std::slice::from_ref(&meeting), &answers))
        }
        None => Err(Undecided::resolved([meeting])),
    }
}

/// The same for several in [plain](Company::is_plain) company.
fn admit_plain(
    company: &Arc<Company>,
    throttles: &[&HttpThrottle],
    req: &HttpRequest,
    outer: Option<&ThrottleBackend>,
) -> std::result::Result<Outcome, Undecided> {
    let first = throttles[0];
    let backend = first.backend_for(req, outer);
    for other in &throttles[1..] {
        other.notice(backend, Some(req));
    }
    let identity = match first.who_now(req, backend).ok_or(Undecided::UNASKED)? {
        Ok(identity) if identity.is_exempt() => return Ok(Outcome::Admitted(Receipt::default())),
        Ok(identity) => identity,
        Err(error) => {
            // Each of the others fails by its own name.
            let first = Meeting::new(first, req, backend, Err(error));
            return meet_all(throttles, req, outer, Meetings::from_iter([first]));
        }
    };
    let limits = throttles.iter().map(|one| one.throttle());
    let decided = Hits::try_decide_all(limits, &identity, &*backend.backend);
    if let Some(Ok(decisions)) = &decided
        && decisions.is_allowed()
    {
        let told = Told::in_company(company, throttles, backend, decisions);
        return Ok(Outcome::Admitted(Receipt(told)));
    }
    let resolved = || Ok(Resolved::only(identity.clone()));
    let meetings = throttles
        .iter()
        .map(|one| Meeting::new(one, req, backend, resolved()));
    let meetings: Meetings<'_> = meetings.collect();
    let decided = match decided {
        Some(Err(error)) => hits(&meetings).recover_from(error),
        decided => decided,
    };
    match decided {
        Some(decided) => Ok(conclude(req, &meetings, &decided)),
        None => Err(Undecided::resolved(meetings)),
    }
}

/// Decides what [`admit_now`] could not, and what is to be settled when the response is there.
pub(crate) async fn admit_later(
    throttles: &[&HttpThrottle],
    req: &HttpRequest,
    outer: Option<&ThrottleBackend>,
    undecided: Undecided,
) -> (Outcome, Dues) {
    let Undecided(Some(resolved)) = undecided else {
        let asks: SmallVec<[Ask<'_>; 3]> = throttles.iter().map(|one| one.ask()).collect();
        let chosen = chosen_for(throttles.iter().copied(), req);
        let places = Places::of(&asks, req).await;
        let meetings = meet_later(&asks, req, &places, chosen.as_ref().or(outer)).await;
        return hold(req, &meetings).await;
    };
    let chosen = chosen_for(throttles.iter().copied(), req);
    let outer = chosen.as_ref().or(outer);
    let meetings: Meetings<'_> = throttles
        .iter()
        .zip(resolved)
        .map(|(throttle, resolved)| {
            let backend = throttle.backend_for(req, outer);
            Meeting::new(throttle, req, backend, resolved)
        })
        .collect();
    hold(req, &meetings).await
}

/// Decides, and holds what throttles that look at the response have charged.
async fn hold(req: &HttpRequest, meetings: &[Meeting<'_>]) -> (Outcome, Dues) {
    let mut throttles = meetings.iter().map(|meeting| meeting.throttle);
    if throttles.any(|throttle| throttle.after().is_anything()) {
        // Boxed, since it would enlarge the future of every request.
        return Box::pin(hold_dues(req, meetings)).await;
    }
    let answers = decide(meetings).await;
    note(req, meetings, &answers, Entry::Itself);
    (conclude(req, meetings, &answers), Dues::default())
}

async fn hold_dues(req: &HttpRequest, meetings: &[Meeting<'_>]) -> (Outcome, Dues) {
    let expected = meetings.iter().map(|meeting| {
        let settles = meeting.throttle.after().is_anything();
        settles.then(|| Permit::expecting(meeting.charge()))
    });
    let mut expected: Vec<Option<Expected>> = expected.collect();
    let answers = decide_telling(meetings, &mut || {
        expected.iter_mut().flatten().for_each(Expected::begin);
    })
    .await;
    let mut dues = Dues::default();
    if let Ok(answers) = &answers
        && answers.iter().all(Decision::is_allowed)
    {
        let held = meetings.iter().zip(expected).zip(answers);
        dues.0
            .extend(held.filter_map(|((meeting, expected), answer)| {
                let permit = expected?.confirm((*answer).into())?;
                Some((meeting.throttle.clone(), permit))
            }));
    }
    note(req, meetings, &answers, Entry::Itself);
    (conclude(req, meetings, &answers), dues)
}

/// Decides all or none: a permit for all of it, or the response.
pub(crate) async fn reserve(asks: &[Ask<'_>], req: &HttpRequest) -> actix_web::Result<Permit> {
    let chosen = chosen_for(asks.iter().map(|ask| ask.throttle), req);
    let places = Places::of(asks, req).await;
    let meetings = meet_later(asks, req, &places, chosen.as_ref()).await;
    let mut expected = Permit::expecting(meetings.iter().flat_map(Meeting::charge));
    let answers = decide_telling(&meetings, &mut || expected.begin()).await;
    let charged: Decisions = match &answers {
        Ok(answers) => meetings
            .iter()
            .zip(answers)
            .filter_map(|(meeting, answer)| meeting.resolved.is_ok().then_some(*answer))
            .collect(),
        Err(_) => Decisions::default(),
    };
    note(req, &meetings, &answers, Entry::Hand);
    match conclude(req, &meetings, &answers) {
        Outcome::Admitted(_) => match expected.confirm(charged) {
            Some(permit) => Ok(permit),
            None => unreachable!("all were admitted"),
        },
        Outcome::Denied(reply) => Err(into_error(&meetings, answers, reply).await),
    }
}

/// Decides all or none.
pub(crate) async fn admit(asks: &[Ask<'_>], req: &HttpRequest) -> actix_web::Result<()> {
    let chosen = chosen_for(asks.iter().map(|ask| ask.throttle), req);
    let places = Places::of(asks, req).await;
    let meetings = meet_later(asks, req, &places, chosen.as_ref()).await;
    let answers = decide(&meetings).await;
    note(req, &meetings, &answers, Entry::Hand);
    match conclude(req, &meetings, &answers) {
        Outcome::Admitted(_) => Ok(()),
        // Boxed, since it would enlarge the future of every hit.
        Outcome::Denied(reply) => Err(Box::pin(into_error(&meetings, answers, reply)).await),
    }
}

/// Decides all or none, leaving it to the caller what to do about it.
pub(crate) async fn decide_all(asks: &[Ask<'_>], req: &HttpRequest) -> Result<Decisions> {
    let chosen = chosen_for(asks.iter().map(|ask| ask.throttle), req);
    let places = Places::of(asks, req).await;
    let meetings = meet_later(asks, req, &places, chosen.as_ref()).await;
    let answers = decide(&meetings).await;
    note(req, &meetings, &answers, Entry::Hand);
    Ok(answers?.into_iter().collect())
}

/// What would be decided, charging nothing.
pub(crate) async fn stat(ask: &Ask<'_>, req: &HttpRequest) -> Result<Stat> {
    let chosen = ask.throttle.chosen_for(req);
    let places = Places::of(std::slice::from_ref(ask), req).await;
    let meeting = meet(ask, req, &places, chosen.as_ref()).await;
    let attempt = meeting.resolved.as_ref().map_err(Error::clone)?.attempt();
    let throttle = meeting.throttle.throttle();
    throttle.stat_on(&*meeting.backend.backend, &attempt).await
}

/// The backend in the extensions of a request, if a throttle has none of its own.
#[inline]
fn chosen_for<'a>(
    mut throttles: impl Iterator<Item = &'a HttpThrottle>,
    req: &HttpRequest,
) -> Option<ThrottleBackend> {
    throttles
        .find(|throttle| !throttle.knows_its_backend())?
        .chosen_for(req)
}

async fn meet_later<'a>(
    asks: &[Ask<'a>],
    req: &'a HttpRequest,
    places: &'a Places,
    outer: Option<&'a ThrottleBackend>,
) -> Meetings<'a> {
    let mut meetings = Meetings::new();
    for (at, ask) in asks.iter().enumerate() {
        let (backend, lost) = places.find(at, ask.throttle, req, outer);
        let resolved = match (lost, who_asked(ask, backend, asks, &meetings)) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(known)) => {
                let ask = ask.clone().by(known);
                ask.throttle.resolve(req, backend, &ask).await
            }
            (None, None) => ask.throttle.resolve(req, backend, ask).await,
        };
        meetings.push(Meeting::new(ask.throttle, req, backend, resolved));
    }
    meetings
}

/// Who asks, if the function that has to be asked was asked before.
fn who_asked(
    ask: &Ask<'_>,
    backend: &ThrottleBackend,
    asks: &[Ask<'_>],
    earlier: &[Meeting<'_>],
) -> Option<Identity> {
    let unknown = ask.identity.is_none();
    let identify = ask.throttle.identify(backend);
    let mut before = asks.iter().zip(earlier).filter(|_| unknown);
    before.find_map(|(ask, meeting)| {
        let same = meeting.throttle.identify(meeting.backend).is(identify);
        let resolved = meeting.resolved.as_ref().ok()?;
        (same && ask.identity.is_none()).then(|| resolved.identity.clone())
    })
}

pub(crate) async fn meet<'a>(
    ask: &Ask<'a>,
    req: &'a HttpRequest,
    places: &'a Places,
    outer: Option<&'a ThrottleBackend>,
) -> Meeting<'a> {
    let (backend, lost) = places.find(0, ask.throttle, req, outer);
    let resolved = match lost {
        Some(error) => Err(error.clone()),
        None => ask.throttle.resolve(req, backend, ask).await,
    };
    Meeting::new(ask.throttle, req, backend, resolved)
}

/// The same where it is known where the throttle counts.
#[cfg(feature = "ws")]
pub(crate) async fn meet_on<'a>(
    ask: &Ask<'a>,
    req: &'a HttpRequest,
    backend: &'a ThrottleBackend,
) -> Meeting<'a> {
    let resolved = ask.throttle.resolve(req, backend, ask).await;
    Meeting::new(ask.throttle, req, backend, resolved)
}

/// What is answered without waiting; a denial is not, if the request may wait instead.
fn decide_now(meetings: &[Meeting<'_>]) -> Option<Result<Answers>> {
    let mut answers = Answers::new();
    for meeting in meetings {
        match &meeting.resolved {
            Ok(_) => answers.push(Decision::UNLIMITED),
            // The error itself is returned by `decide`.
            Err(_) if meeting.is_shadow() => answers.push(Decision::UNLIMITED),
            Err(error) => answers.push(meeting.recovery.recover_now(&meeting.failure(error))??),
        }
    }
    if answers.iter().any(Decision::is_denied) {
        return Some(Ok(answers));
    }
    let decided = hits(meetings).try_until_ready()?;
    Some(decided.map(|decisions| merge(meetings, answers, &decisions)))
}

async fn decide(meetings: &[Meeting<'_>]) -> Result<Answers> {
    let answers = before_hits(meetings).await?;
    if answers.iter().any(Decision::is_denied) {
        return Ok(answers);
    }
    let decisions = hits(meetings).until_ready().await?;
    Ok(merge(meetings, answers, &decisions))
}

/// The same, which says whenever it asks.
async fn decide_telling(
    meetings: &[Meeting<'_>],
    asks: &mut (dyn FnMut() + Send),
) -> Result<Answers> {
    let answers = before_hits(meetings).await?;
    if answers.iter().any(Decision::is_denied) {
        return Ok(answers);
    }
    let decisions = hits(meetings).until_ready_telling(asks).await?;
    Ok(merge(meetings, answers, &decisions))
}

async fn before_hits(meetings: &[Meeting<'_>]) -> Result<Answers> {
    let mut answers = Answers::new();
    for meeting in meetings {
        answers.push(meeting.before_hit().await?);
    }
    Ok(answers)
}

fn hits<'a>(meetings: &'a [Meeting<'a>]) -> Hits<'a, Recovery<'a>> {
    let mut hits = Hits::default();
    for meeting in meetings {
        if let Ok(resolved) = &meeting.resolved {
            hits.push_on(
                meeting.throttle.throttle(),
                resolved.attempt(),
                &*meeting.backend.backend,
                meeting.recovery,
            );
        }
    }
    hits
}

/// Puts the decisions of the hits where their meetings are.
fn merge(meetings: &[Meeting<'_>], mut answers: Answers, decisions: &[Decision]) -> Answers {
    let hit = meetings
        .iter()
        .zip(&mut answers)
        .filter(|(meeting, _)| meeting.resolved.is_ok());
    for ((_, answer), decision) in hit.zip(decisions) {
        *answer = *decision;
    }
    answers
}

#[inline]
pub(crate) fn conclude(
    req: &HttpRequest,
    meetings: &[Meeting<'_>],
    answers: &Result<impl AsRef<[Decision]>>,
) -> Outcome {
    let answers = match answers {
        Ok(answers) => answers.as_ref(),
        Err(error) => return Outcome::Denied(Reply::now(refuse(error.clone()))),
    };
    if answers.iter().any(Decision::is_denied) {
        return Outcome::Denied(deny(req, meetings, answers));
    }
    let said = meetings
        .iter()
        .zip(answers)
        .filter_map(|(meeting, decision)| meeting.tells(decision, false));
    Outcome::Admitted(Receipt(match shadows(meetings, answers) {
        Some(shadows) => Told::with_shadows(said, shadows),
        None => Told::of(said),
    }))
}

/// What throttles in shadow would have done, if clients are told.
fn shadows(meetings: &[Meeting<'_>], answers: &[Decision]) -> Option<HeaderValue> {
    if answers.iter().all(|decision| decision.shadowed().is_none()) {
        return None;
    }
    let all = meetings.iter().zip(answers);
    let would: Vec<String> = all
        .filter_map(|(meeting, decision)| meeting.would(decision))
        .collect();
    (!would.is_empty()).then(|| text(would.join(", ").into_bytes()))
}

/// The answer to a request that no decision was made about.
#[cold]
pub(crate) fn refuse(error: Error) -> HttpResponse {
    HttpResponse::from_error(refusal(error))
}

/// The same as an error.
pub(crate) fn refusal(error: Error) -> actix_web::Error {
    match error.is_unresolved() {
        true => Unresolved(error).into(),
        false => Unavailable(error).into(),
    }
}

/// A denial as the error of a handler or an extractor, who may catch it by its type.
pub(crate) async fn into_error(
    meetings: &[Meeting<'_>],
    answers: Result<impl AsRef<[Decision]>>,
    reply: Reply,
) -> actix_web::Error {
    let answers = match &answers {
        Ok(answers) => answers.as_ref(),
        Err(error) => return refusal(error.clone()),
    };
    let names = meetings.iter().map(|meeting| meeting.throttle.name());
    let throttled = Throttled::of(names.zip(answers.iter().copied()));
    throttled.answered(reply.get().await)
}

/// The answer to a request whose client does not wait for it any more: nobody reads it but logs. nginx calls
/// it 499.
pub(crate) fn gone() -> HttpResponse {
    let status = StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT);
    HttpResponse::new(status)
}

#[cold]
fn deny(req: &HttpRequest, meetings: &[Meeting<'_>], answers: &[Decision]) -> Reply {
    let all: Vec<Decided> = meetings
        .iter()
        .zip(answers)
        .map(|(meeting, decision)| meeting.decided(*decision))
        .collect();
    let Some((at, denial)) = Denial::new(req, &all) else {
        unreachable!("called with a denial among the answers");
    };
    let spokesman = meetings.get(at);
    let said = meetings.iter().zip(answers);
    let said = said.filter_map(|(meeting, decision)| meeting.tells(decision, true));
    let told = match shadows(meetings, answers) {
        Some(shadows) => Told::with_shadows(said, shadows),
        None => Told::of(said),
    };
    let decisions = denial.decisions();
    let finish = move |mut response: HttpResponse| {
        write_denial(response.headers_mut(), &decisions);
        told.write(response.headers_mut());
        response
    };
    let asked = spokesman.and_then(Meeting::asked);
    match spokesman.and_then(|meeting| meeting.throttle.on_denied(meeting.backend)) {
        None => Reply::now(finish(denial.default_response())),
        Some(DeniedHandler::Now(handler)) => Reply::now(finish(handler(&denial.about(asked)))),
        Some(DeniedHandler::Later(handler)) => {
            let (handler, req) = (Arc::clone(handler), req.clone());
            let asked = asked.map(|asked| (asked.resolved.clone(), Arc::clone(asked.backend)));
            Reply::Later(Box::pin(async move {
                let asked = asked.as_ref();
                let asked = asked.map(|(resolved, backend)| Asked { resolved, backend });
                let Some((_, denial)) = Denial::new(&req, &all) else {
                    unreachable!("there was a denial among the answers");
                };
                finish(handler.answer(&denial.about(asked)).await)
            }))
        }
    }
}

impl<'a> Meeting<'a> {
    #[inline]
    fn new(
        throttle: &'a HttpThrottle,
        request: &'a HttpRequest,
        backend: &'a ThrottleBackend,
        resolved: Result<Resolved>,
    ) -> Meeting<'a> {
        Meeting {
            throttle,
            backend,
            recovery: Recovery::of(throttle, backend, request),
            resolved,
        }
    }

    /// A meeting with everything that is known about the request without waiting. Functions that were asked
    /// earlier who it is are not asked again.
    #[inline]
    fn now(
        throttle: &'a HttpThrottle,
        req: &'a HttpRequest,
        backend: &'a ThrottleBackend,
        earlier: &[Meeting<'a>],
    ) -> Option<Meeting<'a>> {
        let identify = throttle.identify(backend);
        let known = earlier.iter().find_map(|meeting| {
            let resolved = meeting.resolved.as_ref().ok()?;
            let same = meeting.throttle.identify(meeting.backend).is(identify);
            same.then_some(resolved)
        });
        let resolved = throttle.resolve_now(req, backend, known)?;
        Some(Meeting::new(throttle, req, backend, resolved))
    }

    /// Whether the throttle does not decide now.
    #[cfg(feature = "ws")]
    pub(crate) fn is_disabled(&self) -> bool {
        self.throttle.is_disabled()
    }

    /// What a denial is about, if it is known who asks.
    fn asked(&self) -> Option<Asked<'_>> {
        let resolved = self.resolved.as_ref().ok()?;
        let backend = &self.backend.backend;
        Some(Asked { resolved, backend })
    }

    /// What it is about to be charged, if it is known who asks.
    fn charge(&self) -> Option<(&Throttle, Attempt<'_>, Arc<dyn Backend>)> {
        let resolved = self.resolved.as_ref().ok()?;
        let backend = Arc::clone(&self.backend.backend);
        Some((self.throttle.throttle(), resolved.attempt(), backend))
    }

    /// What is said before any limit is asked: nothing, unless something that the throttle wants to
    /// know could not be found.
    pub(crate) async fn before_hit(&self) -> Result<Decision> {
        let Err(error) = &self.resolved else {
            return Ok(Decision::UNLIMITED);
        };
        if self.is_shadow() {
            return Ok(Decision::UNLIMITED);
        }
        match self.recovery.recover(&self.failure(error)).await {
            Some(answer) => answer,
            None => Err(error.clone()),
        }
    }

    /// Whether it stops no request.
    fn is_shadow(&self) -> bool {
        self.throttle.throttle().is_shadow()
    }

    /// What the client is told that a throttle in shadow would have done, if it is told.
    fn would(&self, decision: &Decision) -> Option<String> {
        let would = decision.shadowed()?;
        let name = self.throttle.item().trim_end_matches(";r=");
        self.throttle
            .tells_shadow()
            .then(|| match would.is_allowed() {
                true => format!("{name};would=allow;r={}", would.remaining()),
                false => match would.retry_after() {
                    Some(wait) => format!("{name};would=deny;t={}", whole_seconds(wait).max(1)),
                    None => format!("{name};would=deny"),
                },
            })
    }

    /// Whether there is a rate to tell the client about. There is none if the function that should
    /// give it failed, and a handler decided nevertheless.
    fn knows_its_rate(&self) -> bool {
        self.resolved.is_ok() || !self.throttle.throttle().rate().is_unlimited()
    }

    fn failure<'f>(&'f self, error: &'f Error) -> Failure<'f> {
        Failure::before_hit(error, self.throttle.throttle(), &*self.backend.backend)
    }

    /// What the client is told of a request that is denied by one of those it met, or admitted.
    fn tells<'m>(&'m self, decision: &'m Decision, denied: bool) -> Option<Said<'m>> {
        let telling = self.throttle.telling(self.backend);
        let is_wanted = match denied {
            // Without a store nobody knows what is left.
            true => telling.headers.on_denied() && !decision.is_unchecked(),
            false => telling.headers.on_admitted(),
        };
        let is_limited = !decision.is_unlimited() && decision.shadowed().is_none();
        if !is_wanted || !is_limited || !self.knows_its_rate() {
            return None;
        }
        let resolved = self.resolved.as_ref().ok();
        let dynamic = resolved.and_then(|resolved| resolved.rate);
        Some(Said {
            throttle: self.throttle,
            decision,
            rate: dynamic.unwrap_or(self.throttle.throttle().rate()),
            style: telling.style,
            own: telling.own,
            at: self.backend.time_for(telling.style),
        })
    }

    fn decided(&self, decision: Decision) -> Decided {
        Decided::by(self.throttle, self.resolved.as_ref().ok(), decision)
    }
}
