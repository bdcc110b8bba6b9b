//! Forgetting every cell of a namespace, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, RedisResult, Value};

use super::failure::explain;
use super::link::{Connect, Wire};
use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// How long one step may take. A reset is rare and waits longer than a decision.
const STEP: Duration = Duration::from_secs(5);

/// How long a reset is remembered: for longer than a hint is heeded, see `decide.lua`.
const REMEMBERED: Duration = Duration::from_secs(2 * 3_600);

/// `clock` is the one that decides, if it is not the server's.
pub(super) async fn reset(
    connect: &Arc<dyn Connect>,
    namespace: &str,
    clock: impl Fn() -> Option<Timestamp>,
) -> Result<()> {
    // Nobody has hints for a cluster.
    let heals = !connect.has_slots();
    if heals {
        if clock().is_none() {
            // What cannot be done in the end had better not be begun.
            for mut wire in in_time(connect.connect_all()).await? {
                in_time(time(&mut *wire)).await?;
            }
        }
        // Of all cells that are seen until all are gone. If the reset fails, losses are not healed
        // for a while.
        let distant = Timestamp::from_micros(Cell::WORD_LIMIT - 1);
        mark_as_reset(connect, namespace, || Some(distant)).await?;
    }
    unlink_all(connect, &pattern(namespace), |key| is_cell(key, namespace)).await?;
    if heals {
        mark_as_reset(connect, namespace, clock).await?;
    }
    Ok(())
}

/// Hints from before this are not heeded any more.
async fn mark_as_reset(
    connect: &Arc<dyn Connect>,
    namespace: &str,
    clock: impl Fn() -> Option<Timestamp>,
) -> Result<()> {
    for mut wire in in_time(connect.connect_all()).await? {
        let now = match clock() {
            Some(now) => now,
            None => in_time(time(&mut *wire)).await?,
        };
        let mut set = redis::cmd("SET");
        set.arg(mark(namespace))
            .arg(now.as_micros())
            .arg("EX")
            .arg(REMEMBERED.as_secs());
        let set = async { wire.req_packed_command(&set).await?.extract_error() };
        in_time(set).await?;
    }
    Ok(())
}

/// What comes after the namespace in the key that tells when its cells were last reset.
pub(super) const MARK: &[u8] = b":reset";

fn mark(namespace: &str) -> Vec<u8> {
    [namespace.as_bytes(), MARK].concat()
}

async fn time(wire: &mut dyn Wire) -> RedisResult<Timestamp> {
    let reply = wire
        .req_packed_command(&redis::cmd("TIME"))
        .await
        .and_then(Value::extract_error)?;
    read_time(reply)
}

fn read_time(reply: Value) -> RedisResult<Timestamp> {
    let (seconds, micros): (u64, u64) = redis::from_redis_value(reply)?;
    Ok(Timestamp::EPOCH
        .plus_micros(seconds.saturating_mul(1_000_000))
        .plus_micros(micros))
}

/// The time, from the bytes of a reply.
#[cfg(feature = "testing")]
pub(crate) fn read_wire(wire: &[u8]) -> Option<Timestamp> {
    let reply = redis::parse_redis_value(wire).and_then(Value::extract_error);
    read_time(reply.ok()?).ok()
}

/// Unlinks the keys that match a pattern of Redis's and are `ours`.
pub(super) async fn unlink_all(
    connect: &Arc<dyn Connect>,
    pattern: &str,
    ours: impl Fn(&[u8]) -> bool,
) -> Result<()> {
    for mut wire in in_time(connect.connect_all()).await? {
        let mut cursor = b"0".to_vec();
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor)
                .arg("MATCH")
                .arg(pattern)
                .arg("COUNT")
                .arg(1000);
            let (next, mut keys) = in_time(page(&mut *wire, &scan)).await?;
            keys.retain(|key| ours(key));
            in_time(unlink(&mut *wire, &keys)).await?;
            if next == b"0" {
                break;
            }
            cursor = next;
        }
    }
    Ok(())
}

async fn in_time<T>(step: impl Future<Output = RedisResult<T>>) -> Result<T> {
    match tokio::time::timeout(STEP, step).await {
        Ok(done) => done.map_err(explain),
        Err(_) => Err(Error::timeout(format!(
            "redis did not take a step of the reset within {STEP:?}"
        ))),
    }
}

async fn page(wire: &mut dyn Wire, scan: &Cmd) -> RedisResult<(Vec<u8>, Vec<Vec<u8>>)> {
    let reply = wire
        .req_packed_command(scan)
        .await
        .and_then(Value::extract_error)?;
    Ok(redis::from_redis_value(reply)?)
}

async fn unlink(wire: &mut dyn Wire, keys: &[Vec<u8>]) -> RedisResult<()> {
    let mut unlink = Pipeline::new();
    for key in keys {
        // One by one: keys of a cluster's node are of different slots.
        unlink.cmd("UNLINK").arg(key);
    }
    let count = unlink.len();
    if count > 0 {
        // Each may be refused on its own: forbidden, or of a slot that is moving to another node.
        for reply in wire.req_packed_commands(&unlink, 0, count).await? {
            reply.extract_error()?;
        }
    }
    Ok(())
}

/// Finds cells and little else. A namespace has no character that is special here.
fn pattern(namespace: &str) -> String {
    format!("{namespace}:{{{}}}*", "?".repeat(32))
}

/// Whether a key is one that [`Key::text`](crate::Key::text) made under this namespace.
fn is_cell(key: &[u8], namespace: &str) -> bool {
    let digests = key
        .strip_prefix(namespace.as_bytes())
        .and_then(|rest| rest.strip_prefix(b":{"))
        .and_then(|rest| rest.split_at_checked(32))
        .and_then(|(who, rest)| Some((who, rest.strip_prefix(b"}")?)));
    let hex = |digits: &[u8]| {
        digits
            .iter()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    };
    digests.is_some_and(|(who, what)| hex(who) && what.len() == 48 && hex(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::key::{Key, KeyHasher};

    #[test]
    fn recognises_cells_of_its_own_namespace_only() {
        let key = Key {
            throttle: KeyHasher::throttle(&["api"]),
            scope: 0,
            who: KeyHasher::shared().identity(&Identity::of("ann")),
        };
        let cell = format!("shop:{key}");
        assert!(is_cell(cell.as_bytes(), "shop"));
        assert!(!is_cell(cell.as_bytes(), "sho"));
        assert!(!is_cell(format!("shop:eu:{key}").as_bytes(), "shop"));
        assert!(!is_cell(format!("{cell}0").as_bytes(), "shop"));
        assert!(!is_cell(cell.replace('}', "x").as_bytes(), "shop"));
        assert!(!is_cell(b"shop:{x}", "shop"));
        assert!(!is_cell(b"shop", "shop"));
    }
}
