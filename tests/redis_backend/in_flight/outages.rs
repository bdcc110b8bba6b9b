//! A Redis that does not answer, or forgets.

use std::time::Duration;

use tokio::time::timeout;
use traffik_core::{Concurrency, OnOutage, RedisBackend};

use super::{HOUR, ann, limit, now, permits, soon};
use crate::support::{Fault, PATIENCE, Proxy, RedisServer};

fn hasty(server: &RedisServer, on_outage: OnOutage) -> Concurrency {
    let backend = RedisBackend::builder(&server.url())
        .deadline(Duration::from_millis(50))
        .build()
        .unwrap();
    let limit = limit(backend, 6).on_outage(on_outage);
    limit.lease(Duration::from_millis(900)).build().unwrap()
}

/// Nobody waits for a server that is stopped: with the patience of a test each question would take a minute.
#[tokio::test]
async fn a_redis_that_hangs_or_is_gone_hangs_nobody_and_the_policy_is_followed() {
    for is_stopped in [true, false] {
        let mut server = RedisServer::start();
        let policies = [
            (OnOutage::Deny, 0, true),
            (OnOutage::Raise, 0, true),
            (OnOutage::Allow, 40, false),
            (OnOutage::Share(3), 2, false),
            (OnOutage::Share(7), 0, false),
        ];
        let limits = policies.map(|(policy, ..)| hasty(&server, policy));
        for limit in &limits {
            drop(now(limit).await);
        }
        match is_stopped {
            true => server.pause(),
            false => server.kill(),
        }
        for (limit, (policy, admitted, fails)) in limits.iter().zip(policies) {
            let mut held = Vec::new();
            for _ in 0..40 {
                match timeout(PATIENCE, now(limit)).await.expect("an answer") {
                    Ok(one) => held.push(one),
                    Err(busy) => assert_eq!(busy.failure().is_some(), fails, "{policy:?}: {busy}"),
                }
            }
            assert_eq!(held.len(), admitted, "{policy:?}");
            assert_eq!(limit.on_outage(), Some(policy));
            // In order, and without Redis.
            if policy == OnOutage::Share(3) {
                let ann = ann();
                let waiter = limit.acquire(&ann, HOUR);
                let first = held.remove(0);
                let (second, ()) = tokio::join!(waiter, async { drop(first) });
                assert!(second.is_ok());
            }
        }
    }
}

/// Before anything else is asked.
#[tokio::test]
async fn what_was_admitted_in_an_outage_is_known_when_it_is_over() {
    let server = RedisServer::start();
    let [one, other] = [0, 1].map(|_| hasty(&server, OnOutage::Share(2)));
    drop(now(&one).await);
    server.pause();
    let mut held = Vec::new();
    while let Ok(in_flight) = now(&one).await {
        held.push(in_flight);
    }
    assert_eq!(held.len(), 3);
    server.resume();
    soon(|| permits(&server) == 3).await;
    // Whoever is asked first learns of the breaker that is closed.
    while held.len() < 6 {
        held.extend(other.acquire(&ann(), HOUR).await);
    }
    let busy = loop {
        match now(&one).await {
            Err(busy) if busy.failure().is_none() && permits(&server) == 6 => break busy,
            Err(_) => tokio::task::yield_now().await,
            Ok(_) => panic!("one too many"),
        }
    };
    assert_eq!(busy.limit(), 6);
}

/// Asked until there is an answer: a connection that broke is noticed when it is used.
async fn is_full(limit: &Concurrency) -> bool {
    loop {
        match now(limit).await {
            Err(busy) if busy.failure().is_some() => {}
            asked => break asked.is_err(),
        }
    }
}

#[tokio::test]
async fn a_redis_that_forgets_is_told_again() {
    let mut server = RedisServer::start();
    let [one, other] = [0, 1].map(|_| limit(server.backend(), 2).build().unwrap());
    let held = [now(&one).await.unwrap(), now(&one).await.unwrap()];
    for loss in ["FLUSHALL", "restart"] {
        match loss {
            "restart" => {
                server.kill();
                server.resurrect();
            }
            flush => server.command::<()>(&[flush]),
        }
        // Long before leases are renewed: the question for a third.
        assert!(is_full(&one).await, "one too many after {loss}");
        assert_eq!(permits(&server), 2, "{loss}");
        assert!(is_full(&other).await);
    }
    drop(held);
    soon(|| server.keys().is_empty()).await;
    // And by renewals, if nobody asks.
    let short = limit(server.backend(), 2).lease(Duration::from_millis(900));
    let short = short.build().unwrap();
    let _held = now(&short).await.unwrap();
    server.command::<()>(&["FLUSHALL"]);
    soon(|| permits(&server) == 1).await;
}

/// Whoever had told its own again hid that others had not been asked for theirs: these were admitted once more.
#[tokio::test]
async fn what_one_process_told_again_hid_that_others_were_forgotten() {
    let server = RedisServer::start();
    let [one, other] = [0, 1].map(|_| limit(server.backend(), 6).build().unwrap());
    let mut held = Vec::new();
    for limit in [&one, &one, &one, &other] {
        held.push(now(limit).await.unwrap());
    }
    server.command::<()>(&["FLUSHALL"]);
    held.push(now(&other).await.unwrap());
    assert_eq!(permits(&server), 2);
    held.push(now(&one).await.unwrap());
    assert_eq!(permits(&server), 6);
    assert!(is_full(&one).await && is_full(&other).await);
}

/// It was granted, and nobody knows: it is given back, long before its lease ends.
#[tokio::test]
async fn a_lost_reply_leaves_nothing() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port());
    let backend = RedisBackend::builder(&proxy.url());
    let limit = limit(backend.deadline(PATIENCE).build().unwrap(), 1);
    let limit = limit.on_outage(OnOutage::Raise).build().unwrap();
    drop(now(&limit).await.unwrap());
    soon(|| server.keys().is_empty()).await;
    server.calls();
    proxy.set(Fault::Cut);
    let busy = now(&limit).await.unwrap_err();
    assert!(busy.failure().is_some(), "{busy}");
    assert_eq!(server.calls()["zadd"], 1, "it was granted");
    proxy.set(Fault::None);
    soon(|| server.keys().is_empty()).await;
    assert!(now(&limit).await.is_ok());
}
