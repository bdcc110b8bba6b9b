//! A single Redis, or whatever a function of the user's connects to.

use std::fmt;
#[cfg(feature = "redis-tls")]
use std::sync::Arc;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisResult,
};

use super::link::{Connect, Reached, Wire};
use super::stream;
use crate::backend::BoxFuture;
use crate::error::{Error, Result};

/// One server.
pub(super) struct Node {
    client: Client,
    /// Whether the client is ours, and not set up by the user.
    is_ours: bool,
}

impl Node {
    /// The server at a URL.
    pub(super) fn at(url: &str) -> Result<Node> {
        Ok(Node {
            client: open(info(url)?)?,
            is_ours: true,
        })
    }

    /// The server of an existing client.
    pub(super) fn of(client: Client) -> Node {
        #[cfg(feature = "redis-tls")]
        super::tls::choose_cryptography(client.get_connection_info());
        Node {
            client,
            is_ours: false,
        }
    }
}

impl Connect for Node {
    fn connect(&self) -> BoxFuture<'static, RedisResult<Box<dyn Wire>>> {
        let client = self.client.clone();
        Box::pin(async move { dial(&client).await })
    }

    fn reach(&self) -> BoxFuture<'static, RedisResult<Reached>> {
        match self.is_ours {
            true => {
                let client = self.client.clone();
                Box::pin(async move { reach(&client).await })
            }
            // Not all that may be set can be asked for.
            false => self.reach_as_ever(),
        }
    }

    #[cfg(feature = "redis-tls")]
    fn with_certificates(&self, certificates: &redis::TlsCertificates) -> Result<Arc<dyn Connect>> {
        let info = self.client.get_connection_info().clone();
        let client = Client::build_with_tls(info, certificates.clone());
        Ok(Arc::new(Node {
            client: client.map_err(super::tls::unusable)?,
            is_ours: true,
        }))
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address only: the rest of a URL may be secret.
        write!(f, "Node({})", self.client.get_connection_info().addr())
    }
}

/// Parses a URL, and sets what the client leaves unset.
///
/// # Errors
///
/// If it is no URL of a Redis, or asks for what cannot be done; the message does not repeat it, since it may hold a password.
pub(super) fn info(url: &str) -> Result<ConnectionInfo> {
    let malformed = || {
        Error::invalid(
            "the URL of a redis must look like `redis://user:password@host:6379/0`, or begin with \
             `rediss://` (feature `redis-tls`) or `redis+unix://`",
        )
    };
    let encrypted = url.starts_with("rediss:") || url.starts_with("valkeys:");
    if encrypted && cfg!(not(feature = "redis-tls")) {
        return Err(Error::invalid(
            "`rediss://` needs the feature `redis-tls` of traffik, which this program is built without",
        ));
    }
    let info = url
        .into_connection_info()
        .map_err(|error| malformed().with_source(error.category().to_owned()))?;
    if info.redis_settings().db() < 0 {
        return Err(malformed().with_source("databases count from 0"));
    }
    if let Some(why) = impossible(url, &info) {
        return Err(Error::invalid(why));
    }
    #[cfg(feature = "redis-tls")]
    super::tls::choose_cryptography(&info);
    Ok(info.set_tcp_settings(tcp_settings()))
}

/// What a URL asks for that the client cannot do, or would leave out without a word.
fn impossible(url: &str, info: &ConnectionInfo) -> Option<&'static str> {
    let parsed = redis::parse_redis_url(url)?;
    let settings = info.redis_settings();
    let is_unix = matches!(info.addr(), ConnectionAddr::Unix(_));
    let known: &[&str] = match is_unix {
        true => &["db", "user", "pass", "protocol"],
        false => &["protocol"],
    };
    if parsed.fragment() == Some("insecure") {
        return Some(
            "the URL of a redis cannot end in `#insecure`: certificates are always verified; trust the \
             root that signed the server's with `certificates`, or by the file that SSL_CERT_FILE names",
        );
    }
    if parsed.fragment().is_some() {
        return Some("the URL of a redis has no `#`; in a password it is written `%23`");
    }
    if parsed
        .query_pairs()
        .any(|(name, _)| !known.contains(&&*name))
    {
        return Some(match is_unix {
            true => {
                "the URL of a redis's socket may end in `?db=0&user=shop&pass=secret`, and nothing else"
            }
            false => {
                "after `?` the URL of a redis can only have `protocol=resp3`: user, password and database \
                 are written `redis://user:password@host:6379/0`, and times are set on the builder"
            }
        });
    }
    if settings.username().is_some() && settings.password().is_none() {
        return Some("the URL of a redis has a user and no password, so that it could not log in");
    }
    None
}

pub(super) fn open(info: ConnectionInfo) -> Result<Client> {
    Client::open(info)
        .map_err(|error| Error::invalid("this redis cannot be connected to").with_source(error))
}

/// Without `TCP_NODELAY` small commands wait for each other's acknowledgements, and without
/// keepalive and user timeout a server that vanished stays connected for a quarter of an hour.
pub(super) fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(
        TcpKeepalive::new()
            .with_time(Duration::from_secs(15))
            .with_interval(Duration::from_secs(5)),
    );
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let settings = settings.set_user_timeout(Duration::from_secs(5));
    settings
}

pub(super) async fn dial(client: &Client) -> RedisResult<Box<dyn Wire>> {
    let config = AsyncConnectionConfig::new()
        // Decisions have a deadline of their own; a second timer would only cost time.
        .set_response_timeout(None)
        .set_connection_timeout(None)
        .set_pipeline_buffer_size(1024);
    let connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    Ok(Box::new(connection))
}

/// To the server of a client with our settings.
pub(super) async fn reach(client: &Client) -> RedisResult<Reached> {
    match stream::open(client.get_connection_info()).await? {
        Some(stream) => Ok(Reached::Stream(stream)),
        None => Ok(Reached::Wire(dial(client).await?)),
    }
}

/// A function that connects.
pub(super) struct Factory<F>(pub(super) F);

impl<F, Fut, C> Connect for Factory<F>
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = RedisResult<C>> + Send + 'static,
    C: ConnectionLike + Clone + Send + Sync + 'static,
{
    fn connect(&self) -> BoxFuture<'static, RedisResult<Box<dyn Wire>>> {
        let connecting = (self.0)();
        Box::pin(async { Ok(Box::new(connecting.await?) as Box<dyn Wire>) })
    }
}

impl<F> fmt::Debug for Factory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Factory(..)")
    }
}
