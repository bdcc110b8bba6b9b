//! What clients are told about a throttle.

use actix_web::http::header::HeaderValue;
use traffik_core::{Attributes, Cell, Hit, Rate, Throttle, Timestamp, headers};

use crate::response::headers::text;

/// `RateLimit-Policy` of a throttle.
pub(super) fn of(throttle: &Throttle, rate: &Rate, quota: u64) -> HeaderValue {
    let mut value = String::new();
    let window = throttle.strategy().window(rate, quota);
    headers::push_policy(&mut value, throttle.name(), quota, window);
    text(value.into_bytes())
}

/// The limit that a client is told of whom nothing is known.
pub(super) fn usual_quota(throttle: &Throttle) -> u64 {
    let rate = throttle.rate();
    if rate.is_unlimited() {
        return 0;
    }
    let anybody = Hit {
        now: Timestamp::EPOCH,
        rate: &rate,
        cost: 0,
        attributes: &Attributes::NONE,
    };
    let decision = throttle.strategy().step(&mut Cell::fresh(), &anybody);
    decision.limit()
}
