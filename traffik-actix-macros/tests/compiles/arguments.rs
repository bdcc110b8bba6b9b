//! Every argument, as a literal and as an expression.
#![deny(warnings)]

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use traffik_actix::{
    Denial, Error, HeaderStyle, Headers, Identity, MemoryBackend, OnError, Rate, Scope, strategy,
    throttle,
};

const LOGIN: Rate = Rate::per_minute(5);
const COST: u32 = 3;
const SHARE: f64 = 0.125;
/// Named like something in the expansion.
const LIMITS: &str = "7/second";

fn strategy_gauge() -> traffik_actix::traffik_core::LoadGauge {
    traffik_actix::traffik_core::LoadGauge::new()
}

fn rate_of(_: &HttpRequest) -> Rate {
    LOGIN
}

async fn plan_of(req: &HttpRequest) -> Result<Rate, String> {
    let plan = req.headers().get("x-plan").ok_or("no plan")?;
    Rate::parse(plan.to_str().map_err(|error| error.to_string())?)
        .map_err(|error| error.to_string())
}

fn who(_: &HttpRequest) -> Identity {
    Identity::ANONYMOUS
}

fn teapot(_: &Denial<'_>) -> HttpResponse {
    HttpResponse::ImATeapot().finish()
}

fn failing_policy() -> OnError {
    OnError::handler(|failure| {
        let answer = failure.deny_for(Duration::from_secs(9));
        async move { Ok(answer) }
    })
}

#[throttle(
    in_flight = 3,
    name = "in flight",
    identify = who,
    shared = true,
    wait_up_to = "minute",
    max_waiters = 10,
    max_waiters_per_client = 5,
    retry_after = "5s",
    on_denied = |_| HttpResponse::ImATeapot().finish(),
    headers = "denied",
)]
#[throttle(
    "5/minute",
    in_flight = COST,
    name = format!("in flight, {COST}"),
    identify_async = async |_: &HttpRequest| Identity::ANONYMOUS,
    shared = false,
    retry_after = Duration::from_secs(5),
    headers = Headers::Never,
    cost = 2,
    strategy = "token_bucket",
    burst = 5,
)]
async fn in_flight() -> &'static str {
    "in flight"
}

#[throttle(
    rate = "20 per 2 mins",
    name = "literals",
    strategy = "gcra",
    burst_tolerance = "12s",
    strict = true,
    cost = 2,
    identify = who,
    shared = true,
    scope = "path",
    min_wait = "2 seconds",
    wait_up_to = "minute",
    max_waiters = 10,
    on_error = "raise",
    on_denied = teapot,
    headers = "denied",
    header_style = "legacy",
    own_headers = |decided, headers| {
        let left = decided.decision.remaining();
        headers.insert(actix_web::http::header::CONTENT_LANGUAGE, left.into());
    },
    backend = MemoryBackend::new(),
)]
async fn literals() -> &'static str {
    "literals"
}

#[throttle(
    rate = LOGIN,
    name = format!("expressions-{COST}"),
    strategy = strategy::Gcra::new().burst_tolerance(Duration::from_millis(5)),
    cost = COST + 1,
    identify = |req| Identity::of(req.path()),
    scope = Scope::Route,
    min_wait = Duration::from_secs(1),
    wait_up_to = Duration::from_secs(2),
    max_waiters = COST as usize,
    on_error = failing_policy(),
    on_denied = |denial| denial.default_response(),
    headers = Headers::Never,
    header_style = HeaderStyle::XRateLimit,
    backend = {
        let memory = MemoryBackend::new();
        memory.clone()
    }
)]
async fn expressions() -> &'static str {
    "expressions"
}

#[throttle(rate_by = rate_of, cost_by = |req| u32::try_from(req.path().len()))]
#[throttle(rate_by = |_req| Rate::parse("5/s"))]
#[throttle(
    rate_by_async = plan_of,
    cost_by_async = async |_req: &HttpRequest| 5,
    cost_after = |answered| answered.content_length().map_or(5, |bytes| u32::try_from(bytes).unwrap_or(5)),
    refund_if = |answered| answered.status().is_server_error(),
    identify_async = async |_req: &HttpRequest| Ok::<_, Error>(Identity::ANONYMOUS),
)]
async fn functions() -> &'static str {
    "functions"
}

#[throttle(rate = LIMITS, strategy = "gcra", burst_tolerance = Duration::ZERO, strict = false)]
#[throttle("1/s", strategy = "fixed_window", shared = false)]
#[throttle("1/s", strategy = "token_bucket")]
#[throttle("1/s", strategy = "token_bucket", burst = 1)]
#[throttle("1/s", strategy = "token_bucket", burst = COST)]
#[throttle("1/s", strategy = "token_bucket", burst = COST, cost = 9)]
#[throttle("1/s", strategy = "token_bucket", burst = 5, cost = 5)]
#[throttle("1/s", strategy = "gcra", cost = 9)]
#[throttle("0/0", cost = 9)]
#[throttle("1_000/week")]
async fn stacked() -> &'static str {
    "stacked"
}

#[throttle("1/s", strategy = "fixed_window")]
#[throttle("1/s", strategy = "sliding_window_log")]
#[throttle("1/s", strategy = "sliding_window_counter")]
#[throttle("1/s", strategy = "token_bucket", burst = 9)]
#[throttle(
    "1/s",
    strategy = "token_bucket_with_debt",
    burst = 9,
    max_debt = 0,
    cost = 9
)]
#[throttle("1/s", strategy = "leaky_bucket")]
#[throttle("1/s", strategy = "leaky_bucket_with_queue")]
#[throttle("1/s", strategy = "gcra", strict = true)]
#[throttle("1/s", strategy = "tiered_rate", default_tier = "free", cost = 5)]
#[throttle("1/s", strategy = "tiered_rate", tiers = [("gold, or so", 4.5)], default_tier = "gold, or so")]
#[throttle(
    "1/s",
    strategy = "quota_with_rollover",
    rollover_percentage = 1,
    max_rollover = 0
)]
#[throttle(
    "1/s",
    strategy = "quota_with_rollover",
    rollover_percentage = 0.25,
    cumulative = true
)]
#[throttle("1/s", strategy = "quota_with_rollover", rollover_percentage = SHARE, cost = 2)]
#[throttle(
    "9/s",
    strategy = "adaptive_throttle",
    load_threshold = 0.5,
    reduction_factor = 0.5
)]
#[throttle("9/s", strategy = "adaptive_throttle", recovery_rate = SHARE, min_limit_ratio = 0.5, load = &strategy_gauge())]
#[throttle(
    "9/s",
    strategy = "priority_queue",
    default_priority = "high",
    max_queue_size = 9
)]
#[throttle("9/s", strategy = "priority_queue", default_priority = traffik_actix::Priority::Low)]
#[throttle(
    "9/s",
    strategy = "cost_based_token_bucket",
    burst = 20,
    cost_window = 5,
    min_refill_rate = 1
)]
#[throttle(
    "9/s",
    strategy = "distributed_fairness",
    instance = "a",
    weight = 2,
    fairness_window = "1m"
)]
#[throttle("9/s", strategy = "distributed_fairness", weight = 2.5, instance = format!("a-{COST}"))]
#[throttle("9/s", strategy = "geographic_distribution", regions = [("eu", 0.5)], default_region = "eu")]
#[throttle("9/s", strategy = "geographic_distribution", allow_spillover = false)]
#[throttle("9/s", strategy = "time_of_day", windows = [(22, 6, 2.0)], timezone_offset = -5, cost = 10)]
#[throttle("9/s", strategy = "time_of_day", windows_by_minute = [(90, 100, 2.0)], timezone_offset_minutes = 330)]
#[throttle(
    "99/month",
    strategy = "calendar_window",
    month_starts_on = 15,
    timezone_offset = 9,
    cost = 99
)]
#[throttle(
    "9/week",
    strategy = "calendar_window",
    week_starts_on = "sunday",
    timezone_offset_minutes = 330
)]
#[throttle("9/year", strategy = "calendar_window", week_starts_on = traffik_actix::Weekday::Friday)]
async fn strategies() -> &'static str {
    "strategies"
}

#[test]
fn is_taken() {
    let _ = actix_web::App::new()
        .route("/", web::get().to(literals))
        .route("/", web::get().to(expressions))
        .route("/", web::get().to(functions))
        .route("/", web::get().to(strategies))
        .route("/", web::get().to(stacked))
        .route("/", web::get().to(in_flight));
}
