//! Three limits that all servers of a service share, kept in a Redis and decided in one round trip;
//! while Redis is away, each server decides by itself.
//!
//! ```sh
//! REDIS_URL=redis://127.0.0.1:6379 cargo run --example redis --features redis
//! ```

use actix_web::{App, HttpServer, web};
use traffik_actix::strategy::{SlidingWindowCounter, TokenBucket};
use traffik_actix::{
    BackendExt, CircuitBreaker, HttpThrottle, MemoryBackend, RedisBackend, Rule, ThrottleBackend,
    ThrottleMiddleware,
};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379".into());
    // Connects when the first request comes; Redis may be down until then, and any time after.
    let redis = RedisBackend::builder(&url).namespace("hello").build()?;
    // How many servers there are: each gives so great a part of a limit while they cannot share it.
    let servers = std::env::var("SERVERS").map_or(Ok(1), |servers| servers.parse())?;
    let backend = redis
        .failover(MemoryBackend::new(), CircuitBreaker::new())
        .nodes(servers);

    let burst = HttpThrottle::builder("burst")
        .rate("20/minute")
        .strategy(TokenBucket::new().burst(5))
        .build()?;
    let hour = HttpThrottle::builder("hour")
        .rate("200/hour")
        .strategy(SlidingWindowCounter)
        .build()?;
    let day = HttpThrottle::builder("day").rate("1000/day").build()?;

    // A request that one of them denies is charged to none.
    let limits = ThrottleMiddleware::new(burst)
        .rule(Rule::new(hour))
        .rule(Rule::new(day))
        .backend(ThrottleBackend::new(backend));

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        App::new()
            .wrap(limits.clone())
            .route("/", web::get().to(async || "hello\n"))
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: for i in 1 2 3 4 5 6; do curl -i http://{addr}/; echo; done");
    server.run().await?;
    Ok(())
}
