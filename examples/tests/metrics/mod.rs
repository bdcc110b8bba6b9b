//! What Prometheus scrapes, and what the dashboard shows of it.

use std::collections::BTreeSet;

use serde_json::Value;
use traffik_core::metrics::{ALL, Kind, Metric};

use crate::support::Example;

/// The number of a series in what was scraped.
fn number(scraped: &str, series: &str) -> Option<u64> {
    let mut lines = scraped.lines();
    let line = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// The metric that a series is of.
fn metric(series: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| match metric.kind {
        Kind::Histogram => series
            .strip_prefix(metric.name)
            .is_some_and(|part| matches!(part, "_bucket" | "_sum" | "_count")),
        Kind::Counter | Kind::Gauge => series == metric.name,
    })
}

fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |char: char| char == '_' || char.is_ascii_alphanumeric();
    let words = text.split(|char| !is_part(char));
    words.filter(|word| word.starts_with("traffik_")).collect()
}

#[test]
fn what_is_scraped_is_what_happened() {
    let example = Example::start("metrics");
    let statuses: Vec<_> = (0..30)
        .map(|_| example.status("GET", "/api/hello", ""))
        .collect();
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count() as u64;
    assert!(
        count(429) > 0 && count(200) + count(429) == 30,
        "{statuses:?}"
    );

    let scraped = example.send("GET", "/metrics", "");
    let decisions = |outcome: &str| {
        let series = format!(r#"traffik_decisions_total{{throttle="api",outcome="{outcome}"}}"#);
        number(&scraped, &series)
    };
    assert_eq!(decisions("admitted"), Some(count(200)), "{scraped}");
    assert_eq!(decisions("denied"), Some(count(429)));
    assert_eq!(decisions("failed"), Some(0));
    let near = number(&scraped, r#"traffik_near_limit_total{throttle="api"}"#);
    assert!(near.is_some_and(|near| near >= 1), "the fifth left nothing");

    // Nothing is told that is not in the table, and nothing of a client.
    let (_, body) = scraped.split_once("\r\n\r\n").unwrap();
    let series = body.lines().filter(|line| line.starts_with("traffik_"));
    for line in series {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(metric(name).is_some(), "{line}");
    }
    assert!(!body.contains("127.0.0.1"));
    assert!(body.contains("# HELP traffik_decisions_total Decisions, by what they were"));

    let offenders = example.send("GET", "/offenders", "");
    let told = format!("{} denials of ", count(429));
    assert!(offenders.contains(&told), "{offenders}");
}

#[test]
fn what_is_in_flight_is_scraped_while_it_is() {
    let example = Example::start("metrics");
    let in_flight = |example: &Example| {
        let scraped = example.send("GET", "/metrics", "");
        number(&scraped, r#"traffik_in_flight{limit="reports"}"#)
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| example.status("GET", "/report", ""));
        while in_flight(&example) != Some(1) {
            assert!(!first.is_finished(), "it was never seen");
        }
        assert_eq!(example.status("GET", "/report", ""), 429);
        assert_eq!(first.join().unwrap(), 200);
    });
    let scraped = example.send("GET", "/metrics", "");
    assert_eq!(in_flight(&example), Some(0));
    for (outcome, expected) in [("admitted", 1), ("busy", 1), ("waited", 0), ("failed", 0)] {
        let series =
            format!(r#"traffik_in_flight_outcomes_total{{limit="reports",outcome="{outcome}"}}"#);
        assert_eq!(number(&scraped, &series), Some(expected), "{outcome}");
    }
}

#[test]
fn the_dashboard_showed_what_is_not_told() {
    let text = include_str!("../../metrics/dashboard.json");
    let dashboard: Value = serde_json::from_str(text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut shown = BTreeSet::new();
    for panel in panels {
        assert!(panel["title"].is_string() && panel["description"].is_string());
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let asked = names(query);
            assert!(!asked.is_empty(), "{query}");
            for name in asked {
                let metric = metric(name).unwrap_or_else(|| panic!("{name} in {query}"));
                shown.insert(metric.name);
                // Only its own labels are in the legend.
                let legend = target["legendFormat"].as_str().unwrap();
                for label in legend.split("{{").skip(1) {
                    let label = label.split("}}").next().unwrap();
                    assert!(metric.labels.contains(&label), "{label} of {name}");
                }
            }
        }
    }
    let all: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(shown, all, "each of them is on a panel");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
}
