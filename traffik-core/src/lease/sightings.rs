use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often keys were asked for lately: a count for many, so that one that is asked for once in a
/// while costs neither memory nor a search for room.
///
/// A count tells the slice of time it is of. Keys that share one are taken for one: then a key is watched
/// that need not be. Of two threads at once one may count for both: then it is watched a hit later.
pub(super) struct Sightings {
    counts: Box<[AtomicU32]>,
    slice_bits: u32,
}

impl Sightings {
    /// So often within a slice a key is asked for that is worth watching. A key that is hot is
    /// asked for twice as often, see [`Holding::LEAST`](super::holding::Holding::LEAST).
    pub(super) const FEW: u32 = 3;
    /// Below the number of the slice.
    const COUNT_BITS: u32 = 8;
    const MOST: u32 = (1 << Self::COUNT_BITS) - 1;

    /// For about so many keys, in slices of about a period.
    pub(super) fn new(max_keys: usize, period_us: u64) -> Sightings {
        let counts = max_keys.clamp(1 << 6, 1 << 20).next_power_of_two();
        Sightings {
            counts: (0..counts).map(|_| AtomicU32::new(0)).collect(),
            // A sixteenth of a second at least, of which more is not to be told.
            slice_bits: period_us.max(1 << 16).ilog2(),
        }
    }

    /// Takes note of a hit. Returns how many there were in the slice at hand.
    #[inline]
    pub(super) fn see(&self, digest: u128, now_us: u64) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
        let (at, slice) = (digest as usize, (now_us >> self.slice_bits) as u32);
        let count = &self.counts[at & (self.counts.len() - 1)];
        let begun = slice << Self::COUNT_BITS;
        let before = count.load(Ordering::Relaxed);
        let seen = match before & !Self::MOST == begun {
            true => (before & Self::MOST).min(Self::MOST - 1) + 1,
            false => 1,
        };
        count.store(begun | seen, Ordering::Relaxed);
        seen
    }
}

impl fmt::Debug for Sightings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.len();
        f.debug_struct("Sightings")
            .field("counts", &counts)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_within_a_slice_and_begins_anew_with_the_next() {
        let sightings = Sightings::new(1_000, 250_000);
        let start = 1_704_067_200_000_000_u64 >> 17 << 17;
        for slice in 0..3_u64 {
            for hit in 1..=300 {
                let now_us = start + (slice << 17) + u64::from(hit);
                assert_eq!(sightings.see(7, now_us), hit.min(Sightings::MOST));
            }
            assert_eq!(sightings.see(8, start + (slice << 17)), 1);
        }
        assert_eq!(sightings.see(7, u64::MAX), 1);
        assert_eq!(sightings.see(7, 0), 1);
    }

    /// Whoever is hot has been seen often enough in any slice.
    #[test]
    fn what_is_worth_a_lease_is_worth_watching() {
        for period_us in [10_000_u64, 100_000, 250_000, 1_000_000, 60_000_000] {
            let sightings = Sightings::new(1_000, period_us);
            let least = super::super::holding::Holding::LEAST;
            let slice_us = 1_u64 << sightings.slice_bits;
            assert!(slice_us * least / period_us >= u64::from(Sightings::FEW));
        }
    }
}
