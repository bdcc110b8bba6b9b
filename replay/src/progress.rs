//! How far it is, for those who wait.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A bar on a terminal's standard error; nothing elsewhere.
pub(crate) struct Progress {
    total: u64,
    done: Arc<AtomicU64>,
    lines: u64,
    began: Instant,
    shown: Instant,
    is_seen: bool,
}

/// So many lines are read between two looks at the time.
const LINES: u64 = 10_000;

impl Progress {
    /// Of so many bytes, of which so many are done; none if that is not known.
    pub(crate) fn new(total: u64, done: Arc<AtomicU64>) -> Progress {
        Progress {
            total,
            done,
            lines: 0,
            began: Instant::now(),
            shown: Instant::now(),
            is_seen: stderr().is_terminal(),
        }
    }

    /// A line was read.
    pub(crate) fn step(&mut self) {
        self.lines += 1;
        if self.is_seen
            && self.lines.is_multiple_of(LINES)
            && self.shown.elapsed() > Duration::from_millis(100)
        {
            self.shown = Instant::now();
            let bar = bar(self.done.load(Ordering::Relaxed), self.total, 30);
            let speed = self.lines
                / u64::try_from(self.began.elapsed().as_millis())
                    .unwrap_or(1)
                    .max(1);
            let _ = write!(
                stderr(),
                "\r{bar} {} k lines, {speed} k/s ",
                self.lines / 1_000
            );
        }
    }

    /// Nothing is left to be seen of it.
    pub(crate) fn end(&mut self) {
        if self.is_seen {
            let _ = write!(stderr(), "\r{:70}\r", "");
        }
    }
}

fn bar(done: u64, total: u64, width: usize) -> String {
    let parts = u128::from(done) * width as u128 / u128::from(total.max(1));
    let full = usize::try_from(parts).unwrap_or(width).min(width);
    format!("[{}{}]", "#".repeat(full), ".".repeat(width - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_it_should_be() {
        assert_eq!(bar(0, 100, 4), "[....]");
        assert_eq!(bar(50, 100, 4), "[##..]");
        assert_eq!(bar(200, 100, 4), "[####]");
        assert_eq!(bar(u64::MAX, 0, 4), "[####]");
    }
}
