//! What a file says, as a tree of values that know where they stand.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use traffik_core::{Error, Result};

/// The text of a [`LimitsFile`](crate::LimitsFile), read but not understood: what its format is does not matter any more.
///
/// It is made from TOML, where every mistake is told with its line and column, or by `serde` from anything else that has
/// tables, lists, texts, numbers and booleans, such as JSON and YAML; see
/// [`LimitsFileBuilder::format`](crate::LimitsFileBuilder::format).
///
/// ```
/// use traffik_actix::LimitsDocument;
///
/// let error = LimitsDocument::from_toml("[throttle.api]\nrate =\n").unwrap_err();
/// assert!(error.to_string().starts_with("2:7: "), "{error}");
/// # let _: LimitsDocument = serde_json::from_str(r#"{"throttle": {"api": {"rate": "1/s"}}}"#).unwrap();
/// ```
pub struct LimitsDocument(pub(super) Node);

/// A line and a column, from 1, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    column: usize,
}

pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Option<Place>,
}

pub(super) enum Value {
    Text(String),
    /// As it is written in decimal.
    Whole(String),
    Fraction(String),
    Flag(bool),
    List(Vec<Node>),
    /// In the order of the text.
    Table(Vec<(Key, Node)>),
    /// Something else, and what it is called.
    Other(&'static str),
}

pub(super) struct Key {
    pub(super) text: String,
    pub(super) place: Option<Place>,
}

/// What is wrong, and where.
pub(super) struct Mistake {
    pub(super) place: Option<Place>,
    pub(super) what: String,
}

/// The result of reading a part.
pub(super) type Read<T> = std::result::Result<T, Mistake>;

/// All that is wrong, as far as it can be told at once. Every [table](super::reader::Table) of a file adds to it.
#[derive(Default)]
pub(super) struct Mistakes(RefCell<Vec<Mistake>>);

impl LimitsDocument {
    /// Reads TOML.
    ///
    /// # Errors
    ///
    /// If it is none, with line and column: `2:7: ..`.
    pub fn from_toml(text: &str) -> Result<LimitsDocument> {
        Self::parse(text).map_err(|mistake| match mistake.place {
            Some(place) => Error::invalid(format!("{place}: {}", mistake.what)),
            None => Error::invalid(mistake.what),
        })
    }

    pub(super) fn parse(text: &str) -> Read<LimitsDocument> {
        let places = Places::of(text);
        let table = DeTable::parse(text).map_err(|error| Mistake {
            place: error.span().map(|span| places.at(span.start)),
            what: error.message().replace('\n', ", "),
        })?;
        Ok(LimitsDocument(Node {
            value: table_of(table.get_ref(), &places),
            place: None,
        }))
    }
}

impl Mistake {
    pub(super) fn at(place: Option<Place>, what: impl fmt::Display) -> Mistake {
        let what = what.to_string();
        Mistake { place, what }
    }

    pub(super) fn within(self, file: &str) -> Error {
        Error::invalid(self.line(file))
    }

    fn line(self, file: &str) -> String {
        match self.place {
            Some(place) => format!("{file}:{place}: {}", self.what),
            None => format!("{file}: {}", self.what),
        }
    }
}

impl Mistakes {
    /// So many are told.
    const MOST: usize = 20;

    pub(super) fn add(&self, one: Mistake) {
        self.0.borrow_mut().push(one);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// One error, in the order of the file, each mistake on a line of its own.
    pub(super) fn within(self, file: &str) -> Error {
        let mut all = self.0.into_inner();
        all.sort_by_key(|mistake| mistake.place);
        let more = all.len().saturating_sub(Self::MOST);
        all.truncate(Self::MOST);
        let lines = all.into_iter().map(|mistake| mistake.line(file));
        let mut text = lines.collect::<Vec<_>>().join("\n");
        if more > 0 {
            let _ = write!(text, "\n{file}: and {more} more mistakes");
        }
        Error::invalid(text)
    }
}

impl From<Mistake> for Mistakes {
    fn from(one: Mistake) -> Mistakes {
        Mistakes(RefCell::new(vec![one]))
    }
}

impl Node {
    /// What it says, whatever is around it. For comparisons, never to be shown: it may be secret.
    pub(super) fn said(&self) -> String {
        let mut said = String::new();
        self.say(&mut said);
        said
    }

    fn say(&self, out: &mut String) {
        match &self.value {
            Value::Text(text) => {
                let _ = write!(out, "{text:?}");
            }
            Value::Whole(number) | Value::Fraction(number) => out.push_str(number),
            Value::Flag(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Value::List(all) => {
                out.push('[');
                for one in all {
                    one.say(out);
                    out.push(',');
                }
                out.push(']');
            }
            Value::Table(entries) => {
                out.push('{');
                for (key, node) in entries {
                    let _ = write!(out, "{:?}=", key.text);
                    node.say(out);
                    out.push(',');
                }
                out.push('}');
            }
            Value::Other(what) => out.push_str(what),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Values may be secret.
impl fmt::Debug for LimitsDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LimitsDocument(..)")
    }
}

/// Where bytes of a text are, found at the same cost wherever that is: a file has as many values as it likes.
struct Places<'a> {
    text: &'a str,
    /// Where each line begins.
    lines: Vec<usize>,
    /// How many characters begin before each block.
    characters: Vec<usize>,
}

impl<'a> Places<'a> {
    const BLOCK: usize = 128;

    fn of(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        let mut sum = 0;
        let blocks = text.as_bytes().chunks(Self::BLOCK).map(|block| {
            sum += begun(block);
            sum
        });
        Places {
            text,
            lines: std::iter::once(0).chain(ends).collect(),
            characters: std::iter::once(0).chain(blocks).collect(),
        }
    }

    fn at(&self, at: usize) -> Place {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        // The first begins at 0.
        let line = self.lines.partition_point(|start| *start <= at);
        Place {
            line,
            column: self.before(at) - self.before(self.lines[line - 1]) + 1,
        }
    }

    /// How many characters begin before this.
    fn before(&self, at: usize) -> usize {
        let block = at / Self::BLOCK;
        self.characters[block] + begun(&self.text.as_bytes()[block * Self::BLOCK..at])
    }
}

/// How many characters begin in a piece of a text.
fn begun(piece: &[u8]) -> usize {
    let goes_on = |byte: &&u8| (**byte & 0b1100_0000) == 0b1000_0000;
    piece.len() - piece.iter().filter(goes_on).count()
}

fn table_of(table: &DeTable<'_>, places: &Places<'_>) -> Value {
    let entry = |(key, node): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
        let name = Key {
            text: key.get_ref().clone().into_owned(),
            place: Some(places.at(key.span().start)),
        };
        (name, node_of(node, places))
    };
    let mut entries: Vec<_> = table.iter().map(entry).collect();
    entries.sort_by_key(|(key, _)| key.place);
    Value::Table(entries)
}

fn node_of(node: &Spanned<DeValue<'_>>, places: &Places<'_>) -> Node {
    let value = match node.get_ref() {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Whole(number.to_string()),
            Err(_) => Value::Other("a number that is too large"),
        },
        DeValue::Float(number) => Value::Fraction(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(all) => Value::List(all.iter().map(|one| node_of(one, places)).collect()),
        DeValue::Table(table) => table_of(table, places),
    };
    Node {
        value,
        place: Some(places.at(node.span().start)),
    }
}

impl<'de> Deserialize<'de> for LimitsDocument {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        Node::deserialize(from).map(LimitsDocument)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let value = from.deserialize_any(AnyValue)?;
        Ok(Node { value, place: None })
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table, a list, a text, a number or a boolean")
    }

    fn visit_bool<E>(self, flag: bool) -> std::result::Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> std::result::Result<Value, E> {
        Ok(Value::Whole(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> std::result::Result<Value, E> {
        Ok(Value::Whole(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> std::result::Result<Value, E> {
        Ok(Value::Fraction(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Other("nothing"))
    }

    fn visit_none<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Other("nothing"))
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> std::result::Result<Value, D::Error> {
        from.deserialize_any(AnyValue)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = seq.next_element::<Node>()? {
            all.push(one);
        }
        Ok(Value::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        while let Some((text, node)) = map.next_entry::<String, Node>()? {
            if entries.iter().any(|(key, _)| key.text == text) {
                return Err(A::Error::custom(format_args!(
                    "the key `{text}` is given twice"
                )));
            }
            entries.push((Key { text, place: None }, node));
        }
        Ok(Value::Table(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each was counted from the beginning of the text, so that a long file took minutes.
    #[test]
    fn places_are_as_if_counted_from_the_beginning() {
        let long = format!("a = \"{}\"\nb = 1\n", "äx€😀".repeat(200));
        for text in ["", "\n", "x", "\n\nx\n", "ä\nü = 1\r\n", &long] {
            let places = Places::of(text);
            for at in 0..=text.len() + 2 {
                let mut end = at.min(text.len());
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                let before = &text[..end];
                let last = before.rsplit('\n').next().unwrap_or_default();
                let expected = Place {
                    line: before.matches('\n').count() + 1,
                    column: last.chars().count() + 1,
                };
                assert_eq!(places.at(at), expected, "{at} in {text:?}");
            }
        }
    }
}
