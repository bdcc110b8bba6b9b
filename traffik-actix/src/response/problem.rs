//! Error documents.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

/// Type and title of problems, by section 6 of the RateLimit draft.
pub(crate) const QUOTA_EXCEEDED: (&str, &str) = (
    "https://iana.org/assignments/http-problem-types#quota-exceeded",
    "Quota Exceeded",
);
pub(crate) const REDUCED_CAPACITY: (&str, &str) = (
    "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
    "Temporary Reduced Capacity",
);

/// An error document: RFC 9457 with the types and the extension member of the RateLimit draft, section
/// 6, and the exact wait for clients that can use it.
pub(crate) struct Problem<'a> {
    pub(crate) kind: &'a str,
    pub(crate) title: &'a str,
    pub(crate) status: StatusCode,
    pub(crate) detail: &'a str,
    pub(crate) violated: &'a [String],
    pub(crate) wait: Option<Duration>,
}

impl Problem<'_> {
    pub(crate) fn response(&self) -> HttpResponse {
        HttpResponse::build(self.status)
            .content_type("application/problem+json")
            .body(self.json())
    }

    fn json(&self) -> String {
        let (kind, title, status) = (self.kind, self.title, self.status.as_u16());
        let detail = quoted(self.detail);
        let mut json =
            format!(r#"{{"type":"{kind}","title":"{title}","status":{status},"detail":{detail}"#);
        if !self.violated.is_empty() {
            let names: Vec<String> = self.violated.iter().map(|name| quoted(name)).collect();
            json += &format!(r#","violated-policies":[{}]"#, names.join(","));
        }
        if let Some(wait) = self.wait {
            json += &format!(r#","wait_us":{}"#, wait.as_micros());
        }
        json + "}"
    }
}

/// A text as JSON has it (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut json = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => json.extend(['\\', char]),
            '\0'..='\x1f' => json += &format!("\\u{:04x}", u32::from(char)),
            _ => json.push(char),
        }
    }
    json + "\""
}
