//! A master that Redis Sentinel watches.

use std::fmt;

use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{Client, ConnectionAddr, ConnectionInfo, RedisResult, TlsMode};

use super::RedisBackend;
use super::builder::RedisBackendBuilder;
use super::link::{Connect, Reached, Wire};
use super::node::{dial, info, reach, tcp_settings};
use crate::backend::BoxFuture;
use crate::error::{Error, Result};

impl RedisBackend {
    /// A backend on the master that the sentinels at these URLs know by the name that stands in
    /// place of the host in `master`: `redis://:password@mymaster/0`. Needs the feature
    /// `redis-sentinel`.
    ///
    /// When the master is lost or demoted, the sentinels are asked for the new one with the very
    /// next hit. What the old one had not replicated is forgotten.
    ///
    /// ```no_run
    /// use traffik_core::RedisBackend;
    ///
    /// let sentinels = ["redis://10.0.0.1:26379", "redis://10.0.0.2:26379"];
    /// let backend = RedisBackend::sentinel(sentinels, "redis://mymaster").build()?;
    /// # let _ = backend;
    /// # Ok::<(), traffik_core::Error>(())
    /// ```
    pub fn sentinel<'a>(
        sentinels: impl IntoIterator<Item = &'a str>,
        master: &str,
    ) -> RedisBackendBuilder {
        RedisBackendBuilder::on(Watched::at(sentinels, master))
    }
}

#[derive(Clone)]
struct Watched {
    sentinels: Vec<ConnectionInfo>,
    name: String,
    settings: SentinelNodeConnectionInfo,
}

impl Watched {
    fn at<'a>(sentinels: impl IntoIterator<Item = &'a str>, master: &str) -> Result<Watched> {
        let sentinels = sentinels
            .into_iter()
            .map(info)
            .collect::<Result<Vec<_>>>()?;
        if sentinels.is_empty() {
            return Err(Error::invalid("at least one sentinel is needed"));
        }
        if sentinels.iter().any(|one| one.redis_settings().db() != 0) {
            return Err(Error::invalid(
                "sentinels have no databases: the one of the master stands in its own URL, such as \
                 `redis://mymaster/2`",
            ));
        }
        let master = info(master)?;
        let settings = SentinelNodeConnectionInfo::default()
            .set_tcp_settings(tcp_settings())
            .set_redis_connection_info(master.redis_settings().clone());
        let (name, settings) = match master.addr() {
            ConnectionAddr::Tcp(_, port) | ConnectionAddr::TcpTls { port, .. } if *port != 6379 => {
                return Err(Error::invalid(
                    "the URL of a master has no port, which the sentinels tell: `redis://mymaster/0`",
                ));
            }
            ConnectionAddr::Tcp(name, _) => (name, settings),
            ConnectionAddr::TcpTls { host, .. } => (host, settings.set_tls_mode(TlsMode::Secure)),
            _ => {
                return Err(Error::invalid(
                    "the URL of a master has its name in place of the host, such as \
                     `redis://:password@mymaster/0`",
                ));
            }
        };
        Ok(Watched {
            sentinels,
            name: name.clone(),
            settings,
        })
    }

    async fn master(self) -> RedisResult<Client> {
        // A new one each time: an old one would go on with whatever sentinel it knows.
        let mut sentinel = Sentinel::build(self.sentinels)?;
        let master = sentinel.async_master_for(&self.name, Some(&self.settings));
        master.await
    }
}

impl Connect for Watched {
    fn connect(&self) -> BoxFuture<'static, RedisResult<Box<dyn Wire>>> {
        let watched = self.clone();
        Box::pin(async { dial(&watched.master().await?).await })
    }

    fn reach(&self) -> BoxFuture<'static, RedisResult<Reached>> {
        let watched = self.clone();
        Box::pin(async { reach(&watched.master().await?).await })
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self
            .sentinels
            .iter()
            .map(|sentinel| sentinel.addr().to_string());
        write!(
            f,
            "Sentinel({} at {:?})",
            self.name,
            addresses.collect::<Vec<_>>()
        )
    }
}
