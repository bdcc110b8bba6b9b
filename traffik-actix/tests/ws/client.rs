//! A client of a WebSocket that is not actix's own.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{self, Bytes, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// A client of a WebSocket.
#[derive(Debug)]
pub(crate) struct Client<S = TcpStream>(WebSocketStream<S>);

impl Client {
    pub(crate) async fn connect(addr: SocketAddr, name: &str) -> Client {
        Client::try_connect(addr, name).await.unwrap()
    }

    /// The same, or the status of the refusal.
    pub(crate) async fn try_connect(addr: SocketAddr, name: &str) -> Result<Client, u16> {
        let socket = TcpStream::connect(addr).await.unwrap();
        Client::handshake(socket, addr, name).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn handshake(
        stream: S,
        addr: SocketAddr,
        name: &str,
    ) -> Result<Client<S>, u16> {
        let uri = format!("ws://{addr}/").parse().unwrap();
        let request = ClientRequestBuilder::new(uri).with_header("x-name", name);
        match client_async(request, stream).await {
            Ok((client, _)) => Ok(Client(client)),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.send(Message::text(text)).await;
    }

    /// Whether a connection takes another message.
    pub(crate) async fn try_say(&mut self, text: &str) -> bool {
        self.0.send(Message::text(text)).await.is_ok()
    }

    /// Says something together with what comes next.
    pub(crate) async fn feed(&mut self, text: &str) {
        self.0.feed(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn ping(&mut self, payload: &'static str) {
        self.send(Message::Ping(payload.into())).await;
    }

    /// One frame of a text; the first is not a continuation, and the last is final.
    pub(crate) async fn fragment(&mut self, payload: impl Into<Bytes>, first: bool, last: bool) {
        let kind = if first { Data::Text } else { Data::Continue };
        let frame = Frame::message(payload, OpCode::Data(kind), last);
        self.send(Message::Frame(frame)).await;
    }

    /// The next message, as a text: `pong: ..`, `binary: 3 bytes`, `close: 1008 reason`, `gone`.
    pub(crate) async fn hear(&mut self) -> String {
        // A test that waits in vain fails, rather than hanging.
        let heard = timeout(Duration::from_secs(60), self.0.next());
        match heard.await.expect("something to hear") {
            Some(Ok(Message::Text(text))) => text.to_string(),
            Some(Ok(Message::Binary(bytes))) => format!("binary: {} bytes", bytes.len()),
            Some(Ok(Message::Pong(bytes))) => {
                format!("pong: {}", str::from_utf8(&bytes).unwrap())
            }
            Some(Ok(Message::Close(Some(frame)))) => {
                format!("close: {} {}", u16::from(frame.code), frame.reason)
            }
            Some(Ok(other)) => panic!("unexpected {other:?}"),
            Some(Err(_)) | None => "gone".to_owned(),
        }
    }

    /// What the server says before it has dealt with everything that was sent: until it closes.
    pub(crate) async fn leave(&mut self) -> Vec<String> {
        let bye = CloseFrame {
            code: 1000.into(),
            reason: "bye".into(),
        };
        self.send(Message::Close(Some(bye))).await;
        let mut heard = Vec::new();
        loop {
            match self.hear().await {
                end if end.starts_with("close:") || end == "gone" => return heard,
                text => heard.push(text),
            }
        }
    }

    /// Cuts the connection.
    pub(crate) fn vanish(self) {
        drop(self);
    }
}
