//! What Prometheus scrapes of a limited service, and who is denied most often.

use std::time::Duration;

use actix_web::{App, HttpServer, get, rt, web};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use traffik_actix::{ConcurrencyLimit, HttpThrottle};
use traffik_core::metrics;

/// In production on a port of its own, or behind credentials: it tells how much there is to do.
#[get("/metrics")]
async fn scrape(recorder: web::Data<PrometheusHandle>) -> String {
    recorder.run_upkeep();
    recorder.render()
}

/// Whoever was denied most, by digests, which tell nobody who it is.
#[get("/offenders")]
async fn offenders(api: web::Data<HttpThrottle>) -> String {
    let worst = api.offenders();
    let lines = worst.iter().take(10);
    lines
        .map(|one| format!("{} denials of {}\n", one.denials, one.digest()))
        .collect()
}

/// Takes its time.
async fn report() -> &'static str {
    rt::time::sleep(Duration::from_secs(2)).await;
    "numbers\n"
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before the first hit.
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Full("traffik_decision_seconds".into()),
            metrics::SECONDS_BUCKETS,
        )?
        .install_recorder()?;
    metrics::describe();
    let api = HttpThrottle::builder("api").rate("5/10s").build()?;
    let reports = ConcurrencyLimit::builder("reports").in_flight(1).build()?;

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(recorder.clone()))
            .app_data(web::Data::new(api.clone()))
            .service((scrape, offenders))
            .service(web::resource("/report").wrap(reports.clone()).get(report))
            .service(
                web::scope("/api")
                    .wrap(api.clone())
                    .route("/hello", web::get().to(async || "hello\n")),
            )
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!(
        "Try it: for i in 1 2 3 4 5 6 7; do curl http://{addr}/api/hello; done; curl http://{addr}/report & curl http://{addr}/report; curl http://{addr}/metrics"
    );
    println!("A dashboard for Grafana is in examples/metrics/dashboard.json");
    server.run().await?;
    Ok(())
}
