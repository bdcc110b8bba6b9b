//! Names that the user gives, and how long they may be.

use crate::error::{Error, Result};

/// Names are part of headers and log lines.
pub const LONGEST_NAME: usize = 256;

/// Namespaces are part of every key.
pub(crate) const LONGEST_NAMESPACE: usize = 128;

/// # Errors
///
/// If it is longer than that; the message shows how it begins.
pub(crate) fn check_length(what: &str, name: &str, longest: usize) -> Result<()> {
    match name.len() {
        length if length <= longest => Ok(()),
        length => Err(Error::invalid(format!(
            "{what} has at most {longest} bytes, not {length} as {:?} has",
            excerpt(name)
        ))),
    }
}

/// As much of a name as is shown.
pub(crate) fn excerpt(name: &str) -> String {
    match name.char_indices().nth(32) {
        Some((end, _)) if name.len() > LONGEST_NAMESPACE => format!("{}..", &name[..end]),
        _ => name.to_owned(),
    }
}
