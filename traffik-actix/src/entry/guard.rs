//! Routing by what is left of a limit.

use std::fmt;
use std::sync::Arc;

use actix_web::guard::{Guard, GuardContext};
use traffik_core::{Attempt, Error, Identity, OnError, Result};

use crate::request::client_ip::ClientIp;
use crate::response::failed::ErrorPolicy;
use crate::throttle::HttpThrottle;

/// True while a throttle would admit one more hit; charges nothing. If its backend fails, such as a memory
/// that was closed, it is false, unless `on_error` says [`OnError::Allow`]; so it is as long as the throttle is
/// [changed](crate::Limits::update) to one that a guard could not be made for.
///
/// Guards are for *routing*, for instance to a cheaper handler. They cannot deny: a request that no
/// route accepts is answered 404 or 405, and one request may be asked about several times. To limit
/// a route use [`#[throttle]`](crate::throttle) or `.wrap`.
///
/// ```
/// use actix_web::web;
/// use traffik_actix::{HttpThrottle, MemoryBackend, Within};
///
/// let heavy = HttpThrottle::builder("heavy").rate("10/s").backend(MemoryBackend::new()).build()?;
/// let is_calm = Within::new(heavy)?;
/// let resource = web::resource("/search")
///     .route(web::get().guard(is_calm).to(async || "the best results"))
///     .route(web::get().to(async || "some results"));
/// # let _ = resource;
/// # Ok::<(), traffik_actix::Error>(())
/// ```
///
/// A guard cannot wait, and has no `HttpRequest` to show to a function. So the throttle must have a memory of
/// its own, a fixed rate, and one count for everything it is on; who asks is the
/// [address](traffik_core::Identity::ip) of the socket, or what a [function](Within::by) of the guard's context says.
#[derive(Clone)]
pub struct Within {
    throttle: HttpThrottle,
    identify: Option<Arc<IdentifyFn>>,
}

type IdentifyFn = dyn Fn(&GuardContext<'_>) -> Identity + Send + Sync;

impl Within {
    /// A guard that asks `throttle` about the address of the socket.
    ///
    /// # Errors
    ///
    /// If the guard could not know the answer: if the throttle has no backend of its own or one that has to be
    /// waited for, if it or its backend [asks a function](Within::by) who asks, if a function gives its rate,
    /// or if it counts by route, path or scope.
    pub fn new(throttle: HttpThrottle) -> Result<Within> {
        Within::about(throttle, None)
    }

    /// A guard that asks `throttle` about whoever this function says, in the place of the throttle's own:
    /// both must say the same about a request.
    ///
    /// # Errors
    ///
    /// As [`new`](Within::new), but for who asks.
    pub fn by<F>(throttle: HttpThrottle, identify: F) -> Result<Within>
    where
        F: Fn(&GuardContext<'_>) -> Identity + Send + Sync + 'static,
    {
        Within::about(throttle, Some(Arc::new(identify)))
    }

    fn about(throttle: HttpThrottle, identify: Option<Arc<IdentifyFn>>) -> Result<Within> {
        let within = Within { throttle, identify };
        if let Some(why) = within.hindrance(&within.throttle.current()) {
            return Err(unable(&within.throttle, why));
        }
        match within.check_now(&Identity::ANONYMOUS) {
            Some(_) => Ok(within),
            None => Err(unable(
                &within.throttle,
                "its backend has to be waited for: only a memory need not",
            )),
        }
    }

    /// Why a guard could not know what this would decide, as far as that is seen without asking.
    fn hindrance(&self, throttle: &HttpThrottle) -> Option<&'static str> {
        let (asks, own) = (throttle.asks(), throttle.own_backend());
        let says_who = asks.identity || own.is_some_and(|own| own.identifies);
        if says_who && self.identify.is_none() && !throttle.is_disabled() {
            return Some(
                "a function of the request says who asks: use `Within::by` with one of the guard's context",
            );
        }
        if own.is_none() {
            return Some("it has no backend of its own: build it with `.backend(..)`");
        }
        if asks.rate {
            return Some("a function of the request gives its rate");
        }
        let is_scoped = throttle.has_scopes();
        is_scoped.then_some("it counts by route or path, or in scopes that a function gives")
    }

    fn check_now(&self, identity: &Identity) -> Option<bool> {
        let now = self.throttle.current();
        // Also if it was removed, and has nothing left to be asked.
        if now.is_disabled() {
            return Some(true);
        }
        // It may have been changed since.
        if self.hindrance(&now).is_some() {
            return None;
        }
        let own = now.own_backend()?;
        let checked = now
            .throttle()
            .try_check_on(&*own.backend, Attempt::by(identity))?;
        Some(checked.unwrap_or_else(|_| {
            let policy = now.on_error(own);
            matches!(policy, ErrorPolicy::Fixed(OnError::Allow))
        }))
    }
}

fn unable(throttle: &HttpThrottle, why: &str) -> Error {
    Error::invalid(format!(
        "a guard cannot tell what throttle `{}` would decide: {why}",
        throttle.name()
    ))
}

impl Guard for Within {
    fn check(&self, ctx: &GuardContext<'_>) -> bool {
        let identity = match &self.identify {
            Some(identify) => identify(ctx),
            None => ClientIp::peer().identity_of(ctx.head().peer_addr),
        };
        self.check_now(&identity).unwrap_or(false)
    }
}

impl fmt::Debug for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within")
            .field("throttle", &self.throttle)
            .finish_non_exhaustive()
    }
}
