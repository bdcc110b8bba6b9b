//! The one bounded retry loop of backends that compare and set.

use std::time::Duration;

use crate::error::{Error, Result};

/// How often a backend may try to write what it decided before it gives up.
///
/// ```text
/// let mut attempts = Attempts::default();
/// loop {
///     if let Some(decisions) = self.try_once()? {
///         return Ok(decisions);
///     }
///     sleep(attempts.again()?);
/// }
/// ```
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    failed: u32,
}

impl Attempts {
    /// Of *n* writers of one key at least one succeeds in every round, so this many rounds serve
    /// as many writers; more of them at once than this is a flood that had better be shed.
    const MOST: u32 = 64;

    /// After a failed attempt: how long to pause before the next one, so that those who collided
    /// do not collide again.
    ///
    /// # Errors
    ///
    /// If there were enough attempts; see [`Error::is_contended`].
    pub(crate) fn again(&mut self) -> Result<Duration> {
        self.failed += 1;
        if self.failed >= Self::MOST {
            return Err(Error::contended(format!(
                "{} attempts to write a key each met another writer",
                Self::MOST
            )));
        }
        // The first collision is usually the only one: do not pause at all.
        let longest = match self.failed {
            1 => return Ok(Duration::ZERO),
            failed => 100_u64 << failed.min(7),
        };
        Ok(Duration::from_micros(random() % longest))
    }
}

/// Enough randomness to scatter pauses.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_up_in_the_end_and_pauses_briefly_until_then() {
        let mut attempts = Attempts::default();
        let mut total = Duration::ZERO;
        let error = loop {
            match attempts.again() {
                Ok(pause) => total += pause,
                Err(error) => break error,
            }
        };
        assert!(error.is_contended() && error.is_unexecuted());
        assert!(total < Duration::from_secs(1), "{total:?}");
    }
}
