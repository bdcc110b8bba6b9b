//! Levels of a hierarchy: one rule, one decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::HttpRequest;
use traffik_actix::{ClientIp, Identity, Limits, Rule, ThrottleMiddleware};

use crate::support::{Answer, app, get, memory, send, throttle};

fn header(req: &HttpRequest, name: &str) -> Identity {
    let value = req
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok());
    value.map_or(Identity::EXEMPT, |value| {
        Identity::of(format_args!("{name}:{value}"))
    })
}

/// Two a minute of each user, three of each organisation, five of everybody.
fn levels() -> Rule {
    let user = throttle("user", "2/minute").identify(|req: &HttpRequest| header(req, "x-user"));
    let organisation =
        throttle("organisation", "3/minute").identify(|req: &HttpRequest| header(req, "x-org"));
    let everybody = throttle("everybody", "5/minute").shared();
    Rule::new(user.build().unwrap())
        .and(organisation.build().unwrap())
        .and(everybody.build().unwrap())
}

fn violated(answer: &Answer) -> String {
    let (_, rest) = answer.body.split_once(r#""violated-policies":["#).unwrap();
    rest.split_once(']').unwrap().0.to_owned()
}

#[actix_web::test]
async fn a_denial_names_its_level_and_charges_none() {
    let (_, backend) = memory();
    let app = app(ThrottleMiddleware::new(levels()).backend(backend)).await;
    let by = |user, org| {
        get("/")
            .insert_header(("x-user", user))
            .insert_header(("x-org", org))
    };
    let left = |answer: &Answer| {
        let told = answer.header("ratelimit").unwrap();
        let left = told
            .split(";r=")
            .skip(1)
            .map(|rest| rest.split(';').next().unwrap().to_owned());
        left.collect::<Vec<_>>().join(" ")
    };
    for (user, org, told) in [
        ("ann", "acme", "1 2 4"),
        ("ann", "acme", "0 1 3"),
        ("ann", "acme", "\"user\""),
        ("ben", "acme", "1 0 2"),
        ("ben", "acme", "\"organisation\""),
        ("cid", "bond", "1 2 1"),
        ("cid", "bond", "0 1 0"),
        ("cid", "bond", "\"user\",\"everybody\""),
        ("dan", "bond", "\"everybody\""),
        ("ben", "acme", "\"organisation\",\"everybody\""),
    ] {
        let answer = send(&app, by(user, org)).await;
        let is_denial = told.contains('"');
        assert_eq!(
            answer.is_throttled(),
            is_denial,
            "{user} of {org}: {answer:?}"
        );
        let actual = if is_denial {
            violated(&answer)
        } else {
            left(&answer)
        };
        assert_eq!(actual, told, "{user} of {org}");
    }
}

#[actix_web::test]
async fn who_is_of_no_organisation_skips_its_level() {
    let (_, backend) = memory();
    let app = app(ThrottleMiddleware::new(levels()).backend(backend)).await;
    let answer = send(&app, get("/").insert_header(("x-user", "ann"))).await;
    let told = answer.header("ratelimit").unwrap();
    assert!(
        told.contains("user") && told.contains("everybody"),
        "{told}"
    );
    assert!(!told.contains("organisation"), "{told}");
}

/// One that changes its mind would be for some of the levels.
#[actix_web::test]
async fn a_rule_of_several_levels_asks_its_predicate_once() {
    let (_, backend) = memory();
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&asked);
    let every_other =
        move |_: &HttpRequest| counting.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
    let other = throttle("other", "9/minute").build().unwrap();
    let limits = ThrottleMiddleware::new(levels().path("/items/").unwrap().when(every_other));
    let app = app(limits.rule(other).backend(backend)).await;
    for (path, policies) in [
        ("/items/1", "user organisation everybody other"),
        ("/items/1", "other"),
        ("/", "other"),
        ("/items/1", "user organisation everybody other"),
    ] {
        let req = get(path)
            .insert_header(("x-user", "ann"))
            .insert_header(("x-org", "acme"));
        let answer = send(&app, req).await;
        assert_eq!(answer.policies(), policies, "{path}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[actix_web::test]
async fn an_async_predicate_is_for_all_levels_too() {
    let (_, backend) = memory();
    let rule = levels().when_async(async |req: &HttpRequest| req.path() == "/items/1");
    let app = app(ThrottleMiddleware::new(rule).backend(backend)).await;
    let by_ann = |path| {
        get(path)
            .insert_header(("x-user", "ann"))
            .insert_header(("x-org", "acme"))
    };
    assert_eq!(send(&app, by_ann("/")).await.header("ratelimit"), None);
    let told = send(&app, by_ann("/items/1"))
        .await
        .header("ratelimit")
        .unwrap();
    assert_eq!(told.matches(";r=").count(), 3, "{told}");
}

/// A level keeps its place and its requests while it changes.
#[actix_web::test]
async fn a_level_may_change_while_requests_pass() {
    let (_, backend) = memory();
    let limits = Limits::new();
    let level = |name: &str| limits.add(throttle(name, "9/minute")).unwrap();
    let rule = Rule::new(level("first")).and(level("second"));
    let rule = rule.path("/items/").unwrap();
    let after = throttle("after", "99/minute").build().unwrap();
    let rules = ThrottleMiddleware::new(rule).rule(after);
    let app = app(rules.backend(backend)).await;
    let policies = async |path| send(&app, get(path)).await.policies();
    let change = |what: &str| match what {
        "" => Ok(()),
        "disable first" => limits.disable("first"),
        "remove first" => limits.remove("first"),
        "disable second" => limits.disable("second"),
        _ => limits.enable("second"),
    };
    for (what, told) in [
        ("", "first second after"),
        ("disable first", "second after"),
        ("remove first", "second after"),
        ("disable second", "after"),
        ("enable second", "second after"),
    ] {
        change(what).unwrap();
        assert_eq!(policies("/items/1").await, told, "{what}");
        assert_eq!(policies("/").await, "after", "{what}");
    }
}

#[actix_web::test]
async fn addresses_are_levels_by_their_networks() {
    let (_, backend) = memory();
    let by = |client_ip: ClientIp| move |req: &HttpRequest| client_ip.identity(req);
    let address = throttle("address", "1/minute").identify(by(ClientIp::peer()));
    let far = ClientIp::peer().ipv6_prefix(48).ipv4_prefix(24);
    let network = throttle("network", "2/minute").identify(by(far));
    let rule = Rule::new(address.build().unwrap()).and(network.build().unwrap());
    let app = app(ThrottleMiddleware::new(rule).backend(backend)).await;
    for (peer, told) in [
        ("[2001:db8:7:1::1]:9", ""),
        ("[2001:db8:7:1::2]:9", "\"address\""),
        ("[2001:db8:7:2::1]:9", ""),
        ("[2001:db8:7:3::1]:9", "\"network\""),
        ("[2001:db8:8:3::1]:9", ""),
        ("192.0.2.1:9", ""),
        ("192.0.2.1:9", "\"address\""),
        // The same network in other clothing.
        ("[::ffff:192.0.2.2]:9", ""),
        ("192.0.2.3:9", "\"network\""),
        ("192.0.3.3:9", ""),
    ] {
        let answer = send(&app, get("/").peer_addr(peer.parse().unwrap())).await;
        let actual = if answer.is_throttled() {
            violated(&answer)
        } else {
            String::new()
        };
        assert_eq!(actual, told, "{peer}");
    }
}

#[test]
fn shadow_is_of_all_levels_before_it() {
    let [one, two, three] =
        ["one", "two", "three"].map(|name| throttle(name, "1/minute").build().unwrap());
    let all = [one.clone(), two.clone(), three.clone()];
    let _ = Rule::new(one).and(two).shadow().and(three);
    assert_eq!(all.map(|one| one.is_shadow()), [true, true, false]);
}

#[test]
#[should_panic(expected = "twins")]
fn levels_that_share_counts_but_not_rates_do_not_start() {
    let twin = |rate| throttle("twins", rate).build().unwrap();
    let _ = ThrottleMiddleware::new(Rule::new(twin("1/minute")).and(twin("2/minute")));
}
