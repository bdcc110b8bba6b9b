//! What Redis knows less of than it did, since its successor had not heard of all.

use std::sync::Arc;
use std::time::Duration;

use traffik_core::{Attempt, Backend, Identity, Rate, RedisBackend};

use super::losses::{Nodes, growing, hit, memory_at};
use super::{builder, throttle};
use crate::support::{Proxy, RedisServer, elsewhere};

/// The successor of each master has not heard of its last ninety hits. Those of the second deny.
async fn overload_with_lagging_replicas(count: usize) -> Vec<(u32, u32)> {
    let mut master = RedisServer::start();
    let proxy = Proxy::before(master.port());
    let nodes = Nodes::at(&proxy.url(), count);
    let mut successor = None;
    let promote = async || {
        match successor.take() {
            None => successor = Some(master.laggard()),
            Some(laggard) => {
                proxy.redirect(laggard.port());
                // Ends the old one.
                master = laggard;
            }
        }
    };
    let all = nodes.overload(promote).await;
    assert!(nodes.losses() >= 4, "{}", nodes.losses());
    all
}

#[tokio::test]
async fn one_process_brings_a_lagging_replica_up_to_date() {
    for (admitted, due) in overload_with_lagging_replicas(1).await {
        assert_eq!(admitted, due);
    }
}

/// What they forgive is what the others charged since the first to come back saw the cell: one hit
/// each, here.
#[tokio::test]
async fn several_processes_bring_a_lagging_replica_nearly_up_to_date() {
    for (admitted, due) in overload_with_lagging_replicas(3).await {
        assert!((due..=due + 2).contains(&admitted), "{admitted} of {due}");
    }
}

#[tokio::test]
async fn a_snapshot_is_brought_up_to_date() {
    let mut server = RedisServer::start();
    let backend = server.backend();
    let throttle = throttle("snapshot", "9/day", backend.clone());
    let ann = Identity::of("ann");
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    let _: () = server.command(&["SAVE"]);
    for _ in 0..4 {
        assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    }
    let server = elsewhere(move || {
        server.kill();
        server.resurrect();
        server
    })
    .await;
    assert_eq!(server.keys().len(), 1, "the snapshot is loaded");
    assert_eq!(throttle.stat(&ann).await.unwrap().remaining, 4);
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 3);
    assert_eq!(backend.state_loss_total(), 1);
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 2);
    assert_eq!(backend.state_loss_total(), 1);
}

/// Whoever comes back from a lost connection knows less than the store, not more.
#[tokio::test]
async fn what_others_wrote_meanwhile_is_no_loss() {
    let server = RedisServer::start();
    let nodes = Nodes::new(&server, 2);
    let ann = Identity::of("ann");
    for strategy in growing() {
        let name = format!("{strategy:?}");
        let on = |backend: &RedisBackend| {
            let builder = builder(&name, "200/day", backend.clone());
            builder.strategy(Arc::clone(&strategy)).build().unwrap()
        };
        let [one, other] = [on(&nodes.backends[0]), on(&nodes.backends[1])];
        let truth =
            builder(&name, "200/day", memory_at(&nodes.clock)).strategy(Arc::clone(&strategy));
        let truth = truth.build().unwrap();
        // Of a longer period, a shorter, and a smaller limit.
        for rate in ["200/day", "90/hour", "200/week", "150/day"].map(Rate::literal) {
            let attempt = Attempt::by(&ann).rate(rate);
            for throttle in [&one, &other, &other, &one, &other] {
                let expected = truth.hit(attempt).await.unwrap();
                assert_eq!(hit(throttle, attempt).await, expected);
            }
            let _: u32 = server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
            nodes.clock.advance(Duration::from_secs(1));
        }
    }
    assert_eq!(nodes.losses(), 0);
}

#[tokio::test]
async fn a_reset_is_not_undone_by_who_lost_the_connection() {
    let server = RedisServer::start();
    let nodes = Nodes::new(&server, 2);
    let on = |backend: &RedisBackend| throttle("reset", "9/day", backend.clone());
    let [one, other] = [on(&nodes.backends[0]), on(&nodes.backends[1])];
    let ann = Identity::of("ann");
    while one.hit(&ann).await.unwrap().is_allowed() {}
    nodes.backends[1].reset().await.unwrap();
    nodes.clock.advance(Duration::from_secs(2));
    assert_eq!(other.hit(&ann).await.unwrap().remaining(), 8);
    let _: u32 = server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    let decision = hit(&one, Attempt::by(&ann)).await;
    assert_eq!((decision.remaining(), nodes.losses()), (7, 0));
}
