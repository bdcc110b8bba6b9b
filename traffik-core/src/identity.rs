//! Who is asking.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use crate::key::halves;

/// Who asks, and what is known about them.
///
/// What an identity *is* (tier, priority, region, instance) is set by your code, typed. It is never
/// read out of the text of an identity, which a client may choose.
///
/// ```
/// use traffik_core::{Identity, Priority};
///
/// let user = Identity::of(format_args!("user:{}", 42)).tier("premium").priority(Priority::High);
/// let peer = Identity::from(std::net::IpAddr::from([127, 0, 0, 1]));
/// assert!(!user.is_exempt() && !peer.is_exempt());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub(crate) who: Who,
    attributes: Option<Box<Attributes>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Anonymous,
    Exempt,
    /// Integers, not octets: reading a word that was written byte by byte stalls the processor for
    /// as long as the whole look-up takes.
    V4(u32),
    V6([u64; 2]),
    Text(Box<str>),
}

impl Identity {
    /// Everybody who cannot be told apart. They share one limit.
    pub const ANONYMOUS: Identity = Identity::new(Who::Anonymous);

    /// Whoever is not limited at all.
    pub const EXEMPT: Identity = Identity::new(Who::Exempt);

    const fn new(who: Who) -> Identity {
        Identity {
            who,
            attributes: None,
        }
    }

    /// Somebody known by a text of any content and length: a user id, an API key.
    ///
    /// Prefix it with its kind (`user:`, `key:`) if a throttle sees several kinds.
    pub fn of(who: impl fmt::Display) -> Identity {
        Identity::new(Who::Text(who.to_string().into()))
    }

    /// Somebody known by an address. Nothing is allocated.
    ///
    /// IPv4 addresses in IPv6 clothing (`::ffff:a.b.c.d`) count as the IPv4 address.
    #[inline]
    pub fn ip(address: IpAddr) -> Identity {
        Identity::new(match address.to_canonical() {
            IpAddr::V4(address) => Who::V4(address.to_bits()),
            IpAddr::V6(address) => Who::V6(halves(address.to_bits()).into()),
        })
    }

    /// Whether nothing limits them.
    #[inline]
    pub fn is_exempt(&self) -> bool {
        matches!(self.who, Who::Exempt)
    }

    /// Sets the tier, for tiered rates.
    pub fn tier(mut self, tier: impl Into<Cow<'static, str>>) -> Identity {
        self.attributes_mut().tier = Some(tier.into());
        self
    }

    /// Sets the priority, for priority queues.
    pub fn priority(mut self, priority: Priority) -> Identity {
        self.attributes_mut().priority = Some(priority);
        self
    }

    /// Sets the region, for geographic distribution.
    pub fn region(mut self, region: impl Into<Cow<'static, str>>) -> Identity {
        self.attributes_mut().region = Some(region.into());
        self
    }

    /// Sets the instance, for distributed fairness.
    pub fn instance(mut self, instance: impl Into<Cow<'static, str>>) -> Identity {
        self.attributes_mut().instance = Some(instance.into());
        self
    }

    /// What is known about them besides who they are.
    #[inline]
    pub fn attributes(&self) -> &Attributes {
        self.attributes.as_deref().unwrap_or(&Attributes::NONE)
    }

    fn attributes_mut(&mut self) -> &mut Attributes {
        self.attributes.get_or_insert_default()
    }
}

impl From<IpAddr> for Identity {
    fn from(address: IpAddr) -> Self {
        Identity::ip(address)
    }
}

impl From<&str> for Identity {
    fn from(text: &str) -> Self {
        Identity::new(Who::Text(text.into()))
    }
}

impl From<String> for Identity {
    fn from(text: String) -> Self {
        Identity::new(Who::Text(text.into()))
    }
}

/// What an identity is, beyond who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// The tier, such as `free` or `premium`.
    pub tier: Option<Cow<'static, str>>,
    /// How important its hits are.
    pub priority: Option<Priority>,
    /// Where it is, such as `eu-west`.
    pub region: Option<Cow<'static, str>>,
    /// Which instance of the service it asks through.
    pub instance: Option<Cow<'static, str>>,
}

impl Attributes {
    /// Nothing is known.
    pub const NONE: Attributes = Attributes {
        tier: None,
        priority: None,
        region: None,
        instance: None,
    };
}

/// How important a hit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Priority {
    /// Background work.
    Low = 1,
    /// Everything that says nothing else.
    #[default]
    Normal = 2,
    /// People are waiting.
    High = 3,
    /// The last to be denied.
    Critical = 4,
}
