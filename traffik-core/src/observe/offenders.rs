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
#[derive(Debug, Default)]
pub(super) struct Sketch {
    places: Vec<Offender>,
    /// How often somebody was denied who has no place any more since there are fewer, at most.
    left_out: u64,
    watch: Watch,
}

/// What a throttle asks of a sketch, which it may have in common with those that it takes the place of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) at_most: usize,
    pub(super) is_named: bool,
    /// Whoever was built later is in force.
    pub(super) built: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            at_most: Sketch::PLACES,
            is_named: false,
            built: 0,
        }
    }
}

impl Sketch {
    const PLACES: usize = 64;

    /// Keeps no more, and no other names, than is asked for from now on.
    #[inline]
    pub(super) fn watch(&mut self, watch: Watch) {
        if watch.built > self.watch.built {
            self.turn_to(watch);
        }
    }

    #[cold]
    fn turn_to(&mut self, watch: Watch) {
        self.watch = watch;
        self.places.sort_by_key(|one| Reverse(one.denials));
        let first_out = self.places.get(watch.at_most);
        // Whoever is not looked for at all begins anew.
        self.left_out = match watch.at_most {
            0 => 0,
            _ => first_out.map_or(self.left_out, |one| one.denials.max(self.left_out)),
        };
        self.places.truncate(watch.at_most);
        if !watch.is_named {
            for one in &mut self.places {
                one.name = None;
            }
        }
    }

    pub(super) fn note(&mut self, who: &Identity) {
        let Watch {
            at_most, is_named, ..
        } = self.watch;
        if at_most == 0 {
            return;
        }
        let name = || is_named.then(|| Named(who).to_string());
        let digest = digest(who);
        if let Some(known) = self.places.iter_mut().find(|one| one.digest == digest) {
            known.denials += 1;
            if known.name.is_none() {
                known.name = name();
            }
            return;
        }
        let mut newcomer = Offender {
            digest,
            name: name(),
            denials: 1 + self.left_out,
            error: self.left_out,
        };
        if self.places.len() < at_most {
            self.places.push(newcomer);
        } else if let Some(least) = self.places.iter_mut().min_by_key(|one| one.denials) {
            newcomer.denials = 1 + least.denials;
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

    fn watch(built: u64, at_most: usize, is_named: bool) -> Watch {
        Watch {
            at_most,
            is_named,
            built,
        }
    }

    /// All 64 were told on, those who were named as they were.
    #[test]
    fn fewer_places_and_names_were_for_newcomers_only() {
        let mut sketch = Sketch::default();
        for who in 0..64 {
            deny(&mut sketch, &Identity::of(who), 1 + who);
        }
        sketch.watch(watch(1, 5, true));
        deny(&mut sketch, &Identity::of(63), 1);
        let worst = sketch.worst();
        let denials: Vec<u64> = worst.iter().map(|one| one.denials).collect();
        assert_eq!(denials, [65, 63, 62, 61, 60]);
        assert_eq!(worst[0].name.as_deref(), Some("63"));
        // Of whoever comes back it is not known how often it was denied.
        sketch.watch(watch(2, 64, true));
        deny(&mut sketch, &Identity::of(58), 1);
        let worst = sketch.worst();
        let back = worst.last().expect("it is");
        assert_eq!((back.denials, back.error), (60, 59));
        assert_eq!(back.name.as_deref(), Some("58"));
        // Those whose place another one took know better.
        sketch.watch(watch(1, 0, false));
        assert_eq!(sketch.worst(), worst);
        sketch.watch(watch(3, 64, false));
        assert!(sketch.worst().iter().all(|one| one.name.is_none()));
        sketch.watch(watch(4, 0, true));
        deny(&mut sketch, &Identity::of(63), 1);
        assert!(sketch.worst().is_empty());
    }

    #[test]
    fn a_flood_of_invented_clients_hid_who_was_denied_most() {
        let (ann, ben) = (
            Identity::of("ann"),
            Identity::from(std::net::IpAddr::from([192, 0, 2, 7])),
        );
        let mut sketch = Sketch::default();
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
        let mut sketch = Sketch::default();
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
            let mut sketch = Sketch::default();
            sketch.watch(watch(1, 1, true));
            deny(&mut sketch, &who, 1);
            assert_eq!(sketch.worst()[0].name.as_deref(), Some(name));
        }
    }
}
