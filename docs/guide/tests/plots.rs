//! Plots are what the library decides today.

/// A change of a strategy that nobody noticed would show here; one that was meant is drawn by
/// `cargo run -p traffik-guide`.
#[test]
fn plots_are_what_the_strategies_decide_today() {
    for (path, svg) in traffik_guide::plots::all() {
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == svg,
            "{}: run `cargo run -p traffik-guide`",
            path.display()
        );
    }
}
