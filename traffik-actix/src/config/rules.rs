//! Which requests meet which throttles, as a file says it.

use std::net::Ipv6Addr;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::Method;
use actix_web::http::header::HOST;

use super::document::{Key, Mistake, Node, Place, Read, Value};
use super::identities::{Proxies, named_header};
use super::parts::{Parts, Predicate};
use super::reader::{Table, unknown};
use super::throttles::Planned;
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

/// The rules of a file, in its order.
pub(super) fn read(
    file: &Table<'_>,
    throttles: &[Planned],
    proxies: &Proxies,
    parts: &Parts,
) -> Read<Vec<PlannedRule>> {
    const MUST: &str = "a list of tables, each written `[[rule]]`";
    let Some(node) = file.get("rule") else {
        return Ok(Vec::new());
    };
    let Value::List(all) = &node.value else {
        return Err(file.wrong("rule", node, MUST));
    };
    let each = all.iter().enumerate().map(|(at, one)| match &one.value {
        Value::Table(entries) => {
            let table = Table::new(format!("rule {}", at + 1), one.place, entries);
            rule(at + 1, &table, throttles, proxies, parts)
        }
        _ => Err(file.wrong("rule", one, MUST)),
    });
    each.collect()
}

fn rule(
    number: usize,
    table: &Table<'_>,
    throttles: &[Planned],
    proxies: &Proxies,
    parts: &Parts,
) -> Read<PlannedRule> {
    let names = table.texts("throttle", "the name of a throttle, or a list of names")?;
    if names.is_empty() {
        return Err(
            table.mistake("`throttle` is missing: the name of a throttle, or a list of names")
        );
    }
    let found = names.into_iter().map(|(name, at)| {
        let mut places = throttles.iter();
        places.position(|one| one.name == name).ok_or_else(|| {
            let known = throttles.iter().map(|one| one.name.as_str());
            Mistake::at(at, unknown("throttle", name, known))
        })
    });
    let throttles = found.collect::<Read<Vec<usize>>>()?;
    let mut checks = Vec::new();
    let methods = methods(table, &mut checks)?;
    let path = path(table, &mut checks)?;
    // What is left is asked together.
    let simple = checks.len();
    hosts(table, proxies, &mut checks)?;
    headers(table, &mut checks)?;
    if let Some((name, at)) = table.text(
        "when",
        "the name under which the program registers a predicate",
    )? {
        checks.push(Check {
            words: format!("the program's `{name}` says so"),
            is_met: parts.predicate(name, at)?,
        });
    }
    table.finish()?;
    let others: Vec<Predicate> = checks[simple..]
        .iter()
        .map(|check| Arc::clone(&check.is_met))
        .collect();
    let mut conditions = Conditions::of(methods, path);
    if !others.is_empty() {
        conditions = conditions.when(move |req: &HttpRequest| others.iter().all(|one| one(req)));
    }
    Ok(PlannedRule {
        number,
        place: table.place,
        throttles,
        conditions,
        checks,
    })
}

fn methods(table: &Table<'_>, checks: &mut Vec<Check>) -> Read<Vec<Method>> {
    let mut methods = Vec::new();
    for (name, at) in table.texts("methods", "methods such as [\"GET\", \"HEAD\"]")? {
        // They are told apart by case: `post` would be one that nobody uses.
        match Method::from_bytes(name.as_bytes()) {
            Ok(method) if METHODS.contains(&name) => methods.push(method),
            _ => {
                let upper = name.to_ascii_uppercase();
                let what = match METHODS.contains(&&*upper) {
                    true => format!("there is no method `{name}`, did you mean `{upper}`?"),
                    false => unknown("method", name, METHODS.iter().copied()),
                };
                return Err(Mistake::at(at, what));
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
    Ok(methods)
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

fn headers(table: &Table<'_>, checks: &mut Vec<Check>) -> Read<()> {
    let must = "a table such as { x-beta = true, x-plan = \"free\" }";
    for (key, node) in table.table("header", must)?.unwrap_or_default() {
        checks.push(header(table, key, node)?);
    }
    Ok(())
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
