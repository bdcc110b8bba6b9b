//! What happens to messages beyond their limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_ws::{AggregatedMessage, CloseCode, CloseReason, Session};
use futures_util::future::LocalBoxFuture;
use serde_json::{Map, Value};
use traffik_core::headers::whole_seconds;

use crate::response::denial::Denial;

/// What to do about a message beyond its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnExcess {
    /// Drop it and tell the client, with the [notice](Excess::notice) of the original: once per announced
    /// wait and throttle, so that a flood is not answered with a flood, and not at all if the client
    /// does not read what it is sent. The connection stays open. The default.
    #[default]
    Notify,
    /// Drop it silently.
    Discard,
    /// Close the connection, with code 1008 (policy violation), or 1013 (try again later) if it was not
    /// the client's fault because a backend failed. The reason is `rate_limit;retry_after_ms=1500`.
    Close,
    /// Let it pass, uncharged: to find out what a limit would do, or to make exceptions.
    Admit,
}

/// A message beyond its limits, for functions that decide what to do about it.
#[non_exhaustive]
pub struct Excess<'a> {
    /// The message.
    pub message: &'a AggregatedMessage,
    /// What was decided, and about whom: its request is the handshake.
    pub denial: Denial<'a>,
    /// How many messages of this connection were beyond their limits since the last that was not,
    /// this one included. Those that were denied because a backend failed do not count.
    pub in_a_row: u32,
    pub(super) session: &'a Session,
    pub(super) extras: &'a Map<String, Value>,
}

impl Excess<'_> {
    /// A handle for sending something to the client.
    ///
    /// Sending waits while a client does not read what it was sent before: bound it if clients are not
    /// trusted.
    pub fn session(&self) -> Session {
        self.session.clone()
    }

    /// The text that tells a client about it: JSON, here with an [extra](crate::WsThrottle::extra)
    /// `room`. `retry_after` is in whole seconds, rounded up, and absent if such a message never passes.
    ///
    /// ```json
    /// {"type":"rate_limit","error":"Too many messages","retry_after":2,"room":"lobby"}
    /// ```
    pub fn notice(&self) -> String {
        let wait = self.denial.retry_after();
        let error = match wait {
            Some(_) if !self.is_clients_fault() => "Rate limits cannot be checked at the moment",
            Some(_) => "Too many messages",
            None => "This message costs more than its limit ever allows",
        };
        let mut fields = vec![
            ("type", Value::from("rate_limit")),
            ("error", Value::from(error)),
        ];
        fields.extend(wait.map(|wait| ("retry_after", Value::from(announced(wait).as_secs()))));
        let own = fields
            .iter()
            .filter(|(name, _)| !self.extras.contains_key(*name))
            .map(|(name, value)| format!("\"{name}\":{value}"));
        let extra = self
            .extras
            .iter()
            .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())));
        format!("{{{}}}", own.chain(extra).collect::<Vec<_>>().join(","))
    }

    /// How long to say nothing more after a notice: as long as the client was told to wait.
    pub(super) fn quiet(&self) -> Duration {
        announced(self.denial.retry_after().unwrap_or_default())
    }

    /// Whether a limit was exceeded, as opposed to one that could not be checked.
    pub(super) fn is_clients_fault(&self) -> bool {
        let mut denied = self.denial.all.iter().map(|one| &one.decision);
        denied.any(|one| one.is_denied() && !one.is_unchecked())
    }

    pub(super) fn close_reason(&self) -> CloseReason {
        let code = match self.is_clients_fault() {
            true => CloseCode::Policy,
            false => CloseCode::Again,
        };
        let text = match self.denial.retry_after() {
            Some(wait) => format!(
                "rate_limit;retry_after_ms={}",
                wait.as_micros().div_ceil(1_000)
            ),
            None => "rate_limit".to_owned(),
        };
        (code, text).into()
    }
}

/// A wait in whole seconds, as clients are told.
fn announced(wait: Duration) -> Duration {
    Duration::from_secs(whole_seconds(wait).max(1))
}

impl fmt::Debug for Excess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Excess")
            .field("denial", &self.denial)
            .field("in_a_row", &self.in_a_row)
            .finish_non_exhaustive()
    }
}

/// What decides about messages beyond their limits.
#[derive(Clone)]
pub(crate) enum ExcessHandler {
    Fixed(OnExcess),
    Function(Arc<dyn AnswerExcess + Send + Sync>),
}

impl ExcessHandler {
    pub(crate) fn new<F>(f: F) -> ExcessHandler
    where
        F: AsyncFn(&Excess<'_>) -> OnExcess + Send + Sync + 'static,
    {
        ExcessHandler::Function(Arc::new(f))
    }

    pub(super) async fn answer(&self, excess: &Excess<'_>) -> OnExcess {
        match self {
            ExcessHandler::Fixed(answer) => *answer,
            ExcessHandler::Function(f) => f.answer(excess).await,
        }
    }
}

pub(crate) trait AnswerExcess {
    fn answer<'a>(&'a self, excess: &'a Excess<'_>) -> LocalBoxFuture<'a, OnExcess>;
}

impl<F: AsyncFn(&Excess<'_>) -> OnExcess> AnswerExcess for F {
    fn answer<'a>(&'a self, excess: &'a Excess<'_>) -> LocalBoxFuture<'a, OnExcess> {
        Box::pin(self(excess))
    }
}

impl fmt::Debug for ExcessHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExcessHandler::Fixed(answer) => answer.fmt(f),
            ExcessHandler::Function(_) => f.write_str("function"),
        }
    }
}
