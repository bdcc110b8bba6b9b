//! What denied requests are answered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::error::{HttpError, InternalError};
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue, TryIntoHeaderPair};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use traffik_core::{Backend, Decision, Decisions, Error, Stat, Verdict, headers::whole_seconds};

use crate::response::answer::Answer;
use crate::response::handler::Kind;
use crate::response::headers::write_denial;
use crate::response::hit_error::HitError;
use crate::response::problem::{Problem, QUOTA_EXCEEDED, REDUCED_CAPACITY};
use crate::throttle::HttpThrottle;
use crate::throttle::admission::Decided;
use crate::throttle::resolved::Resolved;

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
    /// What the throttle that denied has found out.
    pub(crate) asked: Option<Asked<'a>>,
}

/// Who was denied, and by the counts of what.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) resolved: &'a Resolved,
    pub(crate) backend: &'a Arc<dyn Backend>,
}

/// A denial because a limit is spent, for functions that answer it.
#[derive(Debug)]
pub(crate) enum ByRate {}

impl Kind for ByRate {
    type Denial<'a> = Denial<'a>;
}

impl<'a> Denial<'a> {
    /// A denial, and which of all it is about: one throttle may have been asked about several identities.
    pub(crate) fn new(request: &'a HttpRequest, all: &'a [Decided]) -> Option<(usize, Denial<'a>)> {
        let every = all.iter().enumerate();
        let denied = every.filter(|(_, one)| one.decision.is_denied());
        let (at, worst) =
            denied.max_by_key(|(_, one)| one.decision.retry_after().unwrap_or(Duration::MAX))?;
        let denial = Denial {
            request,
            throttle: &worst.throttle,
            decision: worst.decision,
            all,
            asked: None,
        };
        Some((at, denial))
    }

    pub(crate) fn about(self, asked: Option<Asked<'a>>) -> Denial<'a> {
        Denial { asked, ..self }
    }

    /// How long the client must wait, until every limit would admit it; `None` if one never will.
    pub fn retry_after(&self) -> Option<Duration> {
        self.decisions().retry_after()
    }

    /// What the throttle that denied knows about whoever asked, and what its strategy keeps, charging nothing. For
    /// functions that may wait: see [`on_denied_async`](crate::HttpThrottleBuilder::on_denied_async).
    ///
    /// # Errors
    ///
    /// If the backend fails, or a function of the throttle could not make sense of the request.
    pub async fn stat(&self) -> Result<Stat, HitError> {
        let Some(asked) = self.asked else {
            let name = self.throttle.name();
            let error = Error::unresolved("what it asks about a request was not found out");
            return Err(error.within(format_args!("throttle `{name}`")).into());
        };
        let attempt = asked.resolved.attempt();
        let throttle = self.throttle.throttle();
        Ok(throttle.stat_on(&**asked.backend, &attempt).await?)
    }

    /// The [usual response](Denial::default_response), to be changed:
    ///
    /// ```
    /// use traffik_actix::{Denial, HttpThrottle};
    ///
    /// let api = HttpThrottle::builder("api").rate("100/minute").on_denied(|denial: &Denial<'_>| {
    ///     denial
    ///         .problem()
    ///         .detail("The free plan has 100 requests a minute.")
    ///         .header(("link", "<https://example.com/plans>; rel=\"payment\""))
    ///         .finish()
    /// });
    /// # let _ = api;
    /// ```
    pub fn problem(&self) -> DenialProblem {
        DenialProblem::new(Throttled::new(self))
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

/// The cause of a 429, as `HttpResponse::error` and `Logger` see it, and as handlers do that catch a denial:
///
/// ```
/// use actix_web::{HttpRequest, HttpResponse, web};
/// use traffik_actix::{HttpThrottle, ThrottledError};
///
/// async fn search(req: HttpRequest, heavy: web::Data<HttpThrottle>) -> actix_web::Result<HttpResponse> {
///     if let Err(error) = heavy.enforce(&req).await {
///         return match error.as_error::<ThrottledError>() {
///             Some(throttled) => Ok(HttpResponse::Ok().body(format!("wait {:?}", throttled.retry_after()))),
///             None => Err(error), // it could not be decided
///         };
///     }
///     Ok(HttpResponse::Ok().body("the best results"))
/// }
/// # let _ = search;
/// ```
#[derive(Clone)]
pub struct Throttled {
    violated: Vec<String>,
    /// Those among them that the request can never satisfy.
    never: Vec<String>,
    decisions: Decisions,
    status: StatusCode,
    detail: Option<String>,
    /// What it is answered, if a function has said so.
    answer: Option<Arc<Answer>>,
}

impl Throttled {
    pub(crate) fn new(denial: &Denial<'_>) -> Throttled {
        let all = denial.all.iter();
        Throttled::of(all.map(|one| (one.throttle.name(), one.decision)))
    }

    /// An error as of throttles that have decided so, for tests of what catches it. Those that admit say nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use traffik_actix::{Decision, ThrottledError};
    ///
    /// let error = ThrottledError::of([("api", Decision::deny(10, 0, 2_000_000))]);
    /// assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
    /// assert_eq!(error.to_string(), "throttled by api");
    /// ```
    pub fn of<N: Into<String>>(decided: impl IntoIterator<Item = (N, Decision)>) -> Throttled {
        let (mut violated, mut never, mut decisions) = (Vec::new(), Vec::new(), Vec::new());
        for (name, decision) in decided {
            if decision.is_allowed() {
                continue;
            }
            decisions.push(decision);
            if decision.is_unchecked() {
                continue;
            }
            let name = name.into();
            if decision.verdict() == Verdict::Never {
                never.push(name.clone());
            }
            violated.push(name);
        }
        Throttled {
            violated,
            never,
            decisions: decisions.into_iter().collect(),
            status: StatusCode::TOO_MANY_REQUESTS,
            detail: None,
            answer: None,
        }
    }

    /// The error of a handler or an extractor, which is rendered as this response.
    pub(crate) fn answered(self, response: HttpResponse) -> actix_web::Error {
        match Answer::keep(response) {
            Ok(answer) => Throttled {
                answer: Some(Arc::new(answer)),
                ..self
            }
            .into(),
            // A stream can be sent only once, and not be kept in an error that is `Send`.
            Err(response) => InternalError::from_response(self.to_string(), *response).into(),
        }
    }

    /// How long to wait until every limit would admit it; `None` if one never will.
    pub fn retry_after(&self) -> Option<Duration> {
        self.decisions.retry_after()
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
        if let Some(detail) = &self.detail {
            return detail.clone();
        }
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
        match &self.answer {
            Some(answer) => answer.status,
            None => self.status,
        }
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        if let Some(answer) = &self.answer {
            return answer.response();
        }
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

/// The usual response to a denied request, in the making: see [`Denial::problem`].
#[derive(Clone, Debug)]
#[must_use]
pub struct DenialProblem {
    error: Throttled,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl DenialProblem {
    fn new(error: Throttled) -> DenialProblem {
        DenialProblem {
            error,
            headers: Vec::new(),
        }
    }

    /// Sets the sentence for people.
    pub fn detail(mut self, detail: impl Into<String>) -> DenialProblem {
        self.error.detail = Some(detail.into());
        self
    }

    /// Sets the status. Default: 429.
    pub fn status(mut self, status: StatusCode) -> DenialProblem {
        self.error.status = status;
        self
    }

    /// Sets a header. What is no header, such as a value with a line break, is left out, and the log says so: the
    /// request remains denied.
    pub fn header(mut self, header: impl TryIntoHeaderPair) -> DenialProblem {
        match header.try_into_pair() {
            Ok(header) => self.headers.push(header),
            Err(error) => {
                let error: HttpError = error.into();
                log::error!("a header of a denial is left out: {error}");
            }
        }
        self
    }

    /// The response.
    pub fn finish(self) -> HttpResponse {
        let mut response = HttpResponse::from_error(self.error);
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
