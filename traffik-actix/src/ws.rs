//! Limits on the messages of WebSockets.

mod assembly;
mod connection;
mod excess;
mod messages;
mod rule;
mod throttle;
mod unique;

pub(crate) use excess::ExcessHandler;
pub use excess::{Excess, OnExcess};
pub use messages::ThrottledMessages;
pub use rule::WsRule;
pub use throttle::WsThrottle;
