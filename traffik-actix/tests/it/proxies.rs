//! Clients behind a proxy.

use actix_web::{HttpRequest, web};
use traffik_actix::{ClientIp, MemoryBackend, ProxyHeader, ThrottleMiddleware};

use crate::sockets::{Connection, Running};
use crate::support::{app, get, send, throttle, warnings};

#[actix_web::test]
async fn a_proxy_that_nobody_trusts_is_noticed_once() {
    warnings();
    let limits = ThrottleMiddleware::new(throttle("proxied", "1/day").build().unwrap())
        .backend(MemoryBackend::new());
    let app = app(limits).await;
    let through_proxy = |client: &str| {
        get("/")
            .peer_addr("172.17.0.1:9".parse().unwrap())
            .insert_header(("x-forwarded-for", client))
    };
    assert!(send(&app, through_proxy("1.2.3.4")).await.is_ok());
    assert!(
        send(&app, through_proxy("1.2.3.5")).await.is_throttled(),
        "a header is believed although nobody said so"
    );
    // After the first of a process, which other tests have made, one of 1,024 is looked at.
    for _ in 0..1_024 {
        assert!(send(&app, through_proxy("1.2.3.6")).await.is_throttled());
    }
    let said = |line: &&String| line.contains("172.17.0.1 is not trusted");
    let times = warnings().lock().unwrap().iter().filter(said).count();
    assert_eq!(times, 1);
}

/// Issue 9.6 and 9.7: one byte of a client, or its `Host`, made everybody the proxy or somebody else.
#[actix_web::test]
async fn clients_are_told_apart_whatever_they_send() {
    let client_ip = ClientIp::peer()
        .trust(["127.0.0.1"])
        .unwrap()
        .header(ProxyHeader::Forwarded);
    let throttle = throttle("forwarded", "1/day")
        .identify(move |req: &HttpRequest| client_ip.identity(req))
        .build()
        .unwrap();
    let limits = ThrottleMiddleware::new(throttle).backend(MemoryBackend::new());
    let (addr, running) = Running::behind(limits, 1);

    let statuses = web::block(move || {
        let forwarded: [&[u8]; 6] = [
            b"for=1.2.3.4;host=\"x;for=9.9.9.9;y\"",
            b"for=\xe9;by=\", for=1.2.3.4",
            b"for=9.9.9.9;host=\"x\"\r\nForwarded: for=1.2.3.4;host=\"a,b\\\",for=7.7.7.7\"",
            b"for=1.2.3.5;host=\"a,b\"",
            b"for=\"[64:ff9b::1.2.3.5]:_p\"",
            b"for=9.9.9.9",
        ];
        forwarded.map(|value| {
            let head = b"GET / HTTP/1.1\r\nhost: localhost\r\nForwarded: ";
            let request = [head, value, b"\r\n\r\n"].concat();
            Connection::open(addr).ask(&request).status
        })
    });
    assert_eq!(statuses.await.unwrap(), [200, 429, 429, 200, 429, 200]);
    running.stop().await;
}
