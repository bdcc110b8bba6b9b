//! What denied requests are answered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use traffik_core::{Decision, Decisions, headers::whole_seconds};

use crate::admission::Decided;
use crate::headers::write_retry_after;
use crate::throttle::HttpThrottle;

/// A denied request, for handlers that answer it.
#[derive(Debug)]
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
        self.all
            .iter()
            .map(|one| one.decision)
            .collect::<Decisions>()
            .retry_after()
    }

    /// 429 Too Many Requests with `Retry-After`, `Cache-Control: no-store` and a body of type
    /// `application/problem+json` (RFC 9457) that names the violated policies. Headers about the
    /// limits are added to the answer of any handler.
    pub fn default_response(&self) -> HttpResponse {
        HttpResponse::from_error(Throttled::new(self))
    }
}

/// The cause of a 429, as `HttpResponse::error` and `Logger` see it.
#[derive(Clone, Debug)]
pub struct Throttled {
    violated: Vec<String>,
    decisions: Decisions,
}

impl Throttled {
    fn new(denial: &Denial<'_>) -> Throttled {
        let denied = || denial.all.iter().filter(|one| one.decision.is_denied());
        Throttled {
            violated: denied().map(|one| one.throttle.name().to_owned()).collect(),
            decisions: denied().map(|one| one.decision).collect(),
        }
    }

    /// The names of the throttles that denied.
    pub fn violated_policies(&self) -> impl Iterator<Item = &str> {
        self.violated.iter().map(String::as_str)
    }

    /// What they decided.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    fn detail(&self) -> String {
        match self.decisions.retry_after() {
            Some(wait) => {
                let seconds = whole_seconds(wait).max(1);
                format!("Too many requests. Retry in {seconds} seconds.")
            }
            None => "This request costs more than its limit ever allows.".into(),
        }
    }
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "throttled by {}", self.violated.join(", "))
    }
}

impl ResponseError for Throttled {
    fn status_code(&self) -> StatusCode {
        StatusCode::TOO_MANY_REQUESTS
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let wait = self.decisions.retry_after();
        let body = problem(
            "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "Quota Exceeded",
            self.status_code(),
            &self.detail(),
            &self.violated,
            wait,
        );
        let mut response = HttpResponse::build(self.status_code())
            .content_type(PROBLEM_JSON)
            .body(body);
        let headers = response.headers_mut();
        write_retry_after(headers, &self.decisions);
        // RFC 6585 section 4: a 429 must not be stored.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The cause of a 503: a backend failed and the policy is to [raise](traffik_core::OnError::Raise).
#[derive(Debug)]
pub struct Unavailable(pub(crate) traffik_core::Error);

impl Unavailable {
    /// What failed.
    pub fn error(&self) -> &traffik_core::Error {
        &self.0
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rate limits cannot be checked: {}", self.0)
    }
}

impl ResponseError for Unavailable {
    fn status_code(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        // What failed is for the log, not for the client.
        let detail = "Rate limits cannot be checked at the moment.";
        let body = problem(
            "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
            "Temporary Reduced Capacity",
            self.status_code(),
            detail,
            &[],
            None,
        );
        HttpResponse::build(self.status_code())
            .content_type(PROBLEM_JSON)
            .body(body)
    }
}

const PROBLEM_JSON: &str = "application/problem+json";

/// RFC 9457 with the types and the extension member of the RateLimit draft, section 6, and the
/// exact wait for clients that can use it.
fn problem(
    kind: &str,
    title: &str,
    status: StatusCode,
    detail: &str,
    violated: &[String],
    wait: Option<Duration>,
) -> String {
    let mut body = format!(
        r#"{{"type":"{kind}","title":"{title}","status":{},"detail":"{detail}""#,
        status.as_u16()
    );
    if !violated.is_empty() {
        // Names are printable ASCII: nothing but these two needs an escape.
        let quoted: Vec<String> = violated
            .iter()
            .map(|name| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")))
            .collect();
        body += &format!(r#","violated-policies":[{}]"#, quoted.join(","));
    }
    if let Some(wait) = wait {
        body += &format!(r#","wait_us":{}"#, wait.as_micros());
    }
    body + "}"
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
