//! How many at a time.
use traffik_actix_macros::throttle;

#[throttle(in_flight = 0)]
async fn nothing_would_ever_pass() {}

#[throttle(in_flight = "10")]
async fn text() {}

#[throttle(in_flight = -1)]
async fn negative() {}

#[throttle(in_flight = 2.5)]
async fn fraction() {}

#[throttle(in_flight)]
async fn no_value() {}

#[throttle(in_flight = 1, in_flight = 2)]
async fn twice() {}

#[throttle(in_flihgt = 1)]
async fn slip() {}

#[throttle(limit = "search", in_flight = 10)]
async fn beside_a_limit_of_the_application() {}

#[throttle(in_flight = 10, cost = 2)]
async fn an_argument_of_rates() {}

#[throttle(in_flight = 10, burst = 2)]
async fn an_option_of_strategies() {}

#[throttle("100/minute", retry_after = "5s")]
async fn an_argument_of_this_for_a_rate() {}

#[throttle("100/minute", in_flight = 10, wait_up_to = "2s")]
async fn whose_wait() {}

#[throttle("100/minute", in_flight = 10, backend = redis)]
async fn whose_backend() {}

#[throttle("100/minute", lease = "5s")]
async fn a_lease_of_a_rate() {}

#[throttle(in_flight = 10, on_outage = "share")]
async fn no_such_policy() {}

#[throttle(in_flight = 10, name = "same")]
#[throttle("100/minute", name = "same")]
async fn same_names() {}

fn main() {}
