//! Fragments and bounds.

use std::time::Duration;

use actix_web::rt::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use traffik_actix::{WsRule, WsThrottle};

use crate::client::Client;
use crate::server::serve;
use crate::support::{memory, notice, throttle};

async fn limited(rate: &str, change: impl FnOnce(WsThrottle) -> WsThrottle) -> Client {
    let (_, backend) = memory();
    let all = throttle("all", rate).backend(backend).build().unwrap();
    Client::connect(serve(change(WsThrottle::new(all))).await, "ann").await
}

#[actix_web::test]
async fn a_message_in_fragments_is_one_message() {
    let mut ann = limited("3/day", |limits| limits).await;
    ann.fragment("one ", true, false).await;
    ann.fragment("of ", false, false).await;
    // Control frames may come in between, and count.
    ann.ping("two").await;
    ann.fragment("three", false, true).await;
    ann.fragment("", true, false).await;
    ann.fragment("", false, true).await;
    ann.fragment("too", true, false).await;
    ann.fragment("much", false, true).await;
    let heard = ann.leave().await;
    assert_eq!(heard, ["pong: two", "one of three", "", &notice(86_400)]);
}

#[actix_web::test]
async fn a_message_in_fragments_costs_as_much_as_in_one_piece() {
    let (_, backend) = memory();
    let bytes = throttle("bytes", "10/day")
        .backend(backend)
        .build()
        .unwrap();
    let limits = WsThrottle::new(WsRule::new(bytes).per_byte());
    let mut ann = Client::connect(serve(limits).await, "ann").await;
    for text in ["123456", "78901"] {
        for at in 0..text.len() {
            let (first, last) = (at == 0, at + 1 == text.len());
            ann.fragment(text[at..=at].to_owned(), first, last).await;
        }
    }
    ann.say("7890").await;
    assert_eq!(ann.leave().await, ["123456", &notice(86_400), "7890"]);
}

/// A message counts once: one in 64 tiny fragments was as much work as 64.
#[actix_web::test]
async fn tiny_fragments_gain_nothing_where_frames_count() {
    let (_, backend) = memory();
    let frames = throttle("frames", "10/day")
        .backend(backend)
        .build()
        .unwrap();
    let limits = WsThrottle::new(WsRule::new(frames).per_frame());
    let mut ann = Client::connect(serve(limits).await, "ann").await;
    let mut say_in = async |pieces: usize| {
        for at in 0..pieces {
            let (first, last) = (at == 0, at + 1 == pieces);
            ann.fragment("x", first, last).await;
            // What comes in between counts by itself.
            if last && pieces == 4 {
                ann.ping("!").await;
            }
        }
    };
    say_in(4).await;
    for _ in 0..100 {
        say_in(6).await; // the ping left five
    }
    say_in(5).await;
    say_in(1).await;
    let heard = ann.leave().await;
    assert_eq!(
        heard,
        ["xxxx", "pong: !", &notice(86_400), "xxxxx"],
        "10 frames of 610"
    );
}

#[actix_web::test]
async fn no_frame_but_the_last_is_free() {
    use traffik_actix::OnExcess;

    let (clock, backend) = memory();
    let all = throttle("all", "9/day").backend(backend).build().unwrap();
    let limits = WsThrottle::new(all).on_excess(OnExcess::Discard);
    let addr = serve(limits).await;
    // Of each kind 90 are sent; of the fragments of one message 64 are read.
    let flood = async |client: &mut Client, kind: &str| {
        for at in 0..90 {
            match kind {
                "pings" => client.ping("x").await,
                "pongs" => client.send(Message::Pong("x".into())).await,
                "texts" => client.say("x").await,
                "empty texts" => client.say("").await,
                "binaries" => client.send(Message::binary(vec![1])).await,
                "messages in two" => {
                    client.fragment("", true, false).await;
                    client.fragment("", false, true).await;
                }
                _ if at == 0 => client.fragment("", true, false).await,
                _ => client.fragment("", false, false).await,
            }
        }
    };
    for kind in [
        "pings",
        "texts",
        "empty texts",
        "binaries",
        "messages in two",
    ] {
        let mut ann = Client::connect(addr, "ann").await;
        flood(&mut ann, kind).await;
        assert_eq!(ann.leave().await.len(), 9, "{kind}");
        clock.advance(Duration::from_secs(86_400));
    }
    // Pongs are not answered, but take from what is left for others.
    let mut ann = Client::connect(addr, "ann").await;
    flood(&mut ann, "pongs").await;
    ann.say("x").await;
    assert_eq!(ann.leave().await, Vec::<String>::new());
    clock.advance(Duration::from_secs(86_400));
    // A message that never ends is no way either.
    let mut ann = Client::connect(addr, "ann").await;
    flood(&mut ann, "fragments").await;
    assert_eq!(ann.hear().await, "close: 1009 ");
}

#[actix_web::test]
async fn too_many_fragments_close_the_connection() {
    let mut ann = limited("9/day", |limits| limits.max_fragments(3)).await;
    for _ in 0..2 {
        ann.fragment("a", true, false).await;
        ann.fragment("b", false, false).await;
        ann.fragment("c", false, true).await;
    }
    ann.fragment("", true, false).await;
    for _ in 0..3 {
        ann.fragment("", false, false).await;
    }
    for expected in ["abc", "abc", "close: 1009 "] {
        assert_eq!(ann.hear().await, expected);
    }
}

#[actix_web::test]
async fn a_message_too_large_closes_the_connection() {
    let bounded = |limits: WsThrottle| limits.max_message_size(100_000);
    let mut whole = limited("9/day", bounded).await;
    whole.send(Message::binary(vec![0; 100_000])).await;
    assert_eq!(whole.hear().await, "binary: 100000 bytes");
    whole.send(Message::binary(vec![0; 100_001])).await;
    assert_eq!(whole.hear().await, "close: 1009 ");

    let mut fragments = limited("9/day", bounded).await;
    let half = "x".repeat(50_000);
    fragments.fragment(half.clone(), true, false).await;
    fragments.fragment(half.clone(), false, true).await;
    assert_eq!(fragments.hear().await.len(), 100_000);
    fragments.fragment(half.clone(), true, false).await;
    fragments.fragment(half, false, false).await;
    fragments.fragment("x", false, false).await;
    assert_eq!(fragments.hear().await, "close: 1009 ");
}

#[actix_web::test]
async fn text_that_is_none_closes_the_connection() {
    let mut ann = limited("9/day", |limits| limits).await;
    ann.fragment(vec![0xc3], true, false).await;
    ann.fragment(vec![0xa9], false, true).await;
    assert_eq!(ann.hear().await, "é", "a character in two fragments");
    ann.fragment(vec![0xc3], true, false).await;
    ann.fragment(vec![0x28], false, true).await;
    assert_eq!(ann.hear().await, "close: 1007 ");
}

#[actix_web::test]
async fn what_is_not_allowed_by_the_protocol_closes_the_connection() {
    let mut ann = limited("9/day", |limits| limits).await;
    ann.fragment("nothing before", false, false).await;
    assert_eq!(ann.hear().await, "close: 1002 ");
    // It does not spin on the error: the thread has time for others.
    let idle = timeout(Duration::from_millis(1), std::future::pending::<()>());
    assert!(idle.await.is_err());
}
