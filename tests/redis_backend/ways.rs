//! Ways to reach a Redis other than its address.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use traffik_core::backend::RedisBackendBuilder;
use traffik_core::redis::aio::MultiplexedConnection;
use traffik_core::redis::{Client, RedisError};
use traffik_core::{Identity, RedisBackend};

use super::throttle;
use crate::support::RedisServer;

const DEADLINE: Duration = Duration::from_secs(10);

async fn counts_down_from_three(builder: RedisBackendBuilder) {
    let backend = builder.deadline(DEADLINE).build().unwrap();
    let throttle = throttle("ways", "3/day", backend);
    let ann = Identity::of("ann");
    for left in [2, 1, 0] {
        assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), left);
    }
    assert!(throttle.hit(&ann).await.unwrap().is_denied());
}

#[tokio::test]
async fn by_a_unix_socket() {
    let server = RedisServer::start_with(&["--unixsocket", "redis.sock"]);
    let path: Vec<String> = server.command(&["CONFIG", "GET", "dir"]);
    for (database, scheme) in ["redis+unix", "unix"].iter().enumerate() {
        let url = format!("{scheme}://{}/redis.sock?db={database}", path[1]);
        counts_down_from_three(RedisBackend::builder(&url)).await;
    }
    let keyspace: String = server.command(&["INFO", "keyspace"]);
    assert!(
        keyspace.contains("db0:keys=1,") && keyspace.contains("db1:keys=1,"),
        "{keyspace}"
    );
}

#[tokio::test]
async fn by_an_existing_client() {
    let server = RedisServer::start();
    let client = Client::open(format!("{}/5", server.url())).unwrap();
    counts_down_from_three(RedisBackendBuilder::from_client(client)).await;
    let keyspace: String = server.command(&["INFO", "keyspace"]);
    assert!(keyspace.contains("db5:keys=1,"), "{keyspace}");
}

#[tokio::test]
async fn by_a_function_that_connects() {
    let mut server = RedisServer::start();
    let (client, calls) = (
        Client::open(server.url()).unwrap(),
        Arc::new(AtomicU32::new(0)),
    );
    let counted = Arc::clone(&calls);
    let backend = RedisBackendBuilder::from_factory(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let client = client.clone();
        async move { client.get_multiplexed_async_connection().await }
    });
    let backend = backend.deadline(DEADLINE).build().unwrap();
    let throttle = throttle("factory", "9/day", backend);
    let ann = Identity::of("ann");
    for _ in 0..3 {
        assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1, "one per thread");

    let restarted = tokio::task::spawn_blocking(move || {
        server.kill();
        server.resurrect();
        server
    });
    let _server = restarted.await.unwrap();
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    assert_eq!(calls.load(Ordering::Relaxed), 2, "and when one is lost");
}

#[tokio::test]
async fn a_function_that_fails_or_panics_is_an_error_and_no_hang() {
    let failing = RedisBackendBuilder::from_factory(async || {
        let error: RedisError = std::io::Error::other("no secret in the vault").into();
        Err::<MultiplexedConnection, _>(error)
    });
    let calls = AtomicU32::new(0);
    let panicking = RedisBackendBuilder::from_factory(move || {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            let client = Client::open("redis://127.0.0.1")?;
            assert!(call > 99, "a bug of the user's");
            client.get_multiplexed_async_connection().await
        }
    });
    for (builder, why) in [
        (failing, "no secret in the vault"),
        (panicking, "connecting to redis panicked"),
    ] {
        let backend = builder.deadline(DEADLINE).build().unwrap();
        let throttle = throttle("factory", "9/day", backend);
        let start = Instant::now();
        for _ in 0..3 {
            let error = throttle.hit(&Identity::of("ann")).await.unwrap_err();
            assert!(error.is_connection(), "{error:?}");
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
    }
}
