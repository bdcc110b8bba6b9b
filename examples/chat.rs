//! A chat: each client may say so much, over all its tabs, and sees what is left of that.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, get, web};
use futures_util::future::{Either, select};
use serde_json::json;
use tokio::sync::broadcast;
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::strategy::TokenBucket;
use traffik_actix::{
    HttpThrottle, OnSpent, ThrottledMessages, ThrottledSession, WsRule, WsThrottle, throttle,
};

/// Why a connection ends.
type Gone = Box<dyn std::error::Error>;

/// A message is this long at most.
const LONGEST: usize = 500;

#[derive(Clone)]
struct Chat {
    messages: HttpThrottle,
    /// Of what is said, and of what each is sent.
    limits: WsThrottle,
    /// What is said, to everybody.
    said: broadcast::Sender<String>,
}

#[get("/ws")]
#[throttle(rate = "20/minute")]
async fn join(
    req: HttpRequest,
    body: web::Payload,
    chat: web::Data<Chat>,
) -> actix_web::Result<HttpResponse> {
    let (response, _, messages) = chat.limits.handle(&req, body).await?;
    let chat = chat.get_ref().clone();
    actix_web::rt::spawn(async move {
        // However it ends, the client is gone then.
        let _ = chat.serve(messages.session(), messages).await;
    });
    Ok(response)
}

impl Chat {
    /// Passes on what a client says, and tells it what the others say.
    async fn serve(
        &self,
        mut session: ThrottledSession,
        mut messages: ThrottledMessages,
    ) -> Result<(), Gone> {
        let mut others = self.said.subscribe();
        self.tell_budget(&mut session).await?;
        loop {
            // A message that is being decided is not lost when somebody else says something.
            match select(Box::pin(messages.recv()), Box::pin(others.recv())).await {
                Either::Left((Some(Ok(AggregatedMessage::Text(text))), _)) => {
                    let _ = self.said.send(text.chars().take(LONGEST).collect());
                    self.tell_budget(&mut session).await?;
                }
                Either::Left((Some(Ok(AggregatedMessage::Ping(bytes))), _)) => {
                    session.pong(&bytes).await?;
                }
                Either::Left((Some(Ok(AggregatedMessage::Close(_)) | Err(_)) | None, _)) => {
                    return Ok(session.close(None).await?);
                }
                Either::Left(_) => {}
                Either::Right((Ok(said), _)) => {
                    let said = json!({ "said": said });
                    session.text(said.to_string()).await?;
                }
                Either::Right((Err(_), _)) => {} // it reads too slowly, and missed something
            }
        }
    }

    /// To look costs nothing. A client has the same count in all its tabs.
    async fn tell_budget(&self, session: &mut ThrottledSession) -> Result<(), Gone> {
        let stat = session.ask(&self.messages).stat().await?;
        let budget = json!({ "left": stat.remaining, "of": stat.limit });
        Ok(session.text(budget.to_string()).await?)
    }
}

#[get("/")]
async fn page() -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(
        r#"<!doctype html><meta name="viewport" content="width=device-width"><title>traffik chat</title>
<style>:root{color-scheme:light dark}body{font:1rem system-ui;max-width:40rem;margin:1rem auto;padding:0 1rem}input,meter{width:100%}</style>
<form><label>Say something <input autofocus maxlength=500></label></form>
<p><label>What is left <meter min=0 value=0 max=1></meter></label> <span role=status></span></p><ul></ul><script>
const $ = name => document.querySelector(name)
const socket = new WebSocket(location.href.replace(/^http/, "ws") + "ws")
socket.onmessage = ({ data }) => {
  const { said, left, of, type, retry_after } = JSON.parse(data)
  if (type == "rate_limit") $("span").textContent = `Too fast: wait ${retry_after} s. That was not said.`
  if (of) { $("meter").max = of; $("meter").value = left; $("span").textContent = `${left} of ${of} messages` }
  if (said) { const item = document.createElement("li"); item.textContent = said; $("ul").prepend(item) }
}
socket.onclose = () => $("span").textContent = "The connection is gone: reload."
document.forms[0].onsubmit = event => { event.preventDefault(); socket.send($("input").value); $("input").value = "" }
</script>"#,
    )
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Five at once, then one every two seconds.
    let messages = HttpThrottle::builder("messages")
        .rate("30/minute")
        .strategy(TokenBucket::new().burst(5))
        .build()?;
    // However much the others say, a tab is sent ten kilobytes a second, and misses the rest.
    let sent = HttpThrottle::builder("sent").rate("10000/second").build()?;
    let chat = Chat {
        limits: WsThrottle::new(messages.clone())
            .max_message_size(4 * LONGEST)
            .outgoing(WsRule::new(sent).per_byte().per_connection())
            .on_spent(OnSpent::Discard),
        messages,
        said: broadcast::Sender::new(100),
    };
    let chat = web::Data::new(chat);

    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(chat.clone())
            .service(page)
            .service(join)
    })
    .bind(&addr)
    .map_err(|error| format!("cannot listen at {addr}, give another address:port: {error}"))?;
    let addr = server.addrs()[0];
    println!("Try it: open http://{addr}/ in two tabs, and talk too much");
    server.run().await?;
    Ok(())
}
