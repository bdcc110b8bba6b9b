//! Servers that listen, and clients that send them bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use actix_web::dev::{Server, ServerHandle};
use actix_web::rt::task::JoinHandle;
use actix_web::{App, HttpServer, web};
use traffik_actix::ThrottleMiddleware;

/// A server that serves until it is stopped.
pub(crate) struct Running {
    handle: ServerHandle,
    server: JoinHandle<std::io::Result<()>>,
}

impl Running {
    pub(crate) fn start(server: Server) -> Running {
        Running {
            handle: server.handle(),
            server: actix_web::rt::spawn(server),
        }
    }

    /// An application of one page behind `limits`, and where it is.
    pub(crate) fn behind(limits: ThrottleMiddleware, workers: usize) -> (SocketAddr, Running) {
        let server = HttpServer::new(move || {
            App::new()
                .wrap(limits.clone())
                .route("/", web::get().to(async || "hello"))
        })
        .workers(workers)
        .bind(("127.0.0.1", 0))
        .unwrap();
        (server.addrs()[0], Running::start(server.run()))
    }

    pub(crate) async fn stop(self) {
        self.handle.stop(false).await;
        self.server.await.unwrap().unwrap();
    }
}

/// One connection of a client that blocks.
pub(crate) struct Connection {
    socket: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(addr: SocketAddr) -> Connection {
        let socket = TcpStream::connect(addr).unwrap();
        // A test that waits in vain fails, rather than hanging.
        let enough = std::time::Duration::from_secs(60);
        socket.set_read_timeout(Some(enough)).unwrap();
        Connection {
            reader: BufReader::new(socket.try_clone().unwrap()),
            socket,
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub(crate) fn read(&mut self) -> Response {
        read_response(&mut self.reader)
    }

    pub(crate) fn ask(&mut self, request: &[u8]) -> Response {
        self.send(request);
        self.read()
    }
}

pub(crate) struct Response {
    pub(crate) status: u16,
    /// The lines of its headers.
    pub(crate) headers: Vec<String>,
}

pub(crate) fn read_response(reader: &mut impl BufRead) -> Response {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
        headers.push(line.trim_end().to_owned());
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).unwrap();
    Response { status, headers }
}
