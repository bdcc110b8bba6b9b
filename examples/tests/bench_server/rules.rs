//! Which paths are limited.

use crate::support::Example;

#[test]
fn limits_the_paths_of_a_rule_and_serves_all() {
    let flags = "--rule /login(/|$) --rule /api/** --rate 1/day --clock manual --workers 1";
    let example = Example::bench(flags);
    let status = |method, path| example.status(method, path, "x-client-id: ann\r\n");
    for path in [
        "/",
        "/test",
        "/login-help",
        "/apis",
        "/a/login",
        "/unthrottled",
        "/stat",
    ] {
        for _ in 0..3 {
            assert_eq!(status("GET", path), 200, "{path}");
        }
    }
    assert_eq!(status("PUT", "/anything/at%20all?x=1"), 200);

    assert_eq!(status("POST", "/login"), 200);
    // It is one limit.
    for (method, path) in [
        ("GET", "/login"),
        ("POST", "/login/"),
        ("POST", "//login"),
        ("POST", "/%6cogin?x=1"),
        ("DELETE", "/api/a/b"),
        ("GET", "/api/a"),
    ] {
        assert_eq!(status(method, path), 429, "{method} {path}");
    }
    assert_eq!(status("GET", "/test"), 200);
    assert_eq!(status("POST", "/__bench__/reset"), 200);
    assert_eq!(status("POST", "/login"), 200);
}

/// Nobody could help themselves out of it.
#[test]
fn a_rule_for_everything_leaves_what_the_server_is_steered_by() {
    let example = Example::bench("--rule / --rate 1/day --clock manual --workers 1");
    let status = |method, path| example.status(method, path, "");
    assert_eq!([status("GET", "/"), status("GET", "/test")], [200, 429]);
    for (method, path) in [
        ("GET", "/stat"),
        ("GET", "/unthrottled"),
        ("GET", "/__bench__/health"),
        ("POST", "/__bench__/rate?rate=2/day"),
        ("POST", "/__bench__/clock?advance_us=1"),
    ] {
        assert_eq!(status(method, path), 200, "{path}");
    }
    assert_eq!([status("GET", "/a"), status("GET", "/b")], [200, 429]);
    assert_eq!(status("POST", "/__bench__/reset"), 200);
    assert_eq!(status("GET", "/"), 200);
}
