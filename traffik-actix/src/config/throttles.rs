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
    /// Whether it would deny anybody if its file were in force: it is neither disabled nor in shadow.
    pub(super) denies: bool,
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
    format!("{name}{TRIAL}")
}

/// At the end of their names, by which others would be taken for them.
const TRIAL: &str = " (shadow)";

impl Planned {
    /// Nothing if there are mistakes, of which all are told.
    pub(super) fn read(
        name: &str,
        node: &Node,
        table: &Table<'_>,
        around: &Surroundings<'_>,
    ) -> Option<Planned> {
        if name.ends_with(TRIAL) {
            table.refuse(format_args!(
                "a name that ends in `{TRIAL}` is one of a throttle that is tried: give it another"
            ));
        }
        let rate = rate(table);
        let known_as = match around.is_trial {
            true => trial_of(name),
            false => name.to_owned(),
        };
        let draft = Draft {
            table,
            around,
            builder: HttpThrottle::builder(&known_as),
            is_enabled: true,
            denies: true,
            said: node.said(),
            words: Vec::new(),
        };
        let draft = draft.limits().answers().who().backend().effect(name);
        let strategy = strategy_of(table);
        let (Some(rate), Some((strategy, text))) = (rate, strategy) else {
            return None;
        };
        let recipe = draft.builder.rate(rate).strategy(strategy);
        if table.is_mistaken() {
            return None;
        }
        // Its name, and whether the strategy can serve the rate.
        let built = recipe.clone().build();
        table.note(built.map_err(|error| Mistake::at(table.place, error)))?;
        let mut words = vec![format!("rate {rate}"), format!("strategy {text}")];
        words.extend(draft.words);
        Some(Planned {
            name: name.to_owned(),
            known_as,
            recipe,
            is_enabled: draft.is_enabled,
            denies: draft.denies,
            said: draft.said,
            words,
        })
    }
}

/// A throttle that is being read.
struct Draft<'a> {
    table: &'a Table<'a>,
    around: &'a Surroundings<'a>,
    builder: HttpThrottleBuilder,
    is_enabled: bool,
    denies: bool,
    said: String,
    words: Vec<String>,
}

impl Draft<'_> {
    fn say(&mut self, words: impl Into<String>) {
        self.words.push(words.into());
    }

    /// Whom it counts together, at what cost, and who may wait.
    fn limits(mut self) -> Self {
        let table = self.table;
        if let Some(cost) = table.count("cost") {
            self.builder = self.builder.cost(cost);
            self.say(format!("cost {cost}"));
        }
        if table.flag("shared") == Some(true) {
            self.builder = self.builder.shared();
            self.say("shared by all clients");
        }
        let scopes = [
            ("throttle", Scope::Throttle),
            ("route", Scope::Route),
            ("path", Scope::Path),
        ];
        if let Some(scope) = table.choice("scope", &scopes) {
            self.builder = self.builder.scope(scope);
            match scope {
                Scope::Throttle => {}
                Scope::Route => self.say("a count for each route"),
                Scope::Path => self.say("a count for each path"),
            }
        }
        if let Some(min_wait) = table.duration("min_wait") {
            self.builder = self.builder.min_wait(min_wait);
        }
        if let Some(max_wait) = table.duration("wait_up_to") {
            self.builder = self.builder.wait_up_to(max_wait);
            self.say(format!("waits up to {max_wait:?} rather than denying"));
        }
        if let Some(waiters) = table.count("max_waiters") {
            self.builder = self.builder.max_waiters(waiters as usize);
        }
        if let Some(waiters) = table.count("max_waiters_per_client") {
            self.builder = self.builder.max_waiters_per_client(waiters as usize);
        }
        self
    }

    /// What clients are told, and what happens when the store fails.
    fn answers(mut self) -> Self {
        let table = self.table;
        let policies = [
            ("allow", OnError::Allow),
            ("throttle", OnError::Throttle),
            ("raise", OnError::Raise),
        ];
        if let Some(on_error) = table.choice("on_error", &policies) {
            self.builder = self.builder.on_error(on_error);
        }
        let headers = [
            ("always", Headers::Always),
            ("denied", Headers::Denied),
            ("never", Headers::Never),
        ];
        if let Some(headers) = table.choice("headers", &headers) {
            self.builder = self.builder.headers(headers);
        }
        let styles = [
            ("standard", HeaderStyle::Standard),
            ("x_rate_limit", HeaderStyle::XRateLimit),
            ("both", HeaderStyle::Both),
        ];
        if let Some(style) = table.choice("header_style", &styles) {
            self.builder = self.builder.header_style(style);
        }
        self
    }

    /// Whom it tells apart.
    fn who(mut self) -> Self {
        const SOCKET: &str =
            "for each: the address of the socket, unless the program's backend says otherwise";
        let (table, around) = (self.table, self.around);
        let named = table.text("identity", "the name of an identity");
        let who = around.identities.of_throttle(named, around.proxies);
        match table.note(who).flatten() {
            Some(who) => {
                self.builder = self.builder.identify_source(who.source);
                self.said.push_str(&who.said);
                self.say(format!("for each: {}", who.words));
            }
            None => self.say(SOCKET),
        }
        self
    }

    /// Where it counts.
    fn backend(mut self) -> Self {
        const PROGRAM: &str =
            "counts in the backend of the program, else in the memory of the process";
        let (table, around) = (self.table, self.around);
        let named = table.text("backend", "the name of a backend");
        let is_default = named.is_none() && around.backends.has_default(around.parts);
        let Some((named, at)) = named.or(is_default.then_some(("default", None))) else {
            self.say(PROGRAM);
            return self;
        };
        let found = around.backends.find(named, at, around.parts);
        if let Some(found) = table.note(found) {
            if let Some(backend) = found.backend {
                self.builder = self.builder.backend(backend);
            }
            self.said.push_str(&found.said);
            self.say(format!("counts in {}", found.words));
        }
        self
    }

    /// Whether it decides, and denies or only says what it would do.
    fn effect(mut self, name: &str) -> Self {
        let table = self.table;
        self.is_enabled = table.flag("enabled").unwrap_or(true);
        if !self.is_enabled {
            self.say("disabled: admits everything, counts nothing");
        }
        let is_shadow = table.flag("shadow") == Some(true);
        self.denies = self.is_enabled && !is_shadow;
        if table.flag("shadow_header") == Some(true) {
            self.builder = self.builder.shadow_header();
        }
        if self.around.is_trial {
            self.builder = self.builder.shadow_of(name).shadow();
        } else if is_shadow {
            self.builder = self.builder.shadow();
            self.say("in shadow: decides and counts, and never denies");
        }
        self
    }
}

fn rate(table: &Table<'_>) -> Option<Rate> {
    let (text, at) = table.required_text("rate", "a text such as \"100/minute\"")?;
    let rate = Rate::parse(text);
    table.note(rate.map_err(|error| table.unreadable("rate", at, error)))
}

/// The strategy with its options, which are all other keys, and as text.
fn strategy_of(table: &Table<'_>) -> Option<(Arc<dyn Strategy>, String)> {
    const MUST: &str = "the name of a strategy such as \"token_bucket\"";
    let (name, at) = match table.has("strategy") {
        true => table.text("strategy", MUST)?,
        false => ("fixed_window", table.place),
    };
    // Of its name alone, so that a mistake in it is pointed out where it is.
    let alone = strategy::named(name);
    table.note(alone.map_err(|error| table.unreadable("strategy", at, error)))?;
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
    const MUST: &str = "a number, true, false, a text, or a table of numbers";
    let lacks = lacks(name, &key.text);
    // A slip in a key of throttles is no option of a strategy.
    if let Some(near) = table.meant(&key.text).filter(|_| lacks) {
        let what = format!(
            "{} has no key `{}`, did you mean `{near}`?",
            table.what, key.text
        );
        return Err(Mistake::at(key.place, what));
    }
    let option = option(node).ok_or_else(|| table.wrong(&key.text, node, MUST))?;
    let text = format!("{text},{}={option}", key.text);
    let at = if lacks { key.place } else { node.place };
    match strategy::named(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Mistake::at(at, format!("{}: {error}", table.what))),
    }
}

/// Whether a strategy has no option of this name.
fn lacks(strategy: &str, option: &str) -> bool {
    let options = strategy::options_of(strategy);
    options.is_some_and(|options| !options.contains(&option.trim()))
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
