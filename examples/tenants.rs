//! Several tenants in one service: each has counts of its own, so that none takes from another, and an
//! answer of its own for those who are denied.

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::ErrorNotFound;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpMessage, HttpResponse, HttpServer, get, web};
use traffik_actix::{MemoryBackend, ThrottleBackend, throttle};

/// In a real service they share a Redis, and each has a namespace there.
type Tenants = Arc<HashMap<&'static str, ThrottleBackend>>;

fn tenant(name: &'static str) -> (&'static str, ThrottleBackend) {
    let memory = MemoryBackend::builder().max_keys(100_000).build();
    let backend = ThrottleBackend::new(memory.expect("a valid size"));
    let backend = backend.on_denied(move |_| {
        HttpResponse::TooManyRequests().body(format!("too fast, says {name}\n"))
    });
    (name, backend)
}

/// Every limit further in counts where this says. Only tenants that are known have a backend.
async fn choose(
    req: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let tenants = req.app_data::<web::Data<Tenants>>();
    let name = req.match_info().get("tenant");
    let found = tenants
        .zip(name)
        .and_then(|(all, name)| all.get(name).cloned());
    let backend = found.ok_or_else(|| ErrorNotFound("nobody is here by this name\n"))?;
    req.extensions_mut().insert(backend);
    next.call(req).await
}

#[get("/hello")]
#[throttle("3/minute")]
async fn hello() -> &'static str {
    "hello\n"
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tenants: Tenants = Arc::new([tenant("north"), tenant("south")].into());

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(tenants.clone()))
            .service(web::scope("/{tenant}").wrap(from_fn(choose)).service(hello))
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: for i in 1 2 3 4; do curl -i http://{addr}/north/hello; done");
    println!("        curl -i http://{addr}/south/hello");
    server.run().await?;
    Ok(())
}
