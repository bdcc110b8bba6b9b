//! The protocol of Redis, as far as decisions need it: where a reply ends, and how a command is written.

use std::io;

/// A reply longer than this is none of Redis's.
const LONGEST: usize = 512 * 1024 * 1024;

/// How many bytes the first reply has, or `None` if not all of it is there.
///
/// # Errors
///
/// If it is no reply.
pub(super) fn length(bytes: &[u8]) -> io::Result<Option<usize>> {
    // Of a list first its length is read, and then as many replies.
    let (mut at, mut missing) = (0, 1_usize);
    while missing > 0 {
        let Some((kind, line)) = line(bytes.get(at..).unwrap_or_default()) else {
            return Ok(None);
        };
        missing -= 1;
        at += line.len() + 3;
        let more = match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => 0,
            b'$' | b'!' | b'=' => {
                at = at.saturating_add(number(line)?.map_or(0, |length| length + 2));
                0
            }
            b'*' | b'~' | b'>' => number(line)?.unwrap_or(0),
            b'%' => 2 * number(line)?.unwrap_or(0),
            b'|' => 2 * number(line)?.unwrap_or(0) + 1,
            _ => return Err(malformed()),
        };
        missing = missing.saturating_add(more);
    }
    Ok((at <= bytes.len()).then_some(at))
}

/// What is in a reply, if it is a text.
pub(super) fn text(reply: &[u8]) -> Option<&[u8]> {
    let (b'$', head) = line(reply)? else {
        return None;
    };
    // There is a text unless the length is -1, and then nothing is behind the line.
    reply.get(head.len() + 3..)?.strip_suffix(b"\r\n")
}

/// Whether nobody has asked for it.
pub(super) fn is_push(reply: &[u8]) -> bool {
    reply.first() == Some(&b'>')
}

/// Begins a command of so many arguments.
pub(super) fn begin(arguments: usize, to: &mut Vec<u8>) {
    head(b'*', arguments, to);
}

/// Adds an argument to a command, which consists of these pieces.
pub(super) fn argue(pieces: &[&[u8]], to: &mut Vec<u8>) {
    head(b'$', pieces.iter().map(|piece| piece.len()).sum(), to);
    for piece in pieces {
        to.extend_from_slice(piece);
    }
    to.extend_from_slice(b"\r\n");
}

fn head(kind: u8, number: usize, to: &mut Vec<u8>) {
    let [small, ..] = number.to_le_bytes();
    match number {
        // Nearly all are.
        0..10 => to.extend_from_slice(&[kind, b'0' + small, b'\r', b'\n']),
        10..100 => {
            let (tens, ones) = (b'0' + small / 10, b'0' + small % 10);
            to.extend_from_slice(&[kind, tens, ones, b'\r', b'\n']);
        }
        _ => {
            to.push(kind);
            Decimal::of(number as u64).then(|digits| to.extend_from_slice(digits));
            to.extend_from_slice(b"\r\n");
        }
    }
}

/// A number as text.
pub(super) struct Decimal(u64);

impl Decimal {
    pub(super) fn of(number: u64) -> Decimal {
        Decimal(number)
    }

    pub(super) fn then<T>(self, take: impl FnOnce(&[u8]) -> T) -> T {
        let (mut digits, mut start, mut left) = ([0; 20], 20, self.0);
        loop {
            start -= 1;
            let [digit, ..] = (left % 10).to_le_bytes();
            digits[start] = b'0' + digit;
            left /= 10;
            if left == 0 {
                return take(&digits[start..]);
            }
        }
    }
}

/// The kind of a reply, and the rest of its first line.
fn line(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    Some((*kind, &rest[..end]))
}

/// `None` stands for nothing: -1.
fn number(line: &[u8]) -> io::Result<Option<usize>> {
    let add = |number: Option<usize>, digit: &u8| match digit {
        b'0'..=b'9' => Some(10 * number? + usize::from(digit - b'0')),
        _ => None,
    };
    match line {
        b"-1" => return Ok(None),
        [] => {}
        // `LONGEST` has nine digits.
        [..] if line.len() < 10 => match line.iter().fold(Some(0), add) {
            Some(number) if number <= LONGEST => return Ok(Some(number)),
            _ => {}
        },
        [..] => {}
    }
    Err(malformed())
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "this is no reply of a redis")
}

#[cfg(test)]
mod tests {
    use redis::{Value, parse_redis_value};

    use super::*;

    const REPLIES: &[&[u8]] = &[
        b"+OK\r\n",
        b"-NOSCRIPT No matching script\r\n",
        b":-7\r\n",
        b"_\r\n",
        b",1.5\r\n",
        b"#t\r\n",
        b"(12345678901234567890\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"$4\r\n\r\n\r\n\r\n",
        b"!9\r\nERR wrong\r\n",
        b"=8\r\ntxt:some\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*2\r\n*1\r\n:1\r\n$1\r\na\r\n",
        b"~1\r\n+a\r\n",
        b"%1\r\n+a\r\n*1\r\n:1\r\n",
        b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n",
    ];

    /// However much of it has arrived, and whatever comes after it.
    #[test]
    fn a_reply_ends_where_it_ends() {
        for reply in REPLIES {
            for arrived in 0..reply.len() {
                assert_eq!(length(&reply[..arrived]).unwrap(), None, "{reply:?}");
            }
            for next in REPLIES {
                let both = [*reply, *next].concat();
                assert_eq!(length(&both).unwrap(), Some(reply.len()), "{reply:?}");
            }
        }
    }

    #[test]
    fn a_text_is_what_the_client_reads() {
        for reply in REPLIES {
            let read = match parse_redis_value(reply).unwrap() {
                Value::BulkString(text) => Some(text),
                _ => None,
            };
            assert_eq!(text(reply).map(<[u8]>::to_vec), read, "{reply:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for reply in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"$x\r\n",
            b"$\r\n",
            b"$-2\r\n",
            b"$99999999999999999999\r\n",
            b"$999999999999\r\n",
            b"*?\r\n",
            b"\r\n\r\n",
            b"*1\r\n\0\r\n",
        ] {
            assert!(length(reply).is_err(), "{reply:?}");
        }
    }

    #[test]
    fn a_command_is_what_the_client_would_write() {
        for number in [0, 9, 10, 12_345, u64::MAX] {
            let mut ours = Vec::new();
            begin(3, &mut ours);
            argue(&[b"GET"], &mut ours);
            argue(&[], &mut ours);
            Decimal::of(number).then(|digits| argue(&[digits], &mut ours));
            let mut theirs = redis::cmd("GET");
            theirs.arg("").arg(number);
            assert_eq!(ours, theirs.get_packed_command());
        }
        for length in [0, 1, 9, 10, 11, 99, 100, 101, 1_000, 12_345] {
            let (text, mut ours) = (vec![b'x'; length], Vec::new());
            begin(1 + length, &mut ours);
            let (begins, ends) = text.split_at(length / 3);
            argue(&[begins, ends], &mut ours);
            for _ in 0..length {
                argue(&[&text[..1]], &mut ours);
            }
            let mut theirs = redis::Cmd::new();
            theirs.arg(&text);
            for _ in 0..length {
                theirs.arg("x");
            }
            assert_eq!(ours, theirs.get_packed_command());
        }
    }
}
