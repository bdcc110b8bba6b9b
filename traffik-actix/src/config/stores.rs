//! Stores, as a file says them.

use std::time::Duration;

use traffik_core::{Backend, BackendExt, CircuitBreaker, MemoryBackend, Result};

use super::backends::Recipe;
use super::document::Mistake;
use super::parts::Parts;
use super::reader::Table;
use crate::throttle::backend::ThrottleBackend;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Redis,
    Cluster,
    Sentinel,
    Memcached,
}

/// Where it is. It may be secret.
#[derive(Debug)]
#[cfg_attr(not(feature = "redis-sentinel"), allow(dead_code))]
struct Place {
    urls: Vec<String>,
    /// Of a Redis that sentinels know.
    master: String,
    /// Which variables of the environment say so.
    from: String,
}

/// What is set of every store.
#[derive(Debug)]
#[cfg_attr(not(any(feature = "redis", feature = "memcached")), allow(dead_code))]
struct Settings {
    /// Of its table: that of its breaker.
    name: String,
    secret: Option<String>,
    namespace: Option<String>,
    deadline: Option<Duration>,
    connect_timeout: Option<Duration>,
    /// How many servers share the limits while it is away.
    nodes: Option<u32>,
}

impl Kind {
    pub(super) const ALL: [Kind; 4] = [Kind::Redis, Kind::Cluster, Kind::Sentinel, Kind::Memcached];

    /// What a file calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Redis => "redis",
            Kind::Cluster => "redis_cluster",
            Kind::Sentinel => "redis_sentinel",
            Kind::Memcached => "memcached",
        }
    }

    /// What its URLs are like.
    fn example(self) -> &'static str {
        match self {
            Kind::Redis => "redis://10.0.0.5",
            Kind::Cluster => "redis://10.0.0.1:6379",
            Kind::Sentinel => "redis://10.0.0.1:26379",
            Kind::Memcached => "memcache://10.0.0.1:11211",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Redis => "redis",
            Kind::Cluster => "a redis cluster",
            Kind::Sentinel => "the redis that sentinels name",
            Kind::Memcached => "memcached",
        }
    }

    /// The feature that it needs, if the program is built without.
    fn lacks(self) -> Option<&'static str> {
        let (feature, is_there) = match self {
            Kind::Redis => ("redis", cfg!(feature = "redis")),
            Kind::Cluster => ("redis-cluster", cfg!(feature = "redis-cluster")),
            Kind::Sentinel => ("redis-sentinel", cfg!(feature = "redis-sentinel")),
            Kind::Memcached => ("memcached", cfg!(feature = "memcached")),
        };
        (!is_there).then_some(feature)
    }
}

/// Nothing if it cannot be told where it is. Other mistakes are told as well.
pub(super) fn read(kind: Kind, name: &str, table: &Table<'_>, parts: &Parts) -> Option<Recipe> {
    let lacks = kind.lacks();
    match lacks {
        Some(feature) if parts.is_rehearsal => {
            parts.need(format!("feature `{feature}` of traffik-actix"));
        }
        Some(feature) => table.refuse(format!(
            "`type = \"{}\"` needs the feature `{feature}` of traffik-actix, which this program is built without",
            kind.name()
        )),
        None => {}
    }
    let place = Place::read(kind, table, parts);
    let settings = Settings::read(name, table, parts);
    let place = place?;
    let mut words = format!("{}{}", kind.words(), place.from);
    if let Some(nodes) = settings.nodes {
        words.push_str(&format!(
            "; while it is away memory, with 1/{nodes} of each limit"
        ));
    }
    Some(Recipe {
        said: format!("{kind:?} {place:?} {settings:?}"),
        words,
        make: Box::new(move || match lacks {
            None => open(kind, &place, settings),
            Some(_) => Ok(ThrottleBackend::new(MemoryBackend::new())),
        }),
    })
}

impl Place {
    fn read(kind: Kind, table: &Table<'_>, parts: &Parts) -> Option<Place> {
        let servers = match kind {
            Kind::Redis => url(kind, table, parts),
            _ => urls(kind, table, parts),
        };
        let master = match kind {
            Kind::Sentinel => master(table, parts),
            _ => Some(Default::default()),
        };
        let ((urls, from), (master, by)) = (servers?, master?);
        Some(Place {
            urls,
            master,
            from: from + &by,
        })
    }
}

fn url(kind: Kind, table: &Table<'_>, parts: &Parts) -> Option<(Vec<String>, String)> {
    const URL: &str =
        "a text such as \"redis://10.0.0.5\", or `url_env` with the variable that has it";
    let (url, from) = secret_text("url", "url_env", URL, table, parts)?;
    let from = from.map_or_else(String::new, |name| format!(", by the URL in {name}"));
    let url = match url.is_empty() {
        // In a rehearsal: the variable is the server's.
        true => kind.example().to_owned(),
        false => url,
    };
    Some((vec![url], from))
}

fn master(table: &Table<'_>, parts: &Parts) -> Option<(String, String)> {
    const MASTER: &str = "a text such as \"redis://mymaster\", with the name that the sentinels know in place of the host";
    let (master, from) = secret_text("master", "master_env", MASTER, table, parts)?;
    let from = from.map_or_else(String::new, |name| format!(", master by the URL in {name}"));
    let master = match master.is_empty() {
        true => "redis://master".to_owned(),
        false => master,
    };
    Some((master, from))
}

/// A list, or a variable of the environment with URLs between commas.
fn urls(kind: Kind, table: &Table<'_>, parts: &Parts) -> Option<(Vec<String>, String)> {
    let must = format!(
        "a list such as [\"{}\"], or `urls_env` with the variable that has them, between commas",
        kind.example()
    );
    let variable = instead("urls", "urls_env", &must, table, parts);
    let listed = table.texts("urls", &must).into_iter();
    let listed: Vec<String> = listed.map(|(url, _)| url.to_owned()).collect();
    if !listed.is_empty() {
        return Some((listed, String::new()));
    }
    let (text, name) = variable?;
    let each = text.split(',').map(str::trim).filter(|url| !url.is_empty());
    let mut urls: Vec<String> = each.map(str::to_owned).collect();
    if urls.is_empty() {
        urls.push(kind.example().to_owned());
    }
    Some((urls, format!(", by the URLs in {name}")))
}

/// A text, or a variable of the environment that has it, and which: in a rehearsal perhaps nothing.
fn secret_text(
    key: &'static str,
    env: &'static str,
    must: &str,
    table: &Table<'_>,
    parts: &Parts,
) -> Option<(String, Option<String>)> {
    let variable = instead(key, env, must, table, parts);
    match table.text(key, must) {
        Some((text, _)) => Some((text.to_owned(), None)),
        None => variable.map(|(text, name)| (text, Some(name))),
    }
}

/// The variable of the environment that stands in for a key: one of both must be there.
fn instead(
    key: &'static str,
    env: &'static str,
    must: &str,
    table: &Table<'_>,
    parts: &Parts,
) -> Option<(String, String)> {
    table.either(key, env);
    if !table.has(env) {
        table.require(key, must);
    }
    let (text, name) = variable(table, env, parts)?;
    if text.split(',').all(|one| one.trim().is_empty()) && !parts.is_rehearsal {
        table.refuse(format!("the variable {name} of `{env}` is empty"));
        return None;
    }
    Some((text, name))
}

/// The value of a variable of the environment that a file names, and what it is called.
fn variable(table: &Table<'_>, key: &'static str, parts: &Parts) -> Option<(String, String)> {
    const MUST: &str = "the name of an environment variable, of letters, digits and `_`";
    let (name, at) = table.text(key, MUST)?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    // Somebody who mistakes the one for the other has written a secret here.
    if !name.bytes().all(legal) || name.starts_with(|first: char| first.is_ascii_digit()) {
        let what = format!(
            "`{key}` of {} must be {MUST}, not the text itself",
            table.what
        );
        table.tell(Mistake::at(at, what));
        return None;
    }
    match std::env::var(name) {
        Ok(value) => Some((value, name.to_owned())),
        Err(_) if parts.is_rehearsal => {
            parts.need(format!("environment variable {name}"));
            Some((String::new(), name.to_owned()))
        }
        Err(_) => {
            let why = format!("the environment has no text in {name}");
            table.note(Err(table.unreadable(key, at, why)))
        }
    }
}

impl Settings {
    fn read(name: &str, table: &Table<'_>, parts: &Parts) -> Settings {
        const NODES: &str = "how many servers share the limits, 1 at least";
        let secret = variable(table, "secret_env", parts).map(|(secret, _)| secret);
        let secret = secret.filter(|secret| !secret.is_empty() || !parts.is_rehearsal);
        let namespace = table.text("namespace", "a text such as \"shop\"");
        let deadline = table.duration("deadline");
        let connect_timeout = table.duration("connect_timeout");
        let failover = table.choice("failover", &[("memory", ())]);
        let nodes = table.number("nodes", 1..=u32::MAX, NODES);
        if table.has("nodes") && !table.has("failover") {
            table.refuse(
                "`nodes` says who shares a limit while the store is away: it needs `failover = \"memory\"`",
            );
        }
        Settings {
            name: name.to_owned(),
            secret,
            namespace: namespace.map(|(text, _)| text.to_owned()),
            deadline,
            connect_timeout,
            nodes: failover.map(|()| nodes.unwrap_or(1)),
        }
    }

    #[cfg_attr(not(any(feature = "redis", feature = "memcached")), allow(dead_code))]
    fn around(name: String, nodes: Option<u32>, store: impl Backend) -> Result<ThrottleBackend> {
        let Some(nodes) = nodes else {
            return Ok(ThrottleBackend::new(store));
        };
        let breaker = CircuitBreaker::builder().name(name).build()?;
        let failover = store.failover(MemoryBackend::new(), breaker);
        Ok(ThrottleBackend::new(failover.nodes(nodes)))
    }
}

/// Nothing is connected to before it is asked.
#[cfg_attr(
    not(any(feature = "redis", feature = "memcached")),
    expect(unused_variables)
)]
fn open(kind: Kind, place: &Place, settings: Settings) -> Result<ThrottleBackend> {
    match kind {
        #[cfg(feature = "redis")]
        Kind::Redis => {
            let url = place.urls.first().map_or("", String::as_str);
            redis(traffik_core::RedisBackend::builder(url), settings)
        }
        #[cfg(feature = "redis-cluster")]
        Kind::Cluster => redis(
            traffik_core::RedisBackend::cluster(all(&place.urls)),
            settings,
        ),
        #[cfg(feature = "redis-sentinel")]
        Kind::Sentinel => redis(
            traffik_core::RedisBackend::sentinel(all(&place.urls), &place.master),
            settings,
        ),
        #[cfg(feature = "memcached")]
        Kind::Memcached => memcached(all(&place.urls), settings),
        #[allow(unreachable_patterns, reason = "that of a feature which is not there")]
        _ => Ok(ThrottleBackend::new(MemoryBackend::new())),
    }
}

#[cfg(any(
    feature = "redis-cluster",
    feature = "redis-sentinel",
    feature = "memcached"
))]
fn all(urls: &[String]) -> impl Iterator<Item = &str> {
    urls.iter().map(String::as_str)
}

#[cfg(feature = "redis")]
fn redis(
    builder: traffik_core::backend::RedisBackendBuilder,
    settings: Settings,
) -> Result<ThrottleBackend> {
    use traffik_core::backend::RedisBackendBuilder as Builder;
    let builder = set(builder, settings.namespace, Builder::namespace);
    let builder = set(builder, settings.secret, Builder::secret);
    let builder = set(builder, settings.deadline, Builder::deadline);
    let builder = set(builder, settings.connect_timeout, Builder::connect_timeout);
    Settings::around(settings.name, settings.nodes, builder.build()?)
}

#[cfg(feature = "memcached")]
fn memcached<'a>(
    mut urls: impl Iterator<Item = &'a str>,
    settings: Settings,
) -> Result<ThrottleBackend> {
    use traffik_core::backend::MemcachedBackendBuilder as Builder;
    let first = traffik_core::MemcachedBackend::builder(urls.next().unwrap_or_default());
    let builder = urls.fold(first, Builder::server);
    let secret = settings.secret.as_deref().map(str::as_bytes);
    let builder = set(builder, settings.namespace, Builder::namespace);
    let builder = set(builder, secret, Builder::secret);
    let builder = set(builder, settings.deadline, Builder::deadline);
    let builder = set(builder, settings.connect_timeout, Builder::connect_timeout);
    Settings::around(settings.name, settings.nodes, builder.build()?)
}

/// Sets what a file says, and leaves the default of what it does not.
#[cfg(any(feature = "redis", feature = "memcached"))]
fn set<B, T>(builder: B, said: Option<T>, how: impl FnOnce(B, T) -> B) -> B {
    match said {
        Some(value) => how(builder, value),
        None => builder,
    }
}
