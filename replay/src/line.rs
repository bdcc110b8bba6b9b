//! A line of a log.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::args::Who;
use crate::time::{self, At};

/// A request, as far as limits look at it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) who: Cow<'a, str>,
    pub(crate) method: Cow<'a, str>,
    pub(crate) path: Cow<'a, str>,
    pub(crate) at: At,
}

/// Reads a line: a JSON object, or as nginx and Apache write it.
pub(crate) fn read<'a>(line: &'a [u8], who: &Who) -> Option<Entry<'a>> {
    match line.trim_ascii_start().first()? {
        b'{' => json(line, who),
        _ => common(std::str::from_utf8(line).ok()?, who),
    }
}

/// `host ident user [time] "GET /path HTTP/1.1" ..`.
fn common<'a>(line: &'a str, who: &Who) -> Option<Entry<'a>> {
    let (names, rest) = line.split_once(" [")?;
    let (at, rest) = rest.split_once("] \"")?;
    let mut names = names.splitn(3, ' ');
    let (address, user) = (names.next()?, names.nth(1)?);
    let who = match who {
        Who::Address => address,
        Who::Field(field) if field == "user" => Some(user).filter(|user| *user != "-")?,
        Who::Field(_) => return None,
    };
    let (method, path) = request(rest.split('"').next()?)?;
    Some(Entry {
        who: Cow::Borrowed(who),
        method: Cow::Borrowed(method),
        path: Cow::Borrowed(path),
        at: time::common(at.as_bytes())?,
    })
}

/// `GET /path?query HTTP/1.1`, without the query.
fn request(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    Some((method, target.split('?').next()?))
}

fn json<'a>(line: &'a [u8], who: &Who) -> Option<Entry<'a>> {
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    let found = deserializer.deserialize_map(Fields { who }).ok()?;
    let (mut method, mut path) = (found.method, found.path);
    if let Some(line) = found.request.as_deref().and_then(request) {
        method.get_or_insert_with(|| Cow::Owned(line.0.to_owned()));
        path.get_or_insert_with(|| Cow::Owned(line.1.to_owned()));
    }
    Some(Entry {
        who: found.who?,
        method: method.unwrap_or_default(),
        path: match path.unwrap_or_default() {
            Cow::Borrowed(path) => Cow::Borrowed(path.split('?').next()?),
            Cow::Owned(path) => Cow::Owned(path.split('?').next()?.to_owned()),
        },
        at: found.at?,
    })
}

#[derive(Default)]
struct Found<'a> {
    who: Option<Cow<'a, str>>,
    method: Option<Cow<'a, str>>,
    path: Option<Cow<'a, str>>,
    request: Option<Cow<'a, str>>,
    at: Option<At>,
}

/// Fields as they are usually called. The first of several counts.
struct Fields<'w> {
    who: &'w Who,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        let mut found = Found::default();
        while let Some(Text(key)) = map.next_key()? {
            let is_who = match self.who {
                Who::Address => matches!(
                    &*key,
                    "remote_addr" | "remote_ip" | "client_ip" | "client" | "ip" | "host"
                ),
                Who::Field(field) => *key == **field,
            };
            match &*key {
                _ if is_who && found.who.is_none() => {
                    found.who = map.next_value::<Scalar<'de>>()?.text()
                }
                "method" | "request_method" if found.method.is_none() => {
                    found.method = map.next_value::<Scalar<'de>>()?.text();
                }
                "path" | "uri" | "request_uri" | "url" if found.path.is_none() => {
                    found.path = map.next_value::<Scalar<'de>>()?.text();
                }
                "request" if found.request.is_none() => {
                    found.request = map.next_value::<Scalar<'de>>()?.text();
                }
                "time" | "timestamp" | "@timestamp" | "ts" | "msec" | "time_iso8601"
                | "time_local"
                    if found.at.is_none() =>
                {
                    found.at = map.next_value::<Scalar<'de>>()?.time();
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// A text, borrowed if nothing in it is escaped.
struct Text<'a>(Cow<'a, str>);

/// A text, a number, or something else.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Other,
}

impl<'a> Scalar<'a> {
    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Scalar::Text(text) => Some(text),
            Scalar::Number(number) => Some(Cow::Owned(number.to_string())),
            Scalar::Other => None,
        }
    }

    fn time(self) -> Option<At> {
        match self {
            Scalar::Text(text) => time::iso(text.as_bytes())
                .or_else(|| time::common(text.as_bytes()))
                .or_else(|| time::epoch(text.parse().ok()?)),
            Scalar::Number(number) => time::epoch(number),
            Scalar::Other => None,
        }
    }
}

impl<'de> serde::Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(Any)? {
            Scalar::Text(text) => Ok(Text(text)),
            _ => Err(serde::de::Error::custom("a key is no text")),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(number))
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "no time and no name is that large"
    )]
    fn visit_u64<E>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(number as f64))
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "no time and no name is that large"
    )]
    fn visit_i64<E>(self, number: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Scalar<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: u64 = 971_211_336_000_000;

    fn entry(line: &str, who: &Who) -> Option<(String, String, String, u64)> {
        let entry = read(line.as_bytes(), who)?;
        let [who, method, path] = [entry.who, entry.method, entry.path].map(Cow::into_owned);
        Some((who, method, path, entry.at.micros))
    }

    #[test]
    fn every_usual_line_is_read() {
        let lines = [
            r#"192.0.2.1 - ann [10/Oct/2000:13:55:36 -0700] "GET /a?b=c HTTP/1.0" 200 2326"#,
            r#"192.0.2.1 - ann [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.0" 200 2326 "http://x/" "y \"z\"""#,
            r#"{"remote_addr":"192.0.2.1","user":"ann","time_iso8601":"2000-10-10T13:55:36-07:00","request":"GET /a HTTP/1.1"}"#,
            r#"{"ts":971211336,"request_method":"GET","uri":"\/a?b","client_ip":"192.0.2.1","user":"ann","more":{"time":[1]}}"#,
        ];
        for line in lines {
            let by = |who: &str| Some((who.to_owned(), "GET".to_owned(), "/a".to_owned(), TIME));
            assert_eq!(entry(line, &Who::Address), by("192.0.2.1"), "{line}");
            assert_eq!(
                entry(line, &Who::Field("user".to_owned())),
                by("ann"),
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_no_request_is_none() {
        let lines = [
            "",
            "hello",
            r#"192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] "-" 400 0"#,
            r#"192.0.2.1 - - [yesterday] "GET / HTTP/1.0" 200 2326"#,
            r#"{"remote_addr":"192.0.2.1"}"#,
            r#"{"remote_addr":"192.0.2.1","ts":1,"#,
            "[1]",
        ];
        for line in lines {
            assert_eq!(entry(line, &Who::Address), None, "{line}");
        }
        let nobody = r#"192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 2326"#;
        assert_eq!(entry(nobody, &Who::Field("user".to_owned())), None);
    }
}
