use actix_web::HttpRequest;
use actix_web::http::Method;
use regex_lite::Regex;
use traffik_core::{Error, Result};

use crate::source::{IntoValue, Source};
use crate::throttle::HttpThrottle;

/// A throttle and the requests it is for: those that match the methods, the path and the
/// predicate, asked in this order.
///
/// ```
/// use actix_web::http::Method;
/// use traffik_actix::{HttpThrottle, Rule};
///
/// let writes = HttpThrottle::builder("writes").rate("10/minute").build()?;
/// let rule = Rule::new(writes)
///     .methods([Method::POST, Method::PUT, Method::DELETE])
///     .path("/api/")?
///     .when(|req: &actix_web::HttpRequest| req.headers().contains_key("authorization"));
/// # let _ = rule;
/// # Ok::<(), traffik_actix::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Rule {
    pub(crate) throttle: HttpThrottle,
    methods: Vec<Method>,
    path: Option<Regex>,
    predicate: Option<Source<bool>>,
}

impl Rule {
    /// A rule for every request.
    pub fn new(throttle: HttpThrottle) -> Rule {
        Rule {
            throttle,
            methods: Vec::new(),
            path: None,
            predicate: None,
        }
    }

    /// Only these methods.
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Rule {
        self.methods.extend(methods);
        self
    }

    /// Only paths that *begin* with this pattern: a regular expression such as `/api/v1/` or
    /// `/files/.*\.(pdf|zip)$`, or, if it has a `*` that follows a `/`, a glob that must match
    /// the whole path, in which `*` stands for one segment and `**` for any number.
    ///
    /// The path is matched as actix-web routes it, with `%61` decoded to `a`: encoding it otherwise
    /// does not evade the rule. The query is not part of it.
    ///
    /// # Errors
    ///
    /// If the pattern is no regular expression.
    pub fn path(mut self, pattern: &str) -> Result<Rule> {
        let regex = match pattern.contains("/*") {
            true => glob(pattern),
            false => format!("^(?:{pattern})"),
        };
        self.path = Some(Regex::new(&regex).map_err(|error| {
            Error::invalid(format!("{pattern:?} is not a path pattern: {error}"))
        })?);
        Ok(self)
    }

    /// Only requests for which this returns true. If it fails, the rule applies.
    pub fn when<F, R>(mut self, predicate: F) -> Rule
    where
        F: Fn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<bool>,
    {
        self.predicate = Some(Source::sync("predicate", predicate));
        self
    }

    /// The same with an async function.
    pub fn when_async<F, R>(mut self, predicate: F) -> Rule
    where
        F: AsyncFn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<bool>,
    {
        self.predicate = Some(Source::awaiting("predicate", predicate));
        self
    }

    /// Whether the rule is for a request, unless that has to be waited for.
    #[inline]
    pub(crate) fn matches_now(&self, req: &HttpRequest) -> Option<bool> {
        if !self.matches_head(req) {
            return Some(false);
        }
        match &self.predicate {
            Some(predicate) => predicate.now(req).map(applies),
            None => Some(true),
        }
    }

    pub(crate) async fn matches(&self, req: &HttpRequest) -> bool {
        self.matches_head(req)
            && match &self.predicate {
                Some(predicate) => applies(predicate.get(req).await),
                None => true,
            }
    }

    #[inline]
    fn matches_head(&self, req: &HttpRequest) -> bool {
        (self.methods.is_empty() || self.methods.contains(req.method()))
            && self
                .path
                .as_ref()
                .is_none_or(|path| path.is_match(req.match_info().as_str()))
    }
}

impl From<HttpThrottle> for Rule {
    fn from(throttle: HttpThrottle) -> Self {
        Rule::new(throttle)
    }
}

/// A predicate that fails must not open a way around the limit.
fn applies(answer: Result<bool>) -> bool {
    answer.unwrap_or(true)
}

fn glob(pattern: &str) -> String {
    let mut regex = String::from("^");
    for (at, part) in pattern.split("**").enumerate() {
        if at > 0 {
            regex.push_str(".*");
        }
        for (at, literal) in part.split('*').enumerate() {
            if at > 0 {
                regex.push_str("[^/]+");
            }
            regex.push_str(&regex_lite::escape(literal));
        }
    }
    regex + "$"
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn matches(pattern: &str, path: &str) -> bool {
        let throttle = HttpThrottle::builder("rule").rate("1/s").build().unwrap();
        let rule = Rule::new(throttle).path(pattern).unwrap();
        rule.matches_now(&TestRequest::with_uri(path).to_http_request())
            .unwrap()
    }

    #[test]
    fn patterns_are_anchored_at_the_start() {
        assert!(matches("/api/", "/api/x?y=z"));
        assert!(!matches("/api/", "/v1/api/"));
        assert!(!matches("/api/", "/API/"));
        assert!(!matches("/a|/b", "/x/b"));
        assert!(matches(r"/files/.*\.(pdf|zip)$", "/files/a/b.pdf"));
        assert!(!matches(r"/files/.*\.(pdf|zip)$", "/files/a/b.pdf.exe"));
    }

    #[test]
    fn globs_match_segments() {
        assert!(matches("/users/*/posts", "/users/7/posts"));
        assert!(!matches("/users/*/posts", "/users/7/8/posts"));
        assert!(!matches("/users/*/posts", "/users/7/posts/9"));
        assert!(matches("/files/**", "/files/a/b.pdf"));
        assert!(!matches("/f.les/*", "/files/a"));
    }

    /// Issue: CVE-2025-54879 of Mastodon. A differently encoded path evaded the throttle.
    #[test]
    fn encoding_does_not_evade() {
        assert!(matches("/admin/", "/%61dmin/"));
    }

    #[test]
    fn a_failing_predicate_does_not_open_the_limit() {
        let throttle = HttpThrottle::builder("rule").rate("1/s").build().unwrap();
        let rule = Rule::new(throttle).when(|_: &HttpRequest| Err::<bool, _>("broken"));
        assert_eq!(
            rule.matches_now(&TestRequest::default().to_http_request()),
            Some(true)
        );
    }

    #[test]
    fn refuses_what_is_no_pattern() {
        let throttle = HttpThrottle::builder("rule").rate("1/s").build().unwrap();
        let error = Rule::new(throttle).path("/api/(").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("\"/api/(\" is not a path pattern: "),
            "{error}"
        );
    }
}
