//! Headers that tell clients about their limits.

use actix_web::http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use traffik_core::{Decision, Decisions, headers};

use crate::admission::Decided;

/// Which responses carry headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Headers {
    /// Every response of a middleware or of a handler with `#[throttle]` to a request that was
    /// limited; admissions by [`enforce`](crate::HttpThrottle::enforce) and
    /// [`Throttled`](crate::Throttled) carry none. The default.
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
    /// Both.
    Both,
}

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

impl Headers {
    pub(crate) fn on_admitted(self) -> bool {
        self == Headers::Always
    }

    pub(crate) fn on_denied(self) -> bool {
        self != Headers::Never
    }
}

impl HeaderStyle {
    /// Writes the headers of these decisions. Items of `RateLimit` are appended to those that an
    /// outer or inner throttle wrote; of `X-RateLimit-*` the tightest stays.
    pub(crate) fn write(self, map: &mut HeaderMap, decided: &[Decided]) {
        if self != HeaderStyle::XRateLimit {
            write_standard(map, decided);
        }
        if self != HeaderStyle::Standard {
            write_x(map, decided);
        }
    }
}

fn write_standard(map: &mut HeaderMap, decided: &[Decided]) {
    let mut limits = String::new();
    for one in limited(decided) {
        headers::push_limit(&mut limits, one.throttle.name(), &one.decision);
        map.append(
            RATELIMIT_POLICY,
            one.throttle.policy(&one.rate, one.decision.limit()),
        );
    }
    if !limits.is_empty() {
        map.append(RATELIMIT, text(limits));
    }
}

fn write_x(map: &mut HeaderMap, decided: &[Decided]) {
    let tightest = limited(decided)
        .map(|one| &one.decision)
        .min_by_key(|one| effective(one));
    let Some(tightest) = tightest else {
        return;
    };
    let remaining = effective(tightest);
    let looser = map
        .get(X_REMAINING)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .is_some_and(|written| written <= remaining);
    if !looser {
        map.insert(X_LIMIT, HeaderValue::from(tightest.limit()));
        map.insert(X_REMAINING, HeaderValue::from(remaining));
        let reset = headers::retry_after(tightest).unwrap_or_else(|| headers::reset(tightest));
        map.insert(X_RESET, HeaderValue::from(reset));
    }
}

fn effective(decision: &Decision) -> u64 {
    if decision.is_denied() {
        0
    } else {
        decision.remaining()
    }
}

fn limited(decided: &[Decided]) -> impl Iterator<Item = &Decided> {
    decided.iter().filter(|one| !one.decision.is_unlimited())
}

/// What every denial says, unless whoever wrote it said otherwise: `Retry-After`, if the request is ever
/// admitted, and that it must not be stored (RFC 6585, section 4).
pub(crate) fn write_denial(map: &mut HeaderMap, decisions: &Decisions) {
    if let Some(wait) = decisions.retry_after()
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
pub(crate) fn text(value: String) -> HeaderValue {
    // Boxed, since `Bytes` allocates once more for a string with room to spare.
    let bytes = actix_web::web::Bytes::from(value.into_boxed_str().into_boxed_bytes());
    HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| HeaderValue::from_static(""))
}
