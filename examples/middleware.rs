//! Global rules by method and path, an API key as identity, and a response of one's own.

use actix_web::http::Method;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use traffik_actix::strategy::{Gcra, TokenBucket};
use traffik_actix::{
    ClientIp, HttpThrottle, Identity, MemoryBackend, Rule, ThrottleBackend, ThrottleMiddleware,
};

/// Who has a key is known by it; everybody else by their address. In a real service the key is
/// checked first: whoever may invent identities is not limited.
fn identify(req: &HttpRequest) -> Identity {
    match req
        .headers()
        .get("x-api-key")
        .and_then(|key| key.to_str().ok())
    {
        Some("secret-of-the-boss") => Identity::EXEMPT,
        Some(key) => Identity::of(format_args!("key:{key}")),
        None => ClientIp::peer().identity(req),
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Built once, outside the closure below, which runs once per worker.
    let backend = ThrottleBackend::new(MemoryBackend::new())
        .identify(identify)
        .on_denied(|denial| {
            let name = denial.throttle.name();
            let mut response = denial.default_response();
            response.headers_mut().insert(
                actix_web::http::header::HeaderName::from_static("x-denied-by"),
                name.parse().expect("names are printable ASCII"),
            );
            response
        });

    let all = HttpThrottle::builder("all")
        .rate("100/minute")
        .strategy(TokenBucket::new().burst(20))
        .build()?;
    let writes = HttpThrottle::builder("writes")
        .rate("60/minute")
        .strategy(Gcra::new())
        .build()?;

    let limits = ThrottleMiddleware::new(all)
        .rule(
            Rule::new(writes)
                .methods([Method::POST, Method::PUT])
                .path("/notes")?,
        )
        .backend(backend);

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        App::new()
            .wrap(limits.clone())
            .route("/notes", web::get().to(async || "[]\n"))
            .route(
                "/notes",
                web::post().to(async || HttpResponse::Created().finish()),
            )
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: curl -i http://{addr}/notes");
    println!("        curl -i -X POST http://{addr}/notes    (once a second)");
    server.run().await?;
    Ok(())
}
