//! API keys and plans: who has a key gets what its plan allows, everybody else a little, by address.

use actix_web::error::ErrorUnauthorized;
use actix_web::{App, HttpRequest, HttpServer, web};
use traffik_actix::strategy::TieredRate;
use traffik_actix::{ClientIp, HttpThrottle, Identity};

/// In a real service, a table that is kept in memory.
fn plan_of(key: &str) -> Option<&'static str> {
    match key {
        "key-of-ann" => Some("premium"),
        "key-of-ben" => Some("free"),
        _ => None,
    }
}

/// A key that nobody has is refused: were it counted, every invented one would bring a fresh count.
fn customer(req: &HttpRequest) -> actix_web::Result<Identity> {
    let Some(key) = req.headers().get("x-api-key") else {
        return Ok(ClientIp::peer().identity(req)); // of no plan
    };
    let known = key.to_str().ok().and_then(|key| Some((key, plan_of(key)?)));
    let (key, plan) = known.ok_or_else(|| ErrorUnauthorized("nobody has this key\n"))?;
    Ok(Identity::of(format_args!("key:{key}")).tier(plan))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Twenty a minute times what the plan is worth: five without a key, 20, or 100.
    let plans = TieredRate::new()
        .tiers([("none", 0.25), ("free", 1.0), ("premium", 5.0)])
        .default_tier("none");
    let api = HttpThrottle::builder("api")
        .rate("20/minute")
        .strategy(plans)
        .identify(customer)
        .build()?;
    // A request with a wrong key is charged to nobody by the limit above. So guesses have one of their own.
    let address = HttpThrottle::builder("address")
        .rate("300/minute")
        .build()?;

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        App::new()
            .wrap(api.clone())
            .wrap(address.clone()) // further out: asked first
            .route("/", web::get().to(async || "hello\n"))
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: curl -i http://{addr}/");
    println!("        curl -i -H 'x-api-key: key-of-ann' http://{addr}/");
    server.run().await?;
    Ok(())
}
