//! Forgetting every cell of a namespace, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, RedisResult, Value};

use super::failure::not_connected;
use super::link::{Connect, Wire};
use crate::error::{Error, Result};

/// How long one step may take. A reset is rare and waits longer than a decision.
const STEP: Duration = Duration::from_secs(5);

pub(super) async fn reset(connect: &Arc<dyn Connect>, namespace: &str) -> Result<()> {
    unlink_all(connect, &pattern(namespace), |key| is_cell(key, namespace)).await
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
        Ok(done) => done.map_err(|error| not_connected(Arc::new(error))),
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
        wire.req_packed_commands(&unlink, 0, count).await?;
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
