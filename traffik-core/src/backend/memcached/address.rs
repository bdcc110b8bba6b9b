use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use r2d2_memcache::memcache::Url;

use crate::error::{Error, Result};
use crate::key::KeyHasher;

const DEFAULT_PORT: u16 = 11211;

/// Where a memcached listens.
#[derive(Clone)]
pub(super) struct Address {
    url: Url,
    /// Identifies the server when keys are spread.
    id: u64,
}

impl Address {
    /// `host:port` or a URL whose scheme starts with `memcache` or `memcached`.
    pub(super) fn parse(text: &str) -> Result<Address> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("memcache", text));
        let transport = scheme
            .strip_prefix("memcached")
            .or_else(|| scheme.strip_prefix("memcache"));
        let Some("" | "+tcp" | "+tls" | "+unix") = transport else {
            return Err(Error::invalid(
                "the URL of a memcached starts with memcache://, memcache+tcp://, memcache+tls:// or memcache+unix://",
            ));
        };
        // The URL may hold a password: it is not repeated.
        let url = format!("memcache{}://{rest}", transport.unwrap_or_default());
        let mut url = Url::parse(&url).map_err(|error| {
            Error::invalid("the URL of a memcached looks like memcache://host:11211")
                .with_source(error)
        })?;
        if url.host().is_some() && url.port().is_none() {
            // Refused only for URLs without a host.
            let _ = url.set_port(Some(DEFAULT_PORT));
        }
        if url.host().is_none() && url.path().len() < 2 {
            return Err(Error::invalid(
                "the URL of a memcached names a host or the path of a socket",
            ));
        }
        let place = format!(
            "{}:{}{}",
            url.host_str().unwrap_or_default(),
            url.port().unwrap_or_default(),
            url.path().trim_end_matches('/')
        );
        #[expect(clippy::cast_possible_truncation, reason = "half of a digest will do")]
        let id = KeyHasher::throttle(&["memcached server", &place]) as u64;
        Ok(Address { url, id })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The URL with what must not be left to chance: the text protocol (in the binary one,
    /// incrementing a missing key makes a counter that never expires) and a limit to every read
    /// and write.
    pub(super) fn url(&self, timeout: Duration) -> Url {
        let mut url = self.url.clone();
        let others: Vec<(String, String)> = self
            .url
            .query_pairs()
            .filter(|(name, _)| !matches!(&**name, "protocol" | "timeout" | "udp"))
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        url.query_pairs_mut()
            .clear()
            .extend_pairs(others)
            .append_pair("protocol", "ascii")
            .append_pair("timeout", &timeout.as_secs_f64().to_string());
        url
    }

    /// Whether somebody listens. The client itself dials without a limit, so that an address that
    /// swallows packets would hold its thread for minutes.
    pub(super) fn probe(&self, timeout: Duration) -> io::Result<()> {
        if self.url.host().is_none() {
            return Ok(());
        }
        let deadline = Instant::now() + timeout;
        let mut last = io::Error::other("the name of the server has no address");
        for address in self.url.socket_addrs(|| Some(DEFAULT_PORT))? {
            let left = deadline.saturating_duration_since(Instant::now());
            // A zero duration is an error of its own.
            match TcpStream::connect_timeout(&address, left.max(Duration::from_millis(1))) {
                Ok(_) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> String {
        let address = Address::parse(text).unwrap();
        address.url(Duration::from_millis(250)).to_string()
    }

    #[test]
    fn every_spelling_ends_in_the_text_protocol_with_a_timeout() {
        let forced = "?protocol=ascii&timeout=0.25";
        for (text, expected) in [
            ("localhost", "memcache://localhost:11211"),
            ("10.0.0.1:5", "memcache://10.0.0.1:5"),
            ("memcached://[::1]:7", "memcache://[::1]:7"),
            (
                "memcache://h?protocol=binary&timeout=99&udp=true",
                "memcache://h:11211",
            ),
            ("memcached+tls://h:1", "memcache+tls://h:1"),
            (
                "memcache+unix:///run/memcached.sock",
                "memcache+unix:///run/memcached.sock",
            ),
        ] {
            assert_eq!(url(text), format!("{expected}{forced}"), "{text}");
        }
        assert!(url("memcache://h?tcp_nodelay=false").contains("tcp_nodelay=false&protocol=ascii"));
    }

    #[test]
    fn refuses_what_is_no_memcached_and_keeps_passwords_to_itself() {
        for text in [
            "redis://h",
            "memcache+udp://h",
            "http://h",
            "memcache://",
            "memcache://u:hunter2@:x",
        ] {
            let error = Address::parse(text).err().expect(text);
            assert!(error.is_invalid());
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_server_is_known_by_its_place_not_by_its_spelling() {
        let id = |text| Address::parse(text).unwrap().id();
        assert_eq!(id("h"), id("memcached://u:p@h:11211/?timeout=1"));
        assert_ne!(id("h:1"), id("h:2"));
    }
}
