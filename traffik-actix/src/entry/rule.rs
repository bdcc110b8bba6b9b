use actix_web::HttpRequest;
use actix_web::http::Method;
use traffik_core::Result;

use crate::request::pattern::PathPattern;
use crate::request::source::{IntoValue, Source};
use crate::throttle::HttpThrottle;

/// A throttle, or several, and the requests it is for: those that match the methods, the path and the
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
    /// What the same requests meet as well, until the rule is taken [apart](Rule::apart).
    levels: Vec<HttpThrottle>,
    /// Whether it is for the requests that the rule before it is for, whatever its conditions.
    follows: bool,
    conditions: Conditions,
    /// It is for requests that meet any of these as well.
    others: Vec<Conditions>,
}

/// Which requests a rule is for: those that meet all of this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    methods: Vec<Method>,
    path: Option<PathPattern>,
    predicate: Option<Source<bool>>,
}

impl Rule {
    /// A rule for every request.
    pub fn new(throttle: HttpThrottle) -> Rule {
        Rule {
            throttle,
            levels: Vec::new(),
            follows: false,
            conditions: Conditions::default(),
            others: Vec::new(),
        }
    }

    /// A rule for requests that meet any of some conditions: one throttle is asked once.
    #[cfg(feature = "config")]
    pub(crate) fn any(throttle: HttpThrottle, mut conditions: Vec<Conditions>) -> Rule {
        let first = match conditions.is_empty() {
            true => Conditions::default(),
            false => conditions.remove(0),
        };
        Rule {
            conditions: first,
            others: conditions,
            ..Rule::new(throttle)
        }
    }

    /// For the same requests this throttle as well, for the levels of a hierarchy: a user, the organisation
    /// that it is of, and everybody; an address, and the network around it.
    ///
    /// They are one decision, as rules that match the same request are: on one Redis in one round trip,
    /// and all of them are charged, or none is. A denial names the levels that deny, by the names of their throttles;
    /// headers tell of all, in this order. The predicate is asked once.
    ///
    /// ```
    /// use actix_web::HttpRequest;
    /// use traffik_actix::{ClientIp, HttpThrottle, Rule};
    ///
    /// let near = ClientIp::peer(); // of IPv6 the /64
    /// let far = ClientIp::peer().ipv6_prefix(48).ipv4_prefix(24);
    /// let address = HttpThrottle::builder("address")
    ///     .rate("60/minute")
    ///     .identify(move |req: &HttpRequest| near.identity(req))
    ///     .build()?;
    /// let network = HttpThrottle::builder("network")
    ///     .rate("600/minute")
    ///     .identify(move |req: &HttpRequest| far.identity(req))
    ///     .build()?;
    /// let everybody = HttpThrottle::builder("everybody").rate("6000/minute").shared().build()?;
    ///
    /// let levels = Rule::new(address).and(network).and(everybody).path("/api/")?;
    /// # let _ = levels;
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    pub fn and(mut self, throttle: HttpThrottle) -> Rule {
        self.levels.push(throttle);
        self
    }

    /// Only these methods.
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Rule {
        self.conditions.methods.extend(methods);
        self
    }

    /// Only paths that *begin* with this pattern: a regular expression such as `/api/v1/` or
    /// `/files/.*\.(pdf|zip)$`, or, if it has a `*` that follows a `/`, a glob that must match
    /// the whole path, in which `*` stands for one segment and `**` for any number.
    ///
    /// The path is matched as actix-web routes it, with `%61` decoded to `a`; the query is not part of
    /// it. No other spelling evades the rule under which the same resource may be served: slashes
    /// doubled, one more at the end or one less (`NormalizePath` may be inside), `..` and `.`, a line
    /// break where the pattern has a dot. So `/files/**` is for `/files` as well.
    ///
    /// Say where a name ends: `/login` is also the beginning of `/login-help`, `/login(/|$)` is not.
    ///
    /// # Errors
    ///
    /// If the pattern is no regular expression, has something of a glob and of one, or can never match:
    /// `login`, `https://example.com/login`, `/a%20b`, `/users/:id`, `/users/{id}`. The error says what
    /// would be right.
    pub fn path(mut self, pattern: &str) -> Result<Rule> {
        self.conditions.path = Some(PathPattern::parse(pattern)?);
        Ok(self)
    }

    /// Only requests for which this returns true. If it fails, the rule applies.
    pub fn when<F, R>(mut self, predicate: F) -> Rule
    where
        F: Fn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<bool>,
    {
        self.conditions.predicate = Some(Source::sync("predicate", predicate));
        self
    }

    /// The same with an async function.
    pub fn when_async<F, R>(mut self, predicate: F) -> Rule
    where
        F: AsyncFn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<bool>,
    {
        self.conditions.predicate = Some(Source::awaiting("predicate", predicate));
        self
    }

    /// A rule for each of its throttles; all but the first follow the one before them.
    pub(crate) fn apart(mut self) -> impl Iterator<Item = Rule> {
        let levels = std::mem::take(&mut self.levels);
        let follows = !self.is_for_all();
        let levels = levels.into_iter().map(move |throttle| Rule {
            follows,
            ..Rule::new(throttle)
        });
        std::iter::once(self).chain(levels)
    }

    /// Whether the rule is for the requests that the one before it is for.
    #[inline]
    pub(crate) fn follows(&self) -> bool {
        self.follows
    }

    /// The same for another throttle.
    pub(crate) fn with(&self, throttle: HttpThrottle) -> Rule {
        Rule {
            throttle,
            ..self.clone()
        }
    }

    /// Puts the throttles that it has so far into [shadow](crate::HttpThrottleBuilder::shadow), wherever else they are used: give a
    /// rule that is tried throttles of its own. `throttle.set_shadow(false)` of any clone ends it.
    pub fn shadow(self) -> Rule {
        self.throttle.set_shadow(true);
        for level in &self.levels {
            level.set_shadow(true);
        }
        self
    }

    /// Whether it is for every request.
    #[inline]
    pub(crate) fn is_for_all(&self) -> bool {
        self.conditions.is_for_all() || self.others.iter().any(Conditions::is_for_all)
    }

    /// Whether that the rule is for a request has to be waited for. No predicate is asked.
    #[inline]
    pub(crate) fn has_to_wait(&self, req: &HttpRequest) -> bool {
        let mut all = std::iter::once(&self.conditions).chain(&self.others);
        all.any(|one| one.predicate.as_ref().is_some_and(Source::is_async) && one.suit_head(req))
    }

    /// Whether the rule is for a request, unless that has to be waited for.
    #[inline]
    pub(crate) fn matches_now(&self, req: &HttpRequest) -> Option<bool> {
        let mut met = self.conditions.are_met_now(req)?;
        for one in &self.others {
            met = met || one.are_met_now(req)?;
        }
        Some(met)
    }

    pub(crate) async fn matches(&self, req: &HttpRequest) -> bool {
        for one in std::iter::once(&self.conditions).chain(&self.others) {
            if one.are_met(req).await {
                return true;
            }
        }
        false
    }
}

impl Conditions {
    #[cfg(feature = "config")]
    pub(crate) fn of(methods: Vec<Method>, path: Option<PathPattern>) -> Conditions {
        Conditions {
            methods,
            path,
            predicate: None,
        }
    }

    #[cfg(feature = "config")]
    pub(crate) fn when(
        mut self,
        predicate: impl Fn(&HttpRequest) -> bool + Send + Sync + 'static,
    ) -> Conditions {
        self.predicate = Some(Source::sync("predicate", predicate));
        self
    }

    #[inline]
    fn is_for_all(&self) -> bool {
        self.methods.is_empty() && self.path.is_none() && self.predicate.is_none()
    }

    #[inline]
    fn are_met_now(&self, req: &HttpRequest) -> Option<bool> {
        if !self.suit_head(req) {
            return Some(false);
        }
        match &self.predicate {
            Some(predicate) => predicate.now(req).map(applies),
            None => Some(true),
        }
    }

    async fn are_met(&self, req: &HttpRequest) -> bool {
        self.suit_head(req)
            && match &self.predicate {
                Some(predicate) => applies(predicate.get(req).await),
                None => true,
            }
    }

    #[inline]
    fn suit_head(&self, req: &HttpRequest) -> bool {
        (self.methods.is_empty() || self.methods.contains(req.method()))
            && self
                .path
                .as_ref()
                .is_none_or(|path| path.matches(req.match_info().as_str()))
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

/// A predicate that fails must not open a way around the limit.
fn applies(answer: Result<bool>) -> bool {
    answer.unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn a_failing_predicate_does_not_open_the_limit() {
        let throttle = HttpThrottle::builder("rule").rate("1/s").build().unwrap();
        let rule = Rule::new(throttle).when(|_: &HttpRequest| Err::<bool, _>("broken"));
        assert_eq!(
            rule.matches_now(&TestRequest::default().to_http_request()),
            Some(true)
        );
    }
}
