//! Telling clients apart by address, through proxies that can be trusted and others that cannot.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;
use ipnet::IpNet;
use traffik_core::{Error, Identity, Result};

/// The address of a client, as far as it can be believed.
///
/// By default that is the address of the socket. Headers that name another one are read only
/// behind proxies you trust, from the right: the last address that no trusted proxy vouches for.
/// Whatever a client writes to the left of that is ignored. **Behind a proxy, say so**, or all
/// clients are one, the proxy:
///
/// | the server is reached | say |
/// |---|---|
/// | by clients themselves | nothing: [`ClientIp::peer`] |
/// | through proxies at known addresses | [`trust`](ClientIp::trust)`(["10.0.0.0/8"])` |
/// | through a Unix socket, behind nginx | [`trust_unix`](ClientIp::trust_unix)`()` |
/// | through a platform's proxies, at addresses it does not tell | [`trust_hops`](ClientIp::trust_hops)`(1)` |
///
/// IPv6 clients own whole prefixes, so addresses are grouped by `/64` unless
/// [set](ClientIp::ipv6_prefix) otherwise. IPv4 addresses in IPv6 clothing (`::ffff:1.2.3.4`, NAT64's
/// `64:ff9b::/96` and 6to4's `2002::/16`) count as the IPv4 address they carry.
///
/// ```
/// use traffik_actix::{ClientIp, HttpThrottle};
///
/// let client_ip = ClientIp::peer().trust(["10.0.0.0/8", "::1/128"])?;
/// let throttle = HttpThrottle::builder("api")
///     .rate("100/minute")
///     .identify(move |req: &actix_web::HttpRequest| client_ip.identity(req))
///     .build()?;
/// # let _ = throttle;
/// # Ok::<(), traffik_actix::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientIp {
    trusted: Vec<IpNet>,
    unix: bool,
    hops: u8,
    header: ProxyHeader,
    ipv6_prefix: u8,
}

/// The header in which trusted proxies name their client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, a list to which each proxy appends.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), a list to which each proxy appends.
    Forwarded,
    /// `X-Real-IP`, a single address.
    XRealIp,
    /// `True-Client-IP`, a single address.
    TrueClientIp,
    /// `CF-Connecting-IP`, a single address.
    CfConnectingIp,
}

impl ClientIp {
    /// The address of the socket.
    pub const fn peer() -> ClientIp {
        ClientIp {
            trusted: Vec::new(),
            unix: false,
            hops: 0,
            header: ProxyHeader::XForwardedFor,
            ipv6_prefix: 64,
        }
    }

    /// Believes proxies in these networks: `10.0.0.0/8`, `::1/128`, `192.0.2.7`.
    ///
    /// # Errors
    ///
    /// If a text is neither an address nor a network, or if it is a network of everybody: then the
    /// client would be whoever it says it is.
    pub fn trust<'a>(mut self, networks: impl IntoIterator<Item = &'a str>) -> Result<ClientIp> {
        for text in networks {
            self.trusted.push(network(text)?);
        }
        Ok(self)
    }

    /// Believes whoever is at the other end of a Unix socket, such as nginx in front of
    /// [`bind_uds`](actix_web::HttpServer::bind_uds). Such a peer has no address, so that without
    /// this all clients are [anonymous](Identity::ANONYMOUS). Guard the socket by its file mode.
    pub const fn trust_unix(mut self) -> ClientIp {
        self.unix = true;
        self
    }

    /// Believes this many proxies in front of the server, wherever they are: with 1 the client is the
    /// last address in the header, with 2 the last but one. For platforms that do not tell the
    /// addresses of their proxies.
    ///
    /// **Only if nobody reaches the server but through all of them**: whoever does otherwise is believed
    /// too. A number too large believes what clients write; one too small makes a proxy the client.
    /// Name [networks](ClientIp::trust) instead where you can.
    pub const fn trust_hops(mut self, hops: u8) -> ClientIp {
        self.hops = hops;
        self
    }

    /// Reads another header of trusted proxies. Default: `X-Forwarded-For`. Make sure that your proxy
    /// sets exactly this one: others are whatever the client wrote.
    pub const fn header(mut self, header: ProxyHeader) -> ClientIp {
        self.header = header;
        self
    }

    /// Groups IPv6 addresses by a prefix of this many bits, up to 128. Default: 64.
    pub const fn ipv6_prefix(mut self, bits: u8) -> ClientIp {
        self.ipv6_prefix = if bits > 128 { 128 } else { bits };
        self
    }

    /// The client of a request as an identity. Requests without an address, from Unix sockets that
    /// are [not trusted](ClientIp::trust_unix), are [anonymous](Identity::ANONYMOUS).
    #[inline]
    pub fn identity(&self, req: &HttpRequest) -> Identity {
        self.identity_at(self.address(req))
    }

    /// A socket's peer as an identity, whatever headers say.
    pub(crate) fn identity_of(&self, peer: Option<SocketAddr>) -> Identity {
        self.identity_at(peer.map(|peer| canonical(peer.ip())))
    }

    fn identity_at(&self, address: Option<IpAddr>) -> Identity {
        match address {
            Some(address) => Identity::ip(self.group(address)),
            None => Identity::ANONYMOUS,
        }
    }

    /// The address of the client of a request, not grouped.
    #[inline]
    pub fn address(&self, req: &HttpRequest) -> Option<IpAddr> {
        let peer = req.peer_addr().map(|peer| canonical(peer.ip()));
        if self.believes(peer) {
            return self.forwarded(req.headers(), peer);
        }
        UNHEARD.listen(peer, req.headers());
        peer
    }

    /// Whether the peer of a socket may name another client.
    #[inline]
    fn believes(&self, peer: Option<IpAddr>) -> bool {
        self.hops > 0
            || match peer {
                Some(address) => self.is_trusted(address),
                None => self.unix,
            }
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Walks from the nearest hop to the farthest while hops are trusted. Something that is no
    /// address ends the walk: the hop that reported it is then the client.
    fn forwarded(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Option<IpAddr> {
        let mut client = peer;
        // The first hop is the peer.
        let mut hops = self.hops;
        let lines: Vec<&str> = headers
            .get_all(self.header.name())
            .map(|line| line.to_str().unwrap_or(""))
            .collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            let Some(address) = self.header.parse(hop) else {
                break;
            };
            client = Some(address);
            hops = hops.saturating_sub(1);
            if hops == 0 && !self.is_trusted(address) {
                break;
            }
        }
        client
    }

    fn group(&self, address: IpAddr) -> IpAddr {
        let IpAddr::V6(address) = address else {
            return address;
        };
        let mask = u128::MAX
            .checked_shl(128 - u32::from(self.ipv6_prefix))
            .unwrap_or(0);
        IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
    }
}

impl Default for ClientIp {
    fn default() -> Self {
        Self::peer()
    }
}

impl ProxyHeader {
    const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
            Self::XRealIp => "x-real-ip",
            Self::TrueClientIp => "true-client-ip",
            Self::CfConnectingIp => "cf-connecting-ip",
        }
    }

    fn parse(self, hop: &str) -> Option<IpAddr> {
        let node = match self {
            Self::Forwarded => forwarded_for(hop)?,
            _ => hop,
        };
        parse_node(node.trim())
    }
}

fn network(text: &str) -> Result<IpNet> {
    let network: IpNet = text
        .parse()
        .or_else(|_| text.parse().map(IpAddr::into))
        .map_err(|_| {
            Error::invalid(format!(
                "{text:?} is neither an address nor a network such as `10.0.0.0/8`"
            ))
        })?;
    match network.prefix_len() {
        0 => Err(Error::invalid(format!(
            "{text:?} is every address there is, so that each client could name itself as it \
             likes: trust the networks of your proxies only, or count them with `trust_hops`"
        ))),
        _ => Ok(network),
    }
}

/// The `for` parameter of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        name.trim().eq_ignore_ascii_case("for").then(|| {
            value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'))
                .unwrap_or(value)
        })
    })
}

/// `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]` or `[::1]:80`.
fn parse_node(node: &str) -> Option<IpAddr> {
    if let Some(rest) = node.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port_fits = port.is_empty()
            || port
                .strip_prefix(':')
                .is_some_and(|port| port.parse::<u16>().is_ok());
        let address = address.parse::<Ipv6Addr>().ok()?;
        return port_fits.then(|| canonical(address.into()));
    }
    if let Ok(address) = node.parse::<IpAddr>() {
        return Some(canonical(address));
    }
    let (address, port) = node.split_once(':')?;
    port.parse::<u16>().ok()?;
    Some(address.parse::<Ipv4Addr>().ok()?.into())
}

static UNHEARD: Unheard = Unheard::new();

/// Notices a proxy that nobody was told to trust, so that all clients behind it are one.
///
/// It shows in the first requests or never, since a proxy names a client with each of them. Afterwards
/// a request costs one read of a word that no other thread writes.
struct Unheard {
    /// Requests still to be looked at.
    left: AtomicU16,
}

impl Unheard {
    const fn new() -> Unheard {
        Unheard {
            left: AtomicU16::new(10_000),
        }
    }

    #[inline]
    fn listen(&self, peer: Option<IpAddr>, headers: &HeaderMap) {
        if self.left.load(Ordering::Relaxed) > 0
            && let Some(text) = self.look(peer, headers)
        {
            log::warn!("{text}");
        }
    }

    /// What to warn of, once.
    #[cold]
    fn look(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<String> {
        let one_less = |left: u16| left.checked_sub(1);
        let order = Ordering::Relaxed;
        self.left.fetch_update(order, order, one_less).ok()?;
        let header = ["x-forwarded-for", "forwarded"]
            .into_iter()
            .find(|name| headers.contains_key(*name))?;
        let (who, remedy) = match peer {
            Some(address) if is_private(address) => {
                (format!("{address} is"), format!("trust([\"{address}\"])"))
            }
            Some(_) => return None,
            None => (
                "the peers of a Unix socket are".to_owned(),
                "trust_unix()".to_owned(),
            ),
        };
        let first = self.left.swap(0, order) > 0;
        first.then(|| {
            format!(
                "{who} not trusted, so the `{header}` of its requests is ignored and all clients \
                 share its limits: if that is a proxy of yours, identify clients by \
                 `ClientIp::peer().{remedy}`, or by `trust_hops` if its address changes"
            )
        })
    }
}

/// Whether an address is of this machine or a private network, where proxies are.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// The IPv4 address inside an IPv6 one, before any prefix is cut off: otherwise all IPv4 clients
/// of a dual-stack socket would be one client (CVE-2026-30827 of express-rate-limit).
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 =
        |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match [a, b, c, d, e, f] {
        // RFC 6052: the well-known NAT64 prefix.
        [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h),
        // RFC 3056: 6to4.
        [0x2002, high, low, ..] => v4(high, low),
        _ => address.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn client(client_ip: &ClientIp, peer: &str, lines: &[(&str, &str)]) -> String {
        let mut req = TestRequest::default().peer_addr(format!("{peer}:9").parse().unwrap());
        for line in lines {
            req = req.append_header(*line);
        }
        client_ip
            .address(&req.to_http_request())
            .unwrap()
            .to_string()
    }

    fn behind_proxy() -> ClientIp {
        ClientIp::peer().trust(["10.0.0.0/8", "127.0.0.1"]).unwrap()
    }

    #[test]
    fn headers_of_strangers_are_ignored() {
        let spoofed = [("x-forwarded-for", "9.9.9.9"), ("forwarded", "for=9.9.9.9")];
        assert_eq!(client(&ClientIp::peer(), "1.2.3.4", &spoofed), "1.2.3.4");
        assert_eq!(client(&behind_proxy(), "1.2.3.4", &spoofed), "1.2.3.4");
    }

    /// Issue: SPEC 3.26. The leftmost element is what the client wrote.
    #[test]
    fn the_rightmost_untrusted_hop_is_the_client() {
        let one = behind_proxy();
        let xff = |value| client(&one, "10.0.0.1", &[("x-forwarded-for", value)]);
        assert_eq!(xff("9.9.9.9, 1.2.3.4"), "1.2.3.4");
        assert_eq!(xff("9.9.9.9, 1.2.3.4, 10.0.0.2"), "1.2.3.4");
        assert_eq!(xff("1.2.3.4:4711, 10.0.0.2:80"), "1.2.3.4");
        assert_eq!(xff("[2001:db8::1]:80"), "2001:db8::1");
        assert_eq!(xff("10.0.0.3, 10.0.0.2"), "10.0.0.3");
        let two_lines = [
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-for", "1.2.3.4, 10.0.0.2"),
        ];
        assert_eq!(client(&one, "10.0.0.1", &two_lines), "1.2.3.4");
    }

    #[test]
    fn garbage_counts_against_the_hop_that_reported_it() {
        let one = behind_proxy();
        let xff = |value| client(&one, "10.0.0.1", &[("x-forwarded-for", value)]);
        for garbage in [
            "",
            "unknown",
            "1.2.3.4.5",
            "::1%eth0",
            "[::1]x",
            "[::1",
            "1.2.3.4:99999",
            "é",
        ] {
            assert_eq!(xff(garbage), "10.0.0.1", "{garbage:?}");
        }
        assert_eq!(xff("1.2.3.4, unknown, 10.0.0.2"), "10.0.0.2");
    }

    #[test]
    fn reads_the_header_it_was_told_to() {
        let forwarded = behind_proxy().header(ProxyHeader::Forwarded);
        let line = "for=9.9.9.9;proto=http, For=\"[2001:db8::7]:80\";by=10.0.0.1";
        assert_eq!(
            client(&forwarded, "10.0.0.1", &[("forwarded", line)]),
            "2001:db8::7"
        );
        assert_eq!(
            client(&forwarded, "10.0.0.1", &[("forwarded", "for=_hidden")]),
            "10.0.0.1"
        );
        let real = behind_proxy().header(ProxyHeader::XRealIp);
        assert_eq!(
            client(&real, "127.0.0.1", &[("x-real-ip", "1.2.3.4")]),
            "1.2.3.4"
        );
    }

    #[test]
    fn addresses_are_grouped_after_they_are_unwrapped() {
        let one = ClientIp::peer();
        let identity = |peer: &str| {
            let peer = format!("[{peer}]:9").parse().unwrap();
            one.identity(&TestRequest::default().peer_addr(peer).to_http_request())
        };
        assert_eq!(identity("2001:db8::1"), identity("2001:db8::2"));
        assert_ne!(identity("2001:db8::1"), identity("2001:db8:0:1::1"));
        assert_ne!(identity("::ffff:1.2.3.4"), identity("::ffff:1.2.3.5"));
        assert_ne!(identity("64:ff9b::1.2.3.4"), identity("64:ff9b::1.2.3.5"));
        assert_eq!(identity("64:ff9b::1.2.3.4"), identity("::ffff:1.2.3.4"));
        assert_eq!(identity("2002:102:304::7"), identity("::ffff:1.2.3.4"));
        assert_eq!(
            ClientIp::peer()
                .ipv6_prefix(0)
                .group("::1".parse().unwrap()),
            Ipv6Addr::UNSPECIFIED
        );
    }

    #[test]
    fn a_request_without_an_address_is_anonymous() {
        let req = TestRequest::default().to_http_request();
        assert_eq!(ClientIp::peer().identity(&req), Identity::ANONYMOUS);
    }

    #[test]
    fn the_peer_of_a_unix_socket_can_be_trusted() {
        let address = |client_ip: ClientIp, lines: &[(&str, &str)]| {
            let mut req = TestRequest::default();
            for line in lines {
                req = req.append_header(*line);
            }
            client_ip.address(&req.to_http_request())
        };
        let named = [("x-forwarded-for", "9.9.9.9, 1.2.3.4")];
        let named_client = Some(Ipv4Addr::new(1, 2, 3, 4).into());
        assert_eq!(address(ClientIp::peer().trust_unix(), &named), named_client);
        assert_eq!(address(ClientIp::peer().trust_unix(), &[]), None);
        assert_eq!(address(behind_proxy(), &named), None);
        let inet = ClientIp::peer().trust_unix();
        assert_eq!(client(&inet, "10.0.0.1", &named), "10.0.0.1");
    }

    #[test]
    fn hops_are_counted_from_the_right() {
        let xff = |hops, value| {
            let client_ip = ClientIp::peer().trust_hops(hops);
            client(&client_ip, "192.0.2.1", &[("x-forwarded-for", value)])
        };
        let forged = "9.9.9.9, 1.2.3.4, 192.0.2.2";
        assert_eq!(xff(0, forged), "192.0.2.1");
        assert_eq!(xff(1, forged), "192.0.2.2");
        assert_eq!(xff(2, forged), "1.2.3.4");
        assert_eq!(xff(2, "1.2.3.4"), "1.2.3.4");
        assert_eq!(xff(2, "1.2.3.4, garbage"), "192.0.2.1");
        let both = behind_proxy().trust_hops(1);
        let line = [("x-forwarded-for", "9.9.9.9, 1.2.3.4, 10.0.0.2")];
        assert_eq!(client(&both, "192.0.2.1", &line), "1.2.3.4");
    }

    #[test]
    fn a_proxy_that_nobody_trusts_is_noticed_once() {
        let headers = |lines: &[(&'static str, &'static str)]| {
            let lines = lines.iter().map(|(name, value)| {
                (
                    actix_web::http::header::HeaderName::from_static(name),
                    actix_web::http::header::HeaderValue::from_static(value),
                )
            });
            lines.collect::<HeaderMap>()
        };
        let proxied = headers(&[("x-forwarded-for", "1.2.3.4")]);
        let at = |address: &str| Some(address.parse().unwrap());

        let unheard = Unheard::new();
        assert_eq!(unheard.look(at("127.0.0.1"), &headers(&[])), None);
        assert_eq!(unheard.look(at("1.2.3.4"), &proxied), None);
        assert_eq!(
            unheard.look(at("10.0.0.1"), &proxied).unwrap(),
            "10.0.0.1 is not trusted, so the `x-forwarded-for` of its requests is ignored and all \
             clients share its limits: if that is a proxy of yours, identify clients by \
             `ClientIp::peer().trust([\"10.0.0.1\"])`, or by `trust_hops` if its address changes"
        );
        assert_eq!(unheard.look(at("10.0.0.1"), &proxied), None);

        let forwarded = headers(&[("forwarded", "for=1.2.3.4")]);
        let text = Unheard::new().look(None, &forwarded).unwrap();
        assert!(text.contains("trust_unix()"), "{text}");
    }

    #[test]
    fn refuses_what_is_no_network() {
        let error = ClientIp::peer().trust(["10.0.0.0/33"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"10.0.0.0/33\" is neither an address nor a network such as `10.0.0.0/8`"
        );
    }

    #[test]
    fn refuses_to_trust_everybody() {
        for everybody in ["0.0.0.0/0", "::/0"] {
            let error = ClientIp::peer().trust([everybody]).unwrap_err().to_string();
            assert!(error.contains("every address there is"), "{error}");
        }
    }
}
