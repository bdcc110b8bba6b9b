//! What stores answer, read as backends read it: for `fuzz/`, which is another crate.

#[cfg(feature = "memcached")]
use std::sync::Arc;

#[cfg(any(feature = "memcached", feature = "redis-cluster"))]
use crate::Key;
#[cfg(feature = "memcached")]
use crate::{Attributes, Op, Rate, Strategy};
#[cfg(any(feature = "memcached", feature = "redis"))]
use crate::{Cell, Timestamp};

/// The times and cells that Redis answers batches of so many operations with, as it comes over the wire.
///
/// # Errors
///
/// If it is something else.
#[cfg(feature = "redis")]
pub fn decided(wire: &[u8], batches: &[usize]) -> crate::Result<Vec<(Timestamp, Vec<Cell>)>> {
    crate::backend::redis::read_answers(wire, batches)
}

/// The time that Redis tells, if it does.
#[cfg(feature = "redis")]
pub fn time(wire: &[u8]) -> Option<Timestamp> {
    crate::backend::redis::read_time(wire)
}

/// The name of the node of a cluster that has the key of a client, by what a node says of its slots.
#[cfg(feature = "redis-cluster")]
pub fn slots(wire: &[u8], who: u128) -> Option<u64> {
    crate::backend::redis::read_slots(wire, &key(who))
}

/// The cell that a value in Memcached stands for, as it is stored again, and the expiry of that.
#[cfg(feature = "memcached")]
pub fn value(
    strategy: &Arc<dyn Strategy>,
    rate: Rate,
    value: &[u8],
    now: Timestamp,
) -> (Cell, Vec<u8>, u32) {
    let op = Op {
        key: key(1),
        strategy,
        rate,
        cost: 1,
        attributes: &Attributes::NONE,
    };
    crate::backend::memcached::read_value(&op, value, now)
}

#[cfg(any(feature = "memcached", feature = "redis-cluster"))]
fn key(who: u128) -> Key {
    Key {
        throttle: 1,
        scope: 0,
        who,
    }
}
