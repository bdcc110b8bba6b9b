//! When a map that is full is looked through for what is over.

/// When it was last. Looking through all of it for every newcomer would take longer and longer.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    pub(crate) last_us: u64,
}

impl Sweep {
    /// Whether to look through it now; then not again for a while. Also if the clock has stepped back by more than that:
    /// else it would not be done until the clock is again where it was.
    pub(crate) fn is_due(&mut self, now_us: u64, every_us: u64) -> bool {
        let is_due = now_us.abs_diff(self.last_us) >= every_us;
        if is_due {
            self.last_us = now_us;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_steps_back_put_it_off() {
        let mut sweep = Sweep::default();
        let hour = 3_600_000_000;
        for (now_us, is_due) in [
            (hour, true),
            (hour + 99, false),
            (hour + 100, true),
            (hour + 1, false),
            (100, true),
            (199, false),
            (200, true),
        ] {
            assert_eq!(sweep.is_due(now_us, 100), is_due, "{now_us}");
        }
    }
}
