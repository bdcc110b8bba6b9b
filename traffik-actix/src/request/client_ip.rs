//! Telling clients apart by address, through proxies that can be trusted and others that cannot.

mod address;
mod forwarded;
#[cfg(test)]
mod properties;
mod unheard;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use smallvec::SmallVec;
use traffik_core::{Identity, Result};

use forwarded::Elements;
use unheard::UNHEARD;

use crate::request::networks::Networks;

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
/// [set](ClientIp::ipv6_prefix) otherwise. IPv4 addresses in IPv6 clothing count as the IPv4 address they
/// carry: `::ffff:1.2.3.4` of dual-stack sockets, NAT64 (`64:ff9b::/96`, `64:ff9b:1::/48`), 6to4
/// (`2002::/16`), Teredo (`2001::/32`), `::ffff:0:1.2.3.4` and `::1.2.3.4`. Only the first of these is
/// *trusted* as the IPv4 address, too: a peer `2002:7f00:1::5` is not `127.0.0.1`.
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
    ipv4_prefix: u8,
}

/// The header in which trusted proxies name their client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, a list to which each proxy appends.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), a list to which each proxy appends. A proxy that puts what clients send into
    /// other parameters, such as `host`, must quote and escape it.
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
            ipv4_prefix: 32,
        }
    }

    /// Believes proxies in these networks: `10.0.0.0/8`, `::1/128`, `192.0.2.7`. Those of IPv4 match peers of
    /// dual-stack sockets as well, and may be written as `::ffff:10.0.0.0/104`.
    ///
    /// # Errors
    ///
    /// If a text is neither an address nor a network, or if everybody is in the networks or can be (`::/0`,
    /// `64:ff9b::/96`, `2002::/16`): then the client would be whoever it says it is.
    pub fn trust<'a>(mut self, networks: impl Networks<'a>) -> Result<ClientIp> {
        for text in networks.networks() {
            self.trusted.push(address::network(text)?);
            address::refuse_everybody(text, &self.trusted)?;
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

    /// Groups IPv4 addresses by a prefix of this many bits, up to 32, for limits on whole networks. Default: 32,
    /// which tells all of them apart.
    pub const fn ipv4_prefix(mut self, bits: u8) -> ClientIp {
        self.ipv4_prefix = if bits > 32 { 32 } else { bits };
        self
    }

    /// The client of a request as an identity. Requests without an address, from Unix sockets that
    /// are [not trusted](ClientIp::trust_unix), are [anonymous](Identity::ANONYMOUS).
    #[inline]
    pub fn identity(&self, req: &HttpRequest) -> Identity {
        // Most servers trust nobody, and nearly all of their peers are such: nothing else is looked at.
        if let Some(SocketAddr::V4(peer)) = req.peer_addr()
            && self.hops == 0
            && self.trusted.is_empty()
        {
            if UNHEARD.is_time() {
                UNHEARD.listen(Some(IpAddr::V4(*peer.ip())), req.headers());
            }
            return Identity::ip(IpAddr::V4(self.group_v4(*peer.ip())));
        }
        self.identity_at(self.address(req))
    }

    /// A socket's peer as an identity, whatever headers say.
    pub(crate) fn identity_of(&self, peer: Option<SocketAddr>) -> Identity {
        self.identity_at(peer.map(|peer| peer.ip().to_canonical()))
    }

    fn identity_at(&self, address: Option<IpAddr>) -> Identity {
        match address {
            Some(address) => Identity::ip(self.group(address)),
            None => Identity::ANONYMOUS,
        }
    }

    /// The address of the client of a request, not grouped. `::ffff:1.2.3.4` is `1.2.3.4`, and others are as
    /// they are: what [counts](ClientIp::identity) as an IPv4 address need not be that host.
    #[inline]
    pub fn address(&self, req: &HttpRequest) -> Option<IpAddr> {
        let peer = req.peer_addr().map(|peer| peer.ip().to_canonical());
        if self.believes(peer) {
            return self.forwarded(req.headers(), peer);
        }
        if UNHEARD.is_time() {
            UNHEARD.listen(peer, req.headers());
        }
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

    /// Whether who sent a request may say what clients may not.
    #[cfg(feature = "config")]
    pub(crate) fn believes_peer_of(&self, req: &HttpRequest) -> bool {
        self.believes(req.peer_addr().map(|peer| peer.ip().to_canonical()))
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
        // What was sent in several lines is one list (RFC 9110, section 5.3).
        let lines: SmallVec<[&HeaderValue; 4]> = headers.get_all(self.header.name()).collect();
        let elements = lines
            .iter()
            .rev()
            .flat_map(|line| self.header.elements(line));
        for element in elements.take(self.header.longest()) {
            let Some(address) = self.header.parse(element) else {
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
        let counted = match address {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => match address::counts_as(address) {
                // One that counts as a whole has an IPv4 address somewhere in it, and its prefix is everybody's.
                Some(counted) => counted,
                None => {
                    let mask = u128::MAX
                        .checked_shl(128 - u32::from(self.ipv6_prefix))
                        .unwrap_or(0);
                    IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
                }
            },
        };
        match counted {
            IpAddr::V4(address) => IpAddr::V4(self.group_v4(address)),
            whole => whole,
        }
    }

    #[inline]
    fn group_v4(&self, address: Ipv4Addr) -> Ipv4Addr {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(self.ipv4_prefix))
            .unwrap_or(0);
        Ipv4Addr::from_bits(address.to_bits() & mask)
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

    /// How many addresses there can be. A second one of those that proxies set is a client's.
    const fn longest(self) -> usize {
        match self {
            Self::XForwardedFor | Self::Forwarded => usize::MAX,
            Self::XRealIp | Self::TrueClientIp | Self::CfConnectingIp => 1,
        }
    }

    /// What hops wrote into a line, from the nearest to the farthest.
    fn elements(self, line: &HeaderValue) -> Elements<'_> {
        match self {
            Self::Forwarded => Elements::quoted(line.as_bytes()),
            _ => Elements::plain(line.as_bytes()),
        }
    }

    fn parse(self, element: &[u8]) -> Option<IpAddr> {
        match self {
            Self::Forwarded => address::node(&forwarded::for_parameter(element)?),
            _ => address::node(element),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use actix_web::test::TestRequest;

    use super::*;

    fn client(client_ip: &ClientIp, peer: &str, lines: &[(&str, &str)]) -> String {
        let lines: Vec<_> = lines
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()))
            .collect();
        client_of_bytes(client_ip, peer, &lines)
    }

    fn client_of_bytes(client_ip: &ClientIp, peer: &str, lines: &[(&str, &[u8])]) -> String {
        let peer = SocketAddr::new(peer.parse().unwrap(), 9);
        let mut req = TestRequest::default().peer_addr(peer);
        for (name, value) in lines {
            req = req.append_header((*name, HeaderValue::from_bytes(value).unwrap()));
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

    /// Issue 9.6: elements were split at every comma and semicolon, in quotes or not.
    #[test]
    fn an_element_is_not_split_within_quotes() {
        let forwarded = behind_proxy().header(ProxyHeader::Forwarded);
        for (line, expected) in [
            // What a client wrote into `Host`.
            (
                r#"proto=http;host="x;for=9.9.9.9;y";for=1.2.3.4"#,
                "1.2.3.4",
            ),
            (r#"for=1.2.3.4;host="a,b""#, "1.2.3.4"),
            (r#"for=1.2.3.4;host="a, for=9.9.9.9""#, "1.2.3.4"),
            (r#"for=1.2.3.4;host="\", for=9.9.9.9;x=\"""#, "1.2.3.4"),
            (r#"for=1.2.3.4;host="\\\", for=9.9.9.9""#, "1.2.3.4"),
            (
                r#"for=1.2.3.4;host="a\\", for=10.0.0.2;host="\\\\""#,
                "1.2.3.4",
            ),
            // What it wrote into the header itself.
            (r#"for=injected;by=", for=1.2.3.4"#, "1.2.3.4"),
            (r#"for=9.9.9.9;by="\, for=1.2.3.4;host="a""#, "1.2.3.4"),
            (r#"", for=1.2.3.4, for=10.0.0.2"#, "1.2.3.4"),
            (r#"for="9.9.9.9, for=10.0.0.2"#, "10.0.0.2"),
            // What proxies write.
            (r#"For="[2001:db8:cafe::17]:4711""#, "2001:db8:cafe::17"),
            (r#"for=192.0.2.60;proto=http;by=203.0.113.43"#, "192.0.2.60"),
            (r#"for=192.0.2.43, for=198.51.100.17"#, "198.51.100.17"),
            (r#"for="1.2.3.4:_p""#, "1.2.3.4"),
            (r#"for="1.2.3.4:80""#, "1.2.3.4"),
            (r#"for="[2001:db8::1]:443""#, "2001:db8::1"),
            (r#"for="[2001:db8::1]:_a.b-c""#, "2001:db8::1"),
            (r#"for="\1.2.3\.4""#, "1.2.3.4"),
            (r#"for=[2001:db8::1]:80"#, "2001:db8::1"),
            (r#"for=1.2.3.4:80;host=example.com:8080"#, "1.2.3.4"),
            (r#" for = 1.2.3.4 ; proto = https "#, "1.2.3.4"),
            (r#"proto=https;;for=1.2.3.4;"#, "1.2.3.4"),
            // Empty elements are none.
            (r#"for=1.2.3.4,"#, "1.2.3.4"),
            (r#"for=1.2.3.4, ,, for=10.0.0.2 ,"#, "1.2.3.4"),
            // Nobody that can be told apart: the proxy.
            ("for=unknown", "10.0.0.1"),
            ("for=_hidden", "10.0.0.1"),
            (r#"for="_SEVKISEK:_p""#, "10.0.0.1"),
            (r#"for="1.2.3.4:_""#, "10.0.0.1"),
            (r#"for="1.2.3.4:+80""#, "10.0.0.1"),
            ("proto=http", "10.0.0.1"),
            ("for=9.9.9.9;for=1.2.3.4", "10.0.0.1"),
            (r#"for=9.9.9.9;x"#, "10.0.0.1"),
            (r#"for=9.9.9.9;by=""#, "10.0.0.1"),
            (r#"for=9.9.9.9;by="a"b"#, "10.0.0.1"),
            ("", "10.0.0.1"),
            // Who is beyond somebody that nobody trusts, is no matter.
            ("for=9.9.9.9, for=unknown, for=10.0.0.2", "10.0.0.2"),
        ] {
            let lines = [("forwarded", line)];
            assert_eq!(client(&forwarded, "10.0.0.1", &lines), expected, "{line}");
        }
        let lines = [
            ("forwarded", r#"for=9.9.9.9;by=""#),
            ("forwarded", r#"for=1.2.3.4;host="a,b""#),
            ("forwarded", "for=10.0.0.2"),
        ];
        assert_eq!(client(&forwarded, "10.0.0.1", &lines), "1.2.3.4");
    }

    /// Issue 9.7: one such byte anywhere to the left made the client the proxy.
    #[test]
    fn a_byte_that_is_no_text_spoils_its_own_element_only() {
        let trusted = behind_proxy();
        let hops = ClientIp::peer().trust_hops(1);
        let two = ClientIp::peer().trust_hops(2);
        for (client_ip, line, expected) in [
            (&trusted, &b"\xe9, 1.2.3.4"[..], "1.2.3.4"),
            (&trusted, b"\xff\xfe,1.2.3.4, 10.0.0.2", "1.2.3.4"),
            (&trusted, b"9.9.9.9, \xe9, 10.0.0.2", "10.0.0.2"),
            (&trusted, b"1.2.3.4,", "1.2.3.4"),
            (&trusted, b"1.2.3.4, ,\t,", "1.2.3.4"),
            (&trusted, b",", "10.0.0.1"),
            (&hops, b"\xe9, 1.2.3.4", "1.2.3.4"),
            (&hops, b"9.9.9.9, 1.2.3.4, ,", "1.2.3.4"),
            (&two, b"\xe9, 1.2.3.4, 192.0.2.2", "1.2.3.4"),
            (&two, b"9.9.9.9, 1.2.3.4,, 192.0.2.2", "1.2.3.4"),
        ] {
            let lines = [("x-forwarded-for", line)];
            let found = client_of_bytes(client_ip, "10.0.0.1", &lines);
            assert_eq!(found, expected, "{}", line.escape_ascii());
        }
        let forwarded = behind_proxy().header(ProxyHeader::Forwarded);
        let line = &b"for=\xe9, for=1.2.3.4;host=\"\xe9\""[..];
        let found = client_of_bytes(&forwarded, "10.0.0.1", &[("forwarded", line)]);
        assert_eq!(found, "1.2.3.4");
    }

    /// What a proxy sets is one address: before it is what the client sent.
    #[test]
    fn a_header_of_one_address_is_no_list() {
        let real = behind_proxy().header(ProxyHeader::XRealIp);
        let lines = [("x-real-ip", "9.9.9.9"), ("x-real-ip", "10.0.0.7")];
        assert_eq!(client(&real, "10.0.0.1", &lines), "10.0.0.7");
        let two = ClientIp::peer().trust_hops(2).header(ProxyHeader::XRealIp);
        assert_eq!(client(&two, "10.0.0.1", &lines), "10.0.0.7");
    }

    /// Issue 9.8: what an address counts as was taken for who it is.
    #[test]
    fn only_the_notation_of_sockets_is_trusted_as_an_ipv4_address() {
        let one = behind_proxy();
        let named = [("x-forwarded-for", "9.9.9.9")];
        for (peer, expected) in [
            ("::ffff:10.0.0.1", "9.9.9.9"),
            ("::ffff:127.0.0.1", "9.9.9.9"),
            ("2002:7f00:1::5", "2002:7f00:1::5"),
            ("2002:a00:1::5", "2002:a00:1::5"),
            ("64:ff9b::10.0.0.1", "64:ff9b::a00:1"),
            ("64:ff9b:1::10.0.0.1", "64:ff9b:1::a00:1"),
            ("::ffff:0:10.0.0.1", "::ffff:0:a00:1"),
            ("::10.0.0.1", "::a00:1"),
            ("2001:0:102:304::f5ff:fffe", "2001:0:102:304::f5ff:fffe"),
        ] {
            assert_eq!(client(&one, peer, &named), expected, "peer {peer}");
            let beyond = [("x-forwarded-for", &*format!("9.9.9.9, {peer}"))];
            assert_eq!(client(&one, "10.0.0.9", &beyond), expected, "hop {peer}");
        }
    }

    /// Issue 9.8: of some forms all IPv4 clients were in one /64, and so one client.
    #[test]
    fn every_form_of_an_ipv4_address_counts_as_it() {
        let one = ClientIp::peer();
        let identity = |peer: &str| one.identity_at(Some(peer.parse().unwrap()));
        for [form, neighbour] in [
            ["::ffff:1.2.3.4", "::ffff:1.2.3.5"],
            ["::ffff:0:1.2.3.4", "::ffff:0:1.2.3.5"],
            ["::1.2.3.4", "::1.2.3.5"],
            ["64:ff9b::1.2.3.4", "64:ff9b::1.2.3.5"],
            ["64:ff9b:1::1.2.3.4", "64:ff9b:1::1.2.3.5"],
            ["64:ff9b:1:7::1.2.3.4", "64:ff9b:1:7::1.2.3.5"],
            ["2002:102:304::7", "2002:102:305::7"],
            [
                "2001:0:506:708:8000:63bf:fefd:fcfb",
                "2001:0:506:708:8000:63bf:fefd:fcfa",
            ],
        ] {
            assert_eq!(identity(form), identity("1.2.3.4"), "{form}");
            assert_eq!(identity(neighbour), identity("1.2.3.5"), "{neighbour}");
        }
        // RFC 6052, section 2.2: with prefixes of 48, 56 and 64 bits.
        for [form, neighbour] in [
            ["64:ff9b:1:102:3:400::", "64:ff9b:1:102:3:500::"],
            ["64:ff9b:1:1:2:304::", "64:ff9b:1:1:2:305::"],
            ["64:ff9b:1:0:1:203:400::", "64:ff9b:1:0:1:203:500::"],
        ] {
            assert_ne!(identity(form), identity(neighbour), "{form}");
        }
        // They are no IPv4 addresses, and a client has a whole /64.
        assert_eq!(identity("::1"), identity("::2"));
        assert_ne!(identity("::1"), identity("0.0.0.1"));
        assert_eq!(
            identity("2001:db8::5efe:1.2.3.4"),
            identity("2001:db8::5efe:1.2.3.5")
        );
        assert_eq!(identity("2001:1:102:304::1"), identity("2001:1:102:304::2"));
    }

    #[test]
    fn ipv4_addresses_are_grouped_in_every_form() {
        let group = |bits, peer: &str| {
            let client_ip = ClientIp::peer().ipv6_prefix(48).ipv4_prefix(bits);
            client_ip.group(peer.parse().unwrap()).to_string()
        };
        for (bits, peer, expected) in [
            (0, "203.0.113.77", "0.0.0.0"),
            (1, "203.0.113.77", "128.0.0.0"),
            (24, "203.0.113.77", "203.0.113.0"),
            (31, "203.0.113.77", "203.0.113.76"),
            (32, "203.0.113.77", "203.0.113.77"),
            (255, "203.0.113.77", "203.0.113.77"),
            (24, "::ffff:203.0.113.77", "203.0.113.0"),
            (24, "64:ff9b::203.0.113.77", "203.0.113.0"),
            (24, "2002:cb00:714d::7", "203.0.113.0"),
            // As a whole, whatever the prefix: where the IPv4 address is in it nobody knows.
            (24, "64:ff9b:1:102:3:400::", "64:ff9b:1:102:3:400::"),
            (24, "2001:db8:7:8::9", "2001:db8:7::"),
        ] {
            assert_eq!(group(bits, peer), expected, "{peer} by {bits}");
        }
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
    fn refuses_what_is_no_network() {
        let error = ClientIp::peer().trust(["10.0.0.0/33"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"10.0.0.0/33\" is neither an address nor a network such as `10.0.0.0/8`"
        );
    }

    /// Issue 9.8: they were accepted and never matched.
    #[test]
    fn networks_are_written_as_peers_are() {
        let named = [("x-forwarded-for", "9.9.9.9")];
        for (network, peer) in [
            ("::ffff:10.0.0.0/104", "10.1.2.3"),
            ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", "::ffff:10.0.0.1"),
            ("10.0.0.1/8", "10.1.2.3"),
            ("64:ff9b::10.0.0.0/104", "64:ff9b::10.1.2.3"),
            ("2002:a00::/24", "2002:a01:203::1"),
            ("::1", "::1"),
            ("2001:db8::/32", "2001:db8::1"),
        ] {
            let client_ip = ClientIp::peer().trust([network]).unwrap();
            assert_eq!(client(&client_ip, peer, &named), "9.9.9.9", "{network}");
        }
    }

    #[test]
    fn refuses_to_trust_everybody() {
        for everybody in [
            &["0.0.0.0/0"][..],
            &["::/0"],
            &["::/1"],
            &["2000::/3"],
            &["::/8"],
            &["::ffff:0:0/96"],
            &["::ffff:0:0/90"],
            &["64:ff9b::/96"],
            &["64:ff9b::/32"],
            &["64:ff9b:1::/48"],
            &["::ffff:0:0:0/96"],
            &["2002::/16"],
            &["2001::/32"],
            &["0.0.0.0/1", "128.0.0.0/1"],
            &["10.0.0.0/8", "::ffff:0.0.0.0/97", "::ffff:128.0.0.0/97"],
            &["64:ff9b::/97", "64:ff9b::8000:0/97"],
        ] {
            let refused = ClientIp::peer().trust(everybody.iter().copied());
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("address there is"), "{error}");
        }
        assert_eq!(
            ClientIp::peer()
                .trust(["2002::/16"])
                .unwrap_err()
                .to_string(),
            "with \"2002::/16\" the trusted networks cover 2002::/16, every IPv4 address there is, as \
             6to4, so that each client could name itself as it likes: trust the networks of your proxies \
             only, or count them with `trust_hops`"
        );
        for nobody in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
            let error = ClientIp::peer().trust([nobody]).unwrap_err().to_string();
            assert!(error.contains("no proxy has that address"), "{error}");
        }
    }
}
