/// How much is asked for lately: the sum over about half a second, where what is longer ago counts
/// for less.
///
/// Kept in slices of 2^16 µs, so that a hit costs an addition, and no division.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    /// The number of the slice at hand.
    slice: u64,
    /// What was asked for in it.
    count: u64,
    /// The sum over the slices before, each of which counts for an eighth less than the next, in
    /// units of 1/256.
    before: u64,
}

impl Demand {
    const SLICE_BITS: u32 = 16;
    /// What the weights of all slices add up to.
    const SLICES: u64 = 8;
    const UNIT: u64 = 256;
    /// After so many slices nothing is left of one.
    const MEMORY: u64 = 128;
    /// Beyond all that fits into a limit.
    const MOST: u64 = 1 << 40;

    #[inline]
    pub(super) fn add(&mut self, now_us: u64, cost: u32) {
        let slice = now_us >> Self::SLICE_BITS;
        if slice != self.slice {
            self.turn(slice);
        }
        self.count = (self.count + u64::from(cost)).min(Self::MOST);
    }

    /// A hit just now took nothing after all.
    pub(super) fn take_off(&mut self, cost: u64) {
        self.count = self.count.saturating_sub(cost);
    }

    #[cold]
    fn turn(&mut self, slice: u64) {
        let slices = slice.saturating_sub(self.slice).min(Self::MEMORY);
        for _ in 0..slices {
            if self.before + self.count == 0 {
                break;
            }
            self.before -= self.before.div_ceil(Self::SLICES);
            self.before = (self.before + self.count * Self::UNIT).min(Self::MOST * Self::UNIT);
            self.count = 0;
        }
        self.slice = slice;
    }

    /// How much is to be expected within a time.
    pub(super) fn over(mut self, now_us: u64, span_us: u64) -> u64 {
        self.turn((now_us >> Self::SLICE_BITS).max(self.slice));
        let into = now_us & ((1 << Self::SLICE_BITS) - 1);
        // Of the weight that a slice loses, as much as has passed of the one at hand.
        let fading = u128::from(self.before / Self::SLICES) * u128::from(into);
        let faded = fading >> Self::SLICE_BITS;
        let sum = u128::from(self.before) - faded + u128::from(self.count * Self::UNIT);
        let expected = (sum * u128::from(span_us)) >> Self::SLICE_BITS;
        let expected = expected / u128::from(Self::SLICES * Self::UNIT);
        u64::try_from(expected).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a second of even demand, at the first hit, and after a pause.
    #[test]
    fn tells_what_to_expect() {
        for per_second in [4_u64, 40, 1_000, 100_000] {
            let mut demand = Demand::default();
            let start = 1_704_067_200_000_000_u64;
            for hit in 0..3 * per_second {
                demand.add(start + hit * 1_000_000 / per_second, 1);
            }
            let end = start + 3_000_000;
            let expected = demand.over(end, 1_000_000);
            let (low, high) = (per_second * 9 / 10, per_second * 11 / 10 + 1);
            assert!((low..=high).contains(&expected), "{per_second}: {expected}");
            assert!(demand.over(end + 500_000, 1_000_000) < per_second / 2 + 1);
            assert_eq!(demand.over(end + 10_000_000, 1_000_000), 0);
        }
    }

    #[test]
    fn a_burst_counts_at_once_and_a_clock_that_stands_or_steps_back_harms_nothing() {
        let mut demand = Demand::default();
        demand.add(5_000_000_000, 12);
        assert_eq!(demand.over(5_000_000_000, 250_000), 5);
        demand.add(4_000_000_000, 12);
        assert!(demand.over(4_000_000_000, 250_000) >= 11);
        for _ in 0..9 {
            demand.add(u64::MAX, u32::MAX);
        }
        assert!(demand.over(u64::MAX, u64::MAX) > 0);
    }
}
