//! What tests need to run servers.

mod concurrency;
mod elsewhere;
mod faketime;
pub(crate) mod leasing;
mod map_store;
mod memcached_server;
mod port;
mod process;
mod proxy;
mod random;
mod redis_cluster;
mod redis_sentinel;
mod redis_server;
mod redis_tls;
mod strategies;
pub(crate) mod ws;

pub(crate) use concurrency::decides_exactly_under_concurrency;
pub(crate) use elsewhere::elsewhere;
pub(crate) use faketime::clocks_can_be_set;
pub(crate) use map_store::MapStore;
pub(crate) use memcached_server::MemcachedServer;
pub(crate) use port::Port;
pub(crate) use process::PATIENCE;
pub(crate) use proxy::{Fault, Proxy};
pub(crate) use random::Random;
pub(crate) use redis_cluster::RedisCluster;
pub(crate) use redis_sentinel::WatchedRedis;
pub(crate) use redis_server::{RedisServer, connections_in};
pub(crate) use redis_tls::{Certificates, TlsRedis};
pub(crate) use strategies::strategies;
