//! A proxy that nobody was told to trust.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use actix_web::http::header::HeaderMap;

pub(super) static UNHEARD: Unheard = Unheard::new();

/// Notices a proxy that nobody was told to trust, so that all clients behind it are one.
///
/// It shows in the first requests, since a proxy names a client with each of them, unless the first are
/// somebody else's, such as checks of the server's health. So the first are looked at, then one of many
/// on each thread: a look takes as long as two decisions.
pub(super) struct Unheard {
    /// Requests still to be looked at.
    left: AtomicU16,
}

impl Unheard {
    const LOOKS: u16 = 10_000;

    /// Requests that are all looked at.
    const FIRST: u16 = 256;

    /// Of so many later ones one is.
    const LATER: u32 = 1_024;

    const fn new() -> Unheard {
        Unheard {
            left: AtomicU16::new(Self::LOOKS),
        }
    }

    /// Looks at a request, and warns once.
    #[cold]
    pub(super) fn listen(&self, peer: Option<IpAddr>, headers: &HeaderMap) {
        if let Some(text) = self.look(peer, headers) {
            log::warn!("{text}");
        }
    }

    /// Whether to [look](Unheard::listen) at a request.
    #[inline]
    pub(super) fn is_time(&self) -> bool {
        thread_local! {
            static REQUESTS: Cell<u32> = const { Cell::new(0) };
        }
        let left = self.left.load(Ordering::Relaxed);
        left > Self::LOOKS - Self::FIRST
            || (left > 0 && {
                let request = REQUESTS.get().wrapping_add(1);
                REQUESTS.set(request);
                request.is_multiple_of(Self::LATER)
            })
    }

    /// What to warn of, once.
    fn look(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<String> {
        let one_less = |left: u16| left.checked_sub(1);
        let order = Ordering::Relaxed;
        self.left.fetch_update(order, order, one_less).ok()?;
        if !peer.is_none_or(is_private) {
            return None;
        }
        let header = ["x-forwarded-for", "forwarded"]
            .into_iter()
            .find(|name| headers.contains_key(*name))?;
        let (who, remedy) = match peer {
            Some(address) => (format!("{address} is"), format!("trust([\"{address}\"])")),
            None => (
                "the peers of a Unix socket are".to_owned(),
                "trust_unix()".to_owned(),
            ),
        };
        let first = self.left.swap(0, order) > 0;
        first.then(|| {
            format!(
                "{who} not trusted, so the `{header}` of its requests is ignored and all clients \
                 share its limits: if that is a proxy of yours, identify clients by \
                 `ClientIp::peer().{remedy}`, or by `trust_hops` if its address changes"
            )
        })
    }
}

/// Whether an address is of this machine or a private network, where proxies are.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            (
                actix_web::http::header::HeaderName::from_static(name),
                actix_web::http::header::HeaderValue::from_static(value),
            )
        });
        lines.collect()
    }

    /// Most requests are not looked at, but no proxy stays unnoticed.
    #[test]
    fn a_proxy_is_noticed_whenever_it_comes() {
        let address = Some("10.0.0.1".parse().unwrap());
        let proxied = headers(&[("x-forwarded-for", "1.2.3.4")]);
        for checks in [0_u32, 1, 255, 256, 257, 5_000, 100_000] {
            let unheard = Unheard::new();
            let ask = |headers: &HeaderMap| match unheard.is_time() {
                true => unheard.look(address, headers),
                false => None,
            };
            for _ in 0..checks {
                assert_eq!(ask(&headers(&[])), None);
            }
            let noticed = (0..=Unheard::LATER).filter(|_| ask(&proxied).is_some());
            assert_eq!(noticed.count(), 1, "after {checks}");
            assert!(!unheard.is_time(), "nothing is left to look for");
        }
    }

    #[test]
    fn a_proxy_that_nobody_trusts_is_noticed_once() {
        let proxied = headers(&[("x-forwarded-for", "1.2.3.4")]);
        let at = |address: &str| Some(address.parse().unwrap());

        let unheard = Unheard::new();
        assert_eq!(unheard.look(at("127.0.0.1"), &headers(&[])), None);
        assert_eq!(unheard.look(at("1.2.3.4"), &proxied), None);
        assert_eq!(
            unheard.look(at("10.0.0.1"), &proxied).unwrap(),
            "10.0.0.1 is not trusted, so the `x-forwarded-for` of its requests is ignored and all \
             clients share its limits: if that is a proxy of yours, identify clients by \
             `ClientIp::peer().trust([\"10.0.0.1\"])`, or by `trust_hops` if its address changes"
        );
        assert_eq!(unheard.look(at("10.0.0.1"), &proxied), None);

        let forwarded = headers(&[("forwarded", "for=1.2.3.4")]);
        let text = Unheard::new().look(None, &forwarded).unwrap();
        assert!(text.contains("trust_unix()"), "{text}");
    }
}
