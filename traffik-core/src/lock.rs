//! How long the locks of a [`Store`](crate::Store) are held, and waited for.
//!
//! [`Locked`](crate::Locked) takes locks, and whoever takes a [`Lock`] for purposes of their own.
//! What they do not set by a [`LockConfig`] comes from what was set here for the whole process, else
//! from the environment, else from the defaults; a backend asks once, when it is built:
//!
//! | setting | variable | default |
//! |---|---|---|
//! | [`ttl`]: how long a lock is held at most | `TRAFFIK_DEFAULT_LOCK_TTL`, seconds | [`DEFAULT_TTL`] |
//! | [`blocking`]: whether to wait for a lock | `TRAFFIK_DEFAULT_BLOCKING`, `1`, `true`, `yes` or `on` | yes |
//! | [`blocking_timeout`]: how long to wait | `TRAFFIK_DEFAULT_BLOCKING_TIMEOUT`, seconds | the ttl |
//!
//! The clocks of those who hold locks and of those who keep them may run differently. So a holder
//! counts on a lock for a hundredth of its ttl and 2 ms less, as in the
//! [Redlock algorithm](https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/).

mod guard;

use std::env;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

pub use guard::Lock;

use crate::error::{Error, Result};

/// How long a lock is held at most unless set otherwise. There always is a limit: a holder that
/// crashes would lock everybody out for ever.
pub const DEFAULT_TTL: Duration = Duration::from_secs(5);

static PROCESS: RwLock<LockConfig> = RwLock::new(LockConfig::new());

/// How locks are taken. What is not set comes from [the process](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct LockConfig {
    ttl: Option<Duration>,
    blocking: Option<bool>,
    blocking_timeout: Option<Duration>,
}

impl LockConfig {
    /// Nothing is set.
    pub const fn new() -> LockConfig {
        LockConfig {
            ttl: None,
            blocking: None,
            blocking_timeout: None,
        }
    }

    /// How long a lock is held at most, if its holder does not release it. Zero means
    /// [`DEFAULT_TTL`].
    pub const fn ttl(mut self, ttl: Duration) -> LockConfig {
        self.ttl = Some(ttl);
        self
    }

    /// Whether to wait for a lock that somebody else holds.
    pub const fn blocking(mut self, blocking: bool) -> LockConfig {
        self.blocking = Some(blocking);
        self
    }

    /// How long to wait for a lock.
    pub const fn blocking_timeout(mut self, timeout: Duration) -> LockConfig {
        self.blocking_timeout = Some(timeout);
        self
    }

    /// What is in force, with what the process says filled in.
    pub(crate) fn terms(self) -> Result<Terms> {
        let or = |own, process| match own {
            Some(own) => Ok(Some(own)),
            None => process,
        };
        let ttl = or(self.ttl, ttl())?.filter(|ttl| !ttl.is_zero());
        let ttl = ttl.unwrap_or(DEFAULT_TTL);
        if validity(ttl).is_zero() {
            return Err(Error::invalid(format!(
                "a lock that is held for {ttl:?} at most is over before it can be used; choose \
                 seconds"
            )));
        }
        let patience = or(self.blocking_timeout, blocking_timeout())?.unwrap_or(ttl);
        Ok(Terms {
            ttl,
            patience: match self.blocking.unwrap_or_else(blocking) {
                true => patience,
                false => Duration::ZERO,
            },
        })
    }
}

/// How locks are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// How long a lock is held at most; not zero.
    pub(crate) ttl: Duration,
    /// How long to wait for it.
    pub(crate) patience: Duration,
}

/// How long a holder may count on a lock from when it was asked for.
pub(crate) fn validity(ttl: Duration) -> Duration {
    ttl.saturating_sub(ttl / 100 + Duration::from_millis(2))
}

/// How long a lock is held at most, if set.
///
/// # Errors
///
/// If the variable is not a number of seconds, zero or more.
pub fn ttl() -> Result<Option<Duration>> {
    match process().ttl {
        Some(ttl) => Ok(Some(ttl)),
        None => seconds("TRAFFIK_DEFAULT_LOCK_TTL"),
    }
}

/// Sets how long locks are held at most in this process; `None` leaves it to the environment.
pub fn set_ttl(ttl: Option<Duration>) {
    change(|process| process.ttl = ttl);
}

/// Whether to wait for locks.
pub fn blocking() -> bool {
    process()
        .blocking
        .unwrap_or_else(|| flag(variable("TRAFFIK_DEFAULT_BLOCKING").as_deref()))
}

/// Sets whether this process waits for locks; `None` leaves it to the environment.
pub fn set_blocking(blocking: Option<bool>) {
    change(|process| process.blocking = blocking);
}

/// How long to wait for locks, if set.
///
/// # Errors
///
/// If the variable is not a number of seconds, zero or more.
pub fn blocking_timeout() -> Result<Option<Duration>> {
    match process().blocking_timeout {
        Some(timeout) => Ok(Some(timeout)),
        None => seconds("TRAFFIK_DEFAULT_BLOCKING_TIMEOUT"),
    }
}

/// Sets how long this process waits for locks; `None` leaves it to the environment.
pub fn set_blocking_timeout(timeout: Option<Duration>) {
    change(|process| process.blocking_timeout = timeout);
}

fn process() -> LockConfig {
    // The settings are replaced as a whole.
    *PROCESS.read().unwrap_or_else(PoisonError::into_inner)
}

fn change(change: impl FnOnce(&mut LockConfig)) {
    change(&mut PROCESS.write().unwrap_or_else(PoisonError::into_inner));
}

fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn seconds(name: &str) -> Result<Option<Duration>> {
    variable(name)
        .map(|value| parse_seconds(name, &value))
        .transpose()
}

fn parse_seconds(name: &str, value: &str) -> Result<Duration> {
    let wrong = |what| Error::invalid(format!("{name} must be {what}, not {value:?}"));
    match value.trim().parse::<f64>() {
        Ok(seconds) if seconds < 0.0 => Err(wrong("a non-negative number of seconds")),
        Ok(seconds) => Duration::try_from_secs_f64(seconds)
            .map_err(|error| wrong("a number of seconds such as 2.5").with_source(error)),
        Err(error) => Err(wrong("a number of seconds such as 2.5").with_source(error)),
    }
}

/// Unset means yes; everything but the words for yes means no.
fn flag(value: Option<&str>) -> bool {
    value.is_none_or(|value| {
        ["1", "true", "yes", "on"]
            .iter()
            .any(|yes| value.eq_ignore_ascii_case(yes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_validated_as_in_the_original() {
        let parse = |value| parse_seconds("V", value).map_err(|error| error.to_string());
        assert_eq!(parse("2.5"), Ok(Duration::from_millis(2_500)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        assert_eq!(
            parse("-1"),
            Err("V must be a non-negative number of seconds, not \"-1\"".into())
        );
        for value in ["", "soon", "1s", "nan", "inf", "1e300"] {
            assert_eq!(
                parse(value),
                Err(format!(
                    "V must be a number of seconds such as 2.5, not {value:?}"
                ))
            );
        }
    }

    #[test]
    fn flags_are_read_as_in_the_original() {
        for (value, expected) in [
            (None, true),
            (Some("1"), true),
            (Some("TRUE"), true),
            (Some("yes"), true),
            (Some("On"), true),
            (Some(""), false),
            (Some("0"), false),
            (Some("y"), false),
        ] {
            assert_eq!(flag(value), expected, "{value:?}");
        }
    }

    /// One test, since it is about state of the process.
    #[test]
    fn a_backend_overrides_the_process_which_overrides_the_environment() {
        let defaults = Terms {
            ttl: DEFAULT_TTL,
            patience: DEFAULT_TTL,
        };
        assert_eq!(LockConfig::new().terms().unwrap(), defaults);

        let second = Duration::from_secs(1);
        set_ttl(Some(2 * second));
        set_blocking_timeout(Some(second));
        assert_eq!(ttl().unwrap(), Some(2 * second));
        let terms = LockConfig::new().terms().unwrap();
        assert_eq!((terms.ttl, terms.patience), (2 * second, second));
        let own = LockConfig::new().ttl(9 * second).blocking(false);
        let terms = own.terms().unwrap();
        assert_eq!((terms.ttl, terms.patience), (9 * second, Duration::ZERO));
        set_blocking(Some(false));
        assert!(!blocking());
        assert!(LockConfig::new().terms().unwrap().patience.is_zero());

        set_ttl(None);
        set_blocking(None);
        set_blocking_timeout(None);
        assert_eq!(
            LockConfig::new().ttl(Duration::ZERO).terms().unwrap(),
            defaults
        );
    }
}
