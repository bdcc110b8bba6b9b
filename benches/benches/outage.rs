//! What requests take while their Redis is away and a breaker is open, beside memory alone: the
//! median and the 99th percentile, under load and one after the other.
//!
//! One worker on one core; the load generator, 32 clients with a keep-alive connection each, on
//! another.
//!
//! `cargo bench -p traffik-benches --bench outage [-- <rounds> <milliseconds>]`

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::{App, web};
use tokio::net::TcpSocket;
use traffik_actix::{HttpThrottle, ThrottleMiddleware};
use traffik_benches::serve;
use traffik_benches::server::{Server, race};
use traffik_core::{
    Backend, BackendExt, CircuitBreaker, Failover, MemoryBackend, OnError, RedisBackend,
};

/// So often a breaker lets a request find out whether the store is back.
const PROBED_EVERY: Duration = Duration::from_millis(250);

fn main() {
    // Taken, and nobody listens: every connection is refused.
    let taken = TcpSocket::new_v4().expect("a socket");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    taken.bind(any).expect("a free port");
    let dead = url(taken.local_addr());
    // Connections are made, and nothing is ever answered, as by a server that hangs.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let hanging = url(listener.local_addr());

    let standings = race(&[
        limited("memory alone", MemoryBackend::new()),
        limited("Redis is dead", failover(&dead)),
        limited("dead, a share of four nodes", failover(&dead).nodes(4)),
        limited("Redis hangs", failover(&hanging)),
    ]);
    println!("\nto memory alone, median (min - max) of the ratios of each round");
    for outage in &standings[1..] {
        for (at, what) in [(2, "p50"), (3, "p99"), (4, "p50, alone"), (5, "p99, alone")] {
            let ratio = outage.ratio_to(&standings[0], at);
            println!("{:35} {what:12} {ratio:.2}", outage.name);
        }
    }
}

fn url(addr: io::Result<SocketAddr>) -> String {
    format!("redis://{}", addr.expect("it is bound"))
}

fn failover(url: &str) -> Failover<RedisBackend, MemoryBackend> {
    let breaker = CircuitBreaker::builder().recovery_timeout(PROBED_EVERY);
    let breaker = breaker.build().expect("valid");
    let redis = RedisBackend::at(url).expect("valid");
    redis.failover(MemoryBackend::new(), breaker)
}

fn limited(name: &'static str, backend: impl Backend) -> Server {
    // Never denies, and is the same for everybody.
    let throttle = HttpThrottle::builder("api")
        .rate("1000000000/hour")
        // Were there an error, it would show.
        .on_error(OnError::Raise)
        .build();
    let limits = ThrottleMiddleware::new(throttle.expect("valid")).backend(backend);
    serve!(name, move || App::new()
        .wrap(limits.clone())
        .route("/", web::get().to(async || "hello")))
}
