//! Who is denied most often, in a bounded space.

use std::cmp::Reverse;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use crate::identity::{Identity, Who};
use crate::key::KeyHasher;

/// Somebody who was denied often. Made by [`Throttle::offenders`](crate::Throttle::offenders).
///
/// It is known by a digest under a secret of this process, which tells nobody who it is; but ask whether it
/// [is](Offender::is) somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offender {
    digest: u128,
    /// Who it is, if the throttle was told to [name](crate::ThrottleBuilder::name_offenders) them.
    pub name: Option<String>,
    /// How often it was denied, at most.
    pub denials: u64,
    /// By how much that may be too many, since others had its place before.
    pub error: u64,
}

impl Offender {
    /// The digest, as a text of 32 characters.
    pub fn digest(&self) -> String {
        format!("{:032x}", self.digest)
    }

    /// Whether it is somebody.
    pub fn is(&self, who: &Identity) -> bool {
        self.digest == digest(who)
    }
}

/// Space-Saving (Metwally, Agrawal, El Abbadi 2005): whoever was denied more often than one in as many times as
/// there are places is among them, and no count is too low.
#[derive(Debug)]
pub(super) struct Sketch {
    places: Vec<Offender>,
    at_most: usize,
    is_named: bool,
}

impl Sketch {
    const PLACES: usize = 64;

    pub(super) fn new() -> Sketch {
        Sketch {
            places: Vec::new(),
            at_most: Self::PLACES,
            is_named: false,
        }
    }

    pub(super) fn set(&mut self, at_most: usize, is_named: bool) {
        self.at_most = at_most;
        self.is_named = is_named;
    }

    pub(super) fn note(&mut self, who: &Identity) {
        if self.at_most == 0 {
            return;
        }
        let digest = digest(who);
        if let Some(known) = self.places.iter_mut().find(|one| one.digest == digest) {
            known.denials += 1;
            return;
        }
        let mut newcomer = Offender {
            digest,
            name: self.is_named.then(|| Named(who).to_string()),
            denials: 1,
            error: 0,
        };
        if self.places.len() < self.at_most {
            self.places.push(newcomer);
        } else if let Some(least) = self.places.iter_mut().min_by_key(|one| one.denials) {
            newcomer.denials += least.denials;
            newcomer.error = least.denials;
            *least = newcomer;
        }
    }

    pub(super) fn worst(&self) -> Vec<Offender> {
        let mut worst = self.places.clone();
        worst.sort_by_key(|one| Reverse(one.denials));
        worst
    }
}

/// Not under the secrets of keys: these are constants, or leave an address as it is.
fn digest(who: &Identity) -> u128 {
    static SECRET: OnceLock<KeyHasher> = OnceLock::new();
    let hasher = SECRET.get_or_init(|| {
        let random = RandomState::new();
        let words = [random.hash_one(0), random.hash_one(1)];
        KeyHasher::with_secret(&words.map(u64::to_le_bytes).concat())
    });
    hasher.identity(who)
}

struct Named<'a>(&'a Identity);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.who {
            Who::Anonymous => f.write_str("anonymous"),
            Who::Exempt => f.write_str("exempt"),
            Who::V4(address) => std::net::Ipv4Addr::from(*address).fmt(f),
            Who::V6([high, low]) => {
                std::net::Ipv6Addr::from(u128::from(*high) << 64 | u128::from(*low)).fmt(f)
            }
            Who::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deny(sketch: &mut Sketch, who: &Identity, times: u64) {
        for _ in 0..times {
            sketch.note(who);
        }
    }

    #[test]
    fn a_flood_of_invented_clients_hid_who_was_denied_most() {
        let (ann, ben) = (
            Identity::of("ann"),
            Identity::from(std::net::IpAddr::from([192, 0, 2, 7])),
        );
        let mut sketch = Sketch::new();
        deny(&mut sketch, &ann, 300);
        for invented in 0..10_000 {
            deny(&mut sketch, &Identity::of(invented), 1);
            // Among 64 places, whoever has one in 64 of all denials is found.
            deny(&mut sketch, &ben, u64::from(invented % 32 == 0));
        }
        let worst = sketch.worst();
        assert_eq!(worst.len(), Sketch::PLACES);
        assert!(worst.is_sorted_by_key(|one| Reverse(one.denials)));
        for (who, times) in [(ann, 300), (ben, 313)] {
            let found = worst.iter().find(|one| one.is(&who)).expect("among them");
            assert!((times..=times + found.error).contains(&found.denials));
        }
    }

    #[test]
    fn who_it_is_was_told_without_being_asked() {
        let address = Identity::from(std::net::IpAddr::from([192, 0, 2, 7]));
        let mut sketch = Sketch::new();
        deny(&mut sketch, &address, 1);
        let told = format!("{sketch:?} {}", sketch.worst()[0].digest());
        assert!(!told.contains("192.0.2.7"));
        assert!(!told.to_lowercase().contains("c0000207") && !told.contains("3221225991"));
        for (who, name) in [
            (address, "192.0.2.7"),
            (
                Identity::from("2001:db8::1".parse::<std::net::IpAddr>().unwrap()),
                "2001:db8::1",
            ),
            (Identity::of("ann"), "ann"),
        ] {
            let mut sketch = Sketch::new();
            sketch.set(1, true);
            deny(&mut sketch, &who, 1);
            assert_eq!(sketch.worst()[0].name.as_deref(), Some(name));
        }
    }
}
