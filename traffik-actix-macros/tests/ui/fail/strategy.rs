//! Strategies and their options.
use traffik_actix_macros::throttle;

#[throttle("100/minute", strategy = "leaking_bucket")]
async fn unknown() {}

#[throttle("100/minute", strategy = "gcar")]
async fn misspelt() {}

#[throttle("100/minute", strategy = "tokenbucket", burst = 5)]
async fn misspelt_with_options() {}

#[throttle("100/minute", strategy = 5)]
async fn number() {}

#[throttle("100/minute", strategy = "gcra", burst = 5)]
async fn option_of_another() {}

#[throttle("100/minute", strategy = "fixed_window", burst_tolerance = "1s")]
async fn option_for_one_without() {}

#[throttle("100/minute", burst = 5)]
async fn option_without_strategy() {}

#[throttle("100/minute", strategy = TokenBucket::new(), burst = 5)]
async fn option_with_an_expression() {}

#[throttle("1/366d", strategy = "token_bucket", burst = 200)]
async fn unsuitable_for_the_rate() {}

fn main() {}
