//! Starts each example and talks to it as its comments say.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics fails; clippy knows only functions marked as tests"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

/// A running example, killed when dropped.
struct Example {
    process: Child,
    addr: SocketAddr,
}

impl Example {
    fn start(name: &str, args: impl FnOnce(SocketAddr) -> Vec<String>) -> Example {
        Self::run(name, Command::new(binary(name)), args)
    }

    fn run(
        name: &str,
        mut command: Command,
        args: impl FnOnce(SocketAddr) -> Vec<String>,
    ) -> Example {
        // Free until somebody else takes it; the example takes it at once.
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap();
        let process = command.args(args(addr)).stdout(Stdio::null()).spawn();
        let mut example = Example {
            process: process.unwrap_or_else(|error| panic!("{name}: {error}")),
            addr,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = TcpStream::connect(addr) {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            assert!(
                Instant::now() < deadline,
                "{name} does not listen on {addr}"
            );
            assert!(
                example.process.try_wait().unwrap().is_none(),
                "{name} ended"
            );
            std::thread::yield_now();
        }
        example
    }

    /// One request: the whole response.
    fn send(&self, method: &str, path: &str, headers: &str) -> String {
        let mut socket = TcpStream::connect(self.addr).unwrap();
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"
        )
        .unwrap();
        let mut response = String::new();
        socket.read_to_string(&mut response).unwrap();
        response
    }

    /// A WebSocket at `/ws` of the client of this name.
    fn connect(&self, name: &str) -> WebSocket<TcpStream> {
        let uri = format!("ws://{}/ws", self.addr).parse().unwrap();
        let request = ClientRequestBuilder::new(uri).with_header("x-client-id", name);
        let socket = TcpStream::connect(self.addr).unwrap();
        client(request, socket).unwrap().0
    }

    fn status(&self, method: &str, path: &str, headers: &str) -> u16 {
        let response = self.send(method, path, headers);
        response.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Examples are built beside this test: `target/<profile>/examples`.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(name)
}

fn address(addr: SocketAddr) -> Vec<String> {
    vec![addr.to_string()]
}

#[test]
fn quickstart_denies_the_sixth_request_of_ten_seconds() {
    let example = Example::start("quickstart", address);
    // A window may end in between: eleven requests exceed even two of them.
    let statuses: Vec<_> = (0..11).map(|_| example.status("GET", "/", "")).collect();
    assert_eq!(statuses[..5], [200; 5]);
    assert!(statuses.contains(&429), "{statuses:?}");
    let denied = example.send("GET", "/", "");
    assert!(
        denied.contains("retry-after: ") || denied.contains("200 OK"),
        "{denied}"
    );
}

#[test]
fn custom_strategy_wants_quiet() {
    let example = Example::start("custom_strategy", address);
    let statuses: Vec<_> = (0..5).map(|_| example.status("GET", "/", "")).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}

#[test]
fn attribute_limits_each_handler_and_reads_no_body_in_vain() {
    let example = Example::start("attribute", address);
    assert_eq!(example.status("GET", "/reports", ""), 200);
    let denied = example.send("GET", "/reports", "");
    assert!(denied.contains("attribute::reports"), "{denied}");

    let order = |body: &str| {
        let headers = format!(
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
        example.status(
            "POST",
            "/orders",
            &format!("{headers}x-customer: ann\r\n\r\n{body}"),
        )
    };
    assert_eq!(order("[1,2]"), 201);
    assert_eq!(order("{"), 400);
    // A tenth of a day's hundred each: the burst of five comes first.
    assert_eq!([order("[]"), order("[]"), order("[]")], [201; 3]);
    assert_eq!(order("{"), 429);
}

#[test]
fn middleware_tells_clients_and_methods_apart() {
    let example = Example::start("middleware", address);
    assert_eq!(example.status("POST", "/notes", "x-api-key: ann\r\n"), 201);
    let denied = example.send("POST", "/notes", "x-api-key: ann\r\n");
    assert!(
        denied.starts_with("HTTP/1.1 429") && denied.contains("x-denied-by: writes"),
        "{denied}"
    );
    assert_eq!(example.status("POST", "/notes", "x-api-key: bob\r\n"), 201);
    assert_eq!(example.status("GET", "/notes", "x-api-key: ann\r\n"), 200);
    for _ in 0..3 {
        assert_eq!(
            example.status("POST", "/notes", "x-api-key: secret-of-the-boss\r\n"),
            201
        );
    }
}

/// Says something and hears what is answered.
fn talk(socket: &mut WebSocket<TcpStream>, text: &str) -> String {
    socket.send(Message::text(text)).unwrap();
    socket.read().unwrap().into_text().unwrap().to_string()
}

const NOTICE: &str = r#"{"type":"rate_limit","error":"Too many messages","retry_after":1}"#;

#[test]
fn websocket_limits_a_client_over_its_tabs_and_shows_out_who_does_not_listen() {
    let example = Example::start("websocket", address);
    assert!(example.send("GET", "/", "").contains("new WebSocket("));
    let mut tabs = [example.connect("ann"), example.connect("ann")];
    assert_eq!(talk(&mut tabs[0], "hi"), "hi");
    assert_eq!(talk(&mut tabs[1], "hello"), "hello");
    // Fifty denials in a row close, as soon as so many are sent faster than two per second pass.
    let patience = Some(Duration::from_millis(10));
    tabs[0].get_ref().set_read_timeout(patience).unwrap();
    let closed = loop {
        for _ in 0..100 {
            let _ = tabs[0].write(Message::text("spam"));
        }
        let _ = tabs[0].flush();
        let mut heard = std::iter::from_fn(|| tabs[0].read().ok());
        if let Some(Message::Close(Some(frame))) = heard.find(Message::is_close) {
            break frame;
        }
    };
    assert_eq!(u16::from(closed.code), 1008);
    assert!(
        closed.reason.starts_with("rate_limit;retry_after_ms="),
        "{closed}"
    );
}

#[test]
fn bench_server_limits_messages_as_it_does_requests() {
    let example = Example::start("bench_server", |addr| {
        "--rate 3/1s --clock manual --workers 2 --listen"
            .split(' ')
            .map(str::to_owned)
            .chain([addr.to_string()])
            .collect()
    });
    let (mut ann, mut tab, mut bob) = (
        example.connect("ann"),
        example.connect("ann"),
        example.connect("bob"),
    );
    let say = |socket: &mut _, text| talk(socket, text);
    assert_eq!(say(&mut ann, "1"), r#"{"echo":"1","status":"ok"}"#);
    assert_eq!(say(&mut tab, "\""), r#"{"echo":"\"","status":"ok"}"#);
    assert_eq!(example.status("GET", "/test", "x-client-id: ann\r\n"), 200);
    assert_eq!(say(&mut ann, "4"), NOTICE);
    assert_eq!(say(&mut tab, "5"), NOTICE);
    assert_eq!(example.status("GET", "/test", "x-client-id: ann\r\n"), 429);
    assert_eq!(say(&mut bob, "1"), r#"{"echo":"1","status":"ok"}"#);

    let advance = "/__bench__/clock?advance_us=1000000";
    assert_eq!(example.status("POST", advance, ""), 200);
    assert_eq!(say(&mut ann, "6"), r#"{"echo":"6","status":"ok"}"#);
}

#[test]
fn bench_server_is_exact_to_the_microsecond_over_http() {
    let flags = "--strategy gcra,burst_tolerance=1s --rate 2/s --clock manual --workers 1 --listen";
    let example = Example::start("bench_server", |addr| {
        flags
            .split(' ')
            .map(str::to_owned)
            .chain([addr.to_string()])
            .collect()
    });
    let test = |headers| example.status("GET", "/test", headers);
    for _ in 0..3 {
        assert_eq!(test(""), 200);
    }
    let denied = example.send("GET", "/test", "");
    assert!(denied.contains(r#""wait_us":500000"#), "{denied}");
    assert!(
        example
            .send("GET", "/stat", "")
            .contains(r#""wait_us":500000"#)
    );
    assert_eq!(test("x-client-id: another\r\n"), 200);

    let advance = |us| example.status("POST", &format!("/__bench__/clock?advance_us={us}"), "");
    assert_eq!(advance(499_999), 200);
    assert_eq!(test(""), 429);
    assert_eq!(advance(1), 200);
    assert_eq!(test(""), 200);
    assert_eq!(test(""), 429);

    assert_eq!(example.status("POST", "/__bench__/reset", ""), 200);
    assert_eq!(test("x-cost: 3\r\n"), 200);
    assert_eq!(example.status("GET", "/unthrottled", ""), 200);
    assert_eq!(example.status("GET", "/__bench__/health", ""), 200);
}

#[test]
fn bench_server_refuses_flags_that_it_does_not_know() {
    for (flags, complaint) in [
        ("--strategy windows", "there are fixed_window"),
        ("--on-error maybe", "must be one of allow, throttle, raise"),
        ("--fast", "--help lists the flags"),
        ("--rate 5", "100/minute"),
    ] {
        let output = Command::new(binary("bench_server"))
            .args(flags.split(' '))
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags}");
        assert!(error.contains(complaint), "{flags}: {error}");
    }
}

/// On a Redis of its own.
#[cfg(feature = "redis")]
#[test]
fn redis_shares_three_limits_and_goes_on_without_its_server() {
    let redis = Example::run("redis-server", Command::new("redis-server"), |addr| {
        let port = addr.port().to_string();
        ["--port", &port, "--bind", "127.0.0.1", "--save", ""]
            .map(String::from)
            .to_vec()
    });
    let servers = [(); 2].map(|()| {
        let mut command = Command::new(binary("redis"));
        command.env("REDIS_URL", format!("redis://{}", redis.addr));
        Example::run("redis", command, address)
    });

    // A token comes back every three seconds: thirty requests would have to take a minute.
    let statuses: Vec<_> = (0..30)
        .map(|at: usize| servers[at % 2].status("GET", "/", ""))
        .collect();
    assert_eq!(statuses[..5], [200; 5]);
    assert!(statuses.contains(&429), "{statuses:?}");
    // Both keep the same client's limits under the same keys.
    let mut socket = TcpStream::connect(redis.addr).unwrap();
    socket.write_all(b"DBSIZE\r\nQUIT\r\n").unwrap();
    let mut keys = String::new();
    socket.read_to_string(&mut keys).unwrap();
    assert_eq!(keys, ":3\r\n+OK\r\n");

    drop(redis);
    for _ in 0..10 {
        let status = servers[0].status("GET", "/", "");
        assert!([200, 429].contains(&status), "{status}");
    }
}
