//! A load generator for WebSockets that send back what they are sent: raw frames, so that the generator is not what is
//! measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const PAYLOAD: u8 = 32;
const LENGTH: usize = PAYLOAD as usize;

/// A masked text; a mask of zeros changes nothing.
const FRAME: [u8; 6 + LENGTH] = {
    let mut frame = [b'x'; 6 + LENGTH];
    frame[0] = 0x81;
    frame[1] = 0x80 | PAYLOAD;
    (frame[2], frame[3], frame[4], frame[5]) = (0, 0, 0, 0);
    frame
};

/// What comes back.
const ECHO: usize = 2 + LENGTH;

/// A WebSocket from an address of the loopback network.
#[derive(Debug)]
struct Socket(TcpStream);

impl Socket {
    async fn open(port: u16, path: &str, from: u8) -> Socket {
        let socket = TcpSocket::new_v4().expect("a socket");
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0));
        socket.bind(from).expect("Linux: all of 127/8 is ours");
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = socket.connect(server).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket has this option");
        let handshake = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream
            .write_all(handshake.as_bytes())
            .await
            .expect("a live connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a live connection"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "the server refused");
        Socket(stream)
    }

    /// Sends a message and waits until it is back.
    async fn echo(&mut self) -> Duration {
        let begun = Instant::now();
        self.0.write_all(&FRAME).await.expect("a live connection");
        let mut echo = [0; ECHO];
        self.0
            .read_exact(&mut echo)
            .await
            .expect("a live connection");
        assert_eq!(echo[..2], [0x81, PAYLOAD], "an echo, and no notice");
        begun.elapsed()
    }

    /// Sends as much as it can, and reads what comes back.
    async fn flood(self) {
        let (mut read, mut write) = self.0.into_split();
        let frames = FRAME.repeat(64);
        let reads = async {
            let mut buffer = [0; 16 * 1024];
            while read.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        };
        let writes = async { while write.write_all(&frames).await.is_ok() {} };
        tokio::join!(reads, writes);
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}

/// Messages per second on so many connections of one client, one message under way on each.
pub fn echoes(port: u16, connections: u8, time: Duration) -> (usize, f64) {
    run(async {
        let mut sockets = Vec::new();
        for _ in 0..connections {
            sockets.push(Socket::open(port, "/", 1).await);
        }
        let begun = Instant::now();
        let mut all = JoinSet::new();
        for mut socket in sockets {
            all.spawn(async move {
                let mut echoes = 0;
                while echoes == 0 || begun.elapsed() < time {
                    socket.echo().await;
                    echoes += 1;
                }
                echoes
            });
        }
        let echoes: usize = all.join_all().await.into_iter().sum();
        (echoes, echoes as f64 / begun.elapsed().as_secs_f64())
    })
}

/// µs within which 99 of 100 messages are back of `quiet` clients that send ten a second, beside one that floods or
/// nobody.
pub fn quiet(port: u16, quiet: u8, flood: bool, time: Duration) -> f64 {
    run(async {
        let flood = match flood {
            true => Some(Socket::open(port, "/few", 250).await),
            false => None,
        };
        let mut sockets = Vec::new();
        for at in 0..quiet {
            sockets.push(Socket::open(port, "/few", at + 1).await);
        }
        let flood = flood.map(|socket| tokio::spawn(socket.flood()));
        let mut all = JoinSet::new();
        for (at, mut socket) in sockets.into_iter().enumerate() {
            all.spawn(async move {
                sleep(Duration::from_millis(at as u64)).await;
                let (begun, mut latencies) = (Instant::now(), Vec::new());
                while latencies.is_empty() || begun.elapsed() < time {
                    latencies.push(timeout(Duration::from_secs(60), socket.echo()).await);
                    sleep(Duration::from_millis(100)).await;
                }
                latencies
            });
        }
        let all = all.join_all().await.into_iter().flatten();
        let mut all: Vec<u128> = all
            .map(|latency| latency.expect("an echo within a minute").as_micros())
            .collect();
        if let Some(flood) = flood {
            flood.abort();
        }
        all.sort_unstable();
        all[all.len() * 99 / 100] as f64
    })
}
