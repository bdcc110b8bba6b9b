//! Five failed logins a minute for each address; those that succeed do not count.

use actix_web::{App, HttpResponse, HttpServer, post, web};
use serde::Deserialize;
use traffik_actix::throttle;

#[derive(Deserialize)]
struct Login {
    account: String,
    password: String,
}

// Counted while it is under way, so that fifty guesses at once are five. A success gives back what it
// took itself, and no more.
#[post("/login")]
#[throttle("5/minute", refund_if = |answered| answered.status().is_success())]
async fn login(form: web::Form<Login>) -> HttpResponse {
    // In a real service, the hash of it.
    match (&*form.account, &*form.password) {
        ("ann", "correct horse") => HttpResponse::Ok().body("welcome\n"),
        _ => HttpResponse::Unauthorized().body("wrong account or password\n"),
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(|| App::new().service(login))
        .bind(&addr)
        .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!(
        "Try it: for i in 1 2 3 4 5 6; do curl -i -d 'account=ann&password=a' http://{addr}/login; done"
    );
    server.run().await?;
    Ok(())
}
