//! What is admitted, and how it is told.

use crate::support::{Example, talk};

const NOTICE: &str = r#"{"type":"rate_limit","error":"Too many messages","retry_after":1}"#;

#[test]
fn limits_messages_as_it_does_requests() {
    let example = Example::bench("--rate 3/1s --clock manual --workers 2");
    let (mut ann, mut tab, mut bob) = (
        example.connect("ann"),
        example.connect("ann"),
        example.connect("bob"),
    );
    let say = |socket: &mut _, text| talk(socket, text);
    assert_eq!(say(&mut ann, "1"), r#"{"echo":"1","status":"ok"}"#);
    assert_eq!(say(&mut tab, "\""), r#"{"echo":"\"","status":"ok"}"#);
    assert_eq!(example.status("GET", "/test", "x-client-id: ann\r\n"), 200);
    assert_eq!(say(&mut ann, "4"), NOTICE);
    assert_eq!(say(&mut tab, "5"), NOTICE);
    assert_eq!(example.status("GET", "/test", "x-client-id: ann\r\n"), 429);
    assert_eq!(say(&mut bob, "1"), r#"{"echo":"1","status":"ok"}"#);

    let advance = "/__bench__/clock?advance_us=1000000";
    assert_eq!(example.status("POST", advance, ""), 200);
    assert_eq!(say(&mut ann, "6"), r#"{"echo":"6","status":"ok"}"#);
}

#[test]
fn is_exact_to_the_microsecond_over_http() {
    let flags = "--strategy gcra,burst_tolerance=1s --rate 2/s --clock manual --workers 1";
    let example = Example::bench(flags);
    let test = |headers| example.status("GET", "/test", headers);
    for _ in 0..3 {
        assert_eq!(test(""), 200);
    }
    let denied = example.send("GET", "/test", "");
    assert!(denied.contains(r#""wait_us":500000"#), "{denied}");
    assert!(
        example
            .send("GET", "/stat", "")
            .contains(r#""wait_us":500000"#)
    );
    assert_eq!(test("x-client-id: another\r\n"), 200);

    let advance = |us| example.status("POST", &format!("/__bench__/clock?advance_us={us}"), "");
    assert_eq!(advance(499_999), 200);
    assert_eq!(test(""), 429);
    assert_eq!(advance(1), 200);
    assert_eq!(test(""), 200);
    assert_eq!(test(""), 429);

    assert_eq!(example.status("POST", "/__bench__/reset", ""), 200);
    assert_eq!(test("x-cost: 3\r\n"), 200);
    assert_eq!(example.status("GET", "/unthrottled", ""), 200);
    assert_eq!(example.status("GET", "/__bench__/health", ""), 200);
}

#[test]
fn tells_tiers_regions_priorities_and_instances_apart() {
    let regions = "--strategy geographic_distribution,regions=eu:0.6|us:0.4,allow_spillover=false";
    let fairness = "--strategy distributed_fairness,instance=a";
    for (flags, answers) in [
        (
            "--strategy tiered_rate,tiers=free:1|gold:1.5 --rate 2/s",
            &[
                ("X-Client-ID: ann", 12, 2),
                ("X-Client-ID: ben\r\nX-Tier: gold", 12, 3),
                ("X-Client-ID: cid\r\nX-Tier: free", 12, 2),
            ][..],
        ),
        (
            &format!("{regions} --rate 10/s"),
            &[
                ("X-Region: eu", 12, 6),
                ("X-Region: us", 12, 4),
                ("X-Region: mars", 12, 0),
            ],
        ),
        (
            "--strategy priority_queue,reserve=high:0.3|critical:0.4 --rate 10/s",
            &[
                ("X-Priority: low", 12, 2),
                ("X-Priority: normal", 12, 1),
                ("X-Priority: 3", 12, 3),
                ("X-Priority: critical", 12, 4),
            ],
        ),
        // Half is kept for each that was seen.
        (
            &format!("{fairness} --rate 10/s"),
            &[("X-Cost: 1", 1, 1), ("X-Instance: b", 12, 5)],
        ),
        (
            "--strategy time_of_day,windows=0-12:3 --rate 2/s",
            &[("X-Tier: unread", 12, 6)],
        ),
    ] {
        let example = Example::bench(&format!("{flags} --clock manual --workers 1"));
        for (headers, hits, admitted) in answers {
            let statuses: Vec<_> = (0..*hits)
                .map(|_| example.status("GET", "/test", &format!("{headers}\r\n")))
                .collect();
            let count = statuses.iter().filter(|status| **status == 200).count();
            assert_eq!(count, *admitted, "{flags}: {headers}: {statuses:?}");
        }
    }
}

#[test]
fn says_why_a_header_makes_no_sense() {
    let example = Example::bench("--workers 1");
    let (cost, priority) = (
        "X-Cost must be a whole number from 0 to 4294967295",
        "X-Priority must be low, normal, high, critical or a number from 1 to 4",
    );
    for (header, value, right) in [
        ("x-cost", "abc", cost),
        ("x-cost", "-1", cost),
        ("x-cost", "4294967296", cost),
        ("x-cost", "", cost),
        ("x-priority", "urgent", priority),
        ("x-priority", "-1", priority),
        ("x-priority", "", priority),
    ] {
        let answer = example.send("GET", "/stat", &format!("{header}: {value}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let error = format!(r#"{{"error":"{right}, not \"{value}\"","status":"error"}}"#);
        assert!(answer.ends_with(&error), "{answer}");
    }
}

#[test]
fn writes_headers_when_it_is_told() {
    for (when, admitted, denied) in [
        ("always", true, true),
        ("throttled", false, true),
        ("never", false, false),
    ] {
        let flags = format!("--headers {when} --rate 1/s --clock manual --workers 1");
        let example = Example::bench(&flags);
        for (status, told) in [("200", admitted), ("429", denied)] {
            let answer = example.send("GET", "/test", "");
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert_eq!(answer.contains("\r\nratelimit: "), told, "{when}: {answer}");
        }
    }
}
