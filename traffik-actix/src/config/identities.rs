//! Who asks, as a file says it.

use actix_web::HttpRequest;
use actix_web::http::header::{FORWARDED, HeaderName};
use traffik_core::{Error, Identity};

use super::document::{Mistake, Node, Place, Read};
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
        let read = Self::table(file, node);
        // In the stead of what is not understood, so that nobody is told to say something.
        file.note(read).unwrap_or_else(|| Proxies::none(true))
    }

    fn table(file: &Table<'_>, node: &Node) -> Read<Proxies> {
        let entries = file.table("proxies", "a table with `trust = [\"10.0.0.0/8\"]`")?;
        let entries = entries.unwrap_or_default();
        let table = file.another("proxies".to_owned(), node.place, entries);
        let mut client_ip = ClientIp::peer();
        let networks = table.texts("trust", "networks such as [\"10.0.0.0/8\"]")?;
        for (network, at) in &networks {
            let trusted = client_ip.trust([*network]);
            client_ip = trusted.map_err(|error| Mistake::at(*at, error))?;
        }
        let unix = table.flag("trust_unix")? == Some(true);
        let hops = table.count("trust_hops")?.unwrap_or(0);
        let Ok(few) = u8::try_from(hops) else {
            return Err(
                table.mistake("`trust_hops` must be how many proxies there are, 255 at most")
            );
        };
        if networks.is_empty() && !unix && hops == 0 {
            return Err(table.mistake(
                "it says whom to believe: `trust = [\"10.0.0.0/8\"]`, `trust_unix = true` or `trust_hops = 1`",
            ));
        }
        if unix {
            client_ip = client_ip.trust_unix();
        }
        client_ip = client_ip.trust_hops(few);
        let headers = [
            ("x-forwarded-for", ProxyHeader::XForwardedFor),
            ("forwarded", ProxyHeader::Forwarded),
            ("x-real-ip", ProxyHeader::XRealIp),
            ("true-client-ip", ProxyHeader::TrueClientIp),
            ("cf-connecting-ip", ProxyHeader::CfConnectingIp),
        ];
        if let Some(header) = table.choice("header", &headers)? {
            client_ip = client_ip.header(header);
        }
        if let Some(bits) = bits(&table, "ipv4_prefix", 32)? {
            client_ip = client_ip.ipv4_prefix(bits);
        }
        if let Some(bits) = bits(&table, "ipv6_prefix", 128)? {
            client_ip = client_ip.ipv6_prefix(bits);
        }
        let host_header = header_name(&table, "host_header")?;
        // Its hosts are written `host=..`, so that no rule would be met.
        if host_header.as_ref().is_some_and(|name| name == FORWARDED) {
            return Err(table.mistake(
                "`host_header` must be a header that has the host alone, such as \"x-forwarded-host\", not `forwarded`",
            ));
        }
        table.finish();
        Ok(Proxies {
            client_ip,
            host_header,
            said: node.said(),
            is_said: true,
        })
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
    fn by_network(&self, table: &Table<'_>) -> Read<Who> {
        let mut around = self.clone();
        let mut networks = Vec::new();
        if let Some(bits) = bits(table, "ipv4_prefix", 32)? {
            around.client_ip = around.client_ip.ipv4_prefix(bits);
            networks.push(format!("IPv4 by /{bits}"));
        }
        if let Some(bits) = bits(table, "ipv6_prefix", 128)? {
            around.client_ip = around.client_ip.ipv6_prefix(bits);
            networks.push(format!("IPv6 by /{bits}"));
        }
        let mut who = around.by_address();
        for network in networks {
            who.words.push_str(&format!(", {network}"));
            who.said.push_str(&network);
        }
        Ok(who)
    }
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
                table.refuse(table.mistake(what));
                let rest = waiting.iter();
                all.0
                    .extend(rest.map(|(name, ..)| (*name, proxies.by_address())));
                return all;
            };
            let (name, _, table) = waiting.remove(next);
            let who = table.finished(all.one(&table, proxies, parts));
            // In the stead of one that is not understood, so that its name is known.
            let who = who.unwrap_or_else(|| proxies.by_address());
            all.0.push((name, who));
        }
        all
    }

    fn one(&self, table: &Table<'_>, proxies: &Proxies, parts: &Parts) -> Read<Who> {
        let kinds = [("ip", 0), ("header", 1), ("function", 2)];
        let who = match table.choice("from", &kinds)? {
            Some(0) => proxies.by_network(table)?,
            Some(1) => self.by_header(table)?,
            Some(_) => by_function(table, parts)?,
            None => {
                return Err(table.mistake("`from` is missing: \"ip\", \"header\" or \"function\""));
            }
        };
        with_tier(who, table, proxies, parts)
    }

    fn by_header(&self, table: &Table<'_>) -> Read<Who> {
        let Some(name) = header_name(table, "header")? else {
            return Err(
                table.mistake("`header` is missing: the name of a header such as \"x-api-key\"")
            );
        };
        let otherwise = table.text(
            "otherwise",
            "the name of an identity, for requests without the header",
        )?;
        let otherwise = otherwise.map(|name| self.named(name)).transpose()?;
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
        Ok(Who {
            source: Source::Sync(std::sync::Arc::new(source)),
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

fn by_function(table: &Table<'_>, parts: &Parts) -> Read<Who> {
    let (name, at) = table.required(
        "function",
        "the name under which the program registers a function",
    )?;
    Ok(Who {
        source: parts.identity(name, at)?,
        words: format!("what the function `{name}` of the program says"),
        said: format!("function {name}"),
    })
}

/// Tiers are what a function of the program says, or a header of proxies that the file trusts: of a client's own it would be
/// whatever it likes.
fn with_tier(who: Who, table: &Table<'_>, proxies: &Proxies, parts: &Parts) -> Read<Who> {
    let function = table.text(
        "tier",
        "the name under which the program registers a function",
    )?;
    let header = header_name(table, "tier_header_of_proxies")?;
    let (tier, words): (TierOf, String) = match (function, header) {
        (Some(_), Some(_)) => {
            return Err(
                table.mistake("it has both `tier` and `tier_header_of_proxies`: leave one out")
            );
        }
        (Some((name, at)), None) => (parts.tier(name, at)?, format!("the function `{name}`")),
        (None, Some(_)) if !proxies.is_said => {
            return Err(table.mistake(
                "`tier_header_of_proxies` is believed from trusted proxies only: say which in `[proxies]`, as \
                 `trust = [\"10.0.0.0/8\"]`",
            ));
        }
        (None, Some(header)) => {
            let (name, proxies) = (header.clone(), proxies.clone());
            let tier = move |req: &HttpRequest| {
                let value = req.headers().get(&header).filter(|_| proxies.sent(req))?;
                value.to_str().ok().map(str::to_owned)
            };
            (
                std::sync::Arc::new(tier),
                format!("the header `{name}` of trusted proxies"),
            )
        }
        (None, None) => return Ok(who),
    };
    let said = format!("{} tier {words} {}", who.said, proxies.said);
    let words = format!("{}; tier by {words}", who.words);
    let source = move |req: &HttpRequest| {
        let identity = who
            .source
            .now(req)
            .unwrap_or_else(|| Err(Error::unresolved("who asks has to be waited for")))?;
        Ok(match tier(req) {
            Some(tier) => identity.tier(tier),
            None => identity,
        })
    };
    Ok(Who {
        source: Source::Sync(std::sync::Arc::new(source)),
        words,
        said,
    })
}

/// How long the prefix of an address is.
fn bits(table: &Table<'_>, key: &'static str, most: u8) -> Read<Option<u8>> {
    let Some(bits) = table.count(key)? else {
        return Ok(None);
    };
    let fits = u8::try_from(bits).ok().filter(|bits| *bits <= most);
    fits.map(Some).ok_or_else(|| {
        let what = format!(
            "`{key}` of {} must be a number of bits, {most} at most, not {bits}",
            table.what
        );
        Mistake::at(table.get(key).and_then(|node| node.place), what)
    })
}

fn header_name(table: &Table<'_>, key: &'static str) -> Read<Option<HeaderName>> {
    const MUST: &str = "the name of a header such as \"x-api-key\"";
    let Some((text, at)) = table.text(key, MUST)? else {
        return Ok(None);
    };
    named_header(text, at).map(Some)
}

pub(super) fn named_header(text: &str, at: Option<Place>) -> Read<HeaderName> {
    HeaderName::try_from(text).map_err(|_| {
        let what = format!("{text:?} is no name of a header: it has letters, digits and `-` only, such as \"x-api-key\"");
        Mistake::at(at, what)
    })
}
