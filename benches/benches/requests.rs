//! Requests per second over real sockets: a bare actix-web application, the same behind our
//! middleware and our macro, and behind actix-extensible-rate-limit.
//!
//! One worker on one core, a load generator of 32 keep-alive connections on another. Beside the
//! throughput this prints the processor time of the worker per request, which a busy machine and
//! a slow load generator cannot falsify.
//!
//! `cargo bench -p traffik-benches --bench requests [-- <rounds> <milliseconds>]`

use std::time::Duration;

use actix_extensible_rate_limit::RateLimiter;
use actix_extensible_rate_limit::backend::SimpleInputFunctionBuilder;
use actix_extensible_rate_limit::backend::memory::InMemoryBackend;
use actix_web::dev::Service;
use actix_web::{App, get, web};
use traffik_actix::{
    HeaderStyle, Headers, HttpThrottle, MemoryBackend, ThrottleBackend, ThrottleMiddleware,
    throttle,
};
use traffik_benches::serve;
use traffik_benches::server::race;

/// Never denies, and is the same for everybody.
const RATE: &str = "1000000000/hour";

fn main() {
    let middleware = |headers, style| {
        let backend = ThrottleBackend::new(MemoryBackend::new())
            .headers(headers)
            .header_style(style);
        let throttle = HttpThrottle::builder("api").rate(RATE).backend(backend);
        ThrottleMiddleware::new(throttle.build().expect("valid"))
    };
    let without = middleware(Headers::Never, HeaderStyle::Standard);
    let standard = middleware(Headers::Always, HeaderStyle::Standard);
    let both = middleware(Headers::Always, HeaderStyle::Both);
    // Its task that drops old keys would find nothing to drop.
    let peer = InMemoryBackend::builder().with_gc_interval(None).build();
    race(&[
        serve!("bare", || App::new().route("/", web::get().to(hello))),
        serve!("a middleware that does nothing", || App::new()
            .wrap_fn(|req, service| service.call(req))
            .route("/", web::get().to(hello))),
        serve!("middleware, no headers", move || App::new()
            .wrap(without.clone())
            .route("/", web::get().to(hello))),
        serve!("middleware, standard", move || App::new()
            .wrap(standard.clone())
            .route("/", web::get().to(hello))),
        serve!("middleware, all headers", move || App::new()
            .wrap(both.clone())
            .route("/", web::get().to(hello))),
        serve!("#[throttle], standard", || App::new().service(limited)),
        serve!("actix-extensible-rate-limit", move || {
            let hour = Duration::from_secs(60 * 60);
            let input = SimpleInputFunctionBuilder::new(hour, 1_000_000_000)
                .peer_ip_key()
                .build();
            let limiter = RateLimiter::builder(peer.clone(), input).add_headers();
            App::new()
                .wrap(limiter.build())
                .route("/", web::get().to(hello))
        }),
    ]);
}

async fn hello() -> &'static str {
    "hello"
}

#[get("/")]
#[throttle("1000000000/hour")]
async fn limited() -> &'static str {
    "hello"
}
