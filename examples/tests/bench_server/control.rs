//! What may be changed while it runs.

use crate::support::Example;

#[test]
fn turns_its_clock_to_the_end_of_time_and_no_further() {
    let example = Example::bench("--clock manual --workers 1");
    let advance = |us: &str| example.send("POST", &format!("/__bench__/clock?{us}"), "");
    for query in [
        "advance_us=9000000000000000000",
        "advance_us=-1",
        "advance_us=",
        "advance=1",
        "",
    ] {
        let answer = advance(query);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{query}: {answer}");
        assert!(answer.contains("write `?advance_us=N` with"), "{answer}");
    }
    // The clock begins with 2024.
    let rest = (1_u64 << 53) - 1_704_067_200_000_000;
    assert!(advance(&format!("advance_us={}", rest + 1)).starts_with("HTTP/1.1 400 "));
    assert!(advance(&format!("advance_us={rest}")).starts_with("HTTP/1.1 200 "));
    assert_eq!(example.status("GET", "/test", ""), 200);
    assert_eq!(example.status("GET", "/stat", ""), 200);

    let answer = Example::bench("--workers 1").send("POST", "/__bench__/clock?advance_us=1", "");
    assert!(
        answer.starts_with("HTTP/1.1 409 ") && answer.contains("--clock manual"),
        "{answer}"
    );
}

#[test]
fn a_changed_rate_keeps_what_was_taken() {
    let example = Example::bench("--rate 3/day --clock manual --workers 2");
    let hit = || example.status("GET", "/test", "");
    let change = |rate: &str| {
        let answer = example.send("POST", &format!("/__bench__/rate?rate={rate}"), "");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    };
    assert_eq!([(); 2].map(|()| hit()), [200; 2]);
    change("5/day");
    assert!(
        example
            .send("GET", "/stat", "")
            .contains(r#""remaining":3,"#)
    );
    assert_eq!([(); 4].map(|()| hit()), [200, 200, 200, 429]);
    change("4%20per%20day");
    assert_eq!(hit(), 429);
    change("6/day");
    assert_eq!([(); 2].map(|()| hit()), [200, 429]);
    change("0/0");
    assert_eq!([(); 9].map(|()| hit()), [200; 9]);
}

#[test]
fn says_why_a_rate_makes_no_sense() {
    let huge = "--strategy token_bucket,burst=1000000000 --rate 100/minute --workers 1";
    let example = Example::bench(huge);
    for (query, complaint) in [
        (
            "",
            "write `?rate=RATE`, such as `?rate=100/minute`, not `?`",
        ),
        ("speed=5/s", "write `?rate=RATE`"),
        ("rate=1/s&rate=2/s", "write `?rate=RATE`"),
        ("rate=", r#"rate \"\": "#),
        ("rate=5", r#"rate \"5\": "#),
        ("rate=5/fortnight", r#"rate \"5/fortnight\": "#),
        ("rate=0/s", r#"rate \"0/s\": "#),
        // A burst that would take longer to come back than there is time.
        ("rate=1/366d", r#"rate \"1/366d\": "#),
    ] {
        let answer = example.send("POST", &format!("/__bench__/rate?{query}"), "");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{query}: {answer}");
        assert!(answer.contains(complaint), "{query}: {answer}");
    }
    assert_eq!(example.status("GET", "/__bench__/rate?rate=1/s", ""), 404);
    assert_eq!(example.status("GET", "/test", ""), 200);
}
