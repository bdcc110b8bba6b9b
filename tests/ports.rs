//! The tests' own servers: a port that was free a moment ago is not reserved.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use crate::support::{MemcachedServer, Port, RedisServer};

/// Two tests were given the same free port: one's server did not start, and who asked the other's was
/// answered by a stranger.
#[test]
fn a_reserved_port_is_given_to_nobody_else() {
    let reserved = std::thread::scope(|scope| {
        let reserve = || -> Vec<Port> { (0..20).map(|_| Port::reserve()).collect() };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(reserve)).collect();
        let ports = threads.into_iter().map(|thread| thread.join().unwrap());
        ports.flatten().collect::<Vec<_>>()
    });
    let numbers: BTreeSet<_> = reserved.iter().map(Port::number).collect();
    assert_eq!(numbers.len(), reserved.len());
    if cfg!(target_os = "linux") {
        let own = |_| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            (listener.local_addr().unwrap().port(), listener)
        };
        let others: Vec<_> = (0..100).map(own).collect();
        assert!(others.iter().all(|(port, _)| !numbers.contains(port)));
    }
    for port in numbers {
        let error = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn a_server_whose_port_is_taken_gets_another() {
    let ports = || [Port::taken(), Port::taken(), Port::reserve()];
    let redis = RedisServer::start_on(ports());
    let pong: String = redis.command(&["PING"]);
    assert_eq!(pong, "PONG");
    let memcached = MemcachedServer::start_on(ports());
    memcached.set("a", "b");
}

#[test]
fn a_server_that_is_started_again_has_its_port() {
    let mut redis = RedisServer::start();
    let port = redis.port();
    for _ in 0..3 {
        redis.kill();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
        redis.resurrect();
        let pong: String = redis.command(&["PING"]);
        assert_eq!(pong, "PONG");
    }
}
