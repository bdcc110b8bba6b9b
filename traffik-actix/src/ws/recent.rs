//! What a connection took lately.

use smallvec::SmallVec;
use traffik_core::Timestamp;

/// How many rooms of a rule are remembered at a time: clients may invent them.
const ROOMS: usize = 64;

/// What a connection took by one rule, in each of its rooms, or without one.
#[derive(Debug, Default)]
pub(super) struct Recents(SmallVec<[(Option<Box<str>>, Recent); 1]>);

/// What was taken in a window, and in the one before it: all of the last window, and little more.
#[derive(Clone, Copy, Debug)]
struct Recent {
    since: Timestamp,
    now: u32,
    before: u32,
}

impl Recents {
    /// Takes note of a hit.
    pub(super) fn add(&mut self, room: Option<&str>, cost: u32, at: Timestamp, window_us: u64) {
        let known = self.0.iter().position(|(name, _)| name.as_deref() == room);
        let known = known.unwrap_or_else(|| self.begin(room, at));
        let recent = &mut self.0[known].1;
        recent.turn(at, window_us);
        recent.now = recent.now.saturating_add(cost);
    }

    /// What was taken in a room within the last window.
    pub(super) fn taken(&self, room: Option<&str>, at: Timestamp, window_us: u64) -> u32 {
        let known = self.0.iter().find(|(name, _)| name.as_deref() == room);
        known.map_or(0, |(_, recent)| {
            let mut recent = *recent;
            recent.turn(at, window_us);
            recent.now.saturating_add(recent.before)
        })
    }

    /// Where something was taken.
    pub(super) fn rooms(&self) -> Vec<Option<Box<str>>> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Its place. If there are too many, the one that was begun first is forgotten.
    fn begin(&mut self, room: Option<&str>, at: Timestamp) -> usize {
        if self.0.len() >= ROOMS {
            let oldest = (0..self.0.len()).min_by_key(|place| self.0[*place].1.since);
            oldest.map(|place| self.0.swap_remove(place));
        }
        let fresh = Recent {
            since: at,
            now: 0,
            before: 0,
        };
        self.0.push((room.map(Into::into), fresh));
        self.0.len() - 1
    }
}

impl Recent {
    /// Forgets what is older than a window.
    fn turn(&mut self, at: Timestamp, window_us: u64) {
        let age = at.micros_since(self.since);
        if age < window_us {
            return;
        }
        self.before = match age < window_us.saturating_mul(2) {
            true => self.now,
            false => 0,
        };
        self.now = 0;
        self.since = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn nothing_of_the_last_window_is_forgotten_and_all_that_is_older_than_three() {
        let hits: Vec<u64> = (0..500).map(|n| n * n % 977 + 3 * n).collect();
        let mut times = hits.clone();
        times.sort_unstable();
        let mut recents = Recents::default();
        for (seen, now) in times.iter().enumerate() {
            recents.add(None, 1, at(*now), 100);
            let within = |age: u64| {
                let seen = times[..=seen].iter().filter(|hit| **hit + age > *now);
                u32::try_from(seen.count()).unwrap()
            };
            let taken = recents.taken(None, at(*now), 100);
            assert!(
                within(100) <= taken && taken <= within(300),
                "{now}: {taken}"
            );
        }
        assert_eq!(recents.taken(None, at(10_000), 100), 0);
    }

    #[test]
    fn rooms_are_bounded() {
        let mut recents = Recents::default();
        for room in 0..10_000_u32 {
            recents.add(Some(&room.to_string()), 1, at(room.into()), 1_000_000);
        }
        assert_eq!(recents.rooms().len(), ROOMS);
        assert_eq!(recents.taken(Some("9999"), at(10_000), 1_000_000), 1);
        assert_eq!(recents.taken(Some("0"), at(10_000), 1_000_000), 0);
    }
}
