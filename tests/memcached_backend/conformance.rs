use std::collections::HashSet;
use std::future::ready;

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
    // The cells that came with the latest key, of which there is one per strategy.
    let (mut latest, mut known, mut new) = (String::new(), HashSet::new(), Vec::new());
    conformance::repairs_what_was_damaged(&server.backend(), &strategies(), |text, bytes| {
        if text != latest {
            let cells = server
                .keys()
                .into_keys()
                .filter(|key| key.starts_with("tfk1:"));
            new = cells.filter(|key| known.insert(key.clone())).collect();
            assert!(!new.is_empty(), "{text}: it has no cell");
            latest = text;
        }
        for key in &new {
            server.set(key, &bytes);
        }
        ready(())
    })
    .await;
}
