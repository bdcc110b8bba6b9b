//! Levels: a user, their organisation, everybody. One rule and one decision, whose denial names the level.

use actix_web::{App, HttpRequest, HttpServer, get};
use traffik_actix::{HttpThrottle, Identity, Rule, ThrottleMiddleware};

/// Who has which key, and belongs to which organisation.
const KEYS: &[(&str, &str, Option<&str>)] = &[
    ("key-of-ann", "ann", Some("acme")),
    ("key-of-ben", "ben", Some("acme")),
    ("key-of-cid", "cid", Some("bond")),
    ("key-of-dan", "dan", None),
];

fn member(req: &HttpRequest) -> Option<(&'static str, Option<&'static str>)> {
    let key = req.headers().get("x-api-key")?.to_str().ok()?;
    let found = KEYS.iter().find(|(known, ..)| *known == key);
    found.map(|(_, user, organisation)| (*user, *organisation))
}

fn user(req: &HttpRequest) -> Identity {
    let user = member(req).map(|(user, _)| user);
    user.map_or(Identity::ANONYMOUS, Identity::of)
}

/// Who is of none is limited by the other levels alone.
fn organisation(req: &HttpRequest) -> Identity {
    let organisation = member(req).and_then(|(_, organisation)| organisation);
    organisation.map_or(Identity::EXEMPT, Identity::of)
}

#[get("/")]
async fn hello() -> &'static str {
    "hello\n"
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let each = HttpThrottle::builder("user").rate("3/hour").identify(user);
    let together = HttpThrottle::builder("organisation")
        .rate("5/hour")
        .identify(organisation);
    let all = HttpThrottle::builder("everybody").rate("8/hour").shared();
    // The narrowest first. On a Redis it is one round trip.
    let levels = Rule::new(each.build()?)
        .and(together.build()?)
        .and(all.build()?);
    let limits = ThrottleMiddleware::new(levels);

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || App::new().wrap(limits.clone()).service(hello))
        .bind(&addr)
        .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!(
        "Try it: for who in ann ann ann ann ben ben ben cid; do curl -i -H \"x-api-key: key-of-$who\" http://{addr}/; done"
    );
    server.run().await?;
    Ok(())
}
