//! What was decided about a request, for whoever wants to know.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpRequest};
use traffik_core::{Decisions, Timestamp};

use crate::response::headers::{HeaderStyle, OwnHeaders, Said, merge, strictness};
use crate::response::kept;
use crate::throttle::admission::Decided;

/// What throttles have decided about a request: an extractor, which is never an error.
///
/// It knows what was decided since somebody wanted to know. Put [`ThrottleHeaders`](crate::ThrottleHeaders)
/// around everything, and that is all of it: what middlewares and `#[throttle]` have decided, and what was decided
/// by hand ([`enforce`](crate::HttpThrottle::enforce), [`hit`](crate::HttpThrottle::hit),
/// [`reserve`](crate::HttpThrottle::reserve), [`Throttled`](crate::Throttled)). Without it, it is what is decided
/// after this was extracted. It is not a copy: what is decided later is known as well.
///
/// ```
/// use actix_web::{App, web};
/// use traffik_actix::{HttpThrottle, MemoryBackend, RateLimitInfo, ThrottleHeaders};
///
/// async fn search(limits: RateLimitInfo) -> String {
///     match limits.most_restrictive() {
///         Some(tight) => format!("{} more by {}", tight.decision.remaining(), tight.throttle.name()),
///         None => "as many as you like".to_owned(),
///     }
/// }
///
/// let api = HttpThrottle::builder("api").rate("100/minute").backend(MemoryBackend::new()).build()?;
/// let app = App::new()
///     .route("/search", web::get().to(search))
///     .wrap(api)
///     .wrap(ThrottleHeaders::new());
/// # let _ = app;
/// # Ok::<(), traffik_actix::Error>(())
/// ```
///
/// A request may go on for long, as that of a WebSocket does whose handler asks about each message: then the last 256
/// decisions are known.
#[derive(Clone, Default)]
pub struct RateLimitInfo(Rc<RefCell<VecDeque<Noted>>>);

/// A decision, and what is to be told of it.
pub(crate) struct Noted {
    pub(crate) decided: Decided,
    /// Nothing if it is not told.
    pub(crate) told: Option<How>,
    pub(crate) is_by_hand: bool,
}

/// In which headers a decision is told.
pub(crate) struct How {
    style: HeaderStyle,
    own: Option<OwnHeaders>,
    at: Timestamp,
}

impl How {
    pub(crate) fn of(said: Said<'_>) -> How {
        How {
            style: said.style,
            own: said.own.cloned(),
            at: said.at,
        }
    }
}

/// Whether anybody has ever wanted to know: else no request is looked at.
static WANTED: AtomicBool = AtomicBool::new(false);

impl RateLimitInfo {
    const MOST: usize = 256;

    /// What is known about a request, if somebody wanted to know: for loggers and middlewares of your own.
    pub fn of(req: &HttpRequest) -> Option<RateLimitInfo> {
        if !WANTED.load(Ordering::Relaxed) {
            return None;
        }
        kept::of(req)
    }

    /// The same, from now on if nobody has wanted to know before.
    ///
    /// # Panics
    ///
    /// If the extensions of the request are borrowed.
    pub fn keep(req: &HttpRequest) -> RateLimitInfo {
        WANTED.store(true, Ordering::Relaxed);
        if let Some(kept) = RateLimitInfo::of(req) {
            return kept;
        }
        let fresh = RateLimitInfo::default();
        kept::keep(req, &fresh);
        fresh
    }

    /// Whether somebody wants to know.
    #[inline]
    pub(crate) fn is_kept(req: &HttpRequest) -> bool {
        WANTED.load(Ordering::Relaxed) && kept::is_kept(req)
    }

    pub(crate) fn note(&self, decisions: impl Iterator<Item = Noted>) {
        let mut noted = self.0.borrow_mut();
        noted.extend(decisions);
        let excess = noted.len().saturating_sub(Self::MOST);
        noted.drain(..excess);
    }

    /// All decisions, in the order in which they were made.
    pub fn decisions(&self) -> Vec<Decided> {
        let noted = self.0.borrow();
        noted.iter().map(|one| one.decided.clone()).collect()
    }

    /// What the throttle of this name has decided, the last time if it was asked several times.
    pub fn get(&self, throttle: &str) -> Option<Decided> {
        let noted = self.0.borrow();
        let mut latest = noted.iter().rev();
        let found = latest.find(|one| one.decided.throttle.name() == throttle);
        found.map(|one| one.decided.clone())
    }

    /// The strictest decision: a denial, of several the one with the longest wait; else the limit of which the
    /// least is left. Nothing if nothing has limited the request. Throttles in
    /// [shadow](crate::HttpThrottleBuilder::shadow) limit nothing.
    pub fn most_restrictive(&self) -> Option<Decided> {
        let noted = self.0.borrow();
        let limiting = noted.iter().filter(|one| {
            let decision = &one.decided.decision;
            !decision.is_unlimited() && decision.shadowed().is_none()
        });
        let strictest = limiting.min_by_key(|one| strictness(&one.decided.decision))?;
        Some(strictest.decided.clone())
    }

    /// Whether a throttle has denied, whatever came of it.
    pub fn is_throttled(&self) -> bool {
        let noted = self.0.borrow();
        noted.iter().any(|one| one.decided.decision.is_denied())
    }

    /// How long to wait until everything that was denied would be admitted; nothing if nothing was denied, or never
    /// will be admitted.
    pub fn retry_after(&self) -> Option<Duration> {
        let noted = self.0.borrow();
        let all: Decisions = noted.iter().map(|one| one.decided.decision).collect();
        all.retry_after()
    }

    /// Writes what was decided by hand into the headers of a response, as each throttle's
    /// [style](crate::HttpThrottleBuilder::header_style) says, and whether it is to be
    /// [told at all](crate::HttpThrottleBuilder::headers). Middlewares and `#[throttle]` write what they have decided
    /// themselves, and denials are told already in the responses that they became.
    ///
    /// What the headers tell already is not told twice: of each limit the stricter decision stays, as of all in
    /// `X-RateLimit-*`. So it does no harm to call it where [`ThrottleHeaders`](crate::ThrottleHeaders) does so later.
    pub fn stamp(&self, headers: &mut HeaderMap) {
        let noted = self.0.borrow();
        let said = noted.iter().filter(|one| one.is_by_hand);
        let said = said.filter_map(|one| {
            let how = one.told.as_ref()?;
            Some(Said {
                throttle: &one.decided.throttle,
                decision: &one.decided.decision,
                rate: one.decided.rate,
                style: how.style,
                own: how.own.as_ref(),
                at: how.at,
            })
        });
        merge(said, headers);
    }

    /// What a denial that was left to the handler says about coming back.
    pub(crate) fn denied_by_hand(&self) -> Option<Decisions> {
        let noted = self.0.borrow();
        let by_hand = noted.iter().filter(|one| one.is_by_hand);
        let denied = by_hand.map(|one| one.decided.decision);
        let denied: Decisions = denied.filter(|one| one.is_denied()).collect();
        (!denied.is_empty()).then_some(denied)
    }
}

impl FromRequest for RateLimitInfo {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(RateLimitInfo::keep(req)))
    }
}

impl fmt::Debug for RateLimitInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.decisions()).finish()
    }
}
