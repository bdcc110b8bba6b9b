//! Arguments that do not exist, are there too often, or are not written like arguments.
use traffik_actix_macros::throttle;

#[throttle("100/minute", colour = "red")]
async fn unknown() {}

#[throttle("100/minute", strategy = "gcra", colour = "red")]
async fn unknown_lists_the_options_too() {}

#[throttle(rte = "100/minute", strategy = "token_bucket", brust = 5)]
async fn misspelt() {}

#[throttle("100/minute", rate = "5/second")]
async fn twice() {}

#[throttle("100/minute", cost = 2, cost = 3)]
async fn twice_with_key() {}

#[throttle("100/minute", rate_by = rate_of)]
async fn rate_and_rate_by() {}

#[throttle("100/minute", cost_by = cost_of, cost_by_async = cost_of)]
async fn cost_by_and_cost_by_async() {}

#[throttle("100/minute", identify_async = who, identify = who)]
async fn identify_twice() {}

#[throttle(cost = 2, "100/minute")]
async fn rate_is_not_first() {}

#[throttle("100/minute", "5/second")]
async fn two_rates() {}

#[throttle("100/minute", strategy = "gcra", strict)]
async fn no_value() {}

#[throttle("100/minute", cost = )]
async fn no_value_after_all() {}

#[throttle("100/minute", cost == 2)]
async fn compared() {}

#[throttle("100/minute" cost = 2)]
async fn no_comma() {}

#[throttle(100, cost = 2)]
async fn number() {}

#[throttle("100/minute", crate = 5)]
async fn krate_is_no_path() {}

#[throttle("100/minute", crate = traffik)]
#[throttle("5/second", crate = traffik)]
async fn krate_twice() {}

#[throttle("100/minute")]
#[throttle = "5/second"]
async fn name_value() {}

#[throttle(limit = "search", rate = "5/second")]
async fn what_is_named_says_everything_itself() {}

#[throttle(limit = "search")]
#[throttle(limit = "search")]
async fn named_twice() {}

#[throttle(limt = "search")]
async fn named_with_a_slip() {}

#[throttle(limit = 5)]
async fn named_by_a_number() {}

fn main() {}
