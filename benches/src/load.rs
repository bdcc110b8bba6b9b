//! A load generator: keep-alive connections on one thread, one request in flight on each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// What is asked.
pub const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    connections: u8,
    addresses: bool,
}

impl Load {
    /// Connections from one address: a single client.
    pub const fn of_one_client(connections: u8) -> Load {
        Load {
            connections,
            addresses: false,
        }
    }

    /// Connections from an address of the loopback network each: as many clients.
    pub const fn of_clients(connections: u8) -> Load {
        Load {
            connections,
            addresses: true,
        }
    }

    /// What was answered until the time was up.
    pub fn run(&self, port: u16, time: Duration) -> Answers {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let deadline = Instant::now() + time;
            let mut connections = JoinSet::new();
            for at in 0..self.connections {
                let last = if self.addresses { at + 1 } else { 1 };
                let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
                connections.spawn(connection(from, port, deadline));
            }
            Answers::of(connections.join_all().await)
        })
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Answers {
    /// How long each took, in µs, ascending.
    latencies: Vec<u32>,
    statuses: Vec<u16>,
}

impl Answers {
    fn of(mut all: Vec<Answers>) -> Answers {
        let mut answers = Answers {
            latencies: all
                .iter_mut()
                .flat_map(|one| one.latencies.drain(..))
                .collect(),
            statuses: all
                .iter_mut()
                .flat_map(|one| one.statuses.drain(..))
                .collect(),
        };
        answers.latencies.sort_unstable();
        answers
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.latencies.len()
    }

    /// The status of all of them, or two that differ.
    ///
    /// # Errors
    ///
    /// Two statuses.
    pub fn status(&self) -> Result<u16, [u16; 2]> {
        let first = self.statuses[0];
        match self.statuses.iter().find(|status| **status != first) {
            None => Ok(first),
            Some(other) => Err([first, *other]),
        }
    }

    /// The µs within which such a part of them came.
    pub fn within(&self, percent: usize) -> f64 {
        let at = self.latencies.len() * percent / 100;
        self.latencies[at.min(self.latencies.len() - 1)].into()
    }
}

async fn connection(from: IpAddr, port: u16, deadline: Instant) -> Answers {
    let mut stream = connect(from, port).await;
    let mut buffer = [0; 4096];
    let mut answers = Answers {
        latencies: Vec::with_capacity(1 << 16),
        statuses: Vec::new(),
    };
    let mut begun = Instant::now();
    // At least one, however busy the machine.
    while answers.latencies.is_empty() || begun < deadline {
        stream.write_all(REQUEST).await.expect("a live connection");
        let mut len = 0;
        while !is_complete(&buffer[..len]) {
            let read = stream.read(&mut buffer[len..]).await;
            let read = read.expect("a live connection");
            assert!(read > 0, "the server hung up");
            len += read;
        }
        let status = status(&buffer);
        if answers.statuses.last() != Some(&status) {
            answers.statuses.push(status);
        }
        let ended = Instant::now();
        let micros = (ended - begun).as_micros();
        answers
            .latencies
            .push(u32::try_from(micros).unwrap_or(u32::MAX));
        begun = ended;
    }
    answers
}

async fn connect(from: IpAddr, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::new(from, 0))
        .expect("Linux: all of 127/8 is ours");
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    let stream = socket.connect(server).await.expect("the server listens");
    stream.set_nodelay(true).expect("a socket has this option");
    stream
}

/// `HTTP/1.1 200 OK`
fn status(response: &[u8]) -> u16 {
    let digits = response[9..12].iter();
    digits.fold(0, |status, digit| status * 10 + u16::from(digit - b'0'))
}

/// Whether the head is there, and as much of a body as it says.
pub fn is_complete(response: &[u8]) -> bool {
    let Some(head) = find(response, b"\r\n\r\n") else {
        return false;
    };
    let body = &response[head + 4..];
    let name = b"content-length: ";
    let at = find(response, name).expect("a length: nothing here is chunked") + name.len();
    let digits = response[at..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    body.len() >= length
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
