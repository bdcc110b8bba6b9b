use actix_web::HttpRequest;
use actix_web::http::Method;

use crate::request::path;

/// What shares one count within a throttle, for the same identity. What is in no route is for
/// [`scope_by`](crate::HttpThrottleBuilder::scope_by), which adds to this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything the throttle is on. The default.
    #[default]
    Throttle,
    /// Each route pattern, such as `/items/{id}`, and method.
    ///
    /// Methods that are not GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS are one, whatever a client
    /// invents; a route for any method still has that many counts for each client.
    ///
    /// In a middleware around the whole `App` a request is not routed yet; the pattern is then the
    /// first that fits the path, decoded, without doubled slashes and a last slash, as `NormalizePath` may
    /// route it, or else without dot segments. Paths that fit none share one count, whatever their method.
    /// A route for everything (`/{tail:.*}`) without `NormalizePath` is better limited at its resource or
    /// handler, where it is known: around the `App` `//items/5` counts as `/items/{id}`.
    Route,
    /// Each path and method: the default of the Python original. Spellings of one path (`/a`, `//a`,
    /// `/a/`, `/%61`) share one count, and so do unusual methods, as for [`Scope::Route`].
    ///
    /// **A client multiplies its quota by inventing paths**, unless the throttle is on routes with
    /// no dynamic part.
    Path,
}

impl Scope {
    pub(crate) fn of(self, req: &HttpRequest) -> Option<String> {
        match self {
            Scope::Throttle => None,
            Scope::Route => Some(match path::route(req) {
                Some(pattern) => key(req.method(), &pattern),
                None => NOWHERE.to_owned(),
            }),
            Scope::Path => self.at(req.method(), req.match_info().as_str()),
        }
    }

    /// The scope of requests with this method for a place: a pattern or a path, whichever this counts.
    pub(crate) fn at(self, method: &Method, place: &str) -> Option<String> {
        match self {
            Scope::Throttle => None,
            Scope::Route => Some(key(method, place)),
            Scope::Path => Some(key(method, &path::canonical(place))),
        }
    }
}

/// The whole scope of a request: the place that it is in, and what a function, or who asks, says beside it.
/// Nothing that these texts may hold makes one scope look like another; `said` may be continued.
pub(crate) fn join(place: Option<String>, said: Option<&str>) -> Option<String> {
    let Some(said) = said else {
        return place;
    };
    let place = place.unwrap_or_default();
    Some(format!("by:{}:{}:{place}{said}", place.len(), said.len()))
}

/// What fits no route.
const NOWHERE: &str = "-";

fn key(method: &Method, place: &str) -> String {
    format!("{} {place}", named(method))
}

/// The methods that people name in routes. All others are one: clients invent them.
fn named(method: &Method) -> &str {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE
        | Method::OPTIONS => method.as_str(),
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// What clients choose must not reach into another count.
    #[test]
    fn texts_cannot_run_into_each_other() {
        let places = [None, Some(""), Some("GET /a"), Some("GET /a:1:"), Some("-")];
        let texts = [
            None,
            Some(""),
            Some("x"),
            Some("GET /ax"),
            Some("1:x"),
            Some("by:0:1:x"),
        ];
        let mut seen = HashSet::new();
        for place in places {
            for said in texts {
                let scope = join(place.map(str::to_owned), said);
                // To be nowhere and to be in a place without a name is the same beside a text.
                if place != Some("") || said.is_none() {
                    assert!(seen.insert(scope), "{place:?} {said:?}");
                }
            }
        }
        // A connection's name is added to the end.
        let one = join(None, Some("x")).unwrap() + " #1.2";
        assert_ne!(Some(one), join(None, Some("x #1.2")));
    }
}
