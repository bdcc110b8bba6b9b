//! Against a server that says what a test wants.

use std::future::poll_fn;
use std::io::{Cursor, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Incoming, MOST_KEPT, Pipe};
use crate::backend::redis::{RedisBackend, resp};
use crate::{Identity, OnError, Throttle};

/// A hit that was admitted, on a cell that was not there: time, losses, admitted, no bytes.
const ADMITTED: &[u8] = b"$21\r\n\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\r\n";

const GOOD: Then = Then::Say(ADMITTED, 64);

/// What becomes of a command that decides.
#[derive(Clone, Copy)]
enum Then {
    /// These bytes are sent, so many at a time.
    Say(&'static [u8], usize),
    /// The connection is closed.
    HangUp,
    /// These are sent, and then the connection is closed.
    SayAndHangUp(&'static [u8]),
}

/// Does one thing after the other, whenever it is to decide; returns where it listens.
fn server(script: &'static [Then]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut script = script.iter();
        for stream in listener.incoming() {
            serve(stream.unwrap(), &mut script);
        }
    });
    url
}

fn serve<'a>(mut stream: TcpStream, script: &mut impl Iterator<Item = &'a Then>) {
    stream.set_nodelay(true).unwrap();
    let (mut received, mut buffer) = (Vec::new(), [0; 65_536]);
    loop {
        // Commands look like lists of texts.
        while let Some(length) = resp::length(&received).unwrap() {
            let command: Vec<u8> = received.drain(..length).collect();
            let decides = command.windows(4).any(|at| at == b"EVAL");
            match decides.then(|| script.next().expect("nothing is asked after the end")) {
                None => stream.write_all(b"+OK\r\n").unwrap(),
                Some(Then::Say(bytes, at_a_time)) => {
                    for some in bytes.chunks(*at_a_time) {
                        stream.write_all(some).unwrap();
                        std::thread::yield_now();
                    }
                }
                Some(Then::HangUp) => return,
                Some(Then::SayAndHangUp(bytes)) => return stream.write_all(bytes).unwrap(),
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
        }
    }
}

fn throttle(script: &'static [Then]) -> Throttle {
    throttle_on(&backend(script))
}

fn backend(script: &'static [Then]) -> RedisBackend {
    let long = Duration::from_secs(20);
    let backend = RedisBackend::builder(&server(script)).deadline(long);
    backend.connect_timeout(long).build().unwrap()
}

fn throttle_on(backend: &RedisBackend) -> Throttle {
    let throttle = Throttle::builder("fake").rate("3/day");
    let throttle = throttle.backend(backend.clone());
    throttle.on_error(OnError::Raise).build().unwrap()
}

async fn is_admitted(throttle: &Throttle) {
    let decision = throttle.hit(&Identity::of("ann")).await.unwrap();
    assert_eq!(decision.remaining(), 2);
}

#[tokio::test]
async fn replies_come_in_pieces_and_between_others() {
    const PUSHED: &[u8] = b">2\r\n+invalidate\r\n*1\r\n$3\r\nkey\r\n$21\r\n\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\r\n";
    let throttle = throttle(&[
        GOOD,
        Then::Say(ADMITTED, 1),
        Then::Say(PUSHED, 64),
        Then::Say(PUSHED, 7),
    ]);
    for _ in 0..4 {
        is_admitted(&throttle).await;
    }
}

/// What was asked then may have been charged; the next one is decided on another connection.
#[tokio::test]
async fn a_server_that_says_nonsense_is_hung_up_on() {
    for (nonsense, interrupts) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], true),
        (b"$-7\r\n", true),
        // A reply, but of no decision.
        (b"+OK\r\n", false),
        (b"$3\r\nabc\r\n", false),
        (b"*0\r\n", false),
        (b"$-1\r\n", false),
    ] {
        let nonsense = Then::Say(nonsense, 64);
        let script = vec![nonsense, GOOD, nonsense, GOOD];
        let throttle = throttle(script.leak());
        // The first command on a connection goes another way than the next ones.
        for _ in 0..2 {
            let error = throttle.hit(&Identity::of("ann")).await.unwrap_err();
            assert_eq!(error.is_interrupted(), interrupts, "{error}");
            assert!(!error.is_unexecuted(), "{error}");
            is_admitted(&throttle).await;
        }
    }
}

/// It may have been charged: it is not asked for again.
#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_interrupts() {
    for last in [
        Then::HangUp,
        Then::SayAndHangUp(b"$21\r\n\0\0"),
        Then::SayAndHangUp(b"$"),
    ] {
        let script = vec![GOOD, last, GOOD];
        let throttle = throttle(script.leak());
        is_admitted(&throttle).await;
        let error = throttle.hit(&Identity::of("ann")).await.unwrap_err();
        assert!(error.is_interrupted(), "{error}");
        assert!(!error.is_unexecuted(), "{error}");
        is_admitted(&throttle).await;
    }
}

/// Nobody notices anything.
#[tokio::test]
async fn a_connection_that_is_closed_while_it_is_idle_is_replaced() {
    let last = Then::SayAndHangUp(ADMITTED);
    let backend = backend(vec![last, GOOD, last, last].leak());
    let throttle = throttle_on(&backend);
    for hit in 0..4 {
        is_admitted(&throttle).await;
        let is_connected = || format!("{:?}", backend.0.links).contains("connected: true");
        while hit != 1 && is_connected() {
            tokio::task::yield_now().await;
        }
    }
}

/// Refusals of servers that are not the ones to ask any longer, and scripts that they have forgotten.
#[tokio::test]
async fn what_certainly_was_not_executed_is_asked_again() {
    for refusal in [
        &b"-NOSCRIPT No matching script. Please use EVAL.\r\n"[..],
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
    ] {
        let script = vec![GOOD, Then::Say(refusal, 64), GOOD];
        let throttle = throttle(script.leak());
        is_admitted(&throttle).await;
        is_admitted(&throttle).await;
    }
}

/// What was asked on it for a while longer had stopped the clock by which the task looks whether anybody waits.
#[tokio::test(start_paused = true)]
async fn a_connection_that_was_given_up_was_kept_open() {
    let ms = Duration::from_millis;
    let backend = RedisBackend::builder("redis://127.0.0.1:1").deadline(ms(50));
    let backend = backend.build().unwrap();
    let link = backend.0.links.of_this_thread().unwrap();
    let (ours, server) = UnixStream::pair().unwrap();
    let (pipe, driver) = Pipe::new(Box::new(ours), &link, 1);
    tokio::spawn(driver);
    let mouth = Arc::clone(pipe.mouth());
    // The first look is after a quarter of the deadline.
    let asked = tokio::spawn(async move { timeout(ms(30), mouth.ask(&redis::cmd("PING"))).await });
    tokio::task::yield_now().await;
    drop(pipe);
    assert!(asked.await.unwrap().is_err(), "nobody answers");
    let hung_up = async {
        while !matches!(server.try_read(&mut [0; 64]), Ok(0)) {
            server.readable().await.unwrap();
        }
    };
    let hung_up = timeout(Duration::from_secs(3_600), hung_up).await;
    assert!(hung_up.is_ok(), "nobody hangs up");
}

/// On every connection on which there ever was one.
#[tokio::test]
async fn a_large_reply_left_its_room_behind() {
    const LARGE: usize = 1 << 20;
    let mut server = Cursor::new(vec![0; LARGE]);
    let mut incoming = Incoming::default();
    while incoming.unread().len() < LARGE {
        let read = poll_fn(|context| incoming.read(&mut server, context));
        read.await.unwrap();
    }
    incoming.start += LARGE;
    server.get_mut().extend([0; 10]);
    let read = poll_fn(|context| incoming.read(&mut server, context));
    read.await.unwrap();
    assert_eq!(incoming.unread().len(), 10);
    assert!(incoming.bytes.len() <= MOST_KEPT);
}
