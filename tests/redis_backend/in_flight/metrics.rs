//! What is told of leases.

use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use traffik_core::{Concurrency, ManualClock, OnOutage};

use super::{HOUR, ann, limit, now, permits, soon};
use crate::support::RedisServer;

fn number(scraped: &PrometheusHandle, series: &str) -> u64 {
    let text = scraped.render();
    let mut lines = text.lines();
    let number = lines.find_map(|line| {
        let rest = line.strip_prefix("traffik_in_flight")?;
        rest.strip_prefix(series)?.strip_prefix(' ')
    });
    number.map_or(0, |number| number.parse().unwrap())
}

#[tokio::test]
async fn leases_that_were_lost_or_ended_were_not_told() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let scraped = recorder.handle();
    let told = || {
        ["", "_lost_total", "_expired_total"]
            .map(|what| number(&scraped, &format!("{what}{{limit=\"exports\"}}")))
    };
    let (server, clock) = (RedisServer::start(), ManualClock::default());
    let [one, other] = [0, 1].map(|_| {
        let backend = server.builder().clock(clock.clone()).build().unwrap();
        limit(backend, 3).build().unwrap()
    });
    let held = [now(&one).await.unwrap(), now(&one).await.unwrap()];
    assert_eq!(told(), [2, 0, 0]);
    server.command::<()>(&["FLUSHALL"]);
    let third = now(&one).await.unwrap();
    assert_eq!(told(), [3, 2, 0]);
    clock.advance(HOUR);
    // It finds that those of the other have ended, which then finds that they are not there.
    let fourth = now(&other).await.unwrap();
    assert_eq!(told(), [4, 2, 3]);
    assert!(now(&one).await.is_err());
    assert_eq!(told(), [4, 5, 3]);
    drop((held, third, fourth));
    soon(|| server.keys().is_empty()).await;
    assert_eq!(told(), [0, 5, 3]);
}

/// What the server had never heard of is no loss.
#[tokio::test]
async fn what_was_admitted_in_an_outage_was_told_as_lost() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let scraped = recorder.handle();
    let mut server = RedisServer::start();
    let backend = server.builder().deadline(Duration::from_millis(200));
    let limit = Concurrency::builder("exports")
        .in_flight(9)
        .backend(backend.build().unwrap())
        .lease(Duration::from_secs(30))
        .on_outage(OnOutage::Allow)
        .build()
        .unwrap();
    let first = loop {
        let first = now(&limit).await.unwrap();
        if !first.is_degraded() {
            break first;
        }
    };
    let known = number(
        &scraped,
        "_outcomes_total{limit=\"exports\",outcome=\"degraded\"}",
    );
    server.kill();
    let second = now(&limit).await.unwrap();
    assert!(second.is_degraded() && !first.is_degraded());
    let degraded = number(
        &scraped,
        "_outcomes_total{limit=\"exports\",outcome=\"degraded\"}",
    );
    assert_eq!(degraded, known + 1);
    server.resurrect();
    // Asked until it is known that there is an answer.
    loop {
        let asked = limit.acquire(&ann(), Duration::ZERO).await.unwrap();
        if !asked.is_degraded() {
            break;
        }
        tokio::task::yield_now().await;
    }
    soon(|| permits(&server) == 2).await;
    // The first had been known.
    assert_eq!(number(&scraped, "_lost_total{limit=\"exports\"}"), 1);
}
