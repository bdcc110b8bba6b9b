//! Values of the header fields that tell clients about their limits.
//!
//! `RateLimit` and `RateLimit-Policy` follow draft-ietf-httpapi-ratelimit-headers-11: structured
//! fields (RFC 9651), one list item per policy.
//! <https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/>

use std::time::Duration;

use smallvec::SmallVec;

use crate::decision::{Decision, Verdict};

/// The largest structured-field integer, RFC 9651 section 3.3.1.
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// Seconds for `Retry-After`: the wait rounded **up**, at least 1. `None` unless the hit was denied
/// and would be admitted later.
pub fn retry_after(decision: &Decision) -> Option<u64> {
    decision
        .retry_after()
        .map(|wait| whole_seconds(wait).max(1))
}

/// Seconds until the quota is as good as untouched, rounded up.
pub fn reset(decision: &Decision) -> u64 {
    whole_seconds(decision.reset())
}

/// The seconds of a duration, rounded up.
pub fn whole_seconds(duration: Duration) -> u64 {
    let up = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(up)
}

/// Appends an item of `RateLimit-Policy`: `"api";q=100;w=60`, for a quota that is earned in a
/// [window](crate::Strategy::window). Windows are whole seconds there: they are rounded up.
pub fn push_policy(out: &mut String, name: &str, quota: u64, window: Duration) {
    push_name(out, name);
    out.push_str(";q=");
    out.push_str(Digits::of(quota.min(MAX_INTEGER)).as_str());
    out.push_str(";w=");
    out.push_str(Digits::of(whole_seconds(window).max(1)).as_str());
}

/// Appends an item of `RateLimit`: `"api";r=42;t=13`. For a denial `t` equals `Retry-After`.
pub fn push_limit(out: &mut String, name: &str, decision: &Decision) {
    let Left { remaining, seconds } = Left::of(decision);
    push_name(out, name);
    out.push_str(";r=");
    out.push_str(Digits::of(remaining).as_str());
    out.push_str(";t=");
    out.push_str(Digits::of(seconds).as_str());
}

/// The numbers of an item of `RateLimit`, for adapters.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Left {
    pub remaining: u64,
    pub seconds: u64,
}

impl Left {
    #[inline]
    pub fn of(decision: &Decision) -> Left {
        Left {
            remaining: match decision.verdict() {
                Verdict::Deny => 0,
                Verdict::Allow | Verdict::Never => decision.remaining().min(MAX_INTEGER),
            },
            seconds: retry_after(decision).unwrap_or_else(|| reset(decision)),
        }
    }
}

/// A name as items begin with it, for [`limits`].
#[doc(hidden)]
pub fn quoted(name: &str) -> Box<str> {
    let mut quoted = String::new();
    push_name(&mut quoted, name);
    quoted.into()
}

/// The items that [`push_limit`] would append, of [quoted] names: in one allocation that is full, so
/// that it becomes a header value without moving.
#[doc(hidden)]
pub fn limits(items: &[(&str, Left)]) -> Vec<u8> {
    let digits = |(_, left): &(&str, Left)| (Digits::of(left.remaining), Digits::of(left.seconds));
    let digits: SmallVec<[(Digits, Digits); 3]> = items.iter().map(digits).collect();
    let lengths = items.iter().zip(&digits);
    let length = lengths.map(|((name, _), (remaining, seconds))| {
        name.len() + remaining.bytes().len() + seconds.bytes().len() + ",;r=;t=".len()
    });
    // No comma before the first.
    let mut out = Vec::with_capacity(length.sum::<usize>().saturating_sub(1));
    for ((name, _), (remaining, seconds)) in items.iter().zip(&digits) {
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b";r=");
        out.extend_from_slice(remaining.bytes());
        out.extend_from_slice(b";t=");
        out.extend_from_slice(seconds.bytes());
    }
    out
}

fn push_name(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push('"');
    // Most names need no escape, and are copied at once.
    let mut rest = name;
    while let Some(at) = rest.find(['"', '\\']) {
        out.push_str(&rest[..at]);
        out.push('\\');
        out.push_str(&rest[at..=at]);
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// A number in decimal, written without `format_args!`, which takes longer than a decision in
/// memory.
struct Digits {
    /// As many as `u64::MAX` has.
    all: [u8; 20],
    first: usize,
}

impl Digits {
    fn of(mut value: u64) -> Digits {
        let mut all = [b'0'; 20];
        let mut first = all.len() - 1;
        loop {
            all[first] += (value % 10) as u8;
            value /= 10;
            if value == 0 {
                return Digits { all, first };
            }
            first -= 1;
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.all[self.first..]
    }

    fn as_str(&self) -> &str {
        // Digits are ASCII.
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_structured_fields() {
        let mut policy = String::new();
        push_policy(&mut policy, "api", 100, Duration::from_secs(60));
        push_policy(&mut policy, "a\"b\\c", 5, Duration::from_millis(1_500));
        assert_eq!(policy, r#""api";q=100;w=60,"a\"b\\c";q=5;w=2"#);

        let mut limit = String::new();
        push_limit(
            &mut limit,
            "api",
            &Decision::allow(100, 42).resets_in(12_000_001),
        );
        push_limit(
            &mut limit,
            "huge",
            &Decision::allow(u64::MAX - 1, u64::MAX - 1),
        );
        assert_eq!(limit, r#""api";r=42;t=13,"huge";r=999999999999999;t=0"#);
    }

    #[test]
    fn items_are_the_same_however_they_are_written() {
        let names = ["api", r#"a "b" \c"#, "x"];
        let decisions = [
            Decision::allow(100, 42).resets_in(12_000_001),
            Decision::deny(10, 3, 2_500_000),
            Decision::allow(u64::MAX - 1, u64::MAX - 1),
        ];
        for some in 0..=names.len() {
            let mut pushed = String::new();
            let quoted = names.map(quoted);
            let mut items = Vec::new();
            for (at, decision) in decisions[..some].iter().enumerate() {
                push_limit(&mut pushed, names[at], decision);
                items.push((&*quoted[at], Left::of(decision)));
            }
            let at_once = limits(&items);
            assert_eq!(String::from_utf8(at_once.clone()).unwrap(), pushed);
            assert_eq!(at_once.capacity(), at_once.len(), "it would move");
        }
    }

    #[test]
    fn retry_after_is_rounded_up_and_at_least_one() {
        let deny = |micros| retry_after(&Decision::deny(1, 0, micros));
        assert_eq!(deny(1), Some(1));
        assert_eq!(deny(1_000_000), Some(1));
        assert_eq!(deny(1_000_001), Some(2));
        assert_eq!(deny(0), Some(1));
        assert_eq!(retry_after(&Decision::never(1, 1)), None);
        assert_eq!(retry_after(&Decision::allow(1, 1)), None);
    }

    #[test]
    fn a_denial_tells_the_same_time_twice() {
        let mut limit = String::new();
        let denied = Decision::deny(10, 3, 2_500_000).resets_in(60_000_000);
        push_limit(&mut limit, "api", &denied);
        assert_eq!(limit, r#""api";r=0;t=3"#);
    }
}
