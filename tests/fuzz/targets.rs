//! Everything that reads what others send, as functions of bytes: none may panic, and what they understand
//! must hold together. The same functions are run by proptest here, and by `cargo fuzz` in `fuzz/`.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::FromRequest;
use actix_web::http::header::HeaderValue;
use actix_web::test::TestRequest;
use actix_web::web::Payload;
use traffik_actix::actix_ws::{self, AggregatedMessage};
use traffik_actix::{ClientIp, HttpThrottle, LimitsFile, ProxyHeader, Reloaded, WsThrottle};
use traffik_core::strategy::{NAMES, named};
use traffik_core::testing::replies;
use traffik_core::{Attributes, Cell, Hit, Rate, Timestamp};

pub(super) type Target = fn(&[u8]);

/// Each by its name.
pub(super) const TARGETS: [(&str, Target); 9] = [
    ("rate", rate),
    ("strategy", strategy),
    ("cell", cell),
    ("forwarded", forwarded),
    ("x_forwarded_for", x_forwarded_for),
    ("redis_reply", redis_reply),
    ("memcached_value", memcached_value),
    ("websocket", websocket),
    ("limits", limits),
];

/// A rate that is understood says the same when it is told and read again.
pub(super) fn rate(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let _ = Rate::parse_period(text);
    if let Ok(rate) = Rate::parse(text) {
        let told = rate.to_string();
        let again = Rate::parse(&told).unwrap_or_else(|error| panic!("{told}: {error}"));
        assert!(again.same_rate(&rate), "{text} is {rate}, is {again}");
    }
}

/// Options that are understood make a strategy that decides.
pub(super) fn strategy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(strategy) = named(text) else {
        return;
    };
    let rate = Rate::per_minute(10);
    let mut cell = Cell::fresh();
    for cost in [0, 1, u32::MAX] {
        let hit = Hit {
            now: Timestamp::from_micros(1_704_067_200_000_000),
            rate: &rate,
            cost,
            attributes: &Attributes::NONE,
        };
        let decision = strategy.step(&mut cell, &hit);
        assert!(
            decision.remaining() <= decision.limit(),
            "{text}: {decision:?}"
        );
    }
}

/// Whatever a store returns decides: the first byte chooses a strategy, eight more a time.
pub(super) fn cell(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else {
        return;
    };
    let Some((time, stored)) = rest.split_first_chunk() else {
        return;
    };
    let cell = Cell::decode(stored);
    assert_eq!(Cell::decode(&cell.encode()), cell);
    let name = NAMES[usize::from(*choice) % NAMES.len()];
    // No time is as large: see what is made of replies of Redis.
    let now = Timestamp::from_micros(u64::from_be_bytes(*time) >> 12);
    decides(name, &cell, now);
}

/// Whatever the cell is, and whenever: a strategy answers, and a denial changes nothing.
fn decides(name: &str, cell: &Cell, now: Timestamp) {
    let strategy = named(name).expect("a name");
    for (rate, cost) in [
        (Rate::per_second(5), 1),
        (Rate::per_day(1_000_000_000), u32::MAX),
    ] {
        let hit = Hit {
            now,
            rate: &rate,
            cost,
            attributes: &Attributes::NONE,
        };
        let mut cell = cell.clone();
        let before = cell.clone();
        let decision = strategy.step(&mut cell, &hit);
        assert!(
            decision.is_allowed() || cell == before,
            "a denial changed the cell"
        );
    }
}

pub(super) fn forwarded(bytes: &[u8]) {
    address(ProxyHeader::Forwarded, "forwarded", bytes);
}

pub(super) fn x_forwarded_for(bytes: &[u8]) {
    address(ProxyHeader::XForwardedFor, "x-forwarded-for", bytes);
}

/// Who is not trusted is who asks, whatever is sent; and so is, behind a proxy, what that says last.
fn address(kind: ProxyHeader, header: &str, bytes: &[u8]) {
    let Ok(sent) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let ask = |peer: &str, values: &[&HeaderValue]| {
        let peer: SocketAddr = peer.parse().expect("an address");
        let trusting = ClientIp::peer().header(kind).trust(["10.0.0.0/8"]);
        let trusting = trusting.expect("networks");
        let mut request = TestRequest::default().peer_addr(peer);
        for value in values {
            request = request.append_header((header, (*value).clone()));
        }
        trusting.address(&request.to_http_request())
    };
    let stranger = ask("192.0.2.1:5", &[&sent]);
    assert_eq!(stranger, Some("192.0.2.1".parse().expect("an address")));
    let _ = ask("10.0.0.1:5", &[&sent]);
    let last = match kind {
        ProxyHeader::Forwarded => HeaderValue::from_static("for=192.0.2.7"),
        _ => HeaderValue::from_static("192.0.2.7"),
    };
    let behind = ask("10.0.0.1:5", &[&sent, &last]);
    assert_eq!(
        behind,
        Some("192.0.2.7".parse().expect("an address")),
        "{sent:?}"
    );
}

/// What Redis answers: the first byte says how much was asked, the rest comes over the wire, or is the
/// answer itself. Either is an error, or times and cells that decide.
pub(super) fn redis_reply(bytes: &[u8]) {
    let Some((asked, wire)) = bytes.split_first() else {
        return;
    };
    let batches: Vec<usize> = (0..=asked >> 6)
        .map(|at| usize::from(asked >> at & 3))
        .collect();
    let mut answer = format!("${}\r\n", wire.len()).into_bytes();
    answer.extend_from_slice(wire);
    answer.extend_from_slice(b"\r\n");
    for wire in [wire, &answer] {
        let _ = (
            replies::time(wire),
            replies::slots(wire, u128::from(*asked)),
        );
        let Ok(answers) = replies::decided(wire, &batches) else {
            continue;
        };
        assert_eq!(answers.len(), batches.len());
        for ((now, cells), operations) in answers.iter().zip(&batches) {
            assert_eq!(cells.len(), *operations);
            let name = NAMES[usize::from(*asked) % NAMES.len()];
            cells.iter().for_each(|cell| decides(name, cell, *now));
        }
    }
}

/// What is stored in Memcached, a counter or a cell: it is stored again as what it was taken for.
pub(super) fn memcached_value(bytes: &[u8]) {
    let Some((choice, value)) = bytes.split_first() else {
        return;
    };
    let name = NAMES[usize::from(*choice) % NAMES.len()];
    let strategy = named(name).expect("a name");
    let now = Timestamp::from_micros(1_704_067_200_000_000);
    for rate in [Rate::per_second(5), Rate::per_day(1_000_000_000)] {
        let (cell, stored, _) = replies::value(&strategy, rate, value, now);
        let (again, stored_again, _) = replies::value(&strategy, rate, &stored, now);
        assert_eq!((again.words(), stored_again), (cell.words(), stored));
        decides(name, &cell, now);
    }
}

/// The most that a message has here.
const MOST_BYTES: usize = 300;

/// The frames of a client become the messages that they are for actix-ws, within bounds.
pub(super) fn websocket(bytes: &[u8]) {
    static LIMITS: LazyLock<WsThrottle> = LazyLock::new(|| {
        let unlimited = HttpThrottle::builder("frames").rate("0/0").build();
        WsThrottle::new(unlimited.expect("valid settings"))
            .max_message_size(MOST_BYTES)
            .max_fragments(4)
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(async {
        let (request, payload) = upgraded(bytes).await;
        let (_response, _session, mut messages) =
            LIMITS.handle(&request, payload).await.expect("an upgrade");
        let (request, payload) = upgraded(bytes).await;
        let (_response, _session, theirs) =
            actix_ws::handle(&request, payload).expect("an upgrade");
        let theirs = theirs.max_frame_size(MOST_BYTES).aggregate_continuations();
        let mut theirs = theirs.max_continuation_size(MOST_BYTES);
        // Whether frames are refused for their number is ours alone to say, and what the message was then.
        while let Some(Ok(message)) = messages.recv().await {
            let is_last = matches!(message, AggregatedMessage::Close(_));
            assert!(size(&message) <= MOST_BYTES, "{message:?}");
            let same = theirs.recv().await;
            assert!(
                matches!(&same, Some(Ok(same)) if *same == message),
                "{message:?}, not {same:?}"
            );
            if is_last {
                return;
            }
        }
    });
}

fn size(message: &AggregatedMessage) -> usize {
    match message {
        AggregatedMessage::Text(text) => text.len(),
        AggregatedMessage::Binary(bytes)
        | AggregatedMessage::Ping(bytes)
        | AggregatedMessage::Pong(bytes) => bytes.len(),
        AggregatedMessage::Close(_) => 0,
    }
}

/// A request for a WebSocket after which these bytes come, and then nothing.
async fn upgraded(bytes: &[u8]) -> (actix_web::HttpRequest, Payload) {
    let (request, mut payload) = TestRequest::default()
        .peer_addr("192.0.2.1:5".parse().expect("an address"))
        .insert_header(("connection", "upgrade"))
        .insert_header(("upgrade", "websocket"))
        .insert_header(("sec-websocket-version", "13"))
        .insert_header(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="))
        .set_payload(bytes.to_vec())
        .to_http_parts();
    let body = Payload::from_request(&request, &mut payload).await;
    (request, body.expect("a payload"))
}

/// A file of limits, in JSON if it begins with a brace: it is understood, and says the same when it is read again, or
/// the mistake is told with where it is.
pub(super) fn limits(bytes: &[u8]) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("traffik-fuzz-{}-{id}.toml", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, bytes).expect("a file");
    let builder = LimitsFile::at(&path);
    let read = match bytes.first() {
        Some(b'{') => builder.format(|text| Ok(serde_json::from_str(text)?)),
        _ => builder,
    };
    match read.rehearse() {
        Ok(file) => holds_together(&file),
        Err(error) => tells_where(&error.to_string(), &path.display().to_string(), bytes),
    }
    std::fs::remove_file(&path).expect("it is ours");
}

fn holds_together(file: &LimitsFile) {
    let summary = file.summary();
    let again = file.reload().unwrap_or_else(|error| panic!("{error}"));
    let Reloaded {
        added,
        changed,
        removed,
        ..
    } = &again;
    let touched = [added, changed, removed];
    assert!(touched.iter().all(|names| names.is_empty()), "{again:?}");
    assert_eq!(file.summary(), summary);
    for (request, path) in [
        (TestRequest::get(), "/"),
        (TestRequest::post(), "/api/orders/7?page=2"),
        (TestRequest::default(), "/%2e%2e//%ff/"),
    ] {
        let request = request
            .uri(path)
            .peer_addr("192.0.2.1:5".parse().expect("an address"))
            .insert_header(("host", "shop.example"))
            .insert_header(("x-api-key", "ann"));
        let request = request.to_http_request();
        let told = file.explain(&request).to_string();
        assert_eq!(file.explain(&request).to_string(), told);
    }
}

/// A mistake begins with the file, and names no line that the file does not have.
fn tells_where(told: &str, path: &str, bytes: &[u8]) {
    let rest = told
        .strip_prefix(path)
        .and_then(|rest| rest.strip_prefix(':'));
    let rest = rest.unwrap_or_else(|| panic!("it does not begin with the file: {told}"));
    let mut numbers = rest.split(':');
    let mut number = || numbers.next()?.parse::<usize>().ok();
    if let (Some(line), Some(column)) = (number(), number()) {
        let lines = bytes.split(|byte| *byte == b'\n').count();
        assert!((1..=lines).contains(&line) && column > 0, "{told}");
    }
}
