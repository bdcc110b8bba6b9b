//! What happens to messages to clients beyond their limits.

use std::fmt;
use std::time::Duration;

use actix_ws::{CloseCode, CloseReason};
use traffik_core::{Decisions, Error};

/// What becomes of a message to a client when the budget of what [goes out](crate::WsThrottle::outgoing) is spent.
///
/// A throttle with [`wait_up_to`](crate::HttpThrottleBuilder::wait_up_to) holds it back until its time first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnSpent {
    /// It is not sent, and whoever sends it is told: [`SendError::Denied`]. The default.
    #[default]
    Fail,
    /// It is not sent, and nobody is told; [counted](crate::ThrottledSession::unsent) it is.
    Discard,
    /// It is not sent, and the connection closed with code 1013 (try again later).
    Close,
}

/// Why a message to a client was not sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SendError {
    /// The connection is closed.
    Closed,
    /// It is beyond a limit of what goes out.
    Denied {
        /// When such a message may be sent, unless it costs more than its limit ever allows.
        retry_after: Option<Duration>,
    },
    /// The [`Outbox`](crate::Outbox) is full.
    Full,
    /// A limit could not be checked, and its policy is to [raise](traffik_core::OnError::Raise).
    Unchecked(Error),
}

impl SendError {
    pub(super) fn denied(decisions: &Decisions) -> SendError {
        SendError::Denied {
            retry_after: decisions.retry_after(),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Closed => f.write_str("the connection is closed"),
            SendError::Denied { retry_after: None } => {
                f.write_str("the message costs more than a limit ever allows")
            }
            SendError::Denied {
                retry_after: Some(wait),
            } => write!(f, "the message is beyond a limit for {wait:?}"),
            SendError::Full => f.write_str("the outbox is full"),
            SendError::Unchecked(_) => f.write_str("a limit cannot be checked"),
        }
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SendError::Unchecked(error) => Some(error),
            _ => None,
        }
    }
}

impl From<actix_ws::Closed> for SendError {
    fn from(_: actix_ws::Closed) -> Self {
        SendError::Closed
    }
}

/// What a client is told whose connection is closed. It did nothing wrong.
pub(super) fn close_reason(decisions: &Decisions) -> CloseReason {
    let text = match decisions.retry_after() {
        Some(wait) => format!(
            "rate_limit;retry_after_ms={}",
            wait.as_micros().div_ceil(1_000)
        ),
        None => "rate_limit".to_owned(),
    };
    (CloseCode::Again, text).into()
}
