//! Several tenants in one service: each has counts of its own, so that none takes from another, and an
//! answer of its own for those who are denied.

use actix_web::error::ErrorNotFound;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, get, web};
use traffik_actix::{MemoryBackend, Tenants, ThrottleBackend, throttle};

#[get("/hello")]
#[throttle("3/minute")]
async fn hello() -> &'static str {
    "hello\n"
}

/// Asked once for each tenant that has requests. In a real service they share a Redis, where each has a namespace:
/// `RedisBackend::builder(REDIS).namespace(name).build()`; or each has one of its own.
fn open(name: &str) -> actix_web::Result<ThrottleBackend> {
    if !["north", "south"].contains(&name) {
        return Err(ErrorNotFound("nobody is here by this name\n"));
    }
    let (backend, name) = (ThrottleBackend::new(MemoryBackend::new()), name.to_owned());
    Ok(backend.on_denied(move |_| {
        HttpResponse::TooManyRequests().body(format!("too fast, says {name}\n"))
    }))
}

fn tenant(req: &HttpRequest) -> String {
    req.match_info().get("tenant").unwrap_or_default().into()
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tenants = Tenants::new(open).max(100);

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        let scope = web::scope("/{tenant}").wrap(tenants.by(tenant));
        App::new().service(scope.service(hello))
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: for i in 1 2 3 4; do curl -i http://{addr}/north/hello; done");
    println!("        curl -i http://{addr}/south/hello");
    server.run().await?;
    Ok(())
}
