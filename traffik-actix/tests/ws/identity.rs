//! Who a client turns out to be, and what it asks by hand.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::rt::spawn;
use actix_web::{App, HttpMessage, HttpRequest, HttpResponse, web};
use traffik_actix::actix_ws::AggregatedMessage;
use traffik_actix::{
    Decision, HttpThrottle, HttpThrottleBuilder, Identity, Limits, ManualClock, OnExcess, Rate,
    WsRule, WsThrottle,
};

use crate::client::Client;
use crate::server::{AppFactory, name, serve_app};
use crate::store::Store;
use crate::support::{memory, throttle};

/// What may be asked by hand.
struct Asked(HttpThrottle);

/// Sends back what passes, and obeys: `as ann` is a login, `left`, `hit 3 lobby`, `request 3 lobby`, `wait 2`.
async fn obey(
    req: HttpRequest,
    body: web::Payload,
    limits: web::Data<WsThrottle>,
    asked: Option<web::Data<Asked>>,
) -> actix_web::Result<HttpResponse> {
    let (response, mut answers, mut messages) = limits.handle(&req, body).await?;
    let session = messages.session();
    spawn(async move {
        while let Some(Ok(message)) = messages.recv().await {
            let text = match message {
                AggregatedMessage::Text(text) => text,
                AggregatedMessage::Close(reason) => {
                    let _ = answers.close(reason).await;
                    return;
                }
                _ => continue,
            };
            let words: Vec<&str> = text.split(' ').collect();
            let throttle = asked.as_ref().map(|asked| &asked.0);
            let answer = match (&words[..], throttle) {
                (["as", who], _) => {
                    req.extensions_mut().insert(Plan((*who).to_owned()));
                    match session.identify_as(Identity::of(who)).await {
                        Ok(()) => format!("hello {who}"),
                        Err(error) => format!("you are not: {}", error.error()),
                    }
                }
                (["left"], Some(throttle)) => {
                    let stat = session.ask(throttle).stat().await.unwrap();
                    format!("{} left", stat.remaining)
                }
                (["hit", cost, room @ ..], Some(throttle)) => {
                    let mut ask = session.ask(throttle).cost(cost.parse().unwrap());
                    if let [room] = room {
                        ask = ask.scope(*room);
                    }
                    yes_or_no(ask.hit().await.unwrap())
                }
                (["request", cost, room], Some(throttle)) => {
                    let ask = throttle.ask().cost(cost.parse().unwrap()).scope(*room);
                    yes_or_no(ask.hit(&req).await.unwrap())
                }
                (["wait", cost], Some(throttle)) => {
                    let ask = session.ask(throttle).cost(cost.parse().unwrap());
                    let throttled = ask.clone().is_throttled().await.unwrap();
                    format!("{:?} {throttled}", ask.wait().await.unwrap())
                }
                _ => text.to_string(),
            };
            if answers.text(answer).await.is_err() {
                return;
            }
        }
    });
    Ok(response)
}

fn yes_or_no(decision: Decision) -> String {
    match decision.is_allowed() {
        true => "yes".to_owned(),
        false => "no".to_owned(),
    }
}

/// What a login found out.
struct Plan(String);

fn is_order(message: &AggregatedMessage) -> bool {
    let orders = ["as ", "left", "hit ", "request ", "wait "];
    matches!(message, AggregatedMessage::Text(text) if orders.iter().any(|one| text.starts_with(one)))
}

fn app(limits: WsThrottle) -> App<impl AppFactory> {
    App::new()
        .app_data(web::Data::new(limits))
        .route("/", web::get().to(obey))
}

/// Limits what is no order, by who asks.
fn said(throttle: HttpThrottleBuilder) -> WsRule {
    let throttle = throttle.identify(name).build().unwrap();
    WsRule::new(throttle).when(|message| !is_order(message))
}

async fn serve(rule: WsRule) -> std::net::SocketAddr {
    serve_app(app(WsThrottle::new(rule).on_excess(OnExcess::Discard))).await
}

/// How many of so many pass.
async fn passes(client: &mut Client, of: usize, text: &str) -> usize {
    for _ in 0..of {
        client.say(text).await;
    }
    client.say("left?").await; // never limited
    let mut passed = 0;
    loop {
        match client.hear().await {
            heard if heard == "left?" => return passed,
            heard if heard == text => passed += 1,
            _ => {}
        }
    }
}

async fn login(client: &mut Client, who: &str) {
    client.say(&format!("as {who}")).await;
    assert_eq!(client.hear().await, format!("hello {who}"));
}

/// All but those whose count everybody shares.
const STRATEGIES: [&str; 14] = [
    "fixed_window",
    "sliding_window_log",
    "sliding_window_counter",
    "token_bucket",
    "token_bucket_with_debt",
    "leaky_bucket",
    "leaky_bucket_with_queue",
    "gcra,burst_tolerance=20 hours",
    "tiered_rate",
    "adaptive_throttle",
    "priority_queue",
    "quota_with_rollover",
    "time_of_day",
    "cost_based_token_bucket",
];

fn five_a_day(strategy: &str) -> (ManualClock, WsRule) {
    let (clock, backend) = memory();
    let five = throttle("said", "5/day")
        .strategy(strategy)
        .backend(backend);
    (clock, said(five))
}

/// Who may log in on the socket had two budgets, and with several accounts as many as it has.
#[actix_web::test]
async fn a_login_on_the_socket_is_no_fresh_budget() {
    for strategy in STRATEGIES {
        let (_, rule) = five_a_day(strategy);
        let addr = serve(rule).await;
        let mut honest = Client::connect(addr, "an address").await;
        let all = passes(&mut honest, 20, "hi").await;
        let mut tab = Client::connect(addr, "address").await;
        let first = passes(&mut tab, 2, "hi").await;
        login(&mut tab, "ann").await;
        let then = passes(&mut tab, 20, "hi").await;
        assert_eq!(first + then, all, "{strategy}: {first} and {then}");
        // Nor is another account, nor to be nobody again, nor another tab of either.
        for who in ["ben", "address", "ann"] {
            login(&mut tab, who).await;
            assert_eq!(passes(&mut tab, 20, "hi").await, 0, "{strategy}: {who}");
        }
        let mut other = Client::connect(addr, "ann").await;
        assert_eq!(passes(&mut other, 20, "hi").await, 0, "{strategy}");
        // Another client is none of that.
        let mut eve = Client::connect(addr, "another address").await;
        login(&mut eve, "eve").await;
        assert_eq!(passes(&mut eve, 20, "hi").await, all, "{strategy}");
    }
}

/// A month has no length that could be told, which was taken for none: all that was taken in it was forgotten at once.
#[actix_web::test]
async fn a_login_was_a_fresh_budget_for_the_month() {
    for rate in ["5/day", "5/week", "5/month", "5/3months", "5/year"] {
        let (clock, backend) = memory();
        clock.advance(Duration::from_secs(86_400 / 2));
        let five = throttle("said", rate).strategy("calendar_window");
        let addr = serve(said(five.backend(backend))).await;
        let mut tab = Client::connect(addr, "address").await;
        assert_eq!(passes(&mut tab, 2, "hi").await, 2, "{rate}");
        clock.advance(Duration::from_secs(3_600));
        login(&mut tab, "ann").await;
        assert_eq!(passes(&mut tab, 20, "hi").await, 3, "{rate}");
        login(&mut tab, "ben").await;
        assert_eq!(passes(&mut tab, 20, "hi").await, 0, "{rate}");
        // What is over is not taken along.
        clock.advance(Duration::from_secs(367 * 86_400));
        login(&mut tab, "cat").await;
        assert_eq!(passes(&mut tab, 20, "hi").await, 5, "{rate}");
    }
}

#[actix_web::test]
async fn a_login_takes_along_only_what_this_connection_took_and_what_still_counts() {
    for strategy in STRATEGIES {
        let (clock, rule) = five_a_day(strategy);
        let addr = serve(rule).await;
        let mut honest = Client::connect(addr, "an address").await;
        let all = passes(&mut honest, 20, "hi").await;
        // Of an address that several share, each takes along its own.
        let mut one = Client::connect(addr, "address").await;
        let mut two = Client::connect(addr, "address").await;
        let first = passes(&mut one, 1, "hi").await;
        assert_eq!(
            (first, passes(&mut two, 1, "hi").await),
            (1, 1),
            "{strategy}"
        );
        login(&mut two, "ann").await;
        assert_eq!(passes(&mut two, 20, "hi").await, all - 1, "{strategy}");
        // What the address took is forgotten after two windows, whatever the strategy.
        clock.advance(Duration::from_secs(2 * 86_400));
        login(&mut one, "ben").await;
        let left = passes(&mut one, 20, "hi").await;
        match strategy {
            "quota_with_rollover" => assert!(left >= all, "{left}"),
            _ => assert_eq!(left, all, "{strategy}"),
        }
    }
}

#[actix_web::test]
async fn rooms_and_connections_take_their_counts_along() {
    let (_, backend) = memory();
    let room = |message: &AggregatedMessage| match message {
        AggregatedMessage::Text(text) => text.split_once(':').map(|(room, _)| room.to_owned()),
        _ => None,
    };
    let in_room = said(throttle("room", "2/day").backend(backend.clone())).scope_by(room);
    let addr = serve(in_room).await;
    let mut ann = Client::connect(addr, "address").await;
    assert_eq!(passes(&mut ann, 1, "a:hi").await, 1);
    assert_eq!(passes(&mut ann, 9, "b:hi").await, 2);
    login(&mut ann, "ann").await;
    assert_eq!(passes(&mut ann, 9, "a:hi").await, 1);
    assert_eq!(passes(&mut ann, 9, "b:hi").await, 0);
    assert_eq!(passes(&mut ann, 9, "c:hi").await, 2);
    assert_eq!(passes(&mut ann, 9, "in no room").await, 2);
    // Long names are not told apart by what comes after 256 bytes.
    let long = |end| format!("{}{end}:hi", "é".repeat(128));
    assert_eq!(passes(&mut ann, 2, &long("1")).await, 2);
    assert_eq!(passes(&mut ann, 2, &long("2")).await, 0);

    let each = said(throttle("each", "3/day").backend(backend)).per_connection();
    let addr = serve(each).await;
    let mut ann = Client::connect(addr, "address").await;
    assert_eq!(passes(&mut ann, 2, "hi").await, 2);
    login(&mut ann, "ann").await;
    assert_eq!(passes(&mut ann, 9, "hi").await, 1);
    let mut other = Client::connect(addr, "ann").await;
    assert_eq!(passes(&mut other, 9, "hi").await, 3);
}

/// A count that all share is charged once, and an account that is exempt not at all.
#[actix_web::test]
async fn a_shared_count_is_not_charged_twice() {
    let shared = throttle("all", "5/day").shared().backend(memory().1);
    let addr = serve(said(shared)).await;
    let mut ann = Client::connect(addr, "address").await;
    assert_eq!(passes(&mut ann, 2, "hi").await, 2);
    login(&mut ann, "ann").await;
    assert_eq!(passes(&mut ann, 9, "hi").await, 3);
}

/// A plan that is known since the login.
#[actix_web::test]
async fn functions_are_asked_again_after_a_login() {
    let plan = throttle("said", "2/day")
        .rate_by(|req: &HttpRequest| match req.extensions().get::<Plan>() {
            Some(Plan(who)) if who == "rich" => Ok(Rate::per_day(7)),
            Some(Plan(who)) if who == "nobody" => Err("there is no such plan"),
            _ => Ok(Rate::per_day(2)),
        })
        .backend(memory().1);
    let addr = serve(said(plan)).await;
    let mut ann = Client::connect(addr, "address").await;
    assert_eq!(passes(&mut ann, 9, "hi").await, 2);
    ann.say("as nobody").await;
    let heard = ann.hear().await;
    assert!(heard.starts_with("you are not: throttle `said`"), "{heard}");
    assert_eq!(passes(&mut ann, 9, "hi").await, 0);
    login(&mut ann, "rich").await;
    assert_eq!(passes(&mut ann, 9, "hi").await, 5);
}

#[actix_web::test]
async fn a_login_that_cannot_be_charged_changes_nothing() {
    let store = Store::over(memory().1, false);
    let addr = serve(said(throttle("said", "3/day").backend(store.clone()))).await;
    let mut ann = Client::connect(addr, "address").await;
    assert_eq!(passes(&mut ann, 2, "hi").await, 2);
    store.down.store(true, Ordering::Relaxed);
    ann.say("as ann").await;
    assert!(ann.hear().await.starts_with("you are not: "));
    store.down.store(false, Ordering::Relaxed);
    assert_eq!(passes(&mut ann, 9, "hi").await, 1);
    login(&mut ann, "ann").await;
    assert_eq!(passes(&mut ann, 9, "hi").await, 0);
}

/// One connection that speaks for many.
#[actix_web::test]
async fn messages_may_say_whom_they_are_charged_to() {
    let who = |message: &AggregatedMessage| match message {
        AggregatedMessage::Text(text) => text.split_once('@').map(|(_, who)| Identity::of(who)),
        _ => None,
    };
    let addr = serve(said(throttle("said", "2/day").backend(memory().1)).identify_by(who)).await;
    let mut gate = Client::connect(addr, "gate").await;
    for text in ["hi@ann", "hi@ben", "hi"] {
        assert_eq!(passes(&mut gate, 9, text).await, 2, "{text}");
    }
    let mut ann = Client::connect(addr, "ann").await;
    assert_eq!(passes(&mut ann, 9, "hi").await, 0);
}

#[actix_web::test]
async fn a_session_asks_by_hand_where_its_messages_count() {
    let (clock, backend) = memory();
    let five = throttle("said", "5/day")
        .identify(name)
        .backend(backend)
        .build()
        .unwrap();
    let elsewhere = throttle("files", "5/day")
        .identify(name)
        .backend(memory().1)
        .build()
        .unwrap();
    for asked in [five.clone(), elsewhere] {
        let is_rule = asked.name() == "said";
        let rule = WsRule::new(five.clone()).when(|message| !is_order(message));
        let app = app(WsThrottle::new(rule).on_excess(OnExcess::Discard))
            .app_data(web::Data::new(Asked(asked)));
        let mut ann = Client::connect(serve_app(app).await, "ann").await;
        let said = passes(&mut ann, 1, "hi").await;
        let mut left = 5 - if is_rule { said } else { 0 };
        let mut asks = async |order: &str, expected: &str| {
            ann.say(order).await;
            assert_eq!(ann.hear().await, expected, "{order}");
        };
        asks("left", &format!("{left} left")).await;
        asks("hit 2", "yes").await;
        left -= 2;
        asks("left", &format!("{left} left")).await;
        asks(&format!("hit {}", left + 1), "no").await;
        asks(&format!("wait {left}"), "Some(0ns) false").await;
        asks(&format!("wait {}", left + 1), "Some(86400s) true").await;
        asks("wait 6", "None true").await;
        // A room has a count of its own.
        asks("hit 5 lobby", "yes").await;
        asks("hit 1 lobby", "no").await;
        asks("left", &format!("{left} left")).await;
        // What was taken by hand is taken along as well.
        asks("as bob", "hello bob").await;
        asks("left", &format!("{} left", if is_rule { left } else { 5 })).await;
        asks("hit 1 lobby", if is_rule { "no" } else { "yes" }).await;
        clock.advance(Duration::from_secs(86_400));
    }
}

/// Without a rate of its own, of which nothing is taken, and by which all is admitted.
#[actix_web::test]
async fn a_question_or_a_login_forgot_the_count_of_a_rate_that_became_a_function() {
    for is_asked_first in [true, false] {
        let limits = Limits::new();
        let said = throttle("said", "5/day").identify(name).backend(memory().1);
        let said = limits.add(said).unwrap();
        let rule = WsRule::new(said.clone()).when(|message| !is_order(message));
        let app = app(WsThrottle::new(rule).on_excess(OnExcess::Discard))
            .app_data(web::Data::new(Asked(said)));
        let mut ann = Client::connect(serve_app(app).await, "address").await;
        assert_eq!(passes(&mut ann, 2, "hi").await, 2);
        let by_function = |_: &HttpRequest| Rate::per_day(5);
        limits.update("said", |it| it.rate_by(by_function)).unwrap();
        if is_asked_first {
            for (order, expected) in [("left", "3 left"), ("hit 4", "no")] {
                ann.say(order).await;
                assert_eq!(ann.hear().await, expected);
            }
        }
        login(&mut ann, "ann").await;
        assert_eq!(passes(&mut ann, 9, "hi").await, 3);
    }
}

/// Each had the whole limit.
#[actix_web::test]
async fn a_scope_is_one_count_by_request_and_by_socket() {
    let daily = |name: &str| {
        let exports = throttle(name, "5/day").identify(crate::server::name);
        exports.backend(memory().1)
    };
    let long = "pdf".repeat(200);
    for (asked, is_rule, room) in [
        (daily("plain"), false, "pdf"),
        (daily("plain"), false, &*long),
        (
            daily("scoped").scope_by(|_| "replaced".to_owned()),
            false,
            "pdf",
        ),
        (daily("rule"), true, "pdf"),
    ] {
        let asked = asked.build().unwrap();
        let rule = match is_rule {
            true => WsRule::new(asked.clone()).when(|message| !is_order(message)),
            false => five_a_day("fixed_window").1,
        };
        let rule = rule.scope_by(|_| Some("pdf".to_owned()));
        let limits = WsThrottle::new(rule).on_excess(OnExcess::Discard);
        let app = app(limits).app_data(web::Data::new(Asked(asked.clone())));
        let mut ann = Client::connect(serve_app(app).await, "ann").await;
        for (order, expected) in [("request 3", "yes"), ("hit 2", "yes"), ("request 1", "no")] {
            ann.say(&format!("{order} {room}")).await;
            assert_eq!(ann.hear().await, expected, "{order} {}", asked.name());
        }
        let passed = passes(&mut ann, 1, "hi").await;
        assert_eq!(passed, usize::from(!is_rule), "{}", asked.name());
    }
}

/// Beside `#[throttle]` on the handshake: two limits that count by themselves.
#[actix_web::test]
async fn handshakes_and_messages_have_limits_of_their_own() {
    #[actix_web::get("/")]
    #[traffik_actix::throttle(rate = "2/day", identify = name)]
    async fn both(
        req: HttpRequest,
        body: web::Payload,
        limits: web::Data<WsThrottle>,
    ) -> actix_web::Result<HttpResponse> {
        obey(req, body, limits, None).await
    }
    let limits = WsThrottle::new(five_a_day("fixed_window").1).on_excess(OnExcess::Discard);
    let app = App::new().app_data(web::Data::new(limits)).service(both);
    let addr = serve_app(app).await;
    let mut one = Client::connect(addr, "ann").await;
    let mut two = Client::connect(addr, "ann").await;
    assert_eq!(Client::try_connect(addr, "ann").await.unwrap_err(), 429);
    assert_eq!(passes(&mut one, 3, "hi").await, 3);
    assert_eq!(passes(&mut two, 3, "hi").await, 2);
}

/// What a registry gives is the throttle that a rule has, by whatever handle.
#[actix_web::test]
async fn a_throttle_that_was_found_by_its_name_counted_elsewhere_than_its_rule() {
    let (_, backend) = memory();
    let limits = Limits::new();
    let said = throttle("said", "5/day").identify(name).backend(backend);
    let rule = WsRule::new(limits.add(said).unwrap()).per_connection();
    let rule = rule.when(|message| !is_order(message));
    let found = limits.get("said").unwrap();
    let app = app(WsThrottle::new(rule).on_excess(OnExcess::Discard))
        .app_data(web::Data::new(Asked(found)));
    let mut ann = Client::connect(serve_app(app).await, "ann").await;
    assert_eq!(passes(&mut ann, 1, "hi").await, 1);
    ann.say("hit 1").await;
    assert_eq!(ann.hear().await, "yes");
    ann.say("left").await;
    assert_eq!(ann.hear().await, "3 left");
}
