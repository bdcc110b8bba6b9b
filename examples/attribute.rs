//! Limits where the handlers are.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Responder, get, post, web};
use traffik_actix::{ClientIp, HttpThrottle, Identity, throttle};

/// One report every six seconds, and the first may come at once.
#[get("/reports")]
#[throttle(rate = "10/minute", strategy = "gcra")]
async fn reports() -> &'static str {
    "numbers\n"
}

/// Two limits, one decision: a denial by one costs nothing of the other. The body of a denied
/// request is never read.
#[post("/orders")]
#[throttle(rate = "2/second", strategy = "token_bucket", burst = 5)]
#[throttle(rate = "100/day", identify = customer, cost = 10)]
async fn order(order: web::Json<Vec<u32>>) -> impl Responder {
    HttpResponse::Created().json(order.len())
}

/// In a real service the customer is checked first: whoever may invent identities is not limited.
fn customer(req: &HttpRequest) -> Identity {
    match req
        .headers()
        .get("x-customer")
        .and_then(|name| name.to_str().ok())
    {
        Some(name) => Identity::of(format_args!("customer:{name}")),
        None => ClientIp::peer().identity(req),
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Of each client; `.shared()` would make it one for all.
    let all = HttpThrottle::builder("all").rate("1000/hour").build()?;

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server =
        HttpServer::new(move || App::new().wrap(all.clone()).service(reports).service(order))
            .bind(&addr)
            .map_err(|error| {
                format!("cannot listen at {addr}, give another address:port: {error}")
            })?;
    let addr = server.addrs()[0];
    println!("Try it: curl -i http://{addr}/reports");
    println!("        curl -i -d '[1,2]' -H 'content-type: application/json' http://{addr}/orders");
    server.run().await?;
    Ok(())
}
