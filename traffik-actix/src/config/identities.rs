//! Who asks, as a file says it.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::{FORWARDED, HeaderName};
use traffik_core::{Error, Identity};

use super::document::{Mistake, Place, Read};
use super::parts::{Parts, TierOf};
use super::reader::{Table, Text, unknown};
use crate::request::client_ip::{ClientIp, ProxyHeader};
use crate::request::source::Source;

/// Whom a file believes about addresses, hosts and tiers.
#[derive(Clone)]
pub(super) struct Proxies {
    pub(super) client_ip: ClientIp,
    /// In which header they tell the host that was asked for.
    pub(super) host_header: Option<HeaderName>,
    said: String,
    is_said: bool,
}

/// An identity of a file.
#[derive(Clone)]
pub(super) struct Who {
    pub(super) source: Source<Identity>,
    pub(super) words: String,
    /// All that it depends on.
    pub(super) said: String,
}

/// What an identity is found in.
#[derive(Clone, Copy)]
enum Kind {
    Ip,
    Header,
    Function,
}

const HEADER: &str = "the name of a header such as \"x-api-key\"";
const FUNCTION: &str = "the name under which the program registers a function";

/// The identities of a file, by name.
pub(super) struct Identities<'a>(Vec<(&'a str, Who)>);

impl Proxies {
    fn none(is_said: bool) -> Proxies {
        Proxies {
            client_ip: ClientIp::peer(),
            host_header: None,
            said: String::new(),
            is_said,
        }
    }

    pub(super) fn read(file: &Table<'_>) -> Proxies {
        let Some(node) = file.get("proxies") else {
            return Proxies::none(false);
        };
        // In the stead of what is not understood, so that nobody is told to say something.
        let unread = Proxies::none(true);
        let Some(entries) = file.table("proxies", "a table with `trust = [\"10.0.0.0/8\"]`") else {
            return unread;
        };
        let table = file.another("proxies".to_owned(), node.place, entries);
        let client_ip = client_ip(&table);
        let host_header = header_name(&table, "host_header");
        // Its hosts are written `host=..`, so that no rule would be met.
        if let Some(node) = table.get("host_header")
            && host_header.as_ref().is_some_and(|name| name == FORWARDED)
        {
            let must = "a header that has the host alone, such as \"x-forwarded-host\"";
            table.tell(table.wrong("host_header", node, must));
        }
        table.finish();
        match table.is_mistaken() {
            true => unread,
            false => Proxies {
                client_ip,
                host_header,
                said: node.said(),
                is_said: true,
            },
        }
    }

    /// Whether somebody whom the file believes sent a request.
    pub(super) fn sent(&self, req: &HttpRequest) -> bool {
        self.client_ip.believes_peer_of(req)
    }

    fn by_address(&self) -> Who {
        let client_ip = self.client_ip.clone();
        let words = match self.is_said {
            true => "the address that trusted proxies tell",
            false => "the address of the socket",
        };
        Who {
            source: Source::sync("identity", move |req: &HttpRequest| client_ip.identity(req)),
            words: words.to_owned(),
            said: format!("ip {}", self.said),
        }
    }

    /// The same, or the networks of addresses.
    fn by_network(&self, table: &Table<'_>) -> Who {
        let (client_ip, networks) = prefixed(table, self.client_ip.clone());
        let around = Proxies {
            client_ip,
            ..self.clone()
        };
        let mut who = around.by_address();
        who.words.push_str(&networks);
        who.said.push_str(&networks);
        who
    }
}

/// Whom `[proxies]` believes, and in which header.
fn client_ip(table: &Table<'_>) -> ClientIp {
    let mut client_ip = ClientIp::peer();
    let networks = table.texts("trust", "networks such as [\"10.0.0.0/8\"]");
    for (network, at) in &networks {
        let trusted = client_ip.clone().trust([*network]);
        let trusted = trusted.map_err(|error| Mistake::at(*at, error));
        client_ip = table.note(trusted).unwrap_or(client_ip);
    }
    let unix = table.flag("trust_unix") == Some(true);
    if unix {
        client_ip = client_ip.trust_unix();
    }
    let hops = table.number(
        "trust_hops",
        0..=255,
        "how many proxies there are, 255 at most",
    );
    let hops = hops.unwrap_or(0);
    client_ip = client_ip.trust_hops(hops);
    if networks.is_empty() && !unix && hops == 0 && !table.is_mistaken() {
        table.refuse(
            "it says whom to believe: `trust = [\"10.0.0.0/8\"]`, `trust_unix = true` or `trust_hops = 1`",
        );
    }
    let headers = [
        ("x-forwarded-for", ProxyHeader::XForwardedFor),
        ("forwarded", ProxyHeader::Forwarded),
        ("x-real-ip", ProxyHeader::XRealIp),
        ("true-client-ip", ProxyHeader::TrueClientIp),
        ("cf-connecting-ip", ProxyHeader::CfConnectingIp),
    ];
    if let Some(header) = table.choice("header", &headers) {
        client_ip = client_ip.header(header);
    }
    prefixed(table, client_ip).0
}

/// How much of an address is looked at, and the same in words.
fn prefixed(table: &Table<'_>, mut client_ip: ClientIp) -> (ClientIp, String) {
    let mut words = String::new();
    if let Some(bits) = table.number("ipv4_prefix", 0..=32, "a number of bits, 32 at most") {
        client_ip = client_ip.ipv4_prefix(bits);
        words.push_str(&format!(", IPv4 by /{bits}"));
    }
    if let Some(bits) = table.number("ipv6_prefix", 0..=128, "a number of bits, 128 at most") {
        client_ip = client_ip.ipv6_prefix(bits);
        words.push_str(&format!(", IPv6 by /{bits}"));
    }
    (client_ip, words)
}

impl<'a> Identities<'a> {
    pub(super) fn read(file: &Table<'a>, proxies: &Proxies, parts: &Parts) -> Identities<'a> {
        let mut all = Identities(Vec::new());
        let mut waiting = file.tables("identity");
        // Those that name another after it, whatever their order in the file.
        while !waiting.is_empty() {
            let names: Vec<&str> = waiting.iter().map(|(name, ..)| *name).collect();
            let is_ready = |table: &Table<'_>| {
                !table
                    .peek("otherwise")
                    .is_some_and(|name| names.contains(&name))
            };
            let Some(next) = waiting.iter().position(|(_, _, table)| is_ready(table)) else {
                let (_, _, table) = &waiting[0];
                let what = "`otherwise` leads back to itself: one of them must do without";
                table.refuse(what);
                let rest = waiting.iter();
                all.0
                    .extend(rest.map(|(name, ..)| (*name, proxies.by_address())));
                for (_, _, table) in &waiting {
                    all.one(table, proxies, parts);
                }
                return all;
            };
            let (name, _, table) = waiting.remove(next);
            let who = all.one(&table, proxies, parts);
            // In the stead of one that is not understood, so that its name is known.
            let who = who.unwrap_or_else(|| proxies.by_address());
            all.0.push((name, who));
        }
        all
    }

    /// Nothing if there are mistakes, of which all are told.
    fn one(&self, table: &Table<'_>, proxies: &Proxies, parts: &Parts) -> Option<Who> {
        let kinds = [
            ("ip", Kind::Ip),
            ("header", Kind::Header),
            ("function", Kind::Function),
        ];
        let kind = table.required_choice("from", &kinds);
        let who = kind.and_then(|kind| match kind {
            Kind::Ip => Some(proxies.by_network(table)),
            Kind::Header => self.by_header(table),
            Kind::Function => by_function(table, parts),
        });
        let tier = tier(table, proxies, parts);
        // Which keys it has depends on its kind.
        if kind.is_some() {
            table.finish();
        }
        let who = who.filter(|_| !table.is_mistaken())?;
        Some(match tier {
            Some((tier, words)) => who.with_tier(tier, &words, proxies),
            None => who,
        })
    }

    fn by_header(&self, table: &Table<'_>) -> Option<Who> {
        table.require("header", HEADER);
        let name = header_name(table, "header");
        let otherwise = table.text(
            "otherwise",
            "the name of an identity, for requests without the header",
        );
        let otherwise = otherwise.and_then(|named| table.note(self.named(named)));
        let name = name?;
        let (words, said) = match &otherwise {
            Some(other) => (
                format!("the header `{name}`, else {}", other.words),
                format!("header {name} else {}", other.said),
            ),
            None => (
                format!("the header `{name}`, and 400 without it"),
                format!("header {name}"),
            ),
        };
        let source = move |req: &HttpRequest| match req.headers().get(&name) {
            Some(value) => Ok(Identity::of(format_args!("{name}:{value:?}"))),
            None => match otherwise.as_ref().and_then(|who| who.source.now(req)) {
                Some(identity) => identity,
                None => Err(Error::unresolved(
                    "the header that says who asks is missing",
                )),
            },
        };
        Some(Who {
            source: Source::Sync(Arc::new(source)),
            words,
            said,
        })
    }

    fn named(&self, (name, at): Text<'_>) -> Read<Who> {
        match self.0.iter().find(|(other, _)| *other == name) {
            Some((_, who)) => Ok(who.clone()),
            None => {
                let known = self.0.iter().map(|(name, _)| *name);
                Err(Mistake::at(at, unknown("identity", name, known)))
            }
        }
    }

    /// The identity of a throttle, unless it is what the backend says.
    pub(super) fn of_throttle(
        &self,
        named: Option<Text<'_>>,
        proxies: &Proxies,
    ) -> Read<Option<Who>> {
        match named {
            Some(named) => self.named(named).map(Some),
            None => match self.0.iter().find(|(name, _)| *name == "default") {
                Some((_, who)) => Ok(Some(who.clone())),
                None => Ok(proxies.is_said.then(|| proxies.by_address())),
            },
        }
    }
}

fn by_function(table: &Table<'_>, parts: &Parts) -> Option<Who> {
    let (name, at) = table.required_text("function", FUNCTION)?;
    Some(Who {
        source: table.note(parts.identity(name, at))?,
        words: format!("what the function `{name}` of the program says"),
        said: format!("function {name}"),
    })
}

/// Tiers are what a function of the program says, or a header of proxies that the file trusts: of a client's own it would be
/// whatever it likes.
fn tier(table: &Table<'_>, proxies: &Proxies, parts: &Parts) -> Option<(TierOf, String)> {
    let function = table.text("tier", FUNCTION);
    let header = header_name(table, "tier_header_of_proxies");
    table.either("tier", "tier_header_of_proxies");
    if let Some((name, at)) = function {
        let tier = table.note(parts.tier(name, at))?;
        return Some((tier, format!("the function `{name}`")));
    }
    let header = header?;
    if !proxies.is_said {
        table.refuse(
            "`tier_header_of_proxies` is believed from trusted proxies only: say which in `[proxies]`, as \
             `trust = [\"10.0.0.0/8\"]`",
        );
    }
    let words = format!("the header `{header}` of trusted proxies");
    let proxies = proxies.clone();
    let tier = move |req: &HttpRequest| {
        // As of an address that a proxy sets: before it is what the client sent.
        let told = req.headers().get_all(&header).next_back();
        let value = told.filter(|_| proxies.sent(req))?;
        value.to_str().ok().map(str::to_owned)
    };
    Some((Arc::new(tier), words))
}

impl Who {
    fn with_tier(self, tier: TierOf, words: &str, proxies: &Proxies) -> Who {
        let who = self.source;
        let source = move |req: &HttpRequest| {
            let identity = who
                .now(req)
                .unwrap_or_else(|| Err(Error::unresolved("who asks has to be waited for")))?;
            Ok(match tier(req) {
                Some(tier) => identity.tier(tier),
                None => identity,
            })
        };
        Who {
            source: Source::Sync(Arc::new(source)),
            words: format!("{}; tier by {words}", self.words),
            said: format!("{} tier {words} {}", self.said, proxies.said),
        }
    }
}

fn header_name(table: &Table<'_>, key: &'static str) -> Option<HeaderName> {
    let (text, at) = table.text(key, HEADER)?;
    table.note(named_header(text, at))
}

pub(super) fn named_header(text: &str, at: Option<Place>) -> Read<HeaderName> {
    HeaderName::try_from(text).map_err(|_| {
        let what = format!("{text:?} is no name of a header: it has letters, digits and `-` only, such as \"x-api-key\"");
        Mistake::at(at, what)
    })
}
