//! URLs of Redis, of a Cluster and of what sentinels watch.

use traffik_actix::RedisBackend;
use traffik_core::backend::RedisBackendBuilder;

use crate::flags::Error;

/// Redis, however many there are of it.
pub(crate) fn at(url: &str) -> Result<RedisBackendBuilder, Error> {
    let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
    match scheme.split_once('-') {
        None => Ok(RedisBackend::builder(url)),
        Some((single, "cluster")) => cluster(single, rest),
        Some((single, "sentinel")) => sentinel(single, rest),
        Some(_) => Err(format!(
            "--backend {scheme}://.. is not known: there are redis://, redis-cluster:// and \
             redis-sentinel://, and with TLS rediss:// and so on"
        )
        .into()),
    }
}

/// `[user:password@]HOST[:PORT][,HOST[:PORT]]`, of which the first two are every node's.
#[cfg(feature = "redis-cluster")]
fn cluster(scheme: &str, rest: &str) -> Result<RedisBackendBuilder, Error> {
    let (login, hosts) = logins(rest);
    let (hosts, path) = hosts.split_at(hosts.find(['/', '?']).unwrap_or(hosts.len()));
    let urls =
        servers("redis-cluster", hosts)?.map(|host| format!("{scheme}://{login}{host}{path}"));
    let urls: Vec<_> = urls.collect();
    Ok(RedisBackend::cluster(urls.iter().map(String::as_str)))
}

#[cfg(not(feature = "redis-cluster"))]
fn cluster(_scheme: &str, _rest: &str) -> Result<RedisBackendBuilder, Error> {
    Err("--backend redis-cluster://.. needs a server built with `--features redis-cluster`".into())
}

/// `[user:password@]HOST[:PORT][,HOST[:PORT]]/MASTER[/DATABASE]`, of which the first two are the
/// master's.
#[cfg(feature = "redis-sentinel")]
fn sentinel(scheme: &str, rest: &str) -> Result<RedisBackendBuilder, Error> {
    const RIGHT: &str = "--backend redis-sentinel://.. must name the sentinels and the master they \
        watch, such as redis-sentinel://HOST:26379,HOST:26379/mymaster";
    let (login, rest) = logins(rest);
    let (hosts, master) = rest.split_once('/').ok_or(RIGHT)?;
    if master.is_empty() || master.starts_with(['/', '?']) {
        return Err(RIGHT.into());
    }
    // A port of its own, unless it is said: the default is that of a Redis.
    let sentinels = servers("redis-sentinel", hosts)?.map(|host| {
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.contains(']'));
        match has_port {
            true => format!("{scheme}://{host}"),
            false => format!("{scheme}://{host}:26379"),
        }
    });
    let sentinels: Vec<_> = sentinels.collect();
    let master = format!("{scheme}://{login}{master}");
    Ok(RedisBackend::sentinel(
        sentinels.iter().map(String::as_str),
        &master,
    ))
}

#[cfg(not(feature = "redis-sentinel"))]
fn sentinel(_scheme: &str, _rest: &str) -> Result<RedisBackendBuilder, Error> {
    Err(
        "--backend redis-sentinel://.. needs a server built with `--features redis-sentinel`"
            .into(),
    )
}

/// `user:password@`, or nothing, and what is behind it.
#[cfg(any(feature = "redis-cluster", feature = "redis-sentinel"))]
fn logins(rest: &str) -> (&str, &str) {
    let end = rest.find('/').unwrap_or(rest.len());
    let at = rest[..end].rfind('@').map_or(0, |at| at + 1);
    rest.split_at(at)
}

#[cfg(any(feature = "redis-cluster", feature = "redis-sentinel"))]
fn servers<'a>(scheme: &str, hosts: &'a str) -> Result<impl Iterator<Item = &'a str>, Error> {
    match hosts.split(',').any(str::is_empty) {
        true => Err(format!(
            "--backend {scheme}://.. must name servers, such as {scheme}://HOST:PORT,HOST:PORT"
        )
        .into()),
        false => Ok(hosts.split(',')),
    }
}
