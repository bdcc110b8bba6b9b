use std::sync::Arc;

use traffik_core::testing::conformance;
use traffik_core::{Backend, Cell, Decision, Hit, Lent, Loan, ManualClock, Settlement, Strategy};

use crate::support::{self, RedisServer, strategies};

/// A strategy without its script, so that it takes two trips.
#[derive(Debug)]
struct Scriptless(Arc<dyn Strategy>);

impl Strategy for Scriptless {
    fn id(&self) -> &'static str {
        self.0.id()
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        self.0.step(cell, hit)
    }

    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        self.0.settle(cell, hit, settlement)
    }

    fn lend(&self, cell: &mut Cell, hit: &Hit<'_>, loan: &Loan) -> (Decision, Lent) {
        self.0.lend(cell, hit, loan)
    }

    fn parameters(&self) -> String {
        format!("scriptless,{}", self.0.parameters())
    }

    fn validate(&self, rate: &traffik_core::Rate) -> traffik_core::Result<()> {
        self.0.validate(rate)
    }
}

#[tokio::test]
async fn scripts_decide_like_their_strategies() {
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let backend = server.builder().clock(clock.clone()).build().unwrap();
    conformance::decides_like_the_strategy(&backend, &clock, &strategies(), 25).await;
}

#[tokio::test]
async fn two_trips_decide_like_one() {
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let backend = server.builder().clock(clock.clone()).build().unwrap();
    let scriptless = strategies()
        .into_iter()
        .map(|strategy| Arc::new(Scriptless(strategy)));
    let mut mixed: Vec<Arc<dyn Strategy>> = scriptless.map(|strategy| strategy as _).collect();
    mixed.extend(strategies());
    conformance::decides_like_the_strategy(&backend, &clock, &mixed, 6).await;
    conformance::admits_exactly_the_limit(&backend, &mixed).await;
}

#[tokio::test]
async fn decides_exactly_under_concurrency() {
    let server = RedisServer::start();
    let neighbour = server.builder().namespace("neighbour").build().unwrap();
    support::decides_exactly_under_concurrency(&server.backend(), &neighbour).await;
}

/// To who saw more in a cell before, it must not look like a server that has lost something.
#[tokio::test]
async fn what_comes_back_is_no_loss() {
    let server = RedisServer::start();
    let (one, other) = (server.backend(), server.backend());
    conformance::what_comes_back_is_there_for_others(&one, &other).await;
    assert_eq!((one.state_loss_total(), other.state_loss_total()), (0, 0));
}

#[tokio::test]
async fn damaged_cells_are_repaired() {
    let server = RedisServer::start();
    let backend = server.backend();
    let client = redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    for kind in ["string", "list"] {
        conformance::repairs_what_was_damaged(&backend, &strategies(), |key, bytes| {
            let mut connection = connection.clone();
            async move {
                let key = format!("traffik:{key}");
                let mut pipe = redis::pipe();
                pipe.cmd("DEL").arg(&key);
                match kind {
                    "string" => pipe.cmd("SET").arg(&key).arg(bytes),
                    _ => pipe.cmd("RPUSH").arg(&key).arg(bytes),
                };
                pipe.exec_async(&mut connection).await.unwrap();
            }
        })
        .await;
        backend.reset().await.unwrap();
    }
}
