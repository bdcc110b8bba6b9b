//! Which requests meet which throttles, as a file says it.

use std::net::Ipv6Addr;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::Method;
use actix_web::http::header::HOST;

use super::document::{Key, Mistake, Node, Place, Read, Value};
use super::identities::{Proxies, named_header};
use super::parts::{Parts, Predicate};
use super::reader::{Table, Text, unknown};
use crate::entry::rule::Conditions;
use crate::request::pattern::PathPattern;

/// The methods of RFC 9110 and of the [registry](https://www.iana.org/assignments/http-methods) that somebody may use, and PURGE.
const METHODS: &[&str] = &[
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "QUERY",
    "PURGE",
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PROPFIND",
    "PROPPATCH",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// A rule of a file.
pub(super) struct PlannedRule {
    /// Which it is, from 1.
    pub(super) number: usize,
    pub(super) place: Option<Place>,
    /// Its throttles, by their places in the plan.
    pub(super) throttles: Vec<usize>,
    pub(super) conditions: Conditions,
    /// The same one by one, to say which of them is not met.
    pub(super) checks: Vec<Check>,
}

/// A condition in words.
pub(super) struct Check {
    pub(super) words: String,
    pub(super) is_met: Predicate,
}

/// The rules of a file, in its order, about throttles of these names.
pub(super) fn read(
    file: &Table<'_>,
    names: &[&str],
    proxies: &Proxies,
    parts: &Parts,
) -> Vec<PlannedRule> {
    const MUST: &str = "a list of tables, each written `[[rule]]`";
    let Some(node) = file.get("rule") else {
        return Vec::new();
    };
    let Value::List(all) = &node.value else {
        file.tell(file.wrong("rule", node, MUST));
        return Vec::new();
    };
    let each = all.iter().enumerate().filter_map(|(at, one)| {
        let Value::Table(entries) = &one.value else {
            file.tell(file.wrong("rule", one, MUST));
            return None;
        };
        let table = file.another(format!("rule {}", at + 1), one.place, entries);
        rule(at + 1, &table, names, proxies, parts)
    });
    each.collect()
}

/// Nothing if there are mistakes, of which all are told.
fn rule(
    number: usize,
    table: &Table<'_>,
    names: &[&str],
    proxies: &Proxies,
    parts: &Parts,
) -> Option<PlannedRule> {
    let throttles = throttles(table, names);
    let methods = methods(table);
    let path = path(table);
    let mut others: Vec<Check> = Vec::new();
    others.extend(hosts(table, proxies));
    others.extend(headers(table));
    others.extend(when(table, parts));
    table.finish();
    if table.is_mistaken() {
        return None;
    }
    let mut checks: Vec<Check> = Vec::new();
    checks.extend(Check::methods(&methods));
    checks.extend(path.as_ref().map(|(text, path)| Check::path(text, path)));
    let mut conditions = Conditions::of(methods, path.map(|(_, path)| path));
    if !others.is_empty() {
        let all: Vec<Predicate> = others.iter().map(|one| Arc::clone(&one.is_met)).collect();
        conditions = conditions.when(move |req: &HttpRequest| all.iter().all(|one| one(req)));
        checks.extend(others);
    }
    Some(PlannedRule {
        number,
        place: table.place,
        throttles,
        conditions,
        checks,
    })
}

fn throttles(table: &Table<'_>, all: &[&str]) -> Vec<usize> {
    const MUST: &str = "the name of a throttle, or a list of names";
    table.require("throttle", MUST);
    let names = table.texts("throttle", MUST).into_iter();
    let found = names.filter_map(|(name, at)| {
        let place = all.iter().position(|one| *one == name);
        let unknown = || Mistake::at(at, unknown("throttle", name, all.iter().copied()));
        table.note(place.ok_or_else(unknown))
    });
    found.collect()
}

fn methods(table: &Table<'_>) -> Vec<Method> {
    let texts = table.texts("methods", "methods such as [\"GET\", \"HEAD\"]");
    let read = |(name, at): Text<'_>| {
        // They are told apart by case: `post` would be one that nobody uses.
        if let Ok(method) = Method::from_bytes(name.as_bytes())
            && METHODS.contains(&name)
        {
            return Some(method);
        }
        let upper = name.to_ascii_uppercase();
        let what = match METHODS.contains(&&*upper) {
            true => format!("there is no method `{name}`, did you mean `{upper}`?"),
            false => unknown("method", name, METHODS.iter().copied()),
        };
        table.note(Err(Mistake::at(at, what)))
    };
    texts.into_iter().filter_map(read).collect()
}

/// A pattern, and how it is written.
fn path<'a>(table: &Table<'a>) -> Option<(&'a str, PathPattern)> {
    let (text, at) = table.text("path", "a pattern such as \"/api/\"")?;
    let pattern = PathPattern::parse(text);
    let pattern = pattern.map_err(|error| table.unreadable("path", at, error));
    Some((text, table.note(pattern)?))
}

impl Check {
    fn new(words: String, is_met: impl Fn(&HttpRequest) -> bool + Send + Sync + 'static) -> Check {
        let is_met = Arc::new(is_met);
        Check { words, is_met }
    }

    fn methods(methods: &[Method]) -> Option<Check> {
        if methods.is_empty() {
            return None;
        }
        let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let words = format!("the method is {}", names.join(" or "));
        let wanted = methods.to_vec();
        let is_met = move |req: &HttpRequest| wanted.contains(req.method());
        Some(Check::new(words, is_met))
    }

    fn path(text: &str, path: &PathPattern) -> Check {
        let wanted = path.clone();
        Check::new(
            format!("the path is as `{text}`"),
            move |req: &HttpRequest| wanted.matches(req.match_info().as_str()),
        )
    }
}

fn when(table: &Table<'_>, parts: &Parts) -> Option<Check> {
    const MUST: &str = "the name under which the program registers a predicate";
    let (name, at) = table.text("when", MUST)?;
    Some(Check {
        words: format!("the program's `{name}` says so"),
        is_met: table.note(parts.predicate(name, at))?,
    })
}

/// A name, or all names below one.
#[derive(Clone)]
enum Host {
    Is(String),
    /// With the dot.
    Ends(String),
    /// However it is written.
    Address(Ipv6Addr),
}

fn hosts(table: &Table<'_>, proxies: &Proxies) -> Option<Check> {
    let texts = table.texts(
        "host",
        "a host such as \"api.example.com\" or \"*.example.com\"",
    );
    if texts.is_empty() {
        return None;
    }
    let words: Vec<&str> = texts.iter().map(|(text, _)| *text).collect();
    let words = format!("the host is {}", words.join(" or "));
    let all = texts.into_iter().filter_map(|(text, at)| {
        let host = Host::parse(text).ok_or_else(|| {
            let what = format!(
                "`host` of {} must be a name such as \"api.example.com\", or \"*.example.com\" for all names below it, \
                 without scheme, port and path, not {text:?}",
                table.what
            );
            Mistake::at(at, what)
        });
        table.note(host)
    });
    let all: Vec<Host> = all.collect();
    let proxies = proxies.clone();
    let is_met = move |req: &HttpRequest| {
        any_host(req, &proxies, |host| {
            all.iter().any(|one| one.matches(host))
        })
    };
    Some(Check::new(words, is_met))
}

impl Host {
    fn parse(text: &str) -> Option<Host> {
        let (name, is_below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let is_label = |label: &str| {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            !label.is_empty() && label.len() < 64 && label.bytes().all(legal)
        };
        if name.starts_with('[') {
            let address = address_of(name.as_bytes()).filter(|_| !is_below);
            return address.map(Host::Address);
        }
        if !name.split('.').all(is_label) {
            return None;
        }
        Some(match is_below {
            true => Host::Ends(format!(".{name}")),
            false => Host::Is(name.to_owned()),
        })
    }

    fn matches(&self, host: &[u8]) -> bool {
        match self {
            Host::Is(name) => host.eq_ignore_ascii_case(name.as_bytes()),
            Host::Ends(end) => {
                host.len() > end.len()
                    && host[host.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
            }
            Host::Address(address) => address_of(host) == Some(*address),
        }
    }
}

fn address_of(host: &[u8]) -> Option<Ipv6Addr> {
    let address = host.strip_prefix(b"[")?.strip_suffix(b"]")?;
    std::str::from_utf8(address).ok()?.parse().ok()
}

/// Whether any of the hosts that a request names is wanted: a router looks at one of them, and a client that names two must
/// not evade the rule. What proxies say is among them only if they are trusted, and it is said in which header.
fn any_host(req: &HttpRequest, proxies: &Proxies, wanted: impl Fn(&[u8]) -> bool) -> bool {
    let wanted = |host: &[u8]| wanted(name_of(host));
    let authority = req
        .uri()
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    if authority.is_some_and(wanted)
        || req
            .headers()
            .get_all(HOST)
            .any(|host| wanted(host.as_bytes()))
    {
        return true;
    }
    let told = proxies.host_header.as_ref().filter(|_| proxies.sent(req));
    told.is_some_and(|name| {
        let mut lines = req.headers().get_all(name);
        lines.any(|line| line.as_bytes().split(|byte| *byte == b',').any(wanted))
    })
}

/// A host without user, port and the dot that makes a name absolute.
fn name_of(host: &[u8]) -> &[u8] {
    let host = host.trim_ascii();
    let host = host.rsplit(|byte| *byte == b'@').next().unwrap_or(host);
    let end = match host.first() {
        Some(b'[') => host.iter().position(|byte| *byte == b']').map(|at| at + 1),
        _ => host.iter().position(|byte| *byte == b':'),
    };
    let host = &host[..end.unwrap_or(host.len())];
    host.strip_suffix(b".").unwrap_or(host)
}

fn headers(table: &Table<'_>) -> Vec<Check> {
    let must = "a table such as { x-beta = true, x-plan = \"free\" }";
    let each = table.table("header", must).unwrap_or_default().iter();
    each.filter_map(|(key, node)| table.note(header(table, key, node)))
        .collect()
}

fn header(table: &Table<'_>, key: &Key, node: &Node) -> Read<Check> {
    let name = named_header(&key.text, key.place)?;
    match &node.value {
        Value::Flag(is_there) => {
            let is_there = *is_there;
            let words = match is_there {
                true => format!("there is a header `{name}`"),
                false => format!("there is no header `{name}`"),
            };
            let is_met = move |req: &HttpRequest| req.headers().contains_key(&name) == is_there;
            Ok(Check::new(words, is_met))
        }
        Value::Text(text) => {
            let words = format!("the header `{name}` is {text:?}");
            let text = text.clone();
            let is_met = move |req: &HttpRequest| {
                let mut all = req.headers().get_all(&name);
                all.any(|value| value.as_bytes() == text.as_bytes())
            };
            Ok(Check::new(words, is_met))
        }
        _ => Err(table.wrong(
            &key.text,
            node,
            "a text, or true if the header must be there, false if not",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_was_taken_for_another() {
        for (pattern, host, expected) in [
            ("example.com", "example.com", true),
            ("example.com", "EXAMPLE.com:8080", true),
            ("Example.com", "example.com.", true),
            ("example.com", "user@example.com:80", true),
            ("example.com", "api.example.com", false),
            ("example.com", "example.com.evil.org", false),
            ("example.com", "evilexample.com", false),
            ("*.example.com", "api.example.com", true),
            ("*.example.com", "a.b.EXAMPLE.com:1", true),
            ("*.example.com", "evilexample.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("[::1]", "[::1]:8080", true),
            ("[::1]", "[::2]", false),
            ("[::1]", "::1", false),
            // An address may be written in many ways, and a client chooses.
            ("[::1]", "[0:0:0:0:0:0:0:1]:80", true),
            ("[2001:db8::A]", "[2001:0DB8:0::0:a]", true),
            ("[2001:DB8:0::a]", "[2001:db8::a]", true),
            ("localhost", "", false),
        ] {
            let parsed = Host::parse(pattern).unwrap();
            assert_eq!(
                parsed.matches(name_of(host.as_bytes())),
                expected,
                "{pattern} {host}"
            );
        }
        for wrong in [
            "*example.com",
            "*",
            "*.",
            "ex*mple.com",
            "https://example.com",
            "example.com:80",
            "example.com/",
            ".example.com",
            "example..com",
            "exa mple.com",
            "[::1",
            "*.[::1]",
            "bücher.de",
        ] {
            assert!(Host::parse(wrong).is_none(), "{wrong}");
        }
    }
}
