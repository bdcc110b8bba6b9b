//! Leases: requests per second over real sockets beside memory and beside a Redis that decides each
//! hit, for a few hot keys and for many of which few are; how many commands a thousand
//! decisions take; what is admitted above a limit; and how four processes share one.
//!
//! One worker on one core; the load generator, 32 clients with a keep-alive connection each, and
//! Redis on another.
//!
//! `cargo bench -p traffik-benches --bench leases [-- <rounds> <milliseconds> | -- processes]`
//!
//! With `processes` there is only what they count, which depends less on what else the machine does. What
//! leases add to a request in instructions the bench `instructions` tells.

use std::cell::Cell;
use std::process::Command;
use std::time::{Duration, Instant};

use actix_web::{App, HttpRequest, HttpResponse, web};
use tokio::runtime::Runtime;
use traffik_actix::{HttpThrottle, ThrottleMiddleware};
use traffik_benches::serve;
use traffik_benches::server::{Server, race};
use traffik_benches::store::Store;
use traffik_core::{
    Backend, BackendExt, Identity, Lease, LeaseInfo, MemoryBackend, RedisBackend, Throttle,
    TokenBucket,
};

#[path = "../../tests/support/leasing.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod leasing;

use leasing::Plan;

/// The argument with which this program is one of four processes.
const LIVE: &str = "--live";

/// Who asks is drawn: one of a few, or one of many of whom few ask often.
type Draw = fn(&HttpRequest) -> Identity;

fn main() {
    let has = |argument| std::env::args().any(|one| one == argument);
    if has(LIVE) {
        return one_thread().block_on(leasing::live(RedisBackend::builder));
    }
    if !has("processes") {
        alone();
    }
    in_company();
}

fn one_thread() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// Four processes that share a limit: what they count of ten seconds.
fn in_company() {
    println!("\nfour processes on one limit, ten seconds");
    println!(
        "{:10} {:22} {:>8} {:>15} {:>16} {:>12} {:>7}",
        "limit/s",
        "hits/s of each",
        "hits",
        "trips per 1,000",
        "admitted, strict",
        "wait too long",
        "beyond"
    );
    let program = std::env::current_exe().expect("this program");
    for (limit, demands) in [
        (10_000_u64, [250, 250, 250, 250]),
        (2_000, [250, 250, 250, 250]),
        (100_000, [2_500, 2_500, 2_500, 2_500]),
        (20_000, [2_500, 2_500, 2_500, 2_500]),
        (1_000, [250, 250, 250, 250]),
        (1_000, [300, 300, 300, 300]),
        (1_000, [1_500, 1_500, 1_500, 1_500]),
        (1_000, [640, 320, 160, 80]),
        (1_000, [3_200, 1_600, 800, 400]),
    ] {
        let redis = Store::redis();
        let (url, rate) = (redis.url("redis"), format!("{limit}/second"));
        let plan = Plan {
            time: Duration::from_secs(10),
            ..Plan::new(&url, &rate, demands)
        };
        let command = || {
            let mut command = Command::new(&program);
            command.arg(LIVE);
            command
        };
        let log = plan.run(command, || ());
        let waits = log.excess_waits();
        let wait = |percent: usize| {
            let at = (waits.len() * percent / 100).min(waits.len().saturating_sub(1));
            waits.get(at).map_or(0, |us| us / 1_000)
        };
        // Nothing is beyond a limit that is not reached.
        let beyond = match log.admitted() < log.hits() {
            true => log.beyond(1).to_string(),
            false => "-".to_owned(),
        };
        println!(
            "{limit:<10} {:22} {:>8} {:>15} {:>16.3} {:>5}, {:>3} ms {beyond:>7}",
            format!("{demands:?}"),
            log.hits(),
            log.trips_per_thousand(),
            log.admitted_per_thousand() as f64 / 1_000.0,
            wait(50),
            wait(100),
        );
    }
}

fn alone() {
    let redis = Store::redis();
    let on = |namespace: &str| redis.backend(namespace);
    let hot = on("hot").lease(Lease::new());
    let zipf = on("zipf").lease(Lease::new());
    let cold = on("cold").lease(Lease::new());
    let standings = race(&[
        ours("memory, 8 keys", few, MemoryBackend::new()),
        ours("leases, 8 keys", few, hot.clone()),
        ours("each hit on redis, 8 keys", few, on("strict")),
        ours("memory, zipf of 100,000", many, MemoryBackend::new()),
        ours("leases, zipf of 100,000", many, zipf.clone()),
        ours(
            "each hit on redis, zipf of 100,000",
            many,
            on("strict_zipf"),
        ),
        ours("leases, 100,000 in turn", turns, cold.clone()),
        ours(
            "each hit on redis, 100,000 in turn",
            turns,
            on("strict_cold"),
        ),
    ]);
    println!("\nrequests/s, median (min - max) of the ratios of each round");
    for (name, this, that) in [
        ("hot keys, leases to memory", 1, 0),
        ("hot keys, leases to each hit on redis", 1, 2),
        ("zipf, leases to memory", 4, 3),
        ("zipf, leases to each hit on redis", 4, 5),
        ("in turn, leases to each hit on redis", 6, 7),
    ] {
        let ratio = standings[this].ratio_to(&standings[that], 0);
        println!("{name:40} {ratio:.3}");
    }
    println!("\ntrips per 1,000 decisions");
    for (name, leased) in [("hot keys", hot), ("zipf", zipf), ("in turn", cold)] {
        println!("{name:40} {}", trips(&leased.info()));
    }
    println!("\nabove the limit, as fast as one thread can");
    for limit in [1_000, 10_000] {
        let name = format!("above_{limit}");
        above(limit, "each hit on redis", &on(&name), || None);
        let leased = on(&format!("{name}_leased")).lease(Lease::new());
        let told = leased.clone();
        above(limit, "leases", &leased, move || Some(told.info()));
    }
}

/// Of decisions here and there.
fn trips(info: &LeaseInfo) -> String {
    let all = (info.local + info.trips).max(1);
    format!("{:.1}", info.trips as f64 * 1_000.0 / all as f64)
}

fn ours(name: &'static str, draw: Draw, backend: impl Backend) -> Server {
    let throttle = HttpThrottle::builder("a")
        .rate("1000000000/hour")
        .strategy(TokenBucket::new())
        .identify(draw)
        .build()
        .expect("valid");
    let limits = ThrottleMiddleware::new(throttle).backend(backend);
    serve!(name, move || App::new()
        .wrap(limits.clone())
        .route("/", web::get().to(hello)))
}

async fn hello() -> HttpResponse {
    HttpResponse::Ok().body("hello")
}

fn few(_: &HttpRequest) -> Identity {
    Identity::of(random() % 8)
}

const KEYS: u32 = 100_000;

/// The logarithm of the rank is even: Zipf's law with an exponent of 1.
fn many(_: &HttpRequest) -> Identity {
    let even = f64::from(random()) / f64::from(u32::MAX);
    Identity::of(f64::from(KEYS).powf(even).floor().to_string())
}

fn turns(_: &HttpRequest) -> Identity {
    thread_local! {
        static TURN: Cell<u32> = const { Cell::new(0) };
    }
    Identity::of(TURN.replace(TURN.get() + 1) % KEYS)
}

/// Xorshift.
fn random() -> u32 {
    thread_local! {
        static STATE: Cell<u32> = const { Cell::new(0x9e37_79b9) };
    }
    STATE.with(|state| {
        let mut word = state.get();
        word ^= word << 13;
        word ^= word >> 17;
        word ^= word << 5;
        state.set(word);
        word
    })
}

/// Hits of 32 tasks for three seconds, what was admitted of what the limit gives in that time, and
/// how many trips that took.
fn above<B: Backend + Clone>(
    limit: u32,
    name: &str,
    backend: &B,
    info: impl Fn() -> Option<LeaseInfo>,
) {
    let throttle = Throttle::builder("above")
        .rate(format!("{limit}/second"))
        .strategy(TokenBucket::new())
        .backend(backend.clone())
        .build()
        .expect("valid");
    let time = Duration::from_secs(3);
    let (hits, admitted, took) = one_thread().block_on(async {
        let start = Instant::now();
        let tasks: Vec<_> = (0..32)
            .map(|_| tokio::spawn(flood(throttle.clone(), start, time)))
            .collect();
        let mut sum = (0_u64, 0_u64);
        for task in tasks {
            let (hits, admitted) = task.await.expect("no panic");
            sum = (sum.0 + hits, sum.1 + admitted);
        }
        (sum.0, sum.1, start.elapsed())
    });
    let given = f64::from(limit) * (1.0 + took.as_secs_f64());
    println!(
        "{limit:6}/s {name:20} {:10.0} decisions/s, {:.3} admitted of what there was{}",
        hits as f64 / took.as_secs_f64(),
        admitted as f64 / given,
        info().map_or(String::new(), |info| format!(
            ", {} trips of 1,000",
            trips(&info)
        )),
    );
}

async fn flood(throttle: Throttle, start: Instant, time: Duration) -> (u64, u64) {
    let ann = Identity::of("ann");
    let (mut hits, mut admitted) = (0, 0);
    while start.elapsed() < time {
        for _ in 0..8 {
            let decision = throttle.hit(&ann).await.expect("redis answers");
            hits += 1;
            admitted += u64::from(decision.is_allowed());
        }
        tokio::task::yield_now().await;
    }
    (hits, admitted)
}
