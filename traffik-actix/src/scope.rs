use actix_web::HttpRequest;

/// What shares one count within a throttle, for the same identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything the throttle is on. The default.
    #[default]
    Throttle,
    /// Each route pattern, such as `/items/{id}`, and method.
    ///
    /// In a middleware around the whole `App` a request is not routed yet; the pattern is then the
    /// first whose path fits. Paths that fit none share one count.
    Route,
    /// Each path as sent, and method: the default of the Python original.
    ///
    /// **A client multiplies its quota by inventing paths**, unless the throttle is on routes with
    /// no dynamic part.
    Path,
}

impl Scope {
    pub(crate) fn of(self, req: &HttpRequest) -> Option<String> {
        let method = req.method();
        match self {
            Scope::Throttle => None,
            Scope::Route => {
                let pattern = req.match_pattern().unwrap_or_default();
                Some(format!("{method} {pattern}"))
            }
            Scope::Path => Some(format!("{method} {}", req.match_info().as_str())),
        }
    }
}
