//! Starts each example and talks to it as its comments say.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics fails; clippy knows only functions marked as tests"
)]

mod bench_server;
#[cfg(feature = "metrics")]
mod metrics;
mod playground;
mod support;

#[cfg(feature = "redis")]
use std::io::{Read, Write};
#[cfg(feature = "redis")]
use std::net::TcpStream;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use self::support::{Example, Page, binary, ends, status_of, talk};

#[test]
fn quickstart_denies_the_sixth_request_of_ten_seconds() {
    let example = Example::start("quickstart");
    // A window may end in between: eleven requests exceed even two of them.
    let statuses: Vec<_> = (0..11).map(|_| example.status("GET", "/", "")).collect();
    assert_eq!(statuses[..5], [200; 5]);
    assert!(statuses.contains(&429), "{statuses:?}");
    let denied = example.send("GET", "/", "");
    assert!(
        denied.contains("retry-after: ") || denied.contains("200 OK"),
        "{denied}"
    );
}

#[test]
fn custom_strategy_wants_quiet() {
    let example = Example::start("custom_strategy");
    let statuses: Vec<_> = (0..5).map(|_| example.status("GET", "/", "")).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}

#[test]
fn attribute_limits_each_handler_and_reads_no_body_in_vain() {
    let example = Example::start("attribute");
    assert_eq!(example.status("GET", "/reports", ""), 200);
    let denied = until_denied(|| example.send("GET", "/reports", ""));
    assert!(denied.contains("attribute::reports"), "{denied}");

    let order = |body: &str| {
        let headers = format!(
            "content-type: application/json\r\ncontent-length: {}\r\nx-customer: ann\r\n",
            body.len()
        );
        example.send_body("POST", "/orders", &headers, body)
    };
    let status = |body| status_of(&order(body));
    assert_eq!(status("[1,2]"), 201);
    assert_eq!(status("{"), 400);
    // A burst of five, and on a slow machine ten at most: each is a tenth of a day's hundred.
    assert_eq!([(); 3].map(|()| status("[]")), [201; 3]);
    until_denied(|| order("{"));
}

/// The first of some responses that is a denial. However fast requests are allowed, tests are faster,
/// but not each time on a busy machine.
fn until_denied(send: impl FnMut() -> String) -> String {
    let mut responses = std::iter::repeat_with(send).take(100);
    let denied = responses.find(|response| status_of(response) == 429);
    denied.expect("one of a hundred is denied")
}

#[test]
fn monthly_quota_is_told_and_ends() {
    let example = Example::start("monthly_quota");
    let key = "x-api-key: key-of-ann\r\n";
    let quota = example.send("GET", "/quota", key);
    assert!(quota.contains("100 of 100 left"), "{quota}");
    let first = example.send("GET", "/", key);
    assert!(
        first.contains("ratelimit-policy: \"month\";q=100"),
        "{first}"
    );
    assert!(!first.contains("\"month\";q=100;w="), "{first}");
    // A month may end in between: 201 requests exceed even two of them.
    let statuses: Vec<_> = (0..201).map(|_| example.status("GET", "/", key)).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    let quota = example.send("GET", "/quota", key);
    assert!(
        quota.contains(" of 100 left") && !quota.contains("100 of 100"),
        "{quota}"
    );
    // Everybody has their own, and who has no key has none.
    assert_eq!(example.status("GET", "/", "x-api-key: key-of-ben\r\n"), 200);
    assert_eq!(example.status("GET", "/", ""), 401);
}

/// Issue 9, F 20: a limit by what is in a body, and one by address, as one decision.
#[test]
fn login_counts_accounts_as_they_are_looked_up_and_addresses() {
    let example = Example::start("login");
    let login = |account: &str, password: &str| {
        let body = format!("account={account}&password={password}");
        let headers = format!(
            "content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n",
            body.len()
        );
        example.send_body("POST", "/login", &headers, &body)
    };
    assert_eq!(status_of(&login("ben", "correct+horse")), 200);
    // A minute may end in between: eleven tries exceed even two of them.
    let names = ["ann", "Ann", "%20ann", "ANN+", "aNN"];
    let tries: Vec<_> = (0..11).map(|at| login(names[at % 5], "guess")).collect();
    let statuses: Vec<_> = tries.iter().map(|answer| status_of(answer)).collect();
    assert_eq!(statuses[..5], [401; 5]);
    assert!(statuses.contains(&429), "{statuses:?}");
    let denied = tries.iter().find(|answer| status_of(answer) == 429);
    let denied = denied.unwrap();
    assert!(
        denied.contains(r#""violated-policies":["account"]"#),
        "{denied}"
    );
    // The address has logins left for others, and its own limit ends.
    assert_eq!(status_of(&login("ben", "correct+horse")), 200);
    let crowd: Vec<_> = (0..41)
        .map(|at| login(&format!("c{at}"), "guess"))
        .collect();
    assert!(
        crowd
            .iter()
            .any(|answer| answer.contains(r#""violated-policies":["address"]"#)),
        "{crowd:?}"
    );
}

/// Issue 10.8: nothing told of what a handler had decided.
#[test]
fn whats_left_tells_of_what_its_handler_decides() {
    let example = Example::start("whats_left");
    let left = || example.send("GET", "/left", "");
    let nothing = example.send("GET", "/export", "");
    assert!(nothing.contains("`all` is the tightest"), "{nothing}");
    assert!(!nothing.contains("\"exports\""), "{nothing}");
    for more in [2, 1, 0] {
        let told = format!("{} of 3 exports", more + 1);
        assert!(left().contains(&told), "{}", left());
        let export = example.send("GET", "/export?rows", "");
        assert_eq!(status_of(&export), 200);
        assert!(
            export.contains(&format!("tightest: {more} more")),
            "{export}"
        );
        assert!(
            export.contains(&format!("\"exports\";r={more};t=")),
            "{export}"
        );
        assert!(export.contains("\"all\";r="), "{export}");
        let exposed = "access-control-expose-headers: ratelimit, ratelimit-policy";
        assert!(export.contains(exposed), "{export}");
    }
    let denied = example.send("GET", "/export?rows", "");
    assert_eq!(status_of(&denied), 429);
    assert!(denied.contains("3 exports an hour are free."), "{denied}");
    assert!(
        denied.contains("link: <https://example.com/plans>"),
        "{denied}"
    );
    assert!(denied.contains("retry-after: "), "{denied}");
    assert!(left().contains("0 of 3 exports"), "{}", left());
}

#[test]
fn api_keys_count_by_plan_and_invented_ones_are_limited_too() {
    let example = Example::start("api_keys");
    let status = |key: &str| example.status("GET", "/", key);
    let [ann, ben] = ["ann", "ben"].map(|name| format!("x-api-key: key-of-{name}\r\n"));
    // A window may end in between: more than twice as many exceed even two of them.
    let admitted = |key: &str, tries: usize| {
        let statuses: Vec<_> = (0..tries).map(|_| status(key)).collect();
        assert!(statuses.contains(&429), "{key}: {statuses:?}");
        statuses.iter().filter(|status| **status == 200).count()
    };
    let (none, free) = (admitted("", 11), admitted(&ben, 41));
    assert!(
        (5..=10).contains(&none) && (20..=40).contains(&free),
        "{none} {free}"
    );
    assert_eq!((0..50).filter(|_| status(&ann) == 200).count(), 50);
    let guesses: Vec<_> = (0..600)
        .map(|at| status(&format!("x-api-key: {at}\r\n")))
        .collect();
    assert_eq!(guesses[0], 401);
    assert!(guesses.contains(&429), "{guesses:?}");
    assert!(
        guesses.iter().all(|status| [401, 429].contains(status)),
        "{guesses:?}"
    );
}

#[test]
fn uploads_cost_what_they_announce_and_are_not_read_in_vain() {
    let example = Example::start("uploads");
    let upload = |megabytes: usize, body: &str| {
        let length = match body {
            "" => megabytes << 20,
            body => body.len(),
        };
        example.send_body(
            "POST",
            "/files",
            &format!("content-length: {length}\r\n"),
            body,
        )
    };
    let file = "x".repeat(8 << 20);
    assert_eq!([(); 2].map(|()| status_of(&upload(8, &file))), [200; 2]);
    // Four are left. What is denied need not be sent to be answered.
    let denied = upload(8, "");
    assert!(denied.starts_with("HTTP/1.1 429"), "{denied}");
    assert!(denied.contains("retry-after: "), "{denied}");
    let never = upload(21, "");
    assert!(
        never.starts_with("HTTP/1.1 413") && !never.contains("retry-after"),
        "{never}"
    );
    let chunks = "transfer-encoding: chunked\r\n";
    let unknown = example.send_body("POST", "/files", chunks, "0\r\n\r\n");
    assert!(unknown.starts_with("HTTP/1.1 411"), "{unknown}");
    assert_eq!(status_of(&upload(1, "small")), 200);
}

/// A receiver that is down keeps no event from the others.
#[test]
fn webhooks_wait_for_their_turn_and_all_arrive() {
    let receiver = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut command = Command::new(binary("webhooks"));
    let receivers = [
        "127.0.0.1:1".into(),
        receiver.local_addr().unwrap().to_string(),
    ];
    command.arg("127.0.0.1:0").args(receivers);
    let example = Example::run(command);
    let mut events: Vec<_> = (0..4).map(|at| format!("event {at}")).collect();
    for event in &events {
        let length = format!("content-length: {}\r\n", event.len());
        let answer = example.send_body("POST", "/events", &length, event);
        assert_eq!(status_of(&answer), 202);
    }
    let mut arrived: Vec<_> = (0..4).map(|_| support::receive(&receiver)).collect();
    arrived.sort();
    events.sort();
    assert_eq!(arrived, events);
}

#[test]
fn a_chat_tells_everybody_what_is_said_and_each_what_is_left() {
    let example = Example::start("chat");
    let [mut ann, mut ben] = [example.connect("ann"), example.connect("ben")];
    let of = |left| format!(r#"{{"left":{left},"of":5}}"#);
    let hear = |socket: &mut tokio_tungstenite::tungstenite::WebSocket<_>| {
        socket.read().unwrap().into_text().unwrap().to_string()
    };
    assert_eq!([hear(&mut ann), hear(&mut ben)], [of(5), of(5)]);
    ann.send(Message::text("hello")).unwrap();
    let heard = r#"{"said":"hello"}"#;
    assert_eq!(hear(&mut ben), heard);
    // Both are of one client, and so is what is left.
    let mut to_ann = [hear(&mut ann), hear(&mut ann)];
    to_ann.sort();
    assert_eq!(to_ann, [of(4), heard.to_owned()]);
    // A token comes back every two seconds, and a machine may be slow; but it answers ten at once.
    for _ in 0..30 {
        ben.write(Message::text("spam")).unwrap();
    }
    ben.flush().unwrap();
    while !hear(&mut ben).contains(r#""type":"rate_limit""#) {}
}

/// In a browser, if there is one (Debian's `chromium`).
#[test]
fn the_page_of_the_chat_shows_what_is_left() {
    let example = Example::start("chat");
    if let Some(mut page) = Page::open(&example) {
        page.shows(&["5 of 5 messages", r#"max="5""#]);
    }
}

/// An hour may end in between: then it is tried once more.
#[test]
fn levels_are_one_decision_that_names_the_one_that_denied() {
    let tries = (0..2).map(|_| {
        let example = Example::start("levels");
        let asked = [
            "ann", "ann", "ann", "ann", "ben", "ben", "ben", "cid", "dan", "dan", "cid",
        ];
        asked.map(|who| {
            let answer = example.send("GET", "/", &format!("x-api-key: key-of-{who}\r\n"));
            let level = answer.split_once(r#""violated-policies":["#);
            let level = level.and_then(|(_, rest)| rest.split_once(']'));
            (
                status_of(&answer),
                level.map_or("", |(level, _)| level).to_owned(),
            )
        })
    });
    let (ok, denied) = ((200, String::new()), |level: &str| {
        (429, format!("\"{level}\""))
    });
    let expected = [
        ok.clone(),
        ok.clone(),
        ok.clone(),
        denied("user"),
        ok.clone(),
        ok.clone(),
        denied("organisation"),
        ok.clone(),
        ok.clone(),
        ok.clone(),
        denied("everybody"),
    ];
    let seen: Vec<_> = tries.collect();
    assert!(seen.contains(&expected), "{seen:?}");
}

#[test]
fn tenants_take_nothing_from_each_other() {
    let example = Example::start("tenants");
    let of = |tenant: &str| example.send("GET", &format!("/{tenant}/hello"), "");
    let north: Vec<_> = (0..7).map(|_| of("north")).collect();
    let statuses: Vec<_> = north.iter().map(|answer| status_of(answer)).collect();
    assert_eq!(statuses[..3], [200; 3]);
    let denied = north
        .iter()
        .find(|answer| status_of(answer) == 429)
        .unwrap();
    assert!(
        denied.contains("says north") && denied.contains("retry-after: "),
        "{denied}"
    );
    assert_eq!(status_of(&of("south")), 200);
    assert_eq!(status_of(&of("nobody")), 404);
}

/// Issue 10, 1: the usual protection of a login.
#[test]
fn failed_logins_are_counted_and_others_are_not() {
    let example = Example::start("failed_logins");
    let status = |password: &str| {
        let body = format!("account=ann&password={password}");
        let headers = format!(
            "content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n",
            body.len()
        );
        status_of(&example.send_body("POST", "/login", &headers, &body))
    };
    let right: Vec<_> = (0..20).map(|_| status("correct+horse")).collect();
    assert_eq!(right, [200; 20]);
    // A minute may end in between: eleven guesses exceed even two of them.
    let wrong: Vec<_> = (0..11).map(|_| status("guess")).collect();
    assert_eq!(wrong[..5], [401; 5]);
    assert!(wrong.contains(&429), "{wrong:?}");
}

/// Issue 10, 1: an estimate, a stream of tokens, and what was used in the end.
#[test]
fn an_answer_costs_the_tokens_that_it_came_to() {
    let example = Example::start("llm_budget");
    let chat = |user: &str, words: usize, most: u32| {
        let prompt = "word ".repeat(words);
        let headers = format!("x-user: {user}\r\ncontent-length: {}\r\n", prompt.len());
        let path = format!("/chat?max_tokens={most}");
        example.send_body("POST", &path, &headers, &prompt)
    };
    let budget = |user: &str| {
        let answer = example.send("GET", "/budget", &format!("x-user: {user}\r\n"));
        answer.lines().last().unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(example.status("GET", "/budget", ""), 401);
    assert_eq!(budget("ann"), 1000);
    assert_eq!(status_of(&chat("ann", 100, 500)), 200);
    assert_eq!(budget("ann"), 800);
    // Longer than was estimated: the meter takes what is left, and stops there.
    let cut = chat("ann", 450, 10);
    assert!(cut.contains("[budget exhausted]"), "{cut}");
    assert_eq!(budget("ann"), 0);
    assert_eq!(status_of(&chat("ann", 1, 1)), 429);
    assert_eq!(status_of(&chat("ben", 300, 900)), 429);
    assert_eq!(budget("ben"), 1000);
    // Who hangs up in the middle has spent the estimate, however little came.
    example.hang_up(
        "POST",
        "/chat?max_tokens=100",
        "x-user: cid\r\n",
        &"word ".repeat(400),
    );
    let start = std::time::Instant::now();
    while budget("cid") != 500 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{}",
            budget("cid")
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(budget("cid"), 500);
}

/// Issue 10, 2: a download that is under way counts until its end, not its beginning.
#[test]
fn downloads_are_in_flight_until_they_end() {
    let example = Example::start("downloads");
    let mut two = [0, 1].map(|_| example.begin("GET", "/download"));
    let denied = example.send("GET", "/download", "");
    assert_eq!(status_of(&denied), 429);
    assert!(denied.contains("retry-after: 5"), "{denied}");
    assert!(denied.contains("qu=\"concurrent-requests\""), "{denied}");
    // One goes away in the middle.
    drop(two[0].take());
    let start = std::time::Instant::now();
    while example.status("GET", "/download", "") == 429 {
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}

/// Issue 9, F 24: the snippet in the README was never compiled, let alone run.
#[cfg(feature = "redis")]
#[test]
fn production_limits_without_its_redis() {
    // Nobody listens there.
    let mut command = Command::new(binary("production"));
    command
        .arg("127.0.0.1:0")
        .env("REDIS_URL", "redis://127.0.0.1:1");
    let example = Example::run(command);
    let admitted = example.send("GET", "/reports", "");
    assert_eq!(status_of(&admitted), 200);
    assert!(admitted.contains(r#"ratelimit: "all";r="#), "{admitted}");
    // Only proxies of ours say who asks.
    let forged = "x-forwarded-for: 192.0.2.9\r\n";
    let denied = example.send("GET", "/reports", forged);
    assert_eq!(status_of(&denied), 429);
    assert!(
        denied.contains(r#""violated-policies":["production::reports"]"#),
        "{denied}"
    );
}

#[test]
fn middleware_tells_clients_and_methods_apart() {
    let example = Example::start("middleware");
    assert_eq!(example.status("POST", "/notes", "x-api-key: ann\r\n"), 201);
    let denied = until_denied(|| example.send("POST", "/notes", "x-api-key: ann\r\n"));
    assert!(
        denied.starts_with("HTTP/1.1 429") && denied.contains("x-denied-by: writes"),
        "{denied}"
    );
    assert_eq!(example.status("POST", "/notes", "x-api-key: bob\r\n"), 201);
    assert_eq!(example.status("GET", "/notes", "x-api-key: ann\r\n"), 200);
    for _ in 0..3 {
        assert_eq!(
            example.status("POST", "/notes", "x-api-key: secret-of-the-boss\r\n"),
            201
        );
    }
}

#[test]
fn websocket_limits_a_client_over_its_tabs_and_shows_out_who_does_not_listen() {
    let example = Example::start("websocket");
    assert!(example.send("GET", "/", "").contains("new WebSocket("));
    let mut tabs = [example.connect("ann"), example.connect("ann")];
    assert_eq!(talk(&mut tabs[0], "hi"), "hi");
    assert_eq!(talk(&mut tabs[1], "hello"), "hello");
    // Fifty denials in a row close, as soon as so many are sent faster than two per second pass.
    let patience = Some(Duration::from_millis(10));
    tabs[0].get_ref().set_read_timeout(patience).unwrap();
    let closed = loop {
        for _ in 0..100 {
            let _ = tabs[0].write(Message::text("spam"));
        }
        let _ = tabs[0].flush();
        let mut heard = std::iter::from_fn(|| tabs[0].read().ok());
        if let Some(Message::Close(Some(frame))) = heard.find(Message::is_close) {
            break frame;
        }
    };
    assert_eq!(u16::from(closed.code), 1008);
    assert!(
        closed.reason.starts_with("rate_limit;retry_after_ms="),
        "{closed}"
    );
}

#[test]
fn examples_say_that_their_port_is_taken() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let redis: &[_] = match cfg!(feature = "redis") {
        true => &["redis", "production"],
        false => &[],
    };
    let names = [
        "quickstart",
        "attribute",
        "middleware",
        "websocket",
        "custom_strategy",
        "login",
        "api_keys",
        "tenants",
        "levels",
        "chat",
        "playground",
        "uploads",
        "webhooks",
        "failed_logins",
        "llm_budget",
        "downloads",
        "whats_left",
        "monthly_quota",
        "config_file",
    ];
    for name in names.iter().chain(redis) {
        for addr in [&addr, "--help"] {
            let (code, out, error) = ends(name, &[addr]);
            assert_eq!((code, &*out), (Some(1), ""), "{name}");
            let complaint = format!("cannot listen at {addr}, give another address:port: ");
            assert!(error.contains(&complaint), "{name}: {error}");
        }
    }
}

/// Its file is changed while it runs: by SIGHUP and because it is looked at; with a mistake in between, which changes nothing; and one
/// is tried beside it and moved over it.
#[cfg(unix)]
#[test]
fn config_file_follows_its_file() {
    let limits = include_str!("../limits.toml");
    let path = std::env::temp_dir().join(format!("traffik-limits-{}.toml", std::process::id()));
    let next = path.with_extension("next.toml");
    let rate = |rate: &str| limits.replace("\"2/minute\"", rate);
    // Nothing ends while the test runs.
    std::fs::write(&path, rate("\"2/day\"")).unwrap();
    let example = Example::start_with("config_file", &[path.to_str().unwrap()]);
    let order = |who: &str| {
        let headers = format!("authorization: Bearer {who}\r\n");
        example.status("POST", "/orders", &headers)
    };
    assert_eq!([(); 3].map(|()| order("bob")), [200, 200, 429]);
    assert_eq!(order("nobody"), 401);
    std::fs::write(&path, rate("\"many\"")).unwrap();
    let hangup = || {
        let pid = example.pid().to_string();
        let sent = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
        assert!(sent.success());
    };
    hangup();
    assert_eq!(order("bob"), 429);
    std::fs::write(&path, rate("\"3/day\"")).unwrap();
    hangup();
    let until = |what: &dyn Fn() -> bool| {
        let start = std::time::Instant::now();
        while !what() {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "it was not followed"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until(&|| order("bob") == 200);
    assert_eq!(order("bob"), 429);
    // Looked at.
    std::fs::write(&path, rate("\"4/day\"")).unwrap();
    until(&|| order("bob") == 200);
    assert_eq!(order("bob"), 429);
    // Tried, and moved over it.
    std::fs::write(&next, rate("\"5/day\"")).unwrap();
    hangup();
    until(&|| {
        example
            .send("GET", "/tried", "")
            .contains("throttle `orders`, rule 2: ")
    });
    assert_eq!(order("bob"), 429);
    std::fs::rename(&next, &path).unwrap();
    hangup();
    until(&|| order("bob") == 200);
    assert_eq!(order("bob"), 429);
    std::fs::remove_file(path).unwrap();
}

/// On a Redis of its own.
#[cfg(feature = "redis")]
#[test]
fn redis_shares_three_limits_and_goes_on_without_its_server() {
    let redis = support::redis();
    let servers = [(); 2].map(|()| {
        let mut command = Command::new(binary("redis"));
        command.env("REDIS_URL", format!("redis://127.0.0.1:{}", redis.port()));
        command.arg("127.0.0.1:0");
        Example::run(command)
    });

    // A token comes back every three seconds: thirty requests would have to take a minute.
    let statuses: Vec<_> = (0..30)
        .map(|at: usize| servers[at % 2].status("GET", "/", ""))
        .collect();
    assert_eq!(statuses[..5], [200; 5]);
    assert!(statuses.contains(&429), "{statuses:?}");
    // Both keep the same client's limits under the same keys.
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, redis.port())).unwrap();
    socket.write_all(b"DBSIZE\r\nQUIT\r\n").unwrap();
    let mut keys = String::new();
    socket.read_to_string(&mut keys).unwrap();
    assert_eq!(keys, ":3\r\n+OK\r\n");

    drop(redis);
    for _ in 0..10 {
        let status = servers[0].status("GET", "/", "");
        assert!([200, 429].contains(&status), "{status}");
    }
}
