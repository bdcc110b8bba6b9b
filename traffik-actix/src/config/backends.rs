//! Where counts live, as a file says it.

use std::collections::BTreeMap;

use traffik_core::{MemoryBackend, Result};

use super::document::{Mistake, Place, Read};
use super::parts::Parts;
use super::reader::{Table, unknown};
use crate::throttle::backend::ThrottleBackend;

/// The backends of a file.
#[derive(Clone, Default)]
pub(super) struct Backends(BTreeMap<String, Made>);

#[derive(Clone)]
struct Made {
    /// All that it depends on, which may be secret.
    said: String,
    words: String,
    backend: ThrottleBackend,
}

type Maker = Box<dyn FnOnce() -> Result<ThrottleBackend>>;

struct Recipe {
    said: String,
    words: String,
    make: Maker,
}

impl Backends {
    /// Those of a file. One of which the same was said before goes on as it is, with all counts.
    pub(super) fn read(file: &Table<'_>, parts: &Parts, before: &Backends) -> Read<Backends> {
        let mut all = BTreeMap::new();
        for (name, _, table) in file.tables("backend")? {
            if parts.backends.contains_key(name) {
                return Err(
                    table.mistake("the program has a backend of this name: give this one another")
                );
            }
            let kinds = [("memory", true), ("redis", false)];
            let recipe = match table.choice("type", &kinds)? {
                Some(true) => memory(&table)?,
                Some(false) => redis(&table, parts)?,
                None => return Err(table.mistake("`type` is missing: \"memory\" or \"redis\"")),
            };
            table.finish()?;
            let known = before.0.get(name).filter(|made| made.said == recipe.said);
            let backend = match known {
                Some(made) => made.backend.clone(),
                None => (recipe.make)()
                    .map_err(|error| table.mistake(error))?
                    .separate(),
            };
            let Recipe { said, words, .. } = recipe;
            let made = Made {
                said,
                words,
                backend,
            };
            all.insert(name.to_owned(), made);
        }
        Ok(Backends(all))
    }

    /// The backend of this name, what it depends on, and what it is in words.
    pub(super) fn find(
        &self,
        name: &str,
        at: Option<Place>,
        parts: &Parts,
    ) -> Read<(Option<ThrottleBackend>, String, String)> {
        if let Some(made) = self.0.get(name) {
            let words = format!("`{name}` ({})", made.words);
            return Ok((Some(made.backend.clone()), made.said.clone(), words));
        }
        if let Some(backend) = parts.backends.get(name) {
            let words = format!("`{name}` of the program");
            return Ok((Some(backend.clone()), "the program's".to_owned(), words));
        }
        if parts.is_rehearsal {
            parts.need(format!("backend `{name}`"));
            return Ok((None, String::new(), format!("`{name}` of the program")));
        }
        let known = self.0.keys().chain(parts.backends.keys());
        let what = unknown("backend", name, known.map(String::as_str));
        Err(Mistake::at(at, what))
    }

    /// The one that throttles have which name none.
    pub(super) fn has_default(&self, parts: &Parts) -> bool {
        self.0.contains_key("default") || parts.backends.contains_key("default")
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn memory(table: &Table<'_>) -> Read<Recipe> {
    let max_keys = table.count("max_keys")?;
    let make = move || {
        let mut builder = MemoryBackend::builder();
        if let Some(max_keys) = max_keys {
            builder = builder.max_keys(max_keys as usize);
        }
        Ok(ThrottleBackend::new(builder.build()?))
    };
    Ok(Recipe {
        said: format!("memory {max_keys:?}"),
        words: "the memory of the process".to_owned(),
        make: Box::new(make),
    })
}

/// The value of a variable of the environment that a file names, and what it is called.
#[cfg(feature = "redis")]
fn variable(table: &Table<'_>, key: &'static str, parts: &Parts) -> Read<Option<(String, String)>> {
    const MUST: &str = "the name of an environment variable, of letters, digits and `_`";
    let Some((name, at)) = table.text(key, MUST)? else {
        return Ok(None);
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    // Somebody who mistakes the one for the other has written a secret here.
    if !name.bytes().all(legal) || name.starts_with(|first: char| first.is_ascii_digit()) {
        let what = format!(
            "`{key}` of {} must be {MUST}, not the text itself",
            table.what
        );
        return Err(Mistake::at(at, what));
    }
    match std::env::var(name) {
        Ok(value) => Ok(Some((value, name.to_owned()))),
        Err(_) if parts.is_rehearsal => {
            parts.need(format!("environment variable {name}"));
            Ok(Some((String::new(), name.to_owned())))
        }
        Err(_) => {
            let what = format!(
                "`{key}` of {}: the environment has no text in {name}",
                table.what
            );
            Err(Mistake::at(at, what))
        }
    }
}

#[cfg(feature = "redis")]
fn redis(table: &Table<'_>, parts: &Parts) -> Read<Recipe> {
    use traffik_core::{BackendExt, CircuitBreaker, RedisBackend};

    const URL: &str =
        "a text such as \"redis://10.0.0.5\", or `url_env` with the variable that has it";
    let from = variable(table, "url_env", parts)?;
    let url = table.text("url", URL)?;
    let (url, from) = match (url, from) {
        (Some((_, at)), Some(_)) => {
            let what = format!("{} has both `url` and `url_env`: leave one out", table.what);
            return Err(Mistake::at(at, what));
        }
        (Some((url, _)), None) => (url.to_owned(), String::new()),
        // In a rehearsal: the variable is the server's.
        (None, Some((url, name))) if url.is_empty() && parts.is_rehearsal => (
            "redis://127.0.0.1".to_owned(),
            format!(", by the URL in {name}"),
        ),
        (None, Some((url, name))) => (url, format!(", by the URL in {name}")),
        (None, None) => return Err(table.mistake(format!("`url` is missing: {URL}"))),
    };
    let secret = variable(table, "secret_env", parts)?.map(|(secret, _)| secret);
    let secret = secret.filter(|secret| !secret.is_empty() || !parts.is_rehearsal);
    let namespace = table.text("namespace", "a text such as \"shop\"")?;
    let namespace = namespace.map(|(text, _)| text.to_owned());
    let deadline = table.duration("deadline")?;
    let connect_timeout = table.duration("connect_timeout")?;
    let failover = table.choice("failover", &[("memory", ())])?;
    let nodes = table.count("nodes")?;
    if let (None, Some(_)) = (failover, nodes) {
        return Err(table.mistake(
            "`nodes` says who shares a limit while redis is away: it needs `failover = \"memory\"`",
        ));
    }
    if nodes == Some(0) {
        return Err(table.mistake("`nodes` must be how many servers share the limits, 1 at least"));
    }
    let mut words = format!("redis{from}");
    if failover.is_some() {
        let nodes = nodes.unwrap_or(1);
        words.push_str(&format!(
            "; while it is away memory, with 1/{nodes} of each limit"
        ));
    }
    let said = format!(
        "redis {url} {secret:?} {namespace:?} {deadline:?} {connect_timeout:?} {failover:?} {nodes:?}"
    );
    let make = move || {
        let mut builder = RedisBackend::builder(&url);
        if let Some(namespace) = namespace {
            builder = builder.namespace(namespace);
        }
        if let Some(secret) = secret {
            builder = builder.secret(secret);
        }
        if let Some(deadline) = deadline {
            builder = builder.deadline(deadline);
        }
        if let Some(timeout) = connect_timeout {
            builder = builder.connect_timeout(timeout);
        }
        let redis = builder.build()?;
        Ok(match failover {
            None => ThrottleBackend::new(redis),
            Some(()) => {
                let failover = redis.failover(MemoryBackend::new(), CircuitBreaker::new());
                ThrottleBackend::new(failover.nodes(nodes.unwrap_or(1)))
            }
        })
    };
    let make = Box::new(make);
    Ok(Recipe { said, words, make })
}

#[cfg(not(feature = "redis"))]
fn redis(table: &Table<'_>, _: &Parts) -> Read<Recipe> {
    Err(table.mistake("`type = \"redis\"` needs the feature `redis` of traffik-actix, which this program is built without"))
}
