//! Values of the header fields that tell clients about their limits.
//!
//! `RateLimit` and `RateLimit-Policy` follow draft-ietf-httpapi-ratelimit-headers-11: structured
//! fields (RFC 9651), one list item per policy.
//! <https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/>

use std::time::Duration;

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
/// [window](crate::Strategy::window). Windows are whole seconds there: they are rounded up. One of no length is
/// not told: `w` is optional, and a policy says the same all the time.
pub fn push_policy(out: &mut String, name: &str, quota: u64, window: Duration) {
    push_name(out, name);
    out.push_str(";q=");
    push_number(out, quota.min(MAX_INTEGER));
    if !window.is_zero() {
        out.push_str(";w=");
        push_number(out, whole_seconds(window));
    }
}

/// Appends an item of `RateLimit-Policy`: `"uploads";q=4;qu="concurrent-requests"`, for a limit on how many
/// are under way at a time.
pub fn push_concurrency_policy(out: &mut String, name: &str, limit: u32) {
    push_name(out, name);
    out.push_str(";q=");
    push_number(out, limit.into());
    out.push_str(";qu=\"concurrent-requests\"");
}

/// Appends an item of `RateLimit`: `"api";r=42;t=13`. For a denial `t` equals `Retry-After`.
pub fn push_limit(out: &mut String, name: &str, decision: &Decision) {
    let Left { remaining, seconds } = Left::of(decision);
    push_name(out, name);
    out.push_str(REMAINING);
    push_number(out, remaining);
    out.push_str(SECONDS);
    push_number(out, seconds);
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
            seconds: match decision.verdict() {
                Verdict::Allow => decision.reset_seconds(),
                Verdict::Deny | Verdict::Never => {
                    retry_after(decision).unwrap_or_else(|| reset(decision))
                }
            },
        }
    }
}

/// What an item of `RateLimit` begins with, for [`limits`]: `"api";r=`.
#[doc(hidden)]
pub fn beginning(name: &str) -> Box<str> {
    let mut beginning = String::new();
    push_name(&mut beginning, name);
    beginning.push_str(REMAINING);
    beginning.into()
}

const REMAINING: &str = ";r=";
const SECONDS: &str = ";t=";

/// The items that [`push_limit`] would append, of their [beginnings](beginning): in one allocation that is
/// full, so that it becomes a header value without moving.
#[doc(hidden)]
pub fn limits(items: &[(&str, Left)]) -> Box<[u8]> {
    let longest = |(beginning, _): &(&str, Left)| beginning.len() + SECONDS.len() + 2 * LONGEST + 1;
    let most = items.iter().map(longest).sum();
    if most <= USUAL {
        Backwards::new(&mut [0; USUAL]).limits(items).into()
    } else {
        Backwards::new(&mut vec![0; most]).limits(items).into()
    }
}

/// What a few limits of usual names take at most.
const USUAL: usize = 256;

/// As many digits as `u64::MAX` has.
const LONGEST: usize = 20;

/// Writes into a room from its end, as numbers are written: nothing has to be measured before. Without
/// `format_args!`, which takes longer than a decision in memory.
struct Backwards<'t> {
    room: &'t mut [u8],
    start: usize,
}

impl<'t> Backwards<'t> {
    #[inline]
    fn new(room: &'t mut [u8]) -> Backwards<'t> {
        let start = room.len();
        Backwards { room, start }
    }

    #[inline]
    fn limits(mut self, items: &[(&str, Left)]) -> &'t [u8] {
        for (at, (beginning, left)) in items.iter().enumerate().rev() {
            self.put_number(left.seconds);
            self.put(SECONDS.as_bytes());
            self.put_number(left.remaining);
            self.put(beginning.as_bytes());
            // No comma before the first.
            if at > 0 {
                self.put(b",");
            }
        }
        self.written()
    }

    #[inline]
    fn put(&mut self, part: &[u8]) {
        let end = self.start;
        self.start -= part.len();
        self.room[self.start..end].copy_from_slice(part);
    }

    #[inline]
    fn put_number(&mut self, mut number: u64) {
        while number >= 100 {
            self.put(&PAIRS[(number % 100) as usize]);
            number /= 100;
        }
        match &PAIRS[(number % 100) as usize] {
            [b'0', digit] => self.put(&[*digit]),
            pair => self.put(pair),
        }
    }

    fn written(self) -> &'t [u8] {
        &self.room[self.start..]
    }
}

/// The digits of all numbers below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number as usize] = [b'0' + number / 10, b'0' + number % 10];
        number += 1_u8;
    }
    pairs
};

fn push_number(out: &mut String, number: u64) {
    let mut longest = [0; LONGEST];
    let mut digits = Backwards::new(&mut longest);
    digits.put_number(number);
    // Digits are ASCII.
    out.push_str(std::str::from_utf8(digits.written()).unwrap_or_default());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_structured_fields() {
        let mut policy = String::new();
        push_policy(&mut policy, "api", 100, Duration::from_secs(60));
        push_policy(&mut policy, "a\"b\\c", 5, Duration::from_millis(1_500));
        push_policy(&mut policy, "month", 7, Duration::ZERO);
        assert_eq!(policy, r#""api";q=100;w=60,"a\"b\\c";q=5;w=2,"month";q=7"#);

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
            let beginnings = names.map(beginning);
            let mut items = Vec::new();
            for (at, decision) in decisions[..some].iter().enumerate() {
                push_limit(&mut pushed, names[at], decision);
                items.push((&*beginnings[at], Left::of(decision)));
            }
            assert_eq!(String::from_utf8(limits(&items).into()).unwrap(), pushed);
            // And where the usual room is too small for them.
            let long = "n".repeat(200);
            let beginnings = names.map(|name| beginning(&format!("{name}{long}")));
            let (mut pushed, mut items) = (String::new(), Vec::new());
            for (at, decision) in decisions[..some].iter().enumerate() {
                push_limit(&mut pushed, &format!("{}{long}", names[at]), decision);
                items.push((&*beginnings[at], Left::of(decision)));
            }
            assert_eq!(String::from_utf8(limits(&items).into()).unwrap(), pushed);
        }
    }

    #[test]
    fn numbers_are_written_as_everybody_does() {
        for number in (0..=1_100).chain([9_999, 10_000, 12_345, u64::from(u32::MAX), u64::MAX]) {
            let mut written = String::new();
            push_number(&mut written, number);
            assert_eq!(written, number.to_string());
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
