//! Limits on the messages of a WebSocket, per client, however many tabs it opens.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, get, web};
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::{HttpThrottle, WsRule, WsThrottle, throttle};

/// Sends back what it is sent. Opening a connection is a request and is limited like any other.
#[get("/ws")]
#[throttle(rate = "20/minute")]
async fn echo(
    req: HttpRequest,
    body: web::Payload,
    limits: web::Data<WsThrottle>,
) -> actix_web::Result<HttpResponse> {
    let (response, mut session, mut messages) = limits.handle(&req, body).await?;
    actix_web::rt::spawn(async move {
        // Only what the limits admit arrives here.
        while let Some(Ok(message)) = messages.recv().await {
            let answered = match message {
                AggregatedMessage::Text(text) => session.text(text).await,
                AggregatedMessage::Binary(bytes) => session.binary(bytes).await,
                AggregatedMessage::Ping(bytes) => session.pong(&bytes).await,
                AggregatedMessage::Pong(_) => Ok(()),
                AggregatedMessage::Close(reason) => return session.close(reason).await,
            };
            answered?; // the client is gone
        }
        session.close(None).await
    });
    Ok(response)
}

#[get("/")]
async fn page() -> HttpResponse {
    HttpResponse::Ok().content_type("text/html").body(
        r#"<title>traffik</title><input autofocus placeholder="hold Enter"><pre></pre><script>
const log = line => document.querySelector("pre").prepend(line + "\n")
const socket = new WebSocket("ws://" + location.host + "/ws")
socket.onmessage = message => log(message.data)
socket.onclose = close => log("closed: " + close.code + " " + close.reason)
onkeydown = key => key.key == "Enter" && socket.send(document.querySelector("input").value || "hi")
</script>"#,
    )
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Five messages at once, then two per second; and a megabyte per minute. A message passes if both
    // limits admit it, and is charged by both or none.
    let messages = HttpThrottle::builder("messages")
        .rate("2/second")
        .strategy(traffik_actix::strategy::TokenBucket::new().burst(5))
        .build()?;
    let bytes = HttpThrottle::builder("bytes")
        .rate("1000000/minute")
        .build()?;
    // What is too much is dropped, and the client told. Who does not listen is shown the door.
    let limits = WsThrottle::new(messages)
        .rule(WsRule::new(bytes).per_byte())
        .close_after(50);
    let limits = web::Data::new(limits);

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(limits.clone())
            .service(page)
            .service(echo)
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: open http://{addr}/ in two tabs, and hold Enter");
    server.run().await?;
    Ok(())
}
