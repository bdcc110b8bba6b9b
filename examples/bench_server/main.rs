//! A server with every strategy and backend behind flags, for trying things from a shell and for
//! load tests.
//!
//! ```sh
//! cargo run --release --example bench_server -- --strategy token_bucket,burst=20 --rate 10/s
//! curl -i -H 'X-Client-ID: ann' -H 'X-Cost: 3' http://127.0.0.1:8080/test
//! curl -H 'X-Client-ID: ann' http://127.0.0.1:8080/stat
//! ```
//!
//! `--help` lists the flags. Clients name themselves with `X-Client-ID`, else they are their
//! address; `X-Cost`, `X-Tier`, `X-Priority`, `X-Region` and `X-Instance` say more about them. That is for
//! experiments: a real service decides these things itself.

mod flags;
mod identity;
mod options;
#[cfg(feature = "redis")]
mod redis;
mod refusal;
mod routes;
mod store;

use std::process::ExitCode;

use actix_web::web::ServiceConfig;
use actix_web::{App, HttpServer, web};
use traffik_actix::ThrottleMiddleware;

use crate::options::Options;
use crate::routes::Bench;

#[actix_web::main]
async fn main() -> ExitCode {
    let served = match Options::from_args() {
        Ok(Some(options)) => serve(options).await,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        eprintln!("bench_server: {error}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

async fn serve(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let (listen, addresses) = (options.listen.clone(), options.addresses.clone());
    let workers = options.workers;
    let bench = web::Data::new(Bench::new(options)?);

    let server = HttpServer::new(move || {
        App::new()
            .app_data(bench.clone())
            .route("/unthrottled", web::get().to(routes::ok))
            .route("/ws", web::get().to(routes::ws))
            .route("/stat", web::get().to(routes::stat))
            .route("/__bench__/reset", web::post().to(routes::reset))
            .route("/__bench__/leases", web::get().to(routes::leases))
            .route("/__bench__/health", web::get().to(routes::ok))
            .route("/__bench__/clock", web::post().to(routes::clock))
            .route("/__bench__/rate", web::post().to(routes::rate))
            .configure(|app| limited(app, &bench))
    })
    .workers(workers)
    .bind(&*addresses)
    .map_err(|error| format!("cannot listen at {listen}: {error}"))?;
    println!(
        "Try it: curl -i -H 'X-Client-ID: ann' http://{}/test",
        server.addrs()[0]
    );
    server.run().await?;
    Ok(())
}

/// What is limited: a route, or, with rules, those that they are for of all that is served.
fn limited(app: &mut ServiceConfig, bench: &Bench) {
    let mut rules = bench.rules.iter().cloned();
    let Some(first) = rules.next() else {
        let limits = ThrottleMiddleware::new(bench.throttle().clone());
        app.service(web::resource("/test").wrap(limits).get(routes::ok));
        return;
    };
    let limits = rules.fold(ThrottleMiddleware::new(first), ThrottleMiddleware::rule);
    app.default_service(web::route().to(routes::ok).wrap(limits));
}
