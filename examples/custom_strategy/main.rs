//! A strategy of one's own: three requests, then none until five seconds after the last of them. It runs on every backend.

mod quiet_period;

use actix_web::{App, HttpServer, web};
use traffik_actix::{HttpThrottle, ThrottleMiddleware};

use self::quiet_period::QuietPeriod;

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let login = HttpThrottle::builder("login")
        .rate("3/5s")
        .strategy(QuietPeriod)
        .build()?;

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        App::new()
            .wrap(ThrottleMiddleware::new(login.clone()))
            .route("/", web::get().to(async || "hello\n"))
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: for i in 1 2 3 4 5 6; do curl -i http://{addr}/; echo; done");
    server.run().await?;
    Ok(())
}
