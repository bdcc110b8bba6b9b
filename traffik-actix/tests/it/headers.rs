//! What responses say about limits.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, HeaderValue};
use sfv::{BareItem, List, ListEntry, Parser};
use traffik_actix::strategy::{
    CalendarWindow, FixedWindow, Gcra, Strategy, TieredRate, TokenBucket,
};
use traffik_actix::{
    HeaderStyle, Headers, HttpThrottleBuilder, Identity, ManualClock, Rule, ThrottleBackend,
    ThrottleMiddleware, Timestamp,
};

use crate::support::{Answer, app, get, memory, send, throttle};

/// Two answers, the second a denial.
async fn two_answers(builder: HttpThrottleBuilder) -> (Answer, Answer) {
    let (clock, backend) = memory();
    let limits = ThrottleMiddleware::new(builder.build().unwrap()).backend(backend);
    let app = app(limits).await;
    clock.advance(Duration::from_millis(12_300));
    let (first, second) = (send(&app, get("/")).await, send(&app, get("/")).await);
    assert!(first.is_ok() && second.is_throttled());
    (first, second)
}

async fn one_answer(builder: HttpThrottleBuilder) -> Answer {
    let (_, backend) = memory();
    let limits = ThrottleMiddleware::new(builder.build().unwrap()).backend(backend);
    send(&app(limits).await, get("/")).await
}

/// The items of a structured-field list, each as its string and integer parameters.
fn items(field: &str) -> Vec<(String, Vec<(String, i64)>)> {
    let list: List = Parser::new(field)
        .parse()
        .unwrap_or_else(|error| panic!("{field}: {error}"));
    let items = list.into_iter().map(|entry| {
        let ListEntry::Item(item) = entry else {
            panic!("{field}: an inner list")
        };
        let BareItem::String(name) = item.bare_item else {
            panic!("{field}: no string")
        };
        let parameters = item.params.into_iter().map(|(key, value)| {
            let BareItem::Integer(value) = value else {
                panic!("{field}: no integer")
            };
            (key.as_str().to_owned(), i64::from(value))
        });
        (name.as_str().to_owned(), parameters.collect())
    });
    items.collect()
}

fn item(name: &str, parameters: &[(&str, i64)]) -> (String, Vec<(String, i64)>) {
    let parameters = parameters
        .iter()
        .map(|(key, value)| ((*key).to_owned(), *value));
    (name.to_owned(), parameters.collect())
}

/// Issue: the policy told the limit of the rate, and `r` could be greater than `q`.
#[actix_web::test]
async fn a_policy_tells_what_can_be_available_and_in_what_time() {
    let strategies: [(Arc<dyn Strategy>, i64, i64); 4] = [
        (Arc::new(FixedWindow), 10, 5),
        (Arc::new(TokenBucket::new().burst(25)), 25, 13),
        (Arc::new(Gcra::new()), 1, 1),
        (
            Arc::new(Gcra::new().burst_tolerance(Duration::from_secs(10))),
            21,
            11,
        ),
    ];
    for (strategy, quota, window) in strategies {
        let ok = one_answer(throttle("api", "10/5s").strategy(strategy)).await;
        let policy = [item("api", &[("q", quota), ("w", window)])];
        assert_eq!(items(&ok.header("ratelimit-policy").unwrap()), policy);
        let limit = &items(&ok.header("ratelimit").unwrap())[0].1[0];
        assert_eq!(*limit, ("r".to_owned(), quota - 1));
    }
    // Of somebody of whom something is known.
    let plans = TieredRate::new().tiers([("free", 1.0), ("gold", 2.5)]);
    let gold = throttle("api", "10/5s")
        .strategy(plans)
        .identify(|_: &HttpRequest| Identity::of("ann").tier("gold"));
    let ok = one_answer(gold).await;
    let policy = [item("api", &[("q", 25), ("w", 5)])];
    assert_eq!(items(&ok.header("ratelimit-policy").unwrap()), policy);
}

/// `w` would be different each month, and a policy is the same all the time.
#[actix_web::test]
async fn a_month_has_no_length_and_ends_when_the_calendar_says() {
    const DAY: i64 = 24 * 60 * 60;
    let billed = CalendarWindow::new().month_starts_on(15).timezone_offset(9);
    // On the first of January, at nine in the morning and twelve seconds.
    for (rate, window, ends) in [
        ("1/month", None, 14 * DAY - 9 * 60 * 60 - 12),
        ("1/year", None, 14 * DAY - 9 * 60 * 60 - 12),
        ("1/week", Some(7 * DAY), 7 * DAY - 9 * 60 * 60 - 12),
        ("1/day", Some(DAY), 15 * 60 * 60 - 12),
        ("1/6hours", Some(6 * 60 * 60), 3 * 60 * 60 - 12),
    ] {
        let (ok, denied) = two_answers(throttle("plan", rate).strategy(billed.clone())).await;
        let policy: Vec<_> = [("q", 1)]
            .into_iter()
            .chain(window.map(|w| ("w", w)))
            .collect();
        for answer in [&ok, &denied] {
            let told = items(&answer.header("ratelimit-policy").unwrap());
            assert_eq!(told, [item("plan", &policy)], "{rate}");
            let left = items(&answer.header("ratelimit").unwrap());
            assert_eq!(left, [item("plan", &[("r", 0), ("t", ends)])], "{rate}");
        }
        assert_eq!(denied.header("retry-after"), Some(ends.to_string()));
    }
}

#[actix_web::test]
async fn standard_headers_are_structured_fields() {
    let (ok, denied) = two_answers(throttle(r#"a "b" \c"#, "1/minute")).await;
    let name = r#"a "b" \c"#;
    let policy = [item(name, &[("q", 1), ("w", 60)])];
    let limit = [item(name, &[("r", 0), ("t", 48)])];
    for answer in [&ok, &denied] {
        assert_eq!(items(&answer.header("ratelimit-policy").unwrap()), policy);
        assert_eq!(items(&answer.header("ratelimit").unwrap()), limit);
    }
    assert_eq!(ok.header("retry-after"), None);
    assert_eq!(denied.header("retry-after").as_deref(), Some("48"));
    assert_eq!(denied.header("cache-control").as_deref(), Some("no-store"));
}

#[actix_web::test]
async fn x_ratelimit_is_a_preset() {
    let (ok, denied) =
        two_answers(throttle("x", "1/minute").header_style(HeaderStyle::XRateLimit)).await;
    for answer in [&ok, &denied] {
        assert_eq!(answer.header("x-ratelimit-limit").as_deref(), Some("1"));
        assert_eq!(answer.header("x-ratelimit-remaining").as_deref(), Some("0"));
        assert_eq!(answer.header("x-ratelimit-reset").as_deref(), Some("48"));
        assert_eq!(answer.header("ratelimit"), None);
    }
    assert_eq!(denied.header("retry-after").as_deref(), Some("48"));
}

#[actix_web::test]
async fn a_reset_may_be_an_instant() {
    let (clock, memory) = memory();
    let wall = ManualClock::at(Timestamp::from_micros(1_700_000_000_300_000));
    let backend = ThrottleBackend::new(memory).clock(wall.clone());
    let throttle = throttle("x", "1/minute").header_style(HeaderStyle::XRateLimitEpoch);
    let app = app(ThrottleMiddleware::new(throttle.build().unwrap()).backend(backend)).await;
    clock.advance(Duration::from_millis(12_300));
    for (status, ahead) in [(200, "1700000048"), (429, "1700000047")] {
        let answer = send(&app, get("/")).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("x-ratelimit-reset").as_deref(), Some(ahead));
        assert_eq!(answer.header("x-ratelimit-remaining").as_deref(), Some("0"));
        wall.set(Timestamp::from_micros(1_699_999_999_300_000));
    }
}

#[actix_web::test]
async fn the_headers_of_former_drafts_are_a_preset() {
    let (ok, denied) =
        two_answers(throttle("old", "1/minute").header_style(HeaderStyle::Legacy)).await;
    for answer in [&ok, &denied] {
        assert_eq!(answer.header("ratelimit-limit").as_deref(), Some("1"));
        assert_eq!(answer.header("ratelimit-remaining").as_deref(), Some("0"));
        assert_eq!(answer.header("ratelimit-reset").as_deref(), Some("48"));
        assert_eq!(answer.header("ratelimit"), None);
    }
}

#[actix_web::test]
async fn headers_of_ones_own_are_written_where_others_are() {
    let own = |headers: Headers| {
        let own = throttle("own", "1/minute").header_style(HeaderStyle::None);
        own.headers(headers).own_headers(|decided, map| {
            let name = HeaderValue::from_str(decided.throttle.name()).unwrap();
            map.insert(HeaderName::from_static("x-limit"), name);
        })
    };
    for (headers, on_ok, on_denied) in [
        (Headers::Always, true, true),
        (Headers::Denied, false, true),
        (Headers::Never, false, false),
    ] {
        let (ok, denied) = two_answers(own(headers)).await;
        for (answer, told) in [(&ok, on_ok), (&denied, on_denied)] {
            let own = answer.header("x-limit");
            assert_eq!(own.as_deref(), told.then_some("own"), "{headers:?}");
            assert_eq!(answer.header("ratelimit"), None);
        }
        assert_eq!(denied.header("retry-after").as_deref(), Some("48"));
    }
}

/// Each in company of limits that are told in another way.
#[actix_web::test]
async fn every_style_is_told_beside_every_other() {
    let styles = [
        HeaderStyle::Standard,
        HeaderStyle::XRateLimit,
        HeaderStyle::XRateLimitEpoch,
        HeaderStyle::Legacy,
        HeaderStyle::Both,
        HeaderStyle::None,
    ];
    for one in styles {
        for other in styles {
            let (_, memory) = memory();
            let built = |name, style| throttle(name, "9/day").header_style(style).build().unwrap();
            let limits = ThrottleMiddleware::new(built("one", one)).rule(built("other", other));
            let answer = send(&app(limits.backend(memory)).await, get("/")).await;
            let mut told: Vec<_> = answer
                .headers()
                .map(|(name, _)| name)
                .filter(|name| name.contains("ratelimit"))
                .collect();
            let names = one.names().chain(other.names());
            let mut expected: Vec<_> = names.filter(|name| *name != "retry-after").collect();
            for names in [&mut told, &mut expected] {
                names.sort_unstable();
                names.dedup();
            }
            assert_eq!(told, expected, "{one:?} beside {other:?}");
        }
    }
}

#[actix_web::test]
async fn x_ratelimit_tells_of_the_tightest_limit() {
    let (_, backend) = memory();
    let style = |name, rate| {
        throttle(name, rate)
            .header_style(HeaderStyle::Both)
            .build()
            .unwrap()
    };
    let limits = ThrottleMiddleware::new(style("wide", "9/day"))
        .rule(style("tight", "3/day"))
        .rule(style("middle", "5/day"))
        .backend(backend);
    let answer = send(&app(limits).await, get("/")).await;
    assert_eq!(answer.header("x-ratelimit-limit").as_deref(), Some("3"));
    assert_eq!(answer.header("x-ratelimit-remaining").as_deref(), Some("2"));
    let standard = items(&answer.header("ratelimit").unwrap());
    assert_eq!(
        standard
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
        ["wide", "tight", "middle"]
    );
}

#[actix_web::test]
async fn headers_can_be_switched_off() {
    let (ok, denied) = two_answers(throttle("quiet", "1/minute").headers(Headers::Denied)).await;
    assert_eq!(ok.header("ratelimit"), None);
    assert!(denied.header("ratelimit").is_some());

    let (ok, denied) = two_answers(throttle("silent", "1/minute").headers(Headers::Never)).await;
    assert_eq!(ok.header("ratelimit").or(denied.header("ratelimit")), None);
    assert_eq!(denied.header("retry-after").as_deref(), Some("48"));
}

#[actix_web::test]
async fn errors_of_handlers_carry_headers_too() {
    let (_, backend) = memory();
    let limits =
        ThrottleMiddleware::new(throttle("broken", "9/day").build().unwrap()).backend(backend);
    let answer = send(&app(limits).await, get("/broken")).await;
    assert_eq!(answer.status, 502);
    assert!(answer.header("ratelimit").unwrap().contains("r=8"));
}

fn names(answer: &Answer, header: &str) -> Vec<String> {
    let items = items(&answer.header(header).unwrap());
    items.into_iter().map(|(name, _)| name).collect()
}

/// What is said of throttles that meet is kept, for a few of their meetings: the others are told as well.
#[actix_web::test]
async fn each_answer_tells_of_the_limits_that_were_asked() {
    let (_, backend) = memory();
    let built = |name: &str, rate| throttle(name, rate).build().unwrap();
    let paths = [
        "/", "/items/1", "/items/2", "/items/3", "/items/4", "/items/5",
    ];
    let mut limits = ThrottleMiddleware::new(built("all", "99/day"));
    for (at, path) in paths.iter().enumerate() {
        let rule = Rule::new(built(&format!("only {at}"), "98/day"));
        limits = limits.rule(rule.path(&format!("^{path}$")).unwrap());
    }
    let items = Rule::new(built("items", "97/day"))
        .path("/items/[12]")
        .unwrap();
    let app = app(limits.rule(items).backend(backend)).await;
    for _ in 0..3 {
        for (at, path) in paths.iter().enumerate() {
            let answer = send(&app, get(path)).await;
            let mut expected = vec!["all".to_owned(), format!("only {at}")];
            if [1, 2].contains(&at) {
                expected.push("items".to_owned());
            }
            assert_eq!(names(&answer, "ratelimit"), expected, "{path}");
            assert_eq!(names(&answer, "ratelimit-policy"), expected, "{path}");
        }
    }
}

#[actix_web::test]
async fn several_limits_tell_of_what_is_unusual_about_one() {
    let (_, backend) = memory();
    let tiers = TieredRate::new().tier("gold", 10.0).default_tier("gold");
    let tiered = throttle("tiered", "5/day").strategy(tiers);
    let quiet = throttle("quiet", "9/day").headers(Headers::Denied);
    let limits = ThrottleMiddleware::new(throttle("plain", "9/day").build().unwrap())
        .rule(quiet.build().unwrap())
        .rule(tiered.build().unwrap())
        .backend(backend);
    let answer = send(&app(limits).await, get("/")).await;
    assert_eq!(names(&answer, "ratelimit"), ["plain", "tiered"]);
    let policies = items(&answer.header("ratelimit-policy").unwrap());
    assert_eq!(policies[1], item("tiered", &[("q", 50), ("w", 86_400)]));
}
