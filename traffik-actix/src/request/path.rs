//! One idea of what the path of a request is, for everything that looks at paths.
//!
//! A router may serve one resource at several spellings of its path: actix-web decodes `%61`, and
//! `NormalizePath`, which may stand behind a middleware, merges slashes and adds or drops the last one.
//! Handlers go on: `web::Path` decodes `%2B`, file servers resolve `..`. Whoever looks at the path as it
//! was sent disagrees with them about some request, and clients choose which.

use std::borrow::Cow;

use actix_web::HttpRequest;
use actix_web::dev::ResourceMap;
use smallvec::SmallVec;

/// The one spelling of a path that all of them have in common: decoded as actix-web does it, without
/// empty and dot segments and a slash at the end.
pub(crate) fn canonical(path: &str) -> Cow<'_, str> {
    spelling(path, true)
}

/// The same as routers see it, with dot segments.
fn merged(path: &str) -> Cow<'_, str> {
    spelling(path, false)
}

fn spelling(path: &str, dots: bool) -> Cow<'_, str> {
    match is_plain(path) {
        true => Cow::Borrowed(without_last_slash(path)),
        false => Cow::Owned(rewritten(path, dots)),
    }
}

/// Whether some spelling of a path, under which a router may serve it, is what is looked for.
#[inline]
pub(crate) fn any_spelling(path: &str, wanted: impl Fn(&str) -> bool) -> bool {
    wanted(path)
        || match is_plain(path) {
            true => wanted_at_other_end(path, &wanted),
            false => {
                // What `NormalizePath` makes of it, and what a file server does.
                [false, true].into_iter().any(|dots| {
                    let path = rewritten(path, dots);
                    wanted(&path) || wanted_at_other_end(&path, &wanted)
                })
            }
        }
}

/// The pattern of the route that a request is for, if it is for one.
pub(crate) fn route(req: &HttpRequest) -> Option<String> {
    let (map, sent) = (req.resource_map(), req.path());
    let routed = req.match_pattern();
    let path = req.match_info().as_str();
    let canonical = canonical(path);
    if routed.is_some() && canonical == sent {
        return routed;
    }
    // Where nothing of the path is left the router has been there, and no other spelling than the one it has seen
    // leads to where the request is.
    if routed.is_some() && req.match_info().unprocessed().is_empty() {
        // It knows better than its map, unless actix only looked for what was sent, encoded as it was.
        let only_looked = path != sent && routed == map.match_pattern(sent);
        let seen = only_looked.then(|| map.match_pattern(path)).flatten();
        return seen.or(routed).map(|route| at_either_end(map, path, route));
    }
    // `NormalizePath` may be further in. No router resolves dot segments.
    [merged(path), canonical]
        .iter()
        .find_map(|path| {
            let longer = || map.match_pattern(&format!("{path}/"));
            map.match_pattern(path).or_else(longer)
        })
        .or_else(|| map.match_pattern(path))
        .or(routed)
}

/// The route without a slash at its end, if there is one as well: they are one, as for requests that are not
/// routed yet.
fn at_either_end(map: &ResourceMap, path: &str, route: String) -> String {
    let shorter = without_last_slash(path);
    match shorter.len() < path.len() {
        true => map
            .match_pattern(shorter)
            .filter(|other| other == without_last_slash(&route))
            .unwrap_or(route),
        false => route,
    }
}

/// Whether a path has but two spellings, with and without a slash at its end.
fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains('%')
        && !path
            .as_bytes()
            .windows(2)
            .any(|pair| pair == b"//" || pair == b"/.")
}

fn without_last_slash(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some("") | None => path,
        Some(shorter) => shorter,
    }
}

/// The same with a slash at the end, or without. Long paths are rare, others need no allocation.
fn wanted_at_other_end(path: &str, wanted: impl Fn(&str) -> bool) -> bool {
    let shorter = without_last_slash(path);
    if shorter.len() < path.len() {
        return wanted(shorter);
    }
    let mut longer = SmallVec::<[u8; 128]>::from_slice(path.as_bytes());
    longer.push(b'/');
    std::str::from_utf8(&longer).is_ok_and(wanted)
}

/// A path without empty segments and last slash; without dot segments as well, if they are to be resolved.
/// The three characters that actix-web leaves encoded are written in one way.
#[cold]
fn rewritten(path: &str, dots: bool) -> String {
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" => {}
            "." if dots => {}
            ".." if dots => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut path = String::with_capacity(path.len() + 1);
    for segment in kept {
        path.push('/');
        path.push_str(&reencoded(segment));
    }
    if path.is_empty() {
        path.push('/');
    }
    path
}

/// `%2f` as `%2F`, and `%2B` as the `+` that it means.
pub(crate) fn reencoded(text: &str) -> Cow<'_, str> {
    match text.contains('%') {
        true => Cow::Owned(
            text.replace("%2b", "+")
                .replace("%2B", "+")
                .replace("%2f", "%2F"),
        ),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_canonical_spelling() {
        for (path, expected) in [
            ("/", "/"),
            ("", "/"),
            ("*", "/*"),
            ("/p/a", "/p/a"),
            ("//p/a", "/p/a"),
            ("/p//a", "/p/a"),
            ("/p/a/", "/p/a"),
            ("///", "/"),
            ("/p/./a", "/p/a"),
            ("/x/../p/a", "/p/a"),
            ("/../../p/a", "/p/a"),
            ("/p/a/.", "/p/a"),
            ("/p/a/x/..", "/p/a"),
            ("/p/.a", "/p/.a"),
            ("/p/...", "/p/..."),
            ("/p/a\n", "/p/a\n"),
            ("/p%2fa", "/p%2Fa"),
            ("/p%2Ba", "/p+a"),
            ("/p%2ba", "/p+a"),
            ("/100%25", "/100%25"),
        ] {
            assert_eq!(canonical(path), expected, "{path:?}");
            assert_eq!(canonical(expected), expected, "{path:?}");
        }
    }
}
