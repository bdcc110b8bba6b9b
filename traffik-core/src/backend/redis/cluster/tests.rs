//! Against a node that hangs up when a test wants.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::backend::redis::{RedisBackend, resp};
use crate::{Attempt, Hits, Identity, OnError, Throttle};

/// A hit that was admitted, on a cell that was not there: time, losses, admitted, no bytes.
const ADMITTED: &[u8] = b"$21\r\n\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\r\n";

/// What a node does that is to decide.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Answer,
    AnswerAndHangUp,
    HangUp,
    /// The same, and there is nobody any more.
    Vanish,
    /// Refuse, since the slot is being moved.
    Refuse,
}

/// The only node. It does one thing after the other.
struct Node {
    port: u16,
    script: &'static [Then],
    decided: AtomicUsize,
    hung_up: AtomicBool,
}

impl Node {
    fn start(script: &'static [Then]) -> (RedisBackend, Arc<Node>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let node = Arc::new(Node {
            port,
            script,
            decided: AtomicUsize::new(0),
            hung_up: AtomicBool::new(false),
        });
        let serving = Arc::clone(&node);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (node, stream) = (Arc::clone(&serving), stream.unwrap());
                std::thread::spawn(move || {
                    if node.serve(stream) {
                        node.hung_up.store(true, Ordering::SeqCst);
                    }
                });
            }
        });
        let url = format!("redis://127.0.0.1:{port}");
        let backend = RedisBackend::cluster([url.as_str()]).deadline(Duration::from_secs(20));
        (backend.build().unwrap(), node)
    }

    fn decided(&self) -> usize {
        self.decided.load(Ordering::SeqCst)
    }

    fn has_vanished(&self) -> bool {
        let mut done = self.script.iter().take(self.decided());
        done.any(|then| *then == Then::Vanish)
    }

    /// Whether it was the node that hung up.
    fn serve(&self, mut stream: TcpStream) -> bool {
        let (slots, mut received, mut buffer) = (self.slots(), Vec::new(), [0; 65_536]);
        while !self.has_vanished() {
            while let Some(length) = resp::length(&received).unwrap() {
                let command: Vec<u8> = received.drain(..length).collect();
                let says = |word: &[u8]| command.windows(word.len()).any(|at| at == word);
                let (reply, then): (&[u8], _) = match () {
                    () if says(b"EVAL") => {
                        let nth = self.decided.fetch_add(1, Ordering::SeqCst);
                        match self.script[nth] {
                            Then::Refuse => (b"-TRYAGAIN moving\r\n", Then::Refuse),
                            then => (ADMITTED, then),
                        }
                    }
                    () if says(b"SLOTS") => (&slots, Then::Answer),
                    () => (b"+OK\r\n", Then::Answer),
                };
                let hangs_up = matches!(then, Then::HangUp | Then::Vanish);
                if hangs_up || stream.write_all(reply).is_err() || then == Then::AnswerAndHangUp {
                    return true;
                }
            }
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return false,
                Ok(count) => received.extend_from_slice(&buffer[..count]),
            }
        }
        true
    }

    fn slots(&self) -> Vec<u8> {
        let port = self.port;
        let master = format!("*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n");
        format!("*1\r\n*3\r\n:0\r\n:16383\r\n{master}").into_bytes()
    }
}

fn throttle(backend: RedisBackend) -> Throttle {
    let throttle = Throttle::builder("fake").rate("9/day").backend(backend);
    throttle.on_error(OnError::Raise).build().unwrap()
}

/// The client follows slots by itself, and had sent it again.
#[tokio::test]
async fn a_refund_was_sent_twice_on_a_cluster() {
    const IS_THERE: &[Then] = &[Then::Answer, Then::HangUp, Then::Answer];
    const IS_GONE: &[Then] = &[Then::Answer, Then::Vanish];
    for script in [IS_THERE, IS_GONE] {
        let (backend, node) = Node::start(script);
        let ann = Identity::of("ann");
        let reserved = throttle(backend).reserve(Attempt::by(&ann).cost(5)).await;
        let permit = reserved.unwrap().expect("a fresh limit");
        let error = permit.refund().await.expect_err("it may have been made");
        assert!(error.is_interrupted(), "{error}");
        assert!(!error.is_unexecuted(), "{error}");
        assert_eq!(node.decided(), 2);
    }
}

/// Of the second slot it was known that nothing was charged, and so the first was charged again.
#[tokio::test]
async fn a_batch_that_is_charged_in_one_slot_only_is_not_asked_again() {
    // Both are looked at, and one is charged. Of the other the client asks several times.
    const HALF: &[Then] = &{
        let mut half = [Then::Refuse; 99];
        half[0] = Then::Answer;
        half[1] = Then::Answer;
        half[2] = Then::Answer;
        half
    };
    let (backend, node) = Node::start(HALF);
    let throttle = throttle(backend);
    let (ann, bob) = (Identity::of("ann"), Identity::of("bob"));
    let hits = Hits::from_iter([(&throttle, &ann), (&throttle, &bob)]);
    let error = hits.decide().await.expect_err("half of it was charged");
    assert!(error.is_interrupted() && !error.is_unexecuted(), "{error}");
    assert!((4..99).contains(&node.decided()));
}

/// Nobody notices anything: what is asked on it was never sent.
#[tokio::test]
async fn a_connection_that_a_node_closes_while_it_is_idle_is_replaced() {
    let (backend, node) = Node::start(&[Then::AnswerAndHangUp, Then::Answer]);
    let (throttle, ann) = (throttle(backend), Identity::of("ann"));
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    while !node.hung_up.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    // The runtime looks at its sockets now and then.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(throttle.hit(&ann).await.unwrap().is_allowed());
    assert_eq!(node.decided(), 2);
}
