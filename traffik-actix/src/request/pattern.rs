//! Patterns of paths.

mod atoms;

use regex_lite::Regex;
use traffik_core::{Error, Result};

use crate::request::path::{any_spelling, reencoded};

/// What paths look like that a rule is for.
#[derive(Clone, Debug)]
pub(crate) struct PathPattern {
    /// What they begin with, in letters.
    head: String,
    /// The whole, if that does not say it all.
    regex: Option<Regex>,
}

/// What has a meaning in a regular expression, and hardly ever is in a path.
const REGEX_ONLY: [char; 12] = ['\\', '^', '$', '+', '?', '|', '(', ')', '[', ']', '{', '}'];

/// As actix-web's router reads its own: a path may have line breaks.
const FLAGS: &str = "(?s-m)";

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// If it is none, or if no path can ever match it.
    pub(crate) fn parse(pattern: &str) -> Result<PathPattern> {
        if let Some(complaint) = complaint(pattern) {
            return Err(Error::invalid(format!(
                "{pattern:?} is not a path pattern: {complaint}"
            )));
        }
        let pattern = reencoded_pattern(pattern);
        let regex = match is_glob(&pattern) {
            true => Some(glob(&pattern)),
            false if pattern.contains(|c| c == '.' || c == '*' || REGEX_ONLY.contains(&c)) => {
                Some(format!("{FLAGS}^(?:{pattern})"))
            }
            false => None,
        };
        let regex = regex.map(|regex| {
            Regex::new(&regex).map_err(|error| {
                Error::invalid(format!("{pattern:?} is not a path pattern: {error}"))
            })
        });
        Ok(PathPattern {
            head: head(&pattern).to_owned(),
            regex: regex.transpose()?,
        })
    }

    /// Whether a router may serve this path at a spelling that the pattern names.
    #[inline]
    pub(crate) fn matches(&self, path: &str) -> bool {
        any_spelling(path, |path| {
            path.starts_with(&*self.head)
                && self.regex.as_ref().is_none_or(|regex| regex.is_match(path))
        })
    }
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains("/*")
}

fn glob(pattern: &str) -> String {
    let mut regex = format!("{FLAGS}^");
    for (at, part) in pattern.split("**").enumerate() {
        if at > 0 {
            regex.push_str(".*");
        }
        for (at, literal) in part.split('*').enumerate() {
            if at > 0 {
                regex.push_str("[^/]+");
            }
            regex.push_str(&regex_lite::escape(literal));
        }
    }
    regex + "$"
}

/// The beginning of a pattern that stands for itself.
fn head(pattern: &str) -> &str {
    if pattern.contains('|') {
        return "";
    }
    let special = |c: char| c == '.' || c == '*' || REGEX_ONLY.contains(&c);
    let Some(at) = pattern.find(special) else {
        return pattern;
    };
    let head = &pattern[..at];
    // A quantifier speaks about the character before it.
    let is_quantified = !is_glob(pattern) && pattern[at..].starts_with(['?', '*', '{']);
    match head.char_indices().next_back() {
        Some((last, _)) if is_quantified => &head[..last],
        _ => head,
    }
}

/// What actix-web leaves encoded, written as [`canonical`](crate::request::path::canonical) paths are.
fn reencoded_pattern(pattern: &str) -> String {
    let plus = if is_glob(pattern) { "+" } else { r"\+" };
    let pattern = pattern.replace("%2b", plus).replace("%2B", plus);
    reencoded(&pattern).into_owned()
}

/// Why a pattern is none, or can never match, and what would be right.
fn complaint(pattern: &str) -> Option<String> {
    if let Some((_, rest)) = pattern.split_once("://") {
        let path = rest.find('/').map_or("/", |at| &rest[at..]);
        return Some(format!(
            "a path has no scheme and no host, so this never matches: write {path:?}"
        ));
    }
    if has_query(pattern) {
        let path = pattern.split('?').next().unwrap_or_default();
        return Some(format!(
            "the query is no part of the path, so this never matches: write {path:?}, and look at the \
             query in `.when(..)`"
        ));
    }
    if has_named_segments(pattern) {
        return Some(format!(
            "a segment has no name here: write {:?}",
            without_names(pattern)
        ));
    }
    if let Some(decoded) = decoded(pattern) {
        return Some(format!(
            "paths are matched decoded, so this never matches: write {decoded:?}"
        ));
    }
    let glob_and_regex = is_glob(pattern) && pattern.contains(REGEX_ONLY);
    if glob_and_regex {
        return Some(
            "the `/*` makes it a glob, in which only `*` and `**` have a meaning; in a regular \
             expression write `/[^/]*` or `/.*`"
                .to_owned(),
        );
    }
    let beyond = |alternative: &&str| atoms::goes_beyond_the_end(alternative);
    if !is_glob(pattern) && atoms::alternatives(pattern).iter().any(beyond) {
        return Some(format!(
            "nothing follows the end of a path, so this never matches: write {:?} if the character is meant",
            pattern.replace(r"\$", "$").replace('$', r"\$")
        ));
    }
    rooted(pattern)
        .map(|right| format!("a path begins with a slash, so this never matches: write {right:?}"))
}

/// `/search?q=`: in a regular expression an optional `h` before `q=`, which nobody means.
fn has_query(pattern: &str) -> bool {
    pattern.split('?').skip(1).any(|rest| {
        let name = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_' || c == '-');
        name.len() < rest.len() && name.starts_with('=')
    })
}

/// `/users/:id` and `/users/<id>` of other frameworks, `/users/{id}` of actix-web.
fn has_named_segments(pattern: &str) -> bool {
    let named = |start: &str| {
        pattern.match_indices(start).any(|(at, _)| {
            let name = &pattern[at + start.len()..];
            name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        })
    };
    named("/:") || named("/<") || named("{")
}

/// The same with a glob's stars, or if a name comes with a pattern, as a regular expression.
fn without_names(pattern: &str) -> String {
    let is_regex =
        pattern.contains(":") && pattern.contains('{') || pattern.contains(REGEX_BUT_NAMES);
    let one = if is_regex { "[^/]+" } else { "*" };
    let rest = if is_regex { ".*" } else { "**" };
    let mut written = String::new();
    let mut left = pattern;
    let name = |left: &str| {
        let angle = left.find("/<").map(|slash| slash + 1);
        left.find(['{', ':']).into_iter().chain(angle).min()
    };
    while let Some(at) = name(left) {
        written.push_str(&left[..at]);
        let end = match left[at..].chars().next() {
            Some(':') => left[at + 1..].find('/').map(|end| at + 1 + end),
            Some('<') => left[at..].find('>').map(|end| at + end + 1),
            _ => closing(left, at).map(|end| end + 1),
        };
        let end = end.unwrap_or(left.len());
        let inner = &left[at + 1..end];
        let is_brace = inner.ends_with('}');
        let inner = inner.strip_suffix('}').unwrap_or(inner);
        left = &left[end..];
        match inner.split_once(':') {
            Some((_, ".*")) if is_brace => written.push_str(rest),
            Some(("path", _)) if inner.ends_with('>') => written.push_str(rest),
            Some((_, regex)) if is_brace => written.push_str(&format!("({regex})")),
            _ => match left.strip_prefix('*') {
                Some(behind) => {
                    left = behind;
                    written.push_str(rest);
                }
                None => written.push_str(one),
            },
        }
    }
    written.push_str(left);
    if is_regex && !written.ends_with('$') {
        written.push('$');
    }
    written
}

/// What has a meaning in a regular expression, but none around a name.
const REGEX_BUT_NAMES: [char; 10] = ['\\', '^', '$', '+', '?', '|', '(', ')', '[', ']'];

/// Where the brace that is opened at a place is closed.
fn closing(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return Some(open + at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The pattern with everything decoded that actix-web decodes in a path, if there is something.
fn decoded(pattern: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(pattern.len());
    let mut found = false;
    let mut left = pattern;
    while let Some(at) = left.find('%') {
        bytes.extend_from_slice(&left.as_bytes()[..at]);
        left = &left[at..];
        let byte = left
            .get(1..3)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .filter(|byte| !b"%/+".contains(byte));
        let Some(byte) = byte else {
            bytes.push(b'%');
            left = &left[1..];
            continue;
        };
        found = true;
        left = &left[3..];
        match byte.is_ascii() && !is_glob(pattern) {
            true => bytes.extend(regex_lite::escape(&char::from(byte).to_string()).bytes()),
            false => bytes.push(byte),
        }
    }
    bytes.extend_from_slice(left.as_bytes());
    found.then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// What would be right for the first alternative that no path begins with.
fn rooted(pattern: &str) -> Option<String> {
    // A star at the beginning repeats nothing, so that it can only be meant as a glob's.
    if is_glob(pattern) || pattern.starts_with('*') {
        return (!pattern.starts_with('/')).then(|| with_slash(pattern));
    }
    atoms::alternatives(pattern)
        .into_iter()
        .find_map(|alternative| {
            let (prefix, rest) = atoms::split_prefix(alternative);
            if let Some(inner) = atoms::group(rest) {
                return rooted(inner);
            }
            let is_rootless = !atoms::may_begin_with_slash(rest);
            is_rootless.then(|| format!("{prefix}{}", with_slash(rest)))
        })
}

fn with_slash(part: &str) -> String {
    match part.trim_start().trim_start_matches('/') {
        "*" | "**" => "/**".to_owned(),
        part => format!("/{part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        PathPattern::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn patterns_are_anchored_at_the_start() {
        assert!(matches("/api/", "/api/x"));
        assert!(!matches("/api/", "/v1/api/"));
        assert!(!matches("/api/", "/API/"));
        assert!(!matches("/a|/b", "/x/b"));
        assert!(matches("/a|/b", "/b"));
        assert!(matches("/ab?c", "/ac"));
        assert!(matches("/a.c", "/abc"));
        assert!(matches("(?i)/api/", "/API/x"));
        assert!(matches("^/api/", "/api/x"));
        assert!(matches(r"/files/.*\.(pdf|zip)$", "/files/a/b.pdf"));
        assert!(!matches(r"/files/.*\.(pdf|zip)$", "/files/a/b.pdf.exe"));
        assert!(matches("", "/anything"));
    }

    #[test]
    fn globs_match_segments() {
        assert!(matches("/users/*/posts", "/users/7/posts"));
        assert!(!matches("/users/*/posts", "/users/7/8/posts"));
        assert!(!matches("/users/*/posts", "/users/7/posts/9"));
        assert!(matches("/files/**", "/files/a/b.pdf"));
        assert!(!matches("/f.les/*", "/files/a"));
        assert!(!matches("/admin/*", "/admin"));
        assert!(!matches("/admin/*", "/admin/"));
    }

    /// Issue: each of these was accepted, and the limit silently absent.
    #[test]
    fn what_can_never_match_is_refused_with_what_would_be_right() {
        for (pattern, right) in [
            ("login", "/login"),
            (" /login", "/login"),
            ("api/*", "/api/*"),
            ("*", "/**"),
            ("(login|/logout)", "/login"),
            ("/logout|login$", "/login$"),
            ("(?:api/v1/)", "/api/v1/"),
            ("/a%20b", "/a b"),
            ("/caf%C3%A9/*", "/café/*"),
            ("/a%2Eb", r"/a\\.b"),
            ("https://x/login", "/login"),
            ("http://x", "/"),
            ("/users/:id", "/users/*"),
            ("/users/:id/posts", "/users/*/posts"),
            ("/users/{id}", "/users/*"),
            ("/files/{tail:.*}", "/files/.*$"),
            ("/files/{tail}*", "/files/**"),
            (r"/u/{id:\d{2}}/{name}", r"/u/(\\d{2})/[^/]+$"),
            ("/search?q=x", "/search"),
            // Issue 9: the same in other words, and what other routers read.
            ("^login", "^/login"),
            (r"\Alogin$", r"\\A/login$"),
            ("(?i)login", "(?i)/login"),
            ("(?i)^login", "(?i)^/login"),
            ("^(login|/logout)", "/login"),
            ("(login)x", "/(login)x"),
            ("(?P<a>login)/x", "/(?P<a>login)/x"),
            ("(?:a|b)?login", "/(?:a|b)?login"),
            ("[a-z]+", "/[a-z]+"),
            ("[^/]+", "/[^/]+"),
            (r"\d+/x", r"/\\d+/x"),
            (r"\x61/x", r"/\\x61/x"),
            ("l?ogin", "/l?ogin"),
            ("**", "/**"),
            ("*.pdf", "/*.pdf"),
            ("/users/$id", r"/users/\\$id"),
            ("/a$/b", r"/a\\$/b"),
            ("$", "/$"),
            ("/users/<id>", "/users/*"),
            ("/users/<int:id>/x", "/users/*/x"),
            ("/files/<path:name>", "/files/**"),
        ] {
            let error = PathPattern::parse(pattern).unwrap_err().to_string();
            assert!(error.contains("is not a path pattern"), "{error}");
            assert!(
                error.contains(&format!("write \"{right}\"")),
                "{pattern}: {error}"
            );
        }
        for (pattern, path) in [
            (r"x?/api", "/api"),
            (r".*\.pdf$", "/a.pdf"),
            (r"[/]a", "/a"),
            (r"\/a", "/a"),
            (r"(/a|/b)/c", "/b/c"),
            ("/a{2,3}$", "/aaa"),
            ("/100%25", "/100%25"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb", "/a%2fb"),
            ("/a%2Bb", "/a+b"),
            (r"/a\+b", "/a%2bb"),
            ("/v1/x:archive", "/v1/x:archive"),
            ("//cdn/", "//cdn/x"),
            (r"\x2fa", "/a"),
            (r"\x{2F}a", "/a"),
            (r"\W[ab]$", "/a"),
            (r"(?:x|[^\]a])a", "/a"),
            (r"[]/]a", "/a"),
            ("(?i)(/A|/b)$", "/a/"),
            ("(?P<root>/)a", "/a"),
            ("(x|)/a", "/a"),
            ("x{0,2}/a", "/a"),
            ("()^/a", "/a"),
            (r"/a$|/b\z", "/b"),
            ("/a(/|$)", "/a"),
            ("/a$/?", "/a"),
            (r"/a\$b", "/a$b"),
            ("/a[$]b", "/a$b"),
            ("|", "/any"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_is_a_glob_or_a_regular_expression() {
        for pattern in ["/x(/*)?", "/files/*$", r"/a/*\.pdf"] {
            let error = PathPattern::parse(pattern).unwrap_err().to_string();
            assert!(error.contains("makes it a glob"), "{error}");
        }
        let error = PathPattern::parse("/api/(").unwrap_err().to_string();
        assert!(
            error.starts_with("\"/api/(\" is not a path pattern: "),
            "{error}"
        );
    }
}
