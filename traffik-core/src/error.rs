//! What can go wrong. A denial is not among it: that is a [`Decision`](crate::Decision).

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

/// The result of an operation that may fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Arc<dyn std::error::Error + Send + Sync>;

/// A throttle could not be built, or its backend could not decide.
///
/// The text names what was attempted, never a key or an identity. Clones share the cause.
///
/// A `Box`, whose pointer is all that is needed to drop it: an `Arc` would be dropped by reference,
/// for which the compiler keeps every `Result` in memory, and copies the decisions that are in it.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    source: Option<Source>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Invalid,
    Timeout,
    Connection,
    Interrupted,
    Contended,
    Overloaded,
    Closed,
    Unresolved,
    Other,
}

impl Error {
    fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Error {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    /// A setting or an argument is wrong; the message says what would be right.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Invalid, message)
    }

    /// The store did not answer in time. The hit may or may not have been charged.
    pub fn timeout(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Timeout, message)
    }

    /// The store could not be reached. Nothing was charged.
    pub fn connection(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Connection, message)
    }

    /// The connection broke while the store was deciding. The hit may or may not have been charged.
    pub fn interrupted(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Interrupted, message)
    }

    /// Too many others wrote the same key at the same time. Nothing was charged.
    pub fn contended(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Contended, message)
    }

    /// There was no room to even ask the store. Nothing was charged.
    pub fn overloaded(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Overloaded, message)
    }

    /// The backend was closed.
    pub fn closed(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Closed, message)
    }

    /// A function that should say who asks, at what cost or under which rate, could not make sense of
    /// a request. No store was asked, and nothing was charged. The text is for whoever asked: it
    /// names the function, and quotes neither the request nor the cause.
    pub fn unresolved(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Unresolved, message)
    }

    /// Anything else.
    pub fn other(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Other, message)
    }

    /// Says where it went wrong, in front of what did: ``throttle `api`: a rate is missing``.
    pub fn within(mut self, place: impl fmt::Display) -> Error {
        self.0.message = format!("{place}: {}", self.0.message).into();
        self
    }

    /// The same of something of which a part has been charged: it is certain no more that nothing was.
    #[cfg(any(feature = "redis", feature = "memcached"))]
    pub(crate) fn after_a_part(self, charged: &str) -> Error {
        match self.is_unexecuted() {
            true => Error::interrupted(format!("{charged}: {self}")).with_source(self),
            false => self,
        }
    }

    /// Adds the cause.
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        self.0.source = Some(source.into().into());
        self
    }

    /// Whether a setting or an argument is wrong.
    pub fn is_invalid(&self) -> bool {
        self.0.kind == Kind::Invalid
    }

    /// Whether the store did not answer in time.
    pub fn is_timeout(&self) -> bool {
        self.0.kind == Kind::Timeout
    }

    /// Whether the store could not be reached.
    pub fn is_connection(&self) -> bool {
        self.0.kind == Kind::Connection
    }

    /// Whether the connection broke while the store was deciding.
    pub fn is_interrupted(&self) -> bool {
        self.0.kind == Kind::Interrupted
    }

    /// Whether too many others wrote the same key at the same time.
    pub fn is_contended(&self) -> bool {
        self.0.kind == Kind::Contended
    }

    /// Whether there was no room to ask the store.
    pub fn is_overloaded(&self) -> bool {
        self.0.kind == Kind::Overloaded
    }

    /// Whether the backend was closed.
    pub fn is_closed(&self) -> bool {
        self.0.kind == Kind::Closed
    }

    /// Whether a function could not make sense of a request, so that it is not even known who asks.
    ///
    /// It is the request that is at fault, or the function, but no store. Who admits it opens the limit
    /// to whoever can make the function fail.
    pub fn is_unresolved(&self) -> bool {
        self.0.kind == Kind::Unresolved
    }

    /// Whether certainly nothing was charged, so that asking again cannot charge twice.
    pub fn is_unexecuted(&self) -> bool {
        matches!(
            self.0.kind,
            Kind::Invalid
                | Kind::Connection
                | Kind::Contended
                | Kind::Overloaded
                | Kind::Closed
                | Kind::Unresolved
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<crate::RateError> for Error {
    fn from(error: crate::RateError) -> Self {
        Error::invalid(error.message())
    }
}

/// For `?` in `fn main() -> std::io::Result<()>`, as most actix-web programs have it.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.0.kind {
            Kind::Invalid | Kind::Unresolved => io::ErrorKind::InvalidInput,
            Kind::Timeout => io::ErrorKind::TimedOut,
            Kind::Connection | Kind::Closed => io::ErrorKind::NotConnected,
            Kind::Interrupted => io::ErrorKind::ConnectionAborted,
            Kind::Contended | Kind::Overloaded => io::ErrorKind::ResourceBusy,
            Kind::Other => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// The same for a rate that is parsed there.
impl From<crate::RateError> for io::Error {
    fn from(error: crate::RateError) -> Self {
        Error::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rate, Throttle};

    /// Issue 9, F 16: `build()?` did not compile in the `main` of most actix-web programs.
    #[test]
    fn a_main_that_returns_io_errors_may_build_a_throttle() {
        fn build(rate: &str) -> io::Result<Throttle> {
            Rate::parse("1/s")?;
            Ok(Throttle::builder("api").rate(rate).build()?)
        }
        build("1/s").unwrap();
        let error = build("1").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let text = error.to_string();
        assert!(
            text.starts_with("throttle `api`: \"1\" is no rate"),
            "{text}"
        );
        // Who looks for the cause finds it.
        let ours: &Error = error.get_ref().unwrap().downcast_ref().unwrap();
        assert!(ours.is_invalid());
    }

    #[test]
    fn an_io_error_tells_what_kind_of_failure_it_was() {
        for (error, kind) in [
            (Error::invalid(""), io::ErrorKind::InvalidInput),
            (Error::timeout(""), io::ErrorKind::TimedOut),
            (Error::connection(""), io::ErrorKind::NotConnected),
            (Error::interrupted(""), io::ErrorKind::ConnectionAborted),
            (Error::contended(""), io::ErrorKind::ResourceBusy),
            (Error::overloaded(""), io::ErrorKind::ResourceBusy),
            (Error::closed(""), io::ErrorKind::NotConnected),
            (Error::unresolved(""), io::ErrorKind::InvalidInput),
            (Error::other(""), io::ErrorKind::Other),
        ] {
            let ours = error.clone();
            assert_eq!(io::Error::from(error).kind(), kind, "{ours:?}");
        }
    }
}
