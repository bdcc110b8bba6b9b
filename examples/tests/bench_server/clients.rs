//! Who asks, when no header says it outright.

use crate::support::Example;

const BEHIND_ONE: &str = "--trust 127.0.0.1,10.0.0.0/8";

#[test]
fn tells_clients_behind_proxies_apart() {
    for (flags, requests) in [
        // Nobody is trusted: all are one, and they may say what they like.
        (
            "",
            &[
                ("x-forwarded-for: 1.2.3.4", 200),
                ("x-forwarded-for: 1.2.3.5", 429),
            ][..],
        ),
        (
            BEHIND_ONE,
            &[
                ("x-forwarded-for: 1.2.3.4", 200),
                ("x-forwarded-for: 1.2.3.5", 200),
                ("x-forwarded-for: 9.9.9.9, 1.2.3.4", 429),
                ("x-forwarded-for: 1.2.3.5, 10.1.1.1", 429),
                ("x-client-id: ann\r\nx-forwarded-for: 1.2.3.4", 200),
                ("x-client-id: ann\r\nx-forwarded-for: 1.2.3.6", 429),
            ],
        ),
        (
            "--trust-hops 2",
            &[
                ("x-forwarded-for: 1.2.3.4, 8.8.8.8", 200),
                ("x-forwarded-for: 1.2.3.5, 8.8.8.8", 200),
                ("x-forwarded-for: 9.9.9.9, 1.2.3.5, 8.8.4.4", 429),
            ],
        ),
        (
            "--trust 10.0.0.0/8 --trust 127.0.0.1 --trust-header forwarded",
            &[
                ("forwarded: for=1.2.3.4\r\nx-forwarded-for: 9.9.9.9", 200),
                ("forwarded: for=1.2.3.5\r\nx-forwarded-for: 9.9.9.9", 200),
                ("forwarded: for=1.2.3.4;proto=https, for=10.0.0.1", 429),
            ],
        ),
        (
            "--trust-header x-real-ip --trust 127.0.0.1",
            &[
                ("x-real-ip: 1.2.3.4", 200),
                ("x-real-ip: 1.2.3.5", 200),
                ("x-real-ip: 1.2.3.4", 429),
            ],
        ),
    ] {
        let example = Example::bench(&format!("{flags} --rate 1/day --clock manual --workers 1"));
        for (headers, expected) in requests {
            let status = example.status("GET", "/test", &format!("{headers}\r\n"));
            assert_eq!(status, *expected, "{flags}: {headers}");
        }
    }
}
