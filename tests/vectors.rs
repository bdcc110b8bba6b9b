//! What strategies decide, as files that another implementation can be held to: see `vectors/`.
//!
//! `TRAFFIK_WRITE_VECTORS=1 cargo test -p traffik-tests vectors` writes them anew.

use std::borrow::Cow;
use std::path::PathBuf;

use serde_json::{Value, json};
use traffik_core::strategy::{NAMES, named};
use traffik_core::{
    Attributes, Cell, Clock, Decision, Hit, ManualClock, Priority, Rate, Timestamp, Verdict,
};

use crate::support::Random;

/// Each strategy at its defaults, and these.
const OPTIONS: &[&str] = &[
    "token_bucket,burst=20",
    "token_bucket_with_debt,burst=3,max_debt=5",
    "gcra,burst_tolerance=1500ms",
    "gcra,strict=true,burst_tolerance=2s",
    "tiered_rate,tiers=free:1.5|gold:4.5",
    "adaptive_throttle,load_threshold=0.3,recovery_rate=0.01",
    "cost_based_token_bucket,burst=50,cost_window=3,min_refill_rate=0.01",
    "distributed_fairness,instance=mars,weight=2.5",
    "geographic_distribution,regions=eu-west:0.5|us-east:0.3|default:0.1,allow_spillover=false",
    "time_of_day,windows=9-18:0.5|22-6:3,timezone_offset_minutes=-210",
    "calendar_window,week_starts_on=sunday,month_starts_on=31,timezone_offset_minutes=-210",
    "priority_queue,max_queue_size=4",
    "quota_with_rollover,rollover_percentage=0.9,max_rollover=7,cumulative=true",
];

/// Fractions of a microsecond, and none; a window, and a day.
const RATES: [&str; 4] = ["5/second", "7/3seconds", "100/minute", "3/day"];

/// Those of a calendar, for whom they have windows.
const CALENDAR: [&str; 4] = ["5/week", "7/month", "5/3months", "3/year"];

const STEPS: usize = 40;

#[test]
fn the_model_decides_as_the_vectors_say() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../vectors");
    let writes = std::env::var("TRAFFIK_WRITE_VECTORS").is_ok();
    for name in NAMES {
        let file = folder.join(format!("{name}.json"));
        if writes {
            let cases: Vec<String> = cases_of(name).iter().map(Value::to_string).collect();
            std::fs::write(&file, format!("[\n{}\n]\n", cases.join(",\n"))).unwrap();
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let cases: Value = serde_json::from_str(&text).unwrap();
        let cases = cases.as_array().unwrap();
        assert!(cases.len() >= RATES.len(), "{name}");
        cases.iter().for_each(check);
    }
}

/// Replays a trace.
fn check(case: &Value) {
    let text = case["strategy"].as_str().unwrap();
    let strategy = named(text).unwrap();
    let rate = Rate::parse(case["rate"].as_str().unwrap()).unwrap();
    assert_eq!(case["limit"], rate.limit());
    assert_eq!(case["period_us"], rate.period_us());
    let mut cell = Cell::fresh();
    for (at, hit) in case["trace"].as_array().unwrap().iter().enumerate() {
        let attributes = attributes(&hit["by"]);
        let decision = strategy.step(
            &mut cell,
            &Hit {
                now: Timestamp::from_micros(hit["now_us"].as_u64().unwrap()),
                rate: &rate,
                cost: u32::try_from(hit["cost"].as_u64().unwrap()).unwrap(),
                attributes: &attributes,
            },
        );
        assert_eq!(
            told(&decision),
            hit["decision"],
            "hit {at} of {text} at {rate}"
        );
    }
}

fn cases_of(name: &'static str) -> Vec<Value> {
    let is_of = |text: &&&str| text.split(',').next() == Some(name);
    let plain = match name {
        // Each instance has a name of its own.
        "distributed_fairness" => "distributed_fairness,instance=mars",
        _ => name,
    };
    let texts = std::iter::once(plain).chain(OPTIONS.iter().filter(is_of).copied());
    let cases = texts.flat_map(|text| {
        let calendar = match name {
            "calendar_window" => &CALENDAR[..],
            _ => &[],
        };
        let seeds = RATES.iter().chain(calendar).enumerate();
        seeds.map(move |(seed, rate)| case_of(text, rate, seed as u64))
    });
    cases.collect()
}

/// Hits at once, a moment apart, at the edges of what was promised, much later, and on a clock that
/// steps back a little.
fn case_of(text: &str, rate_text: &str, seed: u64) -> Value {
    let strategy = named(text).unwrap();
    let rate = Rate::parse(rate_text).unwrap();
    strategy.validate(&rate).unwrap();
    let mut random = Random::new(seed);
    let (mut cell, mut wait) = (Cell::fresh(), 0);
    // 2024 began with a whole day, of which ten hours and a bit are over.
    let mut now = ManualClock::default().now().as_micros() + 36_123_456_789;
    let mut trace = Vec::new();
    for _ in 0..STEPS {
        let period = rate.period_us();
        now = match random.below(9) {
            0 => now + 1,
            1 => now + random.below(period / 4),
            2 => now + wait,
            3 => now + u64::saturating_sub(wait, 1),
            4 => cell.expires().as_micros().max(now),
            5 => (now / period + 1) * period,
            6 if random.below(4) == 0 => now - random.below(period / 8),
            7 if random.below(4) == 0 => now + 2 * period + random.below(period),
            _ => now,
        };
        let cost =
            [1, 1, 1, 1, 2, 3, 0, rate.limit() + 1][usize::try_from(random.below(8)).unwrap()];
        let by = askers()[usize::try_from(random.below(3)).unwrap()].clone();
        let hit = Hit {
            now: Timestamp::from_micros(now),
            rate: &rate,
            cost,
            attributes: &attributes(&by),
        };
        let decision = strategy.step(&mut cell, &hit);
        wait = u64::try_from(decision.wait().as_micros()).unwrap();
        trace.push(json!({"now_us": now, "cost": cost, "by": by, "decision": told(&decision)}));
    }
    json!({
        "strategy": text,
        "rate": rate_text,
        "limit": rate.limit(),
        "period_us": rate.period_us(),
        "trace": trace,
    })
}

fn askers() -> [Value; 3] {
    [
        json!({}),
        json!({"tier": "free", "priority": "low", "region": "us-east", "instance": "mars"}),
        json!({"tier": "gold", "priority": "critical", "region": "eu-west", "instance": "venus"}),
    ]
}

fn attributes(by: &Value) -> Attributes {
    let text = |what: &str| by[what].as_str().map(|text| Cow::Owned(text.to_owned()));
    Attributes {
        tier: text("tier"),
        priority: match by["priority"].as_str() {
            Some("low") => Some(Priority::Low),
            Some("critical") => Some(Priority::Critical),
            _ => None,
        },
        region: text("region"),
        instance: text("instance"),
    }
}

fn told(decision: &Decision) -> Value {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap();
    json!({
        "verdict": match decision.verdict() {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::Never => "never",
        },
        "limit": decision.limit(),
        "remaining": decision.remaining(),
        "wait_us": micros(decision.wait()),
        "reset_us": micros(decision.reset()),
    })
}
