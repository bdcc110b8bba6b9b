//! Limits on what one sends: events become webhooks, of which each receiver takes five a second and no
//! bursts. They wait for their turn instead of being denied, in the order in which they came.

use std::io;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpResponse, HttpServer, post, web};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use traffik_actix::{HttpThrottle, Identity, ThrottleBackend};

#[derive(Clone)]
struct Webhooks {
    outgoing: HttpThrottle,
    /// From the configuration: who may name a receiver lets this server send to whatever it reaches.
    receivers: Vec<String>,
}

impl Webhooks {
    /// Waits for the receiver's turn, and sends. On a Redis all servers would take turns.
    async fn send(&self, receiver: &str, event: &[u8]) {
        let who = Identity::of(receiver);
        let turn = self.outgoing.by(&who).on(ThrottleBackend::global());
        let sent = match turn.hit().await {
            Ok(decision) if decision.is_allowed() => deliver(receiver, event).await,
            Ok(_) => Err(io::Error::other("too many wait already")),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = sent {
            eprintln!("an event for {receiver} was not delivered: {error}");
        }
    }
}

/// In a real service, by an HTTP client, over TLS, and signed.
async fn deliver(receiver: &str, event: &[u8]) -> io::Result<()> {
    let mut socket = TcpStream::connect(receiver).await?;
    let length = event.len();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {receiver}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    socket.write_all(&[head.as_bytes(), event].concat()).await?;
    let mut answer = Vec::new();
    socket.take(1024).read_to_end(&mut answer).await?;
    match answer.starts_with(b"HTTP/1.1 2") {
        true => Ok(()),
        false => Err(io::Error::other("the receiver refused it")),
    }
}

#[post("/events")]
async fn publish(webhooks: web::Data<Webhooks>, event: web::Bytes) -> HttpResponse {
    for receiver in webhooks.receivers.clone() {
        let (webhooks, event) = (webhooks.clone(), event.clone());
        actix_web::rt::spawn(async move { webhooks.send(&receiver, &event).await });
    }
    HttpResponse::Accepted().finish()
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let outgoing = HttpThrottle::builder("webhooks")
        .rate("5/second")
        .strategy("gcra")
        .wait_up_to(Duration::from_secs(60))
        .max_waiters_per_client(250) // a receiver that many events are for takes no other's place
        .build()?;
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let receivers: Vec<_> = std::env::args().skip(2).collect();
    let webhooks = web::Data::new(Webhooks {
        outgoing,
        receivers,
    });

    let server = HttpServer::new(move || App::new().app_data(webhooks.clone()).service(publish))
        .bind(&addr)
        .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: curl -i -d 'ann has paid' http://{addr}/events");
    println!("        with receivers as further arguments: 127.0.0.1:0 10.0.0.7:80");
    server.run().await?;
    Ok(())
}
