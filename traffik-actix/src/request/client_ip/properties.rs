//! Whatever a client sends, a proxy is understood.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// Bytes that a header may have, those of the grammar more often than others.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            &b"\""[..],
            b"\\",
            b",",
            b";",
            b" ",
            b"=",
            b"for=9.9.9.9",
            b"for=\"9.9.9.9\"",
            b"for=10.0.0.2",
            b"9.9.9.9",
            b"10.0.0.2",
            b"by=",
            b"\xe9",
        ])
        .prop_map(<[u8]>::to_vec),
        prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8].prop_map(|byte| vec![byte]),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// In quotes, with those bytes escaped that must be, and some others.
fn quoted(text: &[u8], more: u8) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for byte in text {
        if matches!(byte, b'"' | b'\\') || byte & 7 == more {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    quoted
}

fn map(name: &'static str, lines: &[Vec<u8>]) -> HeaderMap {
    let lines = lines.iter().map(|line| {
        let value = HeaderValue::from_bytes(line).expect("bytes of a header");
        (HeaderName::from_static(name), value)
    });
    lines.collect()
}

fn real() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(|address| IpAddr::from(address).to_canonical()),
    ]
    .prop_filter("a proxy", |address| !behind_proxies().is_trusted(*address))
}

fn behind_proxies() -> ClientIp {
    ClientIp::peer().trust(["10.0.0.0/8"]).expect("a network")
}

proptest! {
    /// Issue 9.6 and 9.7: a client chose the `Host` that its proxy quoted, or a byte to the left of it.
    #[test]
    fn a_proxy_is_believed_whatever_the_client_chose(
        sent in prop::collection::vec(bytes(), 0..3),
        host in bytes(),
        more in 0..8_u8,
        real in real(),
        host_first: bool,
        own_line: bool,
        two_proxies: bool,
    ) {
        let node = match real {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]:4711\""),
        };
        let host = [b"host=".to_vec(), quoted(&host, more)].concat();
        let mut element = match host_first {
            true => [&host, &b";"[..], node.as_bytes()].concat(),
            false => [node.as_bytes(), b";", &host].concat(),
        };
        if two_proxies {
            element = [&element, &b", for=10.9.9.9;"[..], &host].concat();
        }
        let mut lines = sent;
        match lines.last_mut() {
            Some(line) if !own_line => *line = [line, &b", "[..], &element].concat(),
            _ => lines.push(element),
        }
        let headers = map("forwarded", &lines);
        let client_ip = behind_proxies().header(ProxyHeader::Forwarded);
        prop_assert_eq!(client_ip.forwarded(&headers, Some(PROXY)), Some(real));
    }

    #[test]
    fn the_last_of_a_list_is_believed_whatever_is_to_the_left(
        sent in prop::collection::vec(bytes(), 0..3),
        real in real(),
        hops: bool,
    ) {
        let mut lines = sent;
        let element = real.to_string().into_bytes();
        match lines.last_mut() {
            Some(line) => *line = [line, &b","[..], &element].concat(),
            None => lines.push(element),
        }
        let headers = map("x-forwarded-for", &lines);
        let client_ip = match hops {
            true => ClientIp::peer().trust_hops(1),
            false => behind_proxies(),
        };
        prop_assert_eq!(client_ip.forwarded(&headers, Some(PROXY)), Some(real));
    }

    /// A client without a proxy is nobody else, and reading what it sent does not panic.
    #[test]
    fn nothing_that_is_sent_panics(sent in prop::collection::vec(bytes(), 0..3)) {
        for header in [ProxyHeader::Forwarded, ProxyHeader::XForwardedFor, ProxyHeader::XRealIp] {
            let headers = map(header.name(), &sent);
            let everything = ClientIp::peer().trust_hops(255).header(header);
            let _ = everything.forwarded(&headers, Some(PROXY));
            prop_assert!(!ClientIp::peer().header(header).believes(Some(PROXY)));
        }
    }
}
