//! A server whose limits are in a file: they survive restarts, and processes share them.

use std::time::Duration;

use actix_web::{App, HttpServer, web};
use custom_store::Sqlite;
use traffik_actix::{HttpThrottle, ThrottleMiddleware};
use traffik_core::Locked;

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or("127.0.0.1:8080".into());
    let path = args.next().unwrap_or("limits.sqlite".into());

    let store = Sqlite::open(&path).map_err(|error| format!("cannot open {path}: {error}"))?;
    let sweeper = store.clone();
    actix_web::rt::spawn(async move {
        // Without it the file grows with every client that was ever seen.
        loop {
            actix_web::rt::time::sleep(Duration::from_secs(60)).await;
            if let Err(error) = sweeper.sweep().await {
                eprintln!("the file is not swept: {error}");
            }
        }
    });
    let backend = Locked::builder(store).persistent(true).build()?;
    let api = HttpThrottle::builder("api")
        .rate("5/minute")
        .backend(backend)
        .build()?;

    let server = HttpServer::new(move || {
        App::new()
            .wrap(ThrottleMiddleware::new(api.clone()))
            .route("/", web::get().to(async || "hello\n"))
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: for i in 1 2 3 4 5 6; do curl -i http://{addr}/; echo; done");
    server.run().await?;
    Ok(())
}
