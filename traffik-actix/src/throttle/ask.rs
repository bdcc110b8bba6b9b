//! One question to a throttle.

use std::borrow::Cow;

use actix_web::HttpRequest;
use smallvec::SmallVec;
use traffik_core::{Decision, Decisions, Identity, Permit, Stat, Verdict};

use crate::limits::live::Current;
use crate::response::hit_error::HitError;
use crate::throttle::HttpThrottle;
use crate::throttle::admission;

/// What a throttle is asked about a request: by whom, at what cost and in which scope, if not as the
/// throttle itself says. For identities that only the handler knows, such as one from the body.
///
/// ```
/// use std::collections::HashMap;
///
/// use actix_web::{HttpRequest, HttpResponse, web};
/// use traffik_actix::{HttpThrottle, Identity};
///
/// struct Logins {
///     per_address: HttpThrottle,
///     per_account: HttpThrottle,
/// }
///
/// type Login = web::Form<HashMap<String, String>>;
///
/// async fn login(req: HttpRequest, logins: web::Data<Logins>, form: Login)
/// -> actix_web::Result<HttpResponse> {
///     let account = form.get("account").map_or(String::new(), |name| name.trim().to_lowercase());
///     let asks = [logins.per_address.ask(), logins.per_account.ask().by(account)];
///     HttpThrottle::enforce_all(&req, asks).await?; // both admit it and are charged, or a 429
///     Ok(HttpResponse::Ok().finish())
/// }
/// # let _ = login;
/// ```
///
/// One question is asked by itself, as by the methods of the same names of a throttle:
///
/// ```
/// # use actix_web::HttpRequest;
/// # use traffik_actix::{HttpThrottle, Identity};
/// # async fn example(exports: HttpThrottle, req: HttpRequest, owner: Identity) -> actix_web::Result<()> {
/// let ask = exports.ask().by(owner).scope("pdf").cost(3);
/// if ask.clone().check(&req).await? {
///     ask.enforce(&req).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Ask<'a> {
    pub(crate) throttle: &'a HttpThrottle,
    pub(crate) identity: Option<Identity>,
    pub(crate) cost: Option<u32>,
    pub(crate) scope: Option<Cow<'a, str>>,
}

impl<'a> Ask<'a> {
    pub(crate) fn of(throttle: &'a HttpThrottle) -> Ask<'a> {
        Ask {
            throttle,
            identity: None,
            cost: None,
            scope: None,
        }
    }

    /// By somebody else than the throttle's own function says, which is not asked.
    pub fn by(mut self, identity: impl Into<Identity>) -> Ask<'a> {
        self.identity = Some(identity.into());
        self
    }

    /// At another cost than the throttle says. A cost of zero is always admitted.
    pub fn cost(mut self, cost: u32) -> Ask<'a> {
        self.cost = Some(cost);
        self
    }

    /// In a scope of its own: with a count for this text, of any content and length, in the place of what the throttle's
    /// [`scope_by`](crate::HttpThrottleBuilder::scope_by) says, which is not asked.
    pub fn scope(mut self, scope: impl Into<Cow<'a, str>>) -> Ask<'a> {
        self.scope = Some(scope.into());
        self
    }

    /// Decides, and charges what is admitted: [`HttpThrottle::hit`].
    ///
    /// # Errors
    ///
    /// As [`HttpThrottle::hit`].
    pub async fn hit(self, req: &HttpRequest) -> Result<Decision, HitError> {
        Ok(hit(req, &[self]).await?[0])
    }

    /// Admits, or fails with the response, for `?`: [`HttpThrottle::enforce`].
    ///
    /// # Errors
    ///
    /// As [`HttpThrottle::enforce`].
    pub async fn enforce(self, req: &HttpRequest) -> actix_web::Result<()> {
        enforce(req, &[self]).await
    }

    /// What would be decided, and why, charging nothing: [`HttpThrottle::stat`].
    ///
    /// # Errors
    ///
    /// As [`HttpThrottle::stat`].
    pub async fn stat(self, req: &HttpRequest) -> Result<Stat, HitError> {
        let now = self.throttle.current();
        let ask = Ask {
            throttle: &now,
            ..self
        };
        Ok(admission::stat(&ask, req).await?)
    }

    /// Whether it would be admitted, charging nothing.
    ///
    /// # Errors
    ///
    /// As [`HttpThrottle::stat`].
    pub async fn check(self, req: &HttpRequest) -> Result<bool, HitError> {
        Ok(self.stat(req).await?.verdict == Verdict::Allow)
    }

    /// Admits a request whose cost is an estimate: a [permit](Permit) to be settled when it is known. See
    /// [`HttpThrottle::reserve`].
    ///
    /// # Errors
    ///
    /// As [`HttpThrottle::enforce`].
    pub async fn reserve(self, req: &HttpRequest) -> actix_web::Result<Permit> {
        reserve(req, &[self]).await
    }
}

/// Decides all of them, and charges them if all admit.
pub(crate) async fn hit(req: &HttpRequest, asks: &[Ask<'_>]) -> Result<Decisions, HitError> {
    let now = current(asks);
    Ok(admission::decide_all(&in_force(asks, &now), req).await?)
}

/// All of them or none, as one permit.
pub(crate) async fn reserve(req: &HttpRequest, asks: &[Ask<'_>]) -> actix_web::Result<Permit> {
    let now = current(asks);
    admission::reserve(&in_force(asks, &now), req).await
}

/// All of them or none.
pub(crate) async fn enforce(req: &HttpRequest, asks: &[Ask<'_>]) -> actix_web::Result<()> {
    match asks.iter().any(|ask| ask.throttle.registry().is_some()) {
        true => Box::pin(admit_now(req, asks)).await,
        false => admission::admit(asks, req).await,
    }
}

/// By the throttles as they are now.
async fn admit_now(req: &HttpRequest, asks: &[Ask<'_>]) -> actix_web::Result<()> {
    let now = current(asks);
    admission::admit(&in_force(asks, &now), req).await
}

fn current<'a>(asks: &[Ask<'a>]) -> SmallVec<[Current<'a>; 3]> {
    asks.iter().map(|ask| ask.throttle.current()).collect()
}

/// The same questions to throttles that do not change any more.
fn in_force<'a>(asks: &[Ask<'a>], now: &'a [Current<'a>]) -> SmallVec<[Ask<'a>; 3]> {
    let asks = now.iter().zip(asks).map(|(throttle, ask)| Ask {
        throttle,
        ..ask.clone()
    });
    asks.collect()
}

impl<'a> From<&'a HttpThrottle> for Ask<'a> {
    fn from(throttle: &'a HttpThrottle) -> Self {
        Ask::of(throttle)
    }
}
