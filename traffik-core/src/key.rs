//! Where a cell is stored: fixed-length digests, so that no byte a client chose ever reaches a
//! store's command line.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::OnceLock;

use siphasher::sip128::{Hasher128, SipHasher13};

#[cfg(any(feature = "memcached", feature = "redis", feature = "store"))]
use crate::error::{Error, Result};
use crate::identity::{Identity, Who};

/// The address of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Name, strategy and parameters of the throttle: chosen by the developer.
    pub(crate) throttle: u128,
    /// What shares the counter within the throttle; 0 if everything does.
    pub(crate) scope: u64,
    /// Who asks.
    pub(crate) who: u128,
}

impl Key {
    /// One word that identifies this cell in memory. The parts are digests under a secret, so
    /// adding them gives no two the same sum but by a 2^-64 accident that nobody can steer.
    ///
    /// Not exclusive or: the compiler would load both halves at once, which has to wait until both
    /// have left the store buffer, for 5 ns.
    #[inline]
    pub(crate) fn digest(&self) -> u128 {
        let scope = u128::from(self.scope) << 64 | u128::from(self.scope);
        self.who.wrapping_add(self.throttle).wrapping_add(scope)
    }

    /// Of another purpose, on the same shard. No throttle has it: their digests are of more parts.
    pub(crate) fn neighbour(&self, purpose: &str) -> Key {
        Key {
            throttle: KeyHasher::throttle(&[purpose]),
            scope: 0,
            who: self.who,
        }
    }

    /// One of many keys, spread evenly, that no identity has, to ask shards about themselves.
    pub(crate) fn probe(at: u64) -> Key {
        let who = KeyHasher::shared().bytes(Domain::Probe, &at.to_le_bytes());
        Key {
            throttle: KeyHasher::throttle(&["probe"]),
            scope: 0,
            who,
        }
    }

    /// The length of its text.
    pub(crate) const TEXT: usize = 82;

    /// A text of fixed length, 80 hexadecimal characters and two braces, for remote stores.
    ///
    /// What is in braces depends on the identity alone, so all keys of one identity share a Redis
    /// Cluster slot and a batch over them is one script.
    pub fn text(&self) -> String {
        self.to_string()
    }

    /// The same as bytes, all of which are ASCII.
    pub(crate) fn bytes(&self) -> [u8; Self::TEXT] {
        let mut text = [b'{'; Self::TEXT];
        let (who, rest) = text[1..].split_at_mut(32);
        let (end, rest) = rest.split_at_mut(1);
        let (throttle, scope) = rest.split_at_mut(32);
        hex(who, &self.who.to_be_bytes());
        end[0] = b'}';
        hex(throttle, &self.throttle.to_be_bytes());
        hex(scope, &self.scope.to_be_bytes());
        text
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest().hash(state);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.bytes()).map_err(|_| fmt::Error)?)
    }
}

/// Writes the two digits of each byte. `{:x}` takes ten times as long, on the way of every hit.
fn hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    static PAIRS: [[u8; 2]; 256] = {
        let (mut pairs, mut byte) = ([[0; 2]; 256], 0);
        while byte < 256 {
            pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
            byte += 1;
        }
        pairs
    };
    for (pair, byte) in text.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = PAIRS[usize::from(*byte)];
    }
}

/// Turns identities and scopes into digests under a secret.
///
/// Local backends draw the secret when the process starts. Remote ones must agree on it between
/// processes: by default it is a constant, which suffices while identities are addresses or are
/// checked before they are used; [`KeyHasher::with_secret`] is for identities that clients choose
/// freely.
#[derive(Clone, Copy)]
pub struct KeyHasher {
    keys: (u64, u64),
    /// Digests never leave this process.
    local: bool,
}

impl KeyHasher {
    /// The constant secret.
    pub const fn shared() -> KeyHasher {
        KeyHasher {
            keys: (0x7472_6166_6669_6b2d, 0x6b65_792d_6861_7368),
            local: false,
        }
    }

    /// A secret that processes agree on.
    pub fn with_secret(secret: &[u8]) -> KeyHasher {
        let digest = u128::from(Self::shared().sip(Domain::Secret).hash(secret));
        KeyHasher {
            keys: halves(digest),
            local: false,
        }
    }

    /// The same of a setting, where an empty one is a variable that somebody forgot.
    #[cfg(any(feature = "memcached", feature = "redis", feature = "store"))]
    pub(crate) fn of_setting(secret: &[u8]) -> Result<KeyHasher> {
        match secret.is_empty() {
            false => Ok(Self::with_secret(secret)),
            true => Err(Error::invalid(
                "the secret that identities are hashed under is empty; leave it out, or choose one \
                 that clients cannot guess",
            )),
        }
    }

    /// The secret of this process.
    #[inline]
    pub fn local() -> &'static KeyHasher {
        static LOCAL: OnceLock<KeyHasher> = OnceLock::new();
        LOCAL.get_or_init(|| {
            let random = RandomState::new();
            KeyHasher {
                keys: (random.hash_one(0), random.hash_one(1) | 1),
                local: true,
            }
        })
    }

    /// The digest of an identity.
    #[inline]
    pub(crate) fn identity(&self, identity: &Identity) -> u128 {
        match &identity.who {
            Who::V4(address) => self.word(Domain::V4, u64::from(*address)),
            Who::V6([prefix, 0]) => self.word(Domain::V6, *prefix),
            Who::V6([high, low]) => {
                let address = u128::from(*high) << 64 | u128::from(*low);
                self.bytes(Domain::V6, &address.to_be_bytes())
            }
            Who::Text(text) => self.bytes(Domain::Text, text.as_bytes()),
            Who::Anonymous | Who::Exempt => self.bytes(Domain::Anonymous, &[]),
        }
    }

    /// What takes the place of an identity's digest where all identities share a cell.
    pub(crate) fn everybody(&self) -> u128 {
        self.bytes(Domain::Everybody, &[])
    }

    /// The digest of a name that cells hold, such as a region's: the same in every process, and
    /// below 2^52.
    pub(crate) fn label(name: &str) -> u64 {
        let (high, low) = halves(Self::shared().bytes(Domain::Label, name.as_bytes()));
        (high ^ low) >> 12
    }

    /// The digest of a scope, never 0.
    pub(crate) fn scope(&self, scope: &[u8]) -> u64 {
        let (high, low) = halves(self.bytes(Domain::Scope, scope));
        (high ^ low) | 1
    }

    /// The digest of a throttle, the same in every process.
    pub(crate) fn throttle(parts: &[&str]) -> u128 {
        let mut hasher = Self::shared().sip(Domain::Throttle);
        for part in parts {
            // Length first, so that ("ab", "c") and ("a", "bc") differ.
            Hasher::write_u64(&mut hasher, part.len() as u64);
            Hasher::write(&mut hasher, part.as_bytes());
        }
        u128::from(hasher.finish128())
    }

    /// An identity of up to 64 bits. In this process the word itself is half of the digest, so two
    /// different ones never collide; the other half places it where no client can predict.
    #[inline]
    fn word(&self, domain: Domain, word: u64) -> u128 {
        if !self.local {
            return self.bytes(domain, &word.to_le_bytes());
        }
        let mixed = fold(word ^ self.keys.0 ^ domain as u64, self.keys.1);
        // Once is a lattice for addresses in a row; the second time scatters them.
        let placed = fold(mixed ^ self.keys.1, self.keys.0 | 1);
        u128::from(placed) << 64 | u128::from(word)
    }

    fn bytes(&self, domain: Domain, bytes: &[u8]) -> u128 {
        u128::from(self.sip(domain).hash(bytes))
    }

    fn sip(&self, domain: Domain) -> SipHasher13 {
        SipHasher13::new_with_keys(self.keys.0 ^ domain as u64, self.keys.1)
    }
}

impl Default for KeyHasher {
    fn default() -> Self {
        Self::shared()
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyHasher").finish_non_exhaustive()
    }
}

/// Multiplies to 128 bits and folds them to 64.
#[inline]
fn fold(word: u64, key: u64) -> u64 {
    let (high, low) = halves(u128::from(word) * u128::from(key));
    high ^ low
}

/// Keeps apart what is hashed for different purposes.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Domain {
    V4 = 1 << 56,
    V6 = 2 << 56,
    Text = 3 << 56,
    Anonymous = 4 << 56,
    Scope = 5 << 56,
    Throttle = 6 << 56,
    Secret = 7 << 56,
    Everybody = 8 << 56,
    Label = 9 << 56,
    Probe = 10 << 56,
}

#[expect(clippy::cast_possible_truncation, reason = "each half on purpose")]
pub(crate) const fn halves(word: u128) -> (u64, u64) {
    ((word >> 64) as u64, word as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn identities() -> Vec<Identity> {
        let mut all = vec![Identity::ANONYMOUS];
        for text in [
            "",
            "a",
            "127.0.0.1",
            "{}",
            "a:b",
            "x\r\nflush_all\r\n",
            "\0",
            "🦀",
        ] {
            all.push(Identity::from(text));
        }
        for address in [
            "127.0.0.1",
            "0.0.0.1",
            "::1",
            "::",
            "1::",
            "2001:db8::",
            "2001:db8::1",
        ] {
            all.push(Identity::ip(address.parse().unwrap()));
        }
        all.push(Identity::from("x".repeat(300)));
        all
    }

    #[test]
    fn different_identities_have_different_digests() {
        for hasher in [
            KeyHasher::local(),
            &KeyHasher::shared(),
            &KeyHasher::with_secret(b"s"),
        ] {
            let all = identities();
            let digests: HashSet<u128> = all.iter().map(|one| hasher.identity(one)).collect();
            assert_eq!(digests.len(), all.len());
            assert!(!digests.contains(&hasher.everybody()));
        }
    }

    #[test]
    fn parts_of_a_throttle_cannot_run_into_each_other() {
        assert_ne!(
            KeyHasher::throttle(&["ab", "c"]),
            KeyHasher::throttle(&["a", "bc"])
        );
        assert_ne!(KeyHasher::throttle(&["a", ""]), KeyHasher::throttle(&["a"]));
    }

    #[test]
    fn the_text_has_one_length_and_only_safe_characters() {
        for identity in identities() {
            let key = Key {
                throttle: KeyHasher::throttle(&["api"]),
                scope: KeyHasher::shared().scope(b"/items/{id}"),
                who: KeyHasher::shared().identity(&identity),
            };
            let text = key.text();
            assert_eq!(text.len(), 82);
            assert!(
                text.bytes()
                    .all(|b| b.is_ascii_hexdigit() || b"{}".contains(&b))
            );
        }
    }

    #[test]
    fn mapped_addresses_count_as_the_address_they_carry() {
        let (plain, mapped) = (
            "192.0.2.7".parse().unwrap(),
            "::ffff:192.0.2.7".parse().unwrap(),
        );
        assert_eq!(Identity::ip(plain), Identity::ip(mapped));
        assert_ne!(
            Identity::ip("::1".parse().unwrap()),
            Identity::ip("0.0.0.1".parse().unwrap())
        );
    }

    #[test]
    fn remote_digests_are_the_same_in_every_process() {
        // A change here forgets every limit in every Redis: it is a breaking change.
        let digest = KeyHasher::shared().identity(&Identity::from("ann"));
        assert_eq!(
            format!("{digest:032x}"),
            format!(
                "{:032x}",
                KeyHasher::shared().identity(&Identity::of("ann"))
            )
        );
    }
}
