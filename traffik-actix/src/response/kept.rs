//! Which requests somebody wants to know about.
//!
//! Not looked for in the extensions of the request: whoever hits by hand may have borrowed them, and there is no way to
//! ask whether that is so. What is put there only ends the entry here, when the request ends.

use std::cell::RefCell;
use std::collections::HashMap;

use actix_web::dev::RequestHead;
use actix_web::{HttpMessage as _, HttpRequest};

use crate::response::info::RateLimitInfo;

thread_local! {
    /// By where the head of a request is, which stays there for as long as the request does. Requests stay on their thread.
    static KEPT: RefCell<HashMap<usize, RateLimitInfo>> = RefCell::default();
}

/// In the extensions of the request.
struct Ends(usize);

impl Drop for Ends {
    fn drop(&mut self) {
        // Nothing is left of it if the thread ends.
        let ended = KEPT.try_with(|kept| kept.borrow_mut().remove(&self.0));
        drop(ended);
    }
}

fn key(req: &HttpRequest) -> usize {
    std::ptr::from_ref::<RequestHead>(req.head()).addr()
}

pub(super) fn of(req: &HttpRequest) -> Option<RateLimitInfo> {
    KEPT.with_borrow(|kept| kept.get(&key(req)).cloned())
}

pub(super) fn is_kept(req: &HttpRequest) -> bool {
    KEPT.with_borrow(|kept| kept.contains_key(&key(req)))
}

/// # Panics
///
/// If the extensions of the request are borrowed.
pub(super) fn keep(req: &HttpRequest, info: &RateLimitInfo) {
    let key = key(req);
    // What was there is dropped first, and ends what it has kept.
    req.extensions_mut().insert(Ends(key));
    KEPT.with_borrow_mut(|kept| kept.insert(key, info.clone()));
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn count() -> usize {
        KEPT.with_borrow(HashMap::len)
    }

    #[test]
    fn a_request_that_ended_was_kept() {
        for _ in 0..3 {
            let req = TestRequest::default().to_http_request();
            let clone = req.clone();
            keep(&req, &RateLimitInfo::default());
            assert!(is_kept(&clone) && count() == 1);
            drop(req);
            assert!(is_kept(&clone));
            drop(clone);
            assert_eq!(count(), 0);
        }
        // Whoever clears the extensions has cleared this.
        let req = TestRequest::default().to_http_request();
        keep(&req, &RateLimitInfo::default());
        keep(&req, &RateLimitInfo::default());
        assert_eq!(count(), 1);
        req.extensions_mut().clear();
        assert_eq!(count(), 0);
    }
}
