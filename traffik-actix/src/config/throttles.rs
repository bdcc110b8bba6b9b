//! Throttles, as a file says them.

use std::sync::Arc;

use traffik_core::{OnError, Rate, Strategy, strategy};

use super::backends::Backends;
use super::document::{Mistake, Node, Read, Value};
use super::identities::{Identities, Proxies};
use super::parts::Parts;
use super::reader::Table;
use crate::request::scope::Scope;
use crate::response::headers::{HeaderStyle, Headers};
use crate::throttle::HttpThrottle;
use crate::throttle::builder::HttpThrottleBuilder;

/// A throttle of a file.
pub(super) struct Planned {
    /// Its name in the file.
    pub(super) name: String,
    /// Its name in the registry.
    pub(super) known_as: String,
    pub(super) recipe: HttpThrottleBuilder,
    pub(super) is_enabled: bool,
    /// All that it depends on, to see whether it changed. Never to be shown.
    pub(super) said: String,
    /// What it does, for people.
    pub(super) words: Vec<String>,
}

/// What throttles of a file may name.
pub(super) struct Surroundings<'a> {
    pub(super) parts: &'a Parts,
    pub(super) proxies: &'a Proxies,
    pub(super) identities: &'a Identities<'a>,
    pub(super) backends: &'a Backends,
    /// Whether they are tried beside those of the same names that are in force.
    pub(super) is_trial: bool,
}

/// What throttles are called that are tried.
pub(super) fn trial_of(name: &str) -> String {
    format!("{name} (shadow)")
}

impl Planned {
    pub(super) fn read(
        name: &str,
        node: &Node,
        table: &Table<'_>,
        around: &Surroundings<'_>,
    ) -> Read<Planned> {
        let rate = rate(table)?;
        let known_as = match around.is_trial {
            true => trial_of(name),
            false => name.to_owned(),
        };
        let mut builder = HttpThrottle::builder(&known_as).rate(rate);
        let mut words = vec![format!("rate {rate}")];
        let mut said = node.said();
        builder = limits(builder, table, &mut words)?;
        builder = answers(builder, table)?;
        let named = table.text("identity", "the name of an identity")?;
        match around.identities.of_throttle(named, around.proxies)? {
            Some(who) => {
                builder = builder.identify_source(who.source);
                said.push_str(&who.said);
                words.push(format!("for each: {}", who.words));
            }
            None => words.push(
                "for each: the address of the socket, unless the program's backend says otherwise"
                    .to_owned(),
            ),
        }
        let named = table.text("backend", "the name of a backend")?;
        let is_default = named.is_none() && around.backends.has_default(around.parts);
        if let Some((named, at)) = named.or(is_default.then_some(("default", None))) {
            let (backend, depends, which) = around.backends.find(named, at, around.parts)?;
            if let Some(backend) = backend {
                builder = builder.backend(backend);
            }
            said.push_str(&depends);
            words.push(format!("counts in {which}"));
        } else {
            words.push(
                "counts in the backend of the program, else in the memory of the process"
                    .to_owned(),
            );
        }
        let is_enabled = table.flag("enabled")?.unwrap_or(true);
        if !is_enabled {
            words.push("disabled: admits everything, counts nothing".to_owned());
        }
        let is_shadow = table.flag("shadow")? == Some(true);
        if table.flag("shadow_header")? == Some(true) {
            builder = builder.shadow_header();
        }
        if around.is_trial {
            builder = builder.shadow_of(name).shadow();
        } else if is_shadow {
            builder = builder.shadow();
            words.push("in shadow: decides and counts, and never denies".to_owned());
        }
        let (strategy, text) = strategy_of(table)?;
        words.insert(1, format!("strategy {text}"));
        let recipe = builder.strategy(strategy);
        // Its name, and whether the strategy can serve the rate.
        recipe
            .clone()
            .build()
            .map_err(|error| Mistake::at(table.place, error))?;
        Ok(Planned {
            name: name.to_owned(),
            known_as,
            recipe,
            is_enabled,
            said,
            words,
        })
    }
}

fn rate(table: &Table<'_>) -> Read<Rate> {
    let (text, at) = table.required("rate", "a text such as \"100/minute\"")?;
    Rate::parse(text).map_err(|error| Mistake::at(at, format!("`rate` of {}: {error}", table.what)))
}

/// Whom it counts together, at what cost, and who may wait.
fn limits(
    mut builder: HttpThrottleBuilder,
    table: &Table<'_>,
    words: &mut Vec<String>,
) -> Read<HttpThrottleBuilder> {
    if let Some(cost) = table.count("cost")? {
        builder = builder.cost(cost);
        words.push(format!("cost {cost}"));
    }
    if table.flag("shared")? == Some(true) {
        builder = builder.shared();
        words.push("shared by all clients".to_owned());
    }
    let scopes = [
        ("throttle", Scope::Throttle),
        ("route", Scope::Route),
        ("path", Scope::Path),
    ];
    if let Some(scope) = table.choice("scope", &scopes)? {
        builder = builder.scope(scope);
        match scope {
            Scope::Throttle => {}
            Scope::Route => words.push("a count for each route".to_owned()),
            Scope::Path => words.push("a count for each path".to_owned()),
        }
    }
    if let Some(min_wait) = table.duration("min_wait")? {
        builder = builder.min_wait(min_wait);
    }
    if let Some(max_wait) = table.duration("wait_up_to")? {
        builder = builder.wait_up_to(max_wait);
        words.push(format!("waits up to {max_wait:?} rather than denying"));
    }
    if let Some(waiters) = table.count("max_waiters")? {
        builder = builder.max_waiters(waiters as usize);
    }
    if let Some(waiters) = table.count("max_waiters_per_client")? {
        builder = builder.max_waiters_per_client(waiters as usize);
    }
    Ok(builder)
}

/// What clients are told, and what happens when the store fails.
fn answers(mut builder: HttpThrottleBuilder, table: &Table<'_>) -> Read<HttpThrottleBuilder> {
    let policies: [(_, fn() -> OnError); 3] = [
        ("allow", || OnError::Allow),
        ("throttle", || OnError::Throttle),
        ("raise", || OnError::Raise),
    ];
    if let Some(on_error) = table.choice("on_error", &policies)? {
        builder = builder.on_error(on_error());
    }
    let headers = [
        ("always", Headers::Always),
        ("denied", Headers::Denied),
        ("never", Headers::Never),
    ];
    if let Some(headers) = table.choice("headers", &headers)? {
        builder = builder.headers(headers);
    }
    let styles = [
        ("standard", HeaderStyle::Standard),
        ("x_rate_limit", HeaderStyle::XRateLimit),
        ("both", HeaderStyle::Both),
    ];
    if let Some(style) = table.choice("header_style", &styles)? {
        builder = builder.header_style(style);
    }
    Ok(builder)
}

/// The strategy with its options, which are all other keys, and as text.
fn strategy_of(table: &Table<'_>) -> Read<(Arc<dyn Strategy>, String)> {
    let named = table.text(
        "strategy",
        "the name of a strategy such as \"token_bucket\"",
    )?;
    let (name, at) = named.unwrap_or(("fixed_window", table.place));
    // Of its name alone, so that a mistake in it is pointed out where it is.
    strategy::named(name)
        .map_err(|error| Mistake::at(at, format!("`strategy` of {}: {error}", table.what)))?;
    let mut text = name.to_owned();
    for (key, node) in table.others() {
        // A slip in a key of throttles is no option of a strategy.
        if strategy::named(&format!("{name},{}=", key.text))
            .is_err_and(|error| error.to_string().contains("has no option"))
            && let Some(near) = table.meant(&key.text)
        {
            let what = format!(
                "{} has no key `{}`, did you mean `{near}`?",
                table.what, key.text
            );
            return Err(Mistake::at(key.place, what));
        }
        let option = option(node).ok_or_else(|| {
            table.wrong(
                &key.text,
                node,
                "a number, true, false, a text, or a table of numbers",
            )
        })?;
        text.push_str(&format!(",{}={option}", key.text));
        strategy::named(&text).map_err(|error| {
            let is_unknown = error.to_string().contains("has no option");
            let at = if is_unknown { key.place } else { node.place };
            Mistake::at(at, format!("{}: {error}", table.what))
        })?;
    }
    let strategy = strategy::named(&text).map_err(|error| table.mistake(error))?;
    Ok((strategy, text))
}

/// An option as the name of a strategy has it.
fn option(node: &Node) -> Option<String> {
    let text = match &node.value {
        Value::Text(text) => text.clone(),
        Value::Whole(number) | Value::Fraction(number) => number.clone(),
        Value::Flag(flag) => flag.to_string(),
        Value::Table(entries) => {
            let part = |(key, node): &(super::document::Key, Node)| match &node.value {
                Value::Whole(number) | Value::Fraction(number)
                    if !key.text.contains([':', '|']) =>
                {
                    Some(format!("{}:{number}", key.text))
                }
                _ => None,
            };
            entries
                .iter()
                .map(part)
                .collect::<Option<Vec<String>>>()?
                .join("|")
        }
        Value::List(_) | Value::Other(_) => return None,
    };
    (!text.contains([',', '='])).then_some(text)
}
