//! Values of the wrong kind, and out of range.
use traffik_actix_macros::throttle;

#[throttle("100/minute", cost = -1)]
async fn negative_cost() {}

#[throttle("100/minute", cost = 4294967296)]
async fn large_cost() {}

#[throttle("100/minute", cost = 1.5)]
async fn half_a_cost() {}

#[throttle("100/minute", cost = "1")]
async fn text_for_a_cost() {}

#[throttle("5/minute", cost = 6)]
async fn cost_above_the_limit() {}

#[throttle("5/minute", strategy = "token_bucket", burst = 20, cost = 21)]
async fn cost_above_the_burst() {}

#[throttle("5/second", strategy = "gcra", strict = true, burst_tolerance = "1s", cost = 7)]
async fn cost_above_the_tolerance() {}

#[throttle("100/minute", strategy = "token_bucket", burst = 0)]
async fn zero_burst() {}

#[throttle("100/minute", strategy = "gcra", burst_tolerance = 500)]
async fn tolerance_without_unit() {}

#[throttle("100/minute", strategy = "gcra", burst_tolerance = "500 apples")]
async fn tolerance_in_apples() {}

#[throttle("100/minute", min_wait = "0s")]
async fn no_wait() {}

#[throttle("100/minute", min_wait = "9999d")]
async fn endless_wait() {}

#[throttle("100/minute", strategy = "gcra", strict = "yes")]
async fn text_for_a_switch() {}

#[throttle("100/minute", strategy = "gcra", strict = STRICT)]
async fn expression_for_a_switch() {}

#[throttle("100/minute", scope = "global")]
async fn scope() {}

#[throttle("100/minute", on_error = "ignore")]
async fn on_error() {}

#[throttle("100/minute", headers = false)]
async fn headers() {}

#[throttle("100/minute", identify = "who")]
async fn quoted_function() {}

#[throttle("100/minute", backend = "memory")]
async fn quoted_backend() {}

#[throttle("100/minute", name = 5)]
async fn number_for_a_name() {}

#[throttle("100/minute", name = "")]
async fn empty_name() {}

#[throttle("100/minute", name = "größe")]
async fn foreign_name() {}

#[throttle("100/minute")]
async fn größe() {}

#[throttle("100/minute", name = "same")]
#[throttle("5/second", name = "same")]
async fn same_names() {}

#[throttle("100/minute", refund_if = "5xx")]
async fn text_for_a_refund() {}

#[throttle("100/minute", cost_after = 5)]
async fn number_for_a_cost_afterwards() {}

fn main() {}
