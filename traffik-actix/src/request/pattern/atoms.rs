//! The parts of a regular expression, as far as it shows by them that no path matches.

use regex_lite::Regex;

/// One part that is not divided further, and whether it may be left out.
struct Atom<'a> {
    text: &'a str,
    is_optional: bool,
}

impl Atom<'_> {
    /// Whether it stands for no character: `^`, `\A`, `\B`, `(?i)`.
    fn is_empty(&self) -> bool {
        matches!(self.text, "^" | r"\A" | r"\B")
            || self.text.starts_with("(?") && !self.text.contains([':', '<'])
    }

    fn is_end(&self) -> bool {
        matches!(self.text, "$" | r"\z")
    }

    fn may_begin_with_slash(&self) -> bool {
        if let Some(inner) = group(self.text) {
            return alternatives(inner).into_iter().any(may_begin_with_slash);
        }
        // What is no regular expression is refused as such.
        let regex = Regex::new(&format!("^(?s:{})", self.text));
        regex.is_ok_and(|regex| regex.is_match("/"))
    }
}

/// Whether something that begins with a slash may match an expression that has no alternatives. In doubt
/// it may.
pub(super) fn may_begin_with_slash(regex: &str) -> bool {
    for atom in atoms(regex) {
        if atom.is_empty() {
            continue;
        }
        if atom.may_begin_with_slash() {
            return true;
        }
        if !atom.is_optional {
            return false;
        }
    }
    true
}

/// Whether something has to follow the end of the text, which nothing does.
pub(super) fn goes_beyond_the_end(regex: &str) -> bool {
    let mut after_end = false;
    atoms(regex).any(|atom| {
        let follows =
            after_end && !atom.is_optional && !atom.is_end() && group(atom.text).is_none();
        after_end |= atom.is_end() && !atom.is_optional;
        follows && !atom.is_empty()
    })
}

/// Anchors and flags at the beginning, and the rest.
pub(super) fn split_prefix(regex: &str) -> (&str, &str) {
    let prefix = atoms(regex).take_while(Atom::is_empty);
    regex.split_at(prefix.map(|atom| atom.text.len()).sum())
}

/// What is in the group that an expression is, if it is one.
pub(super) fn group(regex: &str) -> Option<&str> {
    let inner = regex.strip_prefix('(')?;
    let is_whole = end_of_atom(regex) == Some(regex.len());
    let inner = inner.strip_suffix(')').filter(|_| is_whole)?;
    match inner.strip_prefix('?') {
        Some(named) => named.split_once([':', '>']).map(|(_, inner)| inner),
        None => Some(inner),
    }
}

/// The parts between the `|` that are in no group and in no class.
pub(super) fn alternatives(regex: &str) -> Vec<&str> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(length) = end_of_atom(&regex[at..]) {
        if regex[at..].starts_with('|') {
            parts.push(&regex[start..at]);
            start = at + 1;
        }
        at += length;
    }
    parts.push(&regex[start..]);
    parts
}

fn atoms(regex: &str) -> impl Iterator<Item = Atom<'_>> {
    let mut left = regex;
    std::iter::from_fn(move || {
        let (text, rest) = left.split_at(end_of_atom(left)?);
        let is_optional = rest.starts_with(['?', '*']) || rest.starts_with("{0");
        left = match rest.strip_prefix('{') {
            Some(counted) => counted.split_once('}').map_or("", |(_, rest)| rest),
            None => rest.strip_prefix(['?', '*', '+']).unwrap_or(rest),
        };
        if left.len() < rest.len() {
            left = left.strip_prefix('?').unwrap_or(left);
        }
        Some(Atom { text, is_optional })
    })
}

/// How long the first part is; `None` if there is none, or it does not end.
fn end_of_atom(regex: &str) -> Option<usize> {
    let first = regex.chars().next()?;
    match first {
        '\\' => end_of_escape(regex),
        '[' => end_of_class(regex),
        '(' => end_of_group(regex),
        _ => Some(first.len_utf8()),
    }
}

/// `\d`, `\x2F`, `\x{2F}`.
fn end_of_escape(regex: &str) -> Option<usize> {
    let kind = regex[1..].chars().next()?;
    let braced = regex[1 + kind.len_utf8()..].starts_with('{');
    let end = match kind {
        'x' | 'u' | 'U' if braced => regex.find('}')? + 1,
        'x' => 4,
        'u' => 6,
        'U' => 10,
        _ => 1 + kind.len_utf8(),
    };
    regex.is_char_boundary(end).then_some(end)
}

fn end_of_class(regex: &str) -> Option<usize> {
    let mut at = 1 + usize::from(regex[1..].starts_with('^'));
    // The first character may be the bracket itself.
    at += usize::from(regex[at..].starts_with(']'));
    while !regex[at..].starts_with(']') {
        let next = regex[at..].chars().next()?;
        at += match next {
            '\\' => end_of_escape(&regex[at..])?,
            _ => next.len_utf8(),
        };
    }
    Some(at + 1)
}

fn end_of_group(regex: &str) -> Option<usize> {
    let mut at = 1;
    while !regex[at..].starts_with(')') {
        at += end_of_atom(&regex[at..])?;
    }
    Some(at + 1)
}
