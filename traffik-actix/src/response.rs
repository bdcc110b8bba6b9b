//! What goes out: answers to requests that were denied or failed, and headers.

pub(crate) mod answer;
pub(crate) mod cors;
pub(crate) mod denial;
pub(crate) mod failed;
pub(crate) mod handler;
pub(crate) mod headers;
pub(crate) mod hit_error;
pub(crate) mod info;
mod kept;
pub(crate) mod problem;
pub(crate) mod reply;
pub(crate) mod unavailable;
pub(crate) mod unresolved;
