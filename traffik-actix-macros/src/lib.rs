//! The attribute [`throttle`]; use it through `traffik-actix`, which re-exports it.

#[cfg(test)]
mod any;
mod args;
mod attribute;
mod errors;
mod expand;
mod handler;
mod rehearsal;
mod suggest;
mod table;
mod value;

/// Limits how often a handler may be called.
///
/// ```
/// use actix_web::{Responder, get, post, web};
/// use traffik_actix::throttle;
///
/// #[throttle("100/minute")]
/// #[get("/")]
/// async fn index() -> impl Responder {
///     "hello"
/// }
///
/// /// Twice a second, but a thousand times a day, and exports count tenfold.
/// #[post("/export")]
/// #[throttle("2/second", strategy = "token_bucket", burst = 5)]
/// #[throttle("1000/day", cost = 10, scope = "route", on_error = "allow")]
/// async fn export(order: web::Json<Vec<u32>>) -> impl Responder {
///     web::Json(order.len())
/// }
/// # let _ = actix_web::App::new().service(index).service(export);
/// ```
///
/// A request is decided *before* anything of it is extracted: the body of a denied one is not read,
/// so neither a huge nor a malformed one is of use to a client who has spent its limit. Denials are
/// responses, 429 with `Retry-After` by default, which `Logger`, CORS and `ErrorHandlers` see like
/// any other.
///
/// What can be known when the handler is compiled is checked then, by the library itself: rates, options
/// of strategies, costs that no limit will ever hold.
///
/// Several attributes on one handler are one decision: if one limit denies, none is charged.
///
/// The attribute works above and below `#[get(..)]` and its kind, and with
/// `web::get().to(handler)`. Attributes that describe an API by the signature, such as `#[utoipa::path]`,
/// see the original, wherever they are.
///
/// # Arguments
///
/// Exactly one of the three rates is needed, or `limit`, or `in_flight`, which goes with a rate too; a text that
/// comes first is `rate`.
///
/// | argument | value | default |
/// |---|---|---|
/// | `rate` | `"100/minute"`, checked by the compiler, or an expression | |
/// | `rate_by`, `rate_by_async` | a function of `&HttpRequest` that gives a `Rate` or a `Result` | |
/// | `in_flight` | a whole number: [how many at a time](#how-many-at-a-time), with a rate or alone | |
/// | `limit` | a text, alone: the throttle of this name in the application's `Limits`, as it is at the time | |
/// | `name` | a text: limits of one name share their counts | [path of the handler](#names), `#2` .. for further limits |
/// | `strategy` | the name of a [strategy](#strategies), or an expression | `"fixed_window"` |
/// | `cost` | a whole number, or an expression | `1` |
/// | `cost_by`, `cost_by_async` | a function of `&HttpRequest` that gives a `u32` or a `Result` | |
/// | `cost_after` | a function of the response (`&Answered`) that gives what it has cost, a `u32` | |
/// | `refund_if` | a function of the response (`&Answered`) that says whether the request shall not count, such as `\|answered\| answered.status().is_success()` for a limit on failed logins | |
/// | `identify`, `identify_async` | a function of `&HttpRequest` that gives an `Identity` or a `Result` | the backend's |
/// | `shared` | `true`: one count for all clients, not one for each | `false` |
/// | `shadow` | `true`: only says what it would do | `false` |
/// | `shadow_of` | the same, for a limit that is to replace the one of this name | |
/// | `shadow_header` | `true`: a header tells what it would have done | `false` |
/// | `scope` | `"throttle"`, `"route"`, `"path"` | `"throttle"` |
/// | `scope_by`, `scope_by_async` | a function of `&HttpRequest` that gives a text, or a `Result`: each has a count of its own | none |
/// | `min_wait` | `"500ms"`: the shortest wait of a denial | none |
/// | `wait_up_to` | `"2s"`: how long a request waits rather than being denied | denied at once |
/// | `max_waiters` | a whole number: how many may wait at a time | `1000` |
/// | `max_waiters_per_client` | a whole number: how many of one client may wait at a time | a quarter of them |
/// | `retry_after` | `"5s"`: when those are told to come back of whom too many are in flight | `"1s"` |
/// | `lease`, `on_outage` | `"10s"`; `"deny"`, `"allow"`, `"raise"` or an expression: of what is in flight on a Redis | `"10s"`, `"deny"` |
/// | `on_error` | `"allow"`, `"throttle"`, `"raise"`, or an expression | the backend's |
/// | `on_error_by` | an async function of `&Failed` that gives a `Result<Decision>` | the backend's |
/// | `on_denied`, `on_denied_async` | a function of `&Denial` that gives the response | the backend's |
/// | `headers` | `"always"`, `"denied"`, `"never"` | the backend's |
/// | `header_style` | `"standard"`, `"x_rate_limit"`, `"x_rate_limit_epoch"`, `"legacy"`, `"both"`, `"none"` | the backend's |
/// | `own_headers` | a function of `&Decided` and `&mut HeaderMap` that writes headers of its own | the backend's |
/// | `backend` | an expression | the application's, else the memory of the process |
/// | `backend_by`, `backend_by_async` | a function of `&HttpRequest` that gives a `ThrottleBackend` or a `Result` | |
/// | `original` | a name for [the function itself](#what-becomes-of-the-function) | none |
/// | `crate` | the path of `traffik-actix`, if it is not `::traffik_actix` | |
///
/// A function that returns an `Err` says that the request makes no sense: it is answered 400, or what an
/// `actix_web::Error` says, and nothing is charged.
///
/// Each is explained at the method of the same name of `HttpThrottleBuilder`. Expressions are evaluated
/// once, when the first request comes; they see what the handler's module sees.
///
/// # Names
///
/// By default the name is the path of the handler's module and its own name. The type of an `impl` is not among that,
/// nor a function around it: handlers of one name in two `impl`s of a module need a `name` each. Without they share one
/// count, and the log says so.
///
/// # Strategies
///
/// | strategy | options |
/// |---|---|
/// | `"fixed_window"`, `"sliding_window_log"`, `"sliding_window_counter"` | |
/// | `"token_bucket"` | `burst = 20` |
/// | `"token_bucket_with_debt"` | `burst = 20`, `max_debt = 5` |
/// | `"leaky_bucket"`, `"leaky_bucket_with_queue"` | |
/// | `"gcra"` | `burst_tolerance = "500ms"`, `strict = true` |
/// | `"tiered_rate"` | `tiers = [("free", 1.0), ("gold", 4.0)]`, `default_tier = "free"` |
/// | `"adaptive_throttle"` | `load_threshold = 0.8`, `reduction_factor = 0.6`, `recovery_rate = 0.1`, `min_limit_ratio = 0.3`, `load = &GAUGE` |
/// | `"priority_queue"` | `default_priority = "low"`, `max_queue_size = 1000` |
/// | `"quota_with_rollover"` | `rollover_percentage = 0.5`, `max_rollover = 500`, `cumulative = true` |
/// | `"time_of_day"` | `windows = [(8, 17, 1.0), (17, 8, 3.0)]`, `windows_by_minute = ..`, `timezone_offset = -5`, `timezone_offset_minutes = 330`, `zone = "Europe/Berlin"` |
/// | `"calendar_window"` | `week_starts_on = "sunday"`, `month_starts_on = 15`, `timezone_offset = -5`, `timezone_offset_minutes = 330`, `zone = "Europe/Berlin"` |
/// | `"cost_based_token_bucket"` | `burst = 20`, `cost_window = 100`, `min_refill_rate = 0.5` |
/// | `"distributed_fairness"` | `instance = "a"` (required), `weight = 1.0`, `fairness_window = "1m"` |
/// | `"geographic_distribution"` | `regions = [("eu", 0.5), ("us", 0.5)]`, `allow_spillover = false`, `default_region = "eu"` |
///
/// A strategy of your own, or one that is configured further, is an expression:
///
/// ```
/// use traffik_actix::strategy::TokenBucket;
/// use actix_web::error::ErrorUnauthorized;
/// use traffik_actix::{Identity, throttle};
///
/// const BUCKET: TokenBucket = TokenBucket::new().burst(50);
///
/// /// Whoever brings no key is answered 401. Any other error would be a 400.
/// fn api_key(req: &actix_web::HttpRequest) -> actix_web::Result<Identity> {
///     let key = req.headers().get("x-api-key").and_then(|key| key.to_str().ok());
///     let key = key.ok_or_else(|| ErrorUnauthorized("an API key is missing"))?;
///     Ok(Identity::of(key)) // in a real service it is checked first
/// }
///
/// #[throttle("10/second", strategy = BUCKET, identify = api_key)]
/// async fn search() -> &'static str {
///     "found"
/// }
/// # let _ = actix_web::web::get().to(search);
/// ```
///
/// # How many at a time
///
/// `in_flight` makes a `ConcurrencyLimit`: of each client, or of all with `shared = true`. A request is in flight
/// until the body of its response has ended or was dropped.
///
/// ```
/// use actix_web::get;
/// use traffik_actix::throttle;
///
/// /// Two at a time for each client, else a 429, and twenty in all, else a 503 after a wait in a bounded queue.
/// #[get("/export")]
/// #[throttle("100/hour", in_flight = 2)]
/// #[throttle(in_flight = 20, shared = true, wait_up_to = "1s", retry_after = "5s")]
/// async fn export() -> &'static str {
///     "numbers"
/// }
/// # let _ = actix_web::App::new().service(export);
/// ```
///
/// What is in flight is asked before all rates, wherever it stands, so that what is denied for it is charged
/// nowhere. Beside a rate `name`, `identify`, `shared` and `headers` hold for both, and the limit is called
/// `name#in_flight`; `wait_up_to`, `max_waiters`, `on_denied` (of `&BusyDenial`) and `backend` (a `RedisBackend`, to
/// count over all servers) want an attribute of its own.
///
/// # What becomes of the function
///
/// It is kept as it is inside of a new one of the same name, which takes the request and its unread
/// payload; documentation shows the original. A generic handler has one limit for all its types, and an
/// argument cannot be `impl Trait`. Attributes of the function stay with the original, except routes,
/// documentation, lints, `must_use` and `deprecated`.
///
/// A unit test that calls the handler with its own arguments needs the function itself: give it a name. With
/// `#[get(..)]` and its kind this attribute has to stand above them then: they put what is below into a
/// function of their own, where nobody else finds it.
///
/// ```
/// use actix_web::web;
/// use traffik_actix::throttle;
///
/// #[throttle("100/minute", original = sum_unlimited)]
/// async fn sum(numbers: web::Json<Vec<u32>>) -> String {
///     numbers.iter().sum::<u32>().to_string()
/// }
///
/// # #[actix_web::main]
/// # async fn main() {
/// // In a test. What the limit does is tested by requests, with `actix_web::test::init_service`.
/// assert_eq!(sum_unlimited(web::Json(vec![1, 2])).await, "3");
/// # }
/// # let _ = web::post().to(sum);
/// # main();
/// ```
///
/// Such an attribute goes above `#[get(..)]` and its kind, which make a type of everything below them.
///
/// In an `impl`, `Self` and the generics have no meaning inside of another function. A handler that uses
/// them is kept beside it: `original = Self::sum_unlimited`.
///
/// Several limits find each other by the name of the attribute: do not import it under another.
#[proc_macro_attribute]
pub fn throttle(
    arguments: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    attribute::apply(arguments.into(), item.into()).into()
}
