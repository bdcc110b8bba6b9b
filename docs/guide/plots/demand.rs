//! A client that always wants twice as much as it may have.

use super::run::Run;
use super::svg::{Axis, Svg};

const RATE: &str = "60/minute";
const UNTIL: u64 = 180_000;
const STRATEGIES: [(&str, &str); 4] = [
    ("fixed_window", "line a"),
    ("sliding_window_log", "line b"),
    ("token_bucket,burst=20", "line c"),
    ("gcra", "line d"),
];

const AXIS: Axis = Axis {
    left: 44,
    width: 690,
    until: UNTIL,
};
const TOP: u64 = 60;
const BOTTOM: u64 = 340;
const MOST: u64 = 240;

fn y(admitted: u64) -> u64 {
    BOTTOM - admitted * (BOTTOM - TOP) / MOST
}

/// How many have been admitted so far.
pub(super) fn admitted() -> String {
    let title = "Admitted so far at 60/minute, of a client that asks twice a second";
    let mut svg = Svg::new(760, BOTTOM + 24, title);
    svg.text("", 20, 18, title);
    AXIS.draw(&mut svg, TOP, BOTTOM, 30_000);
    for most in (0..=MOST).step_by(60) {
        svg.line(
            "grid",
            (AXIS.left, y(most)),
            (AXIS.left + AXIS.width, y(most)),
        );
        svg.text("small", 14, y(most) + 4, &most.to_string());
    }
    let trace: Vec<u64> = (20_000..UNTIL).step_by(500).collect();
    for ((strategy, class), at) in STRATEGIES.iter().zip(0..) {
        let (mut sum, mut points) = (0, vec![(AXIS.x(0), y(0))]);
        for answer in Run::new(strategy, RATE).hit_at(&trace) {
            let x = AXIS.x(answer.at);
            points.push((x, y(sum)));
            sum += u64::from(answer.decision.is_allowed());
            points.push((x, y(sum)));
        }
        svg.path(class, points);
        let x = 44 + at * 180;
        svg.line(class, (x, 40), (x + 24, 40));
        svg.text("small", x + 30, 44, &strategy.replace(',', ", "));
    }
    svg.finish()
}
