//! A Redis Cluster.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "redis-tls")]
use redis::Client;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::{ClusterConnection, Connect as ConnectNode};
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline,
    RedisError, RedisFuture, RedisResult, Value,
};

use super::RedisBackend;
use super::builder::RedisBackendBuilder;
use super::link::{Connect, Wire, awaited};
use super::map::{Map, Range};
use super::node::{info, tcp_settings};
use crate::backend::BoxFuture;
use crate::error::{Error, Result};
use crate::key::Key;

impl RedisBackend {
    /// A backend on a Redis Cluster, of which some nodes are at `urls`. Needs the feature
    /// `redis-cluster`.
    ///
    /// All keys of one identity are in one slot, so that a batch is one script on one node. A batch
    /// of several identities, or with a limit that everybody shares, is not: its slots are asked
    /// first and then charged one after the other. So a denial charges nothing, unless another hit
    /// takes the last of a limit in between.
    ///
    /// A node that is lost or hangs takes its own slots with it, until a replica takes over, and no
    /// others (if the nodes have `cluster-require-full-coverage no`; else the cluster itself denies
    /// all). If a node is lost while it decides, the hit is an [interrupted](Error::is_interrupted) error,
    /// as on a single Redis, and may have been charged: nothing is asked of its successor again, lest a
    /// refund be made twice.
    ///
    /// Slots may be moved to other nodes while hits go on. A batch of several limits is answered
    /// with an error, and charges nothing, while some of its keys have been moved and others have
    /// not, or do not exist yet.
    ///
    /// ```no_run
    /// use traffik_core::RedisBackend;
    ///
    /// let nodes = ["redis://10.0.0.1", "redis://10.0.0.2", "redis://10.0.0.3"];
    /// let backend = RedisBackend::cluster(nodes).namespace("shop").build()?;
    /// # let _ = backend;
    /// # Ok::<(), traffik_core::Error>(())
    /// ```
    pub fn cluster<'a>(urls: impl IntoIterator<Item = &'a str>) -> RedisBackendBuilder {
        RedisBackendBuilder::on(Cluster::at(urls))
    }
}

struct Cluster {
    client: ClusterClient,
    /// Where it was said to be.
    nodes: Vec<ConnectionInfo>,
    map: Arc<Map>,
}

impl Cluster {
    fn at<'a>(urls: impl IntoIterator<Item = &'a str>) -> Result<Cluster> {
        let nodes = urls.into_iter().map(info).collect::<Result<Vec<_>>>()?;
        if nodes.is_empty() {
            return Err(Error::invalid(
                "at least one node of the redis cluster is needed, such as `redis://10.0.0.1`",
            ));
        }
        let client = Self::builder(nodes.clone()).build().map_err(unusable)?;
        Ok(Cluster {
            client,
            nodes,
            map: Arc::default(),
        })
    }

    fn builder(nodes: Vec<ConnectionInfo>) -> ClusterClientBuilder {
        ClusterClient::builder(nodes)
            .tcp_settings(tcp_settings())
            // Of redirections, mostly, and never of what may have been executed: see `Once`. By default it is
            // sixteen.
            .retries(2)
            .min_retry_wait(2)
            .max_retry_wait(10)
            .connection_timeout(Duration::from_secs(1))
    }
}

fn unusable(error: RedisError) -> Error {
    Error::invalid("this redis cluster cannot be connected to").with_source(error)
}

impl Connect for Cluster {
    fn connect(&self) -> BoxFuture<'static, RedisResult<Box<dyn Wire>>> {
        let (client, map) = (self.client.clone(), Arc::clone(&self.map));
        Box::pin(async move {
            let mut cluster = connection(&client).await?;
            // A hint for breakers: whoever cannot tell may still decide.
            if let Ok(ranges) = ranges(&mut cluster).await {
                map.learn(ranges);
            }
            Ok(Box::new(cluster) as Box<dyn Wire>)
        })
    }

    fn shard_of(&self, key: &Key) -> u64 {
        self.map.shard_of(key)
    }

    fn has_slots(&self) -> bool {
        true
    }

    #[cfg(feature = "redis-tls")]
    fn with_certificates(&self, certificates: &redis::TlsCertificates) -> Result<Arc<dyn Connect>> {
        let nodes = self.nodes.clone();
        // A server alone would refuse certificates for `redis://`, where a cluster turns it into
        // `rediss://`.
        for node in &nodes {
            Client::build_with_tls(node.clone(), certificates.clone())
                .map_err(super::tls::unusable)?;
        }
        let client = Self::builder(nodes.clone()).certs(certificates.clone());
        let client = client.build().map_err(super::tls::unusable)?;
        let map = Arc::default();
        Ok(Arc::new(Cluster { client, nodes, map }))
    }

    fn connect_all(&self) -> BoxFuture<'static, RedisResult<Vec<Box<dyn Wire>>>> {
        let client = self.client.clone();
        Box::pin(async move {
            let mut cluster = connection(&client).await?;
            let masters = masters(&mut cluster).await?;
            let routed = masters.into_iter().map(|(host, port)| {
                let route = SingleNodeRoutingInfo::ByAddress { host, port };
                let cluster = cluster.clone();
                Box::new(Master { cluster, route }) as Box<dyn Wire>
            });
            Ok(routed.collect())
        })
    }
}

/// Over connections of our own kind, by a function that the client does not document.
async fn connection(client: &ClusterClient) -> RedisResult<ClusterConnection<Once>> {
    client.get_async_generic_connection().await
}

async fn masters(cluster: &mut ClusterConnection<Once>) -> RedisResult<BTreeSet<(String, u16)>> {
    let ranges = ranges(cluster).await?;
    Ok(ranges.into_iter().map(|range| range.master).collect())
}

/// Who has which slots.
async fn ranges(cluster: &mut ClusterConnection<Once>) -> RedisResult<Vec<Range>> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let anybody = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let slots = cluster
        .route_command(command, anybody)
        .await?
        .extract_error()?;
    read_ranges(slots)
}

pub(super) fn read_ranges(slots: Value) -> RedisResult<Vec<Range>> {
    // First and last slot, the master, its replicas; of each its address and more.
    let slots: Vec<Vec<Value>> = redis::from_redis_value(slots)?;
    let mut ranges = Vec::with_capacity(slots.len());
    for range in slots {
        let [_, last, master, ..] = &*range else {
            continue;
        };
        let master: Vec<Value> = redis::from_redis_value_ref(master)?;
        if let [host, port, ..] = &*master {
            ranges.push(Range {
                last: redis::from_redis_value_ref(last)?,
                master: (
                    redis::from_redis_value_ref(host)?,
                    redis::from_redis_value_ref(port)?,
                ),
            });
        }
    }
    Ok(ranges)
}

/// A connection to a node on which nothing is asked again that may have been executed.
///
/// The client of a cluster follows redirections, and for that asks again. It would do so, too, when a connection
/// broke before the answer: a refund would be made twice, and if nobody was there the second time, the error would
/// say that nothing was executed.
#[derive(Clone)]
struct Once(MultiplexedConnection);

impl ConnectNode for Once {
    fn connect_with_config<'a, T>(info: T, config: AsyncConnectionConfig) -> RedisFuture<'a, Self>
    where
        T: IntoConnectionInfo + Send + 'a,
    {
        let connecting = MultiplexedConnection::connect_with_config(info, config);
        Box::pin(async { Ok(Once(connecting.await?)) })
    }
}

impl ConnectionLike for Once {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(once(self.0.req_packed_command(command)))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(once(self.0.req_packed_commands(pipeline, offset, count)))
    }

    fn get_db(&self) -> i64 {
        self.0.get_db()
    }
}

/// The reply, or an error that is of a kind which the client hands on, unless certainly nothing was executed.
async fn once<T>(reply: RedisFuture<'_, T>) -> RedisResult<T> {
    let (reply, waited) = awaited(reply).await;
    reply.map_err(|error| match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension => error,
        // The next one that is asked finds the connection gone, and the client connects anew.
        _ if waited => io::Error::new(io::ErrorKind::Unsupported, error).into(),
        _ => error,
    })
}

/// The connection to one node.
#[derive(Clone)]
struct Master {
    cluster: ClusterConnection<Once>,
    route: SingleNodeRoutingInfo,
}

impl ConnectionLike for Master {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        let route = RoutingInfo::SingleNode(self.route.clone());
        Box::pin(self.cluster.route_command(command.clone(), route))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let route = self.route.clone();
        Box::pin(
            self.cluster
                .route_pipeline(pipeline.clone(), offset, count, route),
        )
    }

    fn get_db(&self) -> i64 {
        self.cluster.get_db()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses only: the rest of a URL may be secret.
        let addresses = self.nodes.iter().map(|node| node.addr().to_string());
        write!(f, "Cluster({:?})", addresses.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests;
