//! What is wrong with a setting is said when the backend is built, and what would be right.

use std::time::Duration;

use traffik_core::backend::RedisBackendBuilder;
use traffik_core::{Error, RedisBackend};

const URL: &str = "redis://127.0.0.1:1";

fn error(builder: RedisBackendBuilder) -> Error {
    let error = builder.build().unwrap_err();
    assert!(error.is_invalid(), "{error:?}");
    error
}

#[test]
fn bad_ones_are_named() {
    let on = || RedisBackend::builder(URL);
    for (builder, complaint) in [
        (
            on().namespace(""),
            r#"letters, digits and `-_.:`, such as `shop`, unlike """#,
        ),
        (on().namespace("a b"), r#"unlike "a b""#),
        (on().namespace("{shop}"), r#"unlike "{shop}""#),
        (on().namespace("\u{e9}"), "unlike"),
        (on().namespace("shop*"), r#"unlike "shop*""#),
        (
            on().deadline(Duration::ZERO),
            "must be 1ms at least, such as 50ms, not 0ns",
        ),
        (on().deadline(Duration::from_micros(999)), "not 999µs"),
        (
            on().secret(""),
            "the secret that identities are hashed under is empty",
        ),
        (
            RedisBackend::cluster([]),
            "at least one node of the redis cluster",
        ),
        (
            RedisBackend::cluster([URL, "http://b"]),
            "must look like `redis://",
        ),
        (
            RedisBackend::sentinel([], "redis://shop"),
            "at least one sentinel",
        ),
        (
            RedisBackend::sentinel(["shop"], "redis://shop"),
            "must look like `redis://",
        ),
        (
            RedisBackend::sentinel([URL], "shop"),
            "must look like `redis://",
        ),
        (
            RedisBackend::sentinel([URL], "unix:///a"),
            "its name in place of the host",
        ),
    ] {
        let error = error(builder);
        assert!(error.to_string().contains(complaint), "{error}");
    }
    for url in [
        "",
        "127.0.0.1:6379",
        "http://127.0.0.1",
        "redis://127.0.0.1:port",
        "redis://127.0.0.1:99999",
        "redis://127.0.0.1/zero",
        "redis://127.0.0.1/-1",
        "redis+unix://",
    ] {
        let Err(error) = RedisBackend::at(url) else {
            panic!("{url:?} is taken");
        };
        let text = error.to_string();
        assert!(
            text.contains("`redis://user:password@host:6379/0`"),
            "{url}: {text}"
        );
    }
}

#[test]
fn good_ones_are_taken_without_a_server() {
    let on = || RedisBackend::builder(URL);
    for builder in [
        on().namespace("shop-1_a.b:c"),
        on().deadline(Duration::from_millis(1)),
        on().deadline(Duration::MAX),
        on().secret("sesame"),
        on().deny_cache(0).heal(0),
        on().deny_cache(usize::MAX).heal(usize::MAX),
        RedisBackend::builder("redis://user:p%40ss@[::1]:6379/15"),
        RedisBackend::builder("rediss://redis.example"),
        RedisBackend::builder("valkey://localhost"),
        RedisBackend::builder("redis+unix:///run/redis.sock?db=1&pass=a"),
    ] {
        builder.build().unwrap();
    }
}
