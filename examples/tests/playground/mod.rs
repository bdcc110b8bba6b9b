//! The page answers what it is asked, and shows it.

use std::net::TcpStream;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use crate::support::{Example, Page, talk};

fn ask(socket: &mut WebSocket<TcpStream>, question: &Value) -> Value {
    serde_json::from_str(&talk(socket, &question.to_string())).unwrap()
}

fn strategies(rate: &str, strategies: &[&str]) -> Value {
    json!({
        "view": "strategies", "rate": rate, "strategies": strategies, "shape": "steady", "per_second": 2, "seconds": 40,
    })
}

fn outage(nodes: u32) -> Value {
    json!({
        "view": "outage", "rate": "10/10s", "strategy": "fixed_window", "shape": "steady", "per_second": 9,
        "seconds": 40, "nodes": nodes, "away_from": 10, "away_until": 30,
    })
}

#[test]
fn strategies_are_compared_by_what_they_decide() {
    let example = Example::start("playground");
    let socket = &mut example.connect("ann");
    let answer = ask(
        socket,
        &strategies("10/10s", &["fixed_window", "gcra", "gcrb"]),
    );
    let lane = |at: usize| &answer["lanes"][at];
    // Twenty in each window, of which ten; and one in each second.
    assert_eq!(
        (&lane(0)["admitted"], &lane(0)["denied"]),
        (&json!(40), &json!(40))
    );
    assert_eq!(
        (&lane(1)["admitted"], &lane(1)["limit"]),
        (&json!(40), &json!(1))
    );
    let hits = lane(0)["hits"].as_array().unwrap();
    assert_eq!(
        (&hits[0], &hits[10]),
        (&json!([0, 1, 9, 0]), &json!([5000, 0, 0, 5000]))
    );
    let wrong = lane(2)["error"].as_str().unwrap();
    assert!(wrong.contains("did you mean `gcra`?"), "{wrong}");
}

#[test]
fn nodes_without_their_store_are_compared_by_what_they_admit() {
    let example = Example::start("playground");
    let answer = ask(&mut example.connect("ann"), &outage(3));
    let lines = answer["lines"].as_array().unwrap();
    let passed = |line: &Value, from: u64, until: u64| {
        let at = line["passed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|at| at.as_u64().unwrap());
        at.filter(|at| (from..until).contains(at)).count()
    };
    // Before, during and after.
    let of = |line| {
        [
            (0, 10_000),
            (10_000, 20_000),
            (20_000, 30_000),
            (30_000, 40_000),
        ]
        .map(|(from, until)| passed(line, from, until))
    };
    assert_eq!(of(&lines[0]), [10, 9, 9, 10], "three of ten each");
    assert_eq!(of(&lines[1]), [10, 30, 30, 10], "ten each");
    assert_eq!(of(&lines[2]), [10, 0, 0, 10]);
    assert_eq!(of(&lines[3]), [10, 90, 90, 10]);
}

#[test]
fn whatever_is_asked_is_answered() {
    let example = Example::start("playground");
    let socket = &mut example.connect("ann");
    let mut far = outage(3);
    far["away_until"] = json!(u64::MAX);
    assert!(ask(socket, &far)["lines"].is_array());
    let mut long = strategies("10/10s", &["gcra"]);
    long["seconds"] = json!(u64::MAX);
    let mut many = long.clone();
    (many["seconds"], many["per_second"]) = (json!(120), json!(u64::MAX));
    let wrong = [
        (json!("hello"), "expected"),
        (json!({"view": "sky"}), "unknown variant `sky`"),
        (strategies("10/10s", &[]), "from 1 to 8 strategies"),
        (long, "a trial takes from 1 to 120 seconds"),
        (many, "a trial has from 1 to 1500 requests"),
        (outage(17), "from 1 to 16 nodes"),
    ];
    for (question, says) in wrong {
        let answer = ask(socket, &question);
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(says), "{question}: {error}");
    }
}

#[test]
fn the_page_asks_no_more_than_it_may() {
    let example = Example::start("playground");
    let socket = &mut example.connect("ann");
    // More than it may ask at once, however slow the machine is.
    let question = strategies("10/10s", &["gcra"]).to_string();
    for _ in 0..100 {
        socket.write(Message::text(&*question)).unwrap();
    }
    socket.flush().unwrap();
    loop {
        let answer = socket.read().unwrap().into_text().unwrap();
        if answer.contains(r#""type":"rate_limit""#) {
            break;
        }
    }
}

/// In a browser, if there is one (Debian's `chromium`).
#[test]
fn the_page_shows_what_was_decided() {
    let example = Example::start("playground");
    let shown = [
        "<b>fixed_window</b>: ",
        "<b>gcra</b>: ",
        "class=\"pass\"",
        "class=\"sum\"",
        "failover, nodes said",
    ];
    if let Some(mut page) = Page::open(&example) {
        page.shows(&shown);
    }
}
