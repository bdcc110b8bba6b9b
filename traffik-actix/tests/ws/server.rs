//! A server on the thread of the test.

use std::net::{Ipv4Addr, SocketAddr};

use actix_http::HttpService;
use actix_service::map_config;
use actix_web::dev::{AppConfig, Service, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::rt::net::TcpListener;
use actix_web::rt::spawn;
use actix_web::{App, HttpRequest, HttpResponse, web};
use tokio::io::DuplexStream;
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::{Identity, WsThrottle};

use super::client::Client;

/// Who asks, by a header that only a test trusts.
pub(crate) fn name(req: &HttpRequest) -> Identity {
    let name = req.headers().get("x-name").map(|name| name.to_str());
    name.map_or(Identity::ANONYMOUS, |name| Identity::of(name.unwrap()))
}

/// Sends everything back that passes.
pub(crate) async fn echo(
    req: HttpRequest,
    body: web::Payload,
    limits: web::Data<WsThrottle>,
) -> actix_web::Result<HttpResponse> {
    let (response, mut session, mut messages) = limits.handle(&req, body).await?;
    spawn(async move {
        while let Some(Ok(message)) = messages.recv().await {
            let answered = match message {
                AggregatedMessage::Text(text) => session.text(text).await,
                AggregatedMessage::Binary(bytes) => session.binary(bytes).await,
                AggregatedMessage::Ping(bytes) => session.pong(&bytes).await,
                AggregatedMessage::Pong(_) => Ok(()),
                AggregatedMessage::Close(reason) => return session.close(reason).await,
            };
            answered?;
        }
        Ok(())
    });
    Ok(response)
}

/// Serves that handler at `/` on this thread.
pub(crate) async fn serve(limits: WsThrottle) -> SocketAddr {
    serve_app(app(limits)).await
}

pub(crate) async fn serve_app(app: App<impl AppFactory>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let http = HttpService::build().h1(map_config(app, |()| AppConfig::default()));
    let http = http.new_service(()).await.unwrap();
    spawn(async move {
        while let Ok((socket, peer)) = listener.accept().await {
            spawn(http.call((socket, Some(peer))));
        }
    });
    addr
}

/// The same without sockets, for tests in which time stands still while something happens: what is
/// on its way through a socket is nothing that happens on this thread.
pub(crate) async fn serve_pipes(
    app: App<impl AppFactory>,
) -> impl AsyncFn(&str) -> Client<DuplexStream> {
    let http = HttpService::build().h1(map_config(app, |()| AppConfig::default()));
    let http = http.new_service(()).await.unwrap();
    async move |name: &str| {
        let (near, far) = tokio::io::duplex(64 * 1024);
        spawn(http.call((far, None)));
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        Client::handshake(near, addr, name).await.unwrap()
    }
}

/// `/` with the handler above.
pub(crate) fn app(limits: WsThrottle) -> App<impl AppFactory> {
    App::new()
        .app_data(web::Data::new(limits))
        .route("/", web::get().to(echo))
}

/// What an [`App`] is made of.
pub(crate) trait AppFactory:
    ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse,
        Error = actix_web::Error,
        InitError = (),
    > + 'static
{
}

impl<F> AppFactory for F where
    F: ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse,
            Error = actix_web::Error,
            InitError = (),
        > + 'static
{
}
