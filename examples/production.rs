//! For production: one backend for all workers and servers, which stays up when Redis does not.
//!
//! ```sh
//! REDIS_URL=redis://127.0.0.1:6379 cargo run --example production --features redis
//! ```

use actix_web::{App, HttpRequest, HttpServer, get, web};
use traffik_actix::{
    BackendExt, CircuitBreaker, ClientIp, HttpThrottle, MemoryBackend, RedisBackend,
    ThrottleBackend, throttle,
};

#[get("/reports")]
#[throttle(rate = "10/minute", strategy = "gcra")]
async fn reports() -> &'static str {
    "numbers\n"
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let all = HttpThrottle::builder("all").rate("1000/hour").build()?;
    let url = std::env::var("REDIS_URL").unwrap_or("redis://10.0.0.5".into());
    let redis = RedisBackend::builder(&url).namespace("shop").build()?; // connects when needed
    let shared = redis
        .failover(MemoryBackend::new(), CircuitBreaker::new())
        .nodes(3); // while Redis is away, each of three servers gives a third
    let client_ip = ClientIp::peer().trust(["10.0.0.0/8"])?; // our load balancers
    let backend =
        ThrottleBackend::new(shared).identify(move |req: &HttpRequest| client_ip.identity(req));

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(backend.clone())) // for all limits below
            .wrap(all.clone())
            .service(reports)
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: curl -i http://{addr}/reports");
    server.run().await?;
    Ok(())
}
