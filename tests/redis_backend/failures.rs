use std::time::{Duration, Instant};

use traffik_core::{Backend, Decision, Hits, Identity, RedisBackend, Throttle};

use super::throttle;
use crate::support::{Proxy, RedisServer, connections_in, elsewhere};

#[tokio::test]
async fn a_flushed_script_is_brought_along_again() {
    let server = RedisServer::start();
    let throttle = throttle("flush", "3/day", server.backend());
    let ann = Identity::of("ann");
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 2);
    let _: () = server.command(&["SCRIPT", "FLUSH"]);
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 1);
}

#[tokio::test]
async fn a_restarted_server_answers_the_very_next_hit() {
    let mut server = RedisServer::start();
    let throttle = throttle("restart", "3/day", server.backend());
    let ann = Identity::of("ann");
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 2);
    let server = elsewhere(move || {
        server.kill();
        server.resurrect();
        server
    })
    .await;
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 1);
    assert_eq!(server.calls()["eval"], 1);
}

#[tokio::test]
async fn starts_while_the_server_is_down_and_recovers() {
    let mut server = RedisServer::start();
    server.kill();
    let throttle = throttle("down", "3/day", server.backend());
    let ann = Identity::of("ann");
    let error = throttle.hit(&ann).await.unwrap_err();
    assert!(error.is_connection() && error.is_unexecuted(), "{error:?}");
    server.resurrect();
    // Connecting is not tried again within a few ms of a failure; starting a server takes longer.
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
}

#[tokio::test]
async fn a_replica_is_not_the_one_to_ask() {
    let server = RedisServer::start();
    let throttle = throttle("replica", "3/day", server.backend());
    let ann = Identity::of("ann");
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    let _: () = server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = throttle.hit(&ann).await.unwrap_err();
    assert!(error.is_connection() && error.is_unexecuted(), "{error:?}");
    let _: () = server.command(&["REPLICAOF", "NO", "ONE"]);
    let decision = once_it_decides_again(&throttle, &ann).await;
    assert_eq!(decision.remaining(), 1);
}

/// Each connection takes up a port for a minute after its end.
#[tokio::test]
async fn a_server_that_refuses_is_not_stormed_with_connections() {
    let server = RedisServer::start();
    let throttle = throttle("storm", "9/day", server.backend());
    let ann = Identity::of("ann");
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    let _: () = server.command(&["REPLICAOF", "127.0.0.1", "1"]);

    let (start, before) = (Instant::now(), server.connections());
    for _ in 0..1_000 {
        let error = throttle.hit(&ann).await.unwrap_err();
        assert!(error.is_connection() && error.is_unexecuted(), "{error:?}");
    }
    // Two at once, seven while the pauses grow to half a second, and one after each of those;
    // one is the one that counts.
    let most = 10 + start.elapsed().as_millis() / 500;
    let made = server.connections() - before;
    assert!(u128::from(made) <= most, "{made} connections");
    assert!(made >= 2, "the server may have a successor");

    let _: () = server.command(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(once_it_decides_again(&throttle, &ann).await.remaining(), 7);
}

#[tokio::test]
async fn a_wrong_password_is_not_tried_over_and_over() {
    let server = RedisServer::start_with(&["--requirepass", "sesame"]);
    let url = |password| {
        let at = format!("redis://:{password}@");
        server.url().replace("redis://", &at)
    };
    let connections = || {
        let client = redis::Client::open(url("sesame")).unwrap();
        let mut connection = client.get_connection().unwrap();
        let stats: String = redis::cmd("INFO")
            .arg("stats")
            .query(&mut connection)
            .unwrap();
        connections_in(&stats)
    };
    let backend = RedisBackend::builder(&url("simsim")).deadline(Duration::from_secs(10));
    let throttle = throttle("wrong", "3/day", backend.build().unwrap());
    let (start, before) = (Instant::now(), connections());
    while start.elapsed() < Duration::from_millis(300) {
        let error = throttle.hit(&Identity::of("ann")).await.unwrap_err();
        assert!(error.is_connection(), "{error:?}");
    }
    let most = 10 + start.elapsed().as_millis() / 500;
    let made = connections() - before;
    assert!(u128::from(made) <= most, "{made} connections");
}

/// The successor of a server that was demoted is asked within the same hit.
#[tokio::test]
async fn a_demoted_server_is_left_at_once() {
    let (server, successor) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::before(server.port());
    let builder = RedisBackend::builder(&proxy.url()).deadline(Duration::from_secs(10));
    let throttle = throttle("successor", "9/day", builder.build().unwrap());
    let ann = Identity::of("ann");
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    // More than once: a loss that was made good is forgotten.
    for (old, new, left) in [(&server, &successor, 7), (&successor, &server, 6)] {
        let _: () = new.command(&["REPLICAOF", "NO", "ONE"]);
        let _: () = old.command(&["REPLICAOF", "127.0.0.1", "1"]);
        proxy.redirect(new.port());
        assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), left);
    }
}

async fn once_it_decides_again(throttle: &Throttle, who: &Identity) -> Decision {
    let start = Instant::now();
    loop {
        match throttle.hit(who).await {
            Ok(decision) => return decision,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_without_memory_charges_nothing() {
    let server = RedisServer::start();
    let backend = server.backend();
    let (one, other) = (
        throttle("one", "3/day", backend.clone()),
        throttle("other", "3/day", backend),
    );
    let ann = Identity::of("ann");
    assert!(one.hit(&ann).await.unwrap().is_allowed());
    let _: () = server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let batch = Hits::from_iter([(&one, &ann), (&other, &ann)]);
    let error = batch.decide().await.unwrap_err();
    let expected =
        "redis refused the command: OOM command not allowed when used memory > 'maxmemory'";
    assert!(error.to_string().starts_with(expected), "{error}");
    for side in [
        "asked for SET",
        "with more memory this passes",
        "`volatile-ttl`",
    ] {
        assert!(error.to_string().contains(side), "{error}");
    }
    let _: () = server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(one.stat(&ann).await.unwrap().remaining, 2);
    assert_eq!(other.stat(&ann).await.unwrap().remaining, 3);
}

/// Logs show the error and not its source.
#[tokio::test]
async fn an_error_says_in_one_line_why_redis_refused() {
    let server = RedisServer::start();
    let ann = Identity::of("ann");
    let _: () = server.command(&[
        "ACL", "SETUSER", "reader", "on", "nopass", "~*", "+@all", "-eval", "-evalsha",
    ]);
    let forbidden = server.url().replace("redis://", "redis://reader:x@");
    let backend = RedisBackend::builder(&forbidden).deadline(Duration::from_secs(10));
    let throttle = throttle("why", "3/day", backend.build().unwrap());
    let error = throttle.hit(&ann).await.unwrap_err().to_string();
    let expected = "redis refused the command: NOPERM ";
    assert!(error.starts_with(expected), "{error}");
    assert!(
        error.contains("'eval' command") && error.lines().count() == 1,
        "{error}"
    );
}

#[tokio::test]
async fn a_hung_server_costs_one_deadline() {
    let server = RedisServer::start();
    let deadline = Duration::from_millis(80);
    let builder = server
        .builder()
        .deadline(deadline)
        .connect_timeout(deadline);
    let throttle = throttle("hung", "100/day", builder.build().unwrap());
    let ann = Identity::of("ann");
    // The first connection may take longer than the deadline on a busy machine.
    while throttle.hit(&ann).await.is_err() {}

    server.pause();
    // Enough of them that the connection is given up and made anew meanwhile.
    for hit in 0..6 {
        let start = Instant::now();
        let error = throttle.hit(&ann).await.unwrap_err();
        let sent = hit < 3;
        assert_eq!(
            (error.is_timeout(), error.is_unexecuted()),
            (sent, !sent),
            "{error:?}"
        );
        assert!(start.elapsed() < 3 * deadline, "{:?}", start.elapsed());
    }
    server.resume();
    let start = Instant::now();
    while throttle.hit(&ann).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "never recovers");
    }
}

#[tokio::test]
async fn nothing_that_is_shown_has_a_password_in_it() {
    let url = "redis://xavier:sesame@127.0.0.1:1/0";
    let backend = RedisBackend::at(url).unwrap();
    let error = throttle("secret", "3/day", backend.clone())
        .hit(&Identity::of("bob"))
        .await
        .unwrap_err();
    let builder = RedisBackend::builder(url);
    let malformed = RedisBackend::at("redis://xavier:sesame@:x").unwrap_err();
    for shown in [
        format!("{backend:?}"),
        format!("{builder:?}"),
        format!("{error:?} {error}"),
        format!("{malformed:?} {malformed}"),
    ] {
        assert!(
            !shown.contains("sesame") && !shown.contains("xavier"),
            "{shown}"
        );
    }
    assert!(format!("{backend:?}").contains("127.0.0.1:1"));
}

#[tokio::test]
async fn a_wrong_password_is_an_error_and_no_hang() {
    let server = RedisServer::start_with(&["--requirepass", "sesame"]);
    let backend = |password: &str| {
        let url = server
            .url()
            .replace("redis://", &format!("redis://:{password}@"));
        let builder = RedisBackend::builder(&url).deadline(Duration::from_secs(10));
        builder.build().unwrap()
    };
    let error = throttle("wrong", "3/day", backend("simsim"))
        .hit(&Identity::of("ann"))
        .await
        .unwrap_err();
    assert!(error.is_connection(), "{error:?}");
    let right = backend("sesame");
    assert!(
        throttle("right", "3/day", right)
            .hit(&Identity::of("ann"))
            .await
            .unwrap()
            .is_allowed()
    );
}

#[tokio::test]
async fn a_closed_backend_says_so() {
    let server = RedisServer::start();
    let backend = server.backend();
    let throttle = throttle("closed", "3/day", backend.clone());
    assert!(
        throttle
            .hit(&Identity::of("ann"))
            .await
            .unwrap()
            .is_allowed()
    );
    backend.close().await.unwrap();
    assert!(
        throttle
            .hit(&Identity::of("ann"))
            .await
            .unwrap_err()
            .is_closed()
    );
    assert_eq!(server.keys().len(), 1, "persistent by default");
}
