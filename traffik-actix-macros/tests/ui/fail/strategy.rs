//! Strategies and their options.
use traffik_actix_macros::throttle;

#[throttle("100/minute", strategy = "leak")]
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

#[throttle("5/day", strategy = "quota_with_rollover", rollover_percentage = 1.5)]
async fn share_above_one() {}

#[throttle("5/day", strategy = "quota_with_rollover", rollover_percentage = -0.5)]
async fn negative_share() {}

#[throttle("5/day", strategy = "quota_with_rollover", rollover_percentage = "half")]
async fn text_for_a_share() {}

#[throttle("5/day", strategy = "quota_with_rollover", rollover_percentage = 1e999)]
async fn infinite_share() {}

#[throttle("5/day", strategy = "tiered_rate", default_tier = "gold")]
async fn unknown_tier() {}

#[throttle("5/day", strategy = "tiered_rate", default_tier = 1)]
async fn number_for_a_tier() {}

#[throttle("5/day", strategy = "distributed_fairness", weight = 2)]
async fn no_instance() {}

#[throttle("5/day", strategy = "distributed_fairness", instance = "")]
async fn empty_instance() {}

#[throttle("5/day", strategy = "geographic_distribution", allow_spillover = 1)]
async fn number_for_a_bool() {}

#[throttle("5/day", strategy = "priority_queue", default_priority = "urgent")]
async fn unknown_priority() {}

#[throttle("5/day", strategy = "time_of_day", timezone_offset = 99)]
async fn offset_out_of_range() {}

#[throttle("5/day", strategy = "time_of_day", timezone_offset = "Europe/Berlin")]
async fn text_for_an_offset() {}

#[throttle("10000/month")]
async fn month_without_a_calendar() {}

#[throttle("5/7hours", strategy = "calendar_window")]
async fn window_that_no_day_has() {}

#[throttle("5/month", strategy = "calendar_window", month_starts_on = 32)]
async fn day_that_no_month_has() {}

#[throttle("5/week", strategy = "calendar_window", week_starts_on = "sun")]
async fn unknown_weekday() {}

#[throttle("5/day", strategy = "calendar_window", zone = 1)]
async fn number_for_a_zone() {}

#[throttle("5/day", strategy = "calendar_window", per = "month")]
async fn unit_that_the_rate_says() {}

#[throttle("1/366d", strategy = "token_bucket", burst = 200)]
async fn unsuitable_for_the_rate() {}

fn main() {}
