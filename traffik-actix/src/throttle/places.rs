//! Where throttles count that have a function to say so.

use actix_web::HttpRequest;
use traffik_core::{Error, Result};

use crate::request::source::Source;
use crate::throttle::HttpThrottle;
use crate::throttle::ask::Ask;
use crate::throttle::backend::ThrottleBackend;

/// What these functions say about a request, in the order of the throttles that it meets; empty if there are none.
#[derive(Default)]
pub(crate) struct Places(Vec<Option<Result<ThrottleBackend>>>);

impl Places {
    /// Asks them, each once.
    pub(crate) async fn of(asks: &[Ask<'_>], req: &HttpRequest) -> Places {
        let mut places = Vec::new();
        if asks.iter().any(|ask| ask.throttle.backend_by().is_some()) {
            for ask in asks {
                let place = match ask.throttle.backend_by() {
                    None => None,
                    Some(source) => Some(match same(source, asks, &places) {
                        Some(known) => known,
                        None => ask.throttle.backend_of(source, req).await,
                    }),
                };
                places.push(place);
            }
        }
        Places(places)
    }

    /// Where one of the throttles counts. If its function failed, that is the reason, and another backend, whose
    /// handlers have to do.
    pub(crate) fn find<'a>(
        &'a self,
        at: usize,
        throttle: &'a HttpThrottle,
        req: &'a HttpRequest,
        outer: Option<&'a ThrottleBackend>,
    ) -> (&'a ThrottleBackend, Option<&'a Error>) {
        match self.0.get(at) {
            Some(Some(Ok(backend))) => (backend, None),
            Some(Some(Err(error))) => (ThrottleBackend::around(req, outer), Some(error)),
            Some(None) | None => (throttle.backend_for(req, outer), None),
        }
    }
}

/// What the same function said for another throttle, unless it failed.
fn same(
    source: &Source<ThrottleBackend>,
    asks: &[Ask<'_>],
    places: &[Option<Result<ThrottleBackend>>],
) -> Option<Result<ThrottleBackend>> {
    let mut earlier = asks.iter().zip(places);
    earlier.find_map(|(ask, place)| {
        let is_same = ask.throttle.backend_by().is_some_and(|one| one.is(source));
        match place {
            Some(Ok(backend)) if is_same => Some(Ok(backend.clone())),
            _ => None,
        }
    })
}
