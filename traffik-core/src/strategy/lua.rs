//! Steps in the language of Redis.

use smallvec::SmallVec;

use super::{
    adaptive, calendar_window, cost_based, gcra, leaky_bucket_with_queue, log, quota_with_rollover,
    schedule, shares, sliding_window_counter, time_of_day, window,
};
use crate::cell::Cell;

/// A strategy's step as Lua, and its arguments for one hit.
///
/// The script need not compute the decision. It only says whether the hit is admitted and what the
/// cell becomes; [`Strategy::step`](super::Strategy::step) then makes the decision from the cell
/// and the time that Redis saw, so that it is the same on every backend. If the two ever disagree
/// about admission, the hit is an error.
///
/// # The script
///
/// It is a piece of Lua 5.1 in which these are in scope:
///
/// * `now`: the time in µs;
/// * `words(n)`: the words of the cell, or nothing if it is missing or has not exactly `n`;
/// * `unpack(format, arguments)`: the arguments, one `I8` each: `'>I8I8'` for two;
/// * `take(expires, word, ...)`: admits the hit, charging the cell, which is kept until `expires`
///   in µs. A script that does not call it denies.
///
/// Numbers are doubles: below 2^53 sums and differences are exact, products may not be. The
/// script must not `return`, write keys itself or depend on anything else.
///
/// ```
/// use traffik_core::strategy::Lua;
///
/// const ONE_PER_PERIOD: &str = "
///     local period = unpack('>I8', arguments)
///     if now >= (words(1) or 0) then
///       take(now + period, now + period)
///     end
/// ";
/// let lua = Lua::new(ONE_PER_PERIOD, &[60_000_000]);
/// assert_eq!(lua.arguments(), [60_000_000]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lua {
    source: &'static str,
    arguments: SmallVec<[u64; 7]>,
    is_lenient: bool,
}

impl Lua {
    /// A script and its arguments, each below 2^53.
    pub fn new(source: &'static str, arguments: &[u64]) -> Lua {
        debug_assert!(arguments.iter().all(|word| *word < Cell::WORD_LIMIT));
        Lua {
            source,
            arguments: SmallVec::from_slice(arguments),
            is_lenient: false,
        }
    }

    /// The same arguments for another script.
    pub(super) fn of(mut self, source: &'static str) -> Lua {
        self.source = source;
        self
    }

    /// The same with one more argument.
    pub(super) fn and(mut self, argument: u64) -> Lua {
        debug_assert!(argument < Cell::WORD_LIMIT);
        self.arguments.push(argument);
        self
    }

    /// The same, admitting whatever the script says: what that denies is not charged, and stops no other.
    pub(super) fn lenient(mut self) -> Lua {
        self.is_lenient = true;
        self
    }

    #[cfg(feature = "redis")]
    pub(crate) fn is_lenient(&self) -> bool {
        self.is_lenient
    }

    /// The script.
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// The arguments.
    pub fn arguments(&self) -> &[u64] {
        &self.arguments
    }
}

/// The steps of this crate; Redis gets them all as one script, so that it is loaded once.
#[cfg_attr(not(feature = "redis"), expect(dead_code))]
pub(crate) const BUILT_IN: [&str; 10] = [
    window::LUA,
    schedule::PREPAID_LUA,
    gcra::LUA,
    sliding_window_counter::LUA,
    quota_with_rollover::LUA,
    adaptive::LUA,
    shares::LUA,
    cost_based::LUA,
    time_of_day::LUA,
    calendar_window::LUA,
];

/// Those of them that read and write their cells themselves, because these may be large.
#[cfg_attr(not(feature = "redis"), expect(dead_code))]
pub(crate) const IN_PLACE: [&str; 2] = [log::WINDOW_LUA, leaky_bucket_with_queue::LUA];

/// What is done with cells beside steps: in a script of its own, with the steps, lest whoever only
/// steps sends twice as much to a Redis that does not know it yet.
#[cfg_attr(not(feature = "redis"), expect(dead_code))]
pub(crate) const BESIDE: [&str; 14] = [
    window::SETTLE_LUA,
    schedule::SETTLE_LUA,
    sliding_window_counter::SETTLE_LUA,
    quota_with_rollover::SETTLE_LUA,
    adaptive::SETTLE_LUA,
    shares::SETTLE_LUA,
    cost_based::SETTLE_LUA,
    time_of_day::SETTLE_LUA,
    calendar_window::SETTLE_LUA,
    window::LEND_LUA,
    schedule::LEND_LUA,
    quota_with_rollover::LEND_LUA,
    time_of_day::LEND_LUA,
    calendar_window::LEND_LUA,
];

/// The same for those in place.
#[cfg_attr(not(feature = "redis"), expect(dead_code))]
pub(crate) const BESIDE_IN_PLACE: [&str; 2] =
    [log::SETTLE_LUA, leaky_bucket_with_queue::SETTLE_LUA];
