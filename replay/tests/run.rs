//! The program, as it is used.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

/// Runs it on a log from its standard input: whether it succeeded, and both outputs.
fn run(args: &[&str], log: &[u8]) -> (bool, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_traffik-replay"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // It may end before it has read all of it.
    let _ = child.stdin.take().expect("a pipe").write_all(log);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn report(args: &[&str], log: &[u8]) -> Value {
    let args: Vec<_> = args
        .iter()
        .copied()
        .chain(["--format", "json", "-"])
        .collect();
    let (is_well, out, error) = run(&args, log);
    assert!(is_well, "{error}");
    serde_json::from_str(&out).expect("JSON")
}

/// A line at a second of a minute: two minutes begin at 0 and at 60.
fn line(client: &str, second: u64, path: &str) -> String {
    let (minute, second) = (second / 60, second % 60);
    format!(
        "{client} - - [10/Oct/2000:13:{minute:02}:{second:02} +0000] \"GET {path} HTTP/1.1\" 200 1 \"-\" \"x\"\n"
    )
}

/// Ann asks twelve times in a minute, and six times in the next; ben asks once.
fn log() -> String {
    let ann = (0..18).map(|at| line("192.0.2.1", at * 5, "/a"));
    let mut lines: Vec<_> = ann.collect();
    lines.insert(3, line("192.0.2.2", 12, "/b"));
    lines.concat()
}

#[test]
fn a_limit_denies_what_it_would_have_denied() {
    let report = report(&["--limit", "all=10/minute"], log().as_bytes());
    let told = |name: &str| report[name].as_u64().expect("a number");
    assert_eq!(
        [
            told("requests"),
            told("denied"),
            told("clients"),
            told("clients_hurt")
        ],
        [19, 2, 2, 1]
    );
    let limit = &report["limits"][0];
    assert_eq!(
        (&limit["name"], &limit["matched"], &limit["denied"]),
        (&json!("all"), &json!(19), &json!(2))
    );
    let over_time: Vec<u64> = serde_json::from_value(limit["over_time"].clone()).expect("numbers");
    assert_eq!((over_time.iter().sum::<u64>(), over_time[50]), (2, 1));
    assert_eq!(
        report["offenders"][0],
        json!({"client": "192.0.2.1", "requests": 18, "denied": 2})
    );
}

#[test]
fn several_limits_are_one_decision() {
    // What the second denies takes nothing of the first.
    let args = [
        "--limit",
        "all=14/hour",
        "--limit",
        "a=5/minute;path=/a;method=get",
    ];
    let report = report(&args, log().as_bytes());
    let denied: Vec<_> = report["limits"]
        .as_array()
        .expect("two")
        .iter()
        .map(|limit| &limit["denied"])
        .collect();
    assert_eq!(denied, [&json!(0), &json!(8)]);
    assert_eq!(report["limits"][1]["matched"], 18);
}

#[test]
fn the_smallest_limit_is_suggested() {
    let report = report(
        &["--suggest", "minute", "--percent", "50"],
        log().as_bytes(),
    );
    let limits = report["suggestions"][0]["limits"].as_array().expect("rows");
    let row = |ppm: u64| {
        limits
            .iter()
            .find(|row| row["denies_at_most_ppm"] == ppm)
            .expect("a row")
    };
    assert_eq!(
        (&row(0)["rate"], &row(0)["denied"]),
        (&json!("12/minute"), &json!(0))
    );
    assert_eq!(
        (&row(500_000)["rate"], &row(500_000)["clients_hurt"]),
        (&json!("1/minute"), &json!(1))
    );
}

#[test]
fn requests_of_a_second_are_spread_over_it() {
    // At once they would be ten at one instant, of which one passes.
    let log: String = (0..10).map(|_| line("192.0.2.1", 7, "/")).collect();
    assert_eq!(
        report(&["--limit", "10/second;gcra"], log.as_bytes())["denied"],
        0
    );
    let fine: String = (0..10)
        .map(|_| "{\"ip\":\"192.0.2.1\",\"ts\":971211336.5}\n")
        .collect();
    assert_eq!(
        report(&["--limit", "10/second;gcra"], fine.as_bytes())["denied"],
        9
    );
}

#[test]
fn clients_are_who_they_should_be() {
    let lines = [
        "2001:db8::1",
        "2001:db8::2",
        "::ffff:192.0.2.1",
        "192.0.2.1",
        "2001:db8:0:1::1",
    ];
    let log: String = lines.map(|client| line(client, 1, "/")).concat();
    assert_eq!(report(&["--limit", "1/s"], log.as_bytes())["clients"], 3);
    let users = "{\"ip\":\"192.0.2.1\",\"ts\":1,\"key\":\"a\"}\n{\"ip\":\"192.0.2.1\",\"ts\":1,\"key\":\"b\"}\n{\"ts\":1}\n";
    let report = report(&["--limit", "1/s", "--by", "key"], users.as_bytes());
    assert_eq!(
        (&report["clients"], &report["unread"]),
        (&json!(2), &json!(1))
    );
}

#[test]
fn logs_may_be_compressed_and_have_lines_that_are_none() {
    let mut log = log().into_bytes();
    log.extend_from_slice(b"hello\n\n");
    log.extend_from_slice(&vec![b'x'; 200_000]);
    log.extend_from_slice(b"\n\xff\xfe\n");
    log.extend_from_slice(line("192.0.2.2", 100, "/").as_bytes());
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&log).expect("memory");
    let compressed = encoder.finish().expect("memory");
    let args = ["--limit", "10/minute"];
    let (plain, compressed) = (report(&args, &log), report(&args, &compressed));
    assert_eq!(plain, compressed);
    assert_eq!(
        (&plain["requests"], &plain["unread"]),
        (&json!(20), &json!(3))
    );
}

#[test]
fn a_time_far_ahead_costs_no_memory_and_is_told() {
    let far = line("192.0.2.3", 0, "/").replace("2000", "2200");
    let log = far + &log();
    let report = report(&["--limit", "10/minute"], log.as_bytes());
    assert_eq!(
        (&report["requests"], &report["late"]),
        (&json!(20), &json!(19))
    );
}

#[test]
fn a_report_is_a_text_or_a_page() {
    let evil = "{\"user\":\"<script>\",\"ts\":1}\n".repeat(3);
    let args = ["--limit", "1/minute", "--suggest", "minute", "--by", "user"];
    let told = |format| {
        let args: Vec<_> = args
            .iter()
            .copied()
            .chain(["--format", format, "-"])
            .collect();
        run(&args, evil.as_bytes()).1
    };
    let text = told("text");
    assert!(
        text.contains("2 requests denied (66.67 %), 1 clients hurt (100.00 %)"),
        "{text}"
    );
    assert!(text.contains("->       1 % of clients  3/minute"), "{text}");
    let page = told("html");
    assert!(
        page.contains("&lt;script>") && !page.contains("<script"),
        "{page}"
    );
    assert_eq!(page.matches("<svg").count(), 2);
}

#[test]
fn a_file_is_read_and_one_is_written() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (log, page) = (folder.join("access.log"), folder.join("report.html"));
    std::fs::write(&log, self::log()).expect("a file");
    let args = [
        "--limit",
        "1/s",
        "--format",
        "html",
        "--output",
        page.to_str().expect("text"),
    ];
    let args: Vec<_> = args
        .into_iter()
        .chain([log.to_str().expect("text")])
        .collect();
    let (is_well, out, error) = run(&args, b"");
    assert!(is_well && out.is_empty(), "{error}");
    assert!(
        std::fs::read_to_string(page)
            .expect("a report")
            .starts_with("<!doctype html>")
    );
}

#[test]
fn mistakes_are_told() {
    let wrong: &[(&[&str], &str)] = &[
        (&["-"], "say --limit or --suggest"),
        (&["--limit", "1/s"], "name a log"),
        (&["--limit", "often", "-"], "--limit \"often\""),
        (&["--limit", "1/s;gcar", "-"], "did you mean `gcra`?"),
        (
            &["--limit", "1/s", "--limit", "1/s", "-"],
            "two limits are called `1/s`",
        ),
        (&["--suggest", "never", "-"], "--suggest \"never\""),
        (
            &["--limit", "1/s", "--percent", "half", "-"],
            "a number from 0 to 100",
        ),
        (
            &["--limit", "1/s", "--format", "pdf", "-"],
            "text, json, or html",
        ),
        (
            &["--limit", "1/s", "/nowhere.log"],
            "cannot read /nowhere.log",
        ),
        (&["--limit", "1/s", "-"], "line 1 is \"hello\""),
        (&["--limits", "1/s", "-"], "--limits"),
    ];
    for (args, says) in wrong {
        let (is_well, out, error) = run(args, b"hello\n");
        assert!(
            !is_well && out.is_empty() && error.contains(says),
            "{args:?}: {error}"
        );
    }
    let (is_well, out, _) = run(&["--help"], b"");
    assert!(is_well && out.contains("--suggest"));
}

/// A month that begins on the fifteenth, in a zone two hours ahead: what is asked at 22:30 on the fourteenth is in the next.
#[test]
fn a_month_of_the_calendar_is_replayed_as_such() {
    let line = |day: u32, time: &str| {
        format!(
            "192.0.2.1 - - [{day:02}/Oct/2000:{time} +0000] \"GET /a HTTP/1.1\" 200 1 \"-\" \"x\"\n"
        )
    };
    let lines = [
        line(1, "12:00:00"),
        line(13, "12:00:00"),
        line(14, "21:59:59"),
        line(14, "22:00:00"),
        line(31, "23:59:59"),
    ];
    let log = lines.concat();
    for (options, denied) in [
        ("month_starts_on=15,timezone_offset=2", 1),
        ("month_starts_on=15", 2),
        ("", 3),
    ] {
        let limit = format!("plan=2/month;calendar_window,{options}");
        let limit = limit.trim_end_matches(',');
        let report = report(&["--limit", limit], log.as_bytes());
        assert_eq!(report["limits"][0]["denied"], json!(denied), "{report}");
    }
}
