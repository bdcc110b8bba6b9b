//! Servers that keep the counts.

use crate::support::{self, Example, Process};

fn bench_on(url: &str, flags: &str) -> Example {
    Example::bench(&format!(
        "--backend {url} --rate 2/s --clock manual --deadline 10s {flags}"
    ))
}

/// Two servers share a limit; when their store is gone, each does what it was told.
fn goes_on_without(store: Process, url: &str) {
    let policies = [
        "--on-error allow",
        "--on-error throttle",
        "--on-error raise",
    ];
    let servers = policies.map(|policy| bench_on(url, policy));
    let fallback = bench_on(url, "--on-error raise --fallback memory");
    let hit =
        |server: &Example, who| server.status("GET", "/test", &format!("x-client-id: {who}\r\n"));
    assert_eq!([hit(&servers[0], "ann"), hit(&servers[1], "ann")], [200; 2]);
    assert_eq!([hit(&servers[2], "ann"), hit(&fallback, "ann")], [429; 2]);

    drop(store);
    // Somebody else: a denial that was heard of may be kept in mind until it is over.
    let statuses = servers.each_ref().map(|server| hit(server, "ben"));
    assert_eq!(statuses, [200, 429, 503]);
    let statuses = [(); 3].map(|()| hit(&fallback, "ben"));
    assert_eq!(statuses, [200, 200, 429]);
}

#[cfg(feature = "redis")]
#[test]
fn goes_on_without_its_redis() {
    let redis = support::redis();
    let url = format!("redis://127.0.0.1:{}", redis.port());
    goes_on_without(redis, &url);
}

#[cfg(feature = "memcached")]
#[test]
fn goes_on_without_its_memcached() {
    let memcached = support::memcached();
    let url = format!("memcached://127.0.0.1:{}", memcached.port());
    goes_on_without(memcached, &url);
}

/// Three servers that cannot see each other give the limit together, and not each.
#[cfg(feature = "redis")]
#[test]
fn each_of_several_nodes_falls_back_to_its_share() {
    let redis = support::redis();
    let flags = format!(
        "--backend redis://127.0.0.1:{} --deadline 10s --fallback memory --nodes 3 --on-error raise \
         --rate 6/day --clock manual --workers 1",
        redis.port()
    );
    let servers = [(); 3].map(|()| Example::bench(&flags));
    assert_eq!(admitted(&servers, "ann"), 6);
    drop(redis);
    assert_eq!(admitted(&servers, "ben"), 6);
}

/// How many of four requests to each are.
#[cfg(feature = "redis")]
fn admitted(servers: &[Example], who: &str) -> usize {
    let hit = |server: &Example| server.status("GET", "/test", &format!("x-client-id: {who}\r\n"));
    let statuses: Vec<_> = servers
        .iter()
        .cycle()
        .take(4 * servers.len())
        .map(hit)
        .collect();
    assert!(
        statuses.iter().all(|status| [200, 429].contains(status)),
        "{statuses:?}"
    );
    statuses.iter().filter(|status| **status == 200).count()
}

#[cfg(feature = "redis-cluster")]
#[test]
fn shares_its_limits_on_a_cluster() {
    let nodes = support::redis_cluster();
    let flags = format!(
        "--backend redis-cluster://127.0.0.1:{},127.0.0.1:{} --deadline 10s --on-error raise --rate 5/day \
         --workers 1",
        nodes[0].port(),
        nodes[1].port()
    );
    let servers = [(); 2].map(|()| Example::bench(&flags));
    for who in 0..20 {
        assert_eq!(admitted(&servers, &who.to_string()), 5, "{who}");
    }
    let keys = |node: &Process| support::redis_cli(node.port(), &["dbsize"]);
    assert!(nodes.iter().all(|node| keys(node).trim() != "0"));
}

#[cfg(feature = "redis-sentinel")]
#[test]
fn shares_its_limits_on_the_master_that_sentinels_name() {
    let master = support::redis();
    let sentinel = support::sentinel_of(&master);
    let flags = format!(
        "--backend redis-sentinel://127.0.0.1:{}/shop/3 --deadline 10s --on-error raise --rate 5/day \
         --workers 1",
        sentinel.port()
    );
    let servers = [(); 2].map(|()| Example::bench(&flags));
    assert_eq!(admitted(&servers, "ann"), 5);
    let spaces = support::redis_cli(master.port(), &["info", "keyspace"]);
    assert!(
        spaces.contains("db3:") && !spaces.contains("db0:"),
        "{spaces}"
    );
}

/// Two servers that lease share a limit, and tell how few hits they asked for.
#[cfg(feature = "redis")]
#[test]
fn leases_decide_most_hits_on_a_hot_key() {
    let redis = support::redis();
    let flags = format!(
        "--backend redis://127.0.0.1:{} --deadline 10s --on-error raise --rate 400/day --workers 1",
        redis.port()
    );
    // Hot is what is hit often in a period: on a busy machine few requests fit into a short one.
    let servers =
        ["--lease 5s", "--lease 20s"].map(|lease| Example::bench(&format!("{flags} {lease}")));
    let hit = |server: &Example| server.status("GET", "/test", "x-client-id: ann\r\n");
    let admitted = (0..600).filter(|at| hit(&servers[at % 2]) == 200).count();
    assert!((300..=400).contains(&admitted), "{admitted}");
    for server in &servers {
        let answer = server.send("GET", "/__bench__/leases", "");
        let count = |name: &str| {
            let (_, rest) = answer.split_once(&format!("\"{name}\":")).unwrap();
            rest.split([',', '}'])
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        assert!(count("local") > 100 && count("lent") > 0, "{answer}");
        assert!(count("trips") < 200, "{answer}");
    }
    let default = Example::bench(&format!("{flags} --lease"));
    assert_eq!(default.status("GET", "/__bench__/leases", ""), 200);
    let plain = Example::bench(&flags);
    let answer = plain.send("GET", "/__bench__/leases", "");
    assert!(
        answer.starts_with("HTTP/1.1 409 ") && answer.contains("--lease"),
        "{answer}"
    );
}
