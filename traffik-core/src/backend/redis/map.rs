//! Which node of a cluster has a key, for breakers.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::key::{Key, KeyHasher, halves};

/// Who had which slots when this process last connected. The client follows slots that move
/// meanwhile; here only nodes that fail are to be kept apart, and an old map does that well enough.
#[derive(Debug, Default)]
pub(super) struct Map(RwLock<Vec<Owned>>);

/// Slots in a row, by the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owned {
    last: u16,
    /// Made of the master's address.
    master: u64,
    /// Its own name, or that of the one it took over from.
    node: u64,
}

/// Slots in a row that one master has.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) last: u16,
    pub(super) master: (String, u16),
}

impl Map {
    /// Whoever takes over from a node that is gone has its name: else what failed on that would never be asked again,
    /// and fail for ever.
    pub(super) fn learn(&self, ranges: Vec<Range>) {
        let masters = ranges.into_iter().map(|range| {
            let (host, port) = range.master;
            let digest = KeyHasher::throttle(&["redis node", &host, &port.to_string()]);
            // Zero is for stores that have no shards.
            (range.last, halves(digest).1 | 1)
        });
        let masters: Vec<_> = masters.collect();
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut names = HashMap::new();
        for (last, master) in &masters {
            if names.contains_key(master) {
                continue;
            }
            let same = all.iter().find(|one| one.master == *master);
            let gone = owner(&all, *last).filter(|one| {
                let is_there = masters.iter().any(|(_, master)| *master == one.master);
                !is_there && !names.values().any(|name| *name == one.node)
            });
            let node = same.or(gone).map_or(*master, |one| one.node);
            names.insert(*master, node);
        }
        let owned = masters.into_iter().map(|(last, master)| Owned {
            last,
            master,
            node: names[&master],
        });
        *all = owned.collect();
        all.sort_unstable();
    }

    /// The name of the node that has a key; 0 if none is known.
    pub(super) fn shard_of(&self, key: &Key) -> u64 {
        let ranges = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if ranges.is_empty() {
            return 0;
        }
        owner(&ranges, slot_of(key)).map_or(0, |one| one.node)
    }
}

fn owner(ranges: &[Owned], slot: u16) -> Option<&Owned> {
    ranges.get(ranges.partition_point(|one| one.last < slot))
}

/// The name of the node that has a key, by the bytes of a reply of who has which slots.
#[cfg(feature = "testing")]
pub(crate) fn read_wire(wire: &[u8], key: &Key) -> Option<u64> {
    let reply = redis::parse_redis_value(wire).and_then(redis::Value::extract_error);
    let map = Map::default();
    map.learn(super::cluster::read_ranges(reply.ok()?).ok()?);
    Some(map.shard_of(key))
}

/// The slot of a key is that of what stands in its braces.
/// <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>
fn slot_of(key: &Key) -> u16 {
    let text = key.text();
    let tag = text.as_bytes()[1..].split(|byte| *byte == b'}').next();
    crc16(tag.unwrap_or_default()) % 16_384
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let mut crc = crc ^ u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = match crc & 0x8000 {
                0 => crc << 1,
                _ => crc << 1 ^ 0x1021,
            };
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the specification of clusters has it.
    #[test]
    fn computes_slots_as_redis_does() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b"foo") % 16_384, 12_182);
    }

    #[test]
    fn names_the_node_of_each_slot() {
        let map = Map::default();
        let key = |who| Key {
            throttle: 1,
            scope: 2,
            who,
        };
        assert_eq!(map.shard_of(&key(1)), 0);
        let range = |last, port| Range {
            last,
            master: ("10.0.0.1".into(), port),
        };
        map.learn(vec![range(16_383, 2), range(8_191, 1), range(12_000, 2)]);
        let nodes: Vec<_> = (0..100)
            .map(|who| (slot_of(&key(who)), map.shard_of(&key(who))))
            .collect();
        let first = nodes
            .iter()
            .find(|(slot, _)| *slot < 8_192)
            .expect("one of 100")
            .1;
        for (slot, node) in nodes {
            assert_eq!(node == first, slot < 8_192);
            assert_ne!(node, 0);
        }
    }

    /// What it had failed at was another's afterwards: its breaker stayed open, and its outage was never over.
    #[test]
    fn a_node_that_was_replaced_was_left_in_its_outage() {
        let map = Map::default();
        let learn = |masters: [(u16, u16); 2]| {
            let range = |(last, port)| Range {
                last,
                master: ("10.0.0.1".into(), port),
            };
            map.learn(masters.map(range).into());
            let key = |who| Key {
                throttle: 1,
                scope: 2,
                who,
            };
            let mut keys = (0..).map(key);
            let first = keys.find(|key| slot_of(key) < 4_096).expect("one");
            let last = keys.find(|key| slot_of(key) > 12_288).expect("one");
            [first, last].map(|key| map.shard_of(&key))
        };
        let [one, two] = learn([(8_191, 1), (16_383, 2)]);
        assert_ne!(one, two);
        // A replica takes over, is found again with other slots, and gives way.
        assert_eq!(learn([(8_191, 1), (16_383, 3)]), [one, two]);
        assert_eq!(learn([(8_191, 3), (16_383, 1)]), [two, one]);
        assert_eq!(learn([(8_191, 2), (16_383, 1)]), [two, one]);
        // Of two in place of one, one has its name.
        assert_eq!(learn([(8_191, 4), (16_383, 4)]), [two, two]);
        let [first, second] = learn([(8_191, 5), (16_383, 6)]);
        assert_eq!(first, two);
        assert!(![one, two].contains(&second));
    }
}
