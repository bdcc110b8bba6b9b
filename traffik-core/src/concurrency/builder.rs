use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::table::Table;
use super::{Concurrency, Inner};
use crate::error::{Error, Result};
use crate::key::KeyHasher;
use crate::name::{LONGEST_NAME, check_length, excerpt};

/// Settings of a [`Concurrency`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ConcurrencyBuilder {
    name: String,
    limit: Option<u32>,
    is_shared: bool,
    max_waiters: usize,
    max_waiters_per_client: Option<usize>,
}

impl ConcurrencyBuilder {
    pub(super) fn new(name: String) -> ConcurrencyBuilder {
        ConcurrencyBuilder {
            name,
            limit: None,
            is_shared: false,
            max_waiters: 1_000,
            max_waiters_per_client: None,
        }
    }

    /// Sets how many may be under way at a time. Required, and at least one.
    pub fn in_flight(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Counts all identities together: what the whole can do at a time, not what each of them gets.
    pub fn shared(mut self) -> Self {
        self.is_shared = true;
        self
    }

    /// Sets how many may wait for their turn at a time, over all; more are sent away at once. Default: 1,000.
    pub fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.max_waiters = max_waiters;
        self
    }

    /// Sets how many of one identity may wait at a time, so that nobody takes every place. Default: a quarter
    /// of [`max_waiters`](ConcurrencyBuilder::max_waiters), and at least one.
    pub fn max_waiters_per_client(mut self, max_waiters: usize) -> Self {
        self.max_waiters_per_client = Some(max_waiters);
        self
    }

    /// The limit.
    ///
    /// # Errors
    ///
    /// If the name is empty, not printable ASCII or longer than 256 bytes, or if it is not said how many may be
    /// under way, or none.
    pub fn build(self) -> Result<Concurrency> {
        let name = self.name;
        if name.is_empty() || !name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Error::invalid(format!(
                "the name of a limit must be printable ASCII, such as `uploads`, not {:?}",
                excerpt(&name)
            )));
        }
        check_length("the name of a limit", &name, LONGEST_NAME)?;
        let wrong = |what: &str| {
            Err(Error::invalid(format!(
                "limit `{name}`: {what} may be in flight at a time: write `.in_flight(10)`"
            )))
        };
        let limit = match self.limit {
            None => return wrong("it is not said how many"),
            Some(0) => return wrong("nothing would ever be admitted if none"),
            Some(limit) => limit,
        };
        Ok(Concurrency(Arc::new(Inner {
            name,
            limit,
            is_shared: self.is_shared,
            max_waiters: self.max_waiters,
            max_waiters_per_client: self
                .max_waiters_per_client
                .unwrap_or((self.max_waiters / 4).max(1)),
            waiting: AtomicUsize::new(0),
            hasher: *KeyHasher::local(),
            table: Table::new(),
        })))
    }
}
