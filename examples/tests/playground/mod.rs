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

fn lines(answer: &Value) -> &[Value] {
    let lines = answer["lines"].as_array();
    lines.unwrap_or_else(|| panic!("{answer}"))
}

/// How many requests passed within these milliseconds.
fn passed(line: &Value, from: u64, until: u64) -> usize {
    let at = line["passed"].as_array().unwrap().iter();
    let at = at.map(|at| at.as_u64().unwrap());
    at.filter(|at| (from..until).contains(at)).count()
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
    let lines = lines(&answer);
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

/// A limit that is worth leases: a hundred a second at three nodes, of which each is asked sixty times a second.
fn leases(lease: u64) -> Value {
    let mut question = outage(3);
    question["rate"] = json!("1000/10s");
    (question["per_second"], question["seconds"]) = (json!(180), json!(20));
    (question["away_from"], question["away_until"]) = (json!(12), json!(17));
    question["lease"] = json!(lease);
    question
}

/// Of all nodes of a line together.
fn sum(line: &Value, what: &str) -> u64 {
    let nodes = line["nodes"].as_array().unwrap().iter();
    nodes.map(|node| node[what].as_u64().unwrap()).sum()
}

#[test]
fn nodes_with_leases_keep_the_limit_in_fewer_trips() {
    let example = Example::start("playground");
    let socket = &mut example.connect("ann");
    for strategy in ["fixed_window", "token_bucket"] {
        let [mut strict, mut leased] = [0, 1].map(leases);
        for question in [&mut strict, &mut leased] {
            question["strategy"] = json!(strategy);
            question["away_until"] = question["away_from"].clone();
        }
        let (strict, leased) = (ask(socket, &strict), ask(socket, &leased));
        for (strict, leased) in lines(&strict).iter().zip(lines(&leased)) {
            for line in [strict, leased] {
                assert_eq!(sum(line, "admitted") + sum(line, "denied"), 3_600);
                assert_eq!(line["beyond"], 0, "{strategy}: {line}");
            }
            let passed = leased["passed"].as_array().unwrap().len() as u64;
            assert_eq!(sum(leased, "admitted"), passed);
            assert_eq!((sum(strict, "trips"), sum(strict, "local")), (3_600, 0));
            assert!(sum(leased, "trips") < 900, "{strategy}: {leased}");
            assert!(sum(leased, "local") > 2_700, "{strategy}: {leased}");
            // What one node holds another one could have had.
            assert!(sum(leased, "admitted") * 100 >= sum(strict, "admitted") * 95);
        }
        assert_eq!(leased["alone"], strict["alone"]);
    }
}

#[test]
fn what_is_held_is_served_while_the_store_is_away_and_no_more() {
    let example = Example::start("playground");
    let socket = &mut example.connect("ann");
    let [strict, leased] = [0, 4].map(|lease| ask(socket, &leases(lease)));
    let served = |answer: &Value| passed(&lines(answer)[2], 12_000, 17_000);
    assert_eq!(served(&strict), 0);
    let held = served(&leased);
    assert!((1..1_000).contains(&held), "{held}");
    let beyond = |at: usize| lines(&leased)[at]["beyond"].as_u64().unwrap();
    assert_eq!(beyond(2), 0, "what was lent was taken before");
    assert!(beyond(0) <= 334, "what nodes were not told: {}", beyond(0));
    assert!(beyond(1) > 200 && beyond(3) > 600, "as without leases");
}

/// What the others hold may still be spent, beside the fresh quota.
#[test]
fn a_store_that_comes_back_empty_gives_another_fill_at_most() {
    let example = Example::start("playground");
    let mut question = leases(20);
    (question["away_from"], question["away_until"]) = (json!(14), json!(15));
    let socket = &mut example.connect("ann");
    let kept = ask(socket, &question);
    assert_eq!(lines(&kept)[2]["beyond"], 0);
    question["forgets"] = json!(true);
    let lost = ask(socket, &question);
    let beyond = lines(&lost)[2]["beyond"].as_u64().unwrap();
    assert!((1..=1_000).contains(&beyond), "{beyond}");
}

#[test]
fn too_little_is_not_lent() {
    let example = Example::start("playground");
    let socket = &mut example.connect("ann");
    let [mut small, mut seldom, mut log] = [1; 3].map(leases);
    small["rate"] = json!("20/10s");
    seldom["per_second"] = json!(3);
    log["strategy"] = json!("sliding_window_log");
    for question in [small, seldom, log] {
        let answer = ask(socket, &question);
        let lent = |line| (sum(line, "lent"), sum(line, "local"));
        assert_eq!(lent(&lines(&answer)[0]), (0, 0), "{question}");
    }
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
    let mut more = outage(3);
    more["per_second"] = json!(301);
    let wrong = [
        (json!("hello"), "expected"),
        (json!({"view": "sky"}), "unknown variant `sky`"),
        (strategies("10/10s", &[]), "from 1 to 8 strategies"),
        (long, "a trial takes from 1 to 120 seconds"),
        (many, "a trial has from 1 to 1500 requests"),
        (outage(17), "from 1 to 16 nodes"),
        (more, "a trial has from 1 to 12000 requests"),
        (leases(61), "a lease takes 60 seconds at most"),
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

/// In a browser, if there is one (Debian's `chromium`): with keys alone, and as narrow as a telephone.
#[test]
fn the_page_shows_what_was_decided() {
    let example = Example::start("playground");
    let Some(mut page) = Page::open(&example) else {
        return;
    };
    page.shows(&[
        "<b>fixed_window</b>: ",
        "<b>gcra</b>: ",
        "class=\"pass\"",
        "class=\"sum\"",
        "failover, nodes said",
        "<th scope=\"col\">decided by leases</th>",
        "<td>node 3</td>",
        " hits were lent: ",
        "What a node holds when the store goes away",
    ]);
    page.evaluate("document.getElementById('nodes').focus()");
    page.press("Tab", 9);
    assert_eq!(page.evaluate("document.activeElement.id"), "lease");
    page.press("ArrowUp", 38);
    page.shows(&["Without leases every request is a trip"]);
    page.narrow(390);
    assert_eq!(page.evaluate("document.documentElement.scrollWidth"), 390);
}
