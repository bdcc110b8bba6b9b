//! Where a request meets its throttles.

pub(crate) mod extract;
pub(crate) mod guard;
pub(crate) mod handler;
pub(crate) mod headers;
pub(crate) mod in_flight;
pub(crate) mod middleware;
pub(crate) mod rule;
