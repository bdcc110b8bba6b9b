//! Five logins a minute per account, which only the body names, and twenty per address: one decision.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, post, web};
use serde::Deserialize;
use traffik_actix::{HttpThrottle, Identity};

#[derive(Clone)]
struct Logins {
    per_account: HttpThrottle,
    per_address: HttpThrottle,
}

#[derive(Deserialize)]
struct Login {
    account: String,
    password: String,
}

#[post("/login")]
async fn login(
    req: HttpRequest,
    logins: web::Data<Logins>,
    form: web::Form<Login>,
) -> actix_web::Result<HttpResponse> {
    // As the account is looked up: else every way to write its name has five tries of its own.
    let account = Identity::of(form.account.trim().to_lowercase());
    let asks = [
        logins.per_address.ask(),
        logins.per_account.ask().by(account),
    ];
    // Who is denied by one of them takes nothing of the other. An attack on an account keeps its owner
    // out as well: where that matters, let devices that were there before ask as themselves.
    HttpThrottle::enforce_all(&req, asks).await?;

    // In a real service, the hash of it.
    Ok(match form.password == "correct horse" {
        true => HttpResponse::Ok().body("welcome\n"),
        false => HttpResponse::Unauthorized().body("wrong account or password\n"),
    })
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let logins = Logins {
        per_account: HttpThrottle::builder("account").rate("5/minute").build()?,
        per_address: HttpThrottle::builder("address").rate("20/minute").build()?,
    };

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(logins.clone()))
            // Read before anything is known of the account, so let it be small.
            .app_data(web::FormConfig::default().limit(1024))
            .service(login)
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!(
        "Try it: for i in 1 2 3 4 5 6; do curl -i -d 'account=ann&password=a' http://{addr}/login; done"
    );
    server.run().await?;
    Ok(())
}
