//! Limits on the messages of WebSockets.

mod ask;
mod assembly;
mod connection;
mod excess;
mod held;
mod limit;
mod messages;
mod outbox;
mod recent;
mod rule;
mod session;
mod spent;
mod throttle;
mod unique;

pub use ask::WsAsk;
pub(crate) use excess::ExcessHandler;
pub use excess::{Excess, OnExcess};
pub use messages::ThrottledMessages;
pub use outbox::Outbox;
pub use rule::WsRule;
pub use session::ThrottledSession;
pub use spent::{OnSpent, SendError};
pub use throttle::WsThrottle;
