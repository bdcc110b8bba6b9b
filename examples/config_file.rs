//! Limits from a file, which change when it does, without a restart.
//!
//! ```sh
//! cargo run --example config_file
//! curl -i -X POST -H 'authorization: Bearer bob' http://127.0.0.1:8080/orders   # the third in a minute is denied
//! sed -i 's|"2/minute"|"4/minute"|' examples/limits.toml                        # two more are admitted
//! cargo run -p traffik-cli -- explain examples/limits.toml POST /orders
//! ```
//!
//! What is tried in `examples/limits.next.toml` denies nobody; `curl http://127.0.0.1:8080/tried` tells what it would have done.

use std::time::Duration;

use actix_web::error::ErrorUnauthorized;
use actix_web::{App, HttpRequest, HttpServer, web};
use traffik_actix::{Identity, LimitsFile};

/// Who a token is for, and their plan. A real service verifies its signature.
fn claims(req: &HttpRequest) -> Option<(&str, &str)> {
    let token = req.headers().get("authorization")?.to_str().ok()?;
    match token.strip_prefix("Bearer ")? {
        "ann" => Some(("ann", "gold")),
        "bob" => Some(("bob", "free")),
        _ => None,
    }
}

fn account(req: &HttpRequest) -> actix_web::Result<Identity> {
    let (account, _) = claims(req).ok_or_else(|| ErrorUnauthorized("a token is missing"))?;
    Ok(Identity::of(format_args!("account:{account}")))
}

fn plan(req: &HttpRequest) -> Option<String> {
    Some(claims(req)?.1.to_owned())
}

async fn tried(file: web::Data<LimitsFile>) -> String {
    let tried = file.tried();
    tried.iter().map(|one| format!("{one}\n")).collect()
}

/// What a file that has changed means, or why it means nothing.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("traffik") {
            eprintln!("{}: {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log::set_logger(&Stderr).map_err(|error| error.to_string())?;
    log::set_max_level(log::LevelFilter::Info);
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or("127.0.0.1:8080".into());
    let of_the_example = concat!(env!("CARGO_MANIFEST_DIR"), "/limits.toml");
    let path = args.next().unwrap_or(of_the_example.into());
    // Once, outside the closure below, which runs once per worker.
    let file = LimitsFile::at(&path)
        .try_beside(path.replace(".toml", ".next.toml"))
        .identity("account", account)
        .tier("plan", plan)
        .load()?;
    file.watch(Duration::from_secs(1));

    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(file.clone()))
            .wrap(file.middleware())
            .route("/orders", web::post().to(async || "ordered\n"))
            .route("/tried", web::get().to(tried))
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: curl -i -X POST -H 'authorization: Bearer bob' http://{addr}/orders");
    println!("        then change {path}");
    server.run().await?;
    Ok(())
}
