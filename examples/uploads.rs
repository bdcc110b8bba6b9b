//! Uploads by size: each client may send so many megabytes an hour, in files of any number.

use actix_web::error::ErrorLengthRequired;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, post, web};
use traffik_actix::{Denial, throttle};

const MEGABYTE: usize = 1 << 20;

/// By the size that the client announces, which is all that actix-web reads then. Who announces none is
/// answered 411: a body in chunks would cost nothing.
fn megabytes(req: &HttpRequest) -> actix_web::Result<u32> {
    let length = req.headers().get("content-length");
    let bytes: Option<usize> = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let bytes = bytes.ok_or_else(|| ErrorLengthRequired("say how long the file is\n"))?;
    Ok(u32::try_from(bytes.div_ceil(MEGABYTE)).unwrap_or(u32::MAX))
}

/// What can never pass is too large, not too early.
fn refuse(denial: &Denial<'_>) -> HttpResponse {
    match denial.retry_after() {
        Some(_) => denial.default_response(),
        None => HttpResponse::PayloadTooLarge().body("a file may have 20 MB\n"),
    }
}

/// Twenty megabytes an hour. It is decided before the body is read.
#[post("/files")]
#[throttle("20/hour", strategy = "token_bucket", cost_by = megabytes, on_denied = refuse)]
async fn upload(file: web::Bytes) -> String {
    format!("{} bytes\n", file.len())
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(|| {
        App::new()
            .app_data(web::PayloadConfig::new(20 * MEGABYTE))
            .service(upload)
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: head -c 8000000 /dev/zero > file");
    println!("        for i in 1 2 3; do curl -i --data-binary @file http://{addr}/files; done");
    server.run().await?;
    Ok(())
}
