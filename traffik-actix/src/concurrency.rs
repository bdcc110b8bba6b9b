//! How many requests at a time.

pub(crate) mod body;
pub(crate) mod builder;
pub(crate) mod busy;
pub(crate) mod limit;
pub(crate) mod middleware;
