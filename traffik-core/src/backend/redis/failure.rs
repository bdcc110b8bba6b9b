//! What went wrong, in our words.

use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::answer::Outcome;
use super::link::Lost;
use crate::error::Error;

impl Lost {
    /// Whether the server does not know the script by its digest.
    pub(super) fn is_unknown_script(&self) -> bool {
        matches!(self, Lost::Refused(error)
            if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
    }
}

impl From<Lost> for Error {
    fn from(lost: Lost) -> Error {
        match lost {
            Lost::Unexecuted(error) => not_connected(error),
            Lost::Interrupted(error) => Error::interrupted(format!(
                "the connection to redis broke before it answered: {}",
                cause(&error)
            ))
            .with_source(Shared(error)),
            Lost::Refused(error) => refused(error),
            Lost::Late(limit) => Error::timeout(format!("redis did not answer within {limit:?}")),
        }
    }
}

/// Says why in so many words: what is wrong with a certificate or a password is not to be guessed.
fn not_connected(error: Arc<RedisError>) -> Error {
    let cause = cause(&error);
    Error::connection(format!("redis cannot be reached: {cause}")).with_source(Shared(error))
}

/// Says why, since logs show nothing but this: that it has no memory left, or what it forbids.
fn refused(error: RedisError) -> Error {
    let (cause, advice) = (cause(&error), advice(&error));
    Error::other(format!("redis refused the command: {cause}{advice}")).with_source(error)
}

const PERMISSIONS: &str = "; `RedisBackend` documents the permissions that it needs";

/// What would be right.
fn advice(error: &RedisError) -> &'static str {
    match error.code() {
        Some("NOPERM") => PERMISSIONS,
        // So Redis 7.0 complains of scripts.
        Some("ERR")
            if error
                .detail()
                .is_some_and(|said| said.contains("can't run this command")) =>
        {
            PERMISSIONS
        }
        Some("OOM") => {
            "; it has no room for another count, and its `maxmemory-policy` does not let it evict any: \
             with more memory this passes, with `volatile-ttl` some may be forgiven instead"
        }
        _ => "",
    }
}

/// What went wrong with a command that is not a hit.
pub(super) fn explain(error: RedisError) -> Error {
    match error.code() {
        Some(_) => refused(error),
        None => not_connected(Arc::new(error)),
    }
}

/// In one line. A server speaks of commands, and repeats no key, value or password.
fn cause(error: &RedisError) -> String {
    if error.kind() == ErrorKind::MasterNameNotFoundBySentinel {
        return "no sentinel knows a master of this name that is up: either the name is wrong, or it \
                is down and the sentinels are about to elect another"
            .to_owned();
    }
    let said = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    };
    said.lines().next().unwrap_or_default().to_owned()
}

/// A mistake in a script: nothing is worse than a limiter that is wrong and silent.
pub(super) fn disagreement(outcome: Outcome) -> Error {
    Error::other(match outcome {
        Outcome::Admitted => {
            "redis admitted and charged a hit that the strategy denies: its `lua` and its `step` \
             differ"
        }
        Outcome::Denied | Outcome::Raced => {
            "redis denied a hit that the strategy admits: its `lua` and its `step` differ"
        }
    })
}

/// One failure of a connection fails all who wait for it.
#[derive(Debug)]
struct Shared(Arc<RedisError>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
