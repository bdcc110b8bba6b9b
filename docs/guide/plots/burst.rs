//! The same burst against four strategies.

use std::time::Duration;

use super::run::{self, Run};
use super::svg::{Axis, Svg};

const RATE: &str = "10/10s";
const PERIOD: Duration = Duration::from_secs(10);
const LIMIT: u64 = 10;
const UNTIL: u64 = 30_000;
const STRATEGIES: [&str; 4] = [
    "fixed_window",
    "sliding_window_log",
    "token_bucket,burst=5",
    "gcra",
];

const AXIS: Axis = Axis {
    left: 20,
    width: 720,
    until: UNTIL,
};
const LANE: u64 = 78;
const TOP: u64 = 34;

/// A client that asks twelve times before the edge of a window and twelve times after it, as fast as six
/// times a second, and then twice a second.
fn trace() -> Vec<u64> {
    let burst = (0..24).map(|at| 8_000 + at * 170);
    let after = (0..32).map(|at| 13_000 + at * 500);
    burst.chain(after).collect()
}

fn lanes(title: &str, lane: impl Fn(&mut Svg, &str, u64)) -> String {
    let bottom = TOP + LANE * STRATEGIES.len() as u64;
    let mut svg = Svg::new(760, bottom + 24, title);
    svg.text("", AXIS.left, 18, title);
    AXIS.draw(&mut svg, TOP, bottom, 10_000);
    for (strategy, at) in STRATEGIES.iter().zip(0..) {
        lane(&mut svg, strategy, TOP + at * LANE);
    }
    svg.finish()
}

fn name(svg: &mut Svg, strategy: &str, top: u64, says: &str) {
    svg.text(
        "name",
        AXIS.left + 4,
        top + 17,
        &strategy.replace(',', ", "),
    );
    svg.text("small", AXIS.left + 200, top + 17, says);
    svg.line(
        "axis",
        (AXIS.left, top + LANE),
        (AXIS.left + AXIS.width, top + LANE),
    );
}

/// A tall bar for what passes, a short one for what is denied.
pub(super) fn admitted() -> String {
    let trace = trace();
    let title = format!(
        "{} requests at {RATE}: tall and blue pass, short and red are denied",
        trace.len()
    );
    lanes(&title, |svg, strategy, top| {
        let answers = Run::new(strategy, RATE).hit_at(&trace);
        let says = format!(
            "{} admitted, at most {} of them within 10 s",
            run::admitted(&answers),
            run::most_within(&answers, PERIOD)
        );
        name(svg, strategy, top, &says);
        for answer in &answers {
            let (class, height) = match answer.decision.is_allowed() {
                true => ("pass", 46),
                false => ("deny", 14),
            };
            svg.rect(class, AXIS.x(answer.at), top + LANE - height, 3, height);
        }
    })
}

/// What is left at every moment.
pub(super) fn remaining() -> String {
    let title = format!("What is left of {RATE} while the same requests come");
    lanes(&title, |svg, strategy, top| {
        name(svg, strategy, top, "");
        let left = Run::new(strategy, RATE).left_at(&trace(), UNTIL, 50);
        let y = |left: u64| top + LANE - 48 * left / LIMIT;
        let line: Vec<_> = left
            .iter()
            .map(|(at, left)| (AXIS.x(*at), y(*left)))
            .collect();
        let end = [(AXIS.x(UNTIL), top + LANE), (AXIS.left, top + LANE)];
        svg.path("area", line.iter().copied().chain(end));
        svg.path("line a", line);
    })
}

/// How long those that are denied are told to wait.
pub(super) fn waits() -> String {
    let title =
        format!("How long denied requests are told to wait at {RATE}; the full height is 10 s");
    lanes(&title, |svg, strategy, top| {
        let answers = Run::new(strategy, RATE).hit_at(&trace());
        let waits = answers
            .iter()
            .map(|answer| (answer.at, answer.decision.wait()));
        let longest = waits
            .clone()
            .map(|(_, wait)| wait)
            .max()
            .unwrap_or_default();
        name(
            svg,
            strategy,
            top,
            &format!("at most {} ms", longest.as_millis()),
        );
        for (at, wait) in waits.filter(|(_, wait)| !wait.is_zero()) {
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let height = (wait * 48 / 10_000).max(1);
            svg.rect("deny", AXIS.x(at), top + LANE - height, 3, height);
        }
    })
}
