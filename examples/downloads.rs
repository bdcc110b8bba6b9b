//! Two downloads at a time for each client, a hundred for the server, however long each of them takes. With the
//! feature `redis` and a `REDIS_URL`, two for each client over all servers.

use std::time::Duration;

use actix_web::rt::time::sleep;
use actix_web::web::Bytes;
use actix_web::{App, Error, HttpResponse, HttpServer, web};
use futures_util::{StreamExt, stream};
use traffik_actix::ConcurrencyLimit;

// In flight until the last byte is sent, or the client is gone. A third is answered 429.
async fn download() -> HttpResponse {
    let lines = stream::iter(0..30).then(async |n| {
        sleep(Duration::from_millis(100)).await;
        Ok::<_, Error>(Bytes::from(format!("line {n}\n")))
    });
    HttpResponse::Ok().streaming(lines)
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let each = ConcurrencyLimit::builder("downloads")
        .in_flight(2)
        .retry_after(Duration::from_secs(5));
    // Over all servers: `cargo run --example downloads --features redis`.
    #[cfg(feature = "redis")]
    let each = match std::env::var("REDIS_URL") {
        Ok(url) => each.backend(traffik_actix::RedisBackend::at(&url)?),
        Err(_) => each,
    };
    let each = each.build()?;
    // What is too much for the server waits for a moment, in order, and is answered 503 then.
    let server = ConcurrencyLimit::builder("server")
        .in_flight(100)
        .shared()
        .wait_up_to(Duration::from_secs(1))
        .build()?;

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let app = move || {
        let download = web::get().to(download);
        let downloads = web::resource("/download")
            .route(download)
            .wrap(each.clone());
        App::new().wrap(server.clone()).service(downloads)
    };
    let server = HttpServer::new(app)
        .bind(&addr)
        .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: for i in 1 2 3; do curl -i http://{addr}/download & done; wait");
    server.run().await?;
    Ok(())
}
