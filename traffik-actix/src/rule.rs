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

/// What has a meaning in a regular expression, and hardly ever is in a path.
const REGEX_ONLY: [char; 12] = ['\\', '^', '$', '+', '?', '|', '(', ')', '[', ']', '{', '}'];

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
    /// does not evade the rule, and neither do slashes that are doubled. The query is not part of it.
    ///
    /// Say where a name ends: `/login` is also the beginning of `/login-help`, `/login(/|$)` is not.
    ///
    /// # Errors
    ///
    /// If the pattern is no regular expression, or has something of a glob and of one.
    pub fn path(mut self, pattern: &str) -> Result<Rule> {
        let regex = match pattern.contains("/*") {
            true if pattern.contains(REGEX_ONLY) => {
                return Err(Error::invalid(format!(
                    "{pattern:?} is not a path pattern: the `/*` makes it a glob, in which only `*` \
                     and `**` have a meaning; in a regular expression write `/[^/]*` or `/.*`"
                )));
            }
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
                .is_none_or(|path| leads_to(path, req.match_info().as_str()))
    }
}

/// A [`Rule`], or a throttle, which is one for every request.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a throttle nor a rule",
    label = "no throttle and no rule",
    note = "a throttle is one when it is built: `HttpThrottle::builder(\"api\").rate(\"100/minute\").build()?`"
)]
pub trait IntoRule {
    /// The rule.
    fn into_rule(self) -> Rule;
}

#[diagnostic::do_not_recommend]
impl<R: Into<Rule>> IntoRule for R {
    fn into_rule(self) -> Rule {
        self.into()
    }
}

impl From<HttpThrottle> for Rule {
    fn from(throttle: HttpThrottle) -> Self {
        Rule::new(throttle)
    }
}

/// Also as `NormalizePath` would route it, which may stand behind this rule.
fn leads_to(pattern: &Regex, path: &str) -> bool {
    pattern.is_match(path) || (path.contains("//") && pattern.is_match(&merge_slashes(path)))
}

#[cold]
fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
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

    /// Issue: `NormalizePath` inside the middleware routes `//admin/` to what the rule is for.
    #[test]
    fn doubled_slashes_do_not_evade() {
        assert!(matches("/admin/users$", "//admin///users"));
        assert!(matches("/admin/*", "/admin//users"));
        assert!(matches("//cdn/", "//cdn/x"));
        assert!(!matches("/admin/", "//x//admin/"));
    }

    #[test]
    fn a_pattern_is_a_glob_or_a_regular_expression() {
        for pattern in ["/x(/*)?", "/files/*$", r"/a/*\.pdf"] {
            let throttle = HttpThrottle::builder("rule").rate("1/s").build().unwrap();
            let error = Rule::new(throttle).path(pattern).unwrap_err().to_string();
            assert!(error.contains("makes it a glob"), "{error}");
        }
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
