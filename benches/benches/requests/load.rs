//! A load generator: 32 keep-alive connections on one thread, one request in flight on each.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const CONNECTIONS: usize = 32;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Requests that were answered until the time was up.
pub(crate) fn run(port: u16, time: Duration) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let deadline = Instant::now() + time;
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            connections.spawn(connection(port, deadline));
        }
        connections.join_all().await.iter().sum()
    })
}

async fn connection(port: u16, deadline: Instant) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("the server listens");
    stream.set_nodelay(true).expect("a socket has this option");
    let mut response = [0; 4096];
    let mut requests = 0;
    while Instant::now() < deadline {
        stream.write_all(REQUEST).await.expect("a live connection");
        let mut len = 0;
        // The body, and what comes before it, is the same in every response.
        while !response[..len].ends_with(b"\r\n\r\nhello") {
            let read = stream.read(&mut response[len..]).await;
            len += read.expect("a live connection");
            let head = String::from_utf8_lossy(&response[..len]);
            assert!(response.starts_with(b"HTTP/1.1 200 OK"), "{head}");
        }
        requests += 1;
    }
    requests
}
