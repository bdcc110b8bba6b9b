//! Real servers and real sockets.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use actix_web::dev::Service;
use actix_web::{App, HttpRequest, HttpServer, web};
use traffik_actix::strategy::Gcra;
use traffik_actix::{ClientIp, MemoryBackend, ThrottleMiddleware};

use crate::sockets::{Connection, Running, read_response};
use crate::support::throttle;

/// Sends `count` requests over one connection and counts the answers by status.
fn hammer(addr: SocketAddr, count: usize) -> (usize, usize) {
    let mut socket = Connection::open(addr);
    let (mut ok, mut throttled) = (0, 0);
    for _ in 0..count {
        match socket
            .ask(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .status
        {
            200 => ok += 1,
            429 => throttled += 1,
            status => panic!("status {status}"),
        }
    }
    (ok, throttled)
}

#[actix_web::test]
async fn two_workers_under_load_admit_exactly_the_limit() {
    let limit = 1_000;
    let throttle = throttle("workers", &format!("{limit}/day"))
        .build()
        .unwrap();
    let limits = ThrottleMiddleware::new(throttle).backend(MemoryBackend::new());
    let (addr, running) = Running::behind(limits, 2);

    let counts = web::block(move || {
        let clients: Vec<_> = (0..16)
            .map(|_| thread::spawn(move || hammer(addr, 200)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect::<Vec<_>>()
    })
    .await
    .unwrap();
    running.stop().await;

    let (ok, throttled) = counts
        .into_iter()
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert_eq!((ok, throttled), (limit, 16 * 200 - limit));
}

/// By default actix-web takes a closed connection for one that is closed on one side, and goes on.
#[actix_web::test]
async fn a_client_that_goes_away_while_it_waits_is_dropped() {
    /// Tells when a request is over that was not answered.
    struct Vanished(Option<tokio::sync::mpsc::UnboundedSender<()>>);
    impl Vanished {
        fn disarm(&mut self) {
            self.0 = None;
        }
    }
    impl Drop for Vanished {
        fn drop(&mut self) {
            if let Some(tell) = self.0.take() {
                let _ = tell.send(());
            }
        }
    }

    let patient = throttle("patient", "1/day")
        .strategy(Gcra::new())
        .wait_up_to(Duration::from_secs(86_400))
        .build()
        .unwrap();
    let limits = ThrottleMiddleware::new(patient).backend(MemoryBackend::new());
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let server = HttpServer::new(move || {
        let tell = tell.clone();
        App::new()
            .wrap(limits.clone())
            .wrap_fn(move |req, service| {
                let mut vanished = Vanished(Some(tell.clone()));
                let answer = service.call(req);
                async move {
                    let answer = answer.await;
                    vanished.disarm();
                    answer
                }
            })
            .route("/", web::get().to(async || "hello"))
    })
    .workers(1)
    .h1_allow_half_closed(false)
    .bind(("127.0.0.1", 0))
    .unwrap();
    let addr = server.addrs()[0];
    let running = Running::start(server.run());

    let counts = web::block(move || hammer(addr, 1)).await.unwrap();
    assert_eq!(counts, (1, 0));
    let waiting = web::block(move || {
        let mut socket = TcpStream::connect(addr).unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        socket.write_all(request).unwrap();
        socket
    });
    drop(waiting.await.unwrap());
    let gone = tokio::time::timeout(Duration::from_secs(30), told.recv()).await;
    assert_eq!(gone.expect("the server does not notice"), Some(()));
    running.stop().await;
}

/// Issue: a Unix socket has no peer address, and headers were not read: everybody was one client.
#[cfg(unix)]
#[actix_web::test]
async fn clients_behind_a_unix_socket_are_told_apart() {
    let name = format!("traffik-actix-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(name);
    let client_ip = ClientIp::peer().trust_unix();
    let throttle = throttle("unix", "1/day")
        .identify(move |req: &HttpRequest| client_ip.identity(req))
        .build()
        .unwrap();
    let limits = ThrottleMiddleware::new(throttle).backend(MemoryBackend::new());
    let server = HttpServer::new(move || {
        App::new()
            .wrap(limits.clone())
            .route("/", web::get().to(async || "hello"))
    })
    .workers(1)
    .bind_uds(&path)
    .unwrap();
    let running = Running::start(server.run());

    let socket = path.clone();
    let statuses = web::block(move || {
        ["1.2.3.4", "1.2.3.5", "1.2.3.4"].map(|client| {
            let mut socket = UnixStream::connect(&socket).unwrap();
            write!(
                socket,
                "GET / HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: {client}\r\n\r\n"
            )
            .unwrap();
            read_response(&mut BufReader::new(socket)).status
        })
    })
    .await
    .unwrap();
    running.stop().await;
    std::fs::remove_file(path).unwrap();
    assert_eq!(statuses, [200, 200, 429]);
}
