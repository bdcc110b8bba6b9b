//! Connections by `rediss://`.

use redis::{ConnectionAddr, ConnectionInfo, TlsCertificates};
use rustls::crypto::{CryptoProvider, ring};

use super::builder::RedisBackendBuilder;
use crate::error::{Error, Result};

impl RedisBackendBuilder {
    /// Trusts these root certificates instead of the system's, and shows a client certificate to
    /// servers that ask for one. Needs the feature `redis-tls`, and `rediss://` in every URL.
    ///
    /// All are PEM. A server's certificate must name the host as the URL does; on a cluster, as
    /// the nodes announce each other. Without this the system's certificates are trusted, or those
    /// in the file that the environment variable `SSL_CERT_FILE` names; that is also the way with
    /// sentinels.
    ///
    /// ```no_run
    /// use traffik_core::RedisBackend;
    /// use traffik_core::redis::{ClientTlsConfig, TlsCertificates};
    ///
    /// let backend = RedisBackend::builder("rediss://10.0.0.5:6380")
    ///     .certificates(TlsCertificates {
    ///         root_cert: Some(std::fs::read("ca.pem")?),
    ///         client_tls: Some(ClientTlsConfig {
    ///             client_cert: std::fs::read("shop.pem")?,
    ///             client_key: std::fs::read("shop.key")?,
    ///         }),
    ///     })
    ///     .build()?;
    /// # let _ = backend;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn certificates(mut self, certificates: TlsCertificates) -> Self {
        self.connect = self.connect.and_then(|connect| {
            check(&certificates)?;
            connect.with_certificates(&certificates)
        });
        self
    }
}

/// rustls takes its cryptography from what the program has installed, and panics if that is
/// nothing: then it is ring.
pub(super) fn choose_cryptography(info: &ConnectionInfo) {
    let encrypted = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    if encrypted && CryptoProvider::get_default().is_none() {
        // Fails if another thread has just installed one, which is as good.
        let _ = ring::default_provider().install_default();
    }
}

/// The client takes a file without certificates for an empty list of them.
fn check(certificates: &TlsCertificates) -> Result<()> {
    let holds = |pem: &[u8], what: &str| {
        let begins = format!("-----BEGIN {what}-----");
        pem.windows(begins.len()).any(|at| at == begins.as_bytes())
    };
    let roots = certificates.root_cert.as_deref();
    let shown = certificates.client_tls.as_ref();
    for (whose, pem) in [
        ("root", roots),
        ("client", shown.map(|client| &*client.client_cert)),
    ] {
        if pem.is_some_and(|pem| !holds(pem, "CERTIFICATE")) {
            return Err(Error::invalid(format!(
                "the {whose} certificates for redis must be PEM: there is no `BEGIN CERTIFICATE` \
                 in them"
            )));
        }
    }
    Ok(())
}

/// What the client says to certificates that it cannot use.
pub(super) fn unusable(error: redis::RedisError) -> Error {
    Error::invalid("these certificates cannot be used, or the URL does not begin with `rediss://`")
        .with_source(error)
}
