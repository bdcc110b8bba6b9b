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
            on().connect_timeout(Duration::ZERO),
            "the time to connect must be 1ms at least, such as 250ms, not 0ns",
        ),
        (
            on().namespace("n".repeat(129)),
            "a namespace has at most 128 bytes, not 129 as \"nnnn",
        ),
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
        (
            RedisBackend::sentinel([URL], "redis://shop:26379"),
            "has no port, which the sentinels tell",
        ),
        (
            RedisBackend::sentinel(["redis://127.0.0.1:26379/1"], "redis://shop"),
            "sentinels have no databases",
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

/// Each was taken, and refused by the client with every hit, or left out without a word.
#[test]
fn what_cannot_be_done_is_refused_when_it_is_built() {
    for (url, complaint) in [
        ("rediss://h/#insecure", "certificates are always verified"),
        (
            "rediss://u:sesame@h:6379/1#insecure",
            "certificates are always verified",
        ),
        ("valkeys://h/#insecure", "certificates are always verified"),
        ("redis://h/#insecure", "certificates are always verified"),
        (
            "redis://h/#0",
            "has no `#`; in a password it is written `%23`",
        ),
        (
            "redis://h?db=1",
            "database are written `redis://user:password@host:6379/0`",
        ),
        ("redis://h/0?timeout=5s", "times are set on the builder"),
        ("redis://h/?ssl=true", "can only have `protocol=resp3`"),
        ("redis://h/?protocol=resp4", "must look like `redis://"),
        (
            "redis+unix:///a.sock?password=sesame",
            "`?db=0&user=shop&pass=secret`, and nothing else",
        ),
        ("redis+unix:///a.sock?user=shop", "a user and no password"),
        ("redis://shop@h", "a user and no password"),
    ] {
        for builder in [
            RedisBackend::builder(url),
            RedisBackend::cluster([url]),
            RedisBackend::sentinel([url], "redis://shop"),
            RedisBackend::sentinel([URL], url),
        ] {
            let text = error(builder).to_string();
            assert!(
                text.contains(complaint) && !text.contains("sesame"),
                "{url}: {text}"
            );
        }
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
        RedisBackend::builder("redis://localhost?protocol=resp3"),
        on().namespace("n".repeat(128))
            .connect_timeout(Duration::MAX),
        RedisBackend::builder("redis+unix:///run/redis.sock?db=1&pass=a"),
    ] {
        builder.build().unwrap();
    }
}
