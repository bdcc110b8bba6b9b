use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

/// What has taken that long on a busy machine will not come.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A running example, killed when dropped.
pub(crate) struct Example {
    process: Child,
    addr: SocketAddr,
}

impl Example {
    /// One of those that take an address, on a port of its choice.
    pub(crate) fn start(name: &str) -> Example {
        let mut command = Command::new(binary(name));
        command.arg("127.0.0.1:0");
        Self::run(command)
    }

    /// The same with more to say.
    pub(crate) fn start_with(name: &str, more: &[&str]) -> Example {
        let mut command = Command::new(binary(name));
        command.arg("127.0.0.1:0").args(more);
        Self::run(command)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The server with every strategy and backend behind flags.
    pub(crate) fn bench(flags: &str) -> Example {
        let mut command = Command::new(binary("bench_server"));
        command.args(flags.split(' ').filter(|flag| !flag.is_empty()));
        command.args(["--listen", "127.0.0.1:0"]);
        Self::run(command)
    }

    /// Whatever tells where it listens once it does.
    pub(crate) fn run(mut command: Command) -> Example {
        let process = command.stdout(Stdio::piped()).spawn();
        let mut example = Example {
            process: process.unwrap_or_else(|error| panic!("{command:?}: {error}")),
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
        };
        let output = example.process.stdout.take().unwrap();
        example.addr = told(output, address)
            .unwrap_or_else(|| panic!("{command:?} does not tell where it listens: see above"));
        example
    }

    /// One request: the whole response.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &str) -> String {
        self.send_body(method, path, headers, "")
    }

    /// One with a body, whose length is among the headers.
    pub(crate) fn send_body(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n{body}"
        );
        let mut socket = TcpStream::connect(self.addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // All at once and not a byte more: a server that hangs up on something it has not read
        // resets the connection, and its answer is lost.
        socket.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        socket.read_to_string(&mut response).unwrap();
        response
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// A request of whose answer the first bytes are there.
    pub(crate) fn begin(&self, method: &str, path: &str) -> Option<TcpStream> {
        let mut socket = TcpStream::connect(self.addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"
        )
        .unwrap();
        assert!(socket.read(&mut [0; 64]).unwrap() > 0);
        Some(socket)
    }

    /// A request whose client goes away when the first bytes of the answer are there.
    pub(crate) fn hang_up(&self, method: &str, path: &str, headers: &str, body: &str) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        let mut socket = TcpStream::connect(self.addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        assert!(socket.read(&mut [0; 64]).unwrap() > 0);
    }

    pub(crate) fn status(&self, method: &str, path: &str, headers: &str) -> u16 {
        status_of(&self.send(method, path, headers))
    }

    /// A WebSocket at `/ws` of the client of this name.
    pub(crate) fn connect(&self, name: &str) -> WebSocket<TcpStream> {
        let uri = format!("ws://{}/ws", self.addr).parse().unwrap();
        let request = ClientRequestBuilder::new(uri).with_header("x-client-id", name);
        let socket = TcpStream::connect(self.addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        client(request, socket).unwrap().0
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where a program listens: the first `http://ADDRESS/` that it prints.
fn address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    let end = rest.find('/').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// What a program tells in a line. Whatever it prints afterwards is taken as well, so that it never waits
/// for a reader.
pub(super) fn told<T: Send + 'static>(
    output: impl Read + Send + 'static,
    what: fn(&str) -> Option<T>,
) -> Option<T> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(what) = what(&line) {
                let _ = tell.send(what);
            }
        }
    });
    told.recv_timeout(PATIENCE).ok()
}

pub(crate) fn status_of(response: &str) -> u16 {
    response.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Says something and hears what is answered.
pub(crate) fn talk(socket: &mut WebSocket<TcpStream>, text: &str) -> String {
    socket.send(Message::text(text)).unwrap();
    socket.read().unwrap().into_text().unwrap().to_string()
}

/// Examples are built beside this test: `target/<profile>/examples`.
pub(crate) fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(name)
}

/// Runs to its end: what it prints, and what it complains about.
pub(crate) fn ends(name: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary(name));
    command
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (mut process, start) = (command.spawn().unwrap(), Instant::now());
    while process.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            process.kill().unwrap();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = process.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The body of the next request that comes, which is answered 200.
pub(crate) fn receive(listener: &TcpListener) -> String {
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(socket.try_clone().unwrap());
    let (mut length, mut line) = (0, String::new());
    while lines.read_line(&mut line).unwrap() > 2 {
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    socket
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    String::from_utf8(body).unwrap()
}
