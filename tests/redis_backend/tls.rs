//! `rediss://` to a server with certificates of our own making.

use std::time::{Duration, Instant};

use traffik_core::backend::RedisBackendBuilder;
use traffik_core::redis::{Client, ClientTlsConfig, TlsCertificates};
use traffik_core::{Identity, RedisBackend};

use super::throttle;
use crate::support::{Certificates, RedisServer, TlsRedis};

const DEADLINE: Duration = Duration::from_secs(10);

fn trusting(roots: Vec<u8>) -> TlsCertificates {
    TlsCertificates {
        root_cert: Some(roots),
        client_tls: None,
    }
}

/// The same, and showing what is signed by the roots.
fn known(certificates: &Certificates) -> TlsCertificates {
    TlsCertificates {
        root_cert: Some(certificates.roots()),
        client_tls: Some(ClientTlsConfig {
            client_cert: certificates.read("client.pem"),
            client_key: certificates.read("client.key"),
        }),
    }
}

async fn decides(builder: RedisBackendBuilder) {
    let throttle = throttle("tls", "2/day", builder.deadline(DEADLINE).build().unwrap());
    let ann = Identity::of("ann");
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 1);
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 0);
    assert!(throttle.hit(&ann).await.unwrap().is_denied());
}

/// What is said of the error of a hit, which must come long before the deadline.
async fn fails(builder: RedisBackendBuilder) -> String {
    let throttle = throttle("tls", "2/day", builder.deadline(DEADLINE).build().unwrap());
    let start = Instant::now();
    let error = throttle.hit(&Identity::of("ann")).await.unwrap_err();
    assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
    assert!(error.is_unexecuted(), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn trusts_the_roots_that_are_given() {
    let server = TlsRedis::start_with(&["--tls-auth-clients", "no"]);
    let roots = trusting(server.certificates().roots());
    decides(RedisBackend::builder(&server.url()).certificates(roots.clone())).await;
    // An existing client, which brings its own.
    let client = Client::build_with_tls(server.url().as_str(), roots).unwrap();
    let again = RedisBackendBuilder::from_client(client).namespace("again");
    decides(again).await;
}

#[tokio::test]
async fn refuses_servers_that_others_have_signed() {
    let server = TlsRedis::start_with(&["--tls-auth-clients", "no"]);
    let text = fails(RedisBackend::builder(&server.url())).await;
    assert!(text.contains("redis cannot be reached"), "{text}");
    assert!(text.contains("UnknownIssuer"), "{text}");
    let stranger = trusting(Certificates::make().roots());
    let text = fails(RedisBackend::builder(&server.url()).certificates(stranger)).await;
    // Both roots have one name, so what is wrong is the signature.
    assert!(text.contains("invalid peer certificate"), "{text}");
}

/// A handshake takes longer than a deadline, so that it was never heard of why it failed.
#[tokio::test]
async fn a_handshake_that_fails_is_told_whatever_the_deadline() {
    let server = TlsRedis::start_with(&["--tls-auth-clients", "no"]);
    let builder = RedisBackend::builder(&server.url()).connect_timeout(DEADLINE);
    let backend = builder.deadline(Duration::from_millis(1)).build();
    let throttle = throttle("tls", "2/day", backend.unwrap());
    let error = throttle.hit(&Identity::of("ann")).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn refuses_servers_of_another_name() {
    let server = TlsRedis::start_with(&["--tls-auth-clients", "no"]);
    let roots = trusting(server.certificates().roots());
    let url = server.url().replace("127.0.0.1", "localhost");
    let text = fails(RedisBackend::builder(&url).certificates(roots)).await;
    assert!(text.contains("not valid for name"), "{text}");
}

#[tokio::test]
async fn a_plain_server_is_an_error_and_no_hang() {
    let server = RedisServer::start();
    let url = server.url().replace("redis://", "rediss://");
    fails(RedisBackend::builder(&url)).await;
    let server = TlsRedis::start_with(&[]);
    let url = server.url().replace("rediss://", "redis://");
    fails(RedisBackend::builder(&url)).await;
}

#[tokio::test]
async fn shows_its_own_certificate_to_those_who_ask() {
    let server = TlsRedis::start_with(&["--tls-auth-clients", "yes"]);
    let builder = || RedisBackend::builder(&server.url());
    decides(builder().certificates(known(server.certificates()))).await;
    let nobody = trusting(server.certificates().roots());
    let text = fails(builder().certificates(nobody)).await;
    assert!(text.contains("CertificateRequired"), "{text}");
}

#[tokio::test]
async fn a_cluster_has_certificates_too() {
    let settings = ["--cluster-enabled", "yes", "--tls-cluster", "yes"];
    let server = TlsRedis::start_with(&[&settings[..], &["--tls-auth-clients", "no"]].concat());
    server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let roots = trusting(server.certificates().roots());
    let cluster = || RedisBackend::cluster([server.url().as_str()]);
    let backend = cluster().certificates(roots).deadline(DEADLINE).build();
    let throttle = throttle("tls", "2/day", backend.unwrap());
    let ann = Identity::of("ann");
    // A cluster of one takes a moment to believe in itself.
    let start = Instant::now();
    while let Err(error) = throttle.hit(&ann).await {
        assert!(start.elapsed() < DEADLINE, "{error:?}");
    }
    assert_eq!(throttle.hit(&ann).await.unwrap().remaining(), 0);
    fails(cluster()).await;
}

#[test]
fn certificates_are_checked() {
    let made = Certificates::make();
    let wrong = |builder: RedisBackendBuilder, certificates| {
        let error = builder.certificates(certificates).build().unwrap_err();
        assert!(error.is_invalid(), "{error:?}");
        error.to_string()
    };
    let server = || RedisBackend::builder("rediss://127.0.0.1");
    let text = wrong(server(), trusting(b"ca.pem".into()));
    assert!(text.contains("the root certificates for redis must be PEM"));
    let mut swapped = known(&made);
    let client = swapped.client_tls.as_mut().unwrap();
    std::mem::swap(&mut client.client_cert, &mut client.client_key);
    let text = wrong(server(), swapped);
    assert!(text.contains("the client certificates for redis must be PEM"));

    let roots = || trusting(made.roots());
    let plain = "redis://127.0.0.1";
    for plain in [RedisBackend::builder(plain), RedisBackend::cluster([plain])] {
        let text = wrong(plain, roots());
        assert!(text.contains("does not begin with `rediss://`"), "{text}");
    }
    let sentinel = RedisBackend::sentinel(["rediss://127.0.0.1"], "rediss://shop");
    assert!(wrong(sentinel, roots()).contains("SSL_CERT_FILE"));
    let shown = format!("{:?}", server().certificates(known(&made)));
    assert!(!shown.contains("BEGIN"), "{shown}");
}
