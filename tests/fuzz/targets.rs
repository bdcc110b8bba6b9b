//! Everything that reads what others send, as functions of bytes: none may panic, and what they understand
//! must hold together. The same functions are run by proptest here, and by `cargo fuzz` in `fuzz/`.

use std::net::SocketAddr;

use actix_web::http::header::HeaderValue;
use actix_web::test::TestRequest;
use traffik_actix::{ClientIp, ProxyHeader};
use traffik_core::strategy::{NAMES, named};
use traffik_core::{Attributes, Cell, Hit, Rate, Timestamp};

pub(super) type Target = fn(&[u8]);

/// Each by its name.
pub(super) const TARGETS: [(&str, Target); 5] = [
    ("rate", rate),
    ("strategy", strategy),
    ("cell", cell),
    ("forwarded", forwarded),
    ("x_forwarded_for", x_forwarded_for),
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
    let strategy = named(NAMES[usize::from(*choice) % NAMES.len()]).expect("a name");
    let now = Timestamp::from_micros(u64::from_be_bytes(*time) >> 11);
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
