//! Which requests meet which throttles.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::test::TestRequest;
use traffik_actix::Rule;

use super::File;
use crate::support::{app, get, memory, send, throttle};

/// Asks so often that whoever is limited to two is denied, and says how many were admitted.
async fn admitted(text: &str, req: impl Fn() -> TestRequest) -> usize {
    let (_, backend) = memory();
    let file = File::new(text);
    let loaded = file.builder(&backend).load().unwrap();
    let app = app(loaded.middleware()).await;
    let mut admitted = 0;
    for _ in 0..4 {
        let answer = send(&app, req()).await;
        assert!(answer.status != 500 && answer.status != 503, "{answer:?}");
        admitted += usize::from(!answer.is_throttled());
    }
    // What is explained is what is done.
    let explained = loaded.explain(&req().to_http_request());
    let is_limited = !explained.throttles().is_empty();
    assert_eq!(is_limited, admitted < 4, "{explained}");
    admitted
}

fn peer(address: &str) -> SocketAddr {
    format!("{address}:9").parse().unwrap()
}

/// A request that an address sends.
fn from(address: &str, uri: &str, headers: &[(&'static str, &'static str)]) -> TestRequest {
    let req = get(uri).peer_addr(peer(address));
    headers
        .iter()
        .fold(req, |req, header| req.insert_header(*header))
}

#[actix_web::test]
async fn a_rule_met_other_requests_than_it_says() {
    type Req = fn() -> TestRequest;
    const CLIENT: &str = "192.0.2.1";
    const FORWARDED: [(&str, &str); 2] = [
        ("host", "other.org"),
        ("x-forwarded-host", "api.example.com"),
    ];
    let item: Req = || from(CLIENT, "/items/1", &[]);
    let post: Req = || from(CLIENT, "/", &[]).method(Method::POST);
    let host: Req = || from(CLIENT, "/", &[("host", "API.example.com:8080")]);
    let evil: Req = || from(CLIENT, "/", &[("host", "evilexample.com")]);
    let forwarded: Req = || from(CLIENT, "/", &FORWARDED);
    let by_proxy: Req = || from("10.0.0.1", "/", &FORWARDED);
    let two_hosts: Req = || from(CLIENT, "http://other.org/", &[("host", "api.example.com")]);
    let absolute: Req = || from(CLIENT, "http://api.example.com/", &[("host", "other.org")]);
    let proxies = "[proxies]\ntrust = [\"10.0.0.0/8\"]\nhost_header = \"x-forwarded-host\"\n";
    for (rule, proxies, req, expected) in [
        ("", "", item, 2),
        ("methods = [\"GET\", \"HEAD\"]", "", item, 2),
        ("methods = \"GET\"", "", post, 4),
        ("path = \"/items/\"", "", item, 2),
        ("path = \"/items/*\"", "", item, 2),
        ("path = \"/items/\"", "", post, 4),
        ("path = \"/items/\"\nmethods = \"POST\"", "", item, 4),
        ("host = \"api.example.com\"", "", host, 2),
        ("host = [\"x.org\", \"*.example.com\"]", "", host, 2),
        ("host = \"*.example.com\"", "", evil, 4),
        ("host = \"api.example.com\"", "", forwarded, 4),
        ("host = \"api.example.com\"", proxies, forwarded, 4),
        ("host = \"api.example.com\"", proxies, by_proxy, 2),
        ("host = \"other.org\"", proxies, by_proxy, 2),
        ("host = \"api.example.com\"", "", two_hosts, 2),
        ("host = \"api.example.com\"", "", absolute, 2),
        ("header = { x-beta = true }", "", item, 4),
        ("header = { x-beta = false }", "", item, 2),
        ("header = { host = \"API.example.com:8080\" }", "", host, 2),
        ("header = { host = \"api\" }", "", host, 4),
        ("when = \"beta\"", "", item, 4),
    ] {
        let text = format!(
            "{proxies}[throttle.api]\nrate = \"2/day\"\n[[rule]]\nthrottle = \"api\"\n{rule}"
        );
        assert_eq!(admitted(&text, req).await, expected, "{text}");
    }
}

/// Two a month that begins on the fifteenth, where it is: when the next one begins.
#[actix_web::test]
async fn a_month_of_a_file_was_one_of_thirty_days() {
    const HOUR: u64 = 3_600;
    let cases = [
        ("month_starts_on = 15", 14 * 24 * HOUR),
        (
            "month_starts_on = 15\ntimezone_offset = 9",
            14 * 24 * HOUR - 9 * HOUR,
        ),
        #[cfg(feature = "time-zone")]
        (
            "month_starts_on = 15\nzone = \"Europe/Berlin\"",
            14 * 24 * HOUR - HOUR,
        ),
        ("", 31 * 24 * HOUR),
    ];
    for (options, ends) in cases {
        // The first of January.
        let (clock, backend) = memory();
        let file = File::new(&format!(
            "[throttle.plan]\nrate = \"2/month\"\nstrategy = \"calendar_window\"\n{options}\n[[rule]]\nthrottle = \"plan\""
        ));
        let loaded = file.builder(&backend).load().unwrap();
        let app = app(loaded.middleware()).await;
        let admitted = async || {
            let mut admitted = 0;
            for _ in 0..4 {
                admitted += usize::from(send(&app, get("/")).await.is_ok());
            }
            admitted
        };
        assert_eq!(admitted().await, 2, "{options}");
        let left = send(&app, get("/")).await.header("retry-after");
        assert_eq!(left, Some(ends.to_string()), "{options}");
        clock.advance(Duration::from_secs(ends) - Duration::from_micros(1));
        assert_eq!(admitted().await, 0, "{options}");
        clock.advance(Duration::from_micros(1));
        assert_eq!(admitted().await, 2, "{options}");
        // Another rate, by hand or in the file, is one of the same month.
        loaded
            .limits()
            .update("plan", |plan| plan.rate("3/month"))
            .unwrap();
        assert_eq!(admitted().await, 1, "{options}");
    }
    let wrong = [
        ("month_starts_on = 32", ":1:11: ", "from 1 to 31, not 32"),
        (
            "month_starts_on = \"the 15th\"",
            ":4:19: ",
            "month_starts_on",
        ),
        ("zone = \"Europe/Berlinn\"", ":4:", "zone"),
    ];
    for (option, place, says) in wrong {
        let (_, backend) = memory();
        let file = File::new(&format!(
            "[throttle.plan]\nrate = \"2/month\"\nstrategy = \"calendar_window\"\n{option}"
        ));
        let error = file.builder(&backend).load().unwrap_err().to_string();
        assert!(
            error.contains(place) && error.contains(says),
            "{option}: {error}"
        );
    }
}

/// Two of each address, three of each network: the narrower level first.
#[actix_web::test]
async fn networks_of_a_file_are_levels() {
    let (_, backend) = memory();
    let file = File::new(
        "[proxies]\ntrust_unix = true\nipv6_prefix = 64\n\
         [identity.network]\nfrom = \"ip\"\nipv4_prefix = 24\nipv6_prefix = 48\n\
         [throttle.address]\nrate = \"2/day\"\n\
         [throttle.network]\nrate = \"3/day\"\nidentity = \"network\"\n\
         [[rule]]\nthrottle = [\"address\", \"network\"]",
    );
    let loaded = file.builder(&backend).load().unwrap();
    let explained = loaded.explain(&get("/").to_http_request()).to_string();
    assert!(
        explained.contains("the address that trusted proxies tell, IPv4 by /24, IPv6 by /48"),
        "{explained}"
    );
    let app = app(loaded.middleware()).await;
    for (address, expected) in [
        ("192.0.2.1", ""),
        ("192.0.2.1", ""),
        ("192.0.2.1", "address"),
        ("192.0.2.200", ""),
        ("192.0.2.201", "network"),
        ("192.0.3.1", ""),
        ("[2001:db8:1:1::1]", ""),
        ("[2001:db8:1:1::2]", ""),
        ("[2001:db8:1:1::3]", "address"),
        ("[2001:db8:1:2::1]", ""),
        ("[2001:db8:1:3::1]", "network"),
        ("[2001:db8:2:1::1]", ""),
    ] {
        let answer = send(&app, get("/").peer_addr(peer(address))).await;
        let violated = answer.body.split_once(r#""violated-policies":[""#);
        let violated = violated.map_or("", |(_, rest)| rest.split('"').next().unwrap());
        assert_eq!(violated, expected, "{address}");
    }
}

/// Two rules that lead to one throttle are not two hits.
#[actix_web::test]
async fn a_throttle_of_two_rules_was_charged_twice() {
    let text = "[throttle.api]\nrate = \"2/day\"\n[[rule]]\nthrottle = \"api\"\npath = \"/items/\"\n[[rule]]\nthrottle = \"api\"\nmethods = \"GET\"";
    let both = || TestRequest::get().uri("/items/1");
    assert_eq!(admitted(text, both).await, 2);
    assert_eq!(admitted(text, || TestRequest::get().uri("/")).await, 2);
    assert_eq!(admitted(text, || TestRequest::post().uri("/")).await, 4);
}

/// Rules of the file come first, and what follows one of the program's follows none of them.
#[actix_web::test]
async fn levels_of_the_program_are_for_their_requests_beside_a_file() {
    let (_, backend) = memory();
    let file = File::new(
        "[throttle.api]\nrate = \"9/day\"\n[[rule]]\nthrottle = \"api\"\nheader = { x-api = true }\n[[rule]]\nthrottle = \"api\"\nheader = { x-beta = true }",
    );
    let level = |name| throttle(name, "9/day").build().unwrap();
    let levels = Rule::new(level("first")).and(level("second"));
    let limits = file.builder(&backend).load().unwrap().middleware();
    let limits = limits.rule(levels.path("/items/").unwrap());
    let app = app(limits.backend(backend)).await;
    for (path, header, policies) in [
        ("/items/1", "x-api", "api first second"),
        ("/items/1", "x-beta", "api first second"),
        ("/items/1", "x-none", "first second"),
        ("/", "x-api", "api"),
        ("/", "x-beta", "api"),
        ("/", "x-none", ""),
    ] {
        let answer = send(&app, get(path).insert_header((header, "yes"))).await;
        assert_eq!(answer.policies(), policies, "{path} with {header}");
    }
}

#[actix_web::test]
async fn who_asks_was_somebody_else() {
    let (_, backend) = memory();
    let file = File::new(
        "[proxies]\ntrust = [\"10.0.0.0/8\"]\n\
         [identity.key]\nfrom = \"header\"\nheader = \"x-key\"\notherwise = \"default\"\n\
         [identity.strict]\nfrom = \"header\"\nheader = \"x-key\"\n\
         [identity.default]\nfrom = \"ip\"\n\
         [identity.account]\nfrom = \"function\"\nfunction = \"account\"\n\
         [throttle.ip]\nrate = \"1/day\"\n\
         [throttle.key]\nrate = \"1/day\"\nidentity = \"key\"\n\
         [throttle.strict]\nrate = \"1/day\"\nidentity = \"strict\"\n\
         [throttle.account]\nrate = \"1/day\"\nidentity = \"account\"\n\
         [[rule]]\nthrottle = \"ip\"\nheader = { x-t = \"ip\" }\n\
         [[rule]]\nthrottle = \"key\"\nheader = { x-t = \"key\" }\n\
         [[rule]]\nthrottle = \"strict\"\nheader = { x-t = \"strict\" }\n\
         [[rule]]\nthrottle = \"account\"\nheader = { x-t = \"account\" }\n",
    );
    let loaded = file.builder(&backend).load().unwrap();
    let app = app(loaded.middleware()).await;
    let none = ("x-none", "");
    for (which, address, header, expected) in [
        ("ip", "192.0.2.1", none, 200),
        ("ip", "192.0.2.1", ("x-forwarded-for", "192.0.2.2"), 429),
        ("ip", "10.0.0.1", ("x-forwarded-for", "192.0.2.2"), 200),
        ("ip", "10.0.0.1", ("x-forwarded-for", "192.0.2.1"), 429),
        ("key", "192.0.2.1", ("x-key", "a"), 200),
        ("key", "192.0.2.9", ("x-key", "a"), 429),
        ("key", "192.0.2.1", ("x-key", "b"), 200),
        ("key", "192.0.2.1", none, 200),
        ("key", "192.0.2.1", none, 429),
        ("strict", "192.0.2.1", none, 400),
        ("account", "192.0.2.1", none, 400),
        ("account", "192.0.2.1", ("x-account", "ann"), 200),
        ("account", "192.0.2.2", ("x-account", "ann"), 429),
    ] {
        let req = from(address, "/", &[("x-t", which), header]);
        let answer = send(&app, req).await.status;
        assert_eq!(answer, expected, "{which} from {address} with {header:?}");
    }
}

#[actix_web::test]
async fn a_client_chose_its_tier() {
    let (_, backend) = memory();
    let file = File::new(
        "[proxies]\ntrust = [\"10.0.0.0/8\"]\n\
         [identity.told]\nfrom = \"ip\"\ntier_header_of_proxies = \"x-plan\"\n\
         [identity.found]\nfrom = \"ip\"\ntier = \"plan\"\n\
         [throttle.told]\nrate = \"1/day\"\nidentity = \"told\"\nstrategy = \"tiered_rate\"\ntiers = { free = 1, gold = 3 }\n\
         default_tier = \"free\"\n\
         [throttle.found]\nrate = \"1/day\"\nidentity = \"found\"\nstrategy = \"tiered_rate\"\ntiers = { free = 1, gold = 3 }\n\
         default_tier = \"free\"\n\
         [[rule]]\nthrottle = \"told\"\npath = \"/items/\"\n\
         [[rule]]\nthrottle = \"found\"\npath = \"/$\"\n",
    );
    let loaded = file.builder(&backend).load().unwrap();
    let app = app(loaded.middleware()).await;
    for (who, path, address, header, expected) in [
        ("a client", "/items/1", "192.0.2.1", ("x-plan", "gold"), 1),
        ("a proxy", "/items/1", "10.0.0.1", ("x-plan", "gold"), 3),
        ("a client", "/", "192.0.2.3", ("x-plan", "gold"), 1),
        (
            "the program",
            "/",
            "192.0.2.4",
            ("x-verified-plan", "gold"),
            3,
        ),
    ] {
        let mut admitted = 0;
        for _ in 0..5 {
            let req = from(address, path, &[header, ("x-forwarded-for", "192.0.2.7")]);
            admitted += usize::from(send(&app, req).await.is_ok());
        }
        assert_eq!(admitted, expected, "{who} says so: {path}");
    }
    // A proxy that adds a line, where others replace what they were sent.
    let mut both = 0;
    for _ in 0..5 {
        let req = from("10.0.0.1", "/items/1", &[("x-forwarded-for", "192.0.2.8")]);
        let req = req
            .append_header(("x-plan", "gold"))
            .append_header(("x-plan", "free"));
        both += usize::from(send(&app, req).await.is_ok());
    }
    assert_eq!(both, 1, "a client says so before a proxy says otherwise");
}

#[test]
fn an_explanation_tells_what_is_met_and_why_not() {
    let (_, backend) = memory();
    let file = File::new(
        "[throttle.all]\nrate = \"100/minute\"\n[throttle.writes]\nrate = \"10/minute\"\nstrategy = \"token_bucket\"\nburst = 5\n\
         [[rule]]\nthrottle = \"all\"\n[[rule]]\nthrottle = [\"writes\", \"all\"]\nmethods = [\"POST\", \"PUT\"]\npath = \"/api/\"\n",
    );
    let loaded = file.builder(&backend).load().unwrap();
    let req = TestRequest::post().uri("/api/x?y=1").to_http_request();
    let path = file.path().display();
    let both = loaded.explain(&req).to_string();
    let expected = format!(
        "POST /api/x?y=1\n\
         rule 1 ({path}:7): every request\n  1. `all`\n     rate 100/minute\n     strategy fixed_window\n     \
         for each: the address of the socket, unless the program's backend says otherwise\n     counts in `default` of the program\n\
         rule 2 ({path}:9): the method is POST or PUT, and the path is as `/api/`\n  2. `writes`\n     rate 10/minute\n     \
         strategy token_bucket,burst=5\n     for each: the address of the socket, unless the program's backend says otherwise\n     \
         counts in `default` of the program\n  `all`, which is asked already\n\
         all of them admit it, and are charged, or it is answered 429, and nothing is charged\n"
    );
    assert_eq!(both, expected);
    let req = TestRequest::get().uri("/").to_http_request();
    let one = loaded.explain(&req);
    assert_eq!(one.throttles(), ["all"]);
    let end = format!(
        "not rule 2 ({path}:9): only if the method is POST or PUT, and the path is as `/api/`\n"
    );
    assert!(one.to_string().ends_with(&end), "{one}");
}
