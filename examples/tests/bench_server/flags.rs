//! Flags, and what is wrong with them.

use std::net::{Ipv4Addr, TcpListener};

use traffik_actix::Rate;
use traffik_actix::strategy::{self, NAMES};

use crate::support::ends;

#[test]
fn refuses_flags_that_make_no_sense() {
    for (flags, complaint) in [
        ("--strategy windows", "there are fixed_window"),
        (
            "--strategy distributed_fairness",
            "the name of an instance must not be empty",
        ),
        (
            "--strategy gcra,burst_tolerance=500",
            "must be a duration such as `500ms`",
        ),
        (
            "--strategy geographic_distribution,regions=eu:0.6|us:0.5",
            "at most 1 together",
        ),
        ("--on-error maybe", "must be one of allow, throttle, raise"),
        ("--fast", "there are --listen, --backend, --deadline"),
        ("-x", "there are --listen, --backend, --deadline"),
        ("--rate 5", "100/minute"),
        (
            "--cost -1",
            "--cost must be a whole number from 0 to 4294967295, not \"-1\"",
        ),
        (
            "--workers 0",
            "--workers must be a whole number from 1 to 1024, not \"0\"",
        ),
        (
            "--workers x",
            "--workers must be a whole number from 1 to 1024, not \"x\"",
        ),
        (
            "--listen localhost",
            "must be an address and a port, such as 127.0.0.1:8080",
        ),
        ("--deadline 5", "such as 500ms or 2s"),
        ("--deadline ms", "such as 500ms or 2s"),
        ("--deadline 5s", "such as --backend redis://HOST"),
        (
            "--nodes 0",
            "--nodes must be a whole number from 1 to 4294967295, not \"0\"",
        ),
        ("--nodes 3", "add --fallback memory"),
        ("--lease", "--lease is for a backend that is a server"),
        (
            "--lease 5",
            "--lease \"5\": write a whole number and a unit",
        ),
        (
            "--lease=fast",
            "--lease \"fast\": write a whole number and a unit",
        ),
        ("--trust localhost", "is neither an address nor a network"),
        (
            "--trust 10.0.0.0/8,",
            "\"\" is neither an address nor a network",
        ),
        ("--trust 0.0.0.0/0", "every IPv4 address there is"),
        (
            "--trust-hops 256",
            "--trust-hops must be a whole number from 0 to 255",
        ),
        (
            "--trust-hops -1",
            "--trust-hops must be a whole number from 0 to 255",
        ),
        (
            "--trust-header via",
            "--trust-header must be one of forwarded, x-forwarded-for,",
        ),
        ("--rule (", "--rule \"(\": "),
        ("--rule /a/*.pdf|x", "is not a path pattern"),
        ("--rule", "missing argument for option '--rule'"),
        (
            "--backend mysql",
            "must be memory, redis://HOST or memcached://HOST",
        ),
    ] {
        let args: Vec<_> = flags.split(' ').collect();
        let (code, _, error) = ends("bench_server", &args);
        assert_eq!(code, Some(2), "{flags}: {error}");
        assert!(error.starts_with("bench_server: "), "{flags}: {error}");
        assert!(error.contains(complaint), "{flags}: {error}");
    }
}

#[test]
fn says_that_its_port_is_taken() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (code, out, error) = ends("bench_server", &["--listen", &addr]);
    assert_eq!((code, &*out), (Some(2), ""));
    assert!(
        error.starts_with(&format!("bench_server: cannot listen at {addr}: ")),
        "{error}"
    );
}

/// Whoever copies a line of the help gets a strategy.
#[test]
fn lists_every_strategy_as_it_is_written() {
    let (_, help, _) = ends("bench_server", &["--help"]);
    let words = help
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let listed: Vec<_> = words
        .filter(|word| {
            NAMES
                .iter()
                .any(|name| word.split(',').next() == Some(name))
        })
        .filter(|word| cfg!(feature = "time-zone") || !word.contains("zone=Europe"))
        .collect();
    for name in NAMES {
        assert!(
            listed.iter().any(|word| word.starts_with(name)),
            "{name}: {help}"
        );
    }
    for text in listed {
        let strategy = strategy::named(text).unwrap();
        strategy.validate(&Rate::per_minute(100)).unwrap();
    }
}

/// A password in a URL is not repeated.
#[test]
fn refuses_urls_that_make_no_sense() {
    let sentinels = "such as redis-sentinel://HOST:26379,HOST:26379/mymaster";
    for (url, feature, complaint) in [
        ("redi://:secret@a", true, "must be memory, redis://HOST"),
        ("mysql://:secret@a", true, "must be memory, redis://HOST"),
        ("memory://", true, "must be memory, redis://HOST"),
        (
            "redis-ring://:secret@a",
            cfg!(feature = "redis"),
            "there are redis://, redis-cluster://",
        ),
        (
            "redis-cluster://",
            cfg!(feature = "redis-cluster"),
            "redis-cluster://HOST:PORT,HOST:PORT",
        ),
        (
            "redis-cluster://:secret@a,,b",
            cfg!(feature = "redis-cluster"),
            "redis-cluster://HOST:PORT,HOST:PORT",
        ),
        (
            "redis-cluster://:secret@a:x",
            cfg!(feature = "redis-cluster"),
            "redis://",
        ),
        (
            "redis-sentinel://a",
            cfg!(feature = "redis-sentinel"),
            sentinels,
        ),
        (
            "redis-sentinel://:secret@a/",
            cfg!(feature = "redis-sentinel"),
            sentinels,
        ),
        (
            "redis-sentinel://:secret@/shop",
            cfg!(feature = "redis-sentinel"),
            "redis-sentinel://HOST:PORT",
        ),
    ] {
        let (code, _, error) = ends("bench_server", &["--backend", url]);
        assert_eq!(code, Some(2), "{url}: {error}");
        assert!(!feature || error.contains(complaint), "{url}: {error}");
        assert!(!error.contains("secret"), "{url}: {error}");
    }
}
