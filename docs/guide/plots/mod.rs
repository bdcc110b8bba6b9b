//! What strategies admit, drawn by themselves: a trace of requests is decided by the library on a clock
//! that is moved by hand, and the decisions become pictures.

mod burst;
mod demand;
mod outage;
#[allow(dead_code, reason = "the playground counts trips, too")]
#[path = "../../../examples/playground/remote.rs"]
mod remote;
mod run;
mod svg;

use std::path::{Path, PathBuf};

/// The folder of the pages.
fn pages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pages")
}

/// Every plot: the file it belongs into, and what should be in there.
///
/// # Panics
///
/// If a strategy cannot be built, which the tests would tell.
pub fn all() -> Vec<(PathBuf, String)> {
    let plots = [
        ("burst.svg", burst::admitted()),
        ("remaining.svg", burst::remaining()),
        ("demand.svg", demand::admitted()),
        ("waits.svg", burst::waits()),
        ("outage.svg", outage::admitted()),
    ];
    plots
        .into_iter()
        .map(|(name, svg)| (pages().join("plots").join(name), svg))
        .collect()
}
