//! What clients see of limits: headers about what a handler decides itself, what is left before anything is spent,
//! and a denial that says more than "no".

use std::sync::LazyLock;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, get};
use traffik_actix::{Denial, HttpThrottle, RateLimitInfo, StatOf, ThrottleHeaders, ThrottleRule};

/// Three exports an hour.
struct Exports;

impl ThrottleRule for Exports {
    fn throttle() -> &'static HttpThrottle {
        static EXPORTS: LazyLock<HttpThrottle> = LazyLock::new(|| {
            let exports = HttpThrottle::builder("exports")
                .rate("3/hour")
                .strategy("sliding_window_log")
                .on_denied_async(say_more);
            exports.build().expect("a valid throttle")
        });
        &EXPORTS
    }
}

/// The usual response, and what would help.
async fn say_more(denial: &Denial<'_>) -> HttpResponse {
    let detail = match denial.stat().await {
        Ok(stat) => format!("{} exports an hour are free.", stat.limit),
        Err(_) => "Come back later.".to_owned(),
    };
    denial
        .problem()
        .detail(detail)
        .header(("link", "<https://example.com/plans>; rel=\"payment\""))
        .finish()
}

/// Empty exports are for free, which only the handler knows.
#[get("/export")]
async fn export(req: HttpRequest, limits: RateLimitInfo) -> actix_web::Result<String> {
    let rows = req.query_string().len();
    if rows > 0 {
        Exports::throttle().enforce(&req).await?;
    }
    let tightest = limits.most_restrictive();
    Ok(tightest.map_or_else(String::new, |one| {
        let (name, left) = (one.throttle.name(), one.decision.remaining());
        format!("{rows} rows; of all limits `{name}` is the tightest: {left} more\n")
    }))
}

/// What a page shows. To look costs nothing.
#[get("/left")]
async fn whats_left(exports: StatOf<Exports>) -> String {
    format!("{} of {} exports\n", exports.remaining, exports.limit)
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let all = HttpThrottle::builder("all").rate("1000/minute").build()?;

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        App::new()
            .service(export)
            .service(whats_left)
            .wrap(all.clone())
            // Last, so that it is outside: it knows what all others decide, and scripts see it.
            .wrap(ThrottleHeaders::new().expose())
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!(
        "Try it: for i in 1 2 3 4; do curl -i 'http://{addr}/export?0123456789'; done; curl http://{addr}/left"
    );
    server.run().await?;
    Ok(())
}
