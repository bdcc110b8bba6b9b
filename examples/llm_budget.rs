//! A proxy before a language model: each user has a budget of tokens. A request reserves what it may
//! come to, the answer is metered while it streams, and in the end what was used is settled.

use std::pin::Pin;
use std::time::Duration;

use actix_web::error::ErrorUnauthorized;
use actix_web::rt::time::sleep;
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, Responder, get, post, web};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use traffik_actix::{Flow, HttpThrottle, Identity, Permit};

/// An answer stops for so long at most. Who has to wait longer gets what there is.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Options {
    #[serde(default = "usual")]
    max_tokens: u32,
}

fn usual() -> u32 {
    200
}

#[post("/chat")]
async fn chat(
    req: HttpRequest,
    budget: web::Data<HttpThrottle>,
    options: web::Query<Options>,
    prompt: String,
) -> actix_web::Result<HttpResponse> {
    let asked = tokens(&prompt);
    // A 429 if the budget has no room for it.
    let estimate = asked.saturating_add(options.max_tokens);
    let mut permit = budget.reserve(&req, estimate).await?;
    let _ = permit.meter(asked).await;
    Ok(HttpResponse::Ok()
        .content_type("text/plain")
        .streaming(metered(model(prompt), permit)))
}

#[get("/budget")]
async fn left(
    req: HttpRequest,
    budget: web::Data<HttpThrottle>,
) -> actix_web::Result<impl Responder> {
    Ok(format!("{}\n", budget.stat(&req).await?.remaining))
}

type Model = Pin<Box<dyn Stream<Item = String>>>;

/// Says everything twice.
fn model(prompt: String) -> Model {
    let words: Vec<_> = prompt
        .split_whitespace()
        .map(|word| format!("{word} "))
        .collect();
    Box::pin(stream::iter(words).then(async |word| {
        sleep(Duration::from_millis(1)).await;
        word
    }))
}

/// In a real service, the model's own tokenizer.
fn tokens(text: &str) -> u32 {
    u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX)
}

/// An answer, as far as there is budget for it. If the client goes away the stream is dropped, and the permit
/// with it: that has cost the estimate.
fn metered(model: Model, permit: Permit) -> impl Stream<Item = Result<web::Bytes, Error>> {
    stream::unfold(Some((model, permit)), async |state| {
        let (mut model, mut permit) = state?;
        let Some(token) = model.next().await else {
            finish(permit).await;
            return None;
        };
        match permit.meter(tokens(&token)).await {
            Ok(Flow::Go) => {}
            Ok(Flow::Pause(wait)) if wait <= PATIENCE => sleep(wait).await,
            Ok(Flow::Pause(_) | Flow::Stop) => {
                finish(permit).await;
                return Some((Ok("[budget exhausted]".into()), None));
            }
            // It is settled in the end nevertheless.
            Err(error) => eprintln!("the budget cannot be checked: {error}"),
        }
        Some((Ok(token.into()), Some((model, permit))))
    })
}

async fn finish(permit: Permit) {
    if let Err(error) = permit.finish().await {
        eprintln!("a settlement is late: {error}");
    }
}

/// In a real service, whom the token says.
fn user(req: &HttpRequest) -> Result<Identity, Error> {
    let user = req.headers().get("x-user");
    user.and_then(|user| Some(Identity::of(user.to_str().ok()?)))
        .ok_or_else(|| ErrorUnauthorized("say who you are: x-user"))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A window gives back until it ends; a bucket would only what cannot have come back by itself.
    let budget = HttpThrottle::builder("tokens")
        .rate("1000/day")
        .identify(user)
        .build()?;

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(budget.clone()))
            .service(chat)
            .service(left)
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!(
        "Try it: curl -H 'x-user: ann' -d 'how are you' http://{addr}/chat; curl -H 'x-user: ann' http://{addr}/budget"
    );
    server.run().await?;
    Ok(())
}
