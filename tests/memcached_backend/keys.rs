//! What reaches the server.

use std::path::PathBuf;
use std::process::{Child, Command};

use super::{admitted, throttle};
use crate::support::MemcachedServer;
use traffik_core::{FixedWindow, Gcra, Identity, MemcachedBackend, TokenBucket};

fn is_ours(key: &str) -> bool {
    let hex = key
        .strip_prefix("tfk1:")
        .or_else(|| key.strip_prefix("tfkg:"));
    hex.is_some_and(|hex| hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Issue: SPEC 3.25. A long path or a space was an error, or a command.
#[tokio::test]
async fn nothing_a_client_says_is_a_command() {
    let server = MemcachedServer::start();
    server.set("foreign", "7");
    let evil = [
        " ".to_owned(),
        "a b 0 0 1".to_owned(),
        "x\r\nflush_all\r\n".to_owned(),
        "\r\n".to_owned(),
        "\0".to_owned(),
        "🦀\u{202e}".to_owned(),
        "x".repeat(300),
        "y".repeat(100_000),
        "tfk1:00000000000000000000000000000000".to_owned(),
    ];
    // Longer ones are refused.
    let namespaces = evil.iter().filter(|name| name.len() <= 128);
    let namespaces: Vec<_> = namespaces.cloned().chain(["x".repeat(128)]).collect();
    for name in &namespaces {
        let backend = server.builder().namespace(name).build().unwrap();
        let window = throttle(&backend, "2/day", FixedWindow);
        let bucket = throttle(&backend, "2/day", TokenBucket::new());
        for text in &evil {
            let who = Identity::of(text);
            assert_eq!(admitted(&window, &who, 3).await.unwrap(), 2, "{text:?}");
            assert_eq!(admitted(&bucket, &who, 3).await.unwrap(), 2, "{text:?}");
        }
    }
    assert_eq!(server.get("foreign").unwrap(), "7");
    let keys = server.keys();
    assert_eq!(keys.len(), 1 + namespaces.len() * (1 + 2 * evil.len()));
    assert!(
        keys.keys().all(|key| key == "foreign" || is_ours(key)),
        "{keys:?}"
    );
}

/// Issue: SPEC 3.24. "2/31days" never throttled.
#[tokio::test]
async fn cells_live_as_long_as_they_matter_and_a_minute_longer() {
    let server = MemcachedServer::start();
    let day = 86_400;
    for (rate, lives) in [
        ("1/s", 1),
        ("1/1500ms", 2),
        ("1/29d", 29 * day),
        ("1/40d", 40 * day),
    ] {
        let backend = server.builder().namespace(rate).build().unwrap();
        let before = server.keys();
        let smooth = throttle(&backend, rate, Gcra::new());
        assert_eq!(admitted(&smooth, &super::ann(), 2).await.unwrap(), 1);
        let now = i64::try_from(unix_now()).unwrap();
        let expires = server
            .keys()
            .into_iter()
            .find(|(key, _)| key.starts_with("tfk1:") && !before.contains_key(key))
            .expect("a new key")
            .1;
        assert!(
            (lives..=lives + 62).contains(&(expires - now)),
            "{rate}: {}",
            expires - now
        );
    }
}

/// Issue: SPEC 3.46. A corrupt state was an error for as long as it lived.
#[tokio::test]
async fn a_corrupt_value_decides_like_a_fresh_one_and_is_repaired() {
    let server = MemcachedServer::start();
    let backend = server.backend();
    let window = throttle(&backend, "2/day", FixedWindow);
    let bucket = throttle(&backend, "2/day", TokenBucket::new());
    for garbage in [
        "",
        "x",
        "12 34",
        "99999999999999999999999",
        "1;2;3;4;5",
        "-5",
        "0",
        "\u{fffd}",
    ] {
        for throttle in [&window, &bucket] {
            assert!(admitted(throttle, &super::ann(), 1).await.unwrap() <= 1);
            for key in server.keys().keys().filter(|key| key.starts_with("tfk1:")) {
                server.set(key, garbage);
            }
            assert_eq!(
                admitted(throttle, &super::ann(), 3).await.unwrap(),
                2,
                "{garbage:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_socket_will_do() {
    let path = std::env::temp_dir().join(format!("traffik-{}.sock", std::process::id()));
    let memcached = Command::new("memcached")
        .args(["-u", "root", "-s"])
        .arg(&path)
        .spawn()
        .unwrap();
    let _ends = Socket(memcached, path.clone());
    super::eventually("it listens", async || path.exists()).await;
    let backend = MemcachedBackend::new(&format!("memcache+unix://{}", path.display())).unwrap();
    super::eventually("it is ready", async || backend.ready().await.is_ok()).await;
    let window = throttle(&backend, "2/day", FixedWindow);
    assert_eq!(admitted(&window, &super::ann(), 3).await.unwrap(), 2);
}

/// A server without a port. It ends with the test.
struct Socket(Child, PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file(&self.1);
    }
}

fn unix_now() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
