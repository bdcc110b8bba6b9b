//! Throttles, as a file says them.

use std::sync::Arc;

use traffik_core::{OnError, Rate, Strategy, strategy};

use super::backends::Backends;
use super::document::{Key, Mistake, Node, Read, Value};
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
    /// Nothing if there are mistakes, of which all are told.
    pub(super) fn read(
        name: &str,
        node: &Node,
        table: &Table<'_>,
        around: &Surroundings<'_>,
    ) -> Option<Planned> {
        let rate = table.note(rate(table));
        let known_as = match around.is_trial {
            true => trial_of(name),
            false => name.to_owned(),
        };
        let mut builder = HttpThrottle::builder(&known_as);
        let mut words = Vec::new();
        let mut said = node.said();
        builder = limits(builder, table, &mut words);
        builder = answers(builder, table);
        builder = who(builder, table, around, &mut said, &mut words);
        builder = backend(builder, table, around, &mut said, &mut words);
        let is_enabled = table.maybe(table.flag("enabled")).unwrap_or(true);
        if !is_enabled {
            words.push("disabled: admits everything, counts nothing".to_owned());
        }
        let is_shadow = table.maybe(table.flag("shadow")) == Some(true);
        if table.maybe(table.flag("shadow_header")) == Some(true) {
            builder = builder.shadow_header();
        }
        if around.is_trial {
            builder = builder.shadow_of(name).shadow();
        } else if is_shadow {
            builder = builder.shadow();
            words.push("in shadow: decides and counts, and never denies".to_owned());
        }
        let strategy = strategy_of(table);
        let (Some(rate), Some((strategy, text))) = (rate, strategy) else {
            return None;
        };
        let recipe = builder.rate(rate).strategy(strategy);
        if table.is_mistaken() {
            return None;
        }
        // Its name, and whether the strategy can serve the rate.
        let built = recipe.clone().build();
        table.note(built.map_err(|error| Mistake::at(table.place, error)))?;
        Some(Planned {
            name: name.to_owned(),
            known_as,
            recipe,
            is_enabled,
            said,
            words: [
                vec![format!("rate {rate}"), format!("strategy {text}")],
                words,
            ]
            .concat(),
        })
    }
}

/// Whom it tells apart.
fn who(
    builder: HttpThrottleBuilder,
    table: &Table<'_>,
    around: &Surroundings<'_>,
    said: &mut String,
    words: &mut Vec<String>,
) -> HttpThrottleBuilder {
    let named = table.maybe(table.text("identity", "the name of an identity"));
    let who = around.identities.of_throttle(named, around.proxies);
    match table.maybe(who) {
        Some(who) => {
            said.push_str(&who.said);
            words.push(format!("for each: {}", who.words));
            builder.identify_source(who.source)
        }
        None => {
            words.push(
                "for each: the address of the socket, unless the program's backend says otherwise"
                    .to_owned(),
            );
            builder
        }
    }
}

/// Where it counts.
fn backend(
    mut builder: HttpThrottleBuilder,
    table: &Table<'_>,
    around: &Surroundings<'_>,
    said: &mut String,
    words: &mut Vec<String>,
) -> HttpThrottleBuilder {
    let named = table.maybe(table.text("backend", "the name of a backend"));
    let is_default = named.is_none() && around.backends.has_default(around.parts);
    let Some((named, at)) = named.or(is_default.then_some(("default", None))) else {
        words.push(
            "counts in the backend of the program, else in the memory of the process".to_owned(),
        );
        return builder;
    };
    let found = around.backends.find(named, at, around.parts);
    if let Some((backend, depends, which)) = table.note(found) {
        if let Some(backend) = backend {
            builder = builder.backend(backend);
        }
        said.push_str(&depends);
        words.push(format!("counts in {which}"));
    }
    builder
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
) -> HttpThrottleBuilder {
    if let Some(cost) = table.maybe(table.count("cost")) {
        builder = builder.cost(cost);
        words.push(format!("cost {cost}"));
    }
    if table.maybe(table.flag("shared")) == Some(true) {
        builder = builder.shared();
        words.push("shared by all clients".to_owned());
    }
    let scopes = [
        ("throttle", Scope::Throttle),
        ("route", Scope::Route),
        ("path", Scope::Path),
    ];
    if let Some(scope) = table.maybe(table.choice("scope", &scopes)) {
        builder = builder.scope(scope);
        match scope {
            Scope::Throttle => {}
            Scope::Route => words.push("a count for each route".to_owned()),
            Scope::Path => words.push("a count for each path".to_owned()),
        }
    }
    if let Some(min_wait) = table.maybe(table.duration("min_wait")) {
        builder = builder.min_wait(min_wait);
    }
    if let Some(max_wait) = table.maybe(table.duration("wait_up_to")) {
        builder = builder.wait_up_to(max_wait);
        words.push(format!("waits up to {max_wait:?} rather than denying"));
    }
    if let Some(waiters) = table.maybe(table.count("max_waiters")) {
        builder = builder.max_waiters(waiters as usize);
    }
    if let Some(waiters) = table.maybe(table.count("max_waiters_per_client")) {
        builder = builder.max_waiters_per_client(waiters as usize);
    }
    builder
}

/// What clients are told, and what happens when the store fails.
fn answers(mut builder: HttpThrottleBuilder, table: &Table<'_>) -> HttpThrottleBuilder {
    let policies: [(_, fn() -> OnError); 3] = [
        ("allow", || OnError::Allow),
        ("throttle", || OnError::Throttle),
        ("raise", || OnError::Raise),
    ];
    if let Some(on_error) = table.maybe(table.choice("on_error", &policies)) {
        builder = builder.on_error(on_error());
    }
    let headers = [
        ("always", Headers::Always),
        ("denied", Headers::Denied),
        ("never", Headers::Never),
    ];
    if let Some(headers) = table.maybe(table.choice("headers", &headers)) {
        builder = builder.headers(headers);
    }
    let styles = [
        ("standard", HeaderStyle::Standard),
        ("x_rate_limit", HeaderStyle::XRateLimit),
        ("both", HeaderStyle::Both),
    ];
    if let Some(style) = table.maybe(table.choice("header_style", &styles)) {
        builder = builder.header_style(style);
    }
    builder
}

/// The strategy with its options, which are all other keys, and as text.
fn strategy_of(table: &Table<'_>) -> Option<(Arc<dyn Strategy>, String)> {
    const MUST: &str = "the name of a strategy such as \"token_bucket\"";
    let named = table.note(table.text("strategy", MUST))?;
    let (name, at) = named.unwrap_or(("fixed_window", table.place));
    // Of its name alone, so that a mistake in it is pointed out where it is.
    let alone = strategy::named(name);
    table.note(
        alone.map_err(|error| Mistake::at(at, format!("`strategy` of {}: {error}", table.what))),
    )?;
    let mut text = name.to_owned();
    let mut are_right = true;
    for (key, node) in table.others() {
        match table.note(with_option(table, name, &text, key, node)) {
            Some(longer) => text = longer,
            None => are_right = false,
        }
    }
    if !are_right {
        return None;
    }
    let strategy = strategy::named(&text).map_err(|error| table.mistake(error));
    Some((table.note(strategy)?, text))
}

/// The text of a strategy with one option more.
fn with_option(table: &Table<'_>, name: &str, text: &str, key: &Key, node: &Node) -> Read<String> {
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
    let text = format!("{text},{}={option}", key.text);
    strategy::named(&text).map_err(|error| {
        let is_unknown = error.to_string().contains("has no option");
        let at = if is_unknown { key.place } else { node.place };
        Mistake::at(at, format!("{}: {error}", table.what))
    })?;
    Ok(text)
}

/// An option as the name of a strategy has it.
fn option(node: &Node) -> Option<String> {
    let text = match &node.value {
        Value::Text(text) => text.clone(),
        Value::Whole(number) | Value::Fraction(number) => number.clone(),
        Value::Flag(flag) => flag.to_string(),
        Value::Table(entries) => {
            let part = |(key, node): &(Key, Node)| match &node.value {
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
