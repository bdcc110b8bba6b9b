//! What is wrong in a file, where, and what would be right.

use super::File;
use crate::support::memory;

fn refusal(text: &str) -> String {
    let (_, backend) = memory();
    let file = File::new(text);
    let error = file.builder(&backend).load().expect_err(text).to_string();
    let path = file.path().display().to_string();
    error.strip_prefix(&path).expect(&error).to_owned()
}

/// Lines and columns: `/tmp/limits.toml:2:10: ..`, of the first without the file.
fn places(said: &str) -> Vec<(u32, u32)> {
    let places = said.lines().filter_map(|line| {
        let (_, place) = line.split_once(':')?;
        let mut numbers = place.split(':').map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    places.collect()
}

/// Files, and all that is said about them.
const MISTAKES: &[(&str, &str)] = &[
    (
        "",
        ": there is no throttle in it: write `[throttle.NAME]`, and below it `rate = \"100/minute\"`",
    ),
    (
        "[throttle.api]\nrate =\n",
        ":2:7: string values must be quoted, expected literal string",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\nrate = \"2/s\"",
        ":3:1: duplicate key",
    ),
    (
        "[throttle.api]\n",
        ":1:11: throttle `api`: `rate` is missing: a text such as \"100/minute\"",
    ),
    (
        "[throttle.api]\nrate = 100",
        ":2:8: `rate` of throttle `api` must be a text such as \"100/minute\", not 100",
    ),
    (
        "[throttle.api]\n  rate = \"many\"",
        ":2:10: `rate` of throttle `api`: …",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\ncots = 2",
        ":3:1: throttle `api` has no key `cots`, did you mean `cost`?",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\ncost = -2",
        ":3:8: `cost` of throttle `api` must be a whole number from 0 to 4294967295, not -2",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\nshared = \"yes\"",
        ":3:10: `shared` of throttle `api` must be true or false, not \"yes\"",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\nscope = \"rout\"",
        ":3:9: `scope` of throttle `api` must be \"throttle\", \"route\" or \"path\", not \"rout\"",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\nwait_up_to = 5",
        ":3:14: `wait_up_to` of throttle `api` must be a duration such as \"500ms\" or \"2 hours\", not 5",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\nstrategy = \"token_buket\"",
        ":3:12: `strategy` of throttle `api`: \"token_buket\" is no strategy, did you mean `token_bucket`?; there are …",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\nstrategy = \"token_bucket\"\nbrust = 2",
        ":4:1: throttle `api`: strategy token_bucket has no option `brust`, did you mean `burst`?; it has burst",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\nstrategy = \"token_bucket\"\nburst = \"big\"",
        ":4:9: throttle `api`: option `burst` of strategy token_bucket must be a whole number from 0 to 4294967295, not \"big\"",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\nburst = [2]",
        ":3:9: `burst` of throttle `api` must be a number, true, false, a text, or a table of numbers, not a list",
    ),
    (
        "throttle = 5",
        ":1:12: `throttle` of the file must be a table of tables, written `[throttle.NAME]`, not 5",
    ),
    (
        "[throttle]\nrate = \"1/s\"",
        ":2:1: a throttle is a table with a name: write `[throttle.NAME]`, and below it `rate = ..`",
    ),
    (
        "[throtle.api]\nrate = \"1/s\"",
        ":1:2: the file has no key `throtle`, did you mean `throttle`?",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\nidentity = \"me\"",
        ":3:12: there is no identity `me`; there is none",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\nbackend = \"redsi\"",
        ":3:11: there is no backend `redsi`; there are default",
    ),
    ("[throttle.\"\"]\nrate = \"1/s\"", ":1:11: …"),
    // Rules.
    (
        "[throttle.api]\nrate = \"1/s\"\n[[rule]]\n",
        ":3:1: rule 1: `throttle` is missing: the name of a throttle, or a list of names",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\n[[rule]]\nthrottle = \"apj\"",
        ":4:12: there is no throttle `apj`, did you mean `api`?",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\n[[rule]]\nthrottle = []",
        ":4:12: `throttle` of rule 1 is empty: leave it out, or say the name of a throttle, or a list of names",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\n[[rule]]\nthrottle = [\"api\", \"api\"]",
        ":4:20: `throttle` of rule 1 has \"api\" twice",
    ),
    (
        "RULE\nmethods = [\"GET\", \"PSOT\"]",
        ":5:19: there is no method `PSOT`, did you mean `POST`?",
    ),
    (
        "RULE\nmethods = \"get\"",
        ":5:11: there is no method `get`, did you mean `GET`?",
    ),
    (
        "RULE\nmethods = []",
        ":5:11: `methods` of rule 1 is empty: leave it out, or say methods such as [\"GET\", \"HEAD\"]",
    ),
    (
        "RULE\nmethods = [1]",
        ":5:12: `methods` of rule 1 must be methods such as [\"GET\", \"HEAD\"], not 1",
    ),
    (
        "RULE\nmethod = \"GET\"",
        ":5:1: rule 1 has no key `method`, did you mean `methods`?",
    ),
    (
        "RULE\npath = \"\"",
        ":5:8: `path` of rule 1 must be a pattern such as \"/api/\", not \"\"",
    ),
    ("RULE\npath = \"login\"", ":5:8: `path` of rule 1: …"),
    (
        "RULE\nhost = \"*example.com\"",
        ":5:8: `host` of rule 1 must be a name such as \"api.example.com\", or \"*.example.com\" for all names below it, without \
         scheme, port and path, not \"*example.com\"",
    ),
    (
        "RULE\nheader = { x-beta = 1 }",
        ":5:21: `x-beta` of rule 1 must be a text, or true if the header must be there, false if not, not 1",
    ),
    (
        "RULE\nheader = { \"x beta\" = true }",
        ":5:12: \"x beta\" is no name of a header: it has letters, digits and `-` only, such as \"x-api-key\"",
    ),
    (
        "RULE\nheader = {}",
        ":5:10: `header` of rule 1 must be a table such as { x-beta = true, x-plan = \"free\" }, not a table",
    ),
    (
        "RULE\nwhen = \"bta\"",
        ":5:8: there is no predicate `bta`, did you mean `beta`?: the program registers them by name",
    ),
    // What is tried of `api` would take its place.
    (
        "[throttle.\"api (shadow)\"]\nrate = \"1/s\"",
        ":1:11: throttle `api (shadow)`: a name that ends in ` (shadow)` is one of a throttle that is tried: give it another",
    ),
    // Who asks.
    (
        "API\n[identity.who]\n",
        ":3:11: identity `who`: `from` is missing: \"ip\", \"header\" or \"function\"",
    ),
    (
        "API\n[identity.who]\nfrom = \"cookie\"",
        ":4:8: `from` of identity `who` must be \"ip\", \"header\" or \"function\", not \"cookie\"",
    ),
    (
        "API\n[identity.who]\nfrom = \"function\"\nfunction = \"acount\"",
        ":5:12: there is no identity function `acount`, did you mean `account`?: the program registers them by name",
    ),
    (
        "API\n[identity.who]\nfrom = \"header\"",
        ":3:11: identity `who`: `header` is missing: the name of a header such as \"x-api-key\"",
    ),
    (
        "API\n[identity.who]\nfrom = \"header\"\nheader = \"x-key\"\notherwise = \"who\"",
        ":3:11: identity `who`: `otherwise` leads back to itself: one of them must do without",
    ),
    (
        "API\n[identity.who]\nfrom = \"ip\"\ntier_header_of_proxies = \"x-plan\"",
        ":3:11: identity `who`: `tier_header_of_proxies` is believed from trusted proxies only: say which in `[proxies]`, as \
         `trust = [\"10.0.0.0/8\"]`",
    ),
    (
        "API\n[proxies]\ntrust_unix = true\n[identity.who]\nfrom = \"ip\"\ntier = \"plan\"\ntier_header_of_proxies = \"x-plan\"",
        ":7:8: identity `who` has both `tier` and `tier_header_of_proxies`: leave one out",
    ),
    (
        "API\n[identity.who]\nfrom = \"ip\"\ntier_header = \"x-plan\"",
        ":5:1: identity `who` has no key `tier_header`; it has from, ipv4_prefix, ipv6_prefix, tier, tier_header_of_proxies",
    ),
    (
        "API\n[identity.who]\nfrom = \"ip\"\notherwise = \"x\"",
        ":5:1: identity `who` has no key `otherwise`; it has from, ipv4_prefix, ipv6_prefix, tier, tier_header_of_proxies",
    ),
    (
        "API\n[identity.net]\nfrom = \"ip\"\nipv4_prefix = 33",
        ":5:15: `ipv4_prefix` of identity `net` must be a number of bits, 32 at most, not 33",
    ),
    (
        "API\n[identity.who]\nfrom = \"header\"\nheader = \"x-key\"\nipv6_prefix = 48",
        ":6:1: identity `who` has no key `ipv6_prefix`; it has from, header, otherwise, tier, tier_header_of_proxies",
    ),
    (
        "API\n[proxies]\ntrust_unix = true\nipv6_prefix = 129",
        ":5:15: `ipv6_prefix` of proxies must be a number of bits, 128 at most, not 129",
    ),
    (
        "API\n[proxies]\nheader = \"forwarded\"",
        ":3:1: proxies: it says whom to believe: `trust = [\"10.0.0.0/8\"]`, `trust_unix = true` or `trust_hops = 1`",
    ),
    (
        "[throttle.api]\nrate = \"1/s\"\n[proxies]\ntrust_hops = 1\nhost_header = \"Forwarded\"",
        ":5:15: `host_header` of proxies must be a header that has the host alone, such as \"x-forwarded-host\", not \"Forwarded\"",
    ),
    ("API\n[proxies]\ntrust = [\"10.0.0.0/33\"]", ":4:10: …"),
    (
        "API\n[proxies]\ntrust_hops = 300",
        ":4:14: `trust_hops` of proxies must be how many proxies there are, 255 at most, not 300",
    ),
    // Where counts live.
    (
        "API\n[backend.b]\n",
        ":3:10: backend `b`: `type` is missing: \"memory\", \"redis\", \"redis_cluster\", \"redis_sentinel\" or \"memcached\"",
    ),
    (
        "API\n[backend.b]\ntype = \"reddis\"",
        ":4:8: `type` of backend `b` must be \"memory\", \"redis\", \"redis_cluster\", \"redis_sentinel\" or \"memcached\", not \"reddis\"",
    ),
    (
        "API\n[backend.b]\ntype = \"memory\"\nmax_keys = \"many\"",
        ":5:12: `max_keys` of backend `b` must be a whole number from 0 to 4294967295, not \"many\"",
    ),
    (
        "API\n[backend.default]\ntype = \"memory\"",
        ":3:10: backend `default`: the program has a backend of this name: give this one another",
    ),
];

#[test]
fn a_mistake_was_accepted_or_not_told_with_its_place() {
    let mut others = Vec::new();
    for (text, said) in MISTAKES {
        let text = text
            .replace("RULE", "API\n[[rule]]\nthrottle = \"api\"")
            .replace("API", "[throttle.api]\nrate = \"1/s\"");
        let refusal = refusal(&text);
        // What others say is theirs.
        let is_it = match said.strip_suffix('…') {
            Some(begin) => refusal.starts_with(begin) && refusal.len() > begin.len() + 10,
            None => refusal == *said,
        };
        if !is_it {
            others.push(format!("{text}\n{refusal}\n{said}\n"));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

/// Who mended one was told of the next, one start after the other.
#[test]
fn only_the_first_mistake_was_told() {
    let text = "\
[proxies]
trust = [\"10.0.0.0/33\"]

[identity.who]
from = \"header\"
header = \"x key\"

[identity.other]
from = \"header\"
header = \"x-key\"
otherwise = \"nobody\"

[backend.store]
type = \"reddis\"

[throttle.api]
rate = \"often\"
strategy = \"gcar\"
identity = \"woh\"
backend = \"stroe\"
cost = \"much\"
scope = \"rout\"

[throttle.writes]
rate = \"1/minute\"
identity = \"who\"
backend = \"store\"
strategy = \"token_bucket\"
burst = \"many\"
cots = 3

[[rule]]
throttle = [\"api\", \"wirtes\", \"writes\"]
methods = [\"PSOT\", \"gte\"]
host = \"https://example.com\"
header = { \"x beta\" = true, x-plan = 3 }
when = \"bta\"
pth = \"/\"

[[rule]]
methods = \"GET\"

[rules]
";
    let said = refusal(text);
    let expected = [
        (2, 10),
        (6, 10),
        (11, 13),
        (14, 8),
        (17, 8),
        (18, 12),
        (19, 12),
        (20, 11),
        (21, 8),
        (22, 9),
        (29, 9),
        (30, 1),
        (33, 20),
        (34, 12),
        (34, 20),
        (35, 8),
        (36, 12),
        (36, 38),
        (37, 8),
        (38, 1),
    ];
    assert_eq!(places(&said), expected, "{said}");
    assert!(
        said.ends_with(": and 2 more mistakes"),
        "twenty are told: {said}"
    );
}

/// Of proxies, an identity or a backend, when rules and throttles told all of theirs.
#[cfg(feature = "redis")]
#[test]
fn only_the_first_mistake_of_a_table_was_told() {
    let text = "\
[throttle.api]
rate = \"1/s\"

[proxies]
trust = [\"10.0.0.0/33\", 7, \"10.0.0.0/8\"]
trust_hops = 300
ipv4_prefix = 33
header = \"x-real\"
host_header = \"x host\"
hosts = \"x\"

[identity.who]
from = \"header\"
otherwise = \"nobody\"
tier = \"nobody\"
teir = 3

[identity.other]
from = \"cookie\"
tier = \"nobody\"

[identity.self]
from = \"header\"
header = \"x self\"
otherwise = \"self\"

[backend.store]
type = \"redis\"
url_env = \"redis://10.0.0.5\"
deadline = 5
failover = \"disk\"
nodes = 0
naems = 1
";
    let said = refusal(text);
    let expected = [
        (5, 10),
        (5, 25),
        (6, 14),
        (7, 15),
        (8, 10),
        (9, 15),
        (10, 1),
        (12, 11),
        (14, 13),
        (15, 8),
        (16, 1),
        (19, 8),
        (20, 8),
        (22, 11),
        (24, 10),
        (29, 11),
        (30, 12),
        (31, 12),
        (32, 9),
        (33, 1),
    ];
    assert_eq!(places(&said), expected, "{said}");
}

/// What a program cannot have is told with the feature that it lacks.
#[test]
fn a_missing_feature_was_not_named() {
    for (kind, feature, is_there) in [
        ("redis", "redis", cfg!(feature = "redis")),
        (
            "redis_cluster",
            "redis-cluster",
            cfg!(feature = "redis-cluster"),
        ),
        (
            "redis_sentinel",
            "redis-sentinel",
            cfg!(feature = "redis-sentinel"),
        ),
        ("memcached", "memcached", cfg!(feature = "memcached")),
    ] {
        let urls = match kind {
            "redis" => "url = \"redis://10.0.0.5\"",
            "memcached" => "urls = \"10.0.0.5:11211\"",
            "redis_sentinel" => "urls = \"redis://10.0.0.5\"\nmaster = \"redis://shop\"",
            _ => "urls = \"redis://10.0.0.5\"",
        };
        let text =
            format!("[throttle.api]\nrate = \"1/s\"\n[backend.store]\ntype = \"{kind}\"\n{urls}");
        let (_, backend) = memory();
        let file = File::new(&text);
        match (file.builder(&backend).load(), is_there) {
            (Ok(_), true) => {}
            (Err(error), false) => {
                let error = error.to_string();
                assert!(
                    error.contains(":3:10: ")
                        && error.contains(&format!("the feature `{feature}`")),
                    "{error}"
                );
                // Tools that are not the program may do without.
                let rehearsed = file.builder(&backend).rehearse().unwrap();
                assert!(
                    rehearsed
                        .summary()
                        .contains(&format!("feature `{feature}`"))
                );
            }
            (loaded, _) => panic!("{kind}: {loaded:?}"),
        }
    }
}

/// It was read to its end, if it had one.
#[test]
fn a_file_had_no_bound() {
    let (_, backend) = memory();
    let valid = "[throttle.api]\nrate = \"1/day\"\n#";
    let longest = usize::try_from(traffik_actix::LimitsFile::LONGEST).unwrap();
    let text = |length: usize| format!("{valid}{}", "x".repeat(length - valid.len()));
    let file = File::new(&text(longest));
    assert!(file.builder(&backend).load().is_ok());
    assert_eq!(
        refusal(&text(longest + 1)),
        ": it has 1048577 bytes, and a file of limits has 1048576 at most (1 MiB)"
    );
    #[cfg(target_os = "linux")]
    {
        let endless = traffik_actix::LimitsFile::at("/dev/zero").load();
        assert_eq!(
            endless.unwrap_err().to_string(),
            "/dev/zero: it has more than 1048576 bytes, and a file of limits has 1048576 at most (1 MiB)"
        );
    }
}

/// Whoever reads a log is not meant to read a password.
#[cfg(feature = "redis")]
#[test]
fn a_password_was_told() {
    let texts = [
        "url = \"redis://:hunter2@host:badport\"",
        "url = \"redis://user@host/hunter2\"",
        "url = [\"redis://:hunter2@host\"]",
        "url_env = \"redis://:hunter2@host\"",
        "url = \"redis://:hunter2@host\"\nurl_env = \"PATH\"",
        "url = \"redis://:hunter2@host\"\nnamespace = \"a b\"",
        "url = \"redis://:hunter2@host\"\nnodes = 3",
        "url = \"redis://:hunter2@host\"\ndeadline = \"0ms\"",
        "url = redis://:hunter2@host",
        "secret_env = \"hunter2!\"\nurl = \"redis://:hunter2@host\"",
        "namespace = \"redis://:hunter2@host\"",
        "failover = \"redis://:hunter2@host\"\nurl = \"redis://host\"",
    ];
    for text in texts {
        let said = refusal(&format!(
            "[throttle.a]\nrate = \"1/s\"\n[backend.r]\ntype = \"redis\"\n{text}"
        ));
        assert!(!said.contains("hunter2"), "{text}\n{said}");
    }
    for text in [
        "type = \"redis_cluster\"\nurls = [\"redis://:hunter2@host:badport\"]",
        "type = \"redis_cluster\"\nurls = [\"redis://:hunter2@host\", \"redis://:hunter2@host\"]",
        "type = \"redis_cluster\"\nurls_env = \"redis://:hunter2@host\"",
        "type = \"redis_cluster\"\nurls = \"redis://:hunter2@host\"\nurls_env = \"PATH\"",
        "type = \"redis_sentinel\"\nurls = \"redis://a\"\nmaster = [\":hunter2@host\"]",
        "type = \"redis_sentinel\"\nurls = \"redis://a\"\nmaster = \"hunter2@host/badbase\"",
        "type = \"redis_sentinel\"\nurls = \"redis://a/1\"\nmaster = \"redis://:hunter2@shop\"",
        "type = \"memcached\"\nurls = [\"memcache://:hunter2@host:badport\"]",
    ] {
        let said = refusal(&format!(
            "[throttle.a]\nrate = \"1/s\"\n[backend.r]\n{text}"
        ));
        assert!(!said.contains("hunter2"), "{text}\n{said}");
    }
    let (_, backend) = memory();
    let text = "[throttle.a]\nrate = \"1/s\"\nbackend = \"r\"\n[[rule]]\nthrottle = \"a\"\n[backend.r]\ntype = \"redis\"\nurl = \"redis://:hunter2@localhost\"";
    let file = File::new(text);
    let loaded = file.builder(&backend).load().unwrap();
    let req = actix_web::test::TestRequest::default().to_http_request();
    let all = format!(
        "{loaded:?} {} {} {:?} {:?}",
        loaded.explain(&req),
        loaded.summary(),
        loaded.limits(),
        loaded.middleware()
    );
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn other_formats_say_what_and_their_own_mistakes_where() {
    let read = |text: &str| {
        let file = File::new(text);
        let loaded = traffik_actix::LimitsFile::at(file.path())
            .format(|text| Ok(serde_json::from_str(text)?));
        let path = file.path().display().to_string();
        let loaded = loaded.load().map(|file| file.limits().list().len());
        loaded.map_err(|error| error.to_string().replace(&path, ""))
    };
    assert_eq!(
        read(r#"{"throttle": {"api": {"rate": "1/s", "cost": 2}}, "rule": [{"throttle": "api"}]}"#),
        Ok(1)
    );
    assert_eq!(
        read(
            r#"{"throttle": {"api": {"rate": "1/s"}}, "rule": [{"throttle": "api", "methods": ["PSOT"]}]}"#
        ),
        Err(": there is no method `PSOT`, did you mean `POST`?".to_owned())
    );
    assert_eq!(
        read(r#"{"throttle": {"api": {"rate": "1/s", "cost": 1.5}}}"#),
        Err(
            ": `cost` of throttle `api` must be a whole number from 0 to 4294967295, not 1.5"
                .to_owned()
        )
    );
    assert_eq!(
        read("{\n\"throttle\": }"),
        Err(": expected value at line 2 column 13".to_owned())
    );
    assert_eq!(
        read(r#"{"throttle": {"api": {"rate": "1/s", "rate": "2/s"}}}"#),
        Err(": the key `rate` is given twice at line 1 column 51".to_owned())
    );
    assert!(read("[]").unwrap_err().starts_with(": it must be a table"));
}
