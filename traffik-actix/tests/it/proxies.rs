//! Clients behind a proxy.

use traffik_actix::{MemoryBackend, ThrottleMiddleware};

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
    let warnings = warnings().lock().unwrap();
    let about = warnings
        .iter()
        .filter(|line| line.contains("172.17.0.1 is not trusted"));
    assert_eq!(about.count(), 1);
}
