//! What comes in: who asks, for what, and what functions say about it.

pub(crate) mod body;
pub(crate) mod cause;
pub(crate) mod client_ip;
pub(crate) mod networks;
pub(crate) mod path;
pub(crate) mod pattern;
pub(crate) mod scope;
pub(crate) mod source;
