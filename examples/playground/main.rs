//! A page to try strategies: choose a rate, traffic and strategies, and see what is admitted; and what
//! several nodes admit, with leases or without, while their store is away. All of it is decided by the library, on a clock that is
//! moved by hand. The page asks over a WebSocket whose messages are limited themselves.

mod leases;
mod nodes;
mod outage;
mod remote;
mod strategies;
mod traffic;

use actix_web::http::header::ContentType;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, get, web};
use serde::Deserialize;
use serde_json::{Value, json};
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::strategy::TokenBucket;
use traffik_actix::{HttpThrottle, WsThrottle, throttle};

/// What the page asks.
#[derive(Deserialize)]
#[serde(tag = "view", rename_all = "lowercase")]
enum Question {
    Strategies(strategies::Question),
    Outage(outage::Question),
}

/// On a thread without a runtime: there nodes probe and pay with their requests, at the time of the trial,
/// and not in tasks that have their own. Those of leases have the time of the trial.
async fn think(text: String) -> Value {
    let thinking = web::block(|| std::thread::spawn(move || answer(&text)).join());
    match thinking.await {
        Ok(Ok(answer)) => answer,
        _ => json!({ "error": "the trial failed" }),
    }
}

/// Whatever is asked is answered, if only by what is wrong with it.
fn answer(text: &str) -> Value {
    let (view, answered) = match serde_json::from_str(text) {
        Ok(Question::Strategies(question)) => ("strategies", question.answer()),
        Ok(Question::Outage(question)) => ("outage", question.answer()),
        Err(error) => return json!({ "error": error.to_string() }),
    };
    answered.unwrap_or_else(|error| json!({ "view": view, "error": error }))
}

#[get("/ws")]
#[throttle(rate = "30/minute")]
async fn ask(
    req: HttpRequest,
    body: web::Payload,
    limits: web::Data<WsThrottle>,
) -> actix_web::Result<HttpResponse> {
    let (response, mut session, mut messages) = limits.handle(&req, body).await?;
    actix_web::rt::spawn(async move {
        while let Some(Ok(message)) = messages.recv().await {
            let answered = match message {
                AggregatedMessage::Text(text) => {
                    session
                        .text(think(text.to_string()).await.to_string())
                        .await
                }
                AggregatedMessage::Ping(bytes) => session.pong(&bytes).await,
                AggregatedMessage::Close(reason) => return session.close(reason).await,
                _ => Ok(()),
            };
            answered?; // the client is gone
        }
        session.close(None).await
    });
    Ok(response)
}

#[get("/")]
async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type(ContentType::html())
        .body(include_str!("page.html"))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let questions = HttpThrottle::builder("questions")
        .rate("5/second")
        .strategy(TokenBucket::new().burst(10))
        .build()?;
    let limits = web::Data::new(WsThrottle::new(questions).max_message_size(4096));

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(limits.clone())
            .service(page)
            .service(ask)
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: open http://{addr}/");
    server.run().await?;
    Ok(())
}
