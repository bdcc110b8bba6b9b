//! What denied requests are answered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use traffik_core::{Decision, Decisions, Verdict, headers::whole_seconds};

use crate::response::headers::write_denial;
use crate::response::problem::{Problem, QUOTA_EXCEEDED, REDUCED_CAPACITY};
use crate::throttle::HttpThrottle;
use crate::throttle::admission::Decided;

/// A denied request, for handlers that answer it.
///
/// There are three kinds, which the [usual response](Denial::default_response) tells apart:
///
/// * A limit is **spent**, for now: the request would pass after [`retry_after`](Denial::retry_after).
/// * The request can **never** pass, since it costs more than a limit can hold at any time:
///   [`retry_after`](Denial::retry_after) is `None`, and the decision's
///   [`verdict`](Decision::verdict) is [`Never`](traffik_core::Verdict::Never). It is a 429 all the same,
///   without `Retry-After` and with a detail of its own. No other status fits whatever a cost may be: 413
///   is about the size of a body, 422 about its meaning. Where costs are sizes, answer 413:
///
///   ```
///   use actix_web::HttpResponse;
///   use traffik_actix::{Denial, HttpThrottle};
///
///   let uploads = HttpThrottle::builder("uploads").rate("1000/minute").on_denied(|denial: &Denial<'_>| {
///       match denial.retry_after() {
///           Some(_) => denial.default_response(),
///           None => HttpResponse::PayloadTooLarge().finish(),
///       }
///   });
///   # let _ = uploads;
///   ```
/// * The limits could **not be checked**, because the store failed and the policy is to
///   [throttle](traffik_core::OnError::Throttle): every decision that denies
///   [is unchecked](Decision::is_unchecked), and no client violated anything.
#[non_exhaustive]
pub struct Denial<'a> {
    /// The request. Its body has not been read.
    pub request: &'a HttpRequest,
    /// The throttle that denied, the one with the longest wait if several did.
    pub throttle: &'a HttpThrottle,
    /// What it decided.
    pub decision: Decision,
    /// Everything that was decided, in the order of the throttles.
    pub all: &'a [Decided],
}

impl<'a> Denial<'a> {
    pub(crate) fn new(request: &'a HttpRequest, all: &'a [Decided]) -> Option<Denial<'a>> {
        let denied = all.iter().filter(|one| one.decision.is_denied());
        let worst = denied.max_by_key(|one| one.decision.retry_after().unwrap_or(Duration::MAX))?;
        Some(Denial {
            request,
            throttle: &worst.throttle,
            decision: worst.decision,
            all,
        })
    }

    /// How long the client must wait, until every limit would admit it; `None` if one never will.
    pub fn retry_after(&self) -> Option<Duration> {
        self.decisions().retry_after()
    }

    pub(crate) fn decisions(&self) -> Decisions {
        self.all.iter().map(|one| one.decision).collect()
    }

    /// 429 Too Many Requests with `Retry-After`, `Cache-Control: no-store` and a body of type
    /// `application/problem+json` (RFC 9457) that names the violated policies, or says that the limits
    /// cannot be checked. To the answer of any handler the headers about the limits are added, and those
    /// two unless it has its own.
    pub fn default_response(&self) -> HttpResponse {
        HttpResponse::from_error(Throttled::new(self))
    }
}

/// One line, without the request: its headers may have secrets.
impl fmt::Debug for Denial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Denial({})", Throttled::new(self).in_short())
    }
}

/// The cause of a 429, as `HttpResponse::error` and `Logger` see it.
#[derive(Clone)]
pub struct Throttled {
    violated: Vec<String>,
    /// Those among them that the request can never satisfy.
    never: Vec<String>,
    decisions: Decisions,
}

impl Throttled {
    fn new(denial: &Denial<'_>) -> Throttled {
        let names = |which: fn(&Decision) -> bool| {
            let those = denial.all.iter().filter(|one| which(&one.decision));
            those.map(|one| one.throttle.name().to_owned()).collect()
        };
        let decisions = denial.all.iter().map(|one| one.decision);
        Throttled {
            violated: names(|one| one.is_denied() && !one.is_unchecked()),
            never: names(|one| one.verdict() == Verdict::Never),
            decisions: decisions.filter(Decision::is_denied).collect(),
        }
    }

    /// The names of the throttles whose limits were exceeded; none, if all that denied could not
    /// check theirs.
    pub fn violated_policies(&self) -> impl Iterator<Item = &str> {
        self.violated.iter().map(String::as_str)
    }

    /// What those that denied decided.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    fn in_short(&self) -> String {
        match self.decisions.retry_after() {
            Some(wait) => format!("{self}; retry after {wait:?}"),
            None => format!("{self}; never admitted"),
        }
    }

    fn detail(&self) -> String {
        let Some(wait) = self.decisions.retry_after() else {
            let names: Vec<String> = self.never.iter().map(|name| format!("`{name}`")).collect();
            return format!(
                "This request costs more than can ever be admitted by {}. Retrying is in vain.",
                names.join(", ")
            );
        };
        let what = match self.violated.is_empty() {
            true => "Rate limits cannot be checked at the moment",
            false => "Too many requests",
        };
        match whole_seconds(wait).max(1) {
            1 => format!("{what}. Retry in 1 second."),
            seconds => format!("{what}. Retry in {seconds} seconds."),
        }
    }
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.violated.is_empty() {
            true => f.write_str("throttled, since rate limits cannot be checked"),
            false => write!(f, "throttled by {}", self.violated.join(", ")),
        }
    }
}

/// One line: there are loggers that write it for each denied request.
impl fmt::Debug for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Throttled({})", self.in_short())
    }
}

impl ResponseError for Throttled {
    fn status_code(&self) -> StatusCode {
        StatusCode::TOO_MANY_REQUESTS
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let (kind, title) = match self.violated.is_empty() {
            true => REDUCED_CAPACITY,
            false => QUOTA_EXCEEDED,
        };
        let mut response = Problem {
            kind,
            title,
            status: self.status_code(),
            detail: &self.detail(),
            violated: &self.violated,
            wait: self.decisions.retry_after(),
        }
        .response();
        write_denial(response.headers_mut(), &self.decisions);
        response
    }
}

/// A function that answers denied requests.
#[derive(Clone)]
pub(crate) struct DeniedHandler(Arc<Handler>);

type Handler = dyn Fn(&Denial<'_>) -> HttpResponse + Send + Sync;

impl DeniedHandler {
    pub(crate) fn new(f: impl Fn(&Denial<'_>) -> HttpResponse + Send + Sync + 'static) -> Self {
        DeniedHandler(Arc::new(f))
    }

    pub(crate) fn answer(&self, denial: &Denial<'_>) -> HttpResponse {
        (self.0)(denial)
    }
}

impl fmt::Debug for DeniedHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("function")
    }
}
