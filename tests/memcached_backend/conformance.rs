use traffik_core::ManualClock;
use traffik_core::testing::conformance;

use crate::support::{self, MemcachedServer, strategies};

#[tokio::test]
async fn decides_like_the_strategies() {
    let (server, other) = (MemcachedServer::start(), MemcachedServer::start());
    for servers in [vec![], vec![other.url()]] {
        let clock = ManualClock::default();
        let builder = server.builder().namespace(format!("{servers:?}"));
        let builder = servers
            .into_iter()
            .fold(builder, |builder, server| builder.server(server));
        let backend = builder.clock(clock.clone()).build().unwrap();
        conformance::decides_like_the_strategy(&backend, &clock, &strategies(), 6).await;
    }
}

#[tokio::test]
async fn decides_exactly_under_concurrency() {
    let server = MemcachedServer::start();
    let neighbour = server.builder().namespace("neighbour").build().unwrap();
    support::decides_exactly_under_concurrency(&server.backend(), &neighbour).await;
}

#[tokio::test]
async fn damaged_cells_are_repaired() {
    let server = MemcachedServer::start();
    conformance::repairs_what_was_damaged(&server.backend(), &strategies(), async |_, bytes| {
        for key in server.keys().keys().filter(|key| key.starts_with("tfk1:")) {
            server.set(key, &bytes);
        }
    })
    .await;
}
