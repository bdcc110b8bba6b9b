//! The monthly quota of an API's plan, which starts anew with each month of the calendar.

use actix_web::error::ErrorUnauthorized;
use actix_web::{App, HttpRequest, HttpServer, Result, web};
use traffik_actix::strategy::CalendarWindow;
use traffik_actix::{HttpThrottle, Identity, ThrottleMiddleware};

/// In a real service, a table that is kept in memory.
fn customer(req: &HttpRequest) -> Result<Identity> {
    match req.headers().get("x-api-key").map(|key| key.as_bytes()) {
        Some(b"key-of-ann") => Ok(Identity::of("customer:ann")),
        Some(b"key-of-ben") => Ok(Identity::of("customer:ben")),
        _ => Err(ErrorUnauthorized(
            "an API key is missing, or nobody has it\n",
        )),
    }
}

/// For a page about the plan. It costs nothing.
async fn quota(req: HttpRequest, month: web::Data<HttpThrottle>) -> Result<String> {
    let stat = month.stat(&req).await?;
    let days = stat.reset.as_secs() / (24 * 60 * 60);
    Ok(format!(
        "{} of {} left, for {days} days\n",
        stat.remaining, stat.limit
    ))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // From the first to the last of the month in New York's winter time. With the feature `time-zone`,
    // `.zone("America/New_York")` knows summer as well, and `.month_starts_on(15)` is for invoices of the 15th.
    let month = HttpThrottle::builder("month")
        .rate("100/month")
        .strategy(CalendarWindow::new().timezone_offset(-5))
        .identify(customer)
        .build()?;

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        let asked = web::scope("/quota").route("", web::get().to(quota));
        let limited = web::scope("")
            .wrap(ThrottleMiddleware::new(month.clone()))
            .route("/", web::get().to(async || "hello\n"));
        App::new()
            .app_data(web::Data::new(month.clone()))
            .service(asked)
            .service(limited)
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: curl -i -H 'x-api-key: key-of-ann' http://{addr}/");
    println!("        curl -H 'x-api-key: key-of-ann' http://{addr}/quota");
    server.run().await?;
    Ok(())
}
