//! The lists in which proxies name their clients, from the nearest hop to the farthest.
//!
//! Each proxy appends to what it was sent, so that everything to the left of its own element may be
//! anything: bytes that are no text, and quotes without a partner. Read from the left, one quote of a client
//! would swallow what proxies say. From the right, an element begins where the grammar says, whatever is
//! before it, as long as whoever wrote it kept to the grammar.

use std::borrow::Cow;

/// Elements of one line, from the right. Empty ones are none (RFC 9110, section 5.6.1.2).
#[derive(Debug)]
pub(super) struct Elements<'a> {
    rest: Option<&'a [u8]>,
    has_quotes: bool,
}

impl<'a> Elements<'a> {
    /// Of a list of addresses.
    pub(super) fn plain(line: &'a [u8]) -> Elements<'a> {
        Elements {
            rest: Some(line),
            has_quotes: false,
        }
    }

    /// Of a list whose elements may have commas in quoted strings.
    pub(super) fn quoted(line: &'a [u8]) -> Elements<'a> {
        Elements {
            rest: Some(line),
            has_quotes: true,
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let rest = self.rest.take()?;
            let comma = match self.has_quotes {
                true => last_comma(rest),
                false => rest.iter().rposition(|byte| *byte == b','),
            };
            self.rest = comma.map(|at| &rest[..at]);
            let element = rest[comma.map_or(0, |at| at + 1)..].trim_ascii();
            if !element.is_empty() {
                return Some(element);
            }
        }
    }
}

/// The last comma outside of quoted strings. A quote without a partner takes everything before it.
fn last_comma(text: &[u8]) -> Option<usize> {
    let mut end = text.len();
    loop {
        let at = text[..end]
            .iter()
            .rposition(|byte| matches!(byte, b',' | b'"'))?;
        end = match text[at] {
            b',' => return Some(at),
            _ => opening_quote(&text[..at])?,
        };
    }
}

/// Where the quoted string begins that ends with this text.
///
/// A quote inside is escaped, which shows by what is before it: a run of backslashes is one of pairs, and
/// one that is left over is the quote's.
fn opening_quote(text: &[u8]) -> Option<usize> {
    let mut end = text.len();
    loop {
        let at = text[..end].iter().rposition(|byte| *byte == b'"')?;
        let backslashes = text[..at].iter().rev().take_while(|byte| **byte == b'\\');
        match backslashes.count() % 2 {
            0 => return Some(at),
            _ => end = at,
        }
    }
}

/// The value of the one `for` of an element; `None` if there is none, or two, or if the element is not by
/// the grammar of RFC 7239, section 4. It may have spaces around its separators, and characters in values
/// that should be in quotes, since some proxies write `for=[::1]:80`.
pub(super) fn for_parameter(element: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut found = None;
    let mut rest = element.trim_ascii();
    while !rest.is_empty() {
        if rest[0] != b';' {
            let equals = rest.iter().position(|byte| *byte == b'=')?;
            let name = rest[..equals].trim_ascii();
            if name.is_empty() || name.iter().any(|byte| b"\";,".contains(byte)) {
                return None;
            }
            let (value, after) = value(rest[equals + 1..].trim_ascii_start())?;
            if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
                return None;
            }
            rest = after.trim_ascii_start();
        }
        rest = match rest.split_first() {
            Some((b';', rest)) => rest.trim_ascii_start(),
            Some(_) => return None,
            None => rest,
        };
    }
    found
}

/// A value, and what follows it.
fn value(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    if let Some(quoted) = text.strip_prefix(b"\"") {
        return quoted_string(quoted);
    }
    let end = text.iter().position(|byte| *byte == b';');
    let (value, rest) = text.split_at(end.unwrap_or(text.len()));
    let fits = !value.contains(&b'"') && !value.contains(&b',');
    fits.then(|| (Cow::Borrowed(value.trim_ascii()), rest))
}

/// What is in quotes (RFC 9110, section 5.6.4), after the first of them.
fn quoted_string(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut unescaped = Vec::new();
    let mut at = 0;
    let mut from = 0;
    loop {
        match text.get(at)? {
            b'"' => break,
            b'\\' => {
                unescaped.extend_from_slice(&text[from..at]);
                // The escaped character is taken whatever it is.
                (from, at) = (at + 1, at + 2);
            }
            _ => at += 1,
        }
    }
    let rest = &text[at + 1..];
    if from == 0 {
        return Some((Cow::Borrowed(&text[..at]), rest));
    }
    unescaped.extend_from_slice(&text[from..at]);
    Some((Cow::Owned(unescaped), rest))
}
