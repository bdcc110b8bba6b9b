//! What an address is written like, who it counts as, and which networks may be trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use traffik_core::{Error, Result};

/// The address of a hop: `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80`, or with a port that is
/// obfuscated, `1.2.3.4:_p` (RFC 7239, section 6).
pub(super) fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port_fits = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        let address: Ipv6Addr = address.parse().ok()?;
        return port_fits.then(|| address.to_canonical());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = text.split_once(':')?;
    let address: Ipv4Addr = address.parse().ok()?;
    is_port(port).then_some(address.into())
}

fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !name.is_empty() && name.bytes().all(allowed)
        }
        None => text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok(),
    }
}

/// Who an IPv6 address counts as, if not as its prefix: whoever has an IPv4 address has one of these,
/// and the prefix of each is everybody's, so that all of them would be one client (CVE-2026-30827 of
/// express-rate-limit).
///
/// That is for counting only, never for trust: but for the first, the address inside is what a network
/// or a host elsewhere says about somebody, and `2002:7f00:1::5` is not this machine. Forms whose prefix
/// belongs to one site (ISATAP, NAT64 under a prefix of one's own) are not here: their hosts choose the
/// rest, and would be as many clients as they like.
pub(super) fn counts_as(address: Ipv6Addr) -> Option<IpAddr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        Some(IpAddr::V4(Ipv4Addr::from(
            u32::from(high) << 16 | u32::from(low),
        )))
    };
    // Nobody has an address in 0.0.0.0/8: `::` and `::1` are no IPv4 addresses.
    let is_host = g > 0xff;
    match [a, b, c, d, e, f] {
        // RFC 4291, section 2.5.5.2: IPv4-mapped, what dual-stack sockets write.
        [0, 0, 0, 0, 0, 0xffff] => v4(g, h),
        // RFC 2765, section 2.1: IPv4-translated, `::ffff:0:a.b.c.d`.
        [0, 0, 0, 0, 0xffff, 0] => v4(g, h),
        // RFC 4291, section 2.5.5.1: IPv4-compatible, `::a.b.c.d`.
        [0, 0, 0, 0, 0, 0] if is_host => v4(g, h),
        // RFC 6052, section 2.1: the well-known prefix of NAT64, `64:ff9b::a.b.c.d`.
        [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h),
        // RFC 8215: NAT64 in the network at hand, with a /96 of it, `64:ff9b:1::a.b.c.d`.
        [0x64, 0xff9b, 1, _, 0, 0] if is_host => v4(g, h),
        // In which other bits it may put the address (RFC 6052, section 2.2) only it knows, but its
        // translator writes all of them: each is one client.
        [0x64, 0xff9b, 1, ..] => Some(address.into()),
        // RFC 3056, section 2: 6to4, `2002:aabb:ccdd::/48`.
        [0x2002, high, low, ..] => v4(high, low),
        // RFC 4380, section 4: Teredo, with all bits of the address flipped.
        [0x2001, 0, ..] => v4(!g, !h),
        _ => None,
    }
}

/// Networks in which everybody has an address or can have one, and how.
const EVERYBODY: [(IpNet, &str); 8] = [
    (
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        "every IPv4 address there is",
    ),
    (
        v6([0, 0, 0, 0, 0, 0xffff], 96),
        "every IPv4 address there is, as dual-stack sockets write it",
    ),
    (
        v6([0x2000, 0, 0, 0, 0, 0], 3),
        "every IPv6 address there is",
    ),
    (
        v6([0x64, 0xff9b, 0, 0, 0, 0], 96),
        "every IPv4 address there is, translated by NAT64",
    ),
    (
        v6([0x64, 0xff9b, 1, 0, 0, 0], 48),
        "every IPv4 address there is, translated by NAT64",
    ),
    (
        v6([0, 0, 0, 0, 0xffff, 0], 96),
        "every IPv4 address there is, translated",
    ),
    (
        v6([0x2002, 0, 0, 0, 0, 0], 16),
        "every IPv4 address there is, as 6to4",
    ),
    (
        v6([0x2001, 0, 0, 0, 0, 0], 32),
        "every IPv4 address there is, as Teredo",
    ),
];

const fn v6([a, b, c, d, e, f]: [u16; 6], prefix: u8) -> IpNet {
    let address = Ipv6Addr::new(a, b, c, d, e, f, 0, 0);
    IpNet::V6(Ipv6Net::new_assert(address, prefix))
}

/// A network of proxies, written like the peers of sockets are.
///
/// # Errors
///
/// If the text is no network, or nobody could be in it.
pub(super) fn network(text: &str) -> Result<IpNet> {
    let network: IpNet = text
        .parse()
        .or_else(|_| text.parse().map(IpAddr::into))
        .map_err(|_| {
            Error::invalid(format!(
                "{text:?} is neither an address nor a network such as `10.0.0.0/8`"
            ))
        })?;
    let network = as_a_socket_would(network);
    if network.addr().is_unspecified() && network.prefix_len() == network.max_prefix_len() {
        return Err(Error::invalid(format!(
            "{text:?} is what a socket listens on, and no proxy has that address: trust the addresses \
             that your proxies connect from"
        )));
    }
    Ok(network)
}

/// IPv4 networks within `::ffff:0:0/96` as such.
fn as_a_socket_would(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else {
        return network;
    };
    let mapped = v6.addr().to_ipv4_mapped();
    let unwrapped = mapped
        .zip(v6.prefix_len().checked_sub(96))
        .and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    unwrapped.map_or(network, IpNet::V4)
}

/// That these networks are not everybody's: then the client would be whoever it says it is.
///
/// # Errors
///
/// If they are; `text` is what was added last.
pub(super) fn refuse_everybody(text: &str, networks: &Vec<IpNet>) -> Result<()> {
    // Two halves are a whole.
    for network in IpNet::aggregate(networks) {
        let everybody = EVERYBODY.iter().find(|(all, _)| network.contains(all));
        if let Some((all, how)) = everybody {
            return Err(Error::invalid(format!(
                "with {text:?} the trusted networks cover {all}, {how}, so that each client could \
                 name itself as it likes: trust the networks of your proxies only, or count them \
                 with `trust_hops`"
            )));
        }
    }
    Ok(())
}
