//! Headers that tell clients about their limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use actix_web::web::Bytes;
use smallvec::SmallVec;
use traffik_core::headers::Left;
use traffik_core::{Decision, Decisions, Rate, Timestamp, Verdict, headers};

use crate::throttle::HttpThrottle;
use crate::throttle::admission::Decided;
use crate::throttle::backend::ThrottleBackend;
use crate::throttle::company::Company;

/// Which responses carry headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Headers {
    /// Every response to a request that was limited. What is decided by hand, by
    /// [`enforce`](crate::HttpThrottle::enforce), [`hit`](crate::HttpThrottle::hit) and
    /// [`Throttled`](crate::Throttled), is told inside of [`ThrottleHeaders`](crate::ThrottleHeaders). The default.
    #[default]
    Always,
    /// Only denials.
    Denied,
    /// None, not even denials: those still carry `Retry-After` and `Cache-Control: no-store`.
    Never,
}

/// Which headers they carry. Denials carry `Retry-After` and `Cache-Control: no-store` in any style,
/// whoever answers them, unless the answer has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderStyle {
    /// `RateLimit` and `RateLimit-Policy`, one item per limit
    /// (draft-ietf-httpapi-ratelimit-headers-11). The default.
    #[default]
    Standard,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` (seconds from now) of the
    /// tightest limit.
    XRateLimit,
    /// The same with `X-RateLimit-Reset` as an instant, in seconds since 1970, as GitHub has it: by the
    /// [clock](crate::ThrottleBackend::clock) of the server.
    XRateLimitEpoch,
    /// `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` (seconds from now) of the tightest limit, as
    /// drafts up to 07 had them.
    Legacy,
    /// `Standard` and `XRateLimit`.
    Both,
    /// None of these: only what a [function](crate::HttpThrottleBuilder::own_headers) writes, if there is one.
    None,
}

pub(crate) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT_SHADOW: HeaderName = HeaderName::from_static("ratelimit-shadow");
const X: Triple = Triple {
    limit: HeaderName::from_static("x-ratelimit-limit"),
    remaining: HeaderName::from_static("x-ratelimit-remaining"),
    reset: HeaderName::from_static("x-ratelimit-reset"),
};
const LEGACY: Triple = Triple {
    limit: HeaderName::from_static("ratelimit-limit"),
    remaining: HeaderName::from_static("ratelimit-remaining"),
    reset: HeaderName::from_static("ratelimit-reset"),
};

/// Three headers about one limit.
#[derive(Debug)]
struct Triple {
    limit: HeaderName,
    remaining: HeaderName,
    reset: HeaderName,
}

impl Headers {
    pub(crate) fn on_admitted(self) -> bool {
        self == Headers::Always
    }

    pub(crate) fn on_denied(self) -> bool {
        self != Headers::Never
    }
}

impl HeaderStyle {
    /// The names of the headers that responses in this style may carry, `Retry-After` included. Scripts of other
    /// origins see only those that CORS exposes:
    ///
    /// ```
    /// # #[cfg(any())] // of another crate
    /// let cors = actix_cors::Cors::default().expose_headers(HeaderStyle::Standard.names());
    /// # use traffik_actix::HeaderStyle;
    /// # assert_eq!(HeaderStyle::Standard.names().count(), 3);
    /// ```
    ///
    /// Without `actix-cors` see [`ThrottleHeaders::expose`](crate::ThrottleHeaders::expose).
    pub fn names(self) -> impl Iterator<Item = &'static str> + Clone {
        let standard: &[&str] = match self.has_standard() {
            true => &["ratelimit", "ratelimit-policy"],
            false => &[],
        };
        let three: &[&str] = match self.three() {
            Some(Three::X | Three::XEpoch) => &[
                "x-ratelimit-limit",
                "x-ratelimit-remaining",
                "x-ratelimit-reset",
            ],
            Some(Three::Legacy) => &["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
            None => &[],
        };
        let names = standard.iter().chain(three).copied();
        names.chain(["retry-after"])
    }

    fn has_standard(self) -> bool {
        matches!(self, HeaderStyle::Standard | HeaderStyle::Both)
    }

    fn three(self) -> Option<Three> {
        match self {
            HeaderStyle::XRateLimit | HeaderStyle::Both => Some(Three::X),
            HeaderStyle::XRateLimitEpoch => Some(Three::XEpoch),
            HeaderStyle::Legacy => Some(Three::Legacy),
            HeaderStyle::Standard | HeaderStyle::None => None,
        }
    }

    /// Whether it tells instants.
    #[inline]
    pub(crate) fn tells_time(self) -> bool {
        self == HeaderStyle::XRateLimitEpoch
    }
}

/// What tells of the tightest limit, in three headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Three {
    X,
    XEpoch,
    Legacy,
}

impl Three {
    fn names(self) -> &'static Triple {
        static OF_X: Triple = X;
        static OF_LEGACY: Triple = LEGACY;
        match self {
            Three::X | Three::XEpoch => &OF_X,
            Three::Legacy => &OF_LEGACY,
        }
    }
}

/// A function that writes headers about a decision.
#[derive(Clone)]
pub(crate) struct OwnHeaders(Arc<WriteFn>);

type WriteFn = dyn Fn(&Decided, &mut HeaderMap) + Send + Sync;

impl OwnHeaders {
    pub(crate) fn new(write: impl Fn(&Decided, &mut HeaderMap) + Send + Sync + 'static) -> Self {
        OwnHeaders(Arc::new(write))
    }

    pub(crate) fn write(&self, decided: &Decided, map: &mut HeaderMap) {
        (self.0)(decided, map);
    }
}

impl fmt::Debug for OwnHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("function")
    }
}

/// What a throttle tells clients, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Telling<'a> {
    pub(crate) headers: Headers,
    pub(crate) style: HeaderStyle,
    pub(crate) own: Option<&'a OwnHeaders>,
}

impl Telling<'_> {
    /// Whether it tells of every admission in the standard headers, and nothing else.
    #[inline]
    fn is_usual(&self) -> bool {
        self.headers == Headers::Always && self.style == HeaderStyle::Standard && self.own.is_none()
    }
}

/// A decision that clients are told of.
pub(crate) struct Said<'a> {
    pub(crate) throttle: &'a HttpThrottle,
    pub(crate) decision: &'a Decision,
    /// The one it applied.
    pub(crate) rate: Rate,
    pub(crate) style: HeaderStyle,
    pub(crate) own: Option<&'a OwnHeaders>,
    /// When it was made, if the style tells instants.
    pub(crate) at: Timestamp,
}

/// What a response is to say, which may not exist yet.
///
/// It is small, since it is moved with the future of every request, and ready to be written. The items of
/// several limits become one line, since putting another one into a response costs as much as a decision.
#[derive(Clone, Debug, Default)]
pub(crate) enum Told {
    #[default]
    None,
    /// About one limit with its usual policy.
    Usual {
        throttle: HttpThrottle,
        left: Left,
    },
    /// About several.
    Together {
        company: Arc<Company>,
        limits: Box<[u8]>,
    },
    Written(Box<Written>),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    policies: Option<HeaderValue>,
    limits: Option<HeaderValue>,
    tightest: SmallVec<[Tightest; 1]>,
    shadows: Option<HeaderValue>,
    own: Vec<(OwnHeaders, Decided)>,
}

/// What `X-RateLimit-*` tell, and their like.
#[derive(Clone, Debug)]
struct Tightest {
    three: Three,
    limit: u64,
    remaining: u64,
    reset: u64,
}

impl<'a> Said<'a> {
    /// What is told of an admission under the throttle's own rate, if anything.
    #[inline]
    pub(crate) fn on_admission(
        throttle: &'a HttpThrottle,
        backend: &'a ThrottleBackend,
        decision: &'a Decision,
    ) -> Option<Said<'a>> {
        let telling = throttle.telling(backend);
        let is_told = telling.headers.on_admitted() && !decision.is_unlimited();
        is_told.then(|| Said {
            throttle,
            decision,
            rate: throttle.throttle().rate(),
            style: telling.style,
            own: telling.own,
            at: backend.time_for(telling.style),
        })
    }

    /// Whether it is told in the usual way.
    #[inline]
    fn is_usual(&self) -> bool {
        let quota = self.decision.limit();
        self.style == HeaderStyle::Standard
            && self.own.is_none()
            && self.throttle.has_usual_policy(&self.rate, quota)
    }

    fn item(&self) -> (&'a str, Left) {
        (self.throttle.item(), Left::of(self.decision))
    }

    /// What a function of its own is to write.
    fn to_own(&self) -> Option<(OwnHeaders, Decided)> {
        let decided = Decided {
            throttle: self.throttle.clone(),
            decision: *self.decision,
            rate: self.rate,
        };
        Some((self.own?.clone(), decided))
    }
}

impl Told {
    /// About an admission by one throttle under its own rate. Mostly there is nothing unusual about it.
    #[inline]
    pub(crate) fn of_admission(
        throttle: &HttpThrottle,
        backend: &ThrottleBackend,
        decision: &Decision,
    ) -> Told {
        if !throttle.headers(backend).on_admitted() {
            return Told::None;
        }
        if throttle.telling(backend).is_usual()
            && decision.limit() == throttle.usual_quota()
            && !decision.is_unlimited()
        {
            return Told::Usual {
                throttle: throttle.clone(),
                left: Left::of(decision),
            };
        }
        let said = Said::on_admission(throttle, backend, decision);
        said.map_or(Told::None, |said| Told::of_one(&said))
    }

    /// About one decision.
    pub(crate) fn of_one(said: &Said<'_>) -> Told {
        match said.is_usual() {
            true => Told::Usual {
                throttle: said.throttle.clone(),
                left: Left::of(said.decision),
            },
            false => Told::Written(Box::new(Written::of(std::slice::from_ref(said)))),
        }
    }

    /// About all decisions that limit anything.
    pub(crate) fn of<'a>(said: impl Iterator<Item = Said<'a>>) -> Told {
        let said: SmallVec<[Said<'_>; 3]> = said.collect();
        match &*said {
            [] => Told::None,
            [one] => Told::of_one(one),
            said => {
                Told::together(said).unwrap_or_else(|| Told::Written(Box::new(Written::of(said))))
            }
        }
    }

    fn together(said: &[Said<'_>]) -> Option<Told> {
        if !said.iter().all(Said::is_usual) {
            return None;
        }
        let mut throttles = SmallVec::<[&HttpThrottle; 4]>::new();
        let mut items = SmallVec::<[(&str, Left); 4]>::new();
        for one in said {
            throttles.push(one.throttle);
            items.push(one.item());
        }
        Some(Told::Together {
            company: Arc::clone(HttpThrottle::company(&throttles)?),
            limits: headers::limits(&items),
        })
    }

    /// About admissions by throttles under their own rates. Mostly there is nothing unusual about any.
    pub(crate) fn in_company(
        company: &Arc<Company>,
        throttles: &[&HttpThrottle],
        backend: &ThrottleBackend,
        decisions: &[Decision],
    ) -> Told {
        let mut items = SmallVec::<[(&str, Left); 4]>::new();
        for (throttle, decision) in throttles.iter().zip(decisions) {
            if !throttle.telling(backend).is_usual()
                || decision.is_unlimited()
                || decision.limit() != throttle.usual_quota()
            {
                let said = throttles.iter().zip(decisions);
                return Told::of(said.filter_map(|(throttle, decision)| {
                    Said::on_admission(throttle, backend, decision)
                }));
            }
            items.push((throttle.item(), Left::of(decision)));
        }
        Told::Together {
            company: Arc::clone(company),
            limits: headers::limits(&items),
        }
    }

    /// The same, and what throttles in shadow would have done.
    #[cold]
    pub(crate) fn with_shadows<'a>(
        said: impl Iterator<Item = Said<'a>>,
        shadows: HeaderValue,
    ) -> Told {
        let said: SmallVec<[Said<'_>; 3]> = said.collect();
        Told::Written(Box::new(Written {
            shadows: Some(shadows),
            ..Written::of(&said)
        }))
    }

    /// Items of `RateLimit` are appended to those that an outer or inner throttle wrote; of
    /// `X-RateLimit-*` the tightest stays.
    pub(crate) fn write(self, map: &mut HeaderMap) {
        match self {
            Told::None => {}
            Told::Usual { throttle, left } => {
                map.append(RATELIMIT_POLICY, throttle.usual_policy().clone());
                let limit = headers::limits(&[(throttle.item(), left)]);
                map.append(RATELIMIT, text(limit));
            }
            Told::Together { company, limits } => {
                map.append(RATELIMIT_POLICY, company.policies().clone());
                map.append(RATELIMIT, text(limits));
            }
            Told::Written(written) => written.write(map),
        }
    }
}

impl Written {
    fn of(said: &[Said<'_>]) -> Written {
        let standard = said.iter().filter(|one| one.style.has_standard());
        let items: SmallVec<[(&str, Left); 3]> = standard.clone().map(Said::item).collect();
        Written {
            policies: policies(standard),
            limits: (!items.is_empty()).then(|| text(headers::limits(&items))),
            tightest: tightest(said),
            shadows: None,
            own: said.iter().filter_map(Said::to_own).collect(),
        }
    }

    fn write(self, map: &mut HeaderMap) {
        if let Some(policies) = self.policies {
            map.append(RATELIMIT_POLICY, policies);
        }
        if let Some(limits) = self.limits {
            map.append(RATELIMIT, limits);
        }
        for tightest in &self.tightest {
            tightest.write(map);
        }
        if let Some(shadows) = self.shadows {
            map.append(RATELIMIT_SHADOW, shadows);
        }
        for (own, decided) in &self.own {
            own.write(decided, map);
        }
    }
}

/// One list of all policies.
fn policies<'a>(said: impl Iterator<Item = &'a Said<'a>> + Clone) -> Option<HeaderValue> {
    let policy = |one: &Said<'_>| one.throttle.policy(&one.rate, one.decision.limit());
    let mut rest = said.clone();
    let first = rest.next()?;
    if rest.next().is_none() {
        return Some(policy(first));
    }
    Some(joined(said.map(policy)))
}

/// A list of lists.
pub(crate) fn joined(values: impl Iterator<Item = HeaderValue>) -> HeaderValue {
    let mut list = Vec::new();
    for value in values {
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(value.as_bytes());
    }
    text(list)
}

/// Less for what limits a client more: what it can never do, then the longest wait, then the least that is left.
pub(crate) fn strictness(decision: &Decision) -> (u8, u64) {
    match decision.verdict() {
        Verdict::Never => (0, 0),
        Verdict::Deny => {
            let wait = u64::try_from(decision.wait().as_micros()).unwrap_or(u64::MAX);
            (1, u64::MAX - wait)
        }
        Verdict::Allow => (2, decision.remaining()),
    }
}

/// The tightest limit, in each of the ways in which such are told.
fn tightest(said: &[Said<'_>]) -> SmallVec<[Tightest; 1]> {
    let mut all = SmallVec::new();
    for three in [Three::X, Three::XEpoch, Three::Legacy] {
        let told = said.iter().filter(|one| one.style.three() == Some(three));
        let strictest = told.min_by_key(|one| strictness(one.decision));
        all.extend(strictest.map(|one| Tightest::of(three, one)));
    }
    all
}

/// Writes what was decided about a request, of which headers may tell already: of each limit the strictest stays.
pub(crate) fn merge<'a>(said: impl Iterator<Item = Said<'a>>, map: &mut HeaderMap) {
    let mut said: SmallVec<[Said<'_>; 3]> = said.collect();
    // The sort is stable: what is equally strict stays in the order in which it was decided.
    said.sort_by_key(|one| strictness(one.decision));
    let mut seen = SmallVec::<[&str; 3]>::new();
    said.retain(|one| {
        let is_first = !seen.contains(&one.throttle.item());
        seen.push(one.throttle.item());
        is_first
    });
    let Written { tightest, own, .. } = Written::of(&said);
    said.retain(|one| one.style.has_standard() && !amend(map, one));
    let written = Written {
        tightest,
        own,
        ..Written::of(&said)
    };
    written.write(map);
}

/// Whether `RateLimit` tells of a limit, which is then the stricter of both.
fn amend(map: &mut HeaderMap, said: &Said<'_>) -> bool {
    let (beginning, left) = said.item();
    let lines: Vec<HeaderValue> = map.get_all(RATELIMIT).cloned().collect();
    let found = lines.iter().enumerate().find_map(|(at, line)| {
        let line = line.to_str().ok()?;
        let start = find_item(line, beginning)?;
        // Names may have commas, numbers have not.
        let numbers = start + beginning.len();
        let length = line[numbers..].find(',');
        let end = length.map_or(line.len(), |length| numbers + length);
        Some((at, line, start..end))
    });
    let Some((at, line, item)) = found else {
        return false;
    };
    let numbers = &line[item.start + beginning.len()..item.end];
    let digits = numbers.split(';').next().unwrap_or_default();
    let told: u64 = digits.trim().parse().unwrap_or(u64::MAX);
    if told > left.remaining {
        let mut amended = line.as_bytes()[..item.start].to_vec();
        amended.extend_from_slice(&headers::limits(&[(beginning, left)]));
        amended.extend_from_slice(&line.as_bytes()[item.end..]);
        map.remove(RATELIMIT).for_each(drop);
        for (other, line) in lines.iter().enumerate() {
            let line = match other == at {
                true => text(std::mem::take(&mut amended)),
                false => line.clone(),
            };
            map.append(RATELIMIT, line);
        }
    }
    true
}

/// Where the item is in a list that begins so. Quotes in names are escaped, so that one begins nowhere else.
fn find_item(line: &str, beginning: &str) -> Option<usize> {
    let mut found = line.match_indices(beginning).map(|(at, _)| at);
    found.find(|at| line[..*at].is_empty() || line[..*at].ends_with([',', ' ']))
}

impl Tightest {
    fn of(three: Three, said: &Said<'_>) -> Tightest {
        let decision = said.decision;
        Tightest {
            three,
            limit: decision.limit(),
            remaining: match decision.is_denied() {
                true => 0,
                false => decision.remaining(),
            },
            reset: match three {
                Three::XEpoch => {
                    let wait = decision.retry_after().unwrap_or_else(|| decision.reset());
                    let at = Duration::from_micros(said.at.as_micros());
                    headers::whole_seconds(at.saturating_add(wait))
                }
                Three::X | Three::Legacy => {
                    headers::retry_after(decision).unwrap_or_else(|| headers::reset(decision))
                }
            },
        }
    }

    fn write(&self, map: &mut HeaderMap) {
        let names = self.three.names();
        let looser = map
            .get(&names.remaining)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
            .is_some_and(|written| written <= self.remaining);
        if !looser {
            map.insert(names.limit.clone(), HeaderValue::from(self.limit));
            map.insert(names.remaining.clone(), HeaderValue::from(self.remaining));
            map.insert(names.reset.clone(), HeaderValue::from(self.reset));
        }
    }
}

/// What every denial says, unless whoever wrote it said otherwise: `Retry-After`, if the request is ever
/// admitted, and that it must not be stored (RFC 6585, section 4).
pub(crate) fn write_denial(map: &mut HeaderMap, decisions: &Decisions) {
    write_wait(map, decisions.retry_after());
}

/// The same for a wait.
pub(crate) fn write_wait(map: &mut HeaderMap, wait: Option<Duration>) {
    if let Some(wait) = wait
        && !map.contains_key(RETRY_AFTER)
    {
        let seconds = headers::whole_seconds(wait).max(1);
        map.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if !map.contains_key(CACHE_CONTROL) {
        map.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// A header value of what this crate wrote itself: names of throttles are printable ASCII, the
/// rest is digits and punctuation.
pub(crate) fn text(value: impl Into<Box<[u8]>>) -> HeaderValue {
    // Boxed, since `Bytes` allocates once more for a text with room to spare.
    let bytes = Bytes::from(value.into());
    HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| HeaderValue::from_static(""))
}
