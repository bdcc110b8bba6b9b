//! Routing by what is left of a limit.

use actix_web::guard::{Guard, GuardContext};

use crate::throttle::HttpThrottle;

/// True while a throttle would admit one more hit of cost 1; charges nothing.
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
/// let resource = web::resource("/search")
///     .route(web::get().guard(Within::new(heavy)).to(async || "the best results"))
///     .route(web::get().to(async || "some results"));
/// # let _ = resource;
/// # Ok::<(), traffik_actix::Error>(())
/// ```
///
/// A guard cannot wait, so the backend must be a memory and the identity the client's
/// [address](traffik_core::Identity::ip) of its socket; otherwise the guard is true.
#[derive(Clone, Debug)]
pub struct Within(HttpThrottle);

impl Within {
    /// A guard that asks `throttle`.
    pub fn new(throttle: HttpThrottle) -> Within {
        Within(throttle)
    }
}

impl Guard for Within {
    fn check(&self, ctx: &GuardContext<'_>) -> bool {
        self.0.check_peer(ctx.head().peer_addr).unwrap_or(true)
    }
}
