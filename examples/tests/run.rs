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
use traffik_actix::Rate;
use traffik_actix::strategy::{self, NAMES};

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

    /// The server with every strategy and backend behind flags.
    fn bench(flags: &str) -> Example {
        Self::start("bench_server", |addr| {
            let flags = format!("{flags} --listen {addr}");
            flags.split(' ').map(str::to_owned).collect()
        })
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
    let example = Example::bench("--rate 3/1s --clock manual --workers 2");
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
    let flags = "--strategy gcra,burst_tolerance=1s --rate 2/s --clock manual --workers 1";
    let example = Example::bench(flags);
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
fn bench_server_tells_tiers_regions_priorities_and_instances_apart() {
    let regions = "--strategy geographic_distribution,regions=eu:0.6|us:0.4,allow_spillover=false";
    let fairness = "--strategy distributed_fairness,instance=a";
    for (flags, answers) in [
        (
            "--strategy tiered_rate,tiers=free:1|gold:1.5 --rate 2/s",
            &[
                ("X-Client-ID: ann", 12, 2),
                ("X-Client-ID: ben\r\nX-Tier: gold", 12, 3),
                ("X-Client-ID: cid\r\nX-Tier: free", 12, 2),
            ][..],
        ),
        (
            &format!("{regions} --rate 10/s"),
            &[
                ("X-Region: eu", 12, 6),
                ("X-Region: us", 12, 4),
                ("X-Region: mars", 12, 0),
            ],
        ),
        (
            "--strategy priority_queue,reserve=high:0.3|critical:0.4 --rate 10/s",
            &[
                ("X-Priority: low", 12, 2),
                ("X-Priority: normal", 12, 1),
                ("X-Priority: 3", 12, 3),
                ("X-Priority: critical", 12, 4),
            ],
        ),
        // Half is kept for each that was seen.
        (
            &format!("{fairness} --rate 10/s"),
            &[("X-Cost: 1", 1, 1), ("X-Instance: b", 12, 5)],
        ),
        (
            "--strategy time_of_day,windows=0-12:3 --rate 2/s",
            &[("X-Tier: unread", 12, 6)],
        ),
    ] {
        let example = Example::bench(&format!("{flags} --clock manual --workers 1"));
        for (headers, hits, admitted) in answers {
            let statuses: Vec<_> = (0..*hits)
                .map(|_| example.status("GET", "/test", &format!("{headers}\r\n")))
                .collect();
            let count = statuses.iter().filter(|status| **status == 200).count();
            assert_eq!(count, *admitted, "{flags}: {headers}: {statuses:?}");
        }
    }
}

#[test]
fn bench_server_says_why_a_header_makes_no_sense() {
    let example = Example::bench("--workers 1");
    let (cost, priority) = (
        "X-Cost must be a whole number from 0 to 4294967295",
        "X-Priority must be low, normal, high, critical or a number from 1 to 4",
    );
    for (header, value, right) in [
        ("x-cost", "abc", cost),
        ("x-cost", "-1", cost),
        ("x-cost", "4294967296", cost),
        ("x-cost", "", cost),
        ("x-priority", "urgent", priority),
        ("x-priority", "-1", priority),
        ("x-priority", "", priority),
    ] {
        let answer = example.send("GET", "/stat", &format!("{header}: {value}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let error = format!(r#"{{"error":"{right}, not \"{value}\"","status":"error"}}"#);
        assert!(answer.ends_with(&error), "{answer}");
    }
}

#[test]
fn bench_server_turns_its_clock_to_the_end_of_time_and_no_further() {
    let example = Example::bench("--clock manual --workers 1");
    let advance = |us: &str| example.send("POST", &format!("/__bench__/clock?{us}"), "");
    for query in [
        "advance_us=9000000000000000000",
        "advance_us=-1",
        "advance_us=",
        "advance=1",
        "",
    ] {
        let answer = advance(query);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{query}: {answer}");
        assert!(answer.contains("write `?advance_us=N` with"), "{answer}");
    }
    // The clock begins with 2024.
    let rest = (1_u64 << 53) - 1_704_067_200_000_000;
    assert!(advance(&format!("advance_us={}", rest + 1)).starts_with("HTTP/1.1 400 "));
    assert!(advance(&format!("advance_us={rest}")).starts_with("HTTP/1.1 200 "));
    assert_eq!(example.status("GET", "/test", ""), 200);
    assert_eq!(example.status("GET", "/stat", ""), 200);

    let answer = Example::bench("--workers 1").send("POST", "/__bench__/clock?advance_us=1", "");
    assert!(
        answer.starts_with("HTTP/1.1 409 ") && answer.contains("--clock manual"),
        "{answer}"
    );
}

/// Runs to its end: what it prints, and what it complains about.
fn ends(name: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary(name)).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn bench_server_refuses_flags_that_make_no_sense() {
    for (flags, complaint) in [
        ("--strategy windows", "there are fixed_window"),
        (
            "--strategy distributed_fairness",
            "the name of an instance must not be empty",
        ),
        (
            "--strategy gcra,burst_tolerance=500",
            "must be a duration such as `500ms`",
        ),
        (
            "--strategy geographic_distribution,regions=eu:0.6|us:0.5",
            "at most 1 together",
        ),
        ("--on-error maybe", "must be one of allow, throttle, raise"),
        ("--fast", "there are --listen, --backend, --fallback"),
        ("-x", "there are --listen, --backend, --fallback"),
        ("--rate 5", "100/minute"),
        (
            "--cost -1",
            "--cost must be a whole number from 0 to 4294967295, not \"-1\"",
        ),
        (
            "--workers 0",
            "--workers must be a whole number from 1 to 1024, not \"0\"",
        ),
        (
            "--workers x",
            "--workers must be a whole number from 1 to 1024, not \"x\"",
        ),
        (
            "--listen localhost",
            "must be an address and a port, such as 127.0.0.1:8080",
        ),
        (
            "--backend mysql",
            "must be memory, redis://HOST or memcached://HOST",
        ),
    ] {
        let args: Vec<_> = flags.split(' ').collect();
        let (code, _, error) = ends("bench_server", &args);
        assert_eq!(code, Some(2), "{flags}: {error}");
        assert!(error.starts_with("bench_server: "), "{flags}: {error}");
        assert!(error.contains(complaint), "{flags}: {error}");
    }
}

#[test]
fn bench_server_says_that_its_port_is_taken() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (code, out, error) = ends("bench_server", &["--listen", &addr]);
    assert_eq!((code, &*out), (Some(2), ""));
    assert!(
        error.starts_with(&format!("bench_server: cannot listen at {addr}: ")),
        "{error}"
    );
}

#[test]
fn examples_say_that_their_port_is_taken() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let redis: &[_] = match cfg!(feature = "redis") {
        true => &["redis"],
        false => &[],
    };
    let names = [
        "quickstart",
        "attribute",
        "middleware",
        "websocket",
        "custom_strategy",
    ];
    for name in names.iter().chain(redis) {
        for addr in [&addr, "--help"] {
            let (code, out, error) = ends(name, &[addr]);
            assert_eq!((code, &*out), (Some(1), ""), "{name}");
            let complaint = format!("cannot listen at {addr}, give another address:port: ");
            assert!(error.contains(&complaint), "{name}: {error}");
        }
    }
}

/// Whoever copies a line of the help gets a strategy.
#[test]
fn bench_server_lists_every_strategy_as_it_is_written() {
    let (_, help, _) = ends("bench_server", &["--help"]);
    let words = help
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let listed: Vec<_> = words
        .filter(|word| {
            NAMES
                .iter()
                .any(|name| word.split(',').next() == Some(name))
        })
        .filter(|word| cfg!(feature = "time-zone") || !word.contains("zone=Europe"))
        .collect();
    for name in NAMES {
        assert!(
            listed.iter().any(|word| word.starts_with(name)),
            "{name}: {help}"
        );
    }
    for text in listed {
        let strategy = strategy::named(text).unwrap();
        strategy.validate(&Rate::per_minute(100)).unwrap();
    }
}

#[test]
fn bench_server_writes_headers_when_it_is_told() {
    for (when, admitted, denied) in [
        ("always", true, true),
        ("throttled", false, true),
        ("never", false, false),
    ] {
        let flags = format!("--headers {when} --rate 1/s --clock manual --workers 1");
        let example = Example::bench(&flags);
        for (status, told) in [("200", admitted), ("429", denied)] {
            let answer = example.send("GET", "/test", "");
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert_eq!(answer.contains("\r\nratelimit: "), told, "{when}: {answer}");
        }
    }
}

#[cfg(any(feature = "redis", feature = "memcached"))]
fn bench_on(url: &str, flags: &str) -> Example {
    Example::bench(&format!(
        "--backend {url} --rate 2/s --clock manual {flags}"
    ))
}

/// Two servers share a limit; when their store is gone, each does what it was told.
#[cfg(any(feature = "redis", feature = "memcached"))]
fn goes_on_without(store: Example, url: &str) {
    let policies = [
        "--on-error allow",
        "--on-error throttle",
        "--on-error raise",
    ];
    let servers = policies.map(|policy| bench_on(url, policy));
    let fallback = bench_on(url, "--on-error raise --fallback memory");
    let hit =
        |server: &Example, who| server.status("GET", "/test", &format!("x-client-id: {who}\r\n"));
    assert_eq!([hit(&servers[0], "ann"), hit(&servers[1], "ann")], [200; 2]);
    assert_eq!([hit(&servers[2], "ann"), hit(&fallback, "ann")], [429; 2]);

    drop(store);
    // Somebody else: a denial that was heard of may be kept in mind until it is over.
    let statuses = servers.each_ref().map(|server| hit(server, "ben"));
    assert_eq!(statuses, [200, 429, 503]);
    let statuses = [(); 3].map(|()| hit(&fallback, "ben"));
    assert_eq!(statuses, [200, 200, 429]);
}

#[cfg(feature = "redis")]
fn redis_server() -> Example {
    Example::run("redis-server", Command::new("redis-server"), |addr| {
        let port = addr.port().to_string();
        ["--port", &port, "--bind", "127.0.0.1", "--save", ""]
            .map(String::from)
            .to_vec()
    })
}

#[cfg(feature = "redis")]
#[test]
fn bench_server_goes_on_without_its_redis() {
    let redis = redis_server();
    let url = format!("redis://{}", redis.addr);
    goes_on_without(redis, &url);
}

#[cfg(feature = "memcached")]
#[test]
fn bench_server_goes_on_without_its_memcached() {
    let memcached = Example::run("memcached", Command::new("memcached"), |addr| {
        let port = addr.port().to_string();
        // It refuses to run as root unless told that this is meant.
        ["-l", "127.0.0.1", "-p", &port, "-U", "0", "-u", "root"]
            .map(String::from)
            .to_vec()
    });
    let url = format!("memcached://{}", memcached.addr);
    goes_on_without(memcached, &url);
}

/// On a Redis of its own.
#[cfg(feature = "redis")]
#[test]
fn redis_shares_three_limits_and_goes_on_without_its_server() {
    let redis = redis_server();
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
