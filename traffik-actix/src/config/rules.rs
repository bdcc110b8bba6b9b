//! Which requests meet which throttles, as a file says it.

use std::net::Ipv6Addr;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::Method;
use actix_web::http::header::HOST;

use super::document::{Key, Mistake, Mistakes, Node, Place, Read, Value};
use super::identities::{Proxies, named_header};
use super::parts::{Parts, Predicate};
use super::reader::{Table, unknown};
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
    mistakes: &mut Mistakes,
) -> Vec<PlannedRule> {
    const MUST: &str = "a list of tables, each written `[[rule]]`";
    let Some(node) = file.get("rule") else {
        return Vec::new();
    };
    let Value::List(all) = &node.value else {
        mistakes.note::<()>(Err(file.wrong("rule", node, MUST)));
        return Vec::new();
    };
    let each = all.iter().enumerate().filter_map(|(at, one)| {
        let Value::Table(entries) = &one.value else {
            return mistakes.note(Err(file.wrong("rule", one, MUST)));
        };
        let table = Table::new(format!("rule {}", at + 1), one.place, entries);
        rule(at + 1, &table, names, proxies, parts, mistakes)
    });
    each.collect()
}

/// Nothing if there are mistakes, of which all are noted.
fn rule(
    number: usize,
    table: &Table<'_>,
    names: &[&str],
    proxies: &Proxies,
    parts: &Parts,
    mistakes: &mut Mistakes,
) -> Option<PlannedRule> {
    let before = mistakes.len();
    let throttles = throttles(table, names, mistakes);
    let mut checks = Vec::new();
    let methods = methods(table, &mut checks, mistakes);
    let path = mistakes.maybe(path(table, &mut checks));
    // What is left is asked together.
    let simple = checks.len();
    mistakes.note(hosts(table, proxies, &mut checks));
    headers(table, &mut checks, mistakes);
    mistakes.note(when(table, parts, &mut checks));
    table.finish(mistakes);
    if mistakes.len() > before {
        return None;
    }
    let others: Vec<Predicate> = checks[simple..]
        .iter()
        .map(|check| Arc::clone(&check.is_met))
        .collect();
    let mut conditions = Conditions::of(methods, path);
    if !others.is_empty() {
        conditions = conditions.when(move |req: &HttpRequest| others.iter().all(|one| one(req)));
    }
    Some(PlannedRule {
        number,
        place: table.place,
        throttles,
        conditions,
        checks,
    })
}

fn throttles(table: &Table<'_>, all: &[&str], mistakes: &mut Mistakes) -> Vec<usize> {
    const MUST: &str = "the name of a throttle, or a list of names";
    let before = mistakes.len();
    let names = mistakes
        .note(table.texts("throttle", MUST))
        .unwrap_or_default();
    if names.is_empty() && mistakes.len() == before {
        let what = format!("`throttle` is missing: {MUST}");
        mistakes.note::<()>(Err(table.mistake(what)));
    }
    let found = names.into_iter().filter_map(|(name, at)| {
        let place = all.iter().position(|one| *one == name);
        let unknown = || Mistake::at(at, unknown("throttle", name, all.iter().copied()));
        mistakes.note(place.ok_or_else(unknown))
    });
    found.collect()
}

fn when(table: &Table<'_>, parts: &Parts, checks: &mut Vec<Check>) -> Read<()> {
    const MUST: &str = "the name under which the program registers a predicate";
    if let Some((name, at)) = table.text("when", MUST)? {
        checks.push(Check {
            words: format!("the program's `{name}` says so"),
            is_met: parts.predicate(name, at)?,
        });
    }
    Ok(())
}

fn methods(table: &Table<'_>, checks: &mut Vec<Check>, mistakes: &mut Mistakes) -> Vec<Method> {
    let mut methods = Vec::new();
    let texts = table.texts("methods", "methods such as [\"GET\", \"HEAD\"]");
    for (name, at) in mistakes.note(texts).unwrap_or_default() {
        // They are told apart by case: `post` would be one that nobody uses.
        match Method::from_bytes(name.as_bytes()) {
            Ok(method) if METHODS.contains(&name) => methods.push(method),
            _ => {
                let upper = name.to_ascii_uppercase();
                let what = match METHODS.contains(&&*upper) {
                    true => format!("there is no method `{name}`, did you mean `{upper}`?"),
                    false => unknown("method", name, METHODS.iter().copied()),
                };
                mistakes.note::<()>(Err(Mistake::at(at, what)));
            }
        }
    }
    if !methods.is_empty() {
        let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let words = format!("the method is {}", names.join(" or "));
        let wanted = methods.clone();
        let is_met = Arc::new(move |req: &HttpRequest| wanted.contains(req.method()));
        checks.push(Check { words, is_met });
    }
    methods
}

fn path(table: &Table<'_>, checks: &mut Vec<Check>) -> Read<Option<PathPattern>> {
    let Some((text, at)) = table.text("path", "a pattern such as \"/api/\"")? else {
        return Ok(None);
    };
    let pattern = PathPattern::parse(text)
        .map_err(|error| Mistake::at(at, format!("`path` of {}: {error}", table.what)))?;
    let wanted = pattern.clone();
    checks.push(Check {
        words: format!("the path is as `{text}`"),
        is_met: Arc::new(move |req: &HttpRequest| wanted.matches(req.match_info().as_str())),
    });
    Ok(Some(pattern))
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

fn hosts(table: &Table<'_>, proxies: &Proxies, checks: &mut Vec<Check>) -> Read<()> {
    let texts = table.texts(
        "host",
        "a host such as \"api.example.com\" or \"*.example.com\"",
    )?;
    if texts.is_empty() {
        return Ok(());
    }
    let words: Vec<&str> = texts.iter().map(|(text, _)| *text).collect();
    let words = format!("the host is {}", words.join(" or "));
    let all = texts.into_iter().map(|(text, at)| {
        Host::parse(text).ok_or_else(|| {
            let what = format!(
                "`host` of {} must be a name such as \"api.example.com\", or \"*.example.com\" for all names below it, \
                 without scheme, port and path, not {text:?}",
                table.what
            );
            Mistake::at(at, what)
        })
    });
    let all = all.collect::<Read<Vec<Host>>>()?;
    let proxies = proxies.clone();
    let is_met = move |req: &HttpRequest| {
        any_host(req, &proxies, |host| {
            all.iter().any(|one| one.matches(host))
        })
    };
    let is_met = Arc::new(is_met);
    checks.push(Check { words, is_met });
    Ok(())
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

fn headers(table: &Table<'_>, checks: &mut Vec<Check>, mistakes: &mut Mistakes) {
    let must = "a table such as { x-beta = true, x-plan = \"free\" }";
    let entries = mistakes.maybe(table.table("header", must));
    for (key, node) in entries.unwrap_or_default() {
        checks.extend(mistakes.note(header(table, key, node)));
    }
}

fn header(table: &Table<'_>, key: &Key, node: &Node) -> Read<Check> {
    let name = named_header(&key.text, key.place)?;
    match &node.value {
        Value::Flag(is_there) => {
            let is_there = *is_there;
            let words = format!(
                "there is {} header `{name}`",
                if is_there { "a" } else { "no" }
            );
            let is_met =
                Arc::new(move |req: &HttpRequest| req.headers().contains_key(&name) == is_there);
            Ok(Check { words, is_met })
        }
        Value::Text(text) => {
            let words = format!("the header `{name}` is {text:?}");
            let text = text.clone();
            let is_met = Arc::new(move |req: &HttpRequest| {
                let mut all = req.headers().get_all(&name);
                all.any(|value| value.as_bytes() == text.as_bytes())
            });
            Ok(Check { words, is_met })
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
